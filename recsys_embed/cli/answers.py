"""recsys recommend, similar and predict: they need numpy, polars and a model folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys_embed.cli.options import JSON, MODEL, K
from recsys_embed.cli.output import say, say_json, say_table
from recsys_embed.errors import SettingError

if TYPE_CHECKING:
    import polars as pl

    from recsys_embed.ratings.vocab import Id
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


def recommend(
    user: Annotated[str | None, typer.Option(help="A user's id.")] = None,
    users: Annotated[Path | None, typer.Option(help="File with a user id in each line (with --out).")] = None,
    all_users: Annotated[bool, typer.Option("--all-users", help="Every user of the model (with --out).")] = False,
    likes: Annotated[
        str | None,
        typer.Option(help='Instead: items that somebody likes, ids or titles: "Toy Story (1995);Heat (1995)".'),
    ] = None,
    k: K = 10,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Show what the user has rated too.")] = False,
    hide_test: Annotated[
        bool, typer.Option("--hide-test", help="Leave out held-out ratings of the user as well.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write lists to this file: .parquet, .csv or .jsonl.")] = None,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """Recommend items to a user, to many, or to somebody the model does not know.

    Example: recsys recommend --user 42
    """
    if (user is not None) + (users is not None) + all_users + (likes is not None) != 1:
        raise SettingError("say whom to recommend to: one of --user ID, --users FILE, --all-users or --likes ITEMS")
    if k < 1:
        raise SettingError(f"--k must be at least 1, got {k}")
    if likes is not None and not _names(likes):
        raise SettingError(f"--likes {likes!r} names no item")
    if likes is not None and (include_seen or hide_test or out is not None):
        raise SettingError("--likes goes with --k, --model and --json: it is about nobody the model knows")
    recommender, folder = load(model)
    if likes is not None:
        return _visitor(recommender, folder, likes, k, json)
    options: dict[str, Any] = {"include_seen": include_seen, "hide_held": hide_test}
    if user is not None and out is None:
        return _one(recommender, folder, recommender.users.ids(recommender.users.rows([user]))[0], k, options, json)
    if out is None:
        raise SettingError("lists of many users go to a file: name it with --out lists.parquet (or .csv, .jsonl)")
    from recsys_embed.recommend.output import write_lists

    rows = None
    if user is not None:
        rows = recommender.users.rows([user])
    elif users is not None:
        rows = recommender.users.rows(_read_ids(users))
    written = write_lists(recommender, out, rows, k, options)
    if json:
        return say_json({"out": str(out), "rows": written, "model": str(folder)})
    return say(f"{written:,} rows written to {out}   model {folder}")


def _one(recommender: Recommender, folder: Path, user: Id, k: int, options: dict[str, Any], json: bool) -> None:
    begin = time.perf_counter()
    table = recommender.recommend(user, k, **options).drop("user_id")
    took = time.perf_counter() - begin
    reasons = recommender.reasons(user, table["item_id"].to_list())
    if json:
        return say_json({"user": user, "items": _entries(recommender, table, reasons), "model": str(folder)})
    row = int(recommender.users.rows([user])[0])
    seen, held = len(recommender.seen[row]), len(recommender.held[row])
    what = "neighbours" if recommender.shared else "rated items"
    history = f"history: {seen:,} {what}, {'shown too' if options['include_seen'] else 'hidden'}"
    if held:
        history += f"; {held:,} more were held out for test and "
        history += "are hidden" if options["hide_held"] else "may appear (--hide-test)"
    whose = (f"user {user}", history, "the user rated")
    if recommender.shared:
        whose = (f"node {user}", history, "it is linked to")
    return _say_list(recommender, folder, whose, table, reasons, took)


def _names(likes: str) -> list[str]:
    return [name for name in (part.strip() for part in likes.split(";")) if name]


def _visitor(recommender: Recommender, folder: Path, likes: str, k: int, json: bool) -> None:
    liked = list(dict.fromkeys(recommender.find_item(name) for name in _names(likes)))
    recommender.vector_of(liked)  # what is made once for all visitors is no part of the time
    begin = time.perf_counter()
    table = recommender.recommend_for(liked, k)
    took = time.perf_counter() - begin
    reasons = recommender.reasons_for(liked, table["item_id"].to_list())
    if json:
        return say_json({"likes": liked, "items": _entries(recommender, table, reasons), "model": str(folder)})
    titles = _titles(recommender)
    history = "likes: " + ", ".join(titles[i] for i in liked)
    return _say_list(recommender, folder, ("somebody new", history, "they like"), table, reasons, took)


def _titles(recommender: Recommender) -> dict[Id, str]:
    return dict(zip(recommender.table["item_id"].to_list(), recommender.table["title"].to_list(), strict=True))


def _entries(recommender: Recommender, table: pl.DataFrame, reasons: list[list[Id]]) -> list[dict[str, Any]]:
    """Return a list for JSON: a frame item_id, title, score, rank, and what is near to each item."""
    titles, keys = _titles(recommender), ("item", "title", "score", "rank", "why")
    why = [[{"item": i, "title": titles[i]} for i in near] for near in reasons]
    return [dict(zip(keys, (*row, near), strict=True)) for row, near in zip(table.rows(), why, strict=True)]


def _say_list(
    recommender: Recommender,
    folder: Path,
    said: tuple[str, str, str],
    table: pl.DataFrame,
    reasons: list[list[Id]],
    took: float,
) -> None:
    """Print a list. said: whom it is for, what is known of them, and what that is called in a column's name."""
    whom, known, near_to = said
    run, titles = recommender.facts.get("run_id"), _titles(recommender)
    model = f"model {folder}" + (f" (run {run[:8]})" if run else "")
    say(f"Top {table.height} for {whom}   {model}   {1000 * took:.1f} ms")
    say(known, dim=True)
    if not table.height:
        return say("nothing is left to recommend: every item is known to them")
    lines = [
        [rank, item, title, f"{score:.3f}", ", ".join(titles[i] for i in near)]
        for (item, title, score, rank), near in zip(table.rows(), reasons, strict=True)
    ]
    return say_table(["#", "item", "title", "score", f"near to what {near_to}"], lines, "# item score")


def _read_ids(path: Path) -> list[str]:
    from recsys_embed.datasets.files import read_lines
    from recsys_embed.errors import DataError

    ids = [line.split(",")[0] for line in read_lines(path) if line]
    if ids and ids[0] in ("user_id", "userId", "user"):
        ids = ids[1:]
    if not ids:
        raise DataError(f"{path} names no user; it needs one id a line")
    return ids


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
