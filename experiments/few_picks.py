"""Lists for people with few items: held-out users, reduced to 1, 2, 3 and 5 of their items, beside other methods.

    python experiments/few_picks.py movielens|movielens-1m|FILE [SEEDS]

1,000 users (at most a fifth) with seven items or more are held out of training. Everything is fitted on the others and
chosen on a tenth of their ratings, with all that is left as history. The lists for the held-out users are made from a
few random items of theirs, and judged by their other items: NDCG@10.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from peers import FitMatrix, item_item_peers, ranked_by

from recsys_embed import ModelConfig, Recommender, TrainConfig, load_dataset, split_random
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.user_items import UserItems
from recsys_embed.evaluation import metrics
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.models.fold_in.base import Feedback
from recsys_embed.models.ranker import Ranker
from recsys_embed.retrieval.topk import topk

SIZES, USERS = (1, 2, 3, 5, 1000), 1000


def held_out(ratings: Ratings, seed: int) -> tuple[Ratings, np.ndarray]:
    """Return the ratings of the other users, and the rows of the users held out."""
    counts, random = np.bincount(ratings.user, minlength=len(ratings.users)), np.random.default_rng(seed)
    able = random.permutation(np.flatnonzero(counts >= 7))
    users = np.sort(able[: min(USERS, len(able) // 5)])
    return ratings.take(~np.isin(ratings.user, users)), users


def reduced(seen: UserItems, users: np.ndarray, size: int) -> tuple[list[np.ndarray], UserItems]:
    """Return at most `size` random items of each user (never more than four fifths), and the others."""
    picks, rest = [], []
    for user in users.tolist():
        items = np.random.default_rng((7, user)).permutation(seen[user])
        n = min(size, int(0.8 * len(items)))
        picks.append(np.sort(items[:n]))
        rest.append(items[n:])
    line = np.repeat(np.arange(len(users)), [len(r) for r in rest])
    return picks, UserItems.of(line, np.concatenate(rest), len(users))


def quality(scores: Any, picks: list[np.ndarray], rest: UserItems, cold: np.ndarray) -> float:
    scores[:, cold] = -np.inf
    for line, items in enumerate(picks):
        scores[line, items] = -np.inf
    users = np.flatnonzero(rest.count)
    hits = metrics.hits(topk(scores, 10)[1][users], rest, users)
    return float(metrics.METRICS["ndcg"](hits, rest.count[users], 10).mean())


def best_of(fits: list[FitMatrix], train: Ratings, validate: Callable[[Any], dict[str, float]]) -> np.ndarray:
    """Return the item-item matrix with the best lists on validation data."""
    values = [validate(ranked_by(fit(train), train))["ndcg_at_10"] for fit in fits]
    return fits[int(np.argmax(values))](train)


def compare(ratings: Ratings, seed: int) -> None:
    others, users = held_out(ratings, seed)
    train, valid, _ = split_random(others, valid=0.1, test=0.0, seed=seed)
    excluded, counts = train.excluded(), train.item_counts

    def validate(model: Any) -> dict[str, float]:
        ranker = model if isinstance(model, Ranker) else Ranker.of(model)
        return rank_metrics(ranker, valid, excluded, counts).metrics

    ours = Recommender(ModelConfig(model_family="auto"), TrainConfig(seed=seed)).fit(train, validate=validate)
    fitted = {name: best_of(fits, train, validate) for name, fits in item_item_peers(len(ratings.items))}
    for size in SIZES:
        picks, rest = reduced(ratings.seen(), users, size)
        folded = [ours.state.fold_in.fit_user(Feedback.from_likes(items)) for items in picks]
        table = np.concatenate([ours.model.score(ours.model.query(*user)) for user in folded])
        found = {"ours": quality(table, picks, rest, counts == 0)}
        for name, matrix in fitted.items():
            summed = np.stack([matrix[items].sum(axis=0) for items in picks])
            found[name] = quality(summed, picks, rest, counts == 0)
        share = ours.metadata["settings"]["blend"]
        print(f"seed {seed}, {size} items, share {share}: ", {n: round(v, 4) for n, v in found.items()}, flush=True)


def main() -> None:
    ratings = load_dataset(sys.argv[1]).ratings
    for seed in (sys.argv[2] if len(sys.argv) > 2 else "0").split(","):
        compare(ratings, int(seed))


if __name__ == "__main__":
    main()
