"""How times are written: which form of dates a column has, and dates of such forms as datetimes.

A form is a strptime format. One of a date alone also reads a time of day, and a zone, after it.
"""

from __future__ import annotations

import datetime
import logging
from typing import NamedTuple

import polars as pl

from recsys_embed.errors import SettingError

log = logging.getLogger("recsys_embed")

# Days since 1899-12-30, as spreadsheets count; the number of those before 1970.
EXCEL, _EXCEL_1970 = "excel", 25_569
ISO = "%Y-%m-%d"
# Forms in which the first two numbers may be a day and a month, or a month and a day.
_PAIRS = [(f"%d{sep}%m{sep}{year}", f"%m{sep}%d{sep}{year}") for year in ("%Y", "%y") for sep in "/.-"]
_OTHER_ORDER = dict(_PAIRS) | {second: first for first, second in _PAIRS}
# Dates without separators, and how many digits they have.
_COMPACT = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
FORMATS = (
    ISO, "%Y/%m/%d", "%Y.%m.%d", *(form for pair in _PAIRS for form in pair),
    "%d %B %Y", "%d-%B-%Y", "%d/%B/%Y", "%d. %B %Y", "%d-%B-%y", "%d %B %y", "%B %d, %Y", "%B %d %Y", "%m %d, %Y",
    *_COMPACT.values(), "%Y%m%dT%H%M%S", "%Y%m%dT%H%M%SZ", "%a %b %d %H:%M:%S %z %Y", "%d/%b/%Y:%H:%M:%S %z",
)  # fmt: skip

_PIECES = (
    r"^\s*(?:(?i:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+)?(?P<date>\S.*?)"
    r"(?:(?:T|,?\s+)(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?)?"
    r"\s*(?:(?P<half>[AaPp])\.?[Mm]\.?)?\s*(?P<zone>[Zz]|UTC|GMT|[+-]\d\d(?::?\d\d)?)?)?\s*$"
)
_TIME_OF_DAY = ("%H", "%I", "%k", "%l", "%M", "%S", "%T", "%R", "%r", "%X", "%c", "%s", "%+")
_ENDINGS = ("", " %H:%M:%S", " %H:%M", " %I:%M %p", " %I:%M:%S %p")
_SAMPLE, _YEARS = 500, (1900, 2200)
_DAY = datetime.timedelta(days=1)


class Reading(NamedTuple):
    """The form of a column of times. format: None for numbers, ISO text and columns of dates. other: another order of
    day and month that reads all rows too. why: what chose between the two."""

    format: str | None = None
    other: str | None = None
    why: str = ""


def find_format(column: pl.Series, given: str | None = None) -> Reading:
    """Return how the times of a column are written, by its content; the given form where it reads a row."""
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
    counts = {form: int(read_dates(sample, form).is_not_null().sum()) for form in FORMATS}
    best = max(FORMATS, key=lambda form: counts[form])
    if not counts[best]:
        return Reading(ISO)
    return _ordered(column, best) if best in _OTHER_ORDER else Reading(best)


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
            "times such as %s may have the day or the month first: read as %s, %s (--time-format '%s' decides "
            "otherwise)", example, found.format, found.why, found.other,
        )  # fmt: skip
    elif found.format in _COMPACT.values():
        log.info("times such as %s are read as dates, %s, not as seconds since 1970", example, found.format)
    elif found.format in _OTHER_ORDER:
        log.info("times such as %s are read as %s (--time-format names another form)", example, found.format)
    return found.format


def reads(column: pl.Series, form: str) -> bool:
    """Return whether some of a column's times are written in a form."""
    return bool(read_dates(column, form).is_not_null().any())


def read_dates(column: pl.Series, form: str) -> pl.Series:
    """Return times of a form as Datetime("us") in UTC; null where they are not written so.

    column: text or numbers. form: a strptime format, or "excel". Raises SettingError for what is no format.
    """
    if form == EXCEL:
        days = column.cast(pl.Float64, strict=False)
        days = pl.select(pl.when(days.is_between(1, 110_000)).then(days)).to_series()
        return ((days - _EXCEL_1970) * 86_400e6).round().cast(pl.Int64).cast(pl.Datetime("us"))
    if column.dtype != pl.String:
        column = column.cast(pl.Int64, strict=False).cast(pl.String)
    try:
        return _read_text(column, form)
    except (pl.exceptions.PolarsError, ValueError):
        raise SettingError(f"time-format must be a strptime format, such as '%d/%m/%Y', got {form!r}") from None


def _read_text(column: pl.Series, form: str) -> pl.Series:
    if any(directive in form for directive in _TIME_OF_DAY):
        dates = column.str.strip_chars().str.to_datetime(form, strict=False, time_unit="us")
        dates = dates.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if "%z" in form else dates
        return _of_usual_years(dates)
    for dates in _read_plain(column, (form,)):
        if dates.null_count() == column.null_count():
            return dates
    return _with_time_of_day(_split_texts(column), form)


def _read_plain(column: pl.Series, forms: tuple[str, ...]) -> list[pl.Series]:
    """Return times by each form, if the first of them has one with a time of day as most write it, else nothing.

    This is several times as fast as to split texts.
    """
    first = column.head(_SAMPLE).drop_nulls().head(1)
    for ending in _ENDINGS:
        if any(len(first) and _as_dates(first, form + ending).null_count() == 0 for form in forms):
            return [_as_dates(column, form + ending) for form in forms]
    return []


def _as_dates(column: pl.Series, form: str) -> pl.Series:
    if "%H" in form or "%I" in form:
        return _of_usual_years(column.str.to_datetime(form, strict=False, time_unit="us"))
    return _of_usual_years(column.str.to_date(form, strict=False)).cast(pl.Datetime("us"))


def _of_usual_years(dates: pl.Series) -> pl.Series:
    """Return dates without those that misread a year, such as 25."""
    return pl.select(pl.when(dates.dt.year().is_between(*_YEARS)).then(dates)).to_series()


def _split_texts(column: pl.Series) -> pl.DataFrame:
    """Return the pieces of texts: the date, and the time of day after it as microseconds; null where there is none."""
    pieces = column.str.extract_groups(_PIECES).struct.unnest()
    hour, minute, second = (pl.col(name).cast(pl.Int64) for name in ("hour", "minute", "second"))
    half, zone = pl.col("half").str.to_lowercase(), pl.col("zone").str.replace(":", "", literal=True)
    in_day = pl.when(half.is_null()).then(hour).otherwise(hour % 12 + 12 * (half == "p").cast(pl.Int64))
    valid = (
        (hour < 24) & (minute < 60) & (second.fill_null(0) <= 60) & (half.is_null() | hour.is_between(1, 12))
    ).fill_null(True)
    numbers = zone.str.extract(r"^[+-](\d+)$").str.pad_end(4, "0").cast(pl.Int64)
    ahead = (numbers // 100 * 60 + numbers % 100) * pl.when(zone.str.starts_with("-")).then(-60).otherwise(60)
    seconds = in_day * 3600 + minute * 60 + second.fill_null(0) - ahead.fill_null(0)
    micros = pl.col("part").str.pad_end(6, "0").str.slice(0, 6).cast(pl.Int64)
    return pieces.select(
        date=pl.when(valid).then(pl.col("date").str.replace(r"(?i)\bsept\b", "Sep")),
        micros=seconds.fill_null(0) * 10**6 + micros.fill_null(0),
    )


def _with_time_of_day(pieces: pl.DataFrame, form: str) -> pl.Series:
    days = _of_usual_years(pieces["date"].str.to_date(form, strict=False))
    return days.cast(pl.Datetime("us")) + pieces["micros"].cast(pl.Duration("us"))


def _ordered(column: pl.Series, form: str) -> Reading:
    """Return the order of day and month in which most rows are dates; of two that are alike, the likelier one."""
    pair = next(pair for pair in _PAIRS if form in pair)
    dates = _read_plain(column, pair)
    missing = [one.null_count() for one in dates]
    if column.null_count() not in missing:
        pieces = _split_texts(column)
        dates = [_with_time_of_day(pieces, one) for one in pair]
        missing = [one.null_count() for one in dates]
    if missing[0] != missing[1] or missing[0] > column.null_count() or dates[0].equals(dates[1]):
        return Reading(pair[int(missing[1] < missing[0])])
    tomorrow = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + _DAY
    future = [bool((one > tomorrow).any()) for one in dates]
    ascending = [one.is_sorted() or one.is_sorted(descending=True) for one in dates]
    if future[0] != future[1]:
        chosen, why = int(future[0]), "since no time is then in the future"
    elif ascending[0] != ascending[1]:
        chosen, why = int(ascending[1]), "since the rows are then in order"
    elif column.head(_SAMPLE).str.contains(r"(?i)\d\s*[ap]\.?m").any():
        chosen, why = 1, "since times with AM and PM mostly have the month first"
    else:
        chosen, why = 0, "since most of the world writes so"
    return Reading(pair[chosen], pair[1 - chosen], why)


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
    dates = read_dates(column.cast(pl.Float64, strict=False).cast(pl.Int64, strict=False), form)
    if dates.null_count() > column.null_count():
        return None
    next_year = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + 366 * _DAY
    plausible = dates.drop_nulls().is_between(datetime.datetime(1990, 1, 1), next_year).all()
    return form if plausible else None


def other_forms(column: pl.Series, form: str | None) -> list[tuple[str, pl.Series]]:
    """Return the forms of those times that are not written as most are, each with its rows as a mask.

    column: of text. form: of most times, None for ISO. A row counts for the first form that reads it.
    """
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
