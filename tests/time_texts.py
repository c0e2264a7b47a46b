"""Times as texts of a form, for tests."""

import datetime

import polars as pl

from recsys_embed.data.ids import RowLabel
from recsys_embed.data.values import parse_times

DAY = 86_400
NOON = 1_609_416_000  # 2020-12-31 12:00


def seconds(column, time_format=None):
    column = column if isinstance(column, pl.Series) else pl.Series("time", column)
    return parse_times(column, RowLabel(), time_format).to_list()


def written(times, form):
    return pl.Series("time", [datetime.datetime.fromtimestamp(t, datetime.UTC).strftime(form) for t in times])


def frame(times, **columns):
    n = len(times)
    users, items = [f"u{k % 7}" for k in range(n)], [f"i{k % 11}" for k in range(n)]
    return pl.DataFrame({"user": users, "item": items, **columns, "date": times})
