"""Two models on the same users: how sure is it that one is better?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from recsys_embed.errors import DataError
from recsys_embed.evaluation.metrics import WEIGHTS, Values, resampled_means


@dataclass(frozen=True)
class Difference:
    """One model's mean over users minus another's, with its 95 % interval and two-sided p-value; see `paired`."""

    mean: float
    low: float
    high: float
    p: float
    users: int

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero and p is below .05; of few users the interval alone is too sure."""
        return (self.low > 0 or self.high < 0) and self.p < 0.05

    def summary(self) -> dict[str, Any]:
        """Return all of it, for JSON."""
        return {**asdict(self), "clear": self.clear}


def paired(ours: ArrayLike, theirs: ArrayLike, resamples: int = 10_000, seed: int = 0) -> Difference:
    """Compare one metric of two models, user by user; positive where `ours` is better.

    ours, theirs: values [users], of the same users in the same order.
    The interval is that of the paired bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993): users
    are resampled as in `metrics.interval`, both models with the same users, so that what makes a user easy or hard
    for both cancels; it holds the middle 95 % of the resampled differences.
    p is that of the randomization test (Fisher; for ranked lists Smucker et al., CIKM 2007): were the two models the
    same, each user's difference might as well have the other sign, and p is the share of random signs under which
    the mean is as far from zero, the data itself counted as one, so that it is never 0. It holds for few users too.
    Raises DataError where there is no user, a value is not finite, or the sides are not of one length.
    """
    one, other = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if one.ndim != 1 or one.shape != other.shape or not len(one):
        raise DataError(f"paired takes values of the same users, one a user; got shapes {one.shape} and {other.shape}")
    difference = one - other
    if not np.isfinite(difference).all():
        raise DataError(f"paired takes finite values; {int((~np.isfinite(difference)).sum())} of them are not")
    means = resampled_means(difference[:, None], resamples, seed)[:, 0]
    low, high = np.percentile(means, (2.5, 97.5))
    flipped = _flipped(difference, len(means), seed)
    # As far as rounding: the same sum in another order is the same.
    far = np.abs(flipped) >= abs(difference.mean()) * (1 - 1e-9)
    p = (1 + far.sum()) / (1 + len(flipped))
    return Difference(float(difference.mean()), float(low), float(high), float(p), len(difference))


def _flipped(difference: Values, times: int, seed: int) -> Values:
    """Return the means of the differences [users] under random signs, [times], in blocks of bounded memory."""
    random, sums = np.random.default_rng(seed), np.zeros(times)
    for start in range(0, len(difference), block := max(8, WEIGHTS // times)):
        part = difference[start : start + block]
        drawn = random.integers(0, 256, (times, -(-len(part) // 8)), np.uint8)
        kept = np.unpackbits(drawn, axis=1, count=len(part)).astype(float) @ part
        sums += 2 * kept - part.sum()
    means: Values = sums / len(difference)
    return means
