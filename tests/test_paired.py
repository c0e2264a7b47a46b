"""Two models on the same users: the interval of the paired bootstrap, and p of the randomization test."""

import numpy as np
import pytest

from recsys_embed.errors import DataError
from recsys_embed.evaluation.significance import paired


def test_equal_models_do_not_differ():
    values = np.random.default_rng(0).random(50)
    found = paired(values, values)
    assert (found.mean, found.low, found.high, found.p, found.users) == (0, 0, 0, 1, 50) and not found.significant


def test_the_sides_change_places():
    random = np.random.default_rng(1)
    one, other = random.random(80), random.random(80) + 0.02
    there, back = paired(one, other), paired(other, one)
    assert (there.mean, there.p) == (-back.mean, back.p)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert paired(one, other) == there and paired(one, other, seed=1) != there


def test_more_users_make_it_surer():
    random = np.random.default_rng(2)
    one, other = random.random(4000), random.random(4000)
    few, many = paired(one[:100], other[:100], 1000), paired(one, other, 1000)
    assert (many.high - many.low) * 4 < few.high - few.low


def test_it_agrees_with_drawing_users_again_and_again():
    random = np.random.default_rng(3)
    one, other = random.random(300), random.random(300) - 0.04
    drawn = random.integers(0, 300, (4000, 300))
    means = one[drawn].mean(axis=1) - other[drawn].mean(axis=1)
    found = paired(one, other)
    assert (found.low, found.high) == pytest.approx(np.percentile(means, (2.5, 97.5)), abs=0.004)
    signs = random.choice([-1.0, 1.0], (4000, 300))
    as_far = np.abs((signs * (one - other)).mean(axis=1)) >= abs((one - other).mean())
    assert found.p == pytest.approx(as_far.mean(), abs=0.02)


def test_chance_alone_is_rarely_called_a_difference():
    random = np.random.default_rng(4)
    found = [paired(random.random(60), random.random(60), resamples=400, seed=n) for n in range(400)]
    assert np.mean([f.p < 0.05 for f in found]) == pytest.approx(0.05, abs=0.04)
    assert np.mean([f.p < 0.5 for f in found]) == pytest.approx(0.5, abs=0.08)
    assert np.mean([f.significant for f in found]) == pytest.approx(0.05, abs=0.04)
    few = [paired(random.random(3), random.random(3), resamples=200, seed=n) for n in range(200)]
    assert np.mean([f.p < 0.05 for f in few]) < 0.05 and not any(f.significant for f in few)


def test_a_few_users_alone_decide_nothing():
    one = np.zeros(200)
    one[:4] = 1
    found = paired(one, np.zeros(200))  # four better, none worse: signs come so in 1 of 8 cases
    assert found.p == pytest.approx(0.125, abs=0.02) and not found.significant
    assert paired([0.4], [0.3]).p == 1
    with pytest.raises(DataError, match="1 of them are not"):
        paired([0.4, np.nan], [0.3, 0.2])


def test_what_users_share_cancels():
    random = np.random.default_rng(5)
    ease, other = random.random(200), random.normal(0, 0.01, 200)
    found = paired(ease + 0.01 + other, ease)
    assert found.significant and found.high - found.low < 0.005
    assert found.p == 1 / 10_001  # never 0: the data itself is one resample


@pytest.mark.parametrize("shapes", [((), ()), ((3,), (4,)), ((0,), (0,)), ((3, 2), (3, 2))])
def test_values_that_are_no_pairs_are_refused(shapes):
    with pytest.raises(DataError, match="one value per user"):
        paired(*(np.zeros(shape) for shape in shapes))
