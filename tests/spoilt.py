"""Ratings that are broken on purpose, and what the doctor finds in them."""

import numpy as np
import polars as pl

from recsys_embed.config.settings import DataConfig
from recsys_embed.doctor import check
from recsys_embed.sources.synthetic import generate

RATINGS, FILMS = generate(users=200, items=60, ratings=4000)
RATINGS = RATINGS.with_columns(pl.col("user_id").cast(pl.String), pl.col("item_id").cast(pl.String))
DAY = 86_400


def codes(findings):
    return [f.code for f in findings]


def found(frame, code, **settings):
    """The finding of this code in a frame; none of it is an assertion error."""
    findings = {f.code: f for f in check(frame, DataConfig(**settings))}
    assert code in findings, sorted(findings)
    return findings[code]


def changed(column, rows, value, frame=RATINGS):
    """The frame with another value in some rows of a column."""
    values = frame[column].to_list()
    for row in rows:
        values[row] = value(values[row]) if callable(value) else value
    return frame.with_columns(pl.Series(column, values, strict=False))


def plus(*rows, frame=RATINGS):
    return pl.concat([frame, pl.DataFrame(rows, schema=frame.schema, orient="row")])


def in_form(form):
    """The frame with times as a strptime format says."""
    return RATINGS.with_columns(timestamp=pl.from_epoch("timestamp").dt.strftime(form))


def events():
    random = np.random.default_rng(0)
    n = 3000
    types = random.choice(["view", "cart", "purchase", "return"], n, p=[0.7, 0.15, 0.1, 0.05])
    columns = {"user": random.integers(0, 90, n), "item": random.integers(0, 40, n), "kind": types}
    return pl.DataFrame(columns | {"time": 1_600_000_000 + random.permutation(n) * 999})
