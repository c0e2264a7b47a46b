"""Two models on the same users: how sure is it that one is better?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from recsys_embed.errors import DataError
from recsys_embed.evaluation.metrics import resampled_means


@dataclass(frozen=True)
class Difference:
    """One model's mean over users minus another's, with its 95 % interval and two-sided p-value."""

    mean: float
    low: float
    high: float
    p: float
    users: int

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def paired(ours: ArrayLike, theirs: ArrayLike, resamples: int = 10_000, seed: int = 0) -> Difference:
    """Compare one metric of two models, user by user; positive where `ours` is better.

    ours, theirs: values [users], of the same users in the same order. The paired bootstrap (Efron and Tibshirani,
    An Introduction to the Bootstrap, 1993; for ranked lists Sakai, SIGIR 2006): users are resampled as in
    `metrics.interval`, both models with the same users, so that what makes a user easy or hard for both cancels.
    The interval holds the middle 95 % of the resampled differences. p is twice the share of them on the rarer side
    of zero, counting the data itself as one resample, so that it is never 0; equal models have p 1.
    Raises DataError where there is no user, or the sides are not of one length.
    """
    one, other = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if one.ndim != 1 or one.shape != other.shape or not len(one):
        raise DataError(f"paired takes values of the same users, one a user; got shapes {one.shape} and {other.shape}")
    difference = one - other
    means = resampled_means(difference[:, None], resamples, seed)[:, 0]
    low, high = np.percentile(means, (2.5, 97.5))
    rarer = min((means <= 0).sum(), (means >= 0).sum())
    p = min(1.0, 2 * (1 + rarer) / (1 + len(means)))
    return Difference(float(difference.mean()), float(low), float(high), float(p), len(difference))
