"""Two columns of times, a date and a time of day, as one."""

from __future__ import annotations

import polars as pl

from recsys_embed.config.fields import parse_names
from recsys_embed.data.column_guess import normalized
from recsys_embed.errors import DataError

_TIME_OF_DAY = r"^\s*\d{1,2}:\d\d"
_SAMPLE = 500


def with_joined_times(frame: pl.DataFrame, time_col: str | None = None, further: bool = False) -> pl.DataFrame:
    """Return a frame in which a column of dates and one of times of day are one column of text, "date,time".

    time_col: the names of the two, with a comma between them; None: those that are called date and time, if they hold
    these. A frame with another column of times stays as it is. further: the names are those of an earlier table; this
    one may have whole times in the first of them, or columns of usual names. Raises DataError for a name that is no
    column.
    """
    if further and time_col and not set(names := parse_names(time_col)) <= set(frame.columns):
        if len(names) == 2 and names[0] in frame.columns:
            return frame.rename({names[0]: time_col})
        time_col = None
    if time_col is None:
        pair = _date_and_time(frame)
    elif "," not in time_col or time_col in frame.columns:
        return frame
    else:
        pair = parse_names(time_col)
        missing = next((name for name in pair if name not in frame.columns), None)
        if len(pair) != 2 or missing is not None:
            what = f"there is no column {missing!r}" if missing else f"{time_col!r} are {len(pair)} columns"
            raise DataError(f"{what}: --time-col names one column of times, or a date and a time of day (date,time)")
    if not pair:
        return frame
    date, time = (_as_text(frame[name]) for name in pair)
    joined = pl.select(pl.concat_str(date, time, separator=" ")).to_series().alias(time_col or ",".join(pair))
    columns = [joined if name == pair[0] else frame[name] for name in frame.columns if name != pair[1]]
    return pl.DataFrame(columns)


def _date_and_time(frame: pl.DataFrame) -> tuple[str, ...]:
    """Return the columns that are called date and time, if they hold dates and times of day, else nothing."""
    named = {name: normalized(name) for name in frame.columns}
    dates, times = ([name for name, word in named.items() if word == role] for role in ("date", "time"))
    if len(dates) != 1 or len(times) != 1 or "timestamp" in frame.columns:
        return ()
    date, time = frame[dates[0]], frame[times[0]]
    if time.dtype != pl.Time:
        head = time.drop_nulls().head(_SAMPLE)
        if time.dtype != pl.String or not len(head) or not head.str.contains(_TIME_OF_DAY).all():
            return ()
    if date.dtype == pl.String and date.head(_SAMPLE).str.contains(r"\d:\d\d").any():
        return ()
    return (dates[0], times[0])


def _as_text(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.Datetime):
        column = column.dt.replace_time_zone(None).cast(pl.Date)  # the day of the clock on the wall
    return column.cast(pl.String).str.strip_chars()
