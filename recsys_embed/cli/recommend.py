"""recsys recommend: one list to read, or lists of many users in a file."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys_embed.cli.options import DISLIKES, JSON, LIKES, MODEL, RATED, K, with_settings
from recsys_embed.cli.output import say, say_json, say_table
from recsys_embed.cli.similar import load
from recsys_embed.config.settings import IndexName, Rules, UnknownName
from recsys_embed.errors import SettingError, UnknownId

if TYPE_CHECKING:
    from recsys_embed.answering.request import RecommendRequest
    from recsys_embed.data.ids import Id
    from recsys_embed.recommender import Recommender

log = logging.getLogger("recsys_embed")

ITEMS = "ids or titles, parted by ; (one within a title is written \\;)"


@with_settings(rules=Rules)
def recommend(
    rules: Rules,
    user: Annotated[str | None, typer.Option(help="A user's id.")] = None,
    users: Annotated[Path | None, typer.Option(help="File with a user id in each line (with --out).")] = None,
    all_users: Annotated[bool, typer.Option("--all-users", help="Every user of the model (with --out).")] = False,
    likes: LIKES = None,
    dislikes: DISLIKES = None,
    rated: RATED = None,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="Somebody nothing is known of.")] = False,
    k: K = 10,
    among: Annotated[str | None, typer.Option(help=f"Only these items: {ITEMS}.")] = None,
    exclude: Annotated[str | None, typer.Option(help="None of these items.")] = None,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Show what the user has rated too.")] = False,
    hide_test: Annotated[
        bool, typer.Option("--hide-test", help="Leave out held-out ratings of the user as well.")
    ] = False,
    index: Annotated[
        IndexName, typer.Option(help="approximate: faster for very many items and users; says what it finds.")
    ] = "exact",
    on_unknown: Annotated[
        UnknownName, typer.Option("--on-unknown", help="skip: leave out users and items that are not known.")
    ] = "error",
    out: Annotated[Path | None, typer.Option(help="Write lists to this file: .parquet, .csv or .jsonl.")] = None,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """Recommend items to a user, to many, or to somebody the model does not know.

    Example: recsys recommend --user 42 --where "year >= 1990 and 'Comedy' in genres"
    """
    somebody = {"likes": likes, "dislikes": dislikes, "rated": rated}
    _check(user is not None, users is not None, all_users, anonymous, somebody, hide_test, out)
    if k < 1:
        raise SettingError(f"--k must be at least 1, got {k}")
    if out is None and (users is not None or all_users):
        raise SettingError("lists of many users go to a file: name it with --out lists.parquet (or .csv, .jsonl)")
    recommender, folder = load(model)
    if index != "exact":
        recommender.use_index(index)
    from recsys_embed.answering.request import RecommendRequest

    ask = RecommendRequest(
        k=k,
        candidates=None if among is None else named_items(recommender, among, "among", on_unknown),
        exclude=() if exclude is None else named_items(recommender, exclude, "exclude", on_unknown),
        include_seen=include_seen,
        hide_test=hide_test,
        rules=rules,
        explain=True,
        on_unknown=on_unknown,
    )
    if out is None:
        return _one(recommender, folder, asked_of(recommender, ask, user, somebody), json)
    rows = None
    if user is not None:
        rows = recommender.users.rows([user])
    elif users is not None:
        rows = _rows_of(recommender, _read_ids(users), on_unknown)
    return _many(recommender, folder, ask, rows, out, json)


def _check(
    user: bool, users: bool, all_users: bool, anonymous: bool, somebody: dict[str, str | None], hide: bool, out: Any
) -> None:
    """Refuse what does not say for whom, or says it twice."""
    given = [f"--{name}" for name, value in somebody.items() if value is not None]
    if bool(user or given) + users + all_users + anonymous != 1:
        raise SettingError(
            "say whom to recommend to: one of --user ID, --users FILE, --all-users, --anonymous, or what somebody "
            "--likes, --dislikes or --rated"
        )
    if (given or anonymous) and (out is not None or (hide and not user)):
        raise SettingError(
            f"{', '.join(given) or '--anonymous'} is about a visitor: --out and --hide-test go with users of the model"
        )


def named_items(recommender: Recommender, text: str, option: str, on_unknown: UnknownName = "error") -> list[Id]:
    """Return the ids of the items that an option names, each once."""
    from recsys_embed.answering.titles import split_names

    names = split_names(text)
    if not names:
        raise SettingError(f"--{option} {text!r} names no item")
    found = dict.fromkeys(_found(recommender, name, on_unknown) for name in names)
    return [item for item in found if item is not None]


def _found(recommender: Recommender, name: str, on_unknown: UnknownName) -> Id | None:
    """Return the id of an item, or None of one that is not known where that is no error."""
    try:
        return recommender.find_item(name)
    except UnknownId as error:
        if on_unknown == "error":
            raise
        log.warning("left out: %s", error)
        return None


def asked_of(
    recommender: Recommender, ask: RecommendRequest, user: str | None, somebody: dict[str, str | None]
) -> RecommendRequest:
    """Return the question with whom it is for."""
    if user is not None and (ask.on_unknown == "error" or user in recommender.users):
        ask = replace(ask, user=recommender.users.ids([recommender.users.row(user)])[0])
    named: dict[str, Any] = {
        name: named_items(recommender, text, name, ask.on_unknown)
        for name, text in somebody.items()
        if text is not None and name != "rated"
    }
    from recsys_embed.answering.titles import split_ratings

    rated = split_ratings(somebody["rated"] or "")
    if somebody["rated"] is not None and not rated:
        raise SettingError(f"--rated {somebody['rated']!r} names no item")
    found = {_found(recommender, name, ask.on_unknown): value for name, value in rated.items()}
    ratings = {item: value for item, value in found.items() if item is not None}
    return replace(ask, ratings=ratings, **named)


def _many(recommender: Recommender, folder: Path, ask: RecommendRequest, rows: Any, out: Path, json: bool) -> None:
    from recsys_embed.answering.batch import write_recommendations

    written = write_recommendations(recommender.state, out, rows, ask)
    if json:
        return say_json({"out": str(out), "rows": written, "model": str(folder)})
    return say(f"{written:,} rows written to {out}   model {folder}")


def _one(recommender: Recommender, folder: Path, ask: RecommendRequest, json: bool) -> None:
    from recsys_embed.answering.recommend import recommend as answer

    begin = time.perf_counter()
    found = answer(recommender.state, ask)
    took = time.perf_counter() - begin
    if json:
        return say_json(whom_of(ask) | {"items": found.entries(), "short": found.shortfall, "model": str(folder)})
    whom, known, near_to = _said(recommender, ask)
    run = recommender.metadata.get("run_id")
    named = f"model {folder}" + (f" (run {run[:8]})" if run else "")
    entries = found.entries()
    say(f"Top {len(entries)} for {whom}   {named}   {1000 * took:.1f} ms")
    say(known, dim=True)
    if entries:
        _say_list(entries, near_to)
    if found.shortfall is not None:
        say(found.shortfall, dim=True)
    return None


def whom_of(ask: RecommendRequest) -> dict[str, Any]:
    """Return whom an answer is for, for machines."""
    said: dict[str, Any] = {
        "dislikes": ask.dislikes,
        "ratings": {str(item): value for item, value in ask.ratings.items()},
    }
    said = {name: value for name, value in said.items() if value}
    if ask.user is not None or not (ask.likes or said):
        said = {"user": ask.user} | said
    return said | ({"likes": ask.likes} if ask.likes or "user" not in said else {})


def _said(recommender: Recommender, ask: RecommendRequest) -> tuple[str, str, str]:
    """Return whom an answer is for, what is known of them, and what that is called in a column's name."""
    parts = _parts(recommender, ask)
    if ask.user is None and not parts:
        return "nobody in particular", "nothing is known of them: what has most ratings comes first", "they like"
    if ask.user is None:
        return "somebody new", "; ".join(parts), "they like"
    row = int(recommender.users.rows([ask.user])[0])
    seen, held = len(recommender.seen[row]), len(recommender.held_out[row])
    what = "neighbours" if recommender.shared else "rated items"
    history = f"history: {seen:,} {what}, {'shown too' if ask.include_seen else 'hidden'}"
    if held:
        history += f"; {held:,} more were held out for test and "
        history += "are hidden" if ask.hide_test else "may appear (--hide-test)"
    history = "; ".join([history, *parts])
    if recommender.shared:
        return f"node {ask.user}", history, "it is linked to"
    return f"user {ask.user}", history, "the user rated"


def _parts(recommender: Recommender, ask: RecommendRequest) -> list[str]:
    """Return what is said of somebody beside what the model knows of them."""
    titles = dict(zip(recommender.item_ids, recommender.titles, strict=True))
    named = {"likes": ask.likes, "dislikes": ask.dislikes}
    parts = [f"{word}: {', '.join(titles[item] for item in items)}" for word, items in named.items() if items]
    if ask.ratings:
        parts.append("rated: " + ", ".join(f"{titles[item]} {value:g}" for item, value in ask.ratings.items()))
    return parts


def _say_list(entries: list[dict[str, Any]], near_to: str) -> None:
    lines = [
        [e["rank"], e["item"], e["title"], f"{e['score']:.3f}", ", ".join(near["title"] for near in e["why"])]
        for e in entries
    ]
    say_table(["#", "item", "title", "score", f"near to what {near_to}"], lines, "# item score")


def _rows_of(recommender: Recommender, ids: list[str], on_unknown: UnknownName) -> Any:
    """Return the rows of users, each once."""
    rows = recommender.users.rows(dict.fromkeys(ids), missing="raise" if on_unknown == "error" else "negative")
    unknown = int((rows < 0).sum())
    if unknown:
        log.warning("%s of %s users are not known: left out", f"{unknown:,}", f"{len(rows):,}")
    return rows[rows >= 0]


def _read_ids(path: Path) -> list[str]:
    from recsys_embed.errors import DataError
    from recsys_embed.storage.atomic import read_lines

    ids = [line.split(",")[0] for line in read_lines(path) if line]
    if ids and ids[0] in ("user_id", "userId", "user"):
        ids = ids[1:]
    if not ids:
        raise DataError(f"{path} names no user; it needs one id a line")
    return ids
