"""Programs that are ended or killed: the best model is kept, and nothing goes on in name only."""

import contextlib
import multiprocessing
import os
import signal

import pytest
from worlds import recsys_here

from recsys_embed.errors import NotRegistered
from recsys_embed.recommender import Recommender
from recsys_embed.storage import lease as lease_module
from recsys_embed.storage import model_folders
from recsys_embed.storage.lease import is_held, lease
from recsys_embed.storage.model_folders import create_unique_folder, lease_file, remove_abandoned, reserved_folder
from recsys_embed.tracking import mlflow_tracker
from recsys_embed.tracking.mlflow_tracker import MLflowTracker, lease_tag
from recsys_embed.tracking.store import open_store
from recsys_embed.tracking.tracker import MultiTracker

TRAIN = "train", "--dataset", "synthetic:users=60,items=40,ratings=900", "--model-family", "embeddings", "--dim", "4"


@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
def test_sigterm_keeps_the_best_model_so_far(tmp_path, monkeypatch, ctrl_c):
    def end_in_the_third_epoch(self, values, step=None):
        if step == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(MultiTracker, "metrics", end_in_the_third_epoch)
    before = signal.getsignal(signal.SIGTERM)
    old = signal.signal(signal.SIGINT, ctrl_c)
    try:
        done = recsys_here(*TRAIN, "--epochs", "9", "--no-track", "--out", "m", cwd=tmp_path, code=143)
    finally:
        signal.signal(signal.SIGINT, old)
    assert "interrupted in epoch" in done.stderr and signal.getsignal(signal.SIGTERM) is before
    assert len(Recommender.load(tmp_path / "m").recommend(1)) == 10


@pytest.mark.parametrize(
    "failure", [NotRegistered("it is worse"), OSError("the disk is full"), AssertionError("a bug")]
)
def test_why_a_program_failed_is_its_last_line_after_sigterm_too(tmp_path, monkeypatch, failure):
    """Nobody would know that the model was not registered."""

    def terminated(*_):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        raise failure

    monkeypatch.setattr(model_folders, "list_model_folders", terminated)
    done = recsys_here("models", cwd=tmp_path, code=143)
    assert done.stderr.splitlines()[-1].endswith(f"rror: {failure}")
    assert ("Traceback" in done.stderr) == isinstance(failure, AssertionError)


def hold(parent, name, ready, claim):
    """Claim a folder and a run as a training does, and wait to be killed."""
    folder = claim(parent / name)
    with lease(lease_file(folder)):
        (parent / f".{folder.name}-abcd_123").mkdir()
        with MLflowTracker(f"sqlite:///{parent}/mlflow.db", "x", lease_tag(lease_file(folder)), folder.name):
            ready.set()
            signal.pause()


def test_what_a_killed_training_held_is_ended_by_the_next(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    open_store(uri)
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path, "m", ready, create_unique_folder))
    process.start()
    assert ready.wait(120)
    other = tmp_path / ".m-2-abcd_123"  # of a training that holds m-2
    other.mkdir()

    def statuses():
        with MLflowTracker(uri, "x", {}, "next"):
            pass
        client = open_store(uri)
        return {r.info.run_name: r.info.status for r in client.search_runs(
            [client.get_experiment_by_name("x").experiment_id])}  # fmt: skip

    assert is_held(lease_file(tmp_path / "m"))
    remove_abandoned(tmp_path)
    assert (tmp_path / "m").exists() and statuses()["m"] == "RUNNING"
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not is_held(lease_file(tmp_path / "m")) and statuses()["m"] == "KILLED"
    with reserved_folder(tmp_path / "m", unique=True) as folder:
        assert folder == tmp_path / "m" and is_held(lease_file(folder))
        assert not (tmp_path / ".m-abcd_123").exists() and other.exists()
    assert not folder.exists() and not lease_file(folder).exists()


def test_a_folder_with_a_model_stays_whoever_is_killed(tmp_path):
    with reserved_folder(tmp_path / "m", unique=True) as folder:
        (folder / "manifest.json").write_text("{}")
    assert folder.exists() and not lease_file(folder).exists()
    lease_file(folder).touch()
    remove_abandoned(tmp_path)
    assert folder.exists() and not lease_file(folder).exists()


def test_runs_of_other_machines_are_left_alone(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tag = lease_tag(tmp_path / "gone.lease")
    elsewhere = {name: value.replace(mlflow_tracker.platform.node(), "elsewhere") for name, value in tag.items()}
    client = open_store(uri)
    experiment = client.create_experiment("x")
    runs = [client.create_run(experiment, tags=tags).info.run_id for tags in (tag, elsewhere, {})]
    with MLflowTracker(uri, "x", {}):
        assert [client.get_run(run).info.status for run in runs] == ["KILLED", "RUNNING", "RUNNING"]


def test_what_cannot_be_locked_does_not_stop_a_training(tmp_path):
    (tmp_path / "file").touch()
    with lease(tmp_path / "file" / "x.lease"):
        assert not is_held(tmp_path / "file" / "x.lease")
    with lease(tmp_path / "x"), lease(tmp_path / "x"):
        assert is_held(tmp_path / "x")


def test_whoever_ends_leaves_the_next_owner_its_lease(tmp_path, monkeypatch):
    """The next owner comes as soon as it can: between the release and whatever is done after it."""
    path, release = tmp_path / "x.lease", lease_module.FileLock.release
    later = contextlib.ExitStack()

    def release_and_be_followed(lock, *args, **kwargs):
        monkeypatch.setattr(lease_module.FileLock, "release", release)
        release(lock, *args, **kwargs)
        later.enter_context(lease(path))

    with later:
        with lease(path):
            monkeypatch.setattr(lease_module.FileLock, "release", release_and_be_followed)
        assert is_held(path)
    assert not path.exists()
