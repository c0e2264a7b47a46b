"""From a measured model to the one in use: fitted on everything, registered if it is good enough."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from worlds import recsys_here, small, tastes

from recsys_embed.config.settings import DataConfig, RunConfig
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import split_random
from recsys_embed.errors import DataError
from recsys_embed.evaluation.admission import (
    compare_as_measured,
    compare_with_served,
    worse_than_popularity,
    worse_than_served,
)
from recsys_embed.evaluation.evaluate import evaluate, rank_metrics
from recsys_embed.experiment.run import run_experiment
from recsys_embed.recommender import Recommender
from recsys_embed.reports.write import report_html
from recsys_embed.tracking.model_registry import version_of

RATINGS, _, _ = tastes(users=60)
DATA = DataConfig(split_seed=3)


def run(tmp_path, name="m", **given):
    settings = RunConfig(**{"track": False, "out": str(tmp_path / name), "resamples": 200, **given})
    model, train = small("softmax", epochs=8, dim=6, batch_users=16)
    return run_experiment(DATA, model, train, settings, dataset=Dataset(RATINGS, None))


def test_a_model_for_production_knows_everything_and_was_measured_before(tmp_path):
    measured, before = run(tmp_path)
    made, report = run(tmp_path, "p", for_production=True)
    assert report["metrics"]["test"] == before["metrics"]["test"] and "production" in report["seconds"]
    loaded = Recommender.load(tmp_path / "p")
    for model in (made, loaded):
        assert len(model.seen) == len(RATINGS) > len(measured.seen) and not len(model.held_out)
        assert model.item_counts.sum() == len(RATINGS)
        lists = model.recommend(k=40)
        known = set(zip(RATINGS.users.ids(RATINGS.user), RATINGS.items.ids(RATINGS.item), strict=True))
        assert not known & set(zip(lists["user_id"], lists["item_id"], strict=True))
        assert model.per_user.equals(measured.per_user)
    assert loaded.metadata["production"] == {"ratings": len(RATINGS), "measured_on": len(measured.seen)}
    assert "then fitted on all" in loaded.card()
    with pytest.raises(DataError, match="was fitted on"):
        evaluate(made, split_random(RATINGS, 0.1, 0.1, 3)[2])


def test_its_report_groups_by_what_was_known_when_it_was_measured(tmp_path):
    file = tmp_path / "r.csv"
    RATINGS.frame().write_csv(file)

    def sections(name, **given):
        settings = RunConfig(track=False, out=str(tmp_path / name), resamples=0, **given)
        model, train = small("softmax", epochs=8, dim=6, batch_users=16)
        run_experiment(replace(DATA, dataset=str(file)), model, train, settings)
        found = report_html(Recommender.load(tmp_path / name), "r").split("<section")
        return {part[:30]: part for part in found if 'id="fails"' in part or 'id="better"' in part}

    measured, production = sections("m"), sections("p", for_production=True)
    assert len(measured) == 2 and "Lists with a hit" in str(measured) and "Bestsellers and rare" in str(measured)
    assert production == measured


def test_held_out_files_are_part_of_everything(tmp_path):
    train, valid, test = split_random(RATINGS, 0.1, 0.1, 3)
    model, settings = small("softmax", epochs=2, dim=4, batch_users=16)
    options = RunConfig(track=False, out=str(tmp_path / "m"), for_production=True, baselines=False)
    for parts in (Dataset(train, None, valid, test), Dataset(train, None, None, test), Dataset(train, None, valid)):
        made, _ = run_experiment(DATA, model, settings, options, dataset=parts)
        assert len(made.seen) == len(train) + sum(len(part) for part in (parts.valid, parts.test) if part is not None)


def test_an_interrupted_fit_for_production_leaves_the_measured_model(tmp_path, monkeypatch, caplog):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    from recsys_embed.experiment import production

    plain = production.fit_on_everything
    monkeypatch.setattr(
        "recsys_embed.experiment.run.fit_on_everything",
        lambda fit, *rest: plain(fit._replace(again=interrupted), *rest),
    )
    made, _ = run(tmp_path, for_production=True)
    assert "was interrupted" in caplog.text and "production" not in made.metadata
    assert len(Recommender.load(tmp_path / "m").held_out)


def fit(rows, held_out, epochs=40, **given):
    configs = small("softmax", dim=6, batch_users=16, **given)
    return Recommender(configs[0], replace(configs[1], epochs=epochs)).fit(rows, held_out=held_out).state


BEST = fit(RATINGS, None, epochs=1)


def difference(**given):
    return {"mean": -0.02, "low": -0.03, "high": -0.01, "clear": True, **given}


@pytest.mark.parametrize(
    ("measured", "refused"),
    [
        ({}, None),
        ({"popularity": difference()}, "clearly worse than popularity"),
        ({"popularity": difference(clear=False)}, None),
        ({"popularity": difference(mean=0.02)}, None),
        ({"recent_popularity": difference()}, "clearly worse than recent popularity"),
        ({"ease": difference()}, None),
    ],
)
def test_who_is_worse_than_popularity(measured, refused):
    metrics = {"baselines": {name: {"difference": d} for name, d in measured.items()}}
    found = worse_than_popularity(BEST.replace(metadata={"metrics": metrics}))
    assert found is None if refused is None else refused in found
    for metadata in ({}, {"metrics": {"test": None, "baselines": {}}}):
        assert worse_than_popularity(BEST.replace(metadata=metadata)) is None
    stars = replace(BEST.model, output="stars")
    assert worse_than_popularity(BEST.replace(model=stars, metadata={"metrics": metrics})) is None


def test_a_model_is_compared_with_the_one_it_replaces():
    train, _, test = split_random(RATINGS, 0.2, 0.2, 1)
    good, other, bad = fit(train, test), fit(train, test, seed=5), fit(train, test, epochs=1, lr=1e-4)
    same = compare_with_served(good, good, train, test)
    assert (same.mean, same.low, same.high) == (0, 0, 0) and worse_than_served(same, "x") is None
    worse, better = compare_with_served(bad, good, train, test), compare_with_served(good, bad, train, test)
    assert worse.mean == pytest.approx(-better.mean) and worse.mean < -0.1
    assert "clearly worse than models:/shop@champion" in worse_than_served(worse, "models:/shop@champion")
    assert worse_than_served(better, "x") is None and worse_than_served(None, "x") is None
    # The values are those of the evaluation.
    values = rank_metrics(good.ranker, test, good.excluded, good.item_counts).metrics["ndcg_at_10"]
    others = rank_metrics(other.ranker, test, other.excluded, other.item_counts).metrics["ndcg_at_10"]
    assert compare_with_served(good, other, train, test).mean == pytest.approx(values - others)
    # A model that was fitted on the test has nothing to be measured by, and one that lacks ratings takes them in.
    assert compare_with_served(good, fit(RATINGS, None), train, test) is None
    early = fit(train.take(train.user < 40), None)
    assert compare_with_served(good, early, train, test).users == same.users


def test_models_for_production_are_compared_as_they_were_measured():
    per_user = pl.DataFrame({"user_id": np.arange(40), "ndcg_at_10": np.linspace(0, 1, 40)})
    served = BEST.replace(metadata={"test_digest": "a"}, per_user=per_user.sample(fraction=1, shuffle=True, seed=1))
    worse = per_user.with_columns(pl.col("ndcg_at_10") * 0.5, pl.col("user_id").cast(pl.String))
    found = compare_as_measured(BEST.replace(metadata={"test_digest": "a"}, per_user=worse), served)
    assert found.mean == pytest.approx(-0.25) and found.users == 40
    assert "clearly worse" in worse_than_served(found, "x")
    for digest, table in (("b", worse), (None, worse), ("a", None), ("a", worse.head(19))):
        assert compare_as_measured(BEST.replace(metadata={"test_digest": digest}, per_user=table), served) is None
    unknown = BEST.replace(metadata={}, per_user=worse)
    assert compare_as_measured(unknown, unknown) is None


@pytest.mark.slow
def test_what_is_clearly_worse_is_not_registered(tmp_path):
    RATINGS.frame().write_csv(tmp_path / "r.csv")
    common = ("train", "--dataset", "r.csv", "--register", "shop@champion", "--test-share", "0.3", "--no-map")
    common += ("--model-family", "embeddings", "--loss", "softmax", "--no-cosine")
    poor = ("--dim", "2", "--epochs", "1", "--lr", "0.0001", "--no-refit")
    done = recsys_here(*common, "--dim", "8", "--epochs", "30", "--lr", "0.05", cwd=tmp_path)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    assert version_of("models:/shop@champion", store) == "1", done.stderr
    refused = recsys_here(*common, *poor, "--json", cwd=tmp_path, code=6)
    report = json.loads(refused.stdout)
    assert "it is clearly worse than" in refused.stderr and "--allow-worse" in refused.stderr
    assert not report["registration"]["registered"] and report["registration"]["comparison"]["mean"] < 0
    assert (tmp_path / report["model"] / "manifest.json").exists(), "it is saved all the same"
    assert version_of("models:/shop@champion", store) == "1"
    production = recsys_here(*common, "--dim", "8", "--epochs", "30", "--lr", "0.05", "--for-production", cwd=tmp_path)
    assert version_of("models:/shop@champion", store) == "2", production.stderr
    refused = recsys_here(*common, *poor, "--for-production", "--json", cwd=tmp_path, code=6)
    assert json.loads(refused.stdout)["registration"]["comparison"]["mean"] < 0, "it knows the test, and was measured"
    recsys_here(*common, *poor, "--allow-worse", cwd=tmp_path)
    assert version_of("models:/shop@champion", store) == "3"
    start = recsys_here(
        "train", "--dataset", "r.csv", "--warm-start", "models:/shop/1", "--no-map", "--json", cwd=tmp_path
    )
    settings = json.loads(start.stdout)["settings"]
    assert settings["dim"] == 8 and settings["warm_start"] == "models:/shop/1"


def test_a_training_is_done_again_by_one_word(tmp_path):
    """A week later there are more ratings, in the file and from the service."""
    rows = RATINGS.frame()
    rows.head(400).write_csv(tmp_path / "r.csv")
    rows[400:420].write_csv(tmp_path / "more.csv")
    first = ("train", "--dataset", "r.csv", "--register", "shop@champion", "--dim", "8", "--epochs", "3", "--no-map")
    recsys_here(*first, "--model-family", "embeddings", "--min-rating", "0.5", "--experiment", "weekly", cwd=tmp_path)
    line = recsys_here("retrain", "--dry-run", "--from-scratch", cwd=tmp_path).stdout
    for text in ("--dataset r.csv", "--dim 8", "--register shop@champion", "--for-production", "--experiment weekly"):
        assert line.count(text) == 1, line
    rows.head(440).write_csv(tmp_path / "r.csv")
    again = (
        "retrain",
        "--model",
        "models:/shop@champion",
        "--extra-ratings",
        "more.csv",
        "--allow-worse",
        "--out",
        "new",
        "--json",
    )
    report = json.loads(recsys_here(*again, cwd=tmp_path).stdout)
    assert report["registration"]["registered"] and report["registration"]["comparison"] is not None
    model = Recommender.load(tmp_path / "new")
    assert len(model.seen) == 440 and model.metadata["settings"]["dim"] == 8 and model.metadata["production"]
    assert version_of("models:/shop@champion", f"sqlite:///{tmp_path}/mlflow.db") == "2"
    line = recsys_here("retrain", "--model", "new", "--warm-start", "--measured-only", "--dry-run", cwd=tmp_path).stdout
    assert "--warm-start new" in line and "--for-production" not in line and "--extra-ratings more.csv" in line
    other = recsys_here("retrain", "--model", "new", "--extra-ratings", "third.csv", "--dry-run", cwd=tmp_path)
    assert "more.csv, which the model was trained on, are left out" in other.stderr and "third.csv" in other.stdout
    (tmp_path / "r.csv").unlink()
    assert "r.csv" in recsys_here("retrain", "--model", "new", cwd=tmp_path, code=3).stderr
    model.metadata.pop("command")
    model.save(tmp_path / "python")
    assert "passed in Python" in recsys_here("retrain", "--model", "python", cwd=tmp_path, code=2).stderr


def test_lists_in_files_have_titles_and_say_what_is_wrong(tmp_path):
    model, _ = run(tmp_path)
    users = model.users.series
    everything = Ratings.from_frame(pl.DataFrame({"user": [int(users[0])] * 60, "item": model.items.series[:60]}))
    model.update(everything)
    model.save(tmp_path / "m")
    lists = ("recommend", "--model", "m", "--all-users", "--k", "3", "--out")
    done = recsys_here(*lists, "long.parquet", "--json", cwd=tmp_path)
    report, long = json.loads(done.stdout), pl.read_parquet(tmp_path / "long.parquet")
    assert long.columns == ["user_id", "item_id", "title", "score", "rank"]
    assert (report["rows"], report["lists"], report["without_list"]) == (long.height, len(users) - 1, 1)
    assert f"1 user has no list, since nothing is left for them: {users[0]}" in done.stderr
    held = model.held_out.pairs_of(np.arange(len(users)))
    pairs = set(zip(model.users.ids(held[0]), model.items.ids(held[1]), strict=True))
    wanted = {user for user, item in long.select("user_id", "item_id").rows() if (user, item) in pairs}
    assert (
        report["held_out"] == len(wanted) > 5 and f"{len(wanted)} of {len(users) - 1} lists have items" in done.stderr
    )
    hidden = recsys_here(*lists, "hidden.csv", "--hide-test", "--json", cwd=tmp_path)
    assert json.loads(hidden.stdout)["held_out"] == 0 and "held out" not in hidden.stderr
    recsys_here(*lists, "wide.csv", "--shape", "wide", cwd=tmp_path)
    recsys_here(*lists, "json.jsonl", "--shape", "json", cwd=tmp_path)
    wide, packed = pl.read_csv(tmp_path / "wide.csv"), pl.read_ndjson(tmp_path / "json.jsonl")
    assert wide.height == packed.height == len(users)
    assert wide.columns == ["user_id", *(f"{name}_{n}" for n in (1, 2, 3) for name in ("item", "title", "score"))]
    for user, items in packed.rows():
        own = long.filter(pl.col("user_id") == user)
        assert [entry["item"] for entry in json.loads(items)] == own["item_id"].to_list()
        (row,) = wide.filter(pl.col("user_id") == user).select("item_1", "item_2", "item_3").rows()
        assert [item for item in row if item is not None] == own["item_id"].to_list()
