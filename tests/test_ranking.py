"""The one place that ranks, and the metrics, each against a second implementation."""

import math

import ir_measures
import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recsys_embed.arrays import normalize
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import split_random
from recsys_embed.data.user_items import UserItems
from recsys_embed.errors import DataError
from recsys_embed.evaluation import metrics
from recsys_embed.evaluation.baselines import choose_ease
from recsys_embed.evaluation.evaluate import align_to_model, evaluate, rank_metrics
from recsys_embed.kernels import available
from recsys_embed.models import ease as ease_module
from recsys_embed.models.ease import EASE_LAMBDAS, Ease
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.popularity import popularity
from recsys_embed.models.ranker import Ranker
from recsys_embed.retrieval import exact as index
from recsys_embed.retrieval import topk as topk_module
from recsys_embed.retrieval.exact import CosineIndex, ExactIndex
from recsys_embed.retrieval.topk import topk
from recsys_embed.sources.load import load_dataset

LARGEST, SMALLEST = np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal
WAYS = [topk_module._topk_numpy, topk_module._topk_numba]


def rank_by(patch, way):
    for module in (index, topk_module):
        patch.setattr(module, "choose_topk", lambda numbers: way)


@st.composite
def tables(draw):
    """(table, k): long lines and short ones, of few distinct values, so that ties are everywhere, or of many."""
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    shape = draw(st.integers(0, 4)), draw(st.integers(1, 9) | st.integers(200, 2000))
    odd = [-np.inf, np.inf, np.nan, LARGEST, -LARGEST, SMALLEST, -SMALLEST, -1.0, 0.0, -0.0, 0.5, 2.0]
    level = draw(st.lists(st.sampled_from(odd), min_size=1, max_size=4)), draw(st.sampled_from([0, 0.5, 1]))
    table = np.where(random.random(shape) < level[1], random.normal(size=shape), random.choice(level[0], shape))
    return table.astype(np.float32), draw(st.integers(1, shape[1]) | st.just(shape[1]))


def naive_top(line, k):
    """Return scores and rows of a stable sort, cut at k."""
    found = sorted((i for i in range(len(line)) if line[i] > -np.inf), key=lambda i: -line[i])[:k]
    rest = k - len(found)
    return [line[i] for i in found] + [-np.inf] * rest, found + [-1] * rest


@pytest.mark.parametrize("way", WAYS)
@settings(deadline=None)
@example((np.array([[-0.0, 0.0, -0.0]], np.float32), 2))
@given(tables())
def test_top_is_a_stable_sort_cut_at_k(way, given):
    table, k = given
    with pytest.MonkeyPatch.context() as patch:
        rank_by(patch, way)
        scores, rows = topk(table.copy(), k)
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)
    for line, score, row in zip(table, scores, rows, strict=True):
        assert (score.tolist(), row.tolist()) == naive_top(line, k)


@pytest.mark.parametrize("way", WAYS)
def test_top_of_more_than_there_are_is_all_of_them(way, monkeypatch):
    rank_by(monkeypatch, way)
    scores, rows = topk(np.float32([[2, 3, 1], [0, -np.inf, 0]]), 9)
    assert rows.tolist() == [[1, 0, 2], [0, 2, -1]] and scores[0].tolist() == [3, 2, 1]


@pytest.mark.parametrize("way", WAYS)
def test_what_names_no_key_is_refused(way, monkeypatch):
    rank_by(monkeypatch, way)
    found = ExactIndex(np.ones((5, 2), np.float32))
    with pytest.raises(ValueError, match="5 keys"):
        found.search(np.ones((1, 2), np.float32), 2, np.ones(6, bool))
    for row in (-1, 5):
        with pytest.raises(IndexError, match="5 keys"):
            found.search(np.ones((1, 2), np.float32), 2, exclude=(np.zeros(1, int), np.array([row])))


@pytest.mark.parametrize("k", [1, 20, 300, 700])
def test_both_ways_find_the_same(k, monkeypatch):
    random = np.random.default_rng(3)
    keys, queries = (random.normal(size=(n, 6)).astype(np.float32) for n in (700, 5000))
    seen = UserItems.of(random.integers(0, 5000, 90_000), random.integers(0, 700, 90_000), 5000)
    allowed, found = random.random(700) < 0.9, []
    for way in WAYS:
        rank_by(monkeypatch, way)
        monkeypatch.setattr(index, "BLOCK", 700 * 1999)
        found.append(ExactIndex(keys).search(queries, k, allowed, seen.pairs_of(np.arange(5000))))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("way", WAYS)
class TestExactIndex:
    @pytest.fixture(autouse=True, params=["all", "few"])
    def _way(self, way, request, monkeypatch):
        rank_by(monkeypatch, way)
        monkeypatch.setattr(index, "_FEW", 2 * (request.param == "few"))  # those allowed alone are scored, or all

    keys = np.random.default_rng(0).normal(size=(11, 5)).astype(np.float32)
    queries = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)

    @pytest.mark.parametrize("block", [1, 25, 10_000])
    def test_search_is_sorting_all_scores(self, monkeypatch, block):
        monkeypatch.setattr(index, "BLOCK", block)
        seen = UserItems.of(np.array([0, 0, 3, 6]), np.array([2, 9, 1, 10]), 7)
        allowed = np.arange(11) != 4
        scores, rows = ExactIndex(self.keys).search(self.queries, 4, allowed, seen.pairs_of(np.arange(7)))
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

    def test_nothing_is_found_where_nothing_is_allowed_or_asked_or_there(self):
        everything = np.repeat(np.arange(7), 11), np.tile(np.arange(11), 7)
        for barred in ({"allowed": np.zeros(11, bool)}, {"exclude": everything}):
            scores, rows = ExactIndex(self.keys).search(self.queries, 4, **barred)
            assert (rows == -1).all() and np.isneginf(scores).all() and rows.shape == (7, 4)
        assert ExactIndex(self.keys).search(self.queries[:0], 4)[1].shape == (0, 4)
        assert ExactIndex(self.keys[:0]).search(self.queries, 4)[1].shape == (7, 0)

    def test_a_key_that_is_not_there_cannot_be_excluded(self):
        with pytest.raises(IndexError):
            ExactIndex(self.keys).search(self.queries, 4, exclude=(np.array([2]), np.array([11])))

    def test_scores_and_pairs_may_come_in_any_form(self):
        table = np.random.default_rng(3).integers(0, 5, (7, 11))
        fixed, pairs = table.astype(np.float32), (np.zeros(0, np.int64), np.zeros(0, np.int64))
        for kept in (fixed, *pairs):
            kept.flags.writeable = False
        for form in (table.astype(np.float64), fixed, fixed[:, ::-1].copy()[:, ::-1], np.asfortranarray(table)):
            given = ExactIndex(np.zeros((11, 0)), lambda q, _, form=form: form)
            scores, rows = given.search(self.queries, 4, exclude=pairs)
            for line, score, row in zip(table, scores, rows, strict=True):
                assert (score.tolist(), row.tolist()) == naive_top(line, 4)

    def test_an_mlp_ranks_as_it_scores(self):
        random = np.random.default_rng(2)
        sizes = (7, 5), (11, 5), 7, 11, (4, 10), 4, (1, 4), 1
        users, items, user_bias, item_bias, *layers = (random.normal(size=s).astype(np.float32) for s in sizes)
        plain = EmbeddingModel(
            users, items, user_bias, item_bias, layers=list(zip(layers[::2], layers[1::2], strict=True))
        )
        scores, rows = ExactIndex.of(plain).search(plain.queries(np.arange(7)), 11)
        np.testing.assert_allclose(
            plain.score_pairs(np.repeat(np.arange(7), 11), rows.ravel()), scores.ravel(), rtol=1e-4
        )
        assert (np.diff(scores, axis=1) <= 0).all()

    def test_biases_are_folded_in(self):
        random = np.random.default_rng(2)
        arrays_ = [random.normal(size=s).astype(np.float32) for s in ((7, 5), (11, 5), 7, 11)]
        plain = EmbeddingModel(*arrays_, offset=0.5)
        scores, rows = ExactIndex.of(plain).search(plain.queries(np.arange(7)), 11)
        users = np.repeat(np.arange(7), 11)
        np.testing.assert_allclose(plain.score_pairs(users, rows.ravel()), scores.ravel(), rtol=1e-4, atol=1e-5)


def models():
    random = np.random.default_rng(9)
    for layers in (False, True):
        arrays = [random.normal(size=s).astype(np.float32) for s in ((40, 6), (3000, 6), 40, 3000)]
        sizes = ((8, 12), 8, (1, 8), 1) if layers else ()
        weights = [random.normal(size=s).astype(np.float32) for s in sizes]
        yield EmbeddingModel(*arrays, offset=0.3, layers=list(zip(weights[::2], weights[1::2], strict=True)))


@pytest.mark.parametrize("plain", models(), ids=["dot", "mlp"])
@pytest.mark.parametrize("users", [1, 6, 40])
@pytest.mark.parametrize("rows", [None, 1, 1500])
def test_scores_are_those_of_the_pairs_however_many_are_asked(plain, users, rows, monkeypatch):
    monkeypatch.setattr("recsys_embed.models.embedding._HIDDEN_BLOCK", 8 * 700)
    some = np.arange(3000) if rows is None else np.random.default_rng(1).permutation(3000)[:rows]
    got = plain.score(plain.queries(np.arange(users)), None if rows is None else some)
    expected = plain.score_pairs(np.repeat(np.arange(users), len(some)), np.tile(some, users))
    np.testing.assert_allclose(got.ravel(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("queries", [3, 9])
@pytest.mark.parametrize("rows", [None, 2, 1500])
def test_cosines_are_products_of_unit_vectors(queries, rows):
    random = np.random.default_rng(2)
    vectors = random.normal(size=(2000, 5)).astype(np.float32) * random.integers(0, 4, (2000, 1))
    found, some = CosineIndex(vectors), None if rows is None else random.permutation(2000)[:rows]
    asked = found.directions(np.arange(queries))
    np.testing.assert_allclose(asked, normalize(vectors[:queries]), rtol=1e-6)
    expected = normalize(vectors[:queries]) @ (normalize(vectors) if some is None else normalize(vectors)[some]).T
    np.testing.assert_allclose(found.scores(asked, some), expected, atol=1e-6)
    near = found.neighbours(np.arange(queries), 4)[1]
    assert not (near == np.arange(queries)[:, None]).any()


def test_a_model_is_ranked_where_it_lies():
    plain = next(models())
    assert ExactIndex.of(plain).keys is plain.items and CosineIndex(plain.items).keys is plain.items


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
    seen = UserItems.of(np.repeat(np.arange(4), [len(r) for r in relevant]), np.concatenate(relevant), 4)
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
    seen = UserItems.of(np.repeat(np.arange(4), [len(r) for r in relevant]), np.concatenate(relevant), 4)
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
    seen = UserItems.of(np.array([0]), np.array([0]), 1)
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
    return load_dataset("synthetic:users=60,items=40,ratings=900").ratings


def naive(score, train, test, k):
    """NDCG@k, recall@k and hit@k of a score table, user by user."""
    seen, relevant, counts = train.seen(), test.seen(), train.item_counts
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
    plain = EmbeddingModel(u, v, np.zeros(60, np.float32), np.zeros(40, np.float32))
    report = rank_metrics(Ranker.of(plain), test, train.seen(), train.item_counts, (3, 10))
    for k in (3, 10):
        expected = naive(u @ v.T, train, test, k)
        got = [report.metrics[f"{n}_at_{k}"] for n in ("ndcg", "recall", "hit")]
        assert got == pytest.approx(expected.tolist(), rel=1e-9)
    assert report.per_user["ndcg_at_10"].mean() == pytest.approx(report.metrics["ndcg_at_10"])


def test_cold_test_rows_are_left_out_and_counted(world):
    train, _, test = split_random(world, 0.0, 0.3)
    cold = train.take(train.item != test.item[0])
    report = rank_metrics(popularity(cold), test, cold.seen(), cold.item_counts)
    assert report.n_skipped == int((test.item == test.item[0]).sum()) > 0
    assert report.rows + report.n_skipped == len(test)


def test_popularity_and_coverage(world):
    train, _, test = split_random(world, 0.0, 0.3)
    score = np.tile(train.item_counts, (60, 1))
    report = rank_metrics(popularity(train), test, train.seen(), train.item_counts, (5,))
    assert report.metrics["ndcg_at_5"] == pytest.approx(naive(score, train, test, 5)[0])
    nobody = UserItems.empty(60)
    alike = rank_metrics(popularity(train), test, nobody, train.item_counts, (5,))
    assert alike.metrics["coverage_at_5"] == pytest.approx(5 / (train.item_counts > 0).sum())
    assert alike.metrics["popularity_at_5"] == pytest.approx(np.sort(train.item_counts)[-5:].mean())


@pytest.mark.parametrize("kernel", [True, False])
def test_ease_is_ridge_regression_of_every_item_on_the_others(world, kernel, monkeypatch):
    monkeypatch.setattr(ease_module, "use_kernel", lambda name, numbers: kernel and available(name))
    x = np.zeros((60, 40))
    x[world.user, world.item] = 1
    expected = np.zeros((40, 40))
    for item in range(40):
        rest = np.delete(np.arange(40), item)
        expected[rest, item] = np.linalg.solve(x[:, rest].T @ x[:, rest] + 5 * np.eye(39), x[:, rest].T @ x[:, item])
    ranker = Ease(world).fit(5.0)
    got = ranker.scores(np.arange(60))
    np.testing.assert_allclose(got, x @ expected, atol=1e-4)


@pytest.mark.parametrize("kernel", [True, False])
def test_ease_of_many_items_is_its_closed_form(kernel, monkeypatch):
    monkeypatch.setattr(ease_module, "use_kernel", lambda name, numbers: kernel and available(name))
    ratings = load_dataset("synthetic:users=90,items=700,ratings=9000").ratings
    ease, x = Ease(ratings), ratings.matrix().toarray().astype(float)
    np.testing.assert_array_equal(ease.gram, x.T @ x)
    inverse = np.linalg.inv(x.T @ x + 7 * np.eye(x.shape[1]))
    weights = -inverse / inverse.diagonal()
    np.fill_diagonal(weights, 0)
    some = np.array([5, 3, 80, 3])
    np.testing.assert_allclose(ease.fit(7.0).scores(some), x[some] @ weights, rtol=1e-3, atol=1e-4)
    one = rank_metrics(ease.fit(7.0), ratings, UserItems.empty(90), ratings.item_counts, (10,))
    dense = Ranker(ExactIndex(weights.T), lambda users: x[users])
    other = rank_metrics(dense, ratings, UserItems.empty(90), ratings.item_counts, (10,))
    assert one.metrics == pytest.approx(other.metrics, rel=1e-3)


def test_ease_chooses_a_regularization_that_is_better_than_those_beside_it(world):
    train, valid, _ = split_random(world, 0.3, 0.1)
    ease = Ease(train)
    quality = [
        rank_metrics(ease.fit(x), valid, train.seen(), train.item_counts).metrics["ndcg_at_10"] for x in EASE_LAMBDAS
    ]
    at = EASE_LAMBDAS.index(choose_ease(ease, train, valid))
    assert quality[at] == max(quality[max(0, at - 1) : at + 2])


def test_a_model_is_not_measured_on_what_it_was_fitted_on(world):
    from worlds import small

    from recsys_embed.recommender import Recommender

    train, _, test = split_random(world, 0.0, 0.3)
    recommender = Recommender(*small("softmax", epochs=2)).fit(train)
    with pytest.raises(DataError, match=r"fitted on 10 of the"):
        align_to_model(recommender, train.take(np.arange(10)))
    stranger = Ratings.from_frame(pl.DataFrame({"user": [9999, 1], "item": [1, 99999], "rating": [1.0, 2.0]}))
    kept, unknown = align_to_model(recommender, stranger)
    assert (len(kept), unknown) == (0, 2)
    with pytest.raises(DataError, match="such as user 1 and item 1; the test has user 9999 and item 1, …: give it the"):
        evaluate(recommender, stranger)
    part = Ratings.from_frame(test.frame().filter(pl.col("user_id") > 30))  # other vocabularies, other rows
    assert part.users != test.users
    assert evaluate(recommender, part).metrics == evaluate(recommender, test.take(test.user >= 30)).metrics
    again = Ratings.from_frame(test.frame())
    assert evaluate(recommender, again).metrics == evaluate(recommender, test).metrics


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_who_has_what_is_a_set_of_pairs(seed):
    random = np.random.default_rng(seed)
    users, items = random.integers(1, 6, 2)
    owned = random.random((users, items)) < random.random()
    of_users = UserItems.of(*np.nonzero(owned), users)
    user, item = random.integers(-1, users, 12), random.integers(-1, items + 2, 12)
    expected = [u >= 0 and 0 <= i < items and owned[u, i] for u, i in zip(user, item, strict=True)]
    np.testing.assert_array_equal(of_users.contains(user, item), expected)
    np.testing.assert_array_equal(of_users.contains(user[:0], item[:0]), [])
