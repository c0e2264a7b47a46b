"""One training from file to report, where the command line cannot look."""

import json
import re

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner
from worlds import small

from recsys_embed import ContentConfig, DataConfig, RunConfig, load_dataset
from recsys_embed.cli.main import app
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.splits import Split
from recsys_embed.errors import BundleError, DataError
from recsys_embed.evaluation import baselines, training_report
from recsys_embed.evaluation.evaluate import evaluate, rank_metrics
from recsys_embed.evaluation.significance import paired
from recsys_embed.experiment import fit_and_refit as refit
from recsys_embed.experiment.prepare import Prepared
from recsys_embed.experiment.run import run_experiment
from recsys_embed.features.item_features import encode_items
from recsys_embed.recommender import Recommender
from recsys_embed.tracking.mlflow_tracker import MLflowTracker
from recsys_embed.tracking.progress import BarTracker
from recsys_embed.tracking.tracker import Tracker
from recsys_embed.training.fit import fit_state

WORLD = "synthetic:users=60,items=40,ratings=900"
SPLIT = load_dataset(WORLD).split(DataConfig(WORLD, split_seed=0))


def run(tmp_path, loss="softmax", name="model", data=None, resamples=0, **given):
    model, train = small(loss, **{"epochs": 3, **given})
    options = RunConfig(out=str(tmp_path / name), track=False, resamples=resamples)
    return run_experiment(data or DataConfig(WORLD), model, train, options)


def test_the_refit_knows_validation_too_and_the_rest_is_held(tmp_path):
    refitted, _ = run(tmp_path)
    plain, _ = run(tmp_path, name="plain", refit=False)
    assert len(refitted.seen) == len(SPLIT.train) + len(SPLIT.valid) and len(refitted.held_out) == len(SPLIT.test)
    assert len(plain.seen) == len(SPLIT.train) and len(plain.held_out) == len(SPLIT.valid) + len(SPLIT.test)
    assert not np.array_equal(refitted.model.items, plain.model.items)
    expected = Recommender(*small("softmax", epochs=3)).fit(SPLIT.train, epochs=plain.training.epochs)
    assert np.array_equal(plain.model.items, expected.model.items)


def test_the_report_is_in_the_folder(tmp_path):
    recommender, report = run(tmp_path)
    facts = json.loads((tmp_path / "model" / "model.json").read_text())
    assert facts["metrics"] == report["metrics"] and facts["settings"] == report["settings"]
    assert facts["digest"] == load_dataset(WORLD).ratings.digest()
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"{report['metrics']['test']['ndcg_at_10']:.4f}" in card and "| ease |" in card
    assert Recommender.load(tmp_path / "model").recommend(5).equals(recommender.recommend(5))


def test_a_threshold_makes_positives_and_hides_the_rest(tmp_path):
    data = DataConfig(WORLD, min_rating=4.0)
    recommender, report = run(tmp_path, data=data)
    fitted = len(SPLIT.train) + len(SPLIT.valid)
    assert len(recommender.seen) == fitted
    assert recommender.item_counts.sum() == sum(int((part.value >= 4).sum()) for part in (SPLIT.train, SPLIT.valid))
    relevant = int((SPLIT.test.value >= 4).sum())
    assert report["metrics"]["test"]["rows"] + report["metrics"]["test"]["left_out"] == relevant


def test_a_place_that_cannot_be_written_is_refused_before_the_training(tmp_path, monkeypatch):
    (tmp_path / "model").write_text("mine")
    monkeypatch.setattr("recsys_embed.experiment.run.fit_and_refit", lambda *_: pytest.fail("it trained first"))
    with pytest.raises(BundleError, match="is not a model"):
        run(tmp_path)
    assert (tmp_path / "model").read_text() == "mine"


def test_ctrl_c_in_the_first_fit_keeps_its_best_epoch(tmp_path, monkeypatch):
    def metrics(self, values, step=None):
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(BarTracker, "metrics", metrics)
    recommender, report = run(tmp_path, patience=0)
    assert recommender.training.stopped == "interrupted" and report["epochs"] <= 2
    assert len(recommender.seen) == len(SPLIT.train)
    assert (tmp_path / "model" / "manifest.json").exists()


@pytest.mark.parametrize("at", [0, 1])
def test_ctrl_c_in_the_refit_keeps_the_model_that_was_measured(tmp_path, monkeypatch, at):
    def progress(done, total, note="", unit="epoch"):
        if done >= at:
            raise KeyboardInterrupt

    monkeypatch.setattr(refit.ProgressOnly, "__init__", lambda self, _: setattr(self, "progress", progress))
    recommender, _ = run(tmp_path, patience=0)
    assert len(recommender.seen) == len(SPLIT.train) and len(recommender.held_out) == len(SPLIT.valid) + len(SPLIT.test)
    again, _ = run(tmp_path, name="again", patience=0, refit=False)
    assert again.recommend(7).equals(recommender.recommend(7))


def test_the_refit_takes_as_many_epochs_as_were_best(tmp_path, monkeypatch):
    told = iter([0.1, 0.5, 0.2])
    better = ("ndcg_at_10", 1)
    monkeypatch.setattr(refit, "validation", lambda *_: (lambda _model: {"ndcg_at_10": next(told)}, better))
    recommender, report = run(tmp_path, patience=0)
    rows = SPLIT.train.concat(SPLIT.valid)
    expected = Recommender(*small("softmax", epochs=3, patience=0)).fit(rows, epochs=2)
    assert report["epochs"] == 2 and np.array_equal(recommender.model.items, expected.model.items)


@pytest.mark.parametrize("family", ["embeddings", "both"])
def test_with_a_cosine_the_refit_trains_on(tmp_path, family, monkeypatch):
    better = ("ndcg_at_10", 1)
    monkeypatch.setattr(refit, "validation", lambda *_: (lambda _model: {"ndcg_at_10": 0.5 + next(rising)}, better))
    rising = iter(np.arange(100.0))
    options = {"cosine": True, "epochs": 8, "patience": 0, "init_scale": 1.0, "model_family": family}
    first, _ = run(tmp_path, refit=False, **options)
    recommender, report = run(tmp_path, name="refitted", **options)
    assert report["epochs"] == first.training.epochs == recommender.metadata["epochs"]
    assert recommender.metadata["settings"]["epochs"] == 8 and "continued" not in recommender.metadata
    configs = *small("softmax", **options), ContentConfig()
    rows = SPLIT.train.concat(SPLIT.valid)
    expected, trained = fit_state(rows, configs, initial=first.embeddings)
    assert len(trained.history) == 2 and np.array_equal(recommender.model.items, expected.model.items)
    cosine = (recommender.model.items * first.model.items).sum(axis=1)
    assert np.median(cosine) > 0.9  # vectors that were moved, not drawn anew


@pytest.mark.parametrize("given", [{"cosine": False}, {"cosine": True, "user_tower": "both"}, {"loss": "bpr"}, {}])
def test_the_refit_starts_again_where_training_on_was_not_tried_or_went_too_far(tmp_path, monkeypatch, given):
    told = iter([0.5, 0.1, 0.1] if not given else [0.1, 0.2, 0.3])
    better = ("ndcg_at_10", 1)
    monkeypatch.setattr(refit, "validation", lambda *_: (lambda _model: {"ndcg_at_10": next(told)}, better))
    options = {"patience": 0, **(given or {"cosine": True})}
    recommender, report = run(tmp_path, **options)
    rows = SPLIT.train.concat(SPLIT.valid)
    expected = Recommender(*small(**{"loss": "softmax", "epochs": 3, **options})).fit(rows, epochs=report["epochs"])
    assert np.array_equal(recommender.model.items, expected.model.items)


def test_baselines_and_liked_rows_are_what_they_say(tmp_path):
    _, report = run(tmp_path)
    rows = SPLIT.train.concat(SPLIT.valid)
    expected = rank_metrics(baselines.popularity(rows), SPLIT.test, rows.seen(), rows.item_counts, (10,))
    metrics = report["metrics"]
    assert metrics["baselines"]["popularity"]["ndcg_at_10"] == pytest.approx(expected.metrics["ndcg_at_10"])
    liked = metrics["liked"]
    assert liked["threshold"] == 4.0 and liked["rows"] + liked["left_out"] == int((SPLIT.test.value >= 4).sum())


def test_a_baseline_says_how_sure_the_difference_is(tmp_path):
    recommender, report = run(tmp_path, resamples=200)
    test, found = report["metrics"]["test"], report["metrics"]["baselines"]
    for name, values in found.items():
        difference = values["difference"]
        assert difference["mean"] == pytest.approx(test["ndcg_at_10"] - values["ndcg_at_10"]), name
        assert difference["low"] <= difference["mean"] <= difference["high"]
        assert difference["users"] == test["users"]
    rows = SPLIT.train.concat(SPLIT.valid)
    other = rank_metrics(baselines.popularity(rows), SPLIT.test, rows.seen(), rows.item_counts, (10,)).per_user
    both = recommender.per_user.join(
        other, on="user_id", suffix="_other", maintain_order="left"
    )  # by id, whatever the rows' order
    expected = paired(both["ndcg_at_10"], both["ndcg_at_10_other"], 200)
    assert found["popularity"]["difference"] == {"metric": "ndcg_at_10", **expected.summary()}
    again = Recommender.load(tmp_path / "model")
    assert again.metadata["metrics"]["baselines"]["ease"]["difference"] == found["ease"]["difference"]
    assert f"against ease: {found['ease']['difference']['mean']:+.4f}" in again.card()
    assert "difference" not in run(tmp_path)[1]["metrics"]["baselines"]["ease"]  # of no resample


def test_the_seed_reaches_the_split(tmp_path):
    one, other = (run(tmp_path, name=f"m{seed}", seed=seed)[0] for seed in (0, 1))
    assert not np.array_equal(one.held_out.indices, other.held_out.indices)


def test_overlapping_files_are_refused(tmp_path):
    frame = SPLIT.train.frame()
    frame.write_csv(tmp_path / "train.csv")
    frame.head(3).write_csv(tmp_path / "test.csv")
    data = DataConfig(str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"))
    with pytest.raises(DataError, match="are in test too"):
        run(tmp_path, data=data)


def test_mlflow_gets_no_number_that_is_not_finite_and_a_failure_loses_none(tmp_path):
    import mlflow

    tracker = MLflowTracker(f"sqlite:///{tmp_path}/mlflow.db", "x", {})
    with tracker:
        tracker.metrics({"good": 1.0, "nan": float("nan"), "infinite": float("inf")}, 1)
        tracker.artifact(tmp_path / "there is no such file")
        assert not tracker.alive
    run_ = mlflow.MlflowClient(tracker.uri).get_run(tracker.run_id)
    assert run_.data.metrics == {"good": 1.0} and run_.info.status == "FINISHED"


def test_above_a_size_a_sample_of_the_users_is_measured(tmp_path, monkeypatch):
    _, everyone = run(tmp_path)
    monkeypatch.setattr(training_report, "_TEST_USERS", 20)
    monkeypatch.setattr(training_report, "_VALIDATION_USERS", 10)
    recommender, report = run(tmp_path, name="sample", resamples=100)
    test = report["metrics"]["test"]
    assert test["users"] == 20 and test["drawn_from"] == everyone["metrics"]["test"]["users"] == 60
    valid = report["metrics"]["valid"]
    assert valid["users"] == 10 and valid["drawn_from"] == everyone["metrics"]["valid"]["users"]
    assert "test ratings of 20 users of 60, drawn at random" in (tmp_path / "sample" / "README.md").read_text()
    for name, found in report["metrics"]["baselines"].items():
        assert found["difference"]["users"] == 20, name
    drawn = SPLIT.test.users.rows(recommender.per_user["user_id"])
    rows = SPLIT.test.take(np.isin(SPLIT.test.user, drawn))
    expected = evaluate(recommender, rows, (10,)).metrics["ndcg_at_10"]
    assert test["ndcg_at_10"] == pytest.approx(expected)
    options = RunConfig(out=str(tmp_path / "all"), track=False, resamples=0, evaluate_all=True)
    _, report = run_experiment(DataConfig(WORLD), *small("softmax", epochs=3), options)
    assert report["metrics"]["test"] == everyone["metrics"]["test"]


@pytest.mark.parametrize("split", ["random", "time"])
def test_the_command_says_that_users_were_drawn_and_that_a_random_split_flatters(tmp_path, monkeypatch, split):
    monkeypatch.setattr(training_report, "_TEST_USERS", 5)
    options = ["--model-family", "embeddings", "--epochs", "1", "--dim", "4", "--no-track", "--resamples", "0"]
    done = CliRunner().invoke(
        app, ["train", "--dataset", WORLD, "--split", split, *options, "--out", str(tmp_path / "m")]
    )
    assert done.exit_code == 0
    assert re.search(r"test, [45] users drawn from \d+ \(--evaluate-all takes all\)", done.output)
    assert ("a random split flatters" in done.output) == (split == "random")


@pytest.mark.parametrize("family", ["embeddings", "both"])
def test_descriptions_leave_lists_of_rated_items_alone_after_the_second_fit_too(family):
    """Items of validation alone have a vector from their description in the first fit, and start anew in the second;
    items of neither part have one to the end."""
    rare = np.argsort(SPLIT.train.item_counts)[:6]
    train, valid = (part.take(~np.isin(part.item, rare)) for part in SPLIT[:2])
    unknown = SPLIT.train.take(np.isin(SPLIT.train.item, rare[:3]))
    split = Split(train, valid.concat(unknown), SPLIT.test)
    table = pl.DataFrame({"item_id": SPLIT.train.items.series, "kind": [f"kind{n % 3}" for n in range(40)]})
    models = []
    for content in (ContentConfig(), ContentConfig(text="kind")):
        options = *small("softmax", cosine=True, epochs=4, model_family=family), RunConfig(resamples=0)
        configs = refit.Configs(DataConfig(WORLD), *options, content)
        features = encode_items(table, content) if content.any else None
        prepared = Prepared(configs.data, Dataset(split.train, table), split, features)
        models.append(refit.fit_and_refit(prepared, configs, Tracker()).state.model)
    rated = train.concat(unknown).item_counts > 0
    assert not rated.all()
    for name, array in models[0].save()[0].items():
        rows = rated if name in ("items", "item_bias") else slice(None)
        assert np.array_equal(array[rows], models[1].save()[0][name][rows]), name
