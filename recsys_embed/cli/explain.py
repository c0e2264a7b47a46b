"""recsys explain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys_embed.cli.options import DISLIKES, JSON, LIKES, MODEL, RATED
from recsys_embed.cli.output import say, say_json, say_table
from recsys_embed.cli.recommend import asked_of, whom_of
from recsys_embed.cli.similar import load
from recsys_embed.errors import SettingError

if TYPE_CHECKING:
    from recsys_embed.answering.explain import Explanation

_PARTS = {
    "popularity": "the logarithm of one more than the item's ratings: nothing is known of whom it is for",
    "collaborative": "what the vectors have in common, as ratings made them",
    "text": "what they have in common by the item's description",
    "mlp": "what the perceptron makes of both vectors: it has no parts",
    "item_bias": "the item's with everybody",
    "user_bias": "the user's with every item",
    "offset": "everybody's with every item",
}


def explain(
    item: Annotated[str, typer.Option(help="An item's id or title.")],
    user: Annotated[str | None, typer.Option(help="A user's id.")] = None,
    likes: LIKES = None,
    dislikes: DISLIKES = None,
    rated: RATED = None,
    n: Annotated[int, typer.Option("--n", help="How many items of theirs are named.", min=1)] = 5,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """Say why an item is for somebody: the parts of its score, and what of theirs speaks for it.

    Example: recsys explain --user 42 --item "Star Wars"
    """
    said = {"likes": likes, "dislikes": dislikes, "rated": rated}
    if user is None and not any(said.values()):
        raise SettingError("say for whom: --user ID, or what somebody --likes, --dislikes or --rated")
    from recsys_embed.answering.request import RecommendRequest

    recommender, folder = load(model)
    ask = asked_of(recommender, RecommendRequest(), user, said)
    found = recommender.explain(
        ask.user, recommender.find_item(item), n, likes=ask.likes, dislikes=ask.dislikes, ratings=ask.ratings
    )
    if json:
        return say_json({**found.summary(), **whom_of(ask), "model": str(folder)})
    whom = f"user {found.user}" if user is not None else "somebody new"
    say(f"{found.item} {found.title}, for {whom}: {_score(found)}   model {folder}")
    if found.seen:
        say("it is theirs already: lists leave it out")
    rows = [
        [name.replace("_", " "), f"{found.parts[name]:+.3f}", said]
        for name, said in _PARTS.items()
        if found.parts.get(name)
    ]
    say_table(["part", "value", "what it is"], rows, "value")
    _say_own(found)
    if found.shared:
        say()
        rows = [[s["token"], s["column"], s["items"]] for s in found.shared]
        say_table(["in common", "column", "of theirs"], rows, "of theirs")
    return None


def _score(found: Explanation) -> str:
    if found.unit == "chance":
        return f"{found.score:.3f} log-odds, a chance of {found.value:.3f}"
    if found.unit == "stars":
        return f"{found.score:.3f} stars" + (f", cut to {found.value:g}" if found.value != found.score else "")
    return f"{found.score:.3f} (no unit)"


def _say_own(found: Explanation) -> None:
    if not found.own:
        return
    say()
    sums = found.own[0]["kind"] == "contribution"
    rows: list[list[Any]] = [
        [own["item"], own["title"], f"{own['value']:{'+' if sums else ''}.3f}"] for own in found.own
    ]
    if found.rest is not None and found.rest["items"]:
        rows.append(["", f"{found.rest['items']:,} others", f"{found.rest['value']:+.3f}"])
    if found.rest is not None and "vector" in found.rest:
        rows.append(["", "a vector of the user's own", f"{found.rest['vector']:+.3f}"])
    say_table(
        ["item", "what of theirs adds to it" if sums else "nearest of theirs", "adds" if sums else "cosine"],
        rows,
        "item adds cosine",
    )
