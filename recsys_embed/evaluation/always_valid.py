"""Intervals for rates and their differences that hold at all times at once, however often somebody looks."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]

# Intervals hold with 95 %.
ALPHA = 0.05
# Successes at whose number the intervals are tightest, compared with those of a single look; they hold at any number.
# With fewer they are wide: the normal approximation is not to be trusted there.
_TUNED_FOR = 1000
# Most users that `users_needed` counts to.
MAX_USERS = 10**8


class Interval(NamedTuple):
    """An estimate, and the bounds around it; floats or arrays [n]."""

    value: Any
    low: Any
    high: Any


def _deviations(information: Any, alpha: float) -> Any:
    """Return how many standard errors an estimate may be off, at all times together.

    information: how much is known by now, as a number of successes (of failures, where these are rarer). This is the
    radius of the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (Time-uniform
    central limit theory and asymptotic confidence sequences, Annals of Statistics 2024) in units of the standard error:
    the boundary of Robbins' normal mixture, with the parameter that makes it tightest at `_TUNED_FOR`. It is crossed
    where the mixture sequential probability ratio test of Johari, Koomen, Pekelis and Walsh (Peeking at A/B tests, KDD
    2017) rejects.
    """
    log = -2 * math.log(alpha)
    scaled = np.maximum(information, 1e-9) * (log + math.log(log) + 1) / _TUNED_FOR
    return np.sqrt((scaled + 1) / scaled * (np.log1p(scaled) + log))


def _variance(successes: Any, users: Any) -> Any:
    """Return the variance of an outcome. One success and one failure more, so that none so far does not mean never."""
    rate = (np.asarray(successes) + 1) / (np.asarray(users) + 2)
    return rate * (1 - rate)


def _rate(successes: Any, users: Any) -> Any:
    return np.asarray(successes) / np.maximum(users, 1)


def rate_interval(successes: Any, users: Any, alpha: float = ALPHA) -> Interval:
    """Return a rate and the interval around it. successes, users: numbers, or arrays of them [n]."""
    rate, variance, users = _rate(successes, users), _variance(successes, users), np.maximum(users, 1)
    radius = _deviations(users * variance, alpha) * np.sqrt(variance / users)
    return Interval(rate, np.maximum(rate - radius, 0), np.minimum(rate + radius, 1))


def difference_interval(
    successes: Any, users: Any, other_successes: Any, other_users: Any, alpha: float = ALPHA
) -> Interval:
    """Return the rate of the second group minus that of the first, and the interval around it.

    All are numbers, or arrays of them [n]. With probability 1 - alpha no interval ever lacks the true difference, at
    whatever numbers of users it is computed; where the rates are equal, 0 stays inside. (The probability is that of
    the normal approximation; with few successes the intervals are wide.)
    """
    difference = _rate(other_successes, other_users) - _rate(successes, users)
    users, other_users = np.maximum(users, 1), np.maximum(other_users, 1)
    pooled = _variance(np.add(successes, other_successes), users + other_users)
    variance = _variance(successes, users) / users + _variance(other_successes, other_users) / other_users
    # With groups of one size, as many successes as there are; a small group says less.
    information = 4 * pooled * users * other_users / (users + other_users)
    radius = _deviations(information, alpha) * np.sqrt(variance)
    return Interval(difference, np.maximum(difference - radius, -1), np.minimum(difference + radius, 1))


def users_needed(rate: float, other_rate: float, other_share: float = 0.5, alpha: float = ALPHA) -> int | None:
    """Return with how many users of both groups 0 leaves the interval around the difference, at these rates.

    other_share: of the users, in the second group. None: more than `MAX_USERS`.
    """

    def is_clear(users: int) -> bool:
        groups = users * (1 - other_share), users * other_share
        found = difference_interval(rate * groups[0], groups[0], other_rate * groups[1], groups[1], alpha)
        return bool(found.low > 0 or found.high < 0)

    if not is_clear(MAX_USERS):
        return None
    low, high = 1, MAX_USERS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_clear(middle) else (middle + 1, high)
    return low
