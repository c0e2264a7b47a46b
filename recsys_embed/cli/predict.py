"""recsys predict: what a user is expected to make of an item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from recsys_embed.cli.options import JSON, MODEL
from recsys_embed.cli.output import say, say_json

if TYPE_CHECKING:
    pass
from recsys_embed.cli.similar import load


def predict(
    user: Annotated[str, typer.Option(help="A user's id.")],
    item: Annotated[str, typer.Option(help="An item's id or title.")],
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """Say what a user is expected to make of an item: stars, a chance, or a ranking score, as the loss has it."""
    recommender, folder = load(model)
    user_id = recommender.users.ids(recommender.users.rows([user]))[0]
    item_id = recommender.find_item(item)
    value = float(recommender.predict(user_id, item_id)[0])
    unit = recommender.model.output
    title = recommender.table["title"][int(recommender.items.rows([item_id])[0])]
    if json:
        return say_json(
            {"user": user_id, "item": item_id, "title": title, "value": value, "unit": unit, "model": str(folder)}
        )
    meaning = {
        "stars": "stars",
        "chance": "chance",
        "score": "ranking score (no unit; train with --loss mse for stars)",
    }
    return say(f"user {user_id}, item {item_id} {title}: {value:.3f} {meaning[unit]}   model {folder}")
