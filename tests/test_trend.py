"""The trend: popularity with a half-life, what it adds to scores, how it is chosen, and that nothing else changes."""

import time
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import small

from recsys_embed.answering.explain import explain
from recsys_embed.answering.predict import predict_for
from recsys_embed.answering.profile import known_user
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.config.settings import DataConfig, RunConfig
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import split_leave_last, split_random, split_time
from recsys_embed.errors import DataError, SettingError
from recsys_embed.evaluation.evaluate import evaluate
from recsys_embed.experiment.run import run_experiment
from recsys_embed.models.popularity import popularity_scores
from recsys_embed.models.trend import Trend
from recsys_embed.recommender import Recommender
from recsys_embed.retrieval import approximate
from recsys_embed.training.trend import choose_half_life

DAY = 86_400


def drifting(users=300, items=60, days=200, seed=0):
    """Each item is in fashion for a few weeks; users come for a day, and half of them once more. Items have a colour
    that their users like."""
    random = np.random.default_rng(seed)
    peak, colour = random.uniform(-20, days + 20, items), np.arange(items) % 3
    rows = []
    for user in range(users):
        first = random.uniform(0, days)
        for day in (first, *([first + random.uniform(5, 40)] * (user % 2))):
            chance = np.exp(-(((day - peak) / 15) ** 2)) * np.where(colour == user % 3, 8, 1) + 1e-3
            for item in random.choice(items, 5, replace=False, p=chance / chance.sum()):
                rows.append((user, int(item), int(day * DAY) + 1_000_000_000))
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").sort("time")
    return Ratings.from_frame(frame)


RATINGS = drifting()
SPLIT = split_time(RATINGS)
TRAINED = SPLIT.train
# A user and an item of the vocabularies have no rating in training.
SETTINGS = small("softmax", epochs=10, dim=8, batch_users=32, half_life=10.0, trend=1.0)


@pytest.fixture(scope="module", params=["embeddings", "both", "neighbours"])
def fitted(request):
    model, train = SETTINGS
    return Recommender(replace(model, model_family=request.param), train).fit(TRAINED)


def by_hand(ratings, half_life):
    age = (ratings.time.max() - ratings.time) / DAY
    return np.bincount(ratings.item, 0.5 ** (age / half_life), minlength=len(ratings.items))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 7.0, 400.0]))
def test_a_trend_is_the_same_in_one_go_and_in_steps_of_any_order(seed, half_life):
    random = np.random.default_rng(seed)
    whole = Trend.of(RATINGS, half_life)
    np.testing.assert_allclose(whole.recent, by_hand(RATINGS, half_life), rtol=1e-9)
    parts = np.array_split(random.permutation(len(RATINGS)), 3)
    steps = Trend.of(RATINGS.take(parts[0]), half_life)
    for part in parts[1:]:
        steps = steps.with_ratings(RATINGS.item[part], RATINGS.time[part])
    np.testing.assert_allclose(steps.recent, whole.recent, rtol=1e-9, atol=1e-300)
    assert steps.time == whole.time == RATINGS.time.max()
    nothing = whole.with_ratings(RATINGS.item[:0], RATINGS.time[:0])
    np.testing.assert_array_equal(nothing.recent, whole.recent)


def test_growth_is_what_is_new():
    counts = np.array([100, 100, 50, 0, 1])
    recent = np.array([30.0, 10.0, 10.0, 0.0, 0.2])
    trend = Trend(recent, 0.0, 7.0, 2.0, recent)
    growth = trend.growth(counts)
    assert growth[0] > 0 > growth[1] and growth[3] == 0
    assert abs(growth[2]) < 0.05 and abs(growth[4]) < 0.1  # as many as its share of all ratings is
    np.testing.assert_array_equal(trend.added(counts), 2 * growth)
    expected = 50.2 / 251 * counts
    np.testing.assert_allclose(growth, np.log((trend.recent + 0.3) / (expected + 0.3)), rtol=1e-5)
    order = np.argsort(-trend.popularity(counts), kind="stable")
    assert order.tolist() == [0, 1, 2, 4, 3]  # lately, then ever
    everything = Trend(counts * 0.25, 0.0, 7.0, 1.0, counts * 0.25)  # nothing is new
    np.testing.assert_allclose(everything.growth(counts), 0, atol=1e-6)
    np.testing.assert_allclose(everything.popularity(counts), popularity_scores(counts), rtol=1e-5)


def test_a_few_ratings_after_a_gap_do_not_decide_all():
    counts, recent = np.array([50, 40, 30, 20]), np.array([10.0, 6.0, 4.0, 2.0])
    trend = Trend(recent, 0.0, 1.0, 1.0, recent)
    late = trend.with_ratings(np.array([3]), np.array([30 * DAY]))
    assert late.recent.sum() == pytest.approx(1, abs=1e-6)
    order = np.argsort(-late.popularity(counts)).tolist()
    assert order == [0, 1, 3, 2], "half of what was popular is still there: 4.5, 2.7, 1.9 and 1.8 of 11"
    assert late.growth(counts)[3] > trend.growth(counts)[3]
    silent = replace(late, recent=late.recent * 0)
    np.testing.assert_allclose(silent.popularity(counts), trend.popularity(counts), rtol=1e-5)
    many = trend.with_ratings(np.full(11, 3), np.full(11, 30 * DAY))
    assert np.argsort(-many.popularity(counts))[0] == 3, "and as many as that are enough"


def test_the_half_life_is_that_under_which_later_ratings_are_likely():
    assert choose_half_life(SPLIT.train, SPLIT.valid) in (2, 4, 7, 14)
    for seed in range(5):  # times that say nothing
        shuffled = split_time(replace(RATINGS, time=np.random.default_rng(seed).permutation(RATINGS.time)))
        assert choose_half_life(shuffled.train, shuffled.valid) in (0, 240, 480, 960, 1920)
    assert choose_half_life(SPLIT.train, SPLIT.valid.take(np.arange(0))) == 0


def test_scores_are_those_of_the_model_and_the_trend(fitted):
    state = fitted.state
    assert state.trend.half_life == 10 and state.trend.time == TRAINED.time.max()
    np.testing.assert_allclose(state.trend.recent, by_hand(TRAINED, 10), rtol=1e-9)
    users = np.flatnonzero(state.seen.count)[:20]
    model = state.model.score(state.model.queries(users))
    np.testing.assert_allclose(state.ranker.scores(users), model + state.trend_scores, rtol=1e-4, atol=1e-4)
    # The weight is one standard deviation of the scores of a user.
    everybody = np.flatnonzero(state.seen.count)
    spread = state.model.score(state.model.queries(everybody))[:, state.item_counts > 0].std(axis=1).mean()
    assert state.trend.weight == pytest.approx(spread, rel=1e-3)
    table = fitted.recommend(state.users.ids(users[:1])[0], 5)
    for item, score in table.select("item_id", "score").rows():
        row = state.items.row(item)
        found = explain(state, known_user(state, int(users[0])), row)
        assert score == pytest.approx(found.score, rel=1e-5)  # a product of another shape may round otherwise
        assert sum(found.components.values()) == pytest.approx(score, abs=1e-4)
        assert found.components["trend"] == pytest.approx(float(state.trend_scores[row]))
        predicted = fitted.predict(state.users.ids(users[:1])[0], item)
        assert not found.hidden
        assert float(predicted[0]) == pytest.approx(score, abs=1e-4)


def test_who_has_no_history_gets_what_is_popular_lately(fitted):
    state = fitted.state
    new = np.flatnonzero(state.seen.count == 0)
    assert 5 < len(new) < len(state.users)
    user = state.users.ids(new[:1])[0]
    wanted = state.items.ids(np.argsort(-state.trend.popularity(state.item_counts), kind="stable")[:7]).to_list()
    anonymous = Recommender.of(state).recommend_for([], 7)["item_id"].to_list()
    assert fitted.recommend(user, 7)["item_id"].to_list() == wanted == anonymous
    for item, score in fitted.recommend(user, 7).select("item_id", "score").rows():
        assert float(fitted.predict(user, item)[0]) == pytest.approx(score)
    batch = fitted.recommend([user, state.users.ids(np.flatnonzero(state.seen.count)[:1])[0]], 7)
    assert batch["item_id"].to_list()[:7] == wanted != batch["item_id"].to_list()[7:]
    block, ranked = next(state.ranker.top_k(np.sort(np.append(new[:2], 0)), 7, state.excluded))
    for at, row in enumerate(block):
        if row in new:
            assert state.items.ids(ranked[at]).to_list() == wanted
            np.testing.assert_array_equal(state.ranker.scores(block)[at], state.popularity)


@pytest.mark.parametrize("family", ["embeddings", "both"])
def test_who_has_no_positive_is_not_known(family):
    value = np.where((TRAINED.user % 7 == 0), 1.0, 5.0).astype(np.float32)
    model, train = SETTINGS
    fitted = Recommender(replace(model, model_family=family), train).fit(replace(TRAINED, value=value), min_rating=4)
    user = int(TRAINED.user[TRAINED.user % 7 == 0][0])
    assert (
        not fitted.state.is_known(np.array([user]))[0]
        and fitted.state.is_known(TRAINED.user[TRAINED.user % 7 > 0]).all()
    )


def test_a_probability_knows_no_trend_at_any_door(tmp_path):
    model, train = small("logistic", epochs=3, dim=4, half_life=10.0, trend=1.0)
    fitted = Recommender(model, train).fit(TRAINED)
    state = fitted.state
    users = np.array([np.flatnonzero(state.seen.count)[0], np.flatnonzero(state.seen.count == 0)[0]])
    rows = np.array([3, 3])
    assert state.model.output == "chance" and state.trend_scores[3] != 0
    expected = state.model.predict(users, rows)
    assert (expected < 1).all()
    np.testing.assert_allclose(fitted.predict(state.users.ids(users), state.items.ids(rows)), expected, rtol=1e-6)
    for user, chance in zip(users, expected, strict=True):
        profile = known_user(state, int(user))
        np.testing.assert_allclose(predict_for(state, profile, rows[:1]), chance, rtol=1e-6)
        found = explain(state, profile, 3)
        assert found.value == pytest.approx(float(chance)) and found.components["trend"] != 0
        assert found.score == pytest.approx(sum(found.components.values()), abs=1e-4)


def test_a_folder_keeps_the_trend(fitted, tmp_path):
    loaded = Recommender.load(fitted.save(tmp_path / "m"))
    for name in ("time", "half_life", "weight"):
        assert getattr(loaded.state.trend, name) == getattr(fitted.state.trend, name)
    np.testing.assert_array_equal(loaded.state.trend.recent, fitted.state.trend.recent)
    user = fitted.users.ids(np.flatnonzero(fitted.state.seen.count)[:1])[0]
    assert loaded.recommend(user, 9).equals(fitted.recommend(user, 9))
    assert "trend" not in loaded.metadata


def test_new_ratings_count_in_the_trend(fitted):
    state, frame = fitted.state, SPLIT.valid.frame()
    at_once = Recommender.of(state)
    at_once.update(frame)
    steps = Recommender.of(state)
    for start in range(0, frame.height, 100):
        steps.update(frame[start : start + 100])
    np.testing.assert_allclose(steps.state.trend.recent, at_once.state.trend.recent, rtol=1e-9)
    np.testing.assert_allclose(at_once.state.trend.recent, by_hand(TRAINED.concat(SPLIT.valid), 10), rtol=1e-9)
    future = Recommender.of(state)
    future.update(pl.DataFrame({"user": [1], "item": [int(state.items.series[0])], "time": [9_999_999_999]}))
    assert future.state.trend.time <= time.time() + 1, "nothing comes from the future"
    untimed = Recommender.of(state)
    untimed.update(frame.drop("timestamp"))
    assert untimed.state.trend.time == state.trend.time
    assert untimed.state.trend.recent.sum() == pytest.approx(state.trend.recent.sum() + len(SPLIT.valid))
    assert state.trend.time < at_once.state.trend.time, "and the state before is as it was"


def test_another_trend_leaves_all_else_as_it_is(fitted):
    state = fitted.state
    other = state.trend.with_ratings(np.array([3] * 50), np.full(50, state.trend.time))
    for computed in ("rules", "index", "popularity_index", "titles", "fold_in", "ranker", "item_ids"):
        getattr(state, computed)
    moved, fresh = state.with_trend(other), state.replace(trend=other)
    request = RecommendRequest(k=10)
    for name in ("titles", "fold_in"):
        assert getattr(moved, name) is getattr(state, name)
    for user in np.flatnonzero(state.seen.count)[:3].tolist():
        for rules in ({}, {"boost": "item_id == 5: 3"}, {"where": "ratings > 2"}):
            given = request if not rules else replace(request, rules=replace(request.rules, **rules))
            lists = [
                Recommender.of(s).recommend(s.users.ids(np.array([user]))[0], 10, rules=given.rules)
                for s in (moved, fresh)
            ]
            assert lists[0].equals(lists[1])
    assert moved.popularity[3] > state.popularity[3] and moved.trend_scores[3] > state.trend_scores[3]


def test_an_approximate_index_follows_the_trend(fitted, monkeypatch):
    monkeypatch.setattr(approximate, "_FEW", 0)  # no search scores all items
    state = fitted.state.with_index("approximate")
    later = np.full(60, state.trend.time + DAY)
    moved = state.with_trend(state.trend.with_ratings(np.repeat([3, 7, 11], 20), later))
    assert moved.index.candidates is state.index.candidates
    users = np.flatnonzero(state.seen.count)[:50]
    excluded = moved.excluded.pairs_of(users)
    for s in (state, moved):
        assert s.index.recall(s.model.queries(users), 10, exclude=excluded) > 0.9
        scores, rows = s.index.search(s.model.queries(users[:1]), 5, None, s.excluded.pairs_of(users[:1]))
        np.testing.assert_allclose(scores[0], s.scorer.score(s.model.queries(users[:1]), rows[0])[0], rtol=1e-5)


def test_items_that_are_added_have_no_trend():
    trend = Trend.of(RATINGS, 5.0).with_items(len(RATINGS.items) + 2)
    assert trend.recent[-2:].tolist() == [0, 0] and len(trend.recent) == len(RATINGS.items) + 2


@pytest.mark.parametrize("split", ["time", "random"])
def test_a_training_chooses_a_trend_where_validation_is_the_future(split, tmp_path):
    model, train = small("softmax", epochs=5, dim=8, batch_users=32)
    data, run = DataConfig(split=split), RunConfig(out=str(tmp_path / "m"), track=False, baselines=False)
    found, report = run_experiment(data, model, train, run, dataset=Dataset(RATINGS, None))
    off, without = run_experiment(data, replace(model, half_life=0.0), train, run, dataset=Dataset(RATINGS, None))
    assert off.state.trend is None
    if split == "random":
        assert found.state.trend is None
        assert report["metrics"]["test"] == without["metrics"]["test"]
        return
    chosen = report["settings"]
    assert chosen["half_life"] == found.state.trend.half_life > 0 and chosen["trend"] > 0
    assert found.metadata["settings"]["half_life"] == chosen["half_life"]
    assert report["metrics"]["test"]["ndcg_at_10"] > 1.1 * without["metrics"]["test"]["ndcg_at_10"]
    # The state is what was fitted again, on train and validation.
    np.testing.assert_allclose(
        found.state.trend.recent, by_hand(SPLIT.train.concat(SPLIT.valid), chosen["half_life"]), rtol=1e-9
    )
    again = evaluate(found, SPLIT.test).metrics["ndcg_at_10"]
    assert again == pytest.approx(report["metrics"]["test"]["ndcg_at_10"])


def test_times_that_are_not_there_or_play_no_part_change_nothing():
    model, train = small("softmax", epochs=3, dim=8, batch_users=32, model_family="both")
    parts = [split_random(r, 0.1, 0.1, 0).train for r in (RATINGS, replace(RATINGS, time=None))]
    timed, untimed = (Recommender(model, train).fit(part) for part in parts)
    assert timed.state.trend is untimed.state.trend is None
    for name, array in timed.state.model.save()[0].items():
        np.testing.assert_array_equal(array, untimed.state.model.save()[0][name])
    assert timed.state.scorer is timed.state.model


def test_a_trend_that_cannot_be_is_refused():
    model, train = SETTINGS
    with pytest.raises(DataError, match="--half-life needs times"):
        Recommender(model, train).fit(replace(TRAINED, time=None))
    with pytest.raises(SettingError, match="--half-life"):
        Recommender(*small("mse", half_life=3.0)).fit(replace(TRAINED, value=(TRAINED.item % 5 + 1).astype(np.float32)))
    with pytest.raises(SettingError, match="half-life"):
        replace(model, half_life=-1.0)
    run = RunConfig(track=False, baselines=False)
    rated = replace(RATINGS, value=(1 + RATINGS.item % 5).astype(np.float32))
    with pytest.raises(SettingError, match="--split time"):
        run_experiment(DataConfig(split="time"), *small("mse", trend=1.0), run, dataset=Dataset(rated, None))
    with pytest.raises(SettingError, match="--split time"):
        run_experiment(DataConfig(), replace(model, half_life=None), train, run, dataset=Dataset(RATINGS, None))


def test_events_of_one_second_keep_their_order():
    times = np.array([900, 100, 500, 300]) + 1_700_000_000_000
    frame = pl.DataFrame({"user": [1] * 4, "item": [1, 2, 3, 4], "time": times})
    for column in (pl.col("time"), pl.col("time").cast(pl.String), pl.from_epoch("time", time_unit="ms")):
        ratings = Ratings.from_frame(frame.with_columns(time=column))
        assert ratings.items.ids(split_leave_last(ratings).test.item).to_list() == [1]
    twice = pl.DataFrame({"user": [1, 1], "item": [1, 1], "rating": [5, 1], "time": times[:2]})
    assert Ratings.from_frame(twice).value.tolist() == [5]


def test_whatever_a_time_is_written_in_the_answers_are_the_same():
    frame = RATINGS.frame().rename({"timestamp": "time"})
    seconds = pl.col("time")
    written = {
        "milliseconds": seconds * 1000 + 7,
        "microseconds": seconds * 10**6,
        "text": seconds.cast(pl.String),
        "datetimes": pl.from_epoch(seconds),
        "zones": pl.from_epoch(seconds + 7200).dt.strftime("%Y-%m-%dT%H:%M:%S+02:00"),
    }
    for name, column in written.items():
        found = Ratings.from_frame(frame.with_columns(time=column))
        np.testing.assert_array_equal(found.time, RATINGS.time, err_msg=name)
