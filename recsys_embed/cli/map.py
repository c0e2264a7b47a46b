"""recsys map."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from recsys_embed.cli.options import JSON, MODEL, with_settings
from recsys_embed.cli.output import say, say_json
from recsys_embed.config.settings import MapConfig


@with_settings(config=MapConfig)
def draw(
    config: MapConfig,
    out: Annotated[Path, typer.Option(help="Folder of map.html and map.png.")] = Path("map"),
    compare: Annotated[
        str | None, typer.Option(help="Another model folder: its map is laid over this one, to show what moved.")
    ] = None,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """Draw the items of a model in two dimensions: a page to explore in a browser, and a picture.

    Example: recsys map --colour year
    """
    from recsys_embed.cli.similar import load
    from recsys_embed.maps.draw import draw_map, trust_text

    begin = time.perf_counter()
    recommender, folder = load(model)
    other = None if compare is None else load(compare)[0]
    drawn = draw_map(recommender, out, config, compare=other, title=folder.name)
    if json:
        return say_json({"model": str(folder), **drawn.summary()})
    projection = drawn.projection
    say(f"{len(drawn.rows):,} items by {projection.name}; {trust_text(projection)}   model {folder}")
    if drawn.moves is not None:
        m = drawn.moves
        say(f"{m.shared:,} of them are in {compare} too: {m.churn:.0%} of their {m.of} nearest are others now")
    page = drawn.files[0]
    for file in drawn.files:
        say(f"{file}   {file.stat().st_size / 1e6:.2f} MB")
    return say(f"open {page.resolve().as_uri()}   ({time.perf_counter() - begin:.1f} s)")
