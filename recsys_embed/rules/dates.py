"""Dates in conditions: ISO texts, the spans of time that they name, and `today` and `now`.

A text names all of what it leaves open: '2026' a year, '2026-12' a month, '2026-12-24' a day, '2026-12-24T18:30' a
minute. Times without a zone are in UTC.
"""

from __future__ import annotations

import datetime
import re
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.errors import SettingError

_ISO = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
    r"(?:[T ](?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?P<fraction>\.\d{1,6})?)?"
    r"(?P<zone>Z|[+-]\d\d:?\d\d)?)?)?)?"
)
# A column of text holds dates if so many of its values look like one.
_ISO_DAY = r"^\s*\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d.*)?\s*$"
_OTHER_DAY = r"^\s*(?:\d{1,2}[/.\- ]+\w+[/.\- ]+\d{2,4}|[A-Za-z]+ \d{1,2}, \d{4}|\d{4}[/.]\d\d?[/.]\d\d?)\b"
_SHARE_OF_DATES = 0.95
_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M")
_STEPS = {"day": 86_400.0, "minute": 60.0, "second": 1.0}
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class Span(NamedTuple):
    """The times from start to before end, in seconds since 1970."""

    start: float
    end: float


@lru_cache(256)
def span_of(text: str) -> Span | None:
    """Return the time that an ISO text names, or None if it names none."""
    match = _ISO.fullmatch(text.strip())
    if match is None:
        return None
    fields = {name: value for name, value in match.groupdict().items() if value is not None}
    zone = fields.pop("zone", "Z").replace("Z", "+00:00")
    fraction = fields.pop("fraction", None)
    numbers = {"month": 1, "day": 1, **{name: int(value) for name, value in fields.items()}}
    if fraction is not None:
        numbers["microsecond"] = int(fraction[1:].ljust(6, "0"))
    try:
        offset = datetime.datetime.strptime(zone, "%z").tzinfo
        start = _seconds(datetime.datetime(**numbers, tzinfo=offset))
        if "month" not in fields:
            return Span(start, _seconds(datetime.datetime(numbers["year"] + 1, 1, 1, tzinfo=datetime.UTC)))
        if "day" not in fields:
            year, month = divmod(12 * numbers["year"] + numbers["month"], 12)
            return Span(start, _seconds(datetime.datetime(year, month + 1, 1, tzinfo=datetime.UTC)))
    except (ValueError, OverflowError):
        return None
    if fraction is not None:
        return _instant(start)
    unit = "second" if "second" in fields else "minute" if "minute" in fields else "day"
    return Span(start, start + _STEPS[unit])


def _seconds(moment: datetime.datetime) -> float:
    # The same two steps as in `seconds_of`, so that equal times are equal numbers.
    return float((moment - _EPOCH) // datetime.timedelta(microseconds=1)) / 1e6


def _instant(seconds: float) -> Span:
    return Span(seconds, float(np.nextafter(seconds, np.inf)))


def moment_of(text: str | None) -> float:
    """Return the moment that `now` stands for, in seconds since 1970: where a text's span starts; None: the clock's,
    in whole seconds.

    Raises SettingError for a text that is no date.
    """
    if text is None:
        return float(int(_seconds(datetime.datetime.now(datetime.UTC))))
    span = span_of(text)
    if span is None:
        raise SettingError(f"as-of must be a date such as 2026-12-24 or 2026-12-24T18:30, got {text[:40]!r}")
    return span.start


def clock_span(word: str, moment: float) -> Span:
    """Return what `today` (the day, in UTC) or `now` is at a moment, in seconds since 1970."""
    if word == "now":
        return _instant(moment)
    start = moment // _STEPS["day"] * _STEPS["day"]
    return Span(start, start + _STEPS["day"])


def read_dates(column: pl.Series, certain: bool = False) -> pl.Series | None:
    """Return a column of dates, times or ISO texts as datetimes in UTC, null where unknown; None for other columns.

    A text column is one of dates if nearly all of its values are. certain: that is known.
    """
    dtype = column.dtype
    if dtype == pl.Date:
        return column.cast(pl.Datetime("us"))
    if isinstance(dtype, pl.Datetime):
        in_utc = column.dt.convert_time_zone("UTC") if dtype.time_zone else column
        return in_utc.dt.replace_time_zone(None).cast(pl.Datetime("us"))
    if dtype != pl.String or not (certain or _looks_like_dates(column)):
        return None
    return _parsed(column)


def has_other_dates(texts: pl.Series) -> bool:
    """Return whether texts are dates in another form than ISO, such as 24/12/2026 or 24 Dec 2026."""
    present = texts.drop_nulls().head(100)
    return bool(len(present)) and bool(present.str.contains(_OTHER_DAY).all())


def _looks_like_dates(column: pl.Series) -> bool:
    present = column.drop_nulls()
    if column.name == "title" or not len(present):
        return False
    # A few values tell most columns of other texts apart, at no cost.
    return all(
        texts.str.contains(_ISO_DAY).sum() >= share * len(texts)
        for texts, share in ((present.head(100), 0.5), (present, _SHARE_OF_DATES))
    )


def _parsed(column: pl.Series) -> pl.Series:
    text = pl.col(column.name).str.strip_chars().str.replace(" ", "T", literal=True).str.replace("Z$", "+00:00")
    zoned = text.str.contains(r"T.*[+-]\d\d:?\d\d$")
    days = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    local = [text.str.to_datetime(form, strict=False, time_unit="us") for form in _FORMATS]
    in_zone = [
        text.str.to_datetime(f"{form}%z", strict=False, time_unit="us").dt.convert_time_zone("UTC") for form in _FORMATS
    ]
    values = pl.when(zoned).then(pl.coalesce(in_zone).dt.replace_time_zone(None)).otherwise(pl.coalesce(days, *local))
    return column.to_frame().select(values.alias(column.name)).to_series()


def seconds_of(dates: pl.Series) -> NDArray[np.float64]:
    """Return datetimes as seconds since 1970, NaN where unknown, [n]."""
    return np.asarray(dates.dt.epoch("us").cast(pl.Float64).fill_null(float("nan")).to_numpy() / 1e6)
