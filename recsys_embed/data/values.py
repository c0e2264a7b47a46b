"""Columns of a frame as numbers: ratings, weights and times."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from recsys_embed.data.date_texts import ISO, read_dates
from recsys_embed.data.ids import RowLabel, Rows, row_labels
from recsys_embed.data.sorting import stable_argsort
from recsys_embed.data.time_formats import find_format, plain_times, settled_format
from recsys_embed.errors import DataError

# From which size on a typical time counts milli-, micro- or nanoseconds, and how many of them a second has.
TIME_UNITS = ((1e17, 10**9), (1e14, 10**6), (1e11, 10**3))
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def parse_weights(column: pl.Series, row_label: RowLabel) -> pl.Series:
    """Return weights as Float32. Raises DataError for values that are no numbers above 0."""
    weights = parse_values(column, row_label, "weight")
    if (weights <= 0).any():
        raise DataError(
            f"weight is {weights.filter(weights <= 0)[0]:g} in {row_labels(weights <= 0, row_label)}; weights are "
            "above 0: leave out rows that are not to count"
        )
    return weights


def parse_values(column: pl.Series, row_label: RowLabel, name: str = "rating") -> pl.Series:
    """Return ratings as Float32. Raises DataError for values that are missing, not numbers or not finite."""
    values = column.cast(pl.Float32, strict=False) if column.dtype != pl.Boolean else column.cast(pl.Float32)
    broken = values.is_null() & column.is_not_null()
    if broken.any():
        example = column.filter(broken)[0]
        hint = "; if these are types of events, name the column with --event-col" if name == "rating" else ""
        raise DataError(f"{name} {example!r} is not a number in {row_labels(broken, row_label)}{hint}")
    if values.null_count():
        raise DataError(f"{name} is missing in {row_labels(values.is_null(), row_label)}")
    if not values.is_finite().all():
        raise DataError(f"{name} is NaN or infinite in {row_labels(~values.is_finite(), row_label)}")
    return values


class Times(NamedTuple):
    """A column of times. seconds: since 1970, Int64 [n]. order: the rows by time, where they say more than seconds do,
    so that what happened within one second keeps its order; else None."""

    seconds: pl.Series
    order: Rows | None = None


def read_times(column: pl.Series, row_label: RowLabel, time_format: str | None = None) -> Times:
    """Return times from dates, numbers or text of either. Raises DataError.

    Numbers are seconds, or milli-, micro- or nanoseconds if they are too large for seconds (the year 5138), or dates
    (20251231). time_format: the form of dates, where the column has it; else the content tells, see `find_format`.
    """
    given, column = column, plain_times(column)
    time_format = find_format(column, time_format).format
    values, per_second = _parsed(column, time_format)
    if values.null_count():
        raise _unreadable(given, values.is_null(), row_label, time_format)
    if per_second == 1:
        return Times(values)
    seconds = values // per_second
    return Times(seconds, stable_argsort(values.to_numpy()) if (values % per_second != 0).any() else None)


def parse_times(column: pl.Series, row_label: RowLabel, time_format: str | None = None) -> pl.Series:
    """Return times as Int64 seconds since 1970; see `read_times`."""
    return read_times(column, row_label, time_format).seconds


def _unreadable(column: pl.Series, broken: pl.Series, row_label: RowLabel, time_format: str | None) -> DataError:
    """Return the error for times that are missing, or written in another way than the others. broken: a mask."""
    rows, present = row_labels(broken, row_label), column.filter(broken).drop_nulls()
    if not len(present):
        return DataError(
            f"time is missing in {rows}: fill it in, leave these rows out, or name another column with --time-col"
        )
    if len(present) == len(column) and plain_times(column).null_count():
        kind = "bytes that are no text" if column.dtype == pl.Binary else column.dtype
        return DataError(
            f"column {column.name!r} holds {kind}, and times are dates, numbers or text: name another column with "
            "--time-col, or a date and a time of day (date,time)"
        )
    example = present[0]
    if time_format is not None and len(present) < len(column):
        return DataError(
            f"time {example!r} is not written as the others, {time_format}, in {rows}: write all times in one form, or "
            "leave these rows out (recsys data check --fix does)"
        )
    return DataError(
        f"time {example!r} is neither seconds since 1970 nor a date in {rows}: --time-format '%d/%m/%Y' says how "
        "dates are written"
    )


def parse_columns(
    data: pl.DataFrame, names: dict[str, str], row_label: RowLabel, time_format: str | None
) -> tuple[dict[str, pl.Series], Rows | None]:
    """Return the values and, if there are any, the times and weights of the rows, and their order; see `Times`.

    names: the column of each role.
    """
    columns = {"value": pl.repeat(1.0, data.height, dtype=pl.Float32, eager=True)}
    if "rating" in names:
        columns["value"] = parse_values(data[names["rating"]], row_label)
    order = None
    if "time" in names:
        times = data[names["time"]]
        columns["time"], order = read_times(times, row_label, settled_format(times, time_format))
    if "weight" in names:
        columns["weight"] = parse_weights(data[names["weight"]], row_label)
    return columns, order


def are_days(column: pl.Series, seconds: pl.Series) -> bool:
    """Return whether times are dates rather than moments: all of one time of day by the clock on the wall.

    column: as it was read. seconds: the same, since 1970. Without a zone, midnights of a place with summer time are an
    hour apart.
    """
    if isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone:
        return column.dt.replace_time_zone(None).dt.time().n_unique() <= 1
    of_day = (seconds % _DAY).unique().sort()
    return len(of_day) <= 1 or (len(of_day) == 2 and of_day[1] - of_day[0] in (_HOUR, _DAY - _HOUR))


def coarseness(column: pl.Series, seconds: pl.Series) -> str | None:
    """Return the unit of times that have no seconds, "minutes", "hours" or "days"; None of those that have. See
    `are_days`."""
    if are_days(column, seconds):
        return "days"
    units = (("hours", _HOUR), ("minutes", _MINUTE))
    return next((unit for unit, number in units if len(seconds) and (seconds % number == 0).all()), None)


def times_as_given(column: pl.Series, time_format: str | None = None) -> pl.Series:
    """Return times as Int64 in the unit that they are given in, dates in seconds; null for what is neither.

    time_format: see `read_times`.
    """
    column = plain_times(column)
    times = _dates_or_numbers(column, find_format(column, time_format).format)
    return times.dt.epoch("s").cast(pl.Int64) if times.dtype.is_temporal() else times.cast(pl.Int64, strict=False)


def _parsed(column: pl.Series, time_format: str | None) -> tuple[pl.Series, int]:
    """Return times as Int64, null for what is none, and how many units of them a second has."""
    numbers = _dates_or_numbers(column, time_format)
    if numbers.dtype.is_temporal():
        return numbers.dt.epoch("us").cast(pl.Int64), 10**6
    times = numbers.cast(pl.Int64, strict=False)
    per_second = units_per_second(times.drop_nulls())
    if per_second == 1 and numbers.dtype.is_float() and (numbers % 1 != 0).any():
        return (numbers * 1e6).floor().cast(pl.Int64, strict=False), 10**6
    return times, per_second


def _dates_or_numbers(column: pl.Series, time_format: str | None) -> pl.Series:
    """Return times as Datetime or numbers, null for what is neither. time_format: None for numbers, ISO text and
    columns of dates."""
    if time_format is not None:
        return read_dates(column, time_format)
    if column.dtype.is_temporal():
        return column.cast(pl.Datetime("us"))
    if column.dtype != pl.String:
        return column
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count() <= len(column) / 2:
        return numbers
    dates = column.str.to_datetime(strict=False, time_unit="us", time_zone="UTC").dt.replace_time_zone(None)
    if dates.null_count() > column.null_count():  # several zones, or forms of ISO: slower
        dates = dates.fill_null(read_dates(column, ISO))
    return dates if dates.null_count() < numbers.null_count() else numbers


def units_per_second(times: pl.Series) -> int:
    """Return how many units of a column of times a second has."""
    typical = abs(float(np.median(times.to_numpy()))) if len(times) else 0.0  # several times as fast as polars' median
    return next((number for limit, number in TIME_UNITS if typical > limit), 1)
