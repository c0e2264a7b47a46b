"""The laws of docs/evaluation.md, through the whole protocol, and beside public definitions of the same metrics."""

import math

import ir_measures
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_embed.data.item_table import align_items
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.user_items import UserItems
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError
from recsys_embed.evaluation import metrics
from recsys_embed.evaluation.evaluate import evaluate, rank_metrics
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.ranker import Ranker
from recsys_embed.recommender import Recommender
from recsys_embed.retrieval.exact import ExactIndex
from recsys_embed.state.fitted import FittedState

USERS, ITEMS = 9, 14


def ratings(pairs, users=USERS, items=ITEMS):
    user, item = (np.array(list(column), np.int64) for column in (zip(*pairs, strict=True) if pairs else ((), ())))
    vocabs = Vocab(pl.Series(range(users)), "user"), Vocab(pl.Series(range(items)), "item")
    return Ratings(*vocabs, user, item, np.ones(len(user), np.float32))


def ranker(scores):
    """Whatever a table of scores [users, items] says."""
    return Ranker(ExactIndex(np.eye(scores.shape[1], dtype=np.float32)), lambda users: scores[users].astype(np.float32))


@st.composite
def worlds(draw):
    """(scores with ties, train, test): a user may have neither train nor test, an item no training rating."""
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    levels = draw(st.sampled_from([2, 5, 1000]))  # few: ties everywhere
    part = random.choice(
        3, (USERS, ITEMS), p=draw(st.sampled_from([(0.2, 0.4, 0.4), (0.6, 0.1, 0.3), (0.5, 0.4, 0.1)]))
    )
    part[:, random.integers(0, ITEMS, draw(st.integers(0, 3)))] %= 2  # cold: no 2, which stands for train
    train, test = ([tuple(map(int, p)) for p in np.argwhere(part == which)] for which in (2, 1))
    return random.integers(0, levels, (USERS, ITEMS)), ratings(train), ratings(test)


def lists(scores, train, k):
    """Return every user's list, and the test: the second implementation, by sorting."""
    seen, warm = train.seen(), train.item_counts > 0
    left = [[i for i in range(ITEMS) if warm[i] and i not in seen[u]] for u in range(USERS)]
    return [sorted(mine, key=lambda i: (-scores[u, i], i))[:k] for u, mine in enumerate(left)]


def wanted(train, test):
    """Return the test items of each user that has some, without cold ones."""
    found = {u: [i for i in test.seen()[u].tolist() if train.item_counts[i]] for u in range(USERS)}
    return {u: items for u, items in found.items() if items}


@settings(max_examples=40)
@given(worlds(), st.sampled_from([1, 3, 10, 20]))
def test_every_user_has_the_value_of_a_public_implementation(world, k):
    """ir-measures (trec_eval) on the same lists; its AP divides by all relevant items, ours by those that fit."""
    scores, train, test = world
    report = rank_metrics(ranker(scores), test, train.seen(), train.item_counts, (k,))
    relevant, ranked = wanted(train, test), lists(scores, train, k)
    assert report.per_user["user_id"].to_list() == list(relevant) and report.users == len(relevant)
    qrels = {str(u): {str(i): 1 for i in items} for u, items in relevant.items()}
    run = {str(u): {str(i): float(99 - at) for at, i in enumerate(ranked[u])} for u in relevant}
    public = {"ndcg": ir_measures.nDCG @ k, "recall": ir_measures.R @ k, "precision": ir_measures.P @ k,
              "map": ir_measures.AP @ k, "mrr": ir_measures.RR @ k, "hit": ir_measures.Success @ k}  # fmt: skip
    assert set(public) == set(metrics.METRICS)
    for name, measure in public.items():
        found = {m.query_id: m.value for m in ir_measures.iter_calc([measure], qrels, run)} if relevant else {}
        expected = [found.get(str(u), 0.0) for u in relevant]  # a list of nothing is no query of theirs
        if name == "map":
            expected = [v * len(r) / min(k, len(r)) for v, r in zip(expected, relevant.values(), strict=True)]
        assert report.per_user[f"{name}_at_{k}"].to_list() == pytest.approx(expected, abs=1e-6), name
        if relevant:
            assert report.metrics[f"{name}_at_{k}"] == pytest.approx(np.mean(expected), abs=1e-6), name


@settings(max_examples=40)
@given(worlds())
def test_recall_and_ndcg_are_those_of_lightgcn(world):
    """He et al., LightGCN, SIGIR 2020, section 4.1.2, at 20: hits / |test|; binary gains, ideal of min(20, |test|)."""
    scores, train, test = world
    report = rank_metrics(ranker(scores), test, train.seen(), train.item_counts, (20, 5))
    relevant = wanted(train, test)
    for k in (5, 20):
        ranked = lists(scores, train, k)
        recall = [sum(i in r for i in ranked[u]) / len(r) for u, r in relevant.items()]
        gain = [sum(1 / math.log2(at + 2) for at, i in enumerate(ranked[u]) if i in r) for u, r in relevant.items()]
        ideal = [sum(1 / math.log2(at + 2) for at in range(min(k, len(r)))) for r in relevant.values()]
        assert report.per_user[f"recall_at_{k}"].to_list() == pytest.approx(recall, abs=1e-6)
        ndcg = [g / best for g, best in zip(gain, ideal, strict=True)]
        assert report.per_user[f"ndcg_at_{k}"].to_list() == pytest.approx(ndcg, abs=1e-6)


@settings(max_examples=20)
@given(worlds())
def test_the_order_of_rows_says_nothing(world):
    scores, train, test = world
    turned = test.take(np.random.default_rng(0).permutation(len(test)))
    one, other = (rank_metrics(ranker(scores), t, train.seen(), train.item_counts, (3,), 50) for t in (test, turned))
    assert one.per_user.equals(other.per_user) and (one.low, one.high) == (other.low, other.high)


class TestLaws:
    """A world of four users; scores fall with the item's row, so that lists are read at a glance."""

    scores = -np.arange(6)[None].repeat(4, 0)
    # Item 5 is cold; user 2 has no test rating, user 3 no training rating.
    train = ratings([(0, 0), (0, 1), (1, 2), (1, 3), (1, 4), (2, 0)], 4, 6)
    test = ratings([(0, 2), (0, 5), (1, 0), (3, 1)], 4, 6)

    def report(self, test=None, seen=None, ks=(1, 2, 50), train=None):
        train = self.train if train is None else train
        seen = train.seen() if seen is None else seen
        return rank_metrics(ranker(self.scores), self.test if test is None else test, seen, train.item_counts, ks)

    def test_equal_scores_go_by_ascending_row(self):
        equal = rank_metrics(ranker(np.zeros((4, 6))), self.test, self.train.seen(), self.train.item_counts, (1, 2))
        falling = self.report(ks=(1, 2))
        assert equal.per_user.equals(falling.per_user) and equal.metrics == falling.metrics

    def test_users_without_a_test_rating_have_no_part(self):
        report = self.report()
        assert report.per_user["user_id"].to_list() == [0, 1, 3] and report.users == 3
        assert report.exposure[1].sum() == 3  # nor is a list of theirs counted
        only_cold = self.report(ratings([(0, 2), (2, 5)], 4, 6))
        assert only_cold.per_user["user_id"].to_list() == [0] and only_cold.n_skipped == 1

    def test_users_without_a_training_rating_are_ranked_as_all_others_and_see_all(self):
        mine = self.report().per_user.filter(user_id=3)
        assert (mine["hit_at_1"][0], mine["mrr_at_2"][0]) == (0, 0.5)  # item 0 before it: nothing is hidden

    def test_cold_items_are_not_ranked_and_not_relevant(self):
        report = self.report()
        assert report.exposure[50][5] == 0 and (report.rows, report.n_skipped) == (3, 1)
        assert report.per_user.filter(user_id=0)["recall_at_50"][0] == 1  # of the one that could be found

    def test_k_beyond_what_is_left_ends_in_misses(self):
        report = self.report()
        mine = report.per_user.filter(user_id=1)  # two items are left: 0 and 1
        assert [mine[f"{n}_at_50"][0] for n in ("recall", "ndcg", "map", "mrr")] == [1, 1, 1, 1]
        assert mine["precision_at_50"][0] == 1 / 50
        assert report.exposure[50].tolist() == [2, 2, 2, 2, 2, 0]

    def test_what_was_fitted_on_is_hidden_and_nothing_else(self):
        assert self.report().per_user.filter(user_id=0)["hit_at_1"][0] == 1  # 0 and 1 are hidden, 2 comes first
        unmasked = self.report(seen=UserItems.empty(4)).per_user.filter(user_id=0)
        assert (unmasked["hit_at_2"][0], unmasked["mrr_at_50"][0]) == (0, 1 / 3)
        # A validation rating that the model was not fitted on stays in the list, and takes a place.
        held = self.report(ratings([(0, 3)], 4, 6)).per_user
        assert held["mrr_at_2"].to_list() == [0.5]

    def test_users_count_once_whatever_they_rated(self):
        test = ratings([(0, 2), (0, 3), (0, 4), (3, 4)], 4, 6)
        report = self.report(test, ks=(3,))
        assert report.metrics["recall_at_3"] == (1 + 0) / 2 and report.rows == 4

    def test_every_length_is_of_one_list(self):
        report, alone = self.report(ks=(1, 2, 50)), self.report(ks=(2,))
        assert {n: v for n, v in report.metrics.items() if n.endswith("_at_2")} == alone.metrics

    def test_nobody_to_measure_is_no_zero(self):
        report = self.report(ratings([(0, 5)], 4, 6))
        assert report.users == 0 and np.isnan(report.metrics["ndcg_at_2"])


def test_unknown_users_and_items_are_left_out_and_counted():
    train = ratings([(u, i) for u in range(4) for i in range(6) if u != i])
    vectors = np.random.default_rng(0).normal(size=(USERS + ITEMS, 3)).astype(np.float32)
    model = EmbeddingModel(vectors[:USERS], vectors[USERS:], np.zeros(USERS, np.float32), np.zeros(ITEMS, np.float32))
    table, nothing = align_items(None, train.items), UserItems.empty(USERS)
    state = FittedState(train.users, train.items, model, train.seen(), nothing, table, train.item_counts)
    recommender = Recommender.of(state)
    frame = pl.DataFrame({"user": [0, 1, 99, 2], "item": [0, 1, 2, 77]})
    report = evaluate(recommender, Ratings.from_frame(frame), (3,), resamples=0)
    assert (report.users, report.rows, report.n_skipped) == (2, 2, 2)
    alone = evaluate(recommender, Ratings.from_frame(frame.head(2)), (3,), resamples=0)
    assert alone.metrics == report.metrics
    with pytest.raises(DataError, match="no item of the test ratings has a training rating"):
        evaluate(recommender, Ratings.from_frame(pl.DataFrame({"user": [0], "item": [9]})), (3,))


@pytest.mark.parametrize(("shown", "expected"), [([3, 3, 3], 0), ([0, 0, 8], 2 / 3), ([0, 0, 0], 0), ([1, 3], 0.25)])
def test_gini_is_half_the_mean_difference_over_the_mean(shown, expected):
    assert metrics.gini(np.array(shown)) == pytest.approx(expected)
    apart = np.abs(np.subtract.outer(shown, shown)).mean()
    assert metrics.gini(np.array(shown)) == pytest.approx(apart / (2 * np.mean(shown)) if any(shown) else 0)


def test_gini_and_coverage_look_at_items_with_ratings_alone():
    scores, train = -np.arange(4)[None].repeat(4, 0), ratings([(0, 3), (1, 2), (2, 1)], 4, 5)
    test = ratings([(0, 2), (1, 1), (2, 2), (3, 1)], 4, 5)
    report = rank_metrics(
        ranker(np.column_stack((scores, scores[:, :1]))), test, UserItems.empty(4), train.item_counts, (1,)
    )
    assert report.exposure[1].tolist() == [0, 4, 0, 0, 0]
    assert report.metrics["coverage_at_1"] == pytest.approx(1 / 3)
    assert report.metrics["gini_at_1"] == pytest.approx(2 / 3)
    assert report.metrics["popularity_at_1"] == 1
