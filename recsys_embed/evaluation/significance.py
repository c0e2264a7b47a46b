"""Significance of the difference between two models on the same users: paired bootstrap and randomization test."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from recsys_embed.errors import DataError
from recsys_embed.evaluation.metrics import WEIGHTS, Values, resampled_means


@dataclass(frozen=True)
class Difference:
    """The difference of two models' means over users, with its 95 % interval and two-sided p-value; see `paired`."""

    mean: float
    low: float
    high: float
    p: float
    users: int

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero and p < .05. With few users, the interval alone is overconfident."""
        return (self.low > 0 or self.high < 0) and self.p < 0.05

    def summary(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        return {**asdict(self), "clear": self.significant}


def paired(ours: ArrayLike, theirs: ArrayLike, resamples: int = 10_000, seed: int = 0) -> Difference:
    """Compare a metric of two models user by user; the difference is positive if `ours` is better.

    ours, theirs: values [users], of the same users in the same order.
    The interval is from the paired bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993): users are
    resampled as in `metrics.interval`, the same ones for both models, so that differences in difficulty between users
    cancel. It covers the middle 95 % of the resampled differences.
    p is from the randomization test (Fisher; for ranked lists, Smucker et al., CIKM 2007): if the models were equal,
    the sign of each user's difference would be arbitrary. p is the share of random signs for which the mean is at least
    as far from zero, where the data counts as one of them, so that p is never 0. It is valid for few users too.
    Raises DataError without users, for values that are not finite, or if the lengths differ.
    """
    one, other = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if one.ndim != 1 or one.shape != other.shape or not len(one):
        raise DataError(f"paired takes one value per user, of the same users; got shapes {one.shape} and {other.shape}")
    difference = one - other
    if not np.isfinite(difference).all():
        raise DataError(f"paired takes finite values; {int((~np.isfinite(difference)).sum())} of them are not")
    means = resampled_means(difference[:, None], resamples, seed)[:, 0]
    low, high = np.percentile(means, (2.5, 97.5))
    null_means = _random_sign_means(difference, len(means), seed)
    # The tolerance makes equal sums count as equal, whatever the order of their terms.
    as_extreme = np.abs(null_means) >= abs(difference.mean()) * (1 - 1e-9)
    p = (1 + as_extreme.sum()) / (1 + len(null_means))
    return Difference(float(difference.mean()), float(low), float(high), float(p), len(difference))


def _random_sign_means(difference: Values, times: int, seed: int) -> Values:
    """Return the means of the differences [users] under random signs, [times], in bounded memory."""
    random, sums = np.random.default_rng(seed), np.zeros(times)
    for start in range(0, len(difference), size := max(8, WEIGHTS // times)):
        block = difference[start : start + size]
        random_bytes = random.integers(0, 256, (times, -(-len(block) // 8)), np.uint8)
        positive = np.unpackbits(random_bytes, axis=1, count=len(block)).astype(float) @ block
        sums += 2 * positive - block.sum()
    means: Values = sums / len(difference)
    return means


def by_user(ours: pl.DataFrame, theirs: pl.DataFrame, metric: str) -> tuple[Values, Values]:
    """Return a metric of two models [users], of the users in both tables, in the order of their ids as text.

    ours, theirs: tables with columns `user_id` and the metric, as `Report.per_user`.
    """
    tables = [table.select(pl.col("user_id").cast(pl.String), pl.col(metric)) for table in (ours, theirs)]
    joined = tables[0].join(tables[1], on="user_id", suffix="_other").sort("user_id")
    return joined[metric].to_numpy(), joined[f"{metric}_other"].to_numpy()
