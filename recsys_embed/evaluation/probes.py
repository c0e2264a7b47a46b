"""Probes of what vectors encode: linear probes for item tags, and link prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.config.fields import parse_names
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.user_items import UserItems
from recsys_embed.errors import DataError
from recsys_embed.evaluation import metrics
from recsys_embed.evaluation.evaluate import align_to_model, no_known
from recsys_embed.evaluation.slices import UNKNOWN, by_column
from recsys_embed.recommender import Recommender
from recsys_embed.tracking.store import without_autologging

FOLDS = 5
# Fewest items with a tag, and without it, for a probe: four in each fold.
MIN_ITEMS = 20
# Negatives that each test rating is compared with.
NEGATIVES = 10
# Test ratings scored at once.
_BLOCK = 8192
# Inverse strength of the classifier's L2 penalty (scikit-learn: C), for features of unit variance. With vectors of 128
# numbers, the mean AUC of the genres of MovieLens-100K is .828, .834, .833 and .824 for .003, .01, .03 and .1, so it
# need not be tuned for each model.
INVERSE_PENALTY = 0.01


def probe_column(recommender: Recommender, name: str, seed: int = 0) -> dict[str, Any]:
    """Measure how well a column of the item table can be predicted from the item vectors, by linear probes.

    For each tag (decade of a year, quarter of a number) with at least `MIN_ITEMS` items, a logistic regression on the
    vectors, without biases, separates its items from the others. The AUC is that of items left out of the fit, averaged
    over `FOLDS` folds. For comparison, the same is measured with popularity alone (the centred logarithm of the
    training ratings, and its square). An AUC of 0.5 is chance. Only items with a training rating are used.
    Returns {"column", "items", "told", "auc", "popularity", "tags"}: told is whether the model was trained on the
    column; auc and popularity are means over tags; each of the tags has "name", "items", "auc" and "popularity".
    Raises SettingError for a column that does not split the items, DataError if no tag has enough items.
    """
    rated = np.flatnonzero(recommender.item_counts)
    groups = by_column(recommender.table, recommender.item_counts, name, other_names=("links",))
    vectors = recommender.state.embeddings.items[rated].astype(float)
    log_counts = np.log(recommender.item_counts[rated].astype(float))
    log_counts -= log_counts.mean()
    popularity = np.column_stack((log_counts, log_counts**2))
    members = groups.members[rated]
    tags = []
    for n, tag in enumerate(groups.names):
        labels = members[:, n]
        if tag != UNKNOWN and min(labels.sum(), (~labels).sum()) >= MIN_ITEMS:
            aucs = {
                "auc": linear_probe_auc(vectors, labels, seed),
                "popularity": linear_probe_auc(popularity, labels, seed, inverse_penalty=1.0),
            }
            tags.append({"name": tag, "items": int(labels.sum()), **aucs})
    if not tags:
        raise DataError(f"no part of the column {name!r} has {MIN_ITEMS} rated items, and as many others")
    means = {key: float(np.mean([tag[key] for tag in tags])) for key in ("auc", "popularity")}
    in_training = name in parse_names(recommender.metadata.get("settings", {}).get("text"))
    return {"column": name, "items": len(rated), "told": in_training, **means, "tags": tags}


@without_autologging()
def linear_probe_auc(
    features: metrics.Values, labels: NDArray[np.bool_], seed: int = 0, inverse_penalty: float = INVERSE_PENALTY
) -> float:
    """Return the cross-validated AUC of a logistic regression from features [n, f] to labels [n].

    It is the mean over stratified folds; scores are not pooled, since those of different fits are not comparable.
    inverse_penalty: inverse strength of the L2 penalty.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits  # a dependency of scikit-learn

    aucs = []
    for fit, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(features, labels):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, solver="newton-cholesky"))
        with threadpool_limits(1):  # several threads solve so small a system ten times slower
            model.fit(features[fit], labels[fit])
        aucs.append(roc_auc_score(labels[test], model.decision_function(features[test])))
    return float(np.mean(aucs))


def probe_links(recommender: Recommender, test: Ratings, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Measure link prediction: how well vectors separate a user's test items from items they may not have rated.

    Every test rating of a ranked item is compared with `NEGATIVES` items that are neither in the user's training items
    nor held out: once drawn uniformly, and once among items with a similar number of training ratings, so that
    popularity does not help. AUC is the share of pairs in the right order, where ties count half; it is computed for
    each user and averaged.
    Returns {"users", "rows", "negatives", "uniform", "matched"}; the last two have "model" (the score), "vectors" (the
    dot product without biases; not for an MLP scorer), "popularity" (training ratings), and the "interval" of model.
    Raises DataError if no test rating can be used, or if every user knows all items.
    """
    given = test
    test, _ = align_to_model(recommender, given)
    test = test.take(recommender.item_counts[test.item] > 0)
    if not len(test):
        raise no_known(recommender, given)
    known = known_items(recommender, test)
    n_unknown = (recommender.item_counts > 0).sum() - np.bincount(
        known.pairs_of(np.arange(len(recommender.users)))[0], minlength=len(recommender.users)
    )
    test = test.take(n_unknown[test.user] > 0)
    if not len(test):
        raise DataError("every user knows all items, so there is nothing to tell test ratings from")
    result: dict[str, Any] = {"users": len(np.unique(test.user)), "rows": len(test), "negatives": NEGATIVES}
    for kind in ("uniform", "matched"):
        negatives = draw_unknown(test, known, recommender.item_counts, kind == "matched", seed)
        result[kind] = _link_aucs(recommender, test, negatives, resamples)
    return result


def known_items(recommender: Recommender, test: Ratings) -> UserItems:
    """Return the ranked items that each user is known to have rated: in training, held out, or in `test`."""
    width, users = len(recommender.items), np.arange(len(recommender.users))
    keys = [test.user * width + test.item]
    for known in (recommender.excluded, recommender.held_out):
        user, item = known.pairs_of(users)
        keys.append(user * width + item)
    all_keys = np.unique(np.concatenate(keys))
    all_keys = all_keys[recommender.item_counts[all_keys % width] > 0]
    return UserItems.of(all_keys // width, all_keys % width, len(users))


def draw_unknown(test: Ratings, known: UserItems, counts: Rows, matched: bool, seed: int = 0) -> Rows:
    """Draw `NEGATIVES` items for each test rating, [n, NEGATIVES], that its user does not know.

    matched: draw among the 10 items before and after the rated one in order of popularity, or further away if the user
    knows too many of these; otherwise draw uniformly among items with a training rating. Every user of `test` must have
    an unknown item.
    """
    random, width = np.random.default_rng(seed), len(counts)
    by_popularity = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    rank = np.empty(width, np.int64)
    rank[by_popularity] = np.arange(len(by_popularity))
    n_items = len(by_popularity)
    users, items = known.pairs_of(np.arange(len(known.count)))
    known_keys = users * width + items  # ascending
    user, centre = (np.repeat(column, NEGATIVES) for column in (test.user, rank[test.item]))
    drawn, pending, reach, draws = np.empty(len(user), np.int64), np.arange(len(user)), 10, 0
    while len(pending):
        if matched and reach < n_items:
            low, high = np.maximum(centre[pending] - reach, 0), np.minimum(centre[pending] + reach + 1, n_items)
        else:
            low, high = np.zeros(len(pending), np.int64), np.full(len(pending), n_items)
        drawn[pending] = by_popularity[random.integers(low, high, len(pending))]
        keys = user[pending] * width + drawn[pending]
        position = np.minimum(np.searchsorted(known_keys, keys), len(known_keys) - 1)
        pending, draws = pending[known_keys[position] == keys], draws + 1
        if draws >= 10:
            reach += 1 + reach // 10
    return drawn.reshape(-1, NEGATIVES)


def _link_aucs(recommender: Recommender, test: Ratings, negatives: Rows, resamples: int) -> dict[str, Any]:
    embeddings = recommender.state.embeddings

    def per_user(score: Callable[[Rows, Rows], NDArray[np.floating]]) -> metrics.Values:
        correct = np.empty(len(test))
        for start in range(0, len(test), _BLOCK):
            rows = slice(start, start + _BLOCK)
            user, items = np.repeat(test.user[rows], NEGATIVES), negatives[rows]
            negative = score(user, items.ravel()).reshape(items.shape)
            positive = score(test.user[rows], test.item[rows])[:, None]
            correct[rows] = ((positive > negative) + 0.5 * (positive == negative)).mean(axis=1)
        n_ratings = np.bincount(test.user)
        return (np.bincount(test.user, correct) / np.maximum(n_ratings, 1))[n_ratings > 0]

    def dot_product(users: Rows, items: Rows) -> Floats:
        return np.einsum("nd,nd->n", embeddings.users[users], embeddings.items[items])

    model = per_user(embeddings.score_pairs)
    low, high = metrics.interval(model[:, None], resamples)
    result: dict[str, Any] = {"model": float(model.mean()), "interval": [float(low[0]), float(high[0])]}
    if not embeddings.layers:
        result["vectors"] = float(per_user(dot_product).mean())
    result["popularity"] = float(per_user(lambda _, items: recommender.item_counts[items].astype(float)).mean())
    return result
