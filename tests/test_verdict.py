"""The verdict: one sentence at every door, which claims no more than the test does; and what MLflow shows of a run."""

import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from services import serving
from worlds import recsys_here

from recsys_embed.evaluation.significance import paired
from recsys_embed.experiment.publish import headline_metrics, metrics_table
from recsys_embed.recommender import Recommender
from recsys_embed.state.verdict import counted, verdict
from recsys_embed.tracking.runs import newest_experiment

FAST = ("--dataset", "synthetic:users=80,items=50,ratings=1500", "--epochs", "2", "--dim", "8", "--resamples", "50")


def measured(**baselines):
    """Metrics with baselines that are each given by their NDCG, and by the shift and noise of the differences."""
    random, found = np.random.default_rng(0), {}
    for name, (value, shift, noise) in baselines.items():
        others = random.random(200) * noise
        found[name] = {"ndcg_at_10": value}
        difference = paired(others + shift + random.normal(0, noise, 200), others).summary()
        found[name]["difference"] = {"metric": "ndcg_at_10", **difference}
    return {"test": {"users": 200}, "baselines": found}


@pytest.mark.parametrize(
    ("shift", "noise", "words"),
    [(0.1, 0.01, "better than"), (-0.1, 0.01, "worse than"), (0.0, 0.3, "not clearly better or worse than")],
)
def test_the_sentence_says_what_the_interval_does(shift, noise, words):
    found = verdict(measured(popularity=(0.1, 0.5, 0.01), ease=(0.3, shift, noise)))
    assert found.sentence == f"{words} EASE, the best of these baselines"
    assert found.is_better == (words == "better than") and found.is_worse == (words == "worse than")
    assert found.clear == (found.low > 0 or found.high < 0) and found.low <= found.mean <= found.high
    assert "equal" not in found.sentence


def test_the_best_baseline_is_the_one_to_beat_even_by_another_order():
    one = verdict(measured(recent_popularity=(0.4, 0.1, 0.01), ease=(0.3, 0.2, 0.01)))
    assert one.baseline == "recent_popularity" and "recent popularity, the best" in one.sentence
    alone = verdict(measured(popularity=(0.4, 0.1, 0.01)))
    assert alone.sentence == "better than popularity, the only baseline"


@pytest.mark.parametrize(
    "metrics", [None, {}, {"test": None, "baselines": {}}, {"baselines": {"ease": {"ndcg_at_10": 1}}}]
)
def test_without_a_comparison_there_is_no_verdict(metrics):
    assert verdict(metrics) is None


def test_one_is_singular():
    assert [counted(n, "user") for n in (0, 1, 2, 2000)] == ["0 users", "1 user", "2 users", "2,000 users"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a tracked training, what the training printed, and its model folder."""
    folder = tmp_path_factory.mktemp("work")
    done = recsys_here("train", *FAST, "--out", "models/one", "--no-map", cwd=folder, MLFLOW_TRACKING_URI="")
    return folder, done.stdout


def test_all_doors_say_the_same(trained):
    folder, printed = trained
    recommender = Recommender.load(folder / "models" / "one")
    sentence = verdict(recommender.metadata["metrics"]).sentence
    assert f"verdict: {sentence}" in printed
    assert f"Verdict: {sentence}" in (folder / "models" / "one" / "README.md").read_text()
    page = recsys_here("report", "--model", "models/one", "--json", cwd=folder)
    assert json.loads(page.stdout)["verdict"] == sentence and sentence in (folder / "report.html").read_text()
    with serving(folder / "models" / "one", folder / "events.db") as (client, _):
        assert client.get("/ready")[1]["verdict"] == sentence
    assert run_of(folder, recommender).data.tags["verdict"] == sentence


def run_of(folder, recommender):
    import mlflow

    return mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").get_run(recommender.metadata["run_id"])


def test_a_run_shows_the_story_and_keeps_the_rest_in_a_table(trained, tmp_path):
    import mlflow

    folder, _ = trained
    recommender = Recommender.load(folder / "models" / "one")
    metrics = recommender.metadata["metrics"]
    shown = run_of(folder, recommender).data.metrics
    final = {name for name in shown if "/" in name or name.startswith(("seconds", "epochs"))}
    assert 15 <= len(final) <= 30
    difference = metrics["baselines"][verdict(metrics).baseline]["difference"]
    assert shown["difference/low"] == difference["low"] and shown["difference/high"] == difference["high"]
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    file = client.download_artifacts(recommender.metadata["run_id"], "metrics.json", str(tmp_path))
    table = json.loads(Path(file).read_text())
    rows = {row[0]: row[1:] for row in table["data"]}
    assert table["columns"] == ["metric", "value", "low", "high"] and len(rows) > 150
    expected = [metrics["test"]["hit_at_10"], *metrics["test"]["intervals"]["hit_at_10"]]
    assert rows["test/hit_at_10"] == pytest.approx(expected)
    for name in final & set(rows):
        assert shown[name] == pytest.approx(rows[name][0])
    assert {n for n in final if n.startswith(("test/", "baselines/", "valid/"))} <= set(rows)


def test_no_metric_of_a_run_is_lost_or_not_finite():
    metrics = {
        "valid": None,
        "test": {"ndcg_at_10": 0.5, "map_at_50": 0.1, "users": 3, "intervals": {"map_at_50": [0.0, 0.2]}},
        "liked": None,
        "cold": {"ndcg_at_10": 0.2, "auc": math.nan, "baselines": {"random": {"auc": 0.5}}, "all": {"auc": 0.4}},
        "known_users": {"users": 2, "ndcg_at_10": {"this model": 0.6}},
        "baselines": {"ease": {"ndcg_at_10": 0.4}},
    }
    table = metrics_table(metrics)
    rows = {name: (value, low, high) for name, value, low, high in table.iter_rows()}
    assert rows["test/map_at_50"] == (0.1, 0.0, 0.2) and rows["test/users"] == (3.0, None, None)
    assert rows["cold/baselines/random/auc"][0] == 0.5 and rows["cold/all/auc"][0] == 0.4
    assert table.filter(pl.col("value").is_nan()).is_empty()
    shown = headline_metrics(metrics)
    assert {n for n, v in shown.items() if math.isfinite(v)} <= set(rows) | {"known_users/ndcg_at_10"}
    assert shown["cold/ndcg_at_10"] == 0.2 and shown["known_users/ndcg_at_10"] == 0.6


def test_ui_opens_on_the_runs(trained, monkeypatch, tmp_path):
    folder, _ = trained
    started = []
    monkeypatch.setattr(os, "execv", lambda program, words: started.append(words))
    printed = recsys_here("ui", "--port", "5099", cwd=folder, MLFLOW_TRACKING_URI="").stdout
    experiment = newest_experiment(f"sqlite:///{folder}/mlflow.db")
    assert f"http://127.0.0.1:5099/#/experiments/{experiment}/runs?workflowType=machine_learning" in printed
    assert started[0][:4] == [sys.executable, "-m", "mlflow", "ui"] and "5099" in started[0]
    printed = recsys_here("ui", cwd=tmp_path, MLFLOW_TRACKING_URI="").stdout
    assert "http://127.0.0.1:5000/#/experiments " in printed and "no runs yet" in printed
    assert newest_experiment(f"sqlite:///{tmp_path}/mlflow.db") is None
