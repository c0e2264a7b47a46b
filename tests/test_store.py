"""MLflow stores: made whole by whoever comes first, and named when they are broken."""

import logging
import multiprocessing
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from recsys_embed.errors import DataError
from recsys_embed.tracking import store
from recsys_embed.tracking.mlflow_tracker import MLflowTracker
from recsys_embed.tracking.store import open_store, resolve_tracking_uri


def record(uri, start=None):
    """Track an empty run, as a first training does; return whether MLflow failed."""
    if start is not None:
        start.wait()
    with MLflowTracker(uri, "x", {}) as tracker:
        return tracker.alive


def n_runs(uri):
    client = open_store(uri)
    return len(client.search_runs([client.get_experiment_by_name("x").experiment_id]))


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A store with a run."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    assert record(f"sqlite:///{file}")
    return file


def test_processes_that_start_together_make_one_sound_store(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(2) as pool:
        start = manager.Barrier(2)
        assert all(pool.starmap(record, [(uri, start)] * 2))
    assert n_runs(uri) == 2
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".db" or p.name.startswith(".")) == ["mlflow.db"]


def test_threads_that_start_together_make_one_sound_store(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(record, [uri] * 3))
    assert n_runs(uri) == 3


def test_whoever_is_late_keeps_the_store_that_is_there(tmp_path, monkeypatch):
    made = tmp_path / "made"
    made.write_bytes(b"mine")
    (tmp_path / "mlflow.db").write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        store._publish(made, tmp_path / "mlflow.db")

    def no_links(*_):
        raise PermissionError

    monkeypatch.setattr("os.link", no_links)
    store._publish(made, tmp_path / "mlflow.db")
    assert (tmp_path / "mlflow.db").read_bytes() == b"theirs"
    store._publish(made, tmp_path / "other.db")
    assert (tmp_path / "other.db").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda file: file.write_bytes(b"no database at all" * 100), "is no sound MLflow store"),
        (lambda file: execute(file, "DELETE FROM alembic_version", "DROP TABLE tags"), "move it away"),
        (lambda file: execute(file, "UPDATE alembic_version SET version_num = '451aebb31d03'"), "mlflow db upgrade"),
    ],
)
def test_a_broken_store_is_named_with_its_remedy_and_the_training_goes_on(
    complete, tmp_path, caplog, break_it, message
):
    file, uri = tmp_path / "mlflow.db", f"sqlite:///{tmp_path}/mlflow.db"
    shutil.copyfile(complete, file)
    break_it(file)
    with pytest.raises(DataError, match=message):
        open_store(uri)
    with caplog.at_level(logging.WARNING):
        assert not record(uri)
    assert str(file) in caplog.text and "goes on untracked" in caplog.text


def execute(file, *statements):
    with sqlite3.connect(file) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_the_path_of_a_store_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_tracking_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve_tracking_uri("http://host/a") == "http://host/a"
