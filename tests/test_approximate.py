"""Lists from promising items: what every index keeps to, and what this one may miss."""

import importlib.util
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from worlds import checkerboard, small

from recsys_embed.answering.recommend import recommend
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.data.user_items import UserItems
from recsys_embed.errors import SettingError
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.recommender import Recommender
from recsys_embed.retrieval import approximate
from recsys_embed.retrieval.approximate import ApproximateIndex, same_items
from recsys_embed.retrieval.candidates import IVFCandidates, LowRankCandidates
from recsys_embed.retrieval.exact import ExactIndex
from recsys_embed.sources.load import load_dataset

USERS, ITEMS, DIM = 60, 900, 6
needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="pip install 'recsys-embed[ann]'")
INDEXES = ["exact dot", "exact mlp", pytest.param("lists", marks=needs_faiss), "sketch"]


def world(layers=False):
    random = np.random.default_rng(4)
    shapes = (USERS, DIM), (ITEMS, DIM), USERS, ITEMS
    arrays = [random.normal(size=s).astype(np.float32) for s in shapes]
    sizes = ((8, 2 * DIM), 8, (1, 8), 1) if layers else ()
    weights = [random.normal(size=s).astype(np.float32) for s in sizes]
    return EmbeddingModel(*arrays, offset=0.5, layers=list(zip(weights[::2], weights[1::2], strict=True)))


DOT, MLP = world(), world(layers=True)
SEEN = UserItems.of(np.repeat(np.arange(USERS), 20), np.random.default_rng(6).integers(0, ITEMS, 20 * USERS), USERS)
ROWS = np.arange(USERS)


@pytest.fixture(autouse=True)
def _all_may_be_promising(monkeypatch):
    for few in ("_FEW", "_FEW_MLP"):
        monkeypatch.setattr(approximate, few, 0)


def made(name):
    """Return (index, model); the approximate ones look hardly anywhere."""
    model = MLP if name in ("exact mlp", "sketch") else DOT
    if name.startswith("exact"):
        return ExactIndex.of(model), model
    finds = (
        IVFCandidates(model, effort=1) if name == "lists" else LowRankCandidates(model, model.queries(ROWS), effort=1)
    )
    return ApproximateIndex(model, finds), model


@pytest.mark.parametrize("name", INDEXES)
@pytest.mark.parametrize("share", [None, 0.9, 0.3, 0.01, 0])
@pytest.mark.parametrize("k", [1, 7, 100, 2 * ITEMS])
def test_exactly_what_is_available_comes_back_and_nothing_barred(name, share, k):
    index, model = made(name)
    allowed = np.ones(ITEMS, bool) if share is None else np.random.default_rng(8).random(ITEMS) < share
    asked = ROWS[:9]
    scores, rows = index.search(model.queries(asked), k, None if share is None else allowed, SEEN.pairs_of(asked))
    assert rows.shape == scores.shape == (9, min(k, ITEMS))
    for user, line, score in zip(asked, rows, scores, strict=True):
        found = line[line >= 0]
        available = np.setdiff1d(np.flatnonzero(allowed), SEEN[user])
        assert len(found) == len(set(found)) == min(k, len(available)) and set(found) <= set(available)
        assert (line[len(found) :] == -1).all() and np.isneginf(score[len(found) :]).all()
        assert (np.diff(score[: len(found)]) <= 0).all()
        own = model.score_pairs(np.full(len(found), user), found)
        np.testing.assert_allclose(score[: len(found)], own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", INDEXES)
def test_nobody_asked_gets_nothing_and_what_names_no_key_is_refused(name):
    index, model = made(name)
    assert len(index) == ITEMS
    assert index.search(model.queries(ROWS[:0]), 4)[1].shape == (0, 4)
    with pytest.raises(ValueError, match="900 keys"):
        index.search(model.queries(ROWS), 4, np.ones(ITEMS + 1, bool))
    with pytest.raises(IndexError, match="900 keys"):
        index.search(model.queries(ROWS), 4, exclude=(np.array([0]), np.array([ITEMS])))


@pytest.mark.parametrize("name", INDEXES[2:])
def test_who_looks_everywhere_finds_the_exact_lists(name):
    index, model = made(name)
    hidden, allowed = SEEN.pairs_of(ROWS), np.arange(ITEMS) % 3 > 0
    before = index.recall(model.queries(ROWS), 10, allowed, hidden)
    while index.candidates.increase_effort():
        pass
    assert index.recall(model.queries(ROWS), 10, allowed, hidden) == 1.0
    assert name != "lists" or before < 0.9
    found, exact = (i.search(model.queries(ROWS), 10, allowed, hidden) for i in (index, index.exact))
    np.testing.assert_array_equal(found[1], exact[1])
    np.testing.assert_allclose(found[0], exact[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", INDEXES[2:])
def test_what_is_stated_is_the_share_of_the_exact_lists(name):
    index, model = made(name)
    exact, mine = (i.search(model.queries(ROWS), 10)[1].tolist() for i in (index.exact, index))
    expected = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, mine, strict=True)])
    assert index.recall(model.queries(ROWS), 10) == pytest.approx(expected)
    assert index.recall(model.queries(ROWS), 10, np.zeros(ITEMS, bool)) == 1.0


@pytest.mark.parametrize("name", INDEXES[2:])
def test_it_looks_as_hard_as_it_must(name, caplog):
    model = DOT if name == "lists" else MLP
    with caplog.at_level("INFO"):
        index = ApproximateIndex.of(model, model.queries(ROWS), SEEN.pairs_of(ROWS), min_recall=0.9)
    assert index.measured_recall >= 0.9 and f"recall@10 {index.measured_recall:.4f}" in caplog.text
    half = ROWS[30:] if name == "sketch" else ROWS  # a sketch is not measured on whom it was drawn up from
    assert index.measured_recall == index.recall(model.queries(half), 10, exclude=SEEN.pairs_of(half))


def test_it_is_kept_for_other_users_and_not_for_other_items():
    index, other = ApproximateIndex(MLP, LowRankCandidates(MLP, MLP.queries(ROWS))), replace(MLP, users=MLP.users[:3])
    assert same_items(MLP, other) and index.for_model(other).candidates is index.candidates
    for changed in ({"items": MLP.items.copy()}, {"item_bias": MLP.item_bias + 1}, {"layers": []}):
        assert not same_items(MLP, replace(MLP, **changed))


class FixedCandidates:
    """Finds the rows of a given table."""

    overfetch, effort, nbytes = 0, 1, 0

    def __init__(self, table):
        self.table = table

    def find(self, queries, count, allowed):
        rows = self.table[: len(queries), :count]
        return rows if allowed is None else np.where(allowed[rows] & (rows >= 0), rows, -1)

    def increase_effort(self):
        return False


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 30), st.sampled_from([0.05, 0.5, 1]))
def test_whatever_is_promising_lists_are_whole_and_in_order(seed, k, share):
    random = np.random.default_rng(seed)
    table = np.where(random.random((USERS, 64)) < share, random.integers(0, ITEMS, (USERS, 64)), -1)
    index, hidden = ApproximateIndex(DOT, FixedCandidates(table)), SEEN.pairs_of(ROWS)
    allowed = random.random(ITEMS) < 0.7
    scores, rows = index.search(DOT.queries(ROWS), k, allowed, hidden)
    exact = index.exact.search(DOT.queries(ROWS), k, allowed, hidden)
    room = 2 ** int(np.ceil(np.log2(k + 20)))
    for user in ROWS:
        some = np.unique(table[user, :room])
        some = [i for i in some if i >= 0 and allowed[i] and i not in SEEN[user]]
        if len(some) < k:  # too few: all are looked at
            assert rows[user].tolist() == exact[1][user].tolist()
        elif SEEN.count[user] == 20:
            own = DOT.score_pairs(np.full(len(some), user), np.array(some))
            assert rows[user].tolist() == np.array(some)[np.argsort(-own, kind="stable")[:k]].tolist()
    assert (rows >= 0).all() and (np.diff(scores, axis=1) <= 0).all()


@pytest.fixture(scope="module", params=[pytest.param("dot", marks=needs_faiss), "mlp"])
def fitted(request):
    dataset = load_dataset("synthetic:users=50,items=200,ratings=2000")
    model, config = small("logistic" if request.param == "mlp" else "softmax", request.param, items=200, epochs=2)
    return Recommender(model, config).fit(dataset.ratings, dataset.items)


def test_all_surfaces_take_the_index_and_go_back(fitted):
    everybody, exact = fitted.recommend(k=5), fitted.index
    try:
        index = fitted.use_index("approximate").index
        assert isinstance(index, ApproximateIndex) and index.measured_recall >= approximate.RECALL
        while index.candidates.increase_effort():
            pass
        assert_frame_equal(fitted.recommend(k=5), everybody)
        searched = []
        index.search = lambda *asked: searched.append(1) or ApproximateIndex.search(index, *asked)
        assert [
            e["item"] for e in recommend(fitted.state, RecommendRequest(user=7, k=5)).entries()
        ] == everybody.filter(user_id=7)["item_id"].to_list()
        assert searched
        fitted.state = fitted.state.replace()  # other users, the same items
        assert fitted.index.candidates is index.candidates and fitted.index.measured_recall == index.measured_recall
        more = fitted.model.with_items(fitted.model.items[:1], fitted.model.item_bias[:1])
        fitted.state = fitted.state.replace(model=more)
        assert len(fitted.index) == 201 and fitted.index.candidates is not index.candidates
    finally:
        fitted.state = fitted.state.replace(model=index.model)
        assert type(fitted.use_index("exact").index) is type(exact)
    assert_frame_equal(fitted.recommend(k=5), everybody)


def test_unknown_indexes_are_refused_and_what_is_missing_is_said(monkeypatch):
    recommender = Recommender(*small("softmax", items=12, epochs=1)).fit(checkerboard())
    with pytest.raises(SettingError, match="one of exact, approximate, got 'best'"):
        recommender.use_index("best")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SettingError, match=r"pip install 'recsys-embed\[ann\]'"):
        recommender.use_index("approximate")


@needs_faiss
def test_vectors_that_are_no_numbers_are_refused():
    odd = DOT.item_bias.copy()
    odd[3] = np.inf
    with pytest.raises(SettingError, match="finite"):
        IVFCandidates(EmbeddingModel(DOT.users, DOT.items, DOT.user_bias, odd))
