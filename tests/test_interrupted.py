"""Programs that are ended or killed: the best model is kept, and nothing goes on in name only."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import threading

import pytest
from filelock import FileLock
from worlds import recsys_here

from recsys_embed.errors import NotRegistered
from recsys_embed.recommender import Recommender
from recsys_embed.storage import lease as lease_module
from recsys_embed.storage import model_folders
from recsys_embed.storage.lease import is_held, lease, named_place, place_of
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
    with lease(lease_file(folder)) as held:
        assert held
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
    with reserved_folder(tmp_path / "m", unique=True) as (folder, file):
        assert folder == tmp_path / "m" and file == lease_file(folder) and is_held(file)
        assert not (tmp_path / ".m-abcd_123").exists() and other.exists()
    assert not folder.exists() and not lease_file(folder).exists()


def test_who_holds_the_lease_of_a_killed_training_ends_its_run(tmp_path, monkeypatch):
    """As the same command does, by the same --out."""
    uri, client = f"sqlite:///{tmp_path}/mlflow.db", open_store(f"sqlite:///{tmp_path}/mlflow.db")

    def status(run_id):
        return client.get_run(run_id).info.status

    with reserved_folder(tmp_path / "m", unique=False) as (_, file):
        tags = lease_tag(file)
        with MLflowTracker(uri, "x", tags, "mine") as mine:
            before = client.create_run(mine.experiment_id, tags=tags).info.run_id
            with MLflowTracker(uri, "x", tags, "another of mine"):
                assert status(mine.run_id) == "RUNNING" and status(before) == "KILLED"


def test_a_folder_with_a_model_stays_whoever_is_killed(tmp_path):
    with reserved_folder(tmp_path / "m", unique=True) as (folder, _):
        (folder / "manifest.json").write_text("{}")
    assert folder.exists() and not lease_file(folder).exists()
    lease_file(folder).touch()
    remove_abandoned(tmp_path)
    assert folder.exists() and not lease_file(folder).exists()


def test_only_runs_known_to_be_dead_are_ended(tmp_path, monkeypatch):
    """Not those of other machines, be their names alike but for a wildcard, nor of a folder that is not this one."""
    monkeypatch.setattr(mlflow_tracker.platform, "node", lambda: "my_host")
    (tmp_path / "old").mkdir()
    dead, replaced = lease_tag(tmp_path / "gone.lease"), lease_tag(tmp_path / "old" / "gone.lease")
    shutil.rmtree(tmp_path / "old")
    (tmp_path / "old").mkdir()
    lease_tag(tmp_path / "old" / "x.lease")
    tags = {
        "dead": dead,
        "elsewhere": {name: value.replace("my_host", "elsewhere") for name, value in dead.items()},
        "wildcard": {name: value.replace("my_host", "my-host") for name, value in dead.items()},
        "upper case": {name: value.replace("my_host", "MY_HOST") for name, value in dead.items()},
        "not mounted": {name: value.replace("gone.lease", "nowhere/gone.lease") for name, value in dead.items()},
        "another folder": replaced,
        "of an older version": {name: value for name, value in dead.items() if name == "recsys_embed.lease"},
        "no lease": {},
    }
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = open_store(uri)
    experiment = client.create_experiment("x")
    runs = {name: client.create_run(experiment, tags=of_run).info.run_id for name, of_run in tags.items()}
    with MLflowTracker(uri, "x", {}):
        statuses = {name: client.get_run(run).info.status for name, run in runs.items()}
    assert statuses == dict.fromkeys(tags, "RUNNING") | {"dead": "KILLED"}


def test_a_run_that_ends_while_it_is_looked_at_stays_finished(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = open_store(uri)
    run = client.create_run(client.create_experiment("x"), tags=lease_tag(tmp_path / "x.lease")).info.run_id

    def ends_meanwhile(path):
        client.set_terminated(run, "FINISHED")
        return False

    monkeypatch.setattr(mlflow_tracker, "is_held", ends_meanwhile)
    with MLflowTracker(uri, "x", {}):
        assert client.get_run(run).info.status == "FINISHED"


def test_a_resumed_run_has_the_lease_of_who_resumed_it(tmp_path):
    """By the lease of the first process the next training would take it for dead."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with MLflowTracker(uri, "x", lease_tag(tmp_path / "first")) as first:
        pass
    client = open_store(uri)
    for tags in (lease_tag(tmp_path / "second"), {}):
        with contextlib.ExitStack() as stack:
            if tags:
                assert stack.enter_context(lease(tmp_path / "second"))
            stack.enter_context(MLflowTracker(uri, "x", tags, run_id=first.run_id))
            with MLflowTracker(uri, "x", {}):
                run = client.get_run(first.run_id)
            assert run.info.status == "RUNNING"
            assert {name: tag for name, tag in run.data.tags.items() if "lease" in name} == tags


def test_two_that_name_a_folder_at_once_agree(tmp_path, monkeypatch):
    make = lease_module.make_hidden

    def slower(*args):
        monkeypatch.setattr(lease_module, "make_hidden", make)
        names.append(named_place(tmp_path))
        return make(*args)

    names = []
    monkeypatch.setattr(lease_module, "make_hidden", slower)
    names.append(named_place(tmp_path))
    assert names[0] and names[0] == names[1] == place_of(tmp_path) and len(list(tmp_path.iterdir())) == 1
    assert place_of(tmp_path / "nowhere") is None is named_place(tmp_path / "nowhere")
    assert lease_tag(tmp_path / "nowhere" / "x.lease") == {}


def test_a_lease_is_not_missed_for_one_who_asks_whether_it_is_held(tmp_path):
    asks = FileLock(tmp_path / "x", thread_local=False)
    asks.acquire()
    threading.Timer(0.05, asks.release).start()
    with lease(tmp_path / "x", patience=60) as held:
        assert held


def test_a_folder_that_was_taken_for_an_abandoned_one_is_made_again(tmp_path, monkeypatch):
    """Between the making of a folder and its lease others may tidy up, and make a folder of that name."""
    was_held = []

    @contextlib.contextmanager
    def too_late(path, **options):
        folder = tmp_path / path.name.removeprefix(".").removesuffix(".lease")
        if not was_held:
            folder.rmdir()
        was_held.append(len(was_held) != 1 and lease_file(folder) == path)
        yield was_held[-1]

    monkeypatch.setattr(model_folders, "lease", too_late)
    with reserved_folder(tmp_path / "m", unique=True) as reserved:
        assert was_held == [True, False, True]  # taken for abandoned; made by another, who holds it; ours
        assert reserved == (tmp_path / "m-2", lease_file(tmp_path / "m-2")) and reserved.folder.is_dir()


def test_what_cannot_be_locked_does_not_stop_a_training(tmp_path):
    (tmp_path / "file").touch()
    with lease(tmp_path / "file" / "x.lease") as held:
        assert held is None and not is_held(tmp_path / "file" / "x.lease")
    with lease(tmp_path / "x") as held, lease(tmp_path / "x", patience=0) as twice:
        assert held and twice is False and is_held(tmp_path / "x")


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
