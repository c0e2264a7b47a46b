"""The methods that the experiments compare with, and the settings among which validation data choose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import numpy as np
import scipy.sparse as sp

from recsys_embed.data.ratings import Ratings
from recsys_embed.models.ease import EASE_LAMBDAS, EASE_MAX_ITEMS, Ease
from recsys_embed.models.ranker import Ranker
from recsys_embed.retrieval.exact import ExactIndex

# (factors, regularization, alpha): what `--tune` of benchmarks/time_to_quality.py found best on films and check-ins,
# and around it; the regularization of `implicit` has to be large.
ALS = [(128, regularization, alpha) for regularization in (1.0, 7.0, 20.0, 40.0, 80.0) for alpha in (2.0, 8.0, 22.0)]

# Fits a method with fixed settings.
FitMatrix, FitRanker = Callable[[Ratings], np.ndarray], Callable[[Ratings], Ranker]


def rp3beta(alpha: float, beta: float, train: Ratings) -> np.ndarray:
    """Random walks item -> user -> item, divided by popularity (Paudel et al., TiiS 2017): what j adds to i."""
    x = train.matrix()
    items, users = (np.maximum(np.asarray(x.sum(axis=axis)).ravel(), 1) for axis in (0, 1))
    walks = (x.T @ sp.diags(1 / users) @ x).toarray() / items[:, None]
    np.fill_diagonal(walks, 0)
    return np.asarray(walks**alpha / items**beta, np.float32)


def cosine(k: int, train: Ratings) -> np.ndarray:
    """Cosines of items, the k nearest of each."""
    x = train.matrix()
    gram = (x.T @ x).toarray()
    length = np.sqrt(np.maximum(gram.diagonal(), 1))
    gram /= length[:, None] * length
    np.fill_diagonal(gram, 0)
    k = min(k, len(gram) - 1)
    gram[gram < -np.partition(-gram, k, axis=0)[k]] = 0
    return np.asarray(gram, np.float32)


def ease(l2: float, train: Ratings) -> np.ndarray:
    return Ease(train).weights(l2)


def als(factors: int, regularization: float, alpha: float, train: Ratings) -> Ranker:
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=factors, regularization=regularization, alpha=alpha, iterations=15, random_state=0, num_threads=2
    )
    model.fit(train.matrix().tocsr(), show_progress=False)
    users, items = np.asarray(model.user_factors), np.asarray(model.item_factors)
    return Ranker(ExactIndex(items), lambda asked: users[asked])


def item_item_peers(items: int) -> Iterator[tuple[str, list[FitMatrix]]]:
    """Yield (name, fits) of methods that are an item-item matrix, for this number of items."""
    if items > EASE_MAX_ITEMS:  # all of them are dense here
        return
    yield "EASE", [partial(ease, l2) for l2 in EASE_LAMBDAS]
    yield "RP3beta", [partial(rp3beta, a, b) for a, b in product((0.8, 1.0), (0.2, 0.4, 0.6, 0.8))]
    yield "cosine", [partial(cosine, k) for k in (20, 50, 100, 200)]


def ranked_by(matrix: np.ndarray, train: Ratings) -> Ranker:
    """Return the ranking by what the items of a user's history add."""
    history = train.matrix()
    return Ranker(ExactIndex(matrix.T, lambda q, keys: q @ keys.T), lambda users: history[users])


def all_peers(items: int) -> Iterator[tuple[str, list[FitRanker]]]:
    """Yield (name, fits) of all methods; ALS is `pip install implicit`."""
    for name, fits in item_item_peers(items):
        yield name, [lambda train, fit=fit: ranked_by(fit(train), train) for fit in fits]
    yield "ALS", [partial(als, *settings) for settings in ALS]
