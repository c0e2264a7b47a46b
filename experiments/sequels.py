"""Do lists for one or two picked films continue the series? Twenty series of well-known films of MovieLens-1M.

    python experiments/sequels.py MODEL_FOLDER

For each series: the picks, and the rank of the best of the rest of the series in their list.
"""

from __future__ import annotations

import sys

from recsys_embed import Recommender
from recsys_embed.errors import UnknownId

# Picks, and the rest of the series.
SERIES: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("Star Wars: Episode IV", "Star Wars: Episode VI"), ("Star Wars: Episode V -",)),
    (("Godfather, The",), ("Godfather: Part II",)),
    (("Alien (1979)",), ("Aliens (1986)",)),
    (("Terminator, The",), ("Terminator 2",)),
    (("Raiders of the Lost Ark",), ("Indiana Jones and the Last Crusade", "Indiana Jones and the Temple of Doom")),
    (("Die Hard (1988)",), ("Die Hard 2", "Die Hard: With a Vengeance")),
    (("Back to the Future (1985)",), ("Back to the Future Part II (1989)", "Back to the Future Part III")),
    (("Toy Story (1995)",), ("Toy Story 2",)),
    (("Star Trek: The Wrath",), ("Star Trek IV", "Star Trek III", "Star Trek VI")),
    (("Batman (1989)",), ("Batman Returns", "Batman Forever")),
    (("Batman Forever", "Batman & Robin"), ("Batman Returns", "Batman (1989)")),
    (("Lethal Weapon (1987)",), ("Lethal Weapon 2", "Lethal Weapon 3")),
    (("Naked Gun: From",), ("Naked Gun 2 1/2", "Naked Gun 33 1/3")),
    (("Halloween (1978)",), ("Halloween II", "Halloween 5", "Halloween 4")),
    (("Scream (1996)",), ("Scream 2", "Scream 3")),
    (("Karate Kid, The (1984)",), ("Karate Kid, Part II",)),
    (("Rocky (1976)",), ("Rocky II (1979)", "Rocky III")),
    (("Jaws (1975)",), ("Jaws 2",)),
    (("Three Colors: Red", "Three Colors: Blue"), ("Three Colors: White",)),
    (("Wrong Trousers",), ("Close Shave", "Grand Day Out", "Wallace & Gromit")),
]


def main() -> None:
    model = Recommender.load(sys.argv[1])
    ids = dict(zip(model.table["title"].to_list(), model.table["item_id"].to_list(), strict=True))

    def find(name: str) -> object:
        return next((ids[title] for title in ids if title.startswith(name)), None)

    found = 0
    for picks, rest in SERIES:
        liked, others = [find(name) for name in picks], {find(name) for name in rest} - {None}
        if None in liked or not others:
            raise UnknownId(f"the model lacks {picks} or {rest}")
        listed = model.recommend_for(liked, k=200)["item_id"].to_list()
        rank = next((n for n, item in enumerate(listed, 1) if item in others), None)
        found += rank is not None and rank <= 5
        print(f"{', '.join(picks):60} {rank}")
    print(f"{found} of {len(SERIES)} within the first five")


if __name__ == "__main__":
    main()
