"""A training on several ranks is that of one process, whatever the ranks, and goes on after one is killed."""

import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ranks import CASES, DRAWN, arrays_of, losses_of, train

from recsys_embed.config.settings import TrainConfig
from recsys_embed.errors import SettingError
from recsys_embed.training import trainer
from recsys_embed.training.autograd_step import AutogradStep

needs_torchrec = pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="TorchRec is not installed")


def run(folder, nproc, what):
    """Run trainings in a program of their own; return its exit status."""
    program = [sys.executable, str(Path(__file__).with_name("ranks.py")), str(folder), str(nproc), what]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300, check=False, env=os.environ)
    return done.returncode, done.stderr


def read(folder, name):
    with np.load(folder / f"{name}.npz") as file:
        return dict(file)


@pytest.fixture(scope="module", params=[1, 3])
def cases(request, tmp_path_factory):
    """The folder with what so many ranks have trained."""
    folder = tmp_path_factory.mktemp("ranks")
    status, error = run(folder, request.param, "cases")
    assert status == 0, error
    return folder


@needs_torchrec
@pytest.mark.parametrize("name", CASES)
def test_ranks_do_what_one_process_does(cases, name):

    found, wanted = read(cases, name), arrays_of(train(CASES[name], sharded=False))
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, rtol=2e-4, atol=2e-5, err_msg=key)


@needs_torchrec
@pytest.mark.parametrize("name", DRAWN)
def test_ranks_learn_as_fast_with_drawn_negatives(cases, name, monkeypatch):
    monkeypatch.setattr(trainer, "step_for", lambda model, config: AutogradStep)  # the step of ranks
    found, local = read(cases, name)["losses"], losses_of(DRAWN[name], sharded=False)
    assert (np.diff(local) < 0).all()
    np.testing.assert_allclose(found, local, rtol=0.12)


@needs_torchrec
def test_the_same_ranks_go_on_bit_for_bit(tmp_path):
    assert run(tmp_path, 2, "stopped-sampled")[0] == 9
    (state,) = (f for f in (tmp_path / "checkpoints").iterdir() if f.name == "001-000005")
    assert json.loads((state / "facts.txt").read_text())["facts"]["batch"] == 4  # of 5
    for what in ("whole", "resumed"):
        status, error = run(tmp_path, 2, f"{what}-sampled")
        assert status == 0, error
    assert "going on with" in error and "cannot be read" not in error
    whole, resumed = (read(tmp_path, what) for what in ("whole", "resumed"))
    for key, value in whole.items():
        np.testing.assert_array_equal(resumed[key], value, err_msg=key)
    assert [f.name for f in (tmp_path / "checkpoints").iterdir()] == ["001-done"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The checkpoints of two ranks that were killed after the third; the newest is damaged since."""
    folder = tmp_path_factory.mktemp("stopped")
    assert run(folder, 2, "stopped-cosine")[0] == 9
    states = sorted((folder / "checkpoints").iterdir())
    assert [f.name for f in states] == ["001-000002", "001-000002.shards", "001-000003", "001-000003.shards"]
    next(states[3].iterdir()).write_bytes(b"half of it")
    return folder


@needs_torchrec
@pytest.mark.parametrize("nproc", [1, 3])
def test_other_ranks_go_on_too_and_leave_aside_what_is_damaged(stopped, tmp_path, nproc):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    status, error = run(tmp_path, nproc, "resumed-cosine")
    assert status == 0, error
    assert "001-000003.shards was changed" in error
    found, wanted = read(tmp_path, "resumed"), arrays_of(train(CASES["cosine"], sharded=False))
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, rtol=2e-4, atol=2e-5, err_msg=key)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 6), st.booleans())
def test_every_rank_has_users_and_a_part_of_every_batch(counts, size, of_users):
    from recsys_embed.distributed.engine import cuts_of

    config = TrainConfig(batch_users=3) if of_users else TrainConfig(batch_size=3)
    counts = torch.tensor(counts)
    if int((counts > 0).sum()) < size:
        with pytest.raises(SettingError, match="too many"):
            cuts_of(counts, size, config)
        return
    cuts, steps = cuts_of(counts, size, config)
    assert cuts[0] == 0
    assert cuts[-1] == len(counts)
    assert len(cuts) == size + 1
    parts = [counts[a:b] for a, b in itertools.pairwise(cuts)]
    fewest = min(int((part > 0).sum() if of_users else part.sum()) for part in parts)
    assert 1 <= steps <= fewest
    if size > 1 and int(counts.max()) <= 1:  # each has its share, to one
        assert max(int(part.sum()) for part in parts) <= -(-int(counts.sum()) // size) + 1


@pytest.mark.parametrize(
    ("given", "named"),
    [({"max_grad_norm": 1.0}, "--max-grad-norm"), ({"user_tower": "history", "biases": False}, "from their histories")],
)
def test_what_cannot_be_spread_is_named(given, named):
    with pytest.raises(SettingError, match=f"--engine torchrec does not go with .*{named}"):
        train({"loss": "softmax", "batch_users": 9} | given, sharded=True)
