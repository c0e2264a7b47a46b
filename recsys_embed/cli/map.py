"""recsys map: the items in two dimensions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from recsys_embed.cli.options import JSON, MODEL, with_settings
from recsys_embed.cli.output import echo, print_json
from recsys_embed.config.answers import MapConfig


@with_settings(config=MapConfig)
def draw(
    config: MapConfig,
    out: Annotated[Path, typer.Option(help="Folder of map.html and map.png.")] = Path("map"),
    compare: Annotated[
        str | None, typer.Option(help="Another model folder, whose map is aligned with this one to show changes.")
    ] = None,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """Draw a model's items in two dimensions: a page to explore in a browser, and a picture.

    Example: recsys map --colour year
    """
    from recsys_embed.cli.loading import load
    from recsys_embed.maps.draw import draw_map, trust_text

    start = time.perf_counter()
    recommender, folder = load(model)
    other = None if compare is None else load(compare)[0]
    drawn = draw_map(recommender, out, config, compare=other, title=folder.name)
    if json:
        return print_json({"model": str(folder), **drawn.summary()})
    projection = drawn.projection
    echo(f"{len(drawn.rows):,} items by {projection.name}; {trust_text(projection)}   model {folder}")
    if drawn.changes is not None:
        changes = drawn.changes
        nearest = f"{changes.churn:.0%} of their {changes.n_neighbours} nearest are others now"
        echo(f"{changes.n_shared:,} of them are in {compare} too: {nearest}")
    page = drawn.files[0]
    for file in drawn.files:
        echo(f"{file}   {file.stat().st_size / 1e6:.2f} MB")
    return echo(f"open {page.resolve().as_uri()}   ({time.perf_counter() - start:.1f} s)")
