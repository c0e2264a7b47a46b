"""What the vectors know: can a simple classifier read the items' tags in them, and do they tell who takes what?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_embed.config.fields import names_of
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.user_items import UserItems
from recsys_embed.errors import DataError
from recsys_embed.evaluation import metrics
from recsys_embed.evaluation.evaluate import align_to_model
from recsys_embed.evaluation.slices import NOTHING, by_column
from recsys_embed.recommender import Recommender

FOLDS = 5
# Items with a tag, and without it, that a tag needs: four in each fold.
LEAST = 20
# Unknown items that each test rating is compared with.
NEGATIVES = 10
# Test ratings worked on at once.
_BLOCK = 8192
# Inverse strength of the classifier's L2 penalty, for features of unit variance. With 128 numbers an item the mean AUC
# of MovieLens-100K's genres is .828, .834, .833, .824 for .003, .01, .03 and .1, so it need not be chosen anew.
FREEDOM = 0.01


def probe_column(recommender: Recommender, name: str, seed: int = 0) -> dict[str, Any]:
    """Say how well a column of the item table can be read in the items' vectors.

    Each tag (decade of a year, quarter of a number) with `LEAST` items or more is told from the rest by logistic
    regression on the vectors, without biases; AUC is that of items left out of the fit, mean of `FOLDS` folds. Beside
    it stands the same on popularity alone (the logarithm of the training ratings, centred, and its square); chance is
    0.5. Only items with a training rating take part.
    Returns {"column", "items", "told", "auc", "popularity", "tags"}: told is whether the model was trained with the
    column; auc and popularity are means over tags; each of tags has "name", "items", "auc" and "popularity".
    Raises SettingError for a column that parts nothing, DataError where no tag has enough items.
    """
    rated = np.flatnonzero(recommender.counts)
    groups = by_column(recommender.table, recommender.counts, name, beside=("links",))
    vectors = recommender.state.embeddings.items[rated].astype(float)
    often = np.log(recommender.counts[rated].astype(float))
    often -= often.mean()
    popular = np.column_stack((often, often**2))
    members = groups.members[rated]
    tags = []
    for at, tag in enumerate(groups.names):
        mine = members[:, at]
        if tag != NOTHING and min(mine.sum(), (~mine).sum()) >= LEAST:
            found = {
                "auc": linear_probe_auc(vectors, mine, seed),
                "popularity": linear_probe_auc(popular, mine, seed, freedom=1.0),
            }
            tags.append({"name": tag, "items": int(mine.sum()), **found})
    if not tags:
        raise DataError(f"no part of the column {name!r} has {LEAST} rated items, and as many others")
    means = {which: float(np.mean([tag[which] for tag in tags])) for which in ("auc", "popularity")}
    told = name in names_of(recommender.metadata.get("settings", {}).get("text"))
    return {"column": name, "items": len(rated), "told": told, **means, "tags": tags}


def linear_probe_auc(
    features: metrics.Values, mine: NDArray[np.bool_], seed: int = 0, freedom: float = FREEDOM
) -> float:
    """Return the AUC of a logistic regression from features [n, f] to a mark [n], on items left out of its fit.

    It is the mean over stratified folds, not that of all folds' scores in one: scores of two fits have no common zero.
    freedom: inverse strength of the L2 penalty.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits  # scikit-learn brings it

    found = []
    for fit, left in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(features, mine):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=freedom, solver="newton-cholesky"))
        with threadpool_limits(1):  # so small a system is solved ten times slower by threads that wait for each other
            model.fit(features[fit], mine[fit])
        found.append(roc_auc_score(mine[left], model.decision_function(features[left])))
    return float(np.mean(found))


def probe_links(recommender: Recommender, test: Ratings, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Say how well vectors tell a user's test items from items that the user is not known to have rated.

    Every test rating of a ranked item is compared with `NEGATIVES` items that the user has neither in what the model
    was fitted on nor among what was held out: drawn evenly, and drawn among items of about the same number of
    training ratings, so that popularity is no help. AUC is the share of pairs in the right order, ties counting half:
    the mean over users, each pair being of one user.
    Returns {"users", "rows", "negatives", "uniform", "matched"}; the latter two have "model" (the score), "vectors"
    (the dot product without biases; not for an MLP scorer), "popularity" (training ratings), and the "interval" of
    model. Raises DataError where nobody has a test rating, or all items are known.
    """
    test, _ = align_to_model(recommender, test)
    test = test.take(recommender.counts[test.item] > 0)
    if not len(test):
        raise DataError("there is no test rating of a user and an item that the model knows")
    known = _known(recommender, test)
    free = (recommender.counts > 0).sum() - np.bincount(
        known.of_users(np.arange(len(recommender.users)))[0], minlength=len(recommender.users)
    )
    test = test.take(free[test.user] > 0)
    if not len(test):
        raise DataError("every user knows all items, so there is nothing to tell test ratings from")
    found: dict[str, Any] = {"users": len(np.unique(test.user)), "rows": len(test), "negatives": NEGATIVES}
    for kind in ("uniform", "matched"):
        negative = draw_unknown(test, known, recommender.counts, kind == "matched", seed)
        found[kind] = _aucs(recommender, test, negative, resamples)
    return found


def _known(recommender: Recommender, test: Ratings) -> UserItems:
    """Return all that users are known to have rated among the items that are ranked, test ratings too."""
    width, users = len(recommender.items), np.arange(len(recommender.users))
    keys = [test.user * width + test.item]
    for part in (recommender.hidden, recommender.held_out):
        user, item = part.of_users(users)
        keys.append(user * width + item)
    both = np.unique(np.concatenate(keys))
    both = both[recommender.counts[both % width] > 0]
    return UserItems.of(both // width, both % width, len(users))


def draw_unknown(test: Ratings, known: UserItems, counts: Rows, matched: bool, seed: int = 0) -> Rows:
    """Return `NEGATIVES` items for each test rating, [n, NEGATIVES], that its user does not know.

    matched: the item is among the 10 before or after the rated one in the order of popularity, or, where the user
    knows too many of them, as near as the draws allow; else any that has a training rating, all alike. Every user of
    `test` must have an item that is not known.
    """
    random, width = np.random.default_rng(seed), len(counts)
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    place = np.empty(width, np.int64)
    place[order] = np.arange(len(order))
    users, items = known.of_users(np.arange(len(known.count)))
    taken = users * width + items  # ascending
    user, middle = (np.repeat(column, NEGATIVES) for column in (test.user, place[test.item]))
    chosen, todo, reach, draws = np.empty(len(user), np.int64), np.arange(len(user)), 10, 0
    while len(todo):
        if matched and reach < len(order):
            low, high = np.maximum(middle[todo] - reach, 0), np.minimum(middle[todo] + reach + 1, len(order))
        else:
            low, high = np.zeros(len(todo), np.int64), np.full(len(todo), len(order))
        chosen[todo] = order[random.integers(low, high, len(todo))]
        asked = user[todo] * width + chosen[todo]
        at = np.minimum(np.searchsorted(taken, asked), len(taken) - 1)
        todo, draws = todo[taken[at] == asked], draws + 1
        if draws >= 10:
            reach += 1 + reach // 10
    return chosen.reshape(-1, NEGATIVES)


def _aucs(recommender: Recommender, test: Ratings, negative: Rows, resamples: int) -> dict[str, Any]:
    plain = recommender.state.embeddings

    def per_user(score: Callable[[Rows, Rows], NDArray[np.floating]]) -> metrics.Values:
        right = np.empty(len(test))
        for start in range(0, len(test), _BLOCK):
            rows = slice(start, start + _BLOCK)
            user, other = np.repeat(test.user[rows], NEGATIVES), negative[rows]
            theirs = score(user, other.ravel()).reshape(other.shape)
            mine = score(test.user[rows], test.item[rows])[:, None]
            right[rows] = ((mine > theirs) + 0.5 * (mine == theirs)).mean(axis=1)
        rated = np.bincount(test.user)
        return (np.bincount(test.user, right) / np.maximum(rated, 1))[rated > 0]

    model = per_user(plain.pairs)
    low, high = metrics.interval(model[:, None], resamples)
    found: dict[str, Any] = {"model": float(model.mean()), "interval": [float(low[0]), float(high[0])]}
    if not plain.layers:
        found["vectors"] = float(per_user(lambda u, i: np.einsum("nd,nd->n", plain.users[u], plain.items[i])).mean())
    found["popularity"] = float(per_user(lambda _, i: recommender.counts[i].astype(float)).mean())
    return found
