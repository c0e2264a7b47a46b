"""recsys similar, search and predict: they need numpy, polars and a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys_embed.cli.options import JSON, MODEL, K
from recsys_embed.cli.output import say, say_json, say_table

if TYPE_CHECKING:
    from recsys_embed.recommender import Recommender


def load(model: str | None) -> tuple[Recommender, Path]:
    """Load the named model, of a folder or of MLflow, or the newest one; return it and its name."""
    from recsys_embed.tracking.model_registry import is_model_uri, model_folder

    if model and is_model_uri(model):
        from recsys_embed.recommender import Recommender

        return Recommender.load(model_folder(model)[0]), Path(model)
    from recsys_embed.recommender import Recommender
    from recsys_embed.storage.model_folders import newest

    folder = Path(model) if model else newest()
    return Recommender.load(folder), folder


def similar(
    item: Annotated[str, typer.Option(help="An item's id or title.")],
    k: K = 10,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """Show the items whose vectors are nearest to an item's.

    Example: recsys similar --item "Toy Story"
    """
    recommender, folder = load(model)
    id_ = recommender.find_item(item)
    table = recommender.similar(id_, k)
    if json:
        items = table.select(item="item_id", title="title", score="score", rank="rank").to_dicts()
        return say_json({"item": id_, "items": items, "model": str(folder)})
    row = int(recommender.items.rows([id_])[0])
    title, rated = recommender.table["title"][row], int(recommender.counts[row])
    said = "edges" if recommender.shared else "ratings"
    say(f"Nearest to {id_} {title}   ({rated:,} {said})   model {folder}")
    counts = recommender.counts[recommender.items.rows(table["item_id"])]
    rows = [
        [r["rank"], r["item_id"], r["title"], f"{r['score']:.3f}", f"{n:,}"]
        for r, n in zip(table.to_dicts(), counts, strict=True)
    ]
    return say_table(["#", "item", "title", "cosine", said], rows, f"# item cosine {said}")
