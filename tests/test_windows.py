"""Rolling windows: where they are cut, that none knows its future, and what is reported of all of them."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from test_trend import DAY, RATINGS
from typer.testing import CliRunner
from worlds import event_log, small

from recsys_embed.cli.main import app
from recsys_embed.config.settings import ContentConfig, DataConfig, RunConfig
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.splits import split_time
from recsys_embed.errors import DataError, SettingError
from recsys_embed.experiment.prepare import prepare
from recsys_embed.experiment.run import run_experiment
from recsys_embed.tuning.search import tune

DATA = Dataset(RATINGS, None)


def test_windows_of_shares_follow_each_other():
    parts = [DATA.split(DataConfig(split="time", windows=3), window) for window in range(3)]
    newest = split_time(RATINGS)
    for part, whole in zip(parts[0], newest, strict=True):
        np.testing.assert_array_equal(part.time, whole.time)
    for later, earlier in pairwise(parts):
        assert earlier.train.time.max() < earlier.valid.time.min() <= earlier.valid.time.max() < earlier.test.time.min()
        assert earlier.test.time.max() < later.test.time.min()
        assert len(earlier.test) == pytest.approx(len(RATINGS) / 10, rel=0.1)
        np.testing.assert_array_equal(np.sort(earlier.test.time), np.sort(later.valid.time))
    tested = np.concatenate([part.test.time for part in parts])
    assert len(tested) == (RATINGS.time >= parts[-1].test.time.min()).sum(), "no rating is left out or twice"


def test_windows_of_days_are_as_long_as_that():
    end = RATINGS.time.max() + 1
    for window in range(2):
        train, valid, test = DATA.split(DataConfig(split="time", windows=2, window="10d"), window)
        stop = end - window * 10 * DAY
        for part, low, high in ((test, stop - 10 * DAY, stop), (valid, stop - 20 * DAY, stop - 10 * DAY)):
            assert len(part) == ((RATINGS.time >= low) & (RATINGS.time < high)).sum() > 0
        assert len(train) == (RATINGS.time < stop - 20 * DAY).sum()


@pytest.mark.parametrize(("text", "seconds"), [("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600), (" 1 D", 86_400)])
def test_lengths(text, seconds):
    assert DataConfig(split="time", window=text).window_seconds == seconds


@pytest.mark.parametrize(
    "given",
    [{"windows": 0}, {"windows": 2, "split": "random"}, {"window": "7d", "split": "random"}, {"window": "7"},
     {"window": "0d"}, {"window": "week"}, {"windows": 9}, {"windows": 2, "test": "t.csv"},
     {"windows": 2, "test_share": 0.0}],
)  # fmt: skip
def test_windows_that_cannot_be_are_refused(given):
    with pytest.raises(SettingError):
        DataConfig(**{"split": "time", **given})


def test_windows_that_reach_back_too_far_say_so():
    data = DataConfig(split="time", windows=30, window="10d")
    with pytest.raises(DataError, match="the data are from"):
        prepare(data, 0, ContentConfig(), DATA).window(29)


def test_event_logs_have_windows_too():
    frame = RATINGS.frame().rename({"timestamp": "time"}).with_columns(event=pl.lit("view"))
    config = DataConfig(split="time", windows=2, event_col="event")
    log = event_log(frame, config)
    for window in range(2):
        plain = DATA.split(DataConfig(split="time"), window)
        found, both = log.split(config, window)
        for one, other in ((found.test, plain.test), (found.train, plain.train)):
            np.testing.assert_array_equal(np.sort(one.time), np.sort(other.time))
        assert both.time.max() < found.test.time.min()


def test_a_training_reports_all_windows_and_keeps_the_newest(tmp_path):
    model, train = small("softmax", epochs=3, dim=4, batch_users=32)
    run = RunConfig(track=False, out=str(tmp_path / "m"))
    found, report = run_experiment(DataConfig(split="time", windows=3), model, train, run, dataset=DATA)
    alone, single = run_experiment(DataConfig(split="time"), model, train, run, dataset=DATA)
    np.testing.assert_array_equal(found.model.save()[0]["items"], alone.model.save()[0]["items"])
    assert report["metrics"]["test"] == single["metrics"]["test"] and "windows" not in single["metrics"]
    windows = report["metrics"]["windows"]
    each = windows["each"]
    assert len(each) == 3 and [row["span"] for row in each] == sorted(row["span"] for row in each)
    assert each[-1]["this model"] == report["metrics"]["test"]["ndcg_at_10"]
    for name in ("popularity", "recent_popularity", "ease"):
        assert each[-1][name] == report["metrics"]["baselines"][name]["ndcg_at_10"]
        assert windows["mean"][name] == pytest.approx(np.mean([row[name] for row in each]))
        assert max(row["users"] for row in each) < windows["differences"][name]["users"] < len(RATINGS.users)
    groups = [report["metrics"][name] for name in ("known_users", "new_users")]
    users, values = zip(*((g["users"], g["ndcg_at_10"]["this model"]) for g in groups), strict=True)
    assert sum(users) == report["metrics"]["test"]["users"]
    assert np.dot(users, values) / sum(users) == pytest.approx(report["metrics"]["test"]["ndcg_at_10"])


def test_the_command_prints_them(tmp_path):
    RATINGS.frame().write_csv(tmp_path / "r.csv")
    args = ["train", "--dataset", str(tmp_path / "r.csv"), "--split", "time", "--windows", "2"]
    done = CliRunner().invoke(app, [*args, "--epochs", "2", "--dim", "4", "--no-track", "--out", str(tmp_path / "m")])
    assert done.exit_code == 0, done.output
    for text in ("ndcg_at_10 in 2 windows", "in all windows against popularity", "users without a rating in training"):
        assert text in done.output


def test_each_window_chooses_its_own_weights(monkeypatch):
    chosen = []

    def choose(log, data, window):
        chosen.append(window)
        return {"view": 1.0 + window}

    monkeypatch.setattr("recsys_embed.experiment.prepare.choose_event_weights", choose)
    frame = RATINGS.frame().rename({"timestamp": "time"}).with_columns(event=pl.lit("view"))
    config = DataConfig(split="time", windows=3, event_col="event", event_weights="auto")
    log = event_log(frame, config)
    prepared = prepare(config, 0, ContentConfig(), Dataset(log.ratings(), None, log=log))
    weights = [prepared.window(n).dataset.log.types[0].weight for n in (2, 1)]
    assert chosen == [0, 2, 1] and weights == [3, 2]


def test_without_resamples_windows_have_no_intervals_and_a_search_has_no_windows(tmp_path):
    model, train = small("softmax", epochs=1, dim=4, batch_users=32)
    run = RunConfig(track=False, out=str(tmp_path / "m"), resamples=0)
    data = DataConfig(split="time", windows=2)
    _, report = run_experiment(data, model, train, run, dataset=DATA)
    assert report["metrics"]["windows"]["differences"] == {} and len(report["metrics"]["windows"]["each"]) == 2
    assert "span" not in report["metrics"]
    with pytest.raises(SettingError, match="--windows goes with recsys train"):
        tune(data, dataset=DATA)
