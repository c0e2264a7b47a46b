"""Folders that were moved: a bundle is enough to answer and to measure; MLflow's files are found beside its store."""

import json

import polars as pl
import pytest
from worlds import recsys_here

from recsys_embed.errors import DataError
from recsys_embed.sources.load import load_dataset
from recsys_embed.tracking.mlflow_tracker import MLflowTracker
from recsys_embed.tracking.model_registry import model_folder
from recsys_embed.tracking.runs import read_run

WORLD = load_dataset("synthetic:users=60,items=40,ratings=900")


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """A folder with a registered model whose data are gone, moved; and a file of ratings of the training and others."""
    old = tmp_path_factory.mktemp("shop") / "old"
    (old / "data").mkdir(parents=True)
    frame = WORLD.ratings.frame()
    frame[:800].write_csv(old / "data" / "ratings.csv")
    WORLD.items.write_csv(old / "data" / "items.csv")
    data = "--dataset", "data/ratings.csv", "--items", "data/items.csv"
    train = "train", *data, "--epochs", "1", "--dim", "4", "--no-baselines", "--no-map", "--out", "models/one"
    report = json.loads(recsys_here(*train, "--register", "moved@champion", "--json", cwd=old).stdout)
    new = old.rename(old.with_name("new"))
    (new / "data").rename(new / "gone")
    frame[750:].write_csv(new / "next.csv")
    return new, report["run_id"]


@pytest.fixture(autouse=True)
def of_this_folder(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_mlflows_models_and_runs_are_found_beside_their_store(moved):
    folder, run = moved
    expected = recsys_here("recommend", "--anonymous", "--json", "--model", "models/one", cwd=folder).stdout
    for uri in ("models:/moved@champion", "models:/moved/latest", f"runs:/{run}/model"):
        found = json.loads(recsys_here("recommend", "--anonymous", "--json", "--model", uri, cwd=folder).stdout)
        assert found["items"] == json.loads(expected)["items"]
    assert "not comparable" not in recsys_here("compare", run, "models/one", cwd=folder).stdout


@pytest.mark.parametrize("old_is_there", [False, True])
def test_missing_files_are_named(moved, old_is_there):
    """Not as a model of another package, or a training that did not finish; the folder that was their parent or not."""
    folder, run = moved
    (folder / "mlruns").rename(folder / "away")
    if old_is_there:
        (folder.parent / "old").mkdir()
    try:
        for command in (("recommend", "--anonymous", "--model", "models:/moved@champion"), ("compare", run, run)):
            error = recsys_here(*command, cwd=folder, code=3).stderr
            assert f"{folder.parent}/old/mlruns" in error and "put it back" in error
            assert f"beside {folder}/mlflow.db" in error
    finally:
        (folder / "away").rename(folder / "mlruns")
        if old_is_there:
            (folder.parent / "old").rmdir()


def test_a_missing_model_and_a_run_without_files_are_told_apart(moved):
    folder, _ = moved
    store = f"sqlite:///{folder}/mlflow.db"
    place, _ = model_folder("models:/moved@champion", store)
    files = place.parents[1]
    files.rename(folder / "away")
    try:
        with pytest.raises(DataError, match=f"MLflow keeps the files in {files}, and there is no such folder"):
            model_folder("models:/moved@champion", store)
    finally:
        (folder / "away").rename(files)
    with MLflowTracker(store, "x", {}) as tracker:
        pass
    assert read_run(tracker.run_id, ["model.json"], store) == (tracker.run_id, {})


def test_a_bundle_is_enough_to_be_measured_on_new_ratings(moved):
    folder, _ = moved
    done = recsys_here("evaluate", "--test", "next.csv", "--json", cwd=folder)
    n_new, n_all = WORLD.ratings.frame()[800:].height, WORLD.ratings.frame()[750:].height
    assert 0 < json.loads(done.stdout)["metrics"]["rows"] <= n_all - 1 and n_new <= n_all
    assert f"of {n_all:,} test ratings" in done.stderr


def test_the_file_of_the_training_is_no_test(moved):
    folder, _ = moved
    pl.read_csv(folder / "gone" / "ratings.csv").write_csv(folder / "trained-on.csv")
    done = recsys_here("evaluate", "--test", "trained-on.csv", cwd=folder, code=3)
    assert "the metrics would be too good" in done.stderr


def test_data_that_are_gone_are_named_with_what_to_do(moved):
    folder, _ = moved
    error = recsys_here("evaluate", cwd=folder, code=3).stderr
    assert "data/ratings.csv" in error and "--dataset" in error and "--test" in error
