"""Fixtures: a table of ratings, made anew for every test, and the model that services serve, for a file of tests."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import shutil
import sqlite3

# Waiting threads must not spin: the suite would take many times longer beside another program.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
# Beside other workers each has one core. (Tests of kernels on several threads set their number.)
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import pytest


@functools.cache
def prepare():
    import typer.main
    import typer.testing
    from hypothesis import settings

    # How long an example takes says nothing of it where other programs run beside the tests.
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")

    # Typer makes all commands anew for every call, which takes longer than most of them; a program makes one call.
    typer.main.get_command = typer.testing._get_command = functools.cache(typer.main.get_command)


def pytest_collectstart():
    """Import what takes long where tests are collected: the process that gives them to others collects none."""
    prepare()


def pytest_collection_finish():
    """What was imported lives to the end: collecting garbage among it again and again took a tenth of the time."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_make_parametrize_id(val, argname):
    """Bytes name no test: a gzip file holds the second it was made in, and each worker would have its own tests."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture
def frame():
    """31 ratings of 7 users and 11 items; ids are not rows: users are 101.., items are "i00"..."""
    import numpy as np
    import polars as pl
    from worlds import ITEMS, USERS

    random = np.random.default_rng(5)
    pairs = random.permutation(USERS * ITEMS)[:31]
    pairs = np.unique(np.concatenate((pairs, np.arange(USERS) * ITEMS + 3, np.arange(ITEMS))))
    return pl.DataFrame(
        {
            "user_id": 101 + pairs // ITEMS,
            "item_id": [f"i{i:02d}" for i in pairs % ITEMS],
            "rating": random.integers(1, 6, len(pairs)).astype(float),
            "timestamp": random.integers(0, 1000, len(pairs)),
        }
    )


@pytest.fixture
def ratings(frame):
    from recsys_embed.data.ratings import Ratings

    return Ratings.from_frame(frame)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small model with ids of every kind, and its folder."""
    from services import odd_model

    folder = tmp_path_factory.mktemp("model") / "odd"
    return odd_model(folder), folder


@pytest.fixture(scope="session", autouse=True)
def copied_stores(tmp_path_factory):
    """New MLflow stores are copies of one: MLflow takes seconds to make one. Yields how they are really made."""
    from recsys_embed.tracking import store

    made, make = tmp_path_factory.mktemp("store") / "mlflow.db", store._make

    def copy(file):
        if not made.exists():
            make(made)
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, file)

    store._make = copy
    yield make
    store._make = make


@pytest.fixture(scope="session", autouse=True)
def unsynced_stores():
    """SQLite waits for no disk in this process: what a crash of the machine would leave is no test's subject."""
    from sqlalchemy import Engine, event

    def connected(connection, _):
        if isinstance(connection, sqlite3.Connection):
            with contextlib.suppress(sqlite3.Error):  # a broken file, whose users are to say so
                connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", connected)
    yield
    event.remove(Engine, "connect", connected)


@pytest.fixture(scope="session", autouse=True)
def migrations_read_once():
    """Alembic executes its files of migrations anew whenever a store is opened; a program opens one or two."""
    from alembic import util

    load = util.load_python_file
    once = functools.cache(load)
    util.load_python_file = lambda folder, name: (load if name == "env.py" else once)(folder, name)
    yield
    util.load_python_file = load


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models that differ."""
    from services import odd_model

    folder = tmp_path_factory.mktemp("models")
    odd_model(folder / "one")
    other = odd_model(folder / "two")
    other.metadata["created"] = "another"
    other.save(folder / "two")
    return folder


@pytest.fixture
def both(models):
    """The options of a service with two variants."""
    return [f"a={models / 'one'}", f"b={models / 'two'}"]
