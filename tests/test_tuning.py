"""The search for settings: what it moves, what it keeps, and that the test part stays out of it."""

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import polars as pl
import pytest
from worlds import recsys

from recsys_embed import (
    ContentConfig,
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
    TuneConfig,
    load_dataset,
    preset,
    tune,
)
from recsys_embed.config.fields import settings
from recsys_embed.config.renamed import RENAMED
from recsys_embed.errors import DataError, SettingError, TrainingError
from recsys_embed.experiment.run import run_experiment
from recsys_embed.tuning.objective import TuningObjective
from recsys_embed.tuning.search import Search
from recsys_embed.tuning.study import _LATER_SETTINGS, HOME, choose_study

WORLD = "synthetic:users=60,items=40,ratings=900"
DATA = DataConfig(WORLD)
# Small and quick, and far from good: pairs begin without popularity, and hardly move.
BAD = ModelConfig(dim=2), TrainConfig(loss="bpr", lr=0.0005, epochs=5)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def search(trials=2, data=DATA, start=BAD, freeze="epochs,batch_size", content=None, **given):
    return tune(data, *start, TuneConfig(trials=trials, freeze=freeze, track=False, **given), content)


def kept(folder="studies/synthetic-bpr"):
    """Return the trials of a study, as Optuna has them."""
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{folder}/study.db", skip_compatibility_check=True, skip_table_creation=True
    )
    return optuna.load_study(study_name="study", storage=storage).get_trials()


def finished(folder="studies/synthetic-bpr"):
    return [(t.params, t.value, t.state) for t in kept(folder) if t.state.name in ("COMPLETE", "PRUNED")]


@pytest.fixture
def quick(monkeypatch):
    """Let trials be made up: of each, a list of values by epoch, or an error."""

    def plan(*trials):
        left = iter(trials)

        def fit(self, chosen, tracker):
            values = next(left)
            if isinstance(values, BaseException):
                raise values
            for epoch, value in enumerate(values, 1):
                tracker.metrics({self.metric: value}, epoch)
                tracker.progress(epoch, len(values))
            best = max(range(len(values)), key=lambda e: self.sign * values[e])
            return values[best], best + 1

        monkeypatch.setattr(TuningObjective, "fit", fit)
        monkeypatch.setattr(Search, "_draw", lambda *_: None)

    return plan


class Killed(BaseException):
    """Ends the program as a signal does: nothing is cleaned up."""


# What is found


@pytest.mark.slow
def test_a_bad_start_is_improved_and_the_best_has_a_name():
    report = search(8)
    start, best = report["start"], report["best"]
    assert start["trial"] == 0 and start["settings"]["dim"] == 2 and start["settings"]["lr"] == 0.0005
    assert best["value"] > 1.3 * start["value"] and report["trials"] == 8
    model, train = preset("synthetic-bpr")
    chosen = settings(model, train)
    assert {n: chosen[n] for n in best["settings"]} == best["settings"] and train.epochs == 5
    assert report["command"] == f"recsys train --dataset {WORLD} --preset synthetic-bpr"
    assert (HOME / "synthetic-bpr" / "search.png").read_bytes().startswith(b"\x89PNG")


def test_a_trial_is_the_first_fit_of_a_training():
    best = search(3)["best"]
    run = RunConfig(out="model", track=False, resamples=0, baselines=False)
    trained, report = run_experiment(DATA, *preset("synthetic-bpr"), run)
    history = trained.metadata["history"]
    assert max(h["ndcg_at_10"] for h in history) == best["value"]
    assert report["epochs"] == best["epochs"]


def test_stars_are_judged_by_their_error():
    report = search(3, start=(ModelConfig(dim=2), TrainConfig(loss="mse", lr=0.1, user_decay=0.0, epochs=3)))
    values = [value for _, value, _ in finished("studies/synthetic-mse")]
    assert report["metric"] == "rmse" and report["best"]["value"] == min(values)
    # The start is trained as it is, though a range of factors holds no zero.
    assert report["start"]["settings"]["user_decay"] == 0


def test_what_is_fixed_stays():
    search(4, freeze="epochs,batch_size,lr,dim")
    for trial in kept():
        assert not {"lr", "dim", "epochs"} & set(trial.params)
        assert trial.user_attrs["settings"]["lr"] == 0.0005 and trial.user_attrs["settings"]["dim"] == 2


def test_the_usual_decay_gives_way_to_a_high_rate_and_a_given_one_does_not(quick):
    quick([0.1])
    report = search(1, start=(ModelConfig(cosine=False), TrainConfig(lr=0.3, epochs=1)))
    assert report["start"]["settings"]["user_decay"] == 3 and report["start"]["settings"]["item_decay"] == 2
    with pytest.raises(SettingError, match="lr x user-decay must be below 1"):
        search(1, start=(ModelConfig(), TrainConfig(lr=0.3, user_decay=5.0)))


# The test part


def test_no_test_rating_has_a_say(here):
    split = load_dataset(WORLD).split(DATA)
    train, valid, test = (part.frame().select("user_id", "item_id", "rating") for part in split)
    pairs = train.select("user_id").unique().join(train.select("item_id").unique(), how="cross")
    free = pairs.join(pl.concat((train, valid, test)), ["user_id", "item_id"], how="anti").sort("user_id", "item_id")
    others = free.sample(test.height, seed=1).with_columns(rating=pl.lit(1.0))
    found = []
    for at, rows in enumerate((test, others)):
        folder = here / str(at)
        folder.mkdir()
        for name, part in (("r", train), ("v", valid), ("t", rows)):
            part.write_csv(folder / f"{name}.csv")
        data = DataConfig(f"{folder}/r.csv", valid=f"{folder}/v.csv", test=f"{folder}/t.csv")
        search(4, data=data, study=f"s{at}")
        found.append(finished(f"studies/s{at}"))
    assert found[0] == found[1] and len(found[0]) == 4


def test_a_trial_is_given_no_test_rating(monkeypatch):
    seen = []
    fit = TuningObjective.fit
    monkeypatch.setattr(TuningObjective, "fit", lambda self, *rest: seen.append(self.split) or fit(self, *rest))
    search(1)
    split = load_dataset(WORLD).split(DATA)
    assert not len(seen[0].test) and (len(seen[0].train), len(seen[0].valid)) == (len(split.train), len(split.valid))


def test_without_validation_ratings_there_is_nothing_to_judge_by():
    with pytest.raises(DataError, match="no validation rating"):
        search(1, data=DataConfig(WORLD, valid_share=0))


# What is kept


@pytest.mark.slow
def test_the_trials_of_a_killed_search_add_up(here):
    words = ["tune", "--dataset", WORLD, "--loss", "bpr", "--epochs", "4", "--freeze", "dim,epochs", "--no-track"]
    running = subprocess.Popen([sys.executable, "-m", "recsys_embed", *words, "--trials", "500"], cwd=here)
    try:
        while not _recorded(here / "studies" / "synthetic-bpr" / "study.db"):
            assert running.poll() is None
            try:
                running.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
    finally:
        running.kill()
        running.wait()
    before, cut = finished(), [t for t in kept() if t.state.name == "RUNNING"]
    report = json.loads(recsys(*words, "--trials", "3", "--json", cwd=here).stdout)
    assert finished()[: len(before)] == before and len(finished()) == len(before) + 3 == report["trials"]
    assert report["cut_off"] == len(cut) <= 1
    for trial in cut:
        (again,) = [t for t in kept() if t.user_attrs.get("again") == trial.number]
        assert kept()[trial.number].state.name == "FAIL"
        assert {**again.params, **trial.params} == again.params and again.state.name in ("COMPLETE", "PRUNED")
    assert report["start"]["value"] == before[0][1]


def _recorded(database):
    if not database.exists():
        return 0
    reader = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return reader.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()[0]
    except sqlite3.OperationalError:  # no table yet, or it is being written
        return 0
    finally:
        reader.close()


def test_a_search_that_was_cut_off_goes_on_as_it_would_have(quick, monkeypatch):
    monkeypatch.setattr("recsys_embed.tuning.study._RANDOM_TRIALS", 3)
    values = [[0.1 * n] for n in (3, 1, 2, 5, 4, 7)]
    quick(*values)
    search(6, study="whole")
    quick(*values[:2], Killed())
    with pytest.raises(Killed):
        search(6, study="parts")
    assert [t.state.name for t in kept("studies/parts")][-1] == "RUNNING"
    quick(*values[2:5])
    search(3, study="parts")
    quick(*values[5:])
    search(1, study="parts")
    assert finished("studies/parts") == finished("studies/whole")
    assert [t.number for t in kept("studies/parts") if t.state.name == "FAIL"] == [2]


def test_a_study_of_an_earlier_version_goes_on_as_it_would_have(quick, monkeypatch):
    monkeypatch.setattr("recsys_embed.tuning.study._RANDOM_TRIALS", 3)
    values = [[0.1 * n] for n in (3, 1, 2, 5, 4)]
    quick(*values[:4], *values)
    search(4, study="parts", content=ContentConfig(text="title"))
    search(5, study="whole", content=ContentConfig(text="title"))
    old = {new: old for old, new in RENAMED.items() if old != "start"}
    facts = Path("studies/parts/study.json")
    before = json.loads(facts.read_text())
    before["settings"] = {old.get(n, n): v for n, v in before["settings"].items() if n != "model_family"}
    facts.write_text(json.dumps(before | {"moved": [old.get(n, n) for n in before["moved"]]}))
    assert "content_pace" in facts.read_text() and "content_lr_scale" not in facts.read_text()
    with contextlib.closing(sqlite3.connect("studies/parts/study.db")) as database, database:
        database.execute(
            "update trial_user_attributes set value_json = replace(value_json, 'content_lr_scale', 'content_pace')"
        )
    quick(*values[4:])
    report = search(1, study="parts", content=ContentConfig(text="title"))
    assert finished("studies/parts") == finished("studies/whole")
    assert "content_lr_scale" in report["best"]["settings"] and "content_pace" in kept("studies/parts")[0].params


def test_what_kills_the_program_twice_is_not_tried_a_third_time(quick):
    for deaths in (1, 2):
        quick([0.1], Killed()) if deaths == 1 else quick(Killed())
        with pytest.raises(Killed):
            search(9)
    quick([0.2])
    report = search(1)
    params = [t.params for t in kept()]
    assert report["cut_off"] == 2 and params[1] == params[2] != params[3] and len(params) == 4


def test_ctrl_c_keeps_everything_and_leaves_the_trial_for_later(quick, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    quick([0.1], [0.2], [0.3])
    fit = TuningObjective.fit

    def interrupted(self, chosen, tracker):
        if len(finished()) == 1:
            signal.raise_signal(signal.SIGINT)
            tracker.progress(0, 5)
        return fit(self, chosen, tracker)

    monkeypatch.setattr(TuningObjective, "fit", interrupted)
    report = search(9)
    assert report["interrupted"] and report["trials"] == 1 and report["best"]["value"] == 0.1
    assert signal.getsignal(signal.SIGINT) is before
    assert [t.state.name for t in kept()] == ["COMPLETE", "FAIL", "WAITING"]
    monkeypatch.setattr(TuningObjective, "fit", fit)
    assert search(1)["best"]["value"] == 0.2 and kept()[2].params == kept()[1].params


def test_the_time_ends_a_search_but_not_its_first_trial():
    report = tune(DATA, *BAD, TuneConfig(minutes=1e-9, track=False))
    assert report["trials"] == 1 and report["best"] == report["start"]
    assert tune(DATA, *BAD, TuneConfig(minutes=1e-9, track=False))["trials"] == 1


def test_a_trial_worse_than_the_median_is_ended_early(quick):
    def rise(best):
        return [best * epoch / 5 for epoch in range(1, 6)]

    quick(*map(rise, (0.5, 0.5, 0.6, 0.4, 0.5, 0.1, 0.9)))
    report = search(7)
    states = [t.state.name for t in kept()]
    assert states == ["COMPLETE"] * 5 + ["PRUNED", "COMPLETE"]
    assert len(kept()[5].intermediate_values) == 2 and kept()[5].value < 0.1
    assert report["ended_early"] == 1 and report["best"]["trial"] == 6


@pytest.mark.parametrize(
    ("loss", "values", "told"),
    [("bpr", [0.1, 0.3, 0.2, 0.2], [0.1, 0.3, 0.3]), ("mse", [1.2, 1.0, 1.1, 1.1], [1.2, 1.0, 1.0])],
)
def test_a_trial_is_compared_by_its_best_epoch_so_far(quick, loss, values, told):
    quick(values)
    search(1, start=(ModelConfig(), TrainConfig(loss=loss, epochs=4)))
    (trial,) = kept(f"studies/synthetic-{loss}")
    assert trial.intermediate_values == dict(zip((2, 5, 7), told, strict=True)) and trial.value == told[-1]


def test_trials_of_different_lengths_are_compared_by_the_part_of_their_way(quick, monkeypatch):
    lengths = (5, 10, 5, 10, 5, 20)
    quick(*([0.5 * epoch / n for epoch in range(1, n + 1)] for n in lengths))
    begin, told = TuningObjective.settings, iter(lengths[1:])

    def of_length(self, moved):
        chosen = begin(self, moved)
        return chosen._replace(train=replace(chosen.train, epochs=next(told)))

    monkeypatch.setattr(TuningObjective, "settings", of_length)
    search(6)
    assert {t.state.name for t in kept()} == {"COMPLETE"}


def test_settings_that_diverge_are_left_behind(quick):
    quick([0.1], TrainingError("the loss became nan"), [0.2])
    report = search(3)
    assert [t.state.name for t in kept()] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert kept()[1].user_attrs["facts"]["why"] == "the loss became nan" and report["best"]["value"] == 0.2
    quick(TrainingError("nan"))
    with pytest.raises(TrainingError, match="no trial of studies.other was completed"):
        search(1, study="other")


def test_too_little_memory_costs_a_trial_and_other_errors_are_not_hidden(quick):
    quick([0.1], MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        search(4)
    assert [t.state.name for t in kept()] == ["COMPLETE", "PRUNED", "PRUNED", "RUNNING"]


def test_a_second_ctrl_c_leaves_no_half_trial(monkeypatch):
    from recsys_embed.tuning.objective import TrialMonitor

    def metrics(self, values, step=None):
        raise KeyboardInterrupt

    search(1)
    monkeypatch.setattr(TrialMonitor, "metrics", metrics)
    with pytest.raises(KeyboardInterrupt):
        search(1)
    assert [t.state.name for t in kept()] == ["COMPLETE", "RUNNING"]


def test_data_at_hand_has_no_command():
    report = tune(DATA, *BAD, TuneConfig(trials=1, track=False), dataset=load_dataset(WORLD))
    assert report["command"] is None and report["best"] == report["start"]


def test_the_command_at_the_end_is_the_whole_one(here):
    data, train = DataConfig(WORLD, min_rating=2.0, data_dir="a b", offline=True), TrainConfig(seed=3, epochs=1)
    report = tune(data, ModelConfig(dim=2), train, TuneConfig(trials=1, track=False, study="s.1"))
    words = "--min-rating 2.0 --seed 3 --preset s.1 --data-dir 'a b' --offline"
    assert report["command"] == f"recsys train --dataset {WORLD} {words}"


def test_a_study_belongs_to_one_process_and_to_one_start(quick, here):
    quick([0.1], [0.2], [0.3])
    search(1)
    with sqlite3.connect(HOME / "synthetic-bpr" / "lock.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DataError, match="in use by another process"):
            search(1)
        other.execute("ROLLBACK")
    # Another start is another study; a named one is refused where it began otherwise.
    assert search(1, start=(ModelConfig(dim=3), BAD[1]))["study"] == "studies/synthetic-bpr-2"
    with pytest.raises(SettingError, match=r"started differently \(dim 2, now 3\): choose another name with --study"):
        search(1, start=(ModelConfig(dim=3), BAD[1]), study="synthetic-bpr")
    (here / "presets" / "mine.toml").write_text("[settings]\ndim = 3\n")
    with pytest.raises(SettingError, match="no preset of a study"):
        search(1, study="mine")
    (HOME / "synthetic-bpr" / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(DataError, match=r"study\.db cannot be used"):
        search(1)


def test_names_of_studies_count_up(tmp_path):
    facts = {"moved": ["lr"], "settings": {**_LATER_SETTINGS, "content_tower": None, "dim": 3}}
    for name in ("a", "a-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.json").write_text(json.dumps({"moved": ["lr"], "settings": {"dim": len(name)}}))
    assert choose_study(None, "a", facts, tmp_path, tmp_path).name == "a-2"
    (tmp_path / "a-2" / "study.json").unlink()
    (tmp_path / "a-2.toml").write_text("")
    assert choose_study(None, "a", facts, tmp_path, tmp_path).name == "a-3"


# What is refused


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"minutes": 0}, "minutes must be above 0"),
        ({"trials": 0}, "trials must be at least 1"),
        ({"freeze": "size"}, "--freeze size: there is no such setting; the tuned settings are dim, epochs, lr"),
        (
            {"freeze": "dim,epochs,lr,user_decay,item_decay,balance,dropout,batch_size,negatives"},
            "leaves nothing to tune",
        ),
        ({"study": "../x"}, "study must be a name"),
    ],
)
def test_mistakes_are_one_line(here, given, said):
    with pytest.raises(SettingError, match=said):
        search(**given)
    assert not (here / "studies").exists()


# MLflow


@pytest.mark.slow
def test_trials_are_runs_below_the_search_which_goes_on(here, quick):
    import mlflow

    store = f"sqlite:///{here}/mlflow.db"

    def go():
        return tune(DATA, *BAD, TuneConfig(trials=1, freeze="epochs,batch_size", tracking_uri=store))

    quick([0.1, 0.3])
    report = go()
    quick(Killed())
    with pytest.raises(Killed):
        go()
    client = mlflow.MlflowClient(store)
    (open_run,) = [t.user_attrs["run_id"] for t in kept() if t.state.name == "RUNNING"]
    client.update_run(open_run, status="RUNNING")  # what really ends a program ends no run
    quick([0.5])
    again = go()
    assert again["run_id"] == report["run_id"] and client.get_run(open_run).info.status == "KILLED"
    parent = client.get_run(report["run_id"])
    assert parent.info.status == "FINISHED" and parent.data.metrics["valid/ndcg_at_10"] == 0.5
    assert parent.data.params["dim"] == "2" and "lr" in parent.data.params["moved"]
    runs = client.search_runs([parent.info.experiment_id])
    below = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == report["run_id"]]
    assert len(below) == len(runs) - 1 == 3
    assert {r.data.metrics.get("valid/ndcg_at_10") for r in below} == {0.3, 0.5, None}
    assert {a.path for a in client.list_artifacts(report["run_id"])} == {"synthetic-bpr.toml"}
