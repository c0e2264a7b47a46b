"""Columns of a frame as numbers: ratings, weights and times."""

from __future__ import annotations

import numpy as np
import polars as pl

from recsys_embed.data.ids import RowLabel, row_labels
from recsys_embed.data.time_formats import ISO, find_format, read_dates
from recsys_embed.errors import DataError

# From which size on a typical time counts milli-, micro- or nanoseconds, and how many of them a second has.
TIME_UNITS = ((1e17, 10**9), (1e14, 10**6), (1e11, 10**3))


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


def parse_times(column: pl.Series, row_label: RowLabel, time_format: str | None = None) -> pl.Series:
    """Return times as Int64 seconds since 1970, from dates, numbers or text of either. Raises DataError.

    Numbers are seconds, or milli-, micro- or nanoseconds if they are too large for seconds (the year 5138), or dates
    (20251231). time_format: the form of dates, where the column has it; else the content tells, see `find_format`.
    """
    time_format = find_format(column, time_format).format
    times = _times_as_given(column, time_format)
    if times.null_count():
        example, rows = column.filter(times.is_null())[0], row_labels(times.is_null(), row_label)
        if example is None:
            raise DataError(f"time is missing in {rows}")
        if time_format is not None and times.null_count() < len(times):
            raise DataError(f"time {example!r} is not written as the others, {time_format}, in {rows}")
        raise DataError(
            f"time {example!r} is neither seconds since 1970 nor a date in {rows}: --time-format '%d/%m/%Y' says how "
            "dates are written"
        )
    return _in_seconds(times)


def times_as_given(column: pl.Series, time_format: str | None = None) -> pl.Series:
    """Return times as Int64 in the unit that they are given in, dates in seconds; null for what is neither.

    time_format: see `parse_times`.
    """
    return _times_as_given(column, find_format(column, time_format).format)


def _times_as_given(column: pl.Series, time_format: str | None) -> pl.Series:
    """Do the same for a form that is known; None: numbers, ISO text or a column of dates."""
    if time_format is not None:
        return read_dates(column, time_format).dt.epoch("s").cast(pl.Int64)
    if column.dtype.is_temporal():
        return column.cast(pl.Datetime("ms")).dt.epoch("s").cast(pl.Int64)
    times = column.cast(pl.Float64, strict=False) if column.dtype == pl.String else column
    times = times.cast(pl.Int64, strict=False)
    if column.dtype == pl.String and times.null_count() > len(column) / 2:
        dates = column.str.to_datetime(strict=False, time_unit="ms", time_zone="UTC").dt.epoch("s")
        if dates.null_count() > column.null_count():  # several zones, or forms of ISO: slower
            dates = dates.fill_null(read_dates(column, ISO).dt.epoch("s"))
        times = dates if dates.null_count() < times.null_count() else times
    return times


def by_part_of_second(column: pl.Series) -> pl.Series | None:
    """Return the rows of a column of times by time, where it says more than seconds do; else None."""
    if column.dtype.is_temporal() and column.dtype != pl.Date:
        times = column.cast(pl.Datetime("us")).dt.epoch("us")
        return times.arg_sort() if (times % 10**6 != 0).any() else None
    times = column.cast(pl.Float64, strict=False)
    if times.null_count():
        return None
    return times.arg_sort() if units_per_second(times) > 1 else None


def units_per_second(times: pl.Series) -> int:
    """Return how many units of a column of times a second has."""
    typical = abs(float(np.median(times.to_numpy()))) if len(times) else 0.0  # several times as fast as polars' median
    return next((number for limit, number in TIME_UNITS if typical > limit), 1)


def _in_seconds(times: pl.Series) -> pl.Series:
    """Return times in seconds, whatever part of a second they count."""
    per_second = units_per_second(times)
    return times if per_second == 1 else (times / per_second).floor().cast(pl.Int64)
