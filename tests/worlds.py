"""Small worlds in which all sizes differ, so that a swapped axis cannot pass; and the command line, run for real."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
import torch

from recsys_embed.cli.main import main
from recsys_embed.config.recipes import Size, resolve_settings
from recsys_embed.config.settings import DataConfig, ModelConfig, TrainConfig
from recsys_embed.data.event_types import event_types
from recsys_embed.data.events import EventLog
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import split_cold_items
from recsys_embed.data.user_items import UserItems
from recsys_embed.evaluation.cold_start import cold_metrics
from recsys_embed.models.ranker import Ranker
from recsys_embed.nets.two_tower import TwoTowerModel, build_two_tower
from recsys_embed.recommender import Recommender

USERS, ITEMS, DIM, BATCH = 7, 11, 5, 13


def event_log(frame: pl.DataFrame, config: DataConfig) -> EventLog:
    """The log in a frame, with the types of events that the settings say."""
    columns = {role: getattr(config, f"{role}_col") for role in ("user", "item", "event", "time")}
    return EventLog.from_frame(frame, columns, lambda found: event_types(found, config))


def checkerboard(size: int = 12) -> Ratings:
    """Even users like even items and odd users odd ones; the pair (u, u) is withheld: it is the one right answer."""
    pairs = [(u, i) for u in range(size) for i in range(size) if u != i and u % 2 == i % 2]
    user, item = np.array(pairs).T
    return Ratings.from_frame(pl.DataFrame({"user": user, "item": item, "rating": np.ones(len(pairs))}))


def checkerboard_stars(size: int = 12) -> Ratings:
    """The same world with everything rated but (u, u): 5 stars for what is liked, 1 for the rest."""
    pairs = [(u, i) for u in range(size) for i in range(size) if u != i]
    user, item = np.array(pairs).T
    return Ratings.from_frame(
        pl.DataFrame({"user": user, "item": item, "rating": np.where(user % 2 == item % 2, 5.0, 1.0)})
    )


def small(loss: str, scorer: str = "dot", items: int = ITEMS, **given: object) -> tuple[ModelConfig, TrainConfig]:
    """Settings that learn a small world in a second."""
    model = {k: given.pop(k) for k in list(given) if k in ModelConfig.__dataclass_fields__}
    train = {
        "epochs": 60,
        "batch_size": 64,
        "lr": 0.05,
        "user_decay": 0.0,
        "item_decay": 0.0,
        "bias_decay": 0.0,
        "content_decay": 0.0,
        "patience": 0,
        **given,
    }
    return resolve_settings(
        ModelConfig(scorer=scorer, **{"dim": DIM, "cosine": False, **model}),
        TrainConfig(loss=loss, **train),
        Size(USERS, items, 100),
    )  # type: ignore[arg-type]


def scattered(config: ModelConfig) -> TwoTowerModel:
    """A model whose vectors and biases are of all sizes, and with an offset."""
    model = build_two_tower(config, USERS, ITEMS)
    torch.manual_seed(3)
    with torch.no_grad():
        for tower in (model.users, model.items):
            tower.table.weight.normal_()
            if tower.bias is not None:
                tower.bias.weight.normal_()
        model.offset.fill_(0.7)
    return model


COLOURS = ("red", "green", "blue")


def tastes(users=45, items=60, seed=0):
    """Every user likes three of five items of one colour; an item's table, picture and vector tell its colour.

    The best AUC is .92: the other two of five are of the colour too.
    """
    random = np.random.default_rng(seed)
    colour = random.permutation(np.arange(items) % 3)
    pairs = [(u, i) for u in range(users) for i in range(items) if colour[i] == u % 3 and random.random() < 0.6]
    user, item = np.array(pairs).T
    shape = random.integers(0, 2, items)
    table = pl.DataFrame(
        {
            "item_id": np.arange(items),
            "title": [f"{('round', 'square')[s]} thing number {n}" for n, s in enumerate(shape)],
            "kind": [f"{COLOURS[c]}|{('round', 'square')[s]}" for c, s in zip(colour, shape, strict=True)],
        }
    )
    ratings = Ratings.from_frame(pl.DataFrame({"user": user, "item": item}))
    return ratings.with_items(table["item_id"]), table, colour


RATINGS, TABLE, COLOUR = tastes()
SPLIT = split_cold_items(RATINGS, 0.25, 0.0, 0.1, seed=1)


def fitted(content, table=TABLE, **given):
    model, train = small("softmax", epochs=30, content_lr_scale=1.0, **given)
    return Recommender(model, train, content).fit(SPLIT.train, table)


def cold_auc(recommender):
    nothing = UserItems.empty(len(RATINGS.users))
    return cold_metrics(Ranker.of(recommender.model), SPLIT.test, nothing, recommender.item_counts)["auc"]


def recsys(*args: str, cwd: Path, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, and check how it ends."""
    done = subprocess.run(
        [sys.executable, "-m", "recsys_embed", *args],
        cwd=cwd, capture_output=True, text=True, timeout=300, env={**os.environ, "COLUMNS": "120", **env}, check=False,
    )  # fmt: skip
    assert done.returncode == code, f"{args} ended with {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def recsys_here(*args: str, cwd: Path, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """Do the same in this process, which takes a tenth of the time."""
    out, err, ended = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
        patch.object(sys, "argv", ["recsys", *args]), patch.dict(os.environ, {"COLUMNS": "120", **env}),
    ):  # fmt: skip
        try:
            main()
        except SystemExit as stop:
            ended = int(stop.code or 0)
    done = subprocess.CompletedProcess(args, ended, out.getvalue(), err.getvalue())
    assert ended == code, f"{args} ended with {ended}, not {code}\n{done.stdout}\n{done.stderr}"
    return done


def dense(weights):
    """Item weights as a matrix [items, items]: what each item, a row, adds to the others."""
    matrix = np.zeros((len(weights), len(weights)))
    for j in range(len(weights)):
        span = slice(weights.indptr[j], weights.indptr[j + 1])
        matrix[j, weights.target[span]] = weights.weight[span]
    return matrix
