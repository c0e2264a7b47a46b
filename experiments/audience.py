"""What ranks users for an item: scorings of (user, item) pairs, judged by where held-out users of an item come.

    python experiments/audience.py movielens|FILE [--split random|leave-last|time] [--family both] [--seeds 0,1]
        [--users 3000] [scorer=mlp] [loss=mse]

A model is fitted on the training part. For every item with validation users, all users who do not have it in training
are ranked by each scoring. Given are the means over the items of NDCG@100 and recall@100, for all items and for those
with fewer than 20 training ratings, and the mean history of the listed users (in units of that of all users).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np

from recsys_embed import ModelConfig, Recommender, TrainConfig, load_dataset
from recsys_embed.config.settings import DataConfig
from recsys_embed.data.dataset import SPLITS
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.user_items import UserItems
from recsys_embed.evaluation import metrics
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.models.ranker import Ranker
from recsys_embed.retrieval.topk import topk

K, FEW, BLOCK = 100, 20, 1024


def log_sum_exp(scores: np.ndarray) -> np.ndarray:
    top = scores.max(axis=1)
    return top + np.log(np.exp(scores - top[:, None]).sum(axis=1, dtype=np.float64))


def normalisations(model: Recommender) -> Iterator[tuple[str, np.ndarray]]:
    """Yield scorings of users [U] for items [I], as arrays [U, I]."""
    seen = model.seen
    scores = model.model.score(model.model.queries(np.arange(len(model.users))))
    users, items = scores.shape
    n = np.log(np.maximum(1, seen.count))[:, None]
    yield "raw", scores
    yield "raw + log n", scores + n
    mean, deviation = scores.mean(axis=1)[:, None], scores.std(axis=1)[:, None] + 1e-6
    yield "- mean", scores - mean
    z = (scores - mean) / deviation
    yield "z", z
    for power in (0.25, 0.5, 1.0, 1.5):
        yield f"z + {power} log n", z + power * n
    pairs = seen.pairs_of(np.arange(users))
    unseen = scores.copy()
    unseen[pairs] = np.nan
    mean, deviation = np.nanmean(unseen, axis=1)[:, None], np.nanstd(unseen, axis=1)[:, None] + 1e-6
    yield "z of unseen + log n", (scores - mean) / deviation + n
    yield "as built", model.state.user_index.scores(np.arange(items)).T
    total = log_sum_exp(scores)[:, None]
    yield "softmax", scores - total
    yield "softmax + log n", scores - total + n
    unseen[pairs] = -np.inf
    yield "softmax of unseen + log n", scores - log_sum_exp(unseen)[:, None] + n
    bar = -np.partition(-unseen, 10, axis=1)[:, 10, None]
    yield "- score of place 10", scores - bar
    yield "4 x share of place 10 + log n", 4 * (scores - mean) / (bar - mean + 1e-6) + n
    yield from tails(scores, unseen, n)
    order = np.argsort(-unseen, axis=1, kind="stable")
    rank = np.empty((users, items), np.float32)
    np.put_along_axis(rank, order, np.arange(items, dtype=np.float32)[None], axis=1)
    yield "- log rank", -np.log1p(rank)
    yield "- log rank + log n", n - np.log1p(rank)
    for share in (0.25, 0.5, 0.75):
        yield f"{share} x (- log rank) + {1 - share} z + log n", n - share * np.log1p(rank) + (1 - share) * z
    yield "log n alone", np.broadcast_to(n, scores.shape)


def tails(scores: np.ndarray, unseen: np.ndarray, n: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield log n - log share, where share is that of 2,048 items which the user would rather have, by a few quantiles.

    unseen: the scores with -inf for the user's own items. Of two quantiles the log share is a line, so that it goes
    into a dot product as z does; of several it is a broken line.
    """
    items = scores.shape[1]
    drawn = np.sort(np.random.default_rng(0).permutation(items)[:2048])
    ordered = -np.sort(-unseen[:, drawn], axis=1)
    number = np.isfinite(ordered).sum(axis=1)

    def at(share: float) -> np.ndarray:
        return ordered[np.arange(len(ordered)), np.minimum((share * number).astype(int), number - 1)][:, None]

    for pair in ((0.005, 0.05), (0.005, 0.2), (0.01, 0.1), (0.01, 0.3), (0.02, 0.2), (0.02, 0.5), (0.05, 0.5)):
        high, low = at(pair[0]), at(pair[1])
        slope = np.log(pair[1] / pair[0]) / np.maximum(high - low, 1e-6)
        yield f"tail {pair} + log n", slope * (scores - high) - np.log(pair[0]) + n
    usual = np.nanmean(np.where(np.isfinite(ordered), ordered, np.nan), axis=1)[:, None]
    high = at(0.01)
    yield "log 100 x share of the 1 % point + log n", np.log(100) * (scores - usual) / (high - usual + 1e-6) + n
    shares = np.array([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.6, 0.99])
    points = np.column_stack([at(share) for share in shares])
    broken = np.empty_like(scores)
    for user in range(len(scores)):
        known, first = np.unique(points[user, ::-1], return_index=True)
        broken[user] = np.interp(scores[user], known, np.log(shares[::-1])[first])
    above = np.maximum(0, scores - points[:, :1]) / np.maximum(points[:, :1] - points[:, 2:3], 1e-6) * np.log(10)
    yield "8 quantiles + log n", n - broken + above


def quality(scores: np.ndarray, train: Ratings, held: Ratings) -> dict[str, float]:
    seen = UserItems.of(train.item, train.user, len(train.items))
    relevant = UserItems.of(held.item, held.user, len(train.items))
    known = np.bincount(train.user, minlength=len(train.users)) > 0
    counts = train.item_counts
    rows = np.flatnonzero((relevant.count > 0) & (counts > 0))
    ndcg, recall, listed = [], [], []
    history = np.bincount(train.user, minlength=len(train.users))
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        table = np.ascontiguousarray(scores[:, block].T, np.float32)
        table[seen.pairs_of(block)] = -np.inf
        table[:, ~known] = -np.inf
        best = topk(table, K)[1]
        found = metrics.hits(best, relevant, block)
        ndcg.append(metrics.METRICS["ndcg"](found, relevant.count[block], K))
        recall.append(metrics.METRICS["recall"](found, relevant.count[block], K))
        listed.append(history[best].mean(axis=1))
    n, r, h = (np.concatenate(values) for values in (ndcg, recall, listed))
    few = counts[rows] < FEW
    return {
        "ndcg": n.mean(), "recall": r.mean(), "ndcg few": n[few].mean(), "recall few": r[few].mean(),
        "history": h.mean() / history[known].mean(), "items": len(rows), "items few": int(few.sum()),
    }  # fmt: skip


def fitted(train: Ratings, valid: Ratings, arguments: argparse.Namespace, seed: int) -> Recommender:
    excluded, counts = train.excluded(), train.item_counts
    given: dict[str, Any] = dict(option.split("=") for option in arguments.options)
    models = {name: given[name] for name in ("scorer",) if name in given}
    training = {name: given[name] for name in ("loss",) if name in given}

    def validate(model: Any) -> dict[str, float]:
        ranker = model if isinstance(model, Ranker) else Ranker.of(model)
        return rank_metrics(ranker, valid, excluded, counts).metrics

    config = ModelConfig(model_family=arguments.family, **models)
    return Recommender(config, TrainConfig(seed=seed, **training)).fit(train, validate=validate)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    parser.add_argument("options", nargs="*")
    parser.add_argument("--family", default="auto")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--split", default="random")
    parser.add_argument("--users", type=int, help="draw so many users")
    parser.add_argument("--test", action="store_true", help="judge by the test part, once all is chosen")
    arguments = parser.parse_intermixed_args()
    ratings = load_dataset(arguments.dataset).ratings
    if arguments.users:
        ratings = Ratings.from_frame(ratings.of_random_users(arguments.users).frame().drop("timestamp", strict=False))
    found: dict[str, list[dict[str, float]]] = {}
    for seed in map(int, arguments.seeds.split(",")):
        train, valid, test = SPLITS[arguments.split](ratings, DataConfig(dataset="", split_seed=seed), True, 0)
        model = fitted(train, valid, arguments, seed)
        print(f"seed {seed}: {model.state.model.family}, share {model.metadata['settings'].get('blend')}", flush=True)
        for name, table in normalisations(model):
            found.setdefault(name, []).append(quality(table, train, test if arguments.test else valid))
    for name, values in found.items():
        means = {key: np.mean([value[key] for value in values]) for key in values[0]}
        print(f"{name:30}", "  ".join(f"{key} {value:.4f}" for key, value in means.items()), flush=True)


if __name__ == "__main__":
    main()
