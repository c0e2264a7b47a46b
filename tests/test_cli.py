"""The command line, run as a user runs it."""

import csv
import json
import os
import shutil

import polars as pl
import pytest
from worlds import recsys, recsys_here

from recsys_embed.cli.loading import load
from recsys_embed.cli.output import p_text
from recsys_embed.config.settings import RunConfig
from recsys_embed.errors import DataError, SettingError, UnknownId
from recsys_embed.recommender import Recommender
from recsys_embed.tracking import model_registry as registry
from recsys_embed.tracking.mlflow_tracker import MLflowTracker
from recsys_embed.tracking.model_registry import model_folder, version_of

WORLD = "synthetic:users=80,items=50,ratings=1500"
FAST = ("--dataset", WORLD, "--epochs", "4", "--dim", "8", "--resamples", "50")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which one tracked training was run, and what it printed."""
    folder = tmp_path_factory.mktemp("work")
    done = recsys_here("train", *FAST, "--register", "shop@champion", "--json", cwd=folder)
    return folder, json.loads(done.stdout)


def test_a_training_reports_what_it_did(trained):
    folder, report = trained
    assert set(report) == {"model", "run_id", "dataset", "registration", "settings", "metrics", "seconds", "epochs"}
    assert report["registration"]["registered"]
    metrics = report["metrics"]
    assert set(metrics) == {"valid", "test", "liked", "baselines"}
    assert set(metrics["baselines"]) == {"popularity", "recent_popularity", "ease"}
    for part in (metrics["valid"], metrics["test"], metrics["liked"]):
        assert 0 < part["ndcg_at_10"] < 1 and part["intervals"]["ndcg_at_10"][0] < part["ndcg_at_10"]
    assert set(report["seconds"]) == {"data", "fit", "evaluate"}
    assert 1 <= report["epochs"] <= 4 and report["settings"]["dim"] == 8 and report["settings"]["loss"] == "softmax"
    assert (folder / report["model"] / "manifest.json").exists() and (folder / "mlflow.db").exists()


def test_the_run_is_in_mlflow_and_its_model_answers(trained):
    folder, report = trained
    import mlflow

    here = os.getcwd()
    os.chdir(folder)
    try:
        client = mlflow.MlflowClient("sqlite:///mlflow.db")
        run = client.get_run(report["run_id"])
        assert run.info.status == "FINISHED"
        assert run.data.params["dim"] == "8" and run.data.params["lr"] == "0.03"
        assert run.data.metrics["test/ndcg_at_10"] == pytest.approx(report["metrics"]["test"]["ndcg_at_10"])
        assert run.data.metrics["baselines/ease/ndcg_at_10"] > 0
        assert {"dataset_digest", "device", "seed", "torch"} <= set(run.data.tags)
        assert "ndcg_at_10" in run.data.tags["mlflow.note.content"]
        history = client.get_metric_history(report["run_id"], "loss")
        assert [m.step for m in history] == list(range(1, len(history) + 1)) and len(history) >= report["epochs"]
        assert {i.tags[0].value for i in run.inputs.dataset_inputs} == {"training", "validation", "test"}
        assert {a.path for a in client.list_artifacts(report["run_id"])} >= {"README.md", "model.json"}
        mlflow.set_tracking_uri("sqlite:///mlflow.db")
        model = mlflow.pyfunc.load_model(f"runs:/{report['run_id']}/model")
        import pandas as pd

        answer = model.predict(pd.DataFrame({"user_id": ["7", "3"], "k": [4, 4]}))
        plain = model.predict(pd.DataFrame({"user_id": ["7"]}))
    finally:
        mlflow.set_tracking_uri(None)
        os.chdir(here)
    shown = json.loads(recsys_here("recommend", "--user", "7", "--k", "4", "--json", cwd=folder).stdout)
    assert answer[answer["user_id"] == "7"]["item_id"].tolist() == [str(i["item"]) for i in shown["items"]]
    assert answer["rank"].tolist() == [1, 2, 3, 4] * 2 and len(plain) == 10


def test_a_registered_model_is_read_back(trained, monkeypatch):
    folder, report = trained
    store = f"sqlite:///{folder}/mlflow.db"
    own = {p.name: p.read_bytes() for p in (folder / report["model"]).iterdir()}
    for uri in ("models:/shop@champion", "models:/shop/1", f"runs:/{report['run_id']}/model"):
        found, version = model_folder(uri, store)
        assert {p.name: p.read_bytes() for p in found.iterdir()} == own
        assert version == version_of(uri, store)
        assert (version == "1") == (not uri.startswith("runs"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    recommender, name = load("models:/shop@champion")
    assert str(name) == "models:/shop@champion" and recommender.metadata["run_id"] == report["run_id"]
    assert model_folder("models:/shop/latest", store) == model_folder("models:/shop/1", store)
    for wrong in ("shop@nobody", "shop/2", "nothing/1", "shop", "shop/Staging", "nothing/latest", "a/b/c"):
        with pytest.raises(UnknownId, match=f"models:/{wrong}"):
            model_folder(f"models:/{wrong}")
    for wrong in (f"{'0' * 32}/model", f"{report['run_id']}/other"):
        with pytest.raises(UnknownId, match="run"):
            version_of(f"runs:/{wrong}")
    with pytest.raises(DataError, match="there is no MLflow store"):
        model_folder("models:/shop@champion", f"sqlite:///{folder}/nothing.db")


def test_a_model_that_is_elsewhere_is_fetched_once(trained, monkeypatch, tmp_path):
    folder, _ = trained
    store = f"sqlite:///{folder}/mlflow.db"
    want, _ = model_folder("models:/shop@champion", store)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(registry, "local_files", lambda location, store: None)
    found, version = model_folder("models:/shop@champion", store)
    assert found.is_relative_to(tmp_path) and version == "1"
    assert Recommender.load(found).recommend(7).equals(Recommender.load(want).recommend(7))
    (found / "mark").touch()
    assert model_folder("models:/shop/1", store)[0] == found and (found / "mark").exists()
    fetched = found.parents[1]
    assert fetched.parent.name == "mlflow" and fetched.stat().st_mode == fetched.parent.stat().st_mode
    assert [p.name for p in (tmp_path / "recsys-embed" / "mlflow").iterdir() if p.name.startswith(".")] == []


def test_a_failed_registration_says_why(trained):
    folder, _ = trained
    with MLflowTracker(f"sqlite:///{folder}/mlflow.db", "other", {}) as tracker:
        tracker.check_register()
        assert tracker.register("other@one") == "MLflow has not got it"
        tracker.logged = "m-" + "0" * 32
        assert tracker.register("other@one").startswith("MLflow failed")
        tracker.logged = model_folder("models:/shop/1", tracker.uri)[0].parents[2].name
        assert tracker.register("other@one") is None
        assert version_of("models:/other@one", tracker.uri) == "1" and tracker.alive
    names = ("a/b", "a@", "a@latest", "a@v3")
    for wrong in (*({"register": name} for name in names), {"register": "a", "track": False}):
        with pytest.raises(SettingError, match="register"):
            RunConfig(**wrong)


@pytest.mark.slow
def test_one_seed_gives_the_same_bits(trained, tmp_path):
    _, report = trained
    again = json.loads(recsys("train", *FAST, "--json", "--no-track", cwd=tmp_path).stdout)
    assert again["metrics"] == report["metrics"]
    lists = [
        recsys("recommend", "--all-users", "--out", str(tmp_path / f"{name}.csv"), "--model", model, cwd=folder)
        and (tmp_path / f"{name}.csv").read_bytes()
        for name, folder, model in (("one", trained[0], report["model"]), ("two", tmp_path, again["model"]))
    ]
    assert lists[0] == lists[1]


def test_people_see_titles_and_what_is_hidden(trained):
    done = recsys("recommend", "--user", "42", cwd=trained[0])
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Top 10 for user 42") and "rated items, hidden" in lines[1]
    assert len(lines) == 13 and lines[3].split()[0] == "1" and "(19" in done.stdout
    assert "rated items, shown too" in recsys("recommend", "--user", "42", "--include-seen", cwd=trained[0]).stdout


def test_machines_get_the_stated_keys(trained):
    folder, _ = trained
    one = json.loads(recsys_here("recommend", "--user", "42", "--json", "--k", "99", cwd=folder).stdout)
    assert set(one) == {"user", "items", "short", "from", "model"} and one["user"] == 42
    assert one["short"].startswith(f"{len(one['items'])} of 99: the model has 50 items, ")
    assert set(one["items"][0]) == {"item", "title", "score", "rank", "why"}
    assert [i["rank"] for i in one["items"]] == list(range(1, len(one["items"]) + 1))
    near = json.loads(recsys_here("similar", "--item", "quiet river", "--json", cwd=folder).stdout)
    assert near["item"] == 1 and len(near["items"]) == 10 and 1 not in [i["item"] for i in near["items"]]
    said = json.loads(recsys_here("predict", "--user", "42", "--item", "Quiet River", "--json", cwd=folder).stdout)
    assert said["item"] == 1 and said["unit"] == "score"
    models = json.loads(recsys_here("models", "--json", cwd=folder).stdout)["models"]
    assert len(models) == 1 and models[0]["dataset"] == WORLD
    assert models[0]["registered"] == ["shop 1 @champion"] and models[0]["production"] is False


def test_an_alias_goes_back_to_an_earlier_version(trained, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(trained[0], work)
    again = "--register", "shop@champion", "--allow-worse", "--for-production", "--no-map"
    recsys_here("train", *FAST, *again, cwd=work)

    def registered():
        listed = json.loads(recsys_here("models", "--json", cwd=work).stdout)["models"]
        return [(model["registered"], model["production"]) for model in listed]

    assert registered() == [(["shop 2 @champion"], True), (["shop 1"], False)]
    assert "is version 1, and was 2" in recsys_here("models", "--alias", "shop@champion=1", cwd=work).stdout
    assert registered() == [(["shop 2"], True), (["shop 1 @champion"], False)]
    recsys_here("models", "--alias", "shop@champion=9", cwd=work, code=4)
    recsys_here("models", "--alias", "shop=9", cwd=work, code=2)
    compared = recsys_here("compare", "models:/shop@champion", "models:/shop/1", cwd=work).stdout
    assert "models:/shop@champion" in compared and "+0.0000" in compared
    (work / "mlflow.db").write_text("broken")
    assert [model["registered"] for model in json.loads(
        recsys_here("models", "--json", cwd=work).stdout)["models"]] == [[], []]  # fmt: skip


@pytest.mark.parametrize(("p", "text"), [(1 / 10_001, "p < 0.001"), (0.0005, "p 0.001"), (0.0494, "p 0.049")])
def test_no_p_is_zero(p, text):
    assert p_text(p) == text


def test_lists_of_many_users_go_to_a_file(trained, tmp_path):
    folder, _ = trained
    recsys_here("recommend", "--all-users", "--k", "3", "--out", str(tmp_path / "all.parquet"), cwd=folder)
    table = pl.read_parquet(tmp_path / "all.parquet")
    assert table.columns == ["user_id", "item_id", "title", "score", "rank"] and table.height == 240
    (tmp_path / "some.txt").write_text("user_id\n3\n7\n")
    recsys_here(
        "recommend", "--users", str(tmp_path / "some.txt"), "--k", "2", "--out", str(tmp_path / "some.csv"), cwd=folder
    )
    rows = list(csv.DictReader((tmp_path / "some.csv").open()))
    assert [r["user_id"] for r in rows] == ["3", "3", "7", "7"]
    assert [r["item_id"] for r in rows] == [str(i) for u in (3, 7) for i in table.filter(user_id=u)["item_id"][:2]]


def test_evaluate_repeats_the_test_of_the_training(trained, tmp_path):
    folder, report = trained
    said = json.loads(recsys_here("evaluate", "--json", "--per-user", str(tmp_path / "users.csv"), cwd=folder).stdout)
    assert said["metrics"]["ndcg_at_10"] == pytest.approx(report["metrics"]["test"]["ndcg_at_10"], abs=1e-12)
    assert pl.read_csv(tmp_path / "users.csv").height == said["metrics"]["users"]
    recsys_here("evaluate", "--dataset", "synthetic:users=80,items=50,ratings=1500", cwd=folder)
    leaking, model = tmp_path / "leak.csv", Recommender.load(folder / report["model"])
    seen = model.items.ids(model.seen[model.users.row(42)])
    leaking.write_text("user,item\n" + "".join(f"42,{item}\n" for item in seen))
    assert "fitted on" in recsys_here("evaluate", "--test", str(leaking), cwd=folder, code=3).stderr


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("recommend", "--user", "4242"), 4, "user 4242 is not known; 80 users are, e.g. 78, 79, 80"),
        (("recommend", "--user", "42", "--k", "0"), 2, "--k must be at least 1"),
        (("recommend",), 2, "say whom to recommend to"),
        (("recommend", "--all-users"), 2, "name it with --out"),
        (("recommend", "--all-users", "--out", "x.xlsx"), 2, "must end in one of .parquet, .csv, .jsonl"),
        (("recommend", "--users", "none.txt", "--out", "x.csv"), 3, "there is no file none.txt"),
        (("recommend", "--user", "42", "--model", "nowhere"), 5, "no model folder nowhere"),
        (("similar", "--item", "Unheard Of"), 4, "no item has the id or the title"),
        (("similar", "--item", "1", "--k", "0"), 2, "k must be a whole number, at least 1"),
        (("predict", "--user", "42", "--item", "777"), 4, "no item has the id or the title '777'"),
        (("train", "--dataset", "none.csv"), 3, "there is no file none.csv"),
        (("train", "--dataset", "nothing"), 3, "the names are movielens, "),
        (("train", "--lr", "0"), 2, "lr must be above 0, got 0"),
        (("train", "--loss", "hinge"), 2, "hinge"),
        (("train", "--valid-share", "0.6", "--test-share", "0.6"), 2, "below 1"),
        (("train", "--device", "cuda", "--dataset", WORLD), 2, "finds no CUDA device"),
        (("train", "--split", "time", "--dataset", "tiny.csv"), 3, "needs times"),
        (("train", "--dataset", "one.csv"), 3, "at least two of each"),
        (("train", "--dataset", "movielens", "--offline", "--data-dir", "empty"), 3, "--offline forbids the network"),
        (("train", "--dataset", "nan.csv"), 3, "NaN or infinite in line 3"),
        (("train", "--min-rating", "6", "--dataset", WORLD), 3, "at least two of each"),
        (("train", "--min-rating", "nan", "--dataset", WORLD), 2, "min-rating must be a number"),
        (("train", "--loss", "mse", "--dataset", "tiny.csv"), 3, "all of this data's are equal"),
        (("data", "fetch", "nothing"), 3, "no data set 'nothing'"),
    ],
)
def test_mistakes_are_one_line_with_a_code(trained, args, code, message):
    folder, _ = trained
    (folder / "tiny.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u in range(4) for i in range(5)))
    (folder / "one.csv").write_text("user,item\n1,1\n1,2\n1,3\n")
    (folder / "nan.csv").write_text("user,item,rating\n1,1,3\n2,2,nan\n")
    done = recsys_here(*args, cwd=folder, code=code)
    assert message in " ".join(done.stderr.split()).replace("│ ", "")
    assert not done.stdout


def test_a_tampered_model_is_refused(trained, tmp_path):
    folder, report = trained
    import shutil

    copy = shutil.copytree(folder / report["model"], tmp_path / "copy")
    data = bytearray((copy / "vectors.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "vectors.safetensors").write_bytes(bytes(data))
    assert "was changed" in recsys("recommend", "--user", "42", "--model", str(copy), cwd=folder, code=5).stderr


@pytest.mark.slow
def test_a_dead_tracking_server_does_not_stop_a_training(tmp_path):
    dead = "--tracking-uri", "http://127.0.0.1:9"
    refused = recsys("train", *FAST, *dead, "--register", "shop", cwd=tmp_path, code=3)
    assert "no model can be registered" in refused.stderr and "nothing was trained" in refused.stderr
    assert not list((tmp_path / "models").glob("[!.]*")), "no model, and no empty folder"
    done = recsys("train", *FAST, *dead, "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert "MLflow failed" in done.stderr and done.stderr.count("MLflow failed") == 1
    assert report["run_id"] is None and (tmp_path / report["model"] / "manifest.json").exists()


@pytest.mark.parametrize(("place", "options"), [("models", ()), ("file", ("--out", "file/model"))])
def test_an_unwritable_place_is_one_line(tmp_path, place, options):
    (tmp_path / place).write_text("x")  # a file, where nobody can make a folder, root neither
    done = recsys_here("train", *FAST, "--no-track", *options, cwd=tmp_path, code=5)
    assert "could not be written" in done.stderr and (tmp_path / place).read_text() == "x"


@pytest.mark.slow
@pytest.mark.parametrize("split", ["leave-last", "time"])
def test_other_splits_train_too(tmp_path, split):
    report = json.loads(recsys("train", *FAST, "--split", split, "--no-track", "--json", cwd=tmp_path).stdout)
    assert report["metrics"]["test"]["users"] > 0 and report["settings"]["split"] == split


@pytest.mark.slow
def test_files_of_ones_own_with_titles_and_thresholds(tmp_path):
    rows = [(u, i, 1 + (u * i) % 5) for u in range(30) for i in range(20) if (u + i) % 3]
    (tmp_path / "r.tsv").write_text("".join(f"u{u}\ti{i}\t{r}\n" for u, i, r in rows))
    (tmp_path / "films.csv").write_text("id,title,genres\n" + "".join(f"i{i},Film {i},Drama\n" for i in range(20)))
    args = (
        "--dataset",
        "r.tsv",
        "--columns",
        "user,item,rating",
        "--items",
        "films.csv",
        "--min-rating",
        "3",
        "--no-track",
    )
    report = json.loads(recsys("train", *args, "--epochs", "2", "--json", cwd=tmp_path).stdout)
    assert report["metrics"]["liked"]["threshold"] == 4.0
    shown = json.loads(recsys("recommend", "--user", "u7", "--k", "99", "--json", cwd=tmp_path).stdout)
    held = 20 - len(shown["items"])
    assert all(i["title"] == f"Film {i['item'][1:]}" for i in shown["items"]) and held >= 10
    only = ("--valid", "v.csv", "--columns", "user,item,rating", "--dataset", "t.csv", "--no-track", "--epochs", "2")
    (tmp_path / "t.csv").write_text("".join(f"{u},{i},{r}\n" for u, i, r in rows[:300]))
    (tmp_path / "v.csv").write_text("".join(f"{u},{i},{r}\n" for u, i, r in rows[300:]))
    done = recsys("train", *only, "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert report["metrics"]["test"] is None and report["metrics"]["valid"]["ndcg_at_10"] >= 0
    assert recsys("train", *only, cwd=tmp_path).stdout.splitlines()[-1].startswith("model")


@pytest.mark.slow
def test_stars_come_with_their_errors(tmp_path):
    done = recsys("train", *FAST, "--loss", "mse", "--no-track", "--json", cwd=tmp_path)
    metrics = json.loads(done.stdout)["metrics"]
    assert (
        0.3 < metrics["test"]["rmse"] < 1.5
        and metrics["test"]["mae"] < metrics["test"]["rmse"]
        and "rmse" in metrics["valid"]
    )
    said = json.loads(recsys("predict", "--user", "42", "--item", "3", "--json", cwd=tmp_path).stdout)
    assert said["unit"] == "stars" and 1 <= said["value"] <= 5


COMMANDS = [
    "",
    "train",
    "evaluate",
    "tune",
    "presets",
    "recommend",
    "similar",
    "predict",
    "export",
    "words export",
    "compare",
    "map",
    "models",
    "ui",
    "data",
    "data list",
    "data fetch",
]


@pytest.mark.parametrize("command", [*COMMANDS, "data check"])
def test_every_command_has_help(tmp_path, command):
    assert "Usage" in recsys_here(*command.split(), "--help", cwd=tmp_path).stdout


def test_data_can_be_listed_and_checked(tmp_path):
    listed = json.loads(recsys_here("data", "list", "--json", cwd=tmp_path).stdout)["datasets"]
    assert {"movielens", "movielens-1m", "synthetic"} <= {d["name"] for d in listed}
    facts = json.loads(recsys_here("data", "check", "--dataset", WORLD, "--json", cwd=tmp_path).stdout)
    assert (facts["users"], facts["items"], facts["ratings"]) == (80, 50, 1500)


def test_titles_are_shown_and_never_obeyed(tmp_path):
    (tmp_path / "r.csv").write_text(
        "user,item\n" + "".join(f"{u},{i}\n" for u in range(9) for i in range(9) if (u + i) % 2)
    )
    (tmp_path / "i.csv").write_text("id,title\n" + "".join(f'{i},"\x1b[31m[bold]Red{i}"\n' for i in range(9)))
    done = recsys_here("train", "--dataset", "r.csv", "--items", "i.csv", "--no-track", "--epochs", "1", cwd=tmp_path)
    assert "against EASE, user by user: " in done.stdout
    shown = recsys_here("recommend", "--user", "1", cwd=tmp_path).stdout
    assert "\x1b" not in shown and "[bold]Red" in shown
