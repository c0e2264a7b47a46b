"""recsys recommend: a list for one user, or lists for many users in a file."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys_embed.cli.loading import load, read_item_values
from recsys_embed.cli.options import DISLIKES, JSON, LIKES, MODEL, NPROC, OUT, RATINGS, K, with_settings
from recsys_embed.cli.output import echo, print_json, print_table, written_to
from recsys_embed.config.answers import IndexName, ListShape, OnUnknown, OutputConfig, Rules
from recsys_embed.errors import SettingError, UnknownId
from recsys_embed.state.verdict import counted

if TYPE_CHECKING:
    from recsys_embed.answering.request import RecommendRequest
    from recsys_embed.data.ids import Id
    from recsys_embed.recommender import Recommender

log = logging.getLogger("recsys_embed")

_ITEMS_HELP = "ids or titles, separated by ; (within a title: \\;)"
USERS = Annotated[
    str | None, typer.Option(help="File of users (with --out): ids and, if wanted, where, k and other columns.")
]

ITEMS = Annotated[
    Path | None, typer.Option("--items", help="Table of items as they are today (stock, prices), for these lists.")
]

ON_UNKNOWN = Annotated[
    OnUnknown,
    typer.Option(help="skip: leave out unknown users and items; popular: give unknown users what is popular."),
]

# The options that --help shows; --help-all shows all.
_FIRST = (
    "user", "users", "all_users", "likes", "ratings", "k", "where", "per_group", "diversity", "exclude", "items", "out",
    "model", "json",
)  # fmt: skip


@with_settings(_FIRST, rules=Rules, output=OutputConfig)
def recommend(
    rules: Rules,
    output: OutputConfig,
    user: Annotated[str | None, typer.Option(help="A user's id.")] = None,
    users: USERS = None,
    user_col: Annotated[str | None, typer.Option("--user-col", help="Column of --users that has the ids.")] = None,
    all_users: Annotated[bool, typer.Option("--all-users", help="All users of the model (with --out).")] = False,
    likes: LIKES = None,
    dislikes: DISLIKES = None,
    ratings: RATINGS = None,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="A user without id or feedback.")] = False,
    k: K = 10,
    candidates: Annotated[str | None, typer.Option(help=f"Only these items: {_ITEMS_HELP}.")] = None,
    exclude: Annotated[str | None, typer.Option(help="None of these items.")] = None,
    items: ITEMS = None,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Include items the user has rated.")] = False,
    hide_test: Annotated[
        bool, typer.Option("--hide-test", help="Leave out the user's held-out items as well.")
    ] = False,
    index: Annotated[
        IndexName, typer.Option(help="approximate: faster for very many items and users; prints its recall.")
    ] = "exact",
    on_unknown: ON_UNKNOWN = "error",
    out: OUT = None,
    shape: Annotated[
        ListShape, typer.Option(help="Of --out: a row for each item; for each user, with k columns; or with JSON.")
    ] = "long",
    nproc: NPROC = None,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """Recommend items to a user, to many users, or to a new or anonymous user.

    Example: recsys recommend --user 42 --where "year >= 1990 and 'Comedy' in genres"
    """
    feedback = {"likes": likes, "dislikes": dislikes, "ratings": ratings}
    _check(user is not None, users is not None, all_users, anonymous, feedback, hide_test, out)
    _check_numbers(k, nproc, out, users)
    from recsys_embed.answering.request import RecommendRequest
    from recsys_embed.storage.table_files import check_is_not_read

    if out is not None:
        check_is_not_read(out, **{"--users": users, "--items": items})
    recommender, folder = _load(model, items, index)

    request = RecommendRequest(
        k=k,
        candidates=None if candidates is None else item_ids(recommender, candidates, "candidates", on_unknown),
        exclude=() if exclude is None else item_ids(recommender, exclude, "exclude", on_unknown),
        include_seen=include_seen,
        hide_test=hide_test,
        rules=rules,
        explain=True,
        on_unknown=on_unknown,
    )
    if out is None:
        return _recommend_one(recommender, folder, with_user(recommender, request, user, feedback), json)
    who = None if users is None else _read_recipients(recommender, users, user_col, request)
    who = who if user is None else recommender.users.rows([user])
    return _recommend_many(recommender, folder, request, who, out, shape, output, nproc, json)


def _load(model: str | None, items: Path | None, index: IndexName) -> tuple[Recommender, Path]:
    recommender, folder = load(model)
    if items is not None:
        recommender.set_items(read_item_values(items, recommender))
    if index != "exact":
        recommender.use_index(index)
    return recommender, folder


def _check(
    user: bool, users: bool, all_users: bool, anonymous: bool, feedback: dict[str, str | None], hide: bool, out: Any
) -> None:
    """Raise SettingError unless the options name exactly one user or group of users, and go together."""
    given = [f"--{name}" for name, value in feedback.items() if value is not None]
    if bool(user or given) + users + all_users + anonymous != 1:
        raise SettingError(
            "say whom to recommend to: one of --user ID, --users FILE, --all-users, --anonymous, or a new user's "
            "--likes, --dislikes or --ratings"
        )
    if (given or anonymous) and (out is not None or (hide and not user)):
        raise SettingError(
            f"{', '.join(given) or '--anonymous'} is for a user outside the model: --out and --hide-test go with users "
            "of the model"
        )
    if out is None and (users or all_users):
        raise SettingError(
            "lists of many users go to a file: name it with --out lists.parquet (or .csv, .jsonl), or a folder with "
            "--out lists/"
        )


def _check_numbers(k: int, nproc: int | None, out: str | None, users: str | None) -> None:
    if k < 1:
        raise SettingError(f"--k must be at least 1, got {k}")
    if nproc is not None and (out is None or users == "-"):
        raise SettingError("--nproc is for a folder of parts (--out lists/), and users that come from a file")


def item_ids(recommender: Recommender, text: str, option: str, on_unknown: OnUnknown = "error") -> list[Id]:
    """Return the ids of the items that an option names, each once."""
    from recsys_embed.answering.titles import split_names

    names = split_names(text)
    if not names:
        raise SettingError(f"--{option} {text!r} names no item")
    ids = dict.fromkeys(_find_item(recommender, name, on_unknown) for name in names)
    return [item for item in ids if item is not None]


def _find_item(recommender: Recommender, name: str, on_unknown: OnUnknown) -> Id | None:
    """Return the id of an item, or None for an unknown one unless that is an error."""
    try:
        return recommender.find_item(name)
    except UnknownId as error:
        if on_unknown == "error":
            raise
        log.warning("left out: %s", error)
        return None


def with_user(
    recommender: Recommender, request: RecommendRequest, user: str | None, feedback: dict[str, str | None]
) -> RecommendRequest:
    """Return a request with the user and the feedback that the options name. feedback: option -> its text."""
    from recsys_embed.answering.titles import split_ratings

    if user is not None and (request.on_unknown == "error" or user in recommender.users):
        request = replace(request, user=recommender.users.ids([recommender.users.row(user)])[0])
    items: dict[str, Any] = {
        name: item_ids(recommender, text, name, request.on_unknown)
        for name, text in feedback.items()
        if text is not None and name != "ratings"
    }
    by_name = split_ratings(feedback["ratings"] or "")
    if feedback["ratings"] is not None and not by_name:
        raise SettingError(f"--ratings {feedback['ratings']!r} names no item")
    by_id = {_find_item(recommender, name, request.on_unknown): value for name, value in by_name.items()}
    ratings = {item: value for item, value in by_id.items() if item is not None}
    return replace(request, ratings=ratings, **items)


def _read_recipients(recommender: Recommender, users: str, user_col: str | None, request: RecommendRequest) -> Any:
    from recsys_embed.answering.recipients import recipients_of
    from recsys_embed.sources.users_file import read_users

    return recipients_of(recommender.state, read_users(users, user_col), request)


def _recommend_many(
    recommender: Recommender,
    folder: Path,
    request: RecommendRequest,
    users: Any,
    out: str,
    shape: ListShape,
    output: OutputConfig,
    nproc: int | None,
    json: bool,
) -> None:
    from recsys_embed.answering.batch import write_recommendations
    from recsys_embed.distributed.sharing import sharing
    from recsys_embed.storage.part_folder import explain_interrupt
    from recsys_embed.tracking.progress import progress_bar

    with explain_interrupt(out), progress_bar() as bar, sharing(nproc) as team:
        written = write_recommendations(
            recommender.state, out, users, request, shape,
            lambda done, total: bar.progress(done, total, unit="user"), output, team,
        )  # fmt: skip
    if team.rank:
        return None
    if written.empty:
        examples = ", ".join(str(user) for user in written.empty[:5]) + (", …" if len(written.empty) > 5 else "")
        have = f"{counted(len(written.empty), 'user')} {'has' if len(written.empty) == 1 else 'have'}"
        log.warning("%s no list, since nothing is left for them: %s", have, examples)
    if written.held_out:
        log.warning(
            "%s of %s lists have items that the user has already: they were held out for test (--hide-test leaves them "
            "out; recsys train --for-production fits on everything)", f"{written.held_out:,}", f"{written.lists:,}",
        )  # fmt: skip
    if json:
        facts = {"rows": written.rows, "lists": written.lists, "without_list": len(written.empty)}
        facts |= {"held_out": written.held_out, "files": written.files, "new_files": written.new_files}
        return print_json({"out": out, **facts, "model": str(folder)})
    where = written_to(out, written.files, written.new_files)
    return echo(f"{counted(written.lists, 'list')} of {counted(written.rows, 'item')} {where}   model {folder}")


def _recommend_one(recommender: Recommender, folder: Path, request: RecommendRequest, json: bool) -> None:
    from recsys_embed.answering.recommend import recommend as answer

    start = time.perf_counter()
    recommendations = answer(recommender.state, request)
    seconds = time.perf_counter() - start
    entries, shortfall = recommendations.entries(), recommendations.shortfall
    if json:
        facts = {"items": entries, "short": shortfall, "from": recommendations.origin, "model": str(folder)}
        return print_json(user_fields(request) | facts)
    user, history, relation = _describe_user(recommender, request)
    run = recommender.metadata.get("run_id")
    model = f"model {folder}" + (f" (run {run[:8]})" if run else "")
    echo(f"Top {len(entries)} for {user}   {model}   {1000 * seconds:.1f} ms")
    echo(history, dim=True)
    if entries:
        _print_list(entries, relation)
    if shortfall is not None:
        echo(shortfall, dim=True)
    return None


def user_fields(request: RecommendRequest) -> dict[str, Any]:
    """Return the fields of a JSON answer that say whom it is for."""
    fields: dict[str, Any] = {
        "dislikes": request.dislikes,
        "ratings": {str(item): value for item, value in request.ratings.items()},
    }
    fields = {name: value for name, value in fields.items() if value}
    if request.user is not None or not (request.likes or fields):
        fields = {"user": request.user} | fields
    return fields | ({"likes": request.likes} if request.likes or "user" not in fields else {})


# What an anonymous user gets, by whether the model has no trend.
_POPULAR = {
    True: "no history: the items with most ratings come first",
    False: "no history: what is popular lately comes first",
}


def _describe_user(recommender: Recommender, request: RecommendRequest) -> tuple[str, str, str]:
    """Return texts for people: whom an answer is for, their history, and what relates them to its items."""
    feedback = _feedback_texts(recommender, request)
    if request.user is None and not feedback:
        return "an anonymous user", _POPULAR[recommender.state.trend is None], "they like"
    if request.user is None:
        return "a new user", "; ".join(feedback), "they like"
    row = int(recommender.users.rows([request.user])[0])
    n_seen, n_held_out = len(recommender.seen[row]), len(recommender.held_out[row])
    n_hidden = n_seen if recommender.state.hidden_items is None else len(recommender.state.hidden_items[row])
    what = "neighbours" if recommender.is_graph else "rated items"
    hidden = "hidden" if n_hidden == n_seen else f"{n_hidden:,} of them hidden"
    history = f"history: {n_seen:,} {what}, {'shown too' if request.include_seen else hidden}"
    if n_held_out:
        history += f"; {n_held_out:,} more were held out for test and "
        history += "are hidden" if request.hide_test else "may appear (--hide-test)"
    history = "; ".join([history, *feedback])
    if recommender.is_graph:
        return f"node {request.user}", history, "it is linked to"
    return f"user {request.user}", history, "the user rated"


def _feedback_texts(recommender: Recommender, request: RecommendRequest) -> list[str]:
    """Return the request's likes, dislikes and ratings as texts."""
    titles = dict(zip(recommender.item_ids, recommender.titles, strict=True))
    lists = {"likes": request.likes, "dislikes": request.dislikes}
    texts = [f"{name}: {', '.join(titles[item] for item in items)}" for name, items in lists.items() if items]
    if request.ratings:
        texts.append("rated: " + ", ".join(f"{titles[item]} {value:g}" for item, value in request.ratings.items()))
    return texts


def _print_list(entries: list[dict[str, Any]], relation: str) -> None:
    lines = [
        [e["rank"], e["item"], e["title"], f"{e['score']:.3f}", ", ".join(reason["title"] for reason in e["why"])]
        for e in entries
    ]
    print_table(["#", "item", "title", "score", f"similar to what {relation}"], lines, "# item score")
