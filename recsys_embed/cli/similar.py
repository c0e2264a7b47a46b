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
    from recsys_embed.answering.items import similar_entries

    item_id = recommender.find_item(item)
    found = similar_entries(recommender.state, item_id, k, by, min_support)
    if json:
        return print_json({"item": item_id, **found, "model": str(folder)})
    row = int(recommender.items.rows([item_id])[0])
    title, count = recommender.table["title"][row], int(recommender.item_counts[row])
    unit = "edges" if recommender.is_graph else "ratings"
    echo(f"Nearest to {item_id} {title}   ({count:,} {unit})   by {found['by']}   model {folder}")
    counts = recommender.item_counts[recommender.items.rows([entry["item"] for entry in found["items"]])]
    names = ["cosine", *(["together"] if found["by"] == "neighbours" else []), unit]
    rows = [
        [e["rank"], e["item"], e["title"], f"{e['score']:.3f}", *(f"{e[n]:,}" for n in names[1:-1]), f"{n_ratings:,}"]
        for e, n_ratings in zip(found["items"], counts, strict=True)
    ]
    return print_table(["#", "item", "title", *names], rows, f"# item {' '.join(names)}")
