"""Intervals that somebody may look at every day, and the verdict on variants."""

import numpy as np
import pytest

from recsys_embed.config.variants import parse_variants
from recsys_embed.evaluation.always_valid import difference_interval, rate_interval, users_needed
from recsys_embed.serving.outcome_store import Counts
from recsys_embed.serving.outcome_tables import AbTest, Successes
from recsys_embed.serving.variant_report import report_of, table_of, verdict_of

LOOKS, RUNS = 200, 1000


def at_once(random, rate, users):
    """Successes [runs, looks] of users who come in batches and decide at once; and the users [looks]."""
    return random.binomial(users, rate, (RUNS, LOOKS)).cumsum(1), users * np.arange(1, LOOKS + 1)


def late(random, rate, users):
    """The same, of users who decide 30 looks later, on average."""
    waiting, done = np.zeros(RUNS, int), np.zeros((RUNS, LOOKS), int)
    for look, new in enumerate(random.binomial(users, rate, (LOOKS, RUNS))):
        waiting += new
        decided = random.binomial(waiting, 1 / 30)
        waiting -= decided
        done[:, look] = decided
    return done.cumsum(1), users * np.arange(1, LOOKS + 1)


def all_there(random, rate, users):
    """The same, of users who are all there from the first look on, and decide at some look."""
    left, done = np.full(RUNS, LOOKS * users), np.zeros((RUNS, LOOKS), int)
    for look in range(LOOKS):
        done[:, look] = random.binomial(left, rate / LOOKS / (1 - rate * look / LOOKS))
        left -= done[:, look]
    return done.cumsum(1), np.full(LOOKS, LOOKS * users)


def lacking(make, rates, users, seed=0):
    """The share of experiments in which an interval of any look lacks the true difference."""
    random = np.random.default_rng(seed)
    groups = [make(random, rate, n) for rate, n in zip(rates, users, strict=True)]
    found = difference_interval(*groups[0], *groups[1])
    true = rates[1] - rates[0]
    return float(((found.low > true) | (found.high < true)).any(1).mean())


@pytest.mark.parametrize("make", [at_once, late, all_there])
@pytest.mark.parametrize(
    ("rate", "users"), [(0.05, (100, 100)), (0.05, (450, 50)), (0.005, (900, 100)), (0.3, (50, 50)), (0.9, (100, 100))]
)
def test_equal_variants_are_rarely_told_apart_however_often_one_looks(make, rate, users):
    assert lacking(make, (rate, rate), users) <= 0.05


@pytest.mark.parametrize(("rates", "users"), [((0.05, 0.06), (100, 100)), ((0.02, 0.05), (450, 50))])
def test_the_true_difference_is_rarely_outside(rates, users):
    assert lacking(at_once, rates, users) <= 0.05


def test_a_single_look_at_five_percent_each_time_would_not_do():
    random = np.random.default_rng(0)
    (a, users), (b, _) = (at_once(random, 0.05, 100) for _ in range(2))
    rate = (a + b) / (2 * users)
    with np.errstate(invalid="ignore"):
        assert (abs(a - b) / np.sqrt(2 * users * rate * (1 - rate)) > 1.96).any(1).mean() > 0.3


def test_a_real_difference_is_found_with_about_the_users_that_are_said():
    random = np.random.default_rng(0)
    (a, users), (b, _) = at_once(random, 0.05, 250), at_once(random, 0.06, 250)
    clear = difference_interval(a, users, b, users).low > 0
    assert clear.any(1).mean() > 0.99
    needed = users_needed(0.05, 0.06)
    assert np.median(2 * users[clear.argmax(1)]) == pytest.approx(needed, rel=0.25)
    exact = difference_interval(0.05 * needed / 2, needed / 2, 0.06 * needed / 2, needed / 2)
    assert exact.low > 0
    assert users_needed(0.05, 0.06, 0.1) > 2 * needed and users_needed(0.05, 0.05001) is None


def test_an_interval_is_around_its_rate_and_within_bounds():
    for successes, users in ((0, 0), (0, 10), (3, 3), (50, 1000), (0, 10**6), (10**6, 10**6)):
        found = rate_interval(successes, users)
        assert 0 <= found.low <= found.value <= found.high <= 1 and found.low < found.high
    narrow, wide = rate_interval(5000, 100_000), rate_interval(50, 1000)
    assert narrow.high - narrow.low < (wide.high - wide.low) / 8
    swapped = difference_interval(30, 1000, 50, 900), difference_interval(50, 900, 30, 1000)
    assert swapped[0].low == pytest.approx(-swapped[1].high) and swapped[0].high == pytest.approx(-swapped[1].low)


# The verdict


def counts(users, converted):
    return Counts(users, 2 * users, converted, converted, converted // 2)


def test_the_verdict_is_one_sentence_that_says_which_or_how_many():
    better = {"a": counts(50_000, 2500), "b": counts(50_000, 3000)}
    assert verdict_of(better).startswith(
        "b is better than a: 6.00 % of its users converted against 5.00 %, 1.00 points more"
    )
    worse = {"a": counts(50_000, 3000), "b": counts(50_000, 2500)}
    assert verdict_of(worse).startswith("a is better than b: 6.00 %")
    unclear = verdict_of({"a": counts(5000, 250), "b": counts(5000, 300)})
    needed = users_needed(0.05, 0.06) - 10_000
    said = int(unclear.split("about ")[1].split(" ")[0].replace(",", ""))
    assert (
        unclear.startswith("not clear yet: 6.00 % of the users of b converted, 5.00 % of a")
        and needed <= said <= 1.1 * needed
    )
    assert "takes more than" in verdict_of({"a": counts(5000, 250), "b": counts(5000, 250)})
    assert verdict_of({"a": counts(5000, 250), "b": counts(0, 0)}) == "not clear yet: b has no users"
    assert (
        verdict_of({"a": counts(9, 0), "b": counts(9, 0)})
        == "not clear yet: 0.00 % of the users of b converted, 0.00 % of a"
    )
    assert "nothing to compare" in verdict_of({"a": counts(9, 0)})


def test_several_variants_share_the_errors():
    pairs = ({"a": counts(20_000, 1000), "b": counts(20_000, n)} for n in range(1000, 1300))
    two = next(pair for pair in pairs if verdict_of(pair).startswith("b is better"))
    three = {**two, "c": counts(20_000, 1000)}
    found = report_of(a_test("a=x", "b=y", "c=z"), three)
    assert (
        found["verdict"].startswith("not clear yet: 5.")
        and "; not clear yet: 5.00 % of the users of c" in found["verdict"]
    )


def a_test(*texts, same=True):
    return AbTest(1, "t", 0.0, Successes(), parse_variants(texts), same)


def test_the_report_has_what_the_table_shows():
    report = report_of(a_test("a=x", "b:20%=y"), {"a": counts(8000, 400), "b": counts(2000, 120), "gone": counts(5, 0)})
    a, b, gone = report["variants"]
    assert (a["share"], b["share"], gone["share"]) == (pytest.approx(0.8), 0.2, 0.0)
    assert a["lift"] is None and b["lift"] == pytest.approx(0.2) and b["difference"] == pytest.approx(0.01)
    assert b["difference_interval"][0] < 0 < b["difference_interval"][1] and report["target"] == "any"
    names, rows = table_of(report)
    assert all(len(row) == len(names) for row in rows)
    assert rows[1][:5] == ["b", "20 %", "2,000", "4,000", "120"] and "+20.0 %" in rows[1]


def test_a_division_that_differs_from_the_shares_is_pointed_out():
    right, wrong = ({"a": counts(5000 + n, 250), "b": counts(5000 - n, 250)} for n in (20, 600))
    for variants, found, warned in ((right, True, False), (wrong, True, True), (wrong, False, False)):
        report = report_of(a_test("a=x", "b=y", same=found), variants)
        assert (report["warning"] is not None) == warned
