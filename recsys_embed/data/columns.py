"""Which column of a frame plays which role."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from recsys_embed.errors import DataError

if TYPE_CHECKING:
    pass


# Names that a column may have when nobody says otherwise, in the order of preference.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "user": ("user_id", "userId", "user", "user_procid", "source"),
    "item": ("item_id", "itemId", "movieId", "item", "item_procid", "target"),
    "rating": ("rating", "value"),
    "time": ("timestamp", "time"),
}


def as_polars(frame: Any) -> pl.DataFrame:
    """Return a polars or pandas frame as a polars one; raise DataError for anything else."""
    if isinstance(frame, pl.DataFrame):
        return frame
    if type(frame).__module__.partition(".")[0] != "pandas":
        raise DataError(f"a polars or pandas DataFrame is needed, not a {type(frame).__name__}")
    try:
        return pl.from_pandas(frame)
    except Exception as error:  # pyarrow's errors, of a column of mixed types
        raise DataError(f"a column of the frame holds mixed types: {str(error).splitlines()[0]}") from None


def _listed(columns: list[str]) -> str:
    """Name a few columns in a message."""
    named = ", ".join(repr(c[:40]) for c in columns[:12])
    return named + (f", … ({len(columns)} in all)" if len(columns) > 12 else "")


def find_columns(columns: list[str], named: dict[str, str | None]) -> dict[str, str]:
    """Return the column of each role: the one that is named, else the first usual name that is there."""
    found = {}
    for role, name in named.items():
        if name is not None and name not in columns:
            raise DataError(f"there is no column {name!r} for the {role}; the columns are {_listed(columns)}")
        name = name or next((n for n in COLUMN_NAMES[role] if n in columns), None)
        if name is None and role in ("user", "item"):
            raise DataError(
                f"no column for the {role} among {_listed(columns)}: name it ({role}=…, --{role}-col), or, "
                "for a file without a header, name all of them with --columns user,item,rating,timestamp"
            )
        if name is not None:
            found[role] = name
    return found
