"""Values and times that are likely not as meant."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator

import numpy as np
import polars as pl

from recsys_embed.data.dataset import Dataset
from recsys_embed.data.date_texts import EXCEL, ISO, read_dates
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.time_formats import find_format, orders_like, other_forms, plain_times
from recsys_embed.data.values import TIME_UNITS, times_as_given, units_per_second
from recsys_embed.doctor.codes import N_EXAMPLES, Finding, finding, plural

# A scale is made of values that at least this share of the rows has, at most so many of them, and these hold nearly all
# rows. Values that are rare and lie further from it than it is wide, with nothing in between, do not belong to it.
_COMMON, _MAX_SCALE, _NEARLY_ALL, _RARE = 0.005, 101, 0.98, 0.01
# Seconds since 1970 of the year 1990 and of 2100: times of data lie in between.
EARLIEST, _LATEST = 631_152_000, 4_102_444_800
_DAY = 86_400
# Days as spreadsheets count them, of the same years.
_EXCEL_DAYS = (32_874, 73_051)
# Names of columns of times, and how many rows tell whether they are.
_TIME_NAME, _HEAD = re.compile(r"(?i)(?:^ts$|time|date|_at$|_on$)"), 100
_UNIT_NAMES = {1: "seconds", 10**3: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}


def find_values(ratings: Ratings, min_rating: float | None) -> Iterator[Finding]:
    """Yield values outside the scale, those that say no but count as a yes, and values that are all equal."""
    counts = pl.Series("value", ratings.value).value_counts().sort("value")
    values, number = counts["value"].to_numpy(), counts["count"].to_numpy()
    if not len(values):
        return
    if len(values) == 1 and values[0] != 1:
        yield finding("D203", len(ratings), f"all ratings are {values[0]:g}")
    outside = _outside_scale(values, number)
    if outside.any():
        lost, usual = int(number[outside].sum()), values[number >= _COMMON * len(ratings)]
        message = f"{plural(lost, 'rating')} far from the others, most of which are {usual[0]:g} to {usual[-1]:g}"
        yield finding("D201", lost, message, (f"{value:g}" for value in values[outside]))
    low = int(number[values <= 0].sum())
    if low and min_rating is None:
        message = f"{plural(low, 'rating')} {'is' if low == 1 else 'are'} 0 or below, and count as positives"
        remedy = "leave out the zeros, with --min-rating 1" if set(values.tolist()) == {0.0, 1.0} else None
        yield finding("D202", low, f"{message} as all others do", (f"{v:g}" for v in values[values <= 0]), remedy)


def find_refunds(dataset: Dataset) -> Iterator[Finding]:
    """Yield amounts below 0, such as goods that came back, that are trained on as if they were bought."""
    if dataset.refunds is None:
        return
    name, count = dataset.refunds
    message = f"{plural(count, 'row')} {'has' if count == 1 else 'have'} a {name} below 0 and train as positives"
    if count == 1:
        message = message.replace(" train ", " trains ")
    options = f"--rating-col {name} --duplicates sum --min-rating 0.01"
    remedy = f"leave such rows out, or name the column: {options} trains on what was kept"
    if dataset.log is not None:
        remedy = "leave such rows out, or give them a type of event of their own that says no, such as return"
    yield finding("D205", count, message, remedy=remedy)


def _outside_scale(values: Rows, number: Rows) -> np.ndarray:
    """Return which of the sorted values are no part of the usual scale. number: the rows of each."""
    total, common = number.sum(), number >= _COMMON * number.sum()
    nothing = np.zeros(len(values), bool)
    if not 2 <= common.sum() <= _MAX_SCALE or number[common].sum() < _NEARLY_ALL * total:
        return nothing
    # The scale goes on from its common values to rare ones, a 1 among stars, while steps are no wider.
    step, first, last = np.diff(values[common]).max(), *np.flatnonzero(common)[[0, -1]]
    wide = np.flatnonzero(np.diff(values) > step)
    high = float(values[next(iter(wide[wide >= last]), -1)])
    low = float(values[next(iter(wide[wide < first][::-1]), -1) + 1])
    width = high - low
    outside = nothing.copy()
    for beyond, far in ((values > high, values > high + width), (values < low, values < low - width)):
        if number[beyond & ~far].sum() <= number[far].sum() <= _RARE * total:
            outside |= far
    return outside


def find_times(ratings_time: Rows, now: float) -> Iterator[Finding]:
    """Yield times in the future, long ago or all equal. ratings_time: seconds since 1970 [n]. now: the same."""
    if not len(ratings_time):
        return
    first, last = int(ratings_time.min()), int(ratings_time.max())
    if first == last:
        yield finding("D305", len(ratings_time), f"all times are equal: {date_of(first)}")
    if last > now + _DAY:
        late = ratings_time[ratings_time > now + _DAY]
        examples = [date_of(t) for t in np.sort(late)[: -N_EXAMPLES - 1 : -1].tolist()]
        yield finding("D301", len(late), f"{plural(len(late), 'time')} in the future", examples)
    if first < EARLIEST:
        early = ratings_time[ratings_time < EARLIEST]
        examples = [date_of(t) for t in np.sort(early)[:N_EXAMPLES].tolist()]
        yield finding("D302", len(early), f"{plural(len(early), 'time')} before 1990{_hint(early)}", examples)


def _hint(early: Rows) -> str:
    """Return what early times may be, in words."""
    if not early.any():
        return ", all of them 0"
    if _EXCEL_DAYS[0] < early.min() and early.max() < _EXCEL_DAYS[1]:
        return f": they look like a spreadsheet's days, which --time-format {EXCEL} reads"
    day, month = early % 100, early // 100 % 100
    if early.min() > 19_000_000 and ((day >= 1) & (day <= 31) & (month >= 1) & (month <= 12)).all():
        return ": they look like dates without hyphens (20230115)"
    return ""


def find_forms(column: pl.Series, time_format: str | None) -> Iterator[Finding]:
    """Yield how the times of a column are written, if not as usual: as dates of some form, of several, or of one that
    leaves open which number is the day. time_format: what the settings say of it."""
    found = find_format(column, time_format)
    example = column.drop_nulls().head(1).to_list()
    if found.format not in (None, ISO):
        yield finding("D303", column.count(), f"times are written as {found.format}", example)
    if found.other is not None:
        message = f"times may have {found.question}{_both_ways(column, found.format, found.other)}; they are read as "
        message += f"{found.format}, {found.why}"
        remedy = f"name the order: --time-format '{found.format}' or '{found.other}'"
        yield finding("D307", column.count(), message, column.drop_nulls().head(N_EXAMPLES).to_list(), remedy)
    column = plain_times(column)
    if column.dtype == pl.String and times_as_given(column, found.format).null_count() > column.null_count():
        for form, rows in other_forms(column, found.format):
            message = f"{plural(int(rows.sum()), 'time')} written as {form}, not as the others"
            both = 0
            advice = None
            if time_format is None and form in orders_like(found.format):
                both = _fit_both(column, found.format or ISO, form)
            if both:
                fit = "more fits" if both == 1 else "more fit"
                message += f"; {both:,} {fit} both orders, {found.format} and {form}, and nothing tells which is meant"
                advice = "write all times in one form, or name the one that is meant with --time-format; "
                advice += f"--fix leaves out the former, and keeps the latter as {found.format}"
            examples = column.filter(rows).head(N_EXAMPLES).to_list()
            yield finding("D308", int(rows.sum()), message, examples, advice, is_fixed=not both)


def _fit_both(column: pl.Series, form: str, other: str) -> int:
    """Return how many times two forms read, as different ones."""
    one, two = (read_dates(column, f) for f in (form, other))
    return int((one != two).fill_null(False).sum())


def _both_ways(column: pl.Series, form: str | None, other: str) -> str:
    """Return in words how many rows the order makes a difference to."""
    if form is None:
        return ""
    count = _fit_both(plain_times(column), form, other)
    return f", and {count:,} of {plural(column.count(), 'row')} are of another day then"


def find_units(column: pl.Series, time_format: str | None = None) -> tuple[list[Finding], pl.Series | None]:
    """Return what is unusual about the unit of a column of times, and the times in seconds if units are mixed.

    time_format: how dates are written, where the settings say so.
    """
    if column.dtype.is_temporal() or find_format(column, time_format).format is not None:
        return [], None
    times = times_as_given(column)
    usual = units_per_second(times)
    unit = pl.repeat(usual, len(times), dtype=pl.Int64, eager=True)
    if len(times) and EARLIEST * usual <= np.median(times.to_numpy()) <= _LATEST * usual:
        for other in (1, *(number for _, number in TIME_UNITS)):
            if other != usual:
                is_other = times.is_between(EARLIEST * other, min(_LATEST * other, 2**63 - 1))
                unit = unit.set(is_other, other) if is_other.any() else unit
    mixed = unit != usual
    if mixed.any():
        rows, count = mixed.arg_true().head(N_EXAMPLES), int(mixed.sum())
        message = f"{plural(count, 'time')} in another unit than the others, which are {_UNIT_NAMES[usual]}"
        return [finding("D304", count, message, [times[int(row)] for row in rows])], times // unit
    if usual > 1:
        return [finding("D303", len(times), f"times are in {_UNIT_NAMES[usual]}")], None
    return [], None


def find_time_like_column(frame: pl.DataFrame, used: Iterable[str]) -> Iterator[Finding]:
    """Yield a column that seems to hold times. used: columns that hold something else."""
    for name in frame.columns:
        column = frame[name]
        if name in used or not (column.dtype.is_temporal() or _TIME_NAME.search(name)):
            continue
        head = column.drop_nulls().head(_HEAD)
        times = head.cast(pl.String) if column.dtype == pl.Time else head
        if len(head) and times_as_given(times).null_count() == 0 and head.n_unique() > 1:
            yield finding(
                "D306", 1, f"column {name!r} seems to hold times, and no option names it", head.head(2).to_list()
            )
            return


def date_of(seconds: int) -> str:
    """Return the day of a time, or the number of seconds if no calendar has it."""
    try:
        return str(datetime.datetime.fromtimestamp(seconds, datetime.UTC).date())
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"
