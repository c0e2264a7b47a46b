"""Runs side by side: what a training leaves for that, pictures, and the command that repeats it."""

import json
import shlex
import sqlite3

import numpy as np
import polars as pl
import pytest
from worlds import recsys_here, small

from recsys_embed import DataConfig, ModelConfig, RunConfig, TrainConfig, load_dataset
from recsys_embed.config.fields import NON_RESULT_SETTINGS, command, settings
from recsys_embed.config.settings import ContentConfig
from recsys_embed.errors import BundleError, DataError, SettingError, UnknownId
from recsys_embed.evaluation.compare import Run, compare
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.experiment.run import run_experiment
from recsys_embed.models.ranker import Ranker
from recsys_embed.recommender import Recommender

WORLD = "synthetic:users=70,items=40,ratings=1100"
PNG = b"\x89PNG"


def train(folder, name, seed=0, split_seed=0, track=False, data=None, **run):
    model, train = small("softmax", epochs=3, seed=seed)
    store = f"sqlite:///{folder}/mlflow.db"
    report = RunConfig(out=name, track=track, tracking_uri=store, resamples=20, map=False, **run)
    return run_experiment(data or DataConfig(WORLD, split_seed=split_seed), model, train, report)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with three models: two on one split, tracked, and one on another split."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ids = [train(folder, name, seed, track=True)[1]["run_id"] for seed, name in enumerate(("one", "two"))]
        train(folder, "apart", split_seed=5)
    return folder, ids


# What a training leaves


def test_the_test_of_every_user_is_in_the_folder(work):
    folder, _ = work
    loaded = Recommender.load(folder / "one")
    table = loaded.per_user
    metrics = loaded.metadata["metrics"]["test"]
    assert table.height == metrics["users"] and set(table["user_id"]) <= set(loaded.users.series)
    for name in table.columns[1:]:
        assert table[name].mean() == pytest.approx(metrics[name])
    assert {"ndcg_at_10", "recall_at_10", "hit_at_50"} <= set(table.columns)


def test_a_model_without_a_test_has_none_and_is_read(work, tmp_path):
    folder, _ = work
    loaded = Recommender.load(folder / "one")
    kept = Recommender.load(loaded.save(tmp_path / "kept"))
    assert kept.per_user.equals(loaded.per_user)
    loaded.state = loaded.state.replace(per_user=None)
    again = Recommender.load(loaded.save(tmp_path / "bare"))
    assert again.per_user is None and not (tmp_path / "bare" / "per_user.parquet").exists()
    assert again.recommend(5).equals(kept.recommend(5))
    data = load_dataset(WORLD).ratings
    assert Recommender(*small("softmax", epochs=1)).fit(data).per_user is None


def test_a_changed_table_is_refused(work, tmp_path):
    folder, _ = work
    copy = Recommender.load(folder / "one").save(tmp_path / "copy")
    (copy / "per_user.parquet").write_bytes(b"PAR1")
    with pytest.raises(BundleError, match="per_user.parquet was changed"):
        Recommender.load(copy)


def test_a_second_fit_forgets_the_first_ones_test(work):
    loaded = Recommender.load(work[0] / "one")
    loaded.configs = *small("softmax", epochs=1), ContentConfig()
    assert loaded.fit(load_dataset(WORLD).ratings).per_user is None


def test_how_often_an_item_is_shown_is_what_the_lists_say(work):
    loaded = Recommender.load(work[0] / "one")
    split = load_dataset(WORLD).split(DataConfig(WORLD, split_seed=0))
    report = rank_metrics(Ranker.of(loaded.model), split.test, loaded.seen, loaded.item_counts, (3, 10))
    for k in (3, 10):
        shown = loaded.recommend(report.per_user["user_id"].to_list(), k)["item_id"].to_list()
        assert [shown.count(item) for item in loaded.items.series] == report.exposure[k].tolist()


def test_the_digest_of_pairs_knows_neither_order_nor_vocabulary():
    ratings = load_dataset(WORLD).ratings
    mixed = ratings.take(np.random.default_rng(0).permutation(len(ratings)))
    more = mixed.with_items(pl.Series("item_id", [-5, 1, 999]))
    assert ratings.pairs_digest() == mixed.pairs_digest() == more.pairs_digest()
    assert more.digest() != mixed.digest() != ratings.digest()
    assert ratings.take(np.arange(1, len(ratings))).pairs_digest() != ratings.pairs_digest()


# Runs side by side


def test_a_run_is_the_same_from_its_folder_and_from_mlflow(work, monkeypatch):
    folder, ids = work
    monkeypatch.chdir(folder)
    for name, run_id in zip(("one", "two"), ids, strict=True):
        here, there = Run.read(name), Run.read(run_id[:6])
        assert there.name == run_id == here.metadata["run_id"]
        assert here.metadata == there.metadata and here.per_user.equals(there.per_user)


def test_two_runs_are_paired_over_the_users_of_both(work, monkeypatch):
    monkeypatch.chdir(work[0])
    one, two = Run.read("one"), Run.read("two")
    found = compare([one, two]).comparisons[0].difference
    assert found.mean == pytest.approx(two.test["ndcg_at_10"] - one.test["ndcg_at_10"]) and found.mean != 0
    fewer = Run("fewer", two.metadata, two.per_user.sort("ndcg_at_10").tail(40).sample(40, shuffle=True, seed=0))
    part = compare([one, fewer])
    joined = fewer.per_user.join(one.per_user, on="user_id")
    expected = (joined["ndcg_at_10"] - joined["ndcg_at_10_right"]).mean()
    assert part.comparisons[0].difference.users == 40 and part.comparisons[0].difference.mean == pytest.approx(expected)
    mixed = [Run("mixed", r.metadata, r.per_user.sample(fraction=1.0, shuffle=True, seed=0)) for r in (one, two)]
    assert (
        compare([one, mixed[1]]).comparisons[0].difference
        == compare([mixed[0], two]).comparisons[0].difference
        == found
    )
    assert compare([one, two]).differing_settings == ["seed"]
    swapped = compare([two, one]).comparisons[0].difference
    assert (swapped.mean, swapped.p) == (-found.mean, found.p)


def test_what_cannot_be_paired_says_why(work, monkeypatch):
    monkeypatch.chdir(work[0])
    one, two, apart = (Run.read(name) for name in ("one", "two", "apart"))
    assert "split_seed 5 and 0" in compare([one, apart]).comparisons[0].reason
    assert compare([one, two], "recall_at_20").comparisons[0].reason is None
    bare = Run("bare", two.metadata, None)
    assert "bare has no per-user metrics" in compare([one, bare]).comparisons[0].reason
    assert "coverage_at_10 is not a per-user metric" in compare([one, two], "coverage_at_10").comparisons[0].reason
    other = Run("other", {**two.metadata, "digest": "x", "test_digest": "y", "dataset": "b"}, two.per_user)
    assert "different data: b (digest x)" in compare([one, other]).comparisons[0].reason
    strangers = Run("strangers", two.metadata, two.per_user.with_columns(pl.col("user_id") + 10_000))
    assert compare([one, strangers]).comparisons[0].reason == "no user was tested in both"
    with pytest.raises(SettingError, match="no run was tested by ndcg_at_7; the metrics are coverage_at_10"):
        compare([one, two], "ndcg_at_7")


def test_the_beginning_of_an_id_must_name_one_run(work, tmp_path, monkeypatch):
    import mlflow

    store = f"sqlite:///{tmp_path}/m.db"
    monkeypatch.chdir(tmp_path)
    client = mlflow.MlflowClient(store)
    made = [client.create_run(client.create_experiment(name)).info.run_id for name in ("a", "b")]
    with sqlite3.connect(tmp_path / "m.db") as database:
        for old, new in zip(made, ("abcdef0" + "1" * 25, "abcdef0" + "2" * 25), strict=True):
            database.execute("UPDATE runs SET run_uuid = ? WHERE run_uuid = ?", (new, old))
            database.execute("UPDATE OR IGNORE tags SET run_uuid = ? WHERE run_uuid = ?", (new, old))
    with pytest.raises(UnknownId, match="several runs' ids begin with abcdef0: abcdef01.*, abcdef02"):
        Run.read("abcdef0", store)
    with pytest.raises(DataError, match="mlruns, and there is no such folder"):
        Run.read("abcdef02", store)
    (tmp_path / "mlruns").mkdir()
    with pytest.raises(BundleError, match="has no model.json"):
        Run.read("abcdef02", store)
    (tmp_path / "model.json").write_text("{")
    broken = client.create_run("1").info.run_id
    client.log_artifact(broken, str(tmp_path / "model.json"))
    with pytest.raises(BundleError, match="is broken"):
        Run.read(broken, store)
    with pytest.raises(UnknownId, match="no run's id begins with fedcba"):
        Run.read("fedcba", store)


@pytest.mark.slow
def test_the_command_shows_runs_side_by_side(work, tmp_path):
    folder, ids = work
    store = ("--tracking-uri", f"sqlite:///{folder}/mlflow.db")
    done = recsys_here("compare", "one", ids[1][:8], "apart", *store, "--out", str(tmp_path / "all.svg"), cwd=folder)
    lines = done.stdout.splitlines()
    assert lines[:3] == ["1  one", f"2  {ids[1]}", "3  apart"]
    assert [line.split() for line in lines if line.startswith("--")] == [
        ["--split-seed", "0", "0", "5"],
        ["--seed", "0", "1", "0"],
    ]
    assert "3 cannot be compared with 1 user by user: they were tested on different ratings" in done.stdout
    assert (tmp_path / "all.svg").read_text().startswith("<?xml")
    said = json.loads(recsys_here("compare", "two", "one", "--json", "--metric", "recall_at_10", cwd=folder).stdout)
    first, second = said["runs"]
    gap = second["metrics"]["recall_at_10"] - first["metrics"]["recall_at_10"]
    assert said["metric"] == "recall_at_10" and "difference" not in first and second["why_not"] is None
    assert second["difference"]["mean"] == pytest.approx(gap)
    assert set(second["difference"]) == {"mean", "low", "high", "p", "users", "clear"}
    assert second["settings"] == {"seed": 0} and first["settings"] == {"seed": 1}


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("one",), 2, "two runs or more, got 1"),
        (("one", "nowhere"), 5, "nowhere is neither a model folder, nor models:/NAME@ALIAS, nor a run id"),
        (("one", "abcde"), 5, "abcde is neither a model folder"),
        (("one", "abcdef"), 3, "there is no MLflow store /"),
        (("one", "two", "--out", "a.gif"), 2, "must end in .png, .svg or .pdf"),
        (("one", "two", "--metric", "ndcg"), 2, "no run was tested by ndcg"),
    ],
)
def test_mistakes_are_one_line(work, tmp_path, args, code, message):
    paths = [str(work[0] / word) if word in ("one", "two") else word for word in args]
    done = recsys_here("compare", *paths, cwd=tmp_path, code=code)
    assert message in done.stderr and done.stderr.count("\n") == 1 and not done.stdout
    assert not list(tmp_path.iterdir())


# Pictures and descriptions


def test_a_run_has_pictures_a_description_and_the_users(work):
    import mlflow

    folder, ids = work
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    paths = {a.path for a in client.list_artifacts(ids[0], "pictures")}
    assert paths == {f"pictures/{name}.png" for name in ("curves", "users", "popularity")}
    root = client.get_run(ids[0]).info.artifact_uri.removeprefix("file://")
    assert all(open(f"{root}/{path}", "rb").read(4) == PNG for path in paths)
    note = client.get_run(ids[0]).data.tags["mlflow.note.content"]
    metrics = Run.read(str(folder / "one")).metadata["metrics"]
    times = metrics["test"]["ndcg_at_10"] / metrics["baselines"]["popularity"]["ndcg_at_10"]
    assert f"{times:.1f} x popularity" in note and "x EASE" in note
    assert f"recsys train --dataset {WORLD} " in note and "mlflow.db" not in note


def test_a_picture_that_fails_loses_no_training(tmp_path, monkeypatch, caplog):
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("recsys_embed.plots.training.draw_training", lambda *_: 1 / 0)
    _, report = train(tmp_path, "model", track=True)
    assert "pictures of it could not be drawn (division by zero)" in caplog.text
    run = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(report["run_id"])
    assert run.info.status == "FINISHED" and (tmp_path / "model" / "manifest.json").exists()
    assert run.outputs.model_outputs


def test_pictures_need_neither_validation_nor_baselines(tmp_path, monkeypatch):
    from recsys_embed.evaluation.training_report import training_report
    from recsys_embed.plots.training import draw_training

    monkeypatch.chdir(tmp_path)
    data = DataConfig(WORLD, valid_share=0.0, split_seed=0)
    recommender, _ = train(tmp_path, "model", data=data, baselines=False)
    split = load_dataset(WORLD).split(data)
    measured = training_report(
        recommender.state, split.train, split, None, data, RunConfig(baselines=False, resamples=0)
    )
    drawn = draw_training(recommender, measured, tmp_path)
    assert [path.name for path in drawn] == ["curves.png", "users.png", "popularity.png"]
    nothing = measured._replace(test=None)
    assert [path.name for path in draw_training(recommender, nothing, tmp_path)] == ["curves.png"]


# The command that repeats a training

GIVEN = [
    {"dataset": "movielens"},
    {"dataset": "my ratings.csv", "columns": "user,item", "min_rating": -1.5, "split_seed": 0, "offline": True},
    {"loss": "mse", "lr": 1e-05, "refit": False, "biases": False, "cosine": True, "patience": 0, "ks": "5,10"},
    {"text": "title,it's; rm -rf $HOME", "split": "cold-items", "baselines": False, "out": "x", "max_grad_norm": 3.0},
]


@pytest.mark.parametrize("given", GIVEN)
def test_the_command_of_a_training_repeats_it(given):
    import typer.main

    from recsys_embed.cli.main import app

    kinds = (DataConfig, ContentConfig, ModelConfig, TrainConfig, RunConfig)
    configs = [kind(**{k: v for k, v in given.items() if k in kind.__dataclass_fields__}) for kind in kinds]
    words = shlex.split(command(*configs))
    assert words[:2] == ["recsys", "train"]
    parsed = typer.main.get_command(app).commands["train"].make_context("train", words[2:]).params
    wanted = settings(*configs)
    assert {k: parsed[k] for k in wanted if k not in NON_RESULT_SETTINGS} == {
        k: v for k, v in wanted.items() if k not in NON_RESULT_SETTINGS
    }
    named = [name for name in given if name not in NON_RESULT_SETTINGS] if given != GIVEN[0] else ["dataset"]
    assert sum(word.startswith("--") for word in words) == len({*named, "dataset"})


def test_data_that_was_handed_over_has_no_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configs = DataConfig(WORLD), *small("softmax", epochs=1), RunConfig(out="a", track=False, resamples=0)
    handed, _ = run_experiment(*configs, dataset=load_dataset(WORLD))
    assert "command" not in handed.metadata and "recsys train" not in handed.card()


def test_runs_fitted_on_other_rows_ranked_other_items(work):
    one = Run.read(str(work[0] / "one"))
    other = Run("other", {**one.metadata, "fitted_digest": "another"}, one.per_user)
    beside = compare([one, other]).comparisons[0]
    assert beside.difference is None and "fitted on different ratings" in beside.reason


def test_colours_are_forced_on_a_whole_command(work):
    forced = recsys_here("recommend", "--user", "7", "--model", "one", cwd=work[0], FORCE_COLOR="1", NO_COLOR="").stdout
    assert forced.count("\x1b[1m") == 1


def test_chosen_weights_of_events_are_a_setting_that_differs():
    def run(name, **weights):
        types = {event: {"weight": weight, "is_target": True, "hides": True} for event, weight in weights.items()}
        return Run(name, {"settings": {"event_weights": "auto"}, "events": types}, None)

    runs = [run("a", view=1.0, purchase=1.32), run("b", view=0.0, purchase=1.0)]
    assert runs[0].settings["event_weights"] == "auto: view=1,purchase=1.32"
    assert compare(runs).differing_settings == ["event_weights"]
    assert not compare([runs[0], runs[0]]).differing_settings
