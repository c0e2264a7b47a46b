"""recsys similar, search and predict: they need numpy, polars and a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys_embed.cli.options import JSON, MODEL, K
from recsys_embed.cli.output import say, say_json, say_table
from recsys_embed.errors import SettingError

if TYPE_CHECKING:
    from recsys_embed.recommend.recommender import Recommender


def load(model: str | None) -> tuple[Recommender, Path]:
    """Load the named model, of a folder or of MLflow, or the newest one; return it and its name."""
    from recsys_embed.track.registry import is_model_uri, model_folder

    if model and is_model_uri(model):
        from recsys_embed.recommend.recommender import Recommender

        return Recommender.load(model_folder(model)[0]), Path(model)
    from recsys_embed.recommend.bundle import newest
    from recsys_embed.recommend.recommender import Recommender

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


def search(
    query: Annotated[str | None, typer.Argument(help="A text.")] = None,
    image: Annotated[Path | None, typer.Option(help="A picture, for models trained with --images.")] = None,
    item: Annotated[str | None, typer.Option(help="Instead: the words and tags nearest to this item.")] = None,
    k: K = 10,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """Find items by what is said of them, or the words that are nearest to an item.

    Example: recsys search "space opera with robots"
    """
    if (item is not None) == (query is not None or image is not None):
        raise SettingError("say what to look for: a text, --image FILE, or --item ID for its words")
    recommender, folder = load(model)
    if item is not None:
        id_ = recommender.find_item(item)
        near = recommender.words_near(id_, k)
        if json:
            return say_json({"item": id_, "words": near.to_dicts(), "model": str(folder)})
        title = recommender.table["title"].gather(recommender.items.rows([id_]))[0]
        say(f"Words nearest to {id_} {title}   model {folder}")
        return say_table(
            ["#", "column", "token", "cosine"], [[r, c, t, f"{s:.3f}"] for c, t, s, r in near.rows()], "# cosine"
        )
    table = recommender.search(query, k, image=image)
    if json:
        items = table.select(item="item_id", title="title", score="score", rank="rank").to_dicts()
        return say_json({"query": query, "items": items, "model": str(folder)})
    say(f"Nearest to {' and '.join(repr(str(asked)) for asked in (query, image) if asked)}   model {folder}")
    rows = [[r["rank"], r["item_id"], r["title"], f"{r['score']:.3f}"] for r in table.to_dicts()]
    return say_table(["#", "item", "title", "likeness"], rows, "# item likeness")


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
    unit = recommender.plain.link
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
