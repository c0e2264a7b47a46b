"""recsys similar: the items nearest to an item."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys_embed.cli.loading import load
from recsys_embed.cli.options import JSON, MODEL, K
from recsys_embed.cli.output import echo, print_json, print_table


def similar(
    item: Annotated[str, typer.Option(help="An item's id or title.")],
    k: K = 10,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """List the items whose vectors are nearest to an item's.

    Example: recsys similar --item "Toy Story"
    """
    recommender, folder = load(model)
    item_id = recommender.find_item(item)
    table = recommender.similar(item_id, k)
    if json:
        items = table.select(item="item_id", title="title", score="score", rank="rank").to_dicts()
        return print_json({"item": item_id, "items": items, "model": str(folder)})
    row = int(recommender.items.rows([item_id])[0])
    title, count = recommender.table["title"][row], int(recommender.item_counts[row])
    unit = "edges" if recommender.is_graph else "ratings"
    echo(f"Nearest to {item_id} {title}   ({count:,} {unit})   model {folder}")
    counts = recommender.item_counts[recommender.items.rows(table["item_id"])]
    rows = [
        [r["rank"], r["item_id"], r["title"], f"{r['score']:.3f}", f"{n:,}"]
        for r, n in zip(table.to_dicts(), counts, strict=True)
    ]
    return print_table(["#", "item", "title", "cosine", unit], rows, f"# item cosine {unit}")
