"""Run the command line from a checkout, without installing: python cli.py train --dataset movielens"""

from recsys_embed.cli.main import main

if __name__ == "__main__":
    main()
