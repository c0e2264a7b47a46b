"""How times are written: which form of dates a column has. A form is a strptime format, see `date_texts`."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterator
from typing import NamedTuple

import polars as pl

from recsys_embed.data.date_texts import ISO, has_time_of_day, read_dates, read_in_each

log = logging.getLogger("recsys_embed")

# Forms of three numbers that one text may have: the day, the month or a year of two digits first.
_ORDERS = [
    *((f"%d{sep}%m{sep}%Y", f"%m{sep}%d{sep}%Y") for sep in "/.-"),
    *((f"%d{sep}%m{sep}%y", f"%m{sep}%d{sep}%y", f"%y{sep}%m{sep}%d") for sep in "/.-"),
]
_ORDERS_OF = {form: forms for forms in _ORDERS for form in forms}
# Dates without separators, and how many digits they have.
_COMPACT = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
FORMATS = (
    ISO, "%Y/%m/%d", "%Y.%m.%d", *_ORDERS_OF,
    "%d %B %Y", "%d-%B-%Y", "%d/%B/%Y", "%d. %B %Y", "%d-%B-%y", "%d %B %y", "%B %d, %Y", "%B %d %Y", "%m %d, %Y",
    *_COMPACT.values(), "%Y%m%dT%H%M%S", "%Y%m%dT%H%M%SZ", "%a %b %d %H:%M:%S %z %Y", "%d/%b/%Y:%H:%M:%S %z",
)  # fmt: skip

_SAMPLE = 500
# A reading whose times are of so many more years than those of another is not worth a word.
_MANY_YEARS = 10
_FIRST = {"%d": "day", "%m": "month", "%y": "year"}
_DAY = datetime.timedelta(days=1)


class Reading(NamedTuple):
    """The form of a column of times. format: None for numbers, ISO text and columns of dates. other: another order of
    day, month and year that reads as many rows. why: what chose between the two."""

    format: str | None = None
    other: str | None = None
    why: str = ""

    @property
    def question(self) -> str:
        """What the two orders leave open, in words."""
        one, two = sorted((self.format or "", self.other or ""))
        return f"the {_FIRST[one[:2]]} or the {_FIRST[two[:2]]} first"


def plain_times(column: pl.Series) -> pl.Series:
    """Return a column as dates with or without a time of day, numbers or text; null where it holds nothing that may be
    a time, such as a list or a time of day alone."""
    dtype = column.dtype
    if dtype in (pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    if dtype == pl.Binary:
        try:
            return column.cast(pl.String)
        except pl.exceptions.PolarsError:  # no UTF-8
            return _nothing(column)
    return _nothing(column) if dtype.is_nested() or dtype in (pl.Object, pl.Time, pl.Duration) else column


def _nothing(column: pl.Series) -> pl.Series:
    return pl.Series(column.name, [None] * len(column), pl.String)


def find_format(column: pl.Series, given: str | None = None) -> Reading:
    """Return how the times of a column are written, by its content; the given form where it reads a row."""
    column = plain_times(column)
    if column.dtype.is_temporal() or not len(column):
        return Reading()
    sample = column.drop_nulls().head(_SAMPLE)
    if given is not None and reads(sample, given):
        return Reading(given)
    numbers = sample.cast(pl.Float64, strict=False) if column.dtype == pl.String else sample
    if column.dtype != pl.String or numbers.null_count() <= len(sample) / 2:
        return Reading(_compact_format(column, numbers))
    if sample.str.contains(r"^\s*\d{4}-\d").mean() > 0.5:  # type: ignore[operator]
        return Reading()
    counts = {form: len(dates) - dates.null_count() for form, dates in _read_in_all(sample)}
    best = max(FORMATS, key=lambda form: counts[form])
    if not counts[best]:
        return Reading(ISO)
    return _ordered(column, best) if best in _ORDERS_OF else Reading(best)


def _read_in_all(sample: pl.Series) -> Iterator[tuple[str, pl.Series]]:
    """Give texts read in each of FORMATS. Those of a date alone are read together, so that texts are split once."""
    alone = tuple(form for form in FORMATS if not has_time_of_day(form))
    yield from zip(alone, read_in_each(sample, alone), strict=True)
    yield from ((form, read_dates(sample, form)) for form in FORMATS if form not in alone)


def settled_format(column: pl.Series, given: str | None = None) -> str | None:
    """Return the form of a column of times as `find_format` does, and say in one line what had to be decided."""
    found = find_format(column, given)
    if found.format in (None, ISO, given):
        return found.format
    example = column.drop_nulls()[0]
    if given is not None:
        log.warning("times such as %s are not written as --time-format %s: read as %s", example, given, found.format)
    elif found.other is not None:
        log.warning(
            "times such as %s may have %s: read as %s, %s (--time-format '%s' decides otherwise)",
            example, found.question, found.format, found.why, found.other,
        )  # fmt: skip
    elif found.format in _COMPACT.values():
        log.info("times such as %s are read as dates, %s, not as seconds since 1970", example, found.format)
    elif found.format in _ORDERS_OF:
        log.info("times such as %s are read as %s (--time-format names another form)", example, found.format)
    return found.format


def reads(column: pl.Series, form: str) -> bool:
    """Return whether some of a column's times are written in a form."""
    return bool(read_dates(column, form).is_not_null().any())


def _ordered(column: pl.Series, form: str) -> Reading:
    """Return the order of day, month and year in which most rows are dates; of those that are alike, the likeliest."""
    orders = dict(zip(_ORDERS_OF[form], read_in_each(column, _ORDERS_OF[form]), strict=True))
    fewest = min(dates.null_count() for dates in orders.values())
    orders = {form: dates for form, dates in orders.items() if dates.null_count() == fewest}
    # A cell that is no date says nothing of the others.
    read = pl.DataFrame(orders).select(pl.all_horizontal(pl.all().is_not_null())).to_series()
    orders = {form: dates.filter(read) for form, dates in orders.items()}
    for form in list(orders)[1:]:
        if any(orders[form].equals(dates) for other, dates in orders.items() if other != form):
            del orders[form]
    years = {form: _years(dates) for form, dates in orders.items()}
    orders = {form: dates for form, dates in orders.items() if years[form] < min(years.values()) + _MANY_YEARS}
    tomorrow = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + _DAY
    has_halves = bool(column.head(_SAMPLE).str.contains(r"(?i)\d\s*[ap]\.?m").any())
    against: dict[str, dict[str, int]] = {  # the less, the likelier
        "since no time is then in the future": {f: bool((dates > tomorrow).any()) for f, dates in orders.items()},
        "since the times are then of fewer years": years,
        "since the rows are then in order": {f: not _is_in_order(dates) for f, dates in orders.items()},
        "since times with AM and PM mostly have the month first": {f: has_halves and f[:2] != "%m" for f in orders},
        "since most of the world writes so": {f: n for n, f in enumerate(orders)},
    }
    found, other, why = list(orders), None, ""
    for reason, number in against.items():
        kept = [f for f in found if number[f] == min(number[f] for f in found)]
        if len(kept) < len(found):
            other, why = next(f for f in found if f not in kept), reason
            found = kept
    return Reading(found[0], other, why)


def _is_in_order(dates: pl.Series) -> bool:
    return dates.is_sorted() or dates.is_sorted(descending=True)


def _years(dates: pl.Series) -> int:
    """Return how many years lie between the first and the last date."""
    return int(dates.dt.year().max() - dates.dt.year().min()) if len(dates) else 0  # type: ignore[operator, arg-type]


def _compact_format(column: pl.Series, sample: pl.Series) -> str | None:
    """Return the form of numbers that are all dates from 1990 to a year from now; None for others.

    As seconds since 1970 they would be days of 1970, as milliseconds of the year 2600. sample: numbers of the column.
    """
    if not len(sample) or column.dtype == pl.Boolean:
        return None
    first, last = sample.min(), sample.max()
    form = _COMPACT.get(len(str(int(last)))) if last == last and abs(last) < 1e15 else None  # type: ignore[arg-type, operator]
    if form is None or first < 1.99e7:  # type: ignore[operator]
        return None
    numbers = column.cast(pl.Float64, strict=False)
    dates = read_dates(numbers.cast(pl.Int64, strict=False), form)
    if dates.null_count() > numbers.null_count():  # text among them says nothing of the numbers
        return None
    return form if are_plausible(dates) else None


def are_plausible(dates: pl.Series) -> bool:
    """Return whether dates are all from 1990 to a year from now, as those of data are."""
    next_year = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + 366 * _DAY
    return bool(dates.drop_nulls().is_between(datetime.datetime(1990, 1, 1), next_year).all())


def orders_like(form: str | None) -> tuple[str, ...]:
    """Return the forms that differ from one in the order of day, month and year alone, with it; none for others."""
    return _ORDERS_OF.get(form or "", ())


def other_forms(column: pl.Series, form: str | None) -> list[tuple[str, pl.Series]]:
    """Return the forms of those times that are not written as most are, each with its rows as a mask.

    column: of text. form: of most times, None for ISO. A row counts for the first form that reads it.
    """
    column = plain_times(column)
    left = column.is_not_null() & read_dates(column, form or ISO).is_null()
    found = []
    for other in FORMATS:
        if other == (form or ISO) or not left.any():
            continue
        rows = left & read_dates(pl.select(pl.when(left).then(column)).to_series(), other).is_not_null()
        if rows.any():
            found.append((other, rows))
            left = left & ~rows
    return found
