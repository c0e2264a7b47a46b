"""Find out which column of a frame holds the users, the items, the ratings and the times."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import polars as pl

from recsys_embed.data.column_guess import (
    guess_by_content,
    guess_by_name,
    is_amount,
    is_event_name,
    is_usual,
    normalized,
    undecided,
    usual_columns,
)
from recsys_embed.data.ids import uuid_text
from recsys_embed.errors import DataError

log = logging.getLogger("recsys_embed")

__all__ = ["COLUMN_NAMES", "as_polars", "find_columns", "from_arrow", "is_usual_name", "usual_columns"]

# Canonical column names for each role, most preferred first; others are guesses, see `column_guess`.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "user": ("user_id", "userId", "user", "user_procid", "source"),
    "item": ("item_id", "itemId", "movieId", "item", "item_procid", "target"),
    "rating": ("rating", "value"),
    "time": ("timestamp", "time"),
    "weight": (),  # only where it is named
    "event": ("event", "event_type", "event_name", "action", "behavior", "behavior_type"),  # only of event logs
}
_GUESSED = ("user", "item", "rating", "time")


def is_usual_name(name: str) -> bool:
    """Return whether a name is one by which a column is recognised, canonical or not."""
    return any(name in names for names in COLUMN_NAMES.values()) or is_usual(name) or is_event_name(name)


def as_polars(frame: Any) -> pl.DataFrame:
    """Return a polars frame (a lazy one is collected), a pandas frame or a pyarrow table as a polars frame.

    Raises DataError for anything else.
    """
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        try:
            return frame.collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"the lazy frame cannot be collected: {str(error).splitlines()[0]}") from None
    package = type(frame).__module__.partition(".")[0]
    if package == "pyarrow" and hasattr(frame, "column_names"):
        return from_arrow(frame)
    if package != "pandas" or not hasattr(frame, "columns"):
        raise DataError(f"a polars, pandas or pyarrow table is needed, not a {type(frame).__name__}")
    try:
        return pl.from_pandas(_without_uuids(frame))
    except Exception as error:  # pyarrow raises errors of its own for a column of mixed types
        raise DataError(f"a column of the frame holds mixed types: {str(error).splitlines()[0]}") from None


def from_arrow(table: Any) -> pl.DataFrame:
    """Return a pyarrow table as a polars frame; UUIDs become text, other extensions what they store."""
    frame = pl.DataFrame(pl.from_arrow(table))
    for field in table.schema:
        column, kind = frame[field.name], getattr(field.type, "extension_name", "")
        if kind == "arrow.uuid" and column.dtype == pl.Binary:
            frame = frame.with_columns(uuid_text(column.bin.encode("hex")).alias(field.name))
        elif kind and hasattr(column, "ext"):
            stored = column.ext.storage()
            if getattr(field.type, "type_name", "") == "numeric":  # PostgreSQL's, as text
                whole = stored.cast(pl.Int64, strict=False)
                stored = whole if whole.null_count() == stored.null_count() else stored
            frame = frame.with_columns(stored.alias(field.name))
    return frame


def _without_uuids(frame: Any) -> Any:
    """Return a pandas frame in which UUID objects are text."""
    for name in [n for n, dtype in frame.dtypes.items() if dtype == object]:  # noqa: E721
        present = frame[name].dropna()
        if len(present) and isinstance(present.iloc[0], UUID):
            frame = frame.assign(**{name: frame[name].map(lambda v: str(v) if isinstance(v, UUID) else v)})
    return frame


def _format_names(columns: list[str]) -> str:
    """List column names for a message: at most 12 of them, shortened to 40 characters each."""
    names = ", ".join(repr(c[:40]) for c in columns[:12])
    return names + (f", … ({len(columns)} in all)" if len(columns) > 12 else "")


def find_columns(data: pl.DataFrame | list[str], given: dict[str, str | None]) -> dict[str, str]:
    """Return the column of each role: the given name or, for None, the first of its canonical names that is there, else
    a guess by name and, of a frame, by content.

    data: a frame, or the names of its columns alone. given: the roles to look for, each with a column name or None.
    A guess is logged in one line. Roles without a column are left out. Raises DataError for a given name that is not
    there, if no column holds the users or the items, and for all roles for which two columns would do as well.
    """
    columns = data.columns if isinstance(data, pl.DataFrame) else data
    column_of_role = _named_columns(columns, given)
    guessed: list[str] = []
    open_: dict[str, list[str]] = {}
    for role in [r for r in given if r not in column_of_role and r in _GUESSED]:
        rest = [c for c in columns if c not in column_of_role.values()]
        # A canonical name in other letters is no guess that another name could rival.
        canonical = [c for c in rest if normalized(c) in {normalized(n) for n in COLUMN_NAMES[role]}]
        if len(canonical) == 1 and role in ("user", "item"):
            found = canonical
        else:
            found = guess_by_name(data.select(rest) if isinstance(data, pl.DataFrame) else rest, role)
        if len(found) > 1:
            open_[role] = found
        elif found:
            column_of_role[role] = found[0]
            guessed.append(role)
    missing = [role for role in given if role not in (*column_of_role, *open_) and role in _GUESSED]
    if isinstance(data, pl.DataFrame) and {"user", "item"} & set(missing):
        taken = [*column_of_role.values(), *(name for names in open_.values() for name in names)]
        event_like = find_event_like_column(data, taken)
        by_content, open_by_content = guess_by_content(data, [*taken, event_like or ""], missing)
        column_of_role |= by_content
        guessed += by_content
        open_ |= open_by_content
    if open_:
        raise undecided({role: open_[role] for role in given if role in open_})
    if any(role in given and role not in column_of_role for role in ("user", "item")):
        raise _not_found([role for role in _GUESSED if role in given and role not in column_of_role], columns)
    if guessed:
        _log_guess(column_of_role, columns, "rating" in given)
    return {role: column_of_role[role] for role in given if role in column_of_role}


def _not_found(roles: list[str], columns: list[str]) -> DataError:
    """Return the error for columns of users or items that are not found. roles: all that are not."""
    needed, optional = ([role for role in roles if (role in ("user", "item")) == is_side] for is_side in (True, False))
    found = f"no column for the {' and none for the '.join(needed)} among {_format_names(columns)}"
    names = f"name {'them' if len(needed) > 1 else 'it'} ({', '.join(f'{role}=…' for role in needed)}, "
    names += f"{' '.join(f'--{role}-col' for role in needed)}"
    if optional:
        names += f"; {' and '.join(f'--{role}-col' for role in optional)} if there is one"
    hint = "; a matrix of users x items needs one row a rating" * (sum(c.isdigit() for c in columns) > 5)
    return DataError(
        f"{found}: {names}) or, for a file without a header, name all columns with --columns "
        f"user,item,rating,timestamp{hint}"
    )


def _named_columns(columns: list[str], given: dict[str, str | None]) -> dict[str, str]:
    """Return the columns that are given, or have a canonical name; see `find_columns`."""
    found = {}
    for role, name in given.items():
        if name is not None and name not in columns:
            raise DataError(f"there is no column {name!r} for the {role}; the columns are {_format_names(columns)}")
        name = name or next((n for n in COLUMN_NAMES[role] if n in columns), None)
        if name is None and role == "event":
            name = next((n for n in columns if is_event_name(n)), None)
        if name is not None:
            found[role] = name
    return found


def _log_guess(column_of_role: dict[str, str], columns: list[str], with_ratings: bool) -> None:
    text = ", ".join(f"{role} = {name}" for role in _GUESSED if (name := column_of_role.get(role)) is not None)
    amounts = [c for c in columns if is_amount(c) and c not in column_of_role.values()]
    note = ""
    if with_ratings and "rating" not in column_of_role and "weight" not in column_of_role and amounts:
        note = f"; {amounts[0]} is an amount, no rating: --weight-col {amounts[0]} makes rows count by it"
    log.info("columns: %s (--user-col … names others)%s", text, note)


# Types of events that many logs have; a column with two of them is one of event types, whatever its name.
_USUAL_EVENTS = {
    "add_to_cart", "addtocart", "buy", "cart", "click", "dislike", "download", "fav", "favorite", "impression", "like",
    "listen", "order", "play", "purchase", "pv", "remove_from_cart", "share", "skip", "transaction", "view", "watch",
    "wishlist", "ansicht", "aufruf", "bestellung", "kauf", "klick", "merkzettel", "retoure", "warenkorb", "achat",
    "clic", "commande", "panier", "vue", "carrito", "compra", "pedido", "vista",
}  # fmt: skip
# A column of event types has at most this many different values, and this many rows tell whether it may be one.
_MAX_TYPES, _HEAD = 50, 10_000


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
        if is_event_name(name) or len(words & _USUAL_EVENTS) >= 2:
            return name
    return None
