"""MLflow stores: made whole by whoever comes first, and named when they are broken."""

import logging
import multiprocessing
import os
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
from stores import must_record, record
from worlds import small

from recsys_embed import DataConfig, Recommender, RunConfig
from recsys_embed.errors import DataError, SettingError
from recsys_embed.experiment.run import run_experiment
from recsys_embed.exports.folder import Content, write_files
from recsys_embed.storage.atomic import publish_new
from recsys_embed.storage.part_folder import PartFolder
from recsys_embed.storage.table_files import write_table
from recsys_embed.tracking import store
from recsys_embed.tracking.mlflow_tracker import MLflowTracker
from recsys_embed.tracking.store import open_store, resolve_tracking_uri


def n_runs(uri):
    client = open_store(uri)
    return len(client.search_runs([client.get_experiment_by_name("x").experiment_id]))


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A store with a run."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    assert record(f"sqlite:///{file}")
    return file


@pytest.mark.slow
def test_processes_that_start_together_make_one_sound_store(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2, timeout=300)  # one that dies leaves no other waiting
    processes = [context.Process(target=must_record, args=(uri, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert n_runs(uri) == 2
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".db" or p.name.startswith(".")) == ["mlflow.db"]


def test_threads_that_start_together_make_one_sound_store(tmp_path, monkeypatch, copied_stores):
    monkeypatch.setattr(store, "_make", copied_stores)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(record, [uri] * 3))
    assert n_runs(uri) == 3


def test_an_interrupted_making_leaves_nothing_behind(tmp_path, monkeypatch, copied_stores):
    """MLflow's own way leaves a store half done, which nobody can use afterwards."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        copied_stores(tmp_path / "mlflow.db")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_everything_new_has_the_mode_that_the_umask_gives(tmp_path, copied_stores, ratings, umask):
    """Others of a team are to read them, or nobody is; nothing stays as private as `tempfile` makes it."""
    before = os.umask(umask)
    try:
        copied_stores(tmp_path / "mlflow.db")
        Recommender(*small("softmax", epochs=1)).fit(ratings).save(tmp_path / "model")
        write_table(pl.DataFrame({"x": [1]}), tmp_path / "lists.parquet")
        folder = PartFolder.open(tmp_path / "parts", {"kind": "lists"}, ".csv")
        facts = {"rows": 1, "lists": 1, "without_list": []}
        folder.fill(1, 1, lambda append, *_: append(pl.DataFrame({"x": [1]})) or facts, lambda *_: None)
        write_files(tmp_path / "export", {"items.tsv": Content(lambda file: file.write(b"x"))}, "projector")
    finally:
        os.umask(before)
    found = {path: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert len(found) > 10
    assert found == {path: (0o777 if path.is_dir() else 0o666) & ~umask for path in found}


def test_a_folder_is_no_store(tmp_path):
    for uri in (f"file://{tmp_path}/mlruns", str(tmp_path / "mlruns")):
        with pytest.raises(SettingError, match="sqlite:///mlflow.db"), MLflowTracker(uri, "x", {}):
            pass


def test_a_deleted_experiment_is_refused_before_the_training(complete, tmp_path):
    file, uri = tmp_path / "mlflow.db", f"sqlite:///{tmp_path}/mlflow.db"
    shutil.copyfile(complete, file)
    client = open_store(uri)
    client.delete_experiment(client.get_experiment_by_name("x").experiment_id)
    with pytest.raises(SettingError, match="'x' was deleted: name another with --experiment"):
        record(uri)


def test_the_experiment_is_the_callers(complete, tmp_path, monkeypatch):
    shutil.copyfile(complete, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"

    def experiment_of(**given):
        with MLflowTracker(uri, **{"experiment": None, "tags": {}, "default": "shop", **given}) as tracker:
            return open_store(uri).get_experiment(tracker.experiment_id).name

    assert experiment_of() == "shop"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "named")
    assert experiment_of() == "named" and experiment_of(experiment="x") == "x"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", open_store(uri).get_experiment_by_name("x").experiment_id)
    assert experiment_of() == "x"


def test_a_training_in_the_callers_own_run_is_its_child_with_a_model_and_no_other_runs(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    open_store(uri := resolve_tracking_uri(None))
    mlflow.sklearn.autolog(silent=True)
    try:
        mlflow.set_experiment("mine")
        with mlflow.start_run() as outer:
            options = RunConfig(out=str(tmp_path / "m"), resamples=0, map=False)
            run_experiment(DataConfig("synthetic:users=60,items=40,ratings=900"), *small("softmax", epochs=1), options)
            mlflow.log_metric("after", 1.0)
    finally:
        mlflow.sklearn.autolog(disable=True)
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)  # `set_experiment` sets it
        mlflow.set_tracking_uri(None)  # MLflow remembers it beside the variable
    client = open_store(uri)
    (child,) = client.search_runs([outer.info.experiment_id], f"tags.mlflow.parentRunId = '{outer.info.run_id}'")
    assert child.info.status == "FINISHED" and child.info.run_name == "m"
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert {r.info.run_id for r in runs} == {child.info.run_id, outer.info.run_id}
    assert client.get_run(outer.info.run_id).data.metrics == {"after": 1.0}
    models = client.search_logged_models([outer.info.experiment_id])
    assert [(m.name, m.source_run_id) for m in models] == [("model", child.info.run_id)]


def test_whoever_is_late_keeps_the_store_that_is_there(tmp_path, monkeypatch):
    made = tmp_path / "made"
    made.write_bytes(b"mine")
    (tmp_path / "mlflow.db").write_bytes(b"theirs")
    publish_new(made, tmp_path / "mlflow.db")
    assert (tmp_path / "mlflow.db").read_bytes() == b"theirs"

    def no_links(*_):
        raise PermissionError

    monkeypatch.setattr("os.link", no_links)
    publish_new(made, tmp_path / "mlflow.db")
    assert (tmp_path / "mlflow.db").read_bytes() == b"theirs"
    publish_new(made, tmp_path / "other.db")
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


def test_what_a_store_tells_its_driver_reaches_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri = resolve_tracking_uri("sqlite:///m.db?timeout=60")
    assert uri == f"sqlite:///{tmp_path}/m.db?timeout=60" == resolve_tracking_uri(uri)
    client = open_store(uri)
    assert client._tracking_client.store.engine.url.query == {"timeout": "60"}
    assert record(uri) and [file.name for file in tmp_path.glob("m.db*")] == ["m.db"]
