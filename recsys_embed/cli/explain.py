"""recsys explain: why an item is recommended to a user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys_embed.cli.loading import load
from recsys_embed.cli.options import DISLIKES, JSON, LIKES, MODEL, RATINGS, with_settings
from recsys_embed.cli.output import echo, print_json, print_table
from recsys_embed.cli.recommend import user_fields, with_user
from recsys_embed.errors import SettingError

if TYPE_CHECKING:
    from recsys_embed.answering.explain import Explanation

_PART_MEANINGS = {
    "popularity": "log(1 + the item's ratings): there is no feedback to go by",
    "collaborative": "what the vectors have in common, learned from ratings",
    "neighbours": "what the user's items add to it, learned from which items are rated together",
    "text": "what they have in common through the item's content",
    "trend": "the item is rated more, or less, lately than before: the same for all users",
    "mlp": "the MLP's output for both vectors, which has no parts",
    "item_bias": "the item's bias: the same for all users",
    "user_bias": "the user's bias: the same for all items",
    "offset": "the same for all users and items",
}


@with_settings(old_names={"n": "k"})
def explain(
    item: Annotated[str, typer.Option(help="An item's id or title.")],
    user: Annotated[str | None, typer.Option(help="A user's id.")] = None,
    likes: LIKES = None,
    dislikes: DISLIKES = None,
    ratings: RATINGS = None,
    k: Annotated[int, typer.Option("--k", help="How many of the user's items to name.", min=1)] = 5,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """Explain an item for a user: the parts of its score, and the user's items that speak for it.

    Example: recsys explain --user 42 --item "Star Wars"
    """
    feedback = {"likes": likes, "dislikes": dislikes, "ratings": ratings}
    if user is None and not any(feedback.values()):
        raise SettingError("say for whom: --user ID, or a new user's --likes, --dislikes or --ratings")
    from recsys_embed.answering.request import RecommendRequest

    recommender, folder = load(model)
    request = with_user(recommender, RecommendRequest(), user, feedback)
    explanation = recommender.explain(
        request.user,
        recommender.find_item(item),
        k,
        likes=request.likes,
        dislikes=request.dislikes,
        ratings=request.ratings,
    )
    if json:
        return print_json({**explanation.summary(), **user_fields(request), "model": str(folder)})
    whom = f"user {explanation.user}" if user is not None else "a new user"
    echo(f"{explanation.item} {explanation.title}, for {whom}: {_score_text(explanation)}   model {folder}")
    if explanation.seen:
        lists = "leave it out" if explanation.hidden else "may hold it all the same"
        echo(f"the user has this item already: lists {lists}")
    rows = [
        [name.replace("_", " "), f"{explanation.components[name]:+.3f}", meaning]
        for name, meaning in _PART_MEANINGS.items()
        if explanation.components.get(name)
    ]
    print_table(["part", "value", "what it is"], rows, "value")
    _print_evidence(explanation)
    if explanation.common_tokens:
        echo()
        rows = [[token["token"], token["column"], token["items"]] for token in explanation.common_tokens]
        print_table(["in common", "column", "items"], rows, "items")
    return None


def _score_text(explanation: Explanation) -> str:
    score, value = explanation.score, explanation.value
    if explanation.unit == "chance":
        return f"{score:.3f} log-odds, a probability of {value:.3f}"
    if explanation.unit == "stars":
        return f"{score:.3f} stars" + (f", clipped to {value:g}" if value != score else "")
    return f"{score:.3f} (no unit)"


def _print_evidence(explanation: Explanation) -> None:
    """Print the user's items that speak for the item: their contributions to the score, or the nearest ones."""
    if not explanation.evidence:
        return
    echo()
    adds = explanation.evidence[0]["kind"] == "contribution"
    rows: list[list[Any]] = [
        [entry["item"], entry["title"], f"{entry['value']:{'+' if adds else ''}.3f}"] for entry in explanation.evidence
    ]
    remainder = explanation.remainder
    if remainder is not None and remainder["items"]:
        rows.append(["", f"{remainder['items']:,} others", f"{remainder['value']:+.3f}"])
    if remainder is not None and "vector" in remainder:
        rows.append(["", "the user's own vector", f"{remainder['vector']:+.3f}"])
    title = "the user's items that add to it" if adds else "the user's nearest items"
    print_table(["item", title, "adds" if adds else "cosine"], rows, "item adds cosine")
