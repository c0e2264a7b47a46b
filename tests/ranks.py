"""Trainings on several ranks, run as a program of its own: python ranks.py FOLDER NPROC; results are files there."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from recsys_embed.config.recipes import Size, resolve_settings
from recsys_embed.config.settings import ModelConfig, TrainConfig
from recsys_embed.data.ratings import Ratings
from recsys_embed.nets.two_tower import build_two_tower
from recsys_embed.training.checkpoints import Checkpoints
from recsys_embed.training.trainer import fit

USERS, ITEMS = 23, 14

# Settings by name. Where all users, or all ratings, are one batch and nothing is drawn, ranks do what one process does.
CASES = {
    "softmax": {"loss": "softmax", "batch_users": 100},
    "cosine": {"loss": "softmax", "batch_users": 100, "cosine": True, "temperature": 0.2, "balance": 0.5},
    "row": {"loss": "softmax", "batch_users": 100, "second_moment": "row"},
    "stars": {"loss": "mse", "batch_size": 10_000, "method": "adam"},
    "mlp": {"loss": "mse", "batch_size": 10_000, "scorer": "mlp", "mlp_layers": "6", "method": "adam"},
    "bare": {"loss": "softmax", "batch_users": 100, "biases": False},
}
# And where something is drawn, in many steps.
DRAWN = {
    "bpr": {"loss": "bpr", "batch_size": 8, "negatives": 3},
    "logistic": {"loss": "logistic", "batch_size": 8, "negatives": 3},
    "sampled": {"loss": "sampled-softmax", "batch_users": 3, "negatives": 5, "dropout": 0.2},
}


def world() -> Ratings:
    """Users of very different activity, one without ratings, and an item without any."""
    random = np.random.default_rng(0)
    pairs = [(u, i) for u in range(USERS) for i in range(ITEMS - 1) if u != 4 and random.random() < (1 + u) / USERS]
    frame = pl.DataFrame(pairs, schema=["user", "item"], orient="row")
    frame = frame.with_columns(rating=pl.Series(random.integers(1, 6, len(frame)).astype(float)))
    ratings = Ratings.from_frame(frame)
    return ratings


def settings(given: dict[str, object]) -> tuple[ModelConfig, TrainConfig]:
    """Complete settings: small, with decay, and two epochs."""
    given = {"dim": 6, "epochs": 4, "lr": 0.05, "user_decay": 0.3, "item_decay": 0.2, "dropout": 0.0} | given
    model = ModelConfig(**{k: v for k, v in given.items() if k in ModelConfig.__dataclass_fields__})  # type: ignore[arg-type]
    train = TrainConfig(device="cpu", **{k: v for k, v in given.items() if k in TrainConfig.__dataclass_fields__})  # type: ignore[arg-type]
    return resolve_settings(model, train, Size(USERS, ITEMS, 200))


def train(given: dict[str, object], sharded: bool, checkpoints: Checkpoints | None = None, **how: object):
    """Train one case by either engine."""
    ratings, (model, config) = world(), settings(given)
    net = build_two_tower(model, len(ratings.users), len(ratings.items), config.seed)
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


class Killed(BaseException):
    """The end of a process, of which nothing in it hears."""


def main(folder: Path, nproc: int, what: str) -> None:
    """Train what is asked for: "cases", "stopped", "resumed" or "whole"."""
    from recsys_embed.distributed.ranks import joined

    with joined(nproc):
        if what == "cases":
            for name, given in (CASES | DRAWN).items():
                np.savez(folder / f"{name}.npz", **arrays_of(train(given, True)))
            for sharding in ("row-wise", "table-wise"):
                np.savez(folder / f"{sharding}.npz", **arrays_of(train(CASES["cosine"] | {"sharding": sharding}, True)))
            return
        checkpoints = None if what == "whole" else Checkpoints(folder / "checkpoints", 0, resume=what == "resumed")
        if what == "stopped":
            saves = []
            _stop_after(saves, 3)
        for name in ("sampled", "row"):
            result = train((CASES | DRAWN)[name], True, checkpoints)
            np.savez(folder / f"{what}-{name}.npz", **arrays_of(result))


def _stop_after(saves: list[str], count: int) -> None:
    """End the process at once after so many checkpoints of a training."""
    import os

    from recsys_embed.training.checkpoints import Stage

    save = Stage.save

    def saving(self, *args, **kwargs) -> None:
        save(self, *args, **kwargs)
        saves.append("")
        if len(saves) == count:
            os._exit(9)

    Stage.save = saving  # type: ignore[method-assign]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    print(json.dumps("done"))
