"""recsys predict: predict a user's rating of an item."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys_embed.cli.loading import load
from recsys_embed.cli.options import JSON, MODEL
from recsys_embed.cli.output import echo, print_json


def predict(
    user: Annotated[str, typer.Option(help="A user's id.")],
    item: Annotated[str, typer.Option(help="An item's id or title.")],
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """Predict for a user and an item: stars, a probability or a ranking score, depending on the loss."""
    recommender, folder = load(model)
    user_id = recommender.users.ids(recommender.users.rows([user]))[0]
    item_id = recommender.find_item(item)
    value = float(recommender.predict(user_id, item_id)[0])
    unit = recommender.model.output
    title = recommender.table["title"][int(recommender.items.rows([item_id])[0])]
    if json:
        return print_json(
            {"user": user_id, "item": item_id, "title": title, "value": value, "unit": unit, "model": str(folder)}
        )
    meaning = {
        "stars": "stars",
        "chance": "probability",
        "score": "ranking score (no unit; train with --loss mse for stars)",
    }
    return echo(f"user {user_id}, item {item_id} {title}: {value:.3f} {meaning[unit]}   model {folder}")
