"""python -m recsys_embed"""

from recsys_embed.cli.main import main

if __name__ == "__main__":
    main()
