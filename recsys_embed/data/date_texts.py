"""Texts and numbers of a known form as datetimes.

A form is a strptime format. One of a date alone also reads a time of day, and a zone, after it.
"""

from __future__ import annotations

from itertools import product

import polars as pl

from recsys_embed.errors import SettingError

# Days since 1899-12-30, as spreadsheets count; the number of those before 1970.
EXCEL, _EXCEL_1970 = "excel", 25_569
ISO = "%Y-%m-%d"

_PIECES = (
    r"^\s*(?:(?i:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+)?(?P<date>\S.*?)"
    r"(?:(?:T|,?\s+)(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?)?"
    r"\s*(?:(?P<half>[AaPp])\.?[Mm]\.?)?\s*(?P<zone>[Zz]|UTC|GMT|[+-]\d\d(?::?\d\d)?)?)?\s*$"
)
_TIME_OF_DAY = ("%H", "%I", "%k", "%l", "%M", "%S", "%T", "%R", "%r", "%X", "%c", "%s", "%+")
# How most write a time of day after a date.
_ENDINGS = ("", *map("".join, product((" ", ", ", "T"), ("%H:%M:%S%.f", "%H:%M", "%I:%M %p", "%I:%M:%S %p"))))
_HEAD, _YEARS = 500, (1900, 2200)


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


def read_in_each(column: pl.Series, forms: tuple[str, ...]) -> list[pl.Series]:
    """Return texts read in each of several forms of dates, as `read_dates` does."""
    # Most columns have the ending of their first row: then this is several times as fast as to split texts.
    first = column.head(_HEAD).drop_nulls().head(1)
    for ending in _ENDINGS if len(first) else ():
        likely = [form for form in forms if _may_read(first[0], form, ending)]
        if any(_as_dates(first, form + ending).null_count() == 0 for form in likely):
            dates = [_as_dates(column, form + ending) for form in forms]
            if any(one.null_count() == column.null_count() for one in dates):
                return dates
            break
    pieces = _split_texts(column)
    return [_with_time_of_day(pieces, form) for form in forms]


def has_time_of_day(form: str) -> bool:
    """Return whether a form says how a time of day is written, so that nothing may follow it."""
    return any(directive in form for directive in _TIME_OF_DAY)


def _may_read(text: str, form: str, ending: str) -> bool:
    """Return whether a text may be of a form and an ending by its colons: a look costs nothing beside reading it."""
    return "z" in form.lower() or text.count(":") == form.count(":") + ending.count(":")


def _read_text(column: pl.Series, form: str) -> pl.Series:
    if has_time_of_day(form):
        dates = column.str.strip_chars().str.to_datetime(form, strict=False, time_unit="us")
        dates = dates.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if "%z" in form else dates
        return _of_usual_years(dates)
    return read_in_each(column, (form,))[0]


def _as_dates(column: pl.Series, form: str) -> pl.Series:
    if "%H" in form or "%I" in form:
        return _of_usual_years(column.str.to_datetime(form, strict=False, time_unit="us"))
    return _of_usual_years(column.str.to_date(form, strict=False)).cast(pl.Datetime("us"))


def _of_usual_years(dates: pl.Series) -> pl.Series:
    """Return dates without those that misread a year, such as 25."""
    if dates.null_count() == len(dates):
        return dates
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
