"""recsys similar: the items nearest to an item, or the users nearest to a user."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys_embed.cli.loading import load
from recsys_embed.cli.options import JSON, MODEL, K
from recsys_embed.cli.output import echo, print_json, print_table
from recsys_embed.errors import SettingError

if TYPE_CHECKING:
    from recsys_embed.recommender import Recommender

# The columns of each answer beside the item, and how their values are printed.
_COLUMNS = {
    "embeddings": {"cosine": ("score", ".3f")},
    "neighbours": {"cosine": ("score", ".3f"), "together": ("together", ",")},
    "together": {
        "evidence": ("score", ",.1f"),
        "together": ("together", ","),
        "lift": ("lift", ",.2f"),
        "confidence": ("confidence", ".1%"),
    },
}


def similar(
    item: Annotated[str | None, typer.Option(help="An item's id or title.")] = None,
    user: Annotated[str | None, typer.Option(help="Instead: a user's id, for users alike.")] = None,
    k: K = 10,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="<name>",
            help="embeddings: the nearest vectors; neighbours: rated by the same users; together: had together more "
            "often than by chance, with lift and confidence. (default: embeddings, if the model has any)",
        ),
    ] = None,
    min_support: Annotated[int, typer.Option(help="Only items with at least this many training ratings.", min=0)] = 0,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """List the items that are most similar to an item, or the users who are most similar to a user.

    Example: recsys similar --item "Toy Story" --by together
    """
    if (item is None) == (user is None):
        raise SettingError("say what to: one of --item ID (or its title) and --user ID")
    if user is not None and (by is not None or min_support):
        raise SettingError("--by and --min-support are for items: they go with --item")
    recommender, folder = load(model)
    if user is not None:
        return _similar_users(recommender, folder, user, k, json)
    from recsys_embed.answering.items import similar_entries

    item_id = recommender.find_item(str(item))
    found = similar_entries(recommender.state, item_id, k, by, min_support)
    if json:
        return print_json({"item": item_id, **found, "model": str(folder)})
    row = int(recommender.items.rows([item_id])[0])
    title, count = recommender.table["title"][row], int(recommender.item_counts[row])
    unit = "edges" if recommender.is_graph else "ratings"
    echo(f"Nearest to {item_id} {title}   ({count:,} {unit})   by {found['by']}   model {folder}")
    counts = recommender.item_counts[recommender.items.rows([entry["item"] for entry in found["items"]])]
    columns = _COLUMNS[found["by"]]
    rows = [
        [e["rank"], e["item"], e["title"], *(f"{e[name]:{form}}" for name, form in columns.values()), f"{n:,}"]
        for e, n in zip(found["items"], counts, strict=True)
    ]
    return print_table(["#", "item", "title", *columns, unit], rows, f"# item {' '.join(columns)} {unit}")


def _similar_users(recommender: Recommender, folder: Path, text: str, k: int, json: bool) -> None:
    from recsys_embed.answering.audience import similar_user_entries

    row = recommender.users.row(text)
    user: Any = recommender.users.ids([row])[0]
    found = similar_user_entries(recommender.state, user, k)
    if json:
        return print_json({"user": user, **found, "model": str(folder)})
    what, unit = ("node", "edges") if recommender.is_graph else ("user", "items")
    size = len(recommender.seen[row])
    echo(f"Nearest to {what} {user}   ({size:,} {unit})   by {found['by']}   model {folder}")
    rows = [[e["rank"], e["user"], f"{e['score']:.3f}", f"{e['common']:,}", f"{e['items']:,}"] for e in found["users"]]
    return print_table(["#", what, "cosine", "common", unit], rows, f"# {what} cosine common {unit}")
