"""Trainings on several ranks, run as a program of its own: python ranks.py FOLDER NPROC; results are files there."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from recsys_embed.config.recipes import Size, resolve_settings
from recsys_embed.config.settings import ModelConfig, TrainConfig
from recsys_embed.data.ratings import Ratings
from recsys_embed.nets.two_tower import build_two_tower
from recsys_embed.training.checkpoints import Checkpoints, Stage
from recsys_embed.training.trainer import fit

USERS, ITEMS = 23, 14

# Settings by name. Where all users, or all ratings, are one batch and nothing is drawn, ranks do what one process does.
CASES = {
    "softmax": {"loss": "softmax", "batch_users": 100, "sharding": "table-wise"},
    "cosine": {
        "loss": "softmax",
        "batch_users": 100,
        "cosine": True,
        "temperature": 0.2,
        "balance": 0.5,
        "sharding": "row-wise",
    },
    "row": {"loss": "softmax", "batch_users": 100, "second_moment": "row"},
    "stars": {"loss": "mse", "batch_size": 10_000, "method": "adam"},
    "mlp": {"loss": "mse", "batch_size": 10_000, "scorer": "mlp", "mlp_layers": "6", "method": "adam"},
    "bare": {"loss": "softmax", "batch_users": 100, "biases": False},
}
# And where something is drawn, in many steps.
DRAWN = {
    "bpr": {"loss": "bpr", "batch_size": 8, "negatives": 3},
    "logistic": {"loss": "logistic", "batch_size": 8, "negatives": 3},
    "sampled": {"loss": "sampled-softmax", "batch_users": 4, "negatives": 99, "dropout": 0.2},
}


def world() -> Ratings:
    """Users of very different activity."""
    random = np.random.default_rng(0)
    pairs = [(u, i) for u in range(USERS) for i in range(ITEMS) if random.random() < (1 + u) / USERS]
    frame = pl.DataFrame(pairs, schema=["user", "item"], orient="row")
    frame = frame.with_columns(rating=pl.Series(random.integers(1, 6, len(frame)).astype(float)))
    return Ratings.from_frame(frame)


def settings(given: dict[str, object]) -> tuple[ModelConfig, TrainConfig]:
    """Complete settings: small, with decay, and two epochs."""
    given = {"dim": 6, "epochs": 4, "lr": 0.05, "user_decay": 0.3, "item_decay": 0.2, "dropout": 0.0} | given
    model = ModelConfig(**{k: v for k, v in given.items() if k in ModelConfig.__dataclass_fields__})  # type: ignore[arg-type]
    train = TrainConfig(device="cpu", **{k: v for k, v in given.items() if k in TrainConfig.__dataclass_fields__})  # type: ignore[arg-type]
    return resolve_settings(model, train, Size(USERS, ITEMS, 200))


def train(given: dict[str, object], sharded: bool, checkpoints: Checkpoints | None = None, **how: object):
    """Train one case by either engine."""
    ratings, (model, config) = world(), settings(given)
    sizes, history = (len(ratings.users), len(ratings.items)), (ratings.seen(), 0.5)
    net = build_two_tower(model, *sizes, config.seed, history=history)
    engine = None
    if sharded:
        from recsys_embed.distributed.engine import ShardedEngine

        engine = partial(ShardedEngine, model)
    return fit(net, ratings, config, checkpoints=checkpoints, engine=engine, **how)  # type: ignore[arg-type]


def arrays_of(result) -> dict[str, np.ndarray]:
    """The arrays of a model, and the losses of the epochs."""
    layers = {f"layer{n}": w for n, (w, _) in enumerate(result.model.layers)}
    losses = np.array([epoch["loss"] for epoch in result.history])
    model = result.model
    return layers | {
        "users": model.users, "items": model.items, "item_bias": model.item_bias, "user_bias": model.user_bias,
        "losses": losses,
    }  # fmt: skip


def main(folder: Path, nproc: int, what: str) -> None:
    """Train what is asked for: "cases", "stopped", "resumed" or "whole"."""
    from recsys_embed.distributed import engine
    from recsys_embed.distributed.ranks import joined

    logging.basicConfig(level=logging.INFO)
    engine._SYNC_EVERY = 2  # so that a training stops in the middle of an epoch
    with joined(nproc):
        if what == "cases":
            for name, given in CASES.items():
                np.savez(folder / f"{name}.npz", **arrays_of(train(given, True)))
            for name, given in DRAWN.items():
                np.savez(folder / f"{name}.npz", losses=losses_of(given, True))
            return
        what, name = what.split("-")
        checkpoints = None if what == "whole" else Checkpoints(folder / "checkpoints", 0, resume=what == "resumed")
        if what == "stopped":
            _stop_after(3 if name in CASES else 5)
        np.savez(folder / f"{what}.npz", **arrays_of(train((CASES | DRAWN)[name], True, checkpoints)))


def losses_of(given: dict[str, object], sharded: bool) -> np.ndarray:
    """The losses of epochs, means of a few seeds."""
    every = [[epoch["loss"] for epoch in train(given | {"seed": seed}, sharded).history] for seed in range(4)]
    return np.mean(every, axis=0)


def _stop_after(count: int) -> None:
    """End the process at once after so many checkpoints."""
    save, saves = Stage.save, []

    def saving(self: Stage, *args: object, **kwargs: object) -> None:
        save(self, *args, **kwargs)  # type: ignore[arg-type]
        saves.append("")
        if len(saves) == count:
            os._exit(9)

    Stage.save = saving  # type: ignore[method-assign]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
