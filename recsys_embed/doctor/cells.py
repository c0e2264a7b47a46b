"""Cells that a training cannot read: missing ids, values that are no numbers, times that are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import polars as pl

from recsys_embed.data.ids import RowLabel, row_name
from recsys_embed.data.values import times_as_given
from recsys_embed.doctor.codes import N_EXAMPLES, Finding, finding, plural
from recsys_embed.sources.odd_lines import OddLine

# A column of which more than this share cannot be read is not what it was taken for.
_MAX_BROKEN = 0.5
# Floats up to here are integers exactly.
_EXACT = 2**53


class Readable(NamedTuple):
    """The part of a table that can be read. columns: the column of each role; those that cannot be read are gone."""

    frame: pl.DataFrame
    columns: dict[str, str]
    findings: list[Finding]
    n_dropped: int


def readable_rows(
    frame: pl.DataFrame,
    columns: dict[str, str],
    row_label: RowLabel,
    source: str = "",
    time_format: str | None = None,
) -> Readable:
    """Return the rows of a table whose cells can be read, and what is wrong with the others.

    columns: the column of each role. source: words for messages about a table of held-out ratings. time_format: how
    dates are written, where the settings say so.
    """
    findings: list[Finding] = []
    for side in ("user", "item"):
        frame, found = _with_readable_ids(frame, columns[side], side, source)
        findings += found
    columns, dropped = dict(columns), pl.repeat(False, frame.height, dtype=pl.Boolean, eager=True)
    for code, role, what in _ROLES:
        if role not in columns:
            continue
        column = frame[columns[role]]
        broken = times_as_given(column, time_format).is_null() if role == "time" else _BROKEN[role](column)
        count = int(broken.sum())
        if not count:
            continue
        examples = [_example(column, row, row_label) for row in broken.arg_true().head(N_EXAMPLES)]
        usable = "" if role in ("user", "item", "event") else _USABLE[role]
        message = f"{plural(count, 'row')}{source} {'has' if count == 1 else 'have'} no {what}{usable}"
        remedy = None
        if role not in ("user", "item") and count > _MAX_BROKEN * frame.height:
            del columns[role]
            frame = frame.drop(column.name)
            remedy = f"column {column.name!r} seems to be something else: name another one with --{role}-col"
            if role == "rating":
                remedy += ", or the types of an event log with --event-col"
        else:
            dropped |= broken
        findings.append(finding(code, count, message, examples, remedy, is_fixed=not source))
    n_dropped = int(dropped.sum())
    return Readable(frame.filter(~dropped) if n_dropped else frame, columns, findings, n_dropped)


def find_odd_lines(lines: Sequence[OddLine], source: str = "") -> Iterator[Finding]:
    """Yield lines of a text with another number of fields than its first. source: see `readable_rows`."""
    for code, what, is_longer in (("D112", "many", True), ("D113", "few", False)):
        some = [line for line in lines if line.is_longer == is_longer]
        if some:
            examples = (f"line {line.first} of {line.name}: {line.fields} for {line.width}" for line in some)
            message = f"{plural(len(some), 'line')}{source} {'has' if len(some) == 1 else 'have'} too {what} fields"
            yield finding(code, len(some), message, examples, is_fixed=not source)


def _example(column: pl.Series, row: int, row_label: RowLabel) -> str:
    value = column[row]
    text = "nothing" if value is None or str(value).strip() == "" else repr(value)
    return f"{row_name(row, row_label)}: {text}"


def _is_blank(column: pl.Series) -> pl.Series:
    if column.dtype in (pl.String, pl.Categorical, pl.Enum):
        return column.is_null() | (column.cast(pl.String).str.strip_chars() == "").fill_null(False)
    return column.is_null()


def _is_no_number(column: pl.Series) -> pl.Series:
    values = column.cast(pl.Float32, strict=False)
    return values.is_null() | ~values.is_finite().fill_null(False)


def _is_no_weight(column: pl.Series) -> pl.Series:
    return _is_no_number(column) | (column.cast(pl.Float32, strict=False) <= 0).fill_null(True)


# The code of what cannot be read, the role of its column, and words for it.
_ROLES = (
    ("D104", "user", "user id"), ("D104", "item", "item id"), ("D105", "rating", "rating"),
    ("D106", "time", "time"), ("D107", "weight", "weight"), ("D108", "event", "type of event"),
)  # fmt: skip
_USABLE = {"rating": " that is a finite number", "time": " that can be read", "weight": " above 0"}
_BROKEN = {
    "user": _is_blank, "item": _is_blank, "rating": _is_no_number, "weight": _is_no_weight, "event": _is_blank,
}  # fmt: skip


def _with_readable_ids(frame: pl.DataFrame, name: str, side: str, source: str) -> tuple[pl.DataFrame, list[Finding]]:
    """Return a table with a column of ids as integers or text, and what was wrong with it."""
    column = frame[name]
    if column.dtype.is_integer() or column.dtype in (pl.String, pl.Categorical, pl.Enum):
        return frame, []
    examples = column.drop_nulls().unique(maintain_order=True).head(N_EXAMPLES).to_list()
    message = f"the {side} ids{source} are {column.dtype}, not integers or text"
    if column.dtype.is_float():
        column = pl.select(pl.when(column.is_finite()).then(column)).to_series()  # NaN is a missing id
        whole = ((column % 1 == 0) & (column.abs() < _EXACT)).all()
        ids = column.cast(pl.Int64) if whole else column.cast(pl.String)
    else:
        ids = column.cast(pl.String, strict=False)
    return frame.with_columns(ids.alias(name)), [finding("D109", frame.height, message, examples, is_fixed=not source)]
