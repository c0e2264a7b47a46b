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
    by: Annotated[
        str | None,
        typer.Option(
            metavar="<name>",
            help="embeddings: the nearest vectors; neighbours: rated by the same users. (default: embeddings, if the "
            "model has any)",
        ),
    ] = None,
    min_support: Annotated[int, typer.Option(help="Only items with at least this many training ratings.", min=0)] = 0,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """List the items that are most similar to an item.

    Example: recsys similar --item "Toy Story" --by neighbours
    """
    recommender, folder = load(model)
    from recsys_embed.answering.items import default_similarity

    item_id, by = recommender.find_item(item), by or default_similarity(recommender.state)
    table = recommender.similar(item_id, k, by=by, min_support=min_support)  # type: ignore[arg-type]
    if json:
        together = [name for name in ("together",) if name in table.columns]
        items = table.select(*together, item="item_id", title="title", score="score", rank="rank").to_dicts()
        return print_json({"item": item_id, "by": by, "items": items, "model": str(folder)})
    row = int(recommender.items.rows([item_id])[0])
    title, count = recommender.table["title"][row], int(recommender.item_counts[row])
    unit = "edges" if recommender.is_graph else "ratings"
    echo(f"Nearest to {item_id} {title}   ({count:,} {unit})   by {by}   model {folder}")
    counts = recommender.item_counts[recommender.items.rows(table["item_id"])]
    names = ["cosine", *(["together"] if by == "neighbours" else []), unit]
    rows = [
        [r["rank"], r["item_id"], r["title"], f"{r['score']:.3f}", *(f"{r[n]:,}" for n in names[1:-1]), f"{count:,}"]
        for r, count in zip(table.to_dicts(), counts, strict=True)
    ]
    return print_table(["#", "item", "title", *names], rows, f"# item {' '.join(names)}")
