"""What orders pairs of items: whether a held-out item of a user is among the ten that go with a random item of theirs.

    python experiments/together.py movielens|FILE …

Given are the share of validation ratings found, for all items and for given items with fewer than 20 training ratings,
and the share of the listed pairs that at most two users have.
"""

from __future__ import annotations

import sys

import numpy as np

from recsys_embed import Recommender, TrainConfig, load_dataset, split_random
from recsys_embed.config.settings import ModelConfig

K, FEW = 10, 20


def orders(together: np.ndarray, count: np.ndarray, users: int) -> dict[str, np.ndarray]:
    product = np.maximum(1, np.outer(count, count)).astype(float)
    lift = together * users / product
    return {
        "count": together,
        "lift": lift,
        "lift, 5 pairs or more": np.where(together >= 5, lift, 0),
        "cosine": together / np.sqrt(product),
        "shrunk cosine": together / (np.sqrt(product) + 10),
    }


def main() -> None:
    for name in sys.argv[1:]:
        train, valid, _ = split_random(load_dataset(name).ratings, valid=0.1, test=0.1, seed=0)
        x, seen, random = train.matrix(), train.seen(), np.random.default_rng(0)
        x.data[:] = 1
        together, count = (x.T @ x).toarray(), train.item_counts
        np.fill_diagonal(together, 0)
        kept = (seen.count[valid.user] > 0) & (count[valid.item] > 0)
        user, wanted = valid.user[kept], valid.item[kept]
        given = np.array([random.choice(seen[row]) for row in user])
        tables = {
            label: np.argsort(-order, axis=1, kind="stable")[:, :K]
            for label, order in orders(together, count, int(np.count_nonzero(seen.count))).items()
        }
        model = Recommender(ModelConfig("neighbours", embeddings=False), TrainConfig()).fit(train)
        listed = model.similar(model.items.series, K, by="together")
        best = np.full((len(count), K), -1)
        best[model.items.rows(listed["of"]), listed["rank"].to_numpy() - 1] = model.items.rows(listed["item_id"])
        for label, top in {**tables, "log-likelihood ratio": best}.items():
            hit = (top[given] == wanted[:, None]).any(axis=1)
            pairs = np.take_along_axis(together, np.maximum(top, 0), axis=1)[top >= 0]
            few = hit[count[given] < FEW].mean()
            print(f"{name}: {label:22} {hit.mean():.4f}  few {few:.4f}  of 1 or 2 users {(pairs <= 2).mean():.3f}")


if __name__ == "__main__":
    main()
