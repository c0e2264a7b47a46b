"""Item neighbours: the closed form, and the sparse arrays that it gives."""

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix
from worlds import dense, tastes

from recsys_embed import split_random
from recsys_embed.data.ratings import Ratings
from recsys_embed.kernels import available
from recsys_embed.models import item_weights, local_ridge
from recsys_embed.models.item_weights import Histories, ItemWeights
from recsys_embed.models.local_ridge import LocalRidge, Penalty

RATINGS, _, _ = tastes()
TRAIN, _, _ = split_random(RATINGS, 0.1, 0.2)


def kernels(monkeypatch, on):
    for module in (local_ridge, item_weights):
        monkeypatch.setattr(module, "use_kernel", lambda name, numbers: on and available(name))


# The closed form.


@pytest.mark.parametrize("kernel", [True, False])
def test_with_all_items_as_neighbours_it_is_ease_of_the_balanced_history(kernel, monkeypatch):
    kernels(monkeypatch, kernel)
    user, item = np.nonzero(np.random.default_rng(0).random((50, 13)) < 0.5)  # every two items have common users
    ratings = Ratings.from_frame(pl.DataFrame({"user": user, "item": item}))
    found = dense(LocalRidge(ratings, 12).fit([Penalty(30.0, 0.0)])[0])
    x = local_ridge.balanced_history(ratings).toarray().astype(float)
    inverse = np.linalg.inv(x.T @ x + 30 * np.eye(13))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("neighbours", [1, 7, 30])
def test_compiled_and_plain_regressions_agree(neighbours, monkeypatch):
    penalties = [Penalty(5.0, 0.25), Penalty(80.0, 1.0), Penalty(0.5, 0.0)]
    found = []
    for kernel in (True, False):
        kernels(monkeypatch, kernel)
        found.append([dense(weights) for weights in LocalRidge(TRAIN, neighbours).fit(penalties)])
    for compiled, plain in zip(*found, strict=True):
        np.testing.assert_allclose(compiled, plain, atol=2e-5)
        limits = np.minimum(neighbours, 10 + 2 * TRAIN.item_counts)
        assert ((plain != 0).sum(axis=0) <= limits).all() and not np.diag(plain).any()


def test_weights_solve_the_ridge_system_of_the_most_similar():
    penalty = Penalty(12.0, 0.5)
    weights = dense(LocalRidge(TRAIN, 9).fit([penalty])[0])
    x = local_ridge.balanced_history(TRAIN).toarray().astype(float)
    gram, total = x.T @ x, (x**2).sum(axis=0)
    for item in range(60):
        rows = np.flatnonzero(weights[:, item])
        cosine = gram[item] / (np.sqrt(total * total[item]) + 20)
        cosine[item] = -1
        assert set(rows) == set(np.argsort(-cosine, kind="stable")[:9])
        ridge = gram[np.ix_(rows, rows)] + np.diag(penalty.l2 + penalty.share * total[rows])
        np.testing.assert_allclose(ridge @ weights[rows, item], gram[rows, item], rtol=1e-3, atol=1e-3)


def test_where_co_occurrences_are_too_many_the_most_similar_are_kept(monkeypatch):
    kernels(monkeypatch, True)
    whole = dense(LocalRidge(TRAIN, 3).fit([Penalty(30.0, 0.0)])[0])
    cut = dense(LocalRidge(TRAIN, 3, max_entries=60 * 12).fit([Penalty(30.0, 0.0)])[0])
    assert np.array_equal(whole != 0, cut != 0)
    assert np.isfinite(cut).all() and np.abs(cut).max() < 2


def test_amounts_weigh_ratings():
    doubled = LocalRidge(TRAIN, 59, np.full(len(TRAIN), 2, np.float32)).fit([Penalty(40.0, 0.0)])[0]
    plain = LocalRidge(TRAIN, 59).fit([Penalty(10.0, 0.0)])[0]
    np.testing.assert_allclose(dense(doubled), dense(plain), rtol=2e-3, atol=1e-4)


# Sparse arrays.


@pytest.mark.parametrize("kernel", [True, False])
def test_scores_are_the_product_of_histories_and_weights(kernel, monkeypatch):
    kernels(monkeypatch, kernel)
    random = np.random.default_rng(0)
    matrix = np.where(random.random((9, 9)) < 0.4, random.normal(size=(9, 9)), 0).astype(np.float32)
    amounts = np.where(random.random((5, 9)) < 0.5, random.normal(size=(5, 9)), 0).astype(np.float32)
    amounts[2] = 0
    weights, histories = ItemWeights.of_matrix(matrix), Histories.of(csr_matrix(amounts))
    np.testing.assert_allclose(weights.scores(histories), amounts @ matrix, atol=1e-5)
    np.testing.assert_allclose(weights.scores(histories[[3, 1]]), amounts[[3, 1]] @ matrix, atol=1e-5)
    assert np.array_equal(weights.between(np.array([4, 2]), np.array([7, 1, 0])), matrix[np.ix_([4, 2], [7, 1, 0])])
    items, sums = weights.sparse_scores(*histories.user(0))
    np.testing.assert_allclose(sums, (amounts @ matrix)[0, items], atol=1e-5)
    assert len(weights.with_items(12)) == 12 and not weights.with_items(12).scores(histories)[:, 9:].any()


def test_changed_histories_replace_the_old_ones():
    histories = Histories.of(csr_matrix(np.eye(4, 6, dtype=np.float32)))
    changed = histories.with_users(6, {1: (np.array([0, 5], np.int32), np.array([1, -0.1], np.float32))})
    assert [changed.user(u)[0].tolist() for u in range(6)] == [[0], [0, 5], [2], [3], [], []]
    assert changed.user(1)[1].tolist() == pytest.approx([1, -0.1])
