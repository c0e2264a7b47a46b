"""Find out which column of a frame holds the users, the items, the ratings and the times."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from recsys_embed.errors import DataError

# Column names that are recognised for each role, most preferred first.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "user": ("user_id", "userId", "user", "user_procid", "source"),
    "item": ("item_id", "itemId", "movieId", "item", "item_procid", "target"),
    "rating": ("rating", "value"),
    "time": ("timestamp", "time"),
    "weight": (),  # only where it is named
    "event": ("event", "event_type", "event_name", "action", "behavior", "behavior_type"),  # only of event logs
}

# Types of events that many logs have; a column with two of them is one of event types, whatever its name.
_USUAL_EVENTS = {
    "add_to_cart", "addtocart", "buy", "cart", "click", "dislike", "download", "fav", "favorite", "impression", "like",
    "listen", "order", "play", "purchase", "pv", "remove_from_cart", "share", "skip", "transaction", "view", "watch",
    "wishlist",
}  # fmt: skip
# A column of event types has at most this many different values, and this many rows tell whether it may be one.
_MAX_TYPES, _HEAD = 50, 10_000


def as_polars(frame: Any) -> pl.DataFrame:
    """Return a polars or pandas frame as a polars frame; raise DataError for anything else."""
    if isinstance(frame, pl.DataFrame):
        return frame
    if type(frame).__module__.partition(".")[0] != "pandas":
        raise DataError(f"a polars or pandas DataFrame is needed, not a {type(frame).__name__}")
    try:
        return pl.from_pandas(frame)
    except Exception as error:  # pyarrow raises errors of its own for a column of mixed types
        raise DataError(f"a column of the frame holds mixed types: {str(error).splitlines()[0]}") from None


def _format_names(columns: list[str]) -> str:
    """List column names for a message: at most 12 of them, shortened to 40 characters each."""
    names = ", ".join(repr(c[:40]) for c in columns[:12])
    return names + (f", … ({len(columns)} in all)" if len(columns) > 12 else "")


def find_columns(columns: list[str], given: dict[str, str | None]) -> dict[str, str]:
    """Return the column of each role: the given name or, for None, the first of its usual names that is there.

    columns: the frame's columns. given: the roles to look for, each with a column name or None.
    Roles without a column are left out. Raises DataError for a given name that is not there, and if no column
    holds the users or the items.
    """
    column_of_role = {}
    for role, name in given.items():
        if name is not None and name not in columns:
            raise DataError(f"there is no column {name!r} for the {role}; the columns are {_format_names(columns)}")
        name = name or next((n for n in COLUMN_NAMES[role] if n in columns), None)
        if name is None and role in ("user", "item"):
            raise DataError(
                f"no column for the {role} among {_format_names(columns)}: name it ({role}=…, --{role}-col) or, "
                "for a file without a header, name all columns with --columns user,item,rating,timestamp"
            )
        if name is not None:
            column_of_role[role] = name
    return column_of_role


def find_event_like_column(frame: pl.DataFrame, used: Iterable[str]) -> str | None:
    """Return the name of a column that seems to hold types of events, such as view and purchase, or None.

    used: columns that hold something else.
    """
    used = set(used)
    for name in frame.columns:
        head = frame[name].head(_HEAD)
        has_types = head.dtype in (pl.String, pl.Categorical, pl.Enum) or head.dtype.is_integer()
        if name in used or not has_types or not 2 <= head.n_unique() <= _MAX_TYPES:
            continue
        words = {str(word).strip().lower().replace(" ", "_").replace("-", "_") for word in head.unique().to_list()}
        if name.lower() in COLUMN_NAMES["event"] or len(words & _USUAL_EVENTS) >= 2:
            return name
    return None
