"""Folders that were moved: a bundle is enough to answer and to measure; MLflow's files are found beside its store."""

import json

import polars as pl
import pytest
from worlds import recsys_here

from recsys_embed.sources.load import load_dataset

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


def test_missing_files_are_named(moved):
    folder, run = moved
    (folder / "mlruns").rename(folder / "away")
    try:
        for command in (("recommend", "--anonymous", "--model", "models:/moved@champion"), ("compare", run, run)):
            assert "old/mlruns/" in recsys_here(*command, cwd=folder, code=3).stderr
    finally:
        (folder / "away").rename(folder / "mlruns")


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
