"""The one place that ranks, and the metrics, each against a second implementation."""

import math

import ir_measures
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys_embed.errors import DataError
from recsys_embed.evaluation import metrics
from recsys_embed.evaluation.baselines import Ease, popularity, recent_popularity
from recsys_embed.evaluation.protocol import Ranker, evaluate, onto, rank_metrics
from recsys_embed.model.plain import PlainModel
from recsys_embed.ratings.splits import split_random
from recsys_embed.ratings.table import Ratings, Seen
from recsys_embed.recommend import index
from recsys_embed.recommend.index import ExactIndex, top

# Few distinct values, so that ties are everywhere.
tables = arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 9)),
    elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0, -np.inf]),
)


@given(tables, st.integers(1, 9))
def test_top_is_a_stable_sort_cut_at_k(table, k):
    k = min(k, table.shape[1])
    scores, rows = top(table, k)
    for line, score, row in zip(table, scores, rows, strict=True):
        order = sorted(range(len(line)), key=lambda i: (-line[i], i))[:k]
        assert [r if line[r] > -np.inf else -1 for r in order] == row.tolist()
        assert [line[r] for r in order] == score.tolist()


class TestExactIndex:
    keys = np.random.default_rng(0).normal(size=(11, 5)).astype(np.float32)
    queries = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)

    @pytest.mark.parametrize("block", [1, 25, 10_000])
    def test_search_is_sorting_all_scores(self, monkeypatch, block):
        monkeypatch.setattr(index, "BLOCK", block)
        seen = Seen.of(np.array([0, 0, 3, 6]), np.array([2, 9, 1, 10]), 7)
        allowed = np.arange(11) != 4
        scores, rows = ExactIndex(self.keys).search(self.queries, 4, allowed, seen.of_users(np.arange(7)))
        table = self.queries @ self.keys.T
        for user in range(7):
            left = [i for i in range(11) if i != 4 and i not in seen[user]]
            expected = sorted(left, key=lambda i: -table[user, i])[:4]
            assert rows[user].tolist() == expected
            np.testing.assert_allclose(scores[user], table[user, expected], rtol=1e-5)

    def test_k_beyond_what_is_left_ends_in_nothing(self):
        allowed = np.arange(11) < 3
        scores, rows = ExactIndex(self.keys).search(self.queries, 99, allowed)
        assert rows.shape == (7, 11)
        assert (rows[:, 3:] == -1).all() and np.isneginf(scores[:, 3:]).all() and (rows[:, :3] >= 0).all()

    def test_biases_are_folded_in(self):
        random = np.random.default_rng(2)
        arrays_ = [random.normal(size=s).astype(np.float32) for s in ((7, 5), (11, 5), 7, 11)]
        plain = PlainModel(*arrays_, offset=0.5)
        scores, rows = ExactIndex.of(plain).search(plain.queries(np.arange(7)), 11)
        users = np.repeat(np.arange(7), 11)
        np.testing.assert_allclose(plain.pairs(users, rows.ravel()), scores.ravel(), rtol=1e-4, atol=1e-5)


@st.composite
def judged(draw):
    """Ranked lists, and relevant items, of a few users."""
    k = draw(st.integers(1, 8))
    ranked = [draw(st.permutations(range(10)))[:k] for _ in range(4)]
    relevant = [sorted(draw(st.sets(st.integers(0, 12), min_size=1, max_size=9))) for _ in range(4)]
    return k, np.array(ranked), relevant


@given(judged())
def test_metrics_agree_with_ir_measures(world):
    k, ranked, relevant = world
    seen = Seen.of(np.repeat(np.arange(4), [len(r) for r in relevant]), np.concatenate(relevant), 4)
    hit, count = metrics.hits(ranked, seen, np.arange(4)), seen.count
    qrels = {str(u): {str(i): 1 for i in items} for u, items in enumerate(relevant)}
    run = {str(u): {str(i): float(100 - at) for at, i in enumerate(line)} for u, line in enumerate(ranked)}
    public = {"ndcg": ir_measures.nDCG @ k, "recall": ir_measures.R @ k, "precision": ir_measures.P @ k,
              "mrr": ir_measures.RR @ k, "hit": ir_measures.Success @ k}  # fmt: skip
    for name, measure in public.items():
        expected = {m.query_id: m.value for m in ir_measures.iter_calc([measure], qrels, run)}
        got = metrics.METRICS[name](hit, count, k)
        assert got == pytest.approx([expected[str(u)] for u in range(4)], abs=1e-6), name


@given(judged())
def test_average_precision_is_its_definition(world):
    k, ranked, relevant = world
    seen = Seen.of(np.repeat(np.arange(4), [len(r) for r in relevant]), np.concatenate(relevant), 4)
    got = metrics.average_precision(metrics.hits(ranked, seen, np.arange(4)), seen.count, k)
    for user, line in enumerate(ranked):
        found, total = 0, 0.0
        for at, item in enumerate(line, 1):
            if item in relevant[user]:
                found += 1
                total += found / at
        assert got[user] == pytest.approx(total / min(k, len(relevant[user])))


def test_metrics_by_hand():
    hit, relevant = np.array([[False, True, True]]), np.array([4])
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert metrics.ndcg(hit, relevant, 3)[0] == pytest.approx((1 / math.log2(3) + 0.5) / ideal)
    assert metrics.ndcg(np.array([[True]]), np.array([9]), 1)[0] == 1.0
    assert metrics.rmse(np.array([1.0, 3.0]), np.array([2.0, 5.0])) == pytest.approx(math.sqrt(2.5))
    assert metrics.mae(np.array([1.0, 3.0]), np.array([2.0, 5.0])) == pytest.approx(1.5)


def test_short_lists_and_nothing_are_misses():
    seen = Seen.of(np.array([0]), np.array([0]), 1)
    hit = metrics.hits(np.array([[-1, -1]]), seen, np.array([0]))
    assert not hit.any()
    assert metrics.ndcg(hit, np.array([1]), 10)[0] == 0.0


def test_the_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(3, 2, (4000, 1))
    low, high = metrics.interval(values, 1000)
    half = 1.96 * 2 / math.sqrt(4000)
    assert (values.mean() - low[0], high[0] - values.mean()) == pytest.approx((half, half), rel=0.15)
    assert np.isnan(metrics.interval(values, 0)[0][0])
    assert [end[0] for end in metrics.interval(np.ones((2, 1)), 1000)] == [1.0, 1.0]


@pytest.fixture
def world():
    from recsys_embed.datasets import load_dataset

    return load_dataset("synthetic:users=60,items=40,ratings=900").ratings


def naive(score, train, test, k):
    """NDCG@k, recall@k and hit@k of a score table, user by user."""
    seen, relevant, counts = train.seen(), test.seen(), train.counts
    found = []
    for user in range(len(train.users)):
        wanted = [i for i in relevant[user] if counts[i] > 0]
        if wanted:
            left = [i for i in range(len(train.items)) if i not in seen[user]]
            hits = [i in wanted for i in sorted(left, key=lambda i: (-score[user, i], i))[:k]]
            gain = sum(h / math.log2(at + 2) for at, h in enumerate(hits))
            ideal = sum(1 / math.log2(at + 2) for at in range(min(k, len(wanted))))
            found.append((gain / ideal, sum(hits) / len(wanted), float(any(hits))))
    return np.mean(found, axis=0)


def test_the_protocol_agrees_with_a_loop_over_users(world):
    train, _, test = split_random(world, 0.0, 0.3)
    random = np.random.default_rng(0)
    u, v = random.normal(size=(60, 3)).astype(np.float32), random.normal(size=(40, 3)).astype(np.float32)
    plain = PlainModel(u, v, np.zeros(60, np.float32), np.zeros(40, np.float32))
    report = rank_metrics(Ranker.of(plain), test, train.seen(), train.counts, (3, 10))
    for k in (3, 10):
        expected = naive(u @ v.T, train, test, k)
        got = [report.metrics[f"{n}_at_{k}"] for n in ("ndcg", "recall", "hit")]
        assert got == pytest.approx(expected.tolist(), rel=1e-9)
    assert report.per_user["ndcg_at_10"].mean() == pytest.approx(report.metrics["ndcg_at_10"])


def test_cold_test_rows_are_left_out_and_counted(world):
    train, _, test = split_random(world, 0.0, 0.3)
    cold = train.take(train.item != test.item[0])
    report = rank_metrics(popularity(cold), test, cold.seen(), cold.counts)
    assert report.left_out == int((test.item == test.item[0]).sum()) > 0
    assert report.rows + report.left_out == len(test)


def test_popularity_and_coverage(world):
    train, _, test = split_random(world, 0.0, 0.3)
    score = np.tile(train.counts, (60, 1))
    report = rank_metrics(popularity(train), test, train.seen(), train.counts, (5,))
    assert report.metrics["ndcg_at_5"] == pytest.approx(naive(score, train, test, 5)[0])
    nobody = Seen.nothing(60)
    alike = rank_metrics(popularity(train), test, nobody, train.counts, (5,))
    assert alike.metrics["coverage_at_5"] == pytest.approx(5 / (train.counts > 0).sum())
    assert alike.metrics["popularity_at_5"] == pytest.approx(np.sort(train.counts)[-5:].mean())


def test_recent_popularity_looks_at_the_newest_rows():
    frame = pl.DataFrame({"user": list(range(20)), "item": [1] * 17 + [2, 2, 3], "time": list(range(20))})
    ratings = Ratings.from_frame(frame)
    ranked = recent_popularity(ratings, 0.15).index.search(np.ones((1, 1), np.float32), 3)[1]
    assert ratings.items.ids(ranked[0]).to_list() == [2, 3, 1]


def test_ease_is_ridge_regression_of_every_item_on_the_others(world):
    x = np.zeros((60, 40))
    x[world.user, world.item] = 1
    expected = np.zeros((40, 40))
    for item in range(40):
        rest = np.delete(np.arange(40), item)
        expected[rest, item] = np.linalg.solve(x[:, rest].T @ x[:, rest] + 5 * np.eye(39), x[:, rest].T @ x[:, item])
    ranker = Ease(world).rank(5.0)
    got = ranker.queries(np.arange(60)) @ ranker.index.keys.T
    np.testing.assert_allclose(got, x @ expected, atol=1e-4)


def test_a_model_is_not_measured_on_what_it_was_fitted_on(world):
    from worlds import small

    from recsys_embed.recommend.recommender import Recommender

    train, _, test = split_random(world, 0.0, 0.3)
    recommender = Recommender(*small("softmax", epochs=2)).fit(train)
    with pytest.raises(DataError, match=r"fitted on 10 of the"):
        onto(recommender, train.take(np.arange(10)))
    stranger = Ratings.from_frame(pl.DataFrame({"user": [9999, 1], "item": [1, 99999], "rating": [1.0, 2.0]}))
    kept, unknown = onto(recommender, stranger)
    assert (len(kept), unknown) == (0, 2)
    with pytest.raises(DataError, match="no test rating of a user and an item that the model knows"):
        evaluate(recommender, stranger)
    part = Ratings.from_frame(test.frame().filter(pl.col("user_id") > 30))  # other vocabularies, other rows
    assert part.users != test.users
    assert evaluate(recommender, part).metrics == evaluate(recommender, test.take(test.user >= 30)).metrics
    again = Ratings.from_frame(test.frame())
    assert evaluate(recommender, again).metrics == evaluate(recommender, test).metrics
