"""Who takes part in time_to_quality.py: settings, what they are chosen from, and a fit that is measured on its way."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import torch
from threadpoolctl import threadpool_limits

from recsys_embed import ModelConfig, Ratings, Recommender, TrainConfig
from recsys_embed.arrays import Floats
from recsys_embed.config.recipes import Size, resolve_settings
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.models.ease import EASE_LAMBDAS, Ease
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.ranker import Ranker
from recsys_embed.retrieval.exact import ExactIndex

Point = tuple[float, float, int]  # seconds, NDCG@10, passes
OURS, WHOLE = "recsys train", "trainings of other lengths"

DIM = 128
# Passes after which a peer is measured.
MARKS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 65, 80, 100, 125, 150, 200, 250, 300, 400)

SETTINGS: dict[str, dict[str, dict[str, float]]] = {
    "movielens": {
        "implicit ALS": {"alpha": 2, "regularization": 20, "passes": 10},
        "implicit BPR": {"learning_rate": 0.01, "regularization": 0.003, "passes": 50},
        "LightFM WARP": {"learning_rate": 0.025, "alpha": 3e-4, "passes": 40},
        "RecBole BPR": {"learning_rate": 0.002, "weight_decay": 1e-5, "passes": 40},
        "EASE": {"regularization": 300, "passes": 1},
    },
    "movielens-1m": {
        "implicit ALS": {"alpha": 2, "regularization": 40, "passes": 15},
        "implicit BPR": {"learning_rate": 0.005, "regularization": 0.001, "passes": 50},
        "LightFM WARP": {"learning_rate": 0.05, "alpha": 1e-4, "passes": 20},
        "EASE": {"regularization": 1000, "passes": 1},
    },
    "gowalla": {
        "implicit ALS": {"alpha": 22, "regularization": 14, "passes": 10},
        "implicit BPR": {"learning_rate": 0.04, "regularization": 0.006, "passes": 40},
        "LightFM WARP": {"learning_rate": 0.025, "alpha": 1e-4, "passes": 12},
    },
}
# What --tune chooses from, one step on one of these ladders at a time.
LADDERS: dict[str, dict[str, Sequence[float]]] = {
    "implicit ALS": {
        "alpha": (0.5, 0.7, 1, 1.4, 2, 2.8, 4, 5.6, 8, 11, 16, 22, 32),
        "regularization": (0.01, 0.1, 1, 3, 7, 10, 14, 20, 28, 40, 56, 80, 160),
    },
    "implicit BPR": {
        "learning_rate": (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15),
        "regularization": (0.0003, 0.001, 0.003, 0.006, 0.012, 0.025),
    },
    "LightFM WARP": {
        "learning_rate": (0.00625, 0.0125, 0.025, 0.05, 0.1),
        "alpha": (0.0, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    },
    "RecBole BPR": {
        "learning_rate": (0.0005, 0.001, 0.002, 0.004),
        "weight_decay": (0.0, 1e-6, 1e-5, 1e-4),
    },
    "EASE": {"regularization": EASE_LAMBDAS},
}


class Enough(Exception):
    """The quality has been falling: a trial can end."""


class Watch:
    """The clock of a fit, which stands still while quality is measured. points: (seconds, NDCG@10, passes)."""

    def __init__(self, fitted: Ratings, relevant: Ratings, patience: int = 0) -> None:
        self.patience = patience
        self.points: list[Point] = []
        self.spent = self.begun = 0.0
        seen, counts = fitted.seen(), fitted.item_counts
        self.quality = lambda ranker: rank_metrics(ranker, relevant, seen, counts).metrics["ndcg_at_10"]

    def start(self) -> None:
        self.begun = time.perf_counter()

    @property
    def best(self) -> Point:
        return max(self.points, key=lambda p: p[1], default=(0.0, 0.0, 0))

    def measure(self, ranker: Callable[[], Ranker], passes: int) -> float:
        self.spent += time.perf_counter() - self.begun
        quality = self.quality(ranker())
        self.points.append((self.spent, quality, passes))
        # What starts slowly is no better than chance at first.
        if self.patience and self.best[2] > 5 and self.best[1] > max(p[1] for p in self.points[-self.patience :]):
            raise Enough
        self.start()
        return quality


def factors(users: Floats, items: Floats) -> Ranker:
    return Ranker(ExactIndex(items), lambda asked: users[asked])


def ours(size: Size, rows: Ratings, watch: Watch, seed: int, passes: int | None = None) -> None:
    """Train as `recsys train` does, and measure after each epoch."""
    done = 0

    def after(plain: EmbeddingModel) -> dict[str, float]:
        nonlocal done
        done += 1
        return {"ndcg_at_10": watch.measure(lambda: Ranker.of(plain), done)}

    model, train = resolve_settings(ModelConfig(), TrainConfig(epochs=passes, seed=seed, device="cpu"), size)
    assert model.dim == DIM
    watch.start()
    Recommender(model, train).fit(rows, validate=after)


def ours_whole(size: Size, lengths: Sequence[int], rows: Ratings, watch: Watch, seed: int, passes: int = 0) -> None:
    """Train once for each length, from the beginning, and measure at its end."""
    for epochs in [passes] if passes else lengths:
        model, train = resolve_settings(ModelConfig(), TrainConfig(epochs=epochs, seed=seed, device="cpu"), size)
        watch.spent = 0.0
        watch.start()
        fitted = Recommender(model, train).fit(rows)
        watch.measure(partial(Ranker.of, fitted.model), epochs)


def implicit_als(rows: Ratings, watch: Watch, seed: int, passes: int, **settings: float) -> None:
    from implicit.cpu.als import AlternatingLeastSquares

    matrix, threads = rows.matrix().tocsr(), torch.get_num_threads()
    model = AlternatingLeastSquares(DIM, iterations=passes, num_threads=threads, random_state=seed, **settings)

    def after(iteration: int, *_: object) -> None:
        if iteration + 1 in MARKS or iteration + 1 == passes:
            with threadpool_limits(threads, "blas"):
                watch.measure(lambda: factors(model.user_factors, model.item_factors), iteration + 1)

    with threadpool_limits(1, "blas"):  # as implicit asks
        watch.start()
        model.fit(matrix, show_progress=False, callback=after)


def implicit_bpr(rows: Ratings, watch: Watch, seed: int, passes: int, **settings: float) -> None:
    """Its last column is the items' bias already."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    matrix = rows.matrix().tocsr()
    threads = torch.get_num_threads()
    model = BayesianPersonalizedRanking(DIM, iterations=passes, num_threads=threads, random_state=seed, **settings)

    def after(iteration: int, *_: object) -> None:
        if iteration + 1 in MARKS or iteration + 1 == passes:
            watch.measure(lambda: factors(model.user_factors, model.item_factors), iteration + 1)

    watch.start()
    model.fit(matrix, show_progress=False, callback=after)


def lightfm_warp(rows: Ratings, watch: Watch, seed: int, passes: int, alpha: float, **settings: Any) -> None:
    from lightfm import LightFM

    matrix, threads = rows.matrix().tocoo(), torch.get_num_threads()
    alphas = {"item_alpha": alpha, "user_alpha": alpha}
    model = LightFM(no_components=DIM, loss="warp", random_state=seed, **alphas, **settings)

    def ranker() -> Ranker:
        items = np.column_stack((model.item_embeddings, model.item_biases))
        users = np.column_stack((model.user_embeddings, np.ones_like(model.user_biases)))
        return factors(users, items)

    watch.start()
    done = 0
    for mark in sorted({m for m in MARKS if m < passes} | {passes}):
        model.fit_partial(matrix, epochs=mark - done, num_threads=threads)
        done = mark
        if not np.isfinite(model.item_embeddings).all():
            break
        watch.measure(ranker, done)


def recbole_bpr(rows: Ratings, watch: Watch, seed: int, passes: int, **settings: float) -> None:
    """RecBole 1.2.1 knows neither numpy 2 nor another place for its options than the command line."""
    for old, kind in (("float_", np.float64), ("complex_", np.complex128), ("unicode_", np.str_)):
        if not hasattr(np, old):
            setattr(np, old, kind)
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.general_recommender import BPR
    from recbole.trainer import Trainer
    from recbole.utils import init_seed

    with tempfile.TemporaryDirectory() as folder:
        given: dict[str, Any] = {
            "embedding_size": DIM, "epochs": passes, "seed": seed, "use_gpu": False, "data_path": folder,
            "checkpoint_dir": folder, "load_col": {"inter": ["user_id", "item_id"]}, "show_progress": False,
            "eval_args": {"split": {"RS": [1, 0, 0]}}, "state": "ERROR", **settings,
        }  # fmt: skip
        (Path(folder) / "all").mkdir()
        pairs = pl.DataFrame({"user_id:token": rows.user, "item_id:token": rows.item})
        pairs.write_csv(Path(folder) / "all" / "all.inter", separator="\t")
        with mock.patch.object(sys, "argv", sys.argv[:1]):
            config = Config(model="BPR", dataset="all", config_dict=given)
        init_seed(seed, True)
        data = create_dataset(config)
        train, _, _ = data_preparation(config, data)
        sizes = {"user_id": len(rows.users), "item_id": len(rows.items)}
        # Its row 0 stands for whatever is not known.
        user, item = (np.array([data.field2token_id[f].get(str(row), 0) for row in range(n)]) for f, n in sizes.items())
        watch.start()
        model = BPR(config, train.dataset)
        with contextlib.chdir(folder):  # it writes where it stands
            trainer = Trainer(config, model)

        def ranker() -> Ranker:
            users, items = (t.weight.detach().numpy() for t in (model.user_embedding, model.item_embedding))
            return factors(users[user], items[item])

        for done in range(passes):
            trainer._train_epoch(train, done)
            if done + 1 in MARKS or done + 1 == passes:
                watch.measure(ranker, done + 1)


def ease(rows: Ratings, watch: Watch, seed: int, passes: int, regularization: float) -> None:
    watch.start()
    found = Ease(rows).fit(regularization)
    watch.measure(lambda: found, passes)


PEERS: dict[str, Callable[..., None]] = {
    "implicit ALS": implicit_als,
    "implicit BPR": implicit_bpr,
    "LightFM WARP": lightfm_warp,
    "RecBole BPR": recbole_bpr,
    "EASE": ease,
}
# What a peer is imported as, and installed as.
MODULES = {"implicit ALS": "implicit", "implicit BPR": "implicit", "LightFM WARP": "lightfm", "RecBole BPR": "recbole"}
PACKAGES = {"implicit": "implicit", "lightfm": "lightfm-next", "recbole": "recbole"}
