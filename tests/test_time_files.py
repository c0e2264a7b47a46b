"""Times in files: later tables beside the first one, and the option wherever times are read."""

import datetime
import json

import numpy as np
import polars as pl
import pytest
from time_texts import DAY, NOON, frame, seconds, written
from worlds import event_log, recsys_here, small

from recsys_embed import Ratings, Recommender
from recsys_embed.cli import evaluate
from recsys_embed.config.settings import DataConfig
from recsys_embed.data.event_types import saved
from recsys_embed.errors import DataError
from recsys_embed.sources.load import load_dataset


def write(path, times, form, start=0):
    text = written(times, form)
    rows = [f"u{(start + k) % 9},i{(start + 2 * k) % 13},{t}" for k, t in enumerate(text)]
    path.write_text("user,item,date\n" + "\n".join(dict.fromkeys(rows)) + "\n")


TRAIN = ("--model-family", "embeddings", "--epochs", "1", "--dim", "4", "--no-baselines", "--no-track", "--no-refit",
         "--resamples", "0", "--min-rating", "1", "--out", "model", "--split", "time")  # fmt: skip
OPEN = [datetime.datetime(2021, 2, 3, tzinfo=datetime.UTC).timestamp() for _ in range(9)]


def test_later_tables_are_read_as_the_first_one(tmp_path):
    """Both orders fit the further tables, so by themselves they would be read the other way."""
    write(tmp_path / "r.csv", [NOON - DAY * k for k in range(90)], "%m/%d/%Y")
    write(tmp_path / "more.csv", OPEN, "%m/%d/%Y", 5)
    data = DataConfig(dataset="", extra_ratings=str(tmp_path / "more.csv"))
    alone = load_dataset(tmp_path / "more.csv").ratings.time
    assert set(alone.tolist()) == set(seconds(["2021-03-02"]))
    both = load_dataset(tmp_path / "r.csv", data)
    assert both.time_format == "%m/%d/%Y" and both.ratings.time.max() == OPEN[0]
    held_out = load_dataset(tmp_path / "r.csv", test=str(tmp_path / "more.csv"))
    assert set(held_out.test.time.tolist()) == {OPEN[0]}
    seconds_too = tmp_path / "seconds.csv"
    seconds_too.write_text(f"user,item,date\nu1,i1,{NOON + 9 * DAY}\n")
    data = DataConfig(dataset="", extra_ratings=str(seconds_too))
    assert load_dataset(tmp_path / "r.csv", data).ratings.time.max() == NOON + 9 * DAY


@pytest.mark.parametrize("own", ["timestamp", "bought", "date,time"])
def test_later_tables_may_have_one_column_of_times_or_two_others(tmp_path, monkeypatch, own):
    monkeypatch.chdir(tmp_path)
    times = [NOON - 3600 * k for k in range(40)]
    base = frame(written(times, "%d.%m.%Y"), clock=written(times, "%H:%M")).rename({"date": "bought"})
    base.write_csv("r.csv")
    later = pl.DataFrame({"user": ["u1", "u2"], "item": ["i3", "i4"], "day": ["2021-02-03", "2021-02-04"]})
    expected = seconds(["2021-02-03 10:00", "2021-02-04 10:00"])
    if own == "date,time":
        later = later.rename({"day": "date"}).with_columns(time=pl.lit("10:00"))
    else:
        later = later.rename({"day": own}).with_columns(pl.col(own) + " 10:00")
    later.write_csv("later.csv")
    first = {"time_col": "bought,clock"}
    more = load_dataset("r.csv", extra_ratings="later.csv", **first)
    assert set(expected) <= set(more.ratings.time.tolist())
    assert load_dataset("r.csv", test="later.csv", **first).test.time.tolist() == expected
    model, train = small("softmax", epochs=1)
    recommender = Recommender(model, train).fit(load_dataset("r.csv", **first).ratings)
    recommender.metadata.update(dataset="r.csv", settings={"dataset": "r.csv", "split": "time", **first})
    measured = evaluate._test_ratings(recommender, None, "later.csv", False)[0].time.tolist()
    assert measured and set(measured) <= set(expected)
    recommender.update(later)
    with pytest.raises(DataError, match="no column '(clock|bought)'"):
        load_dataset("later.csv", **first)


def test_the_option_counts_wherever_times_are_read(tmp_path):
    """Both orders fit all rows, and by themselves they would be read as %d/%m/%Y, since they are in order then."""
    path = tmp_path / "log.csv"
    times = pl.Series("date", [f"0{1 + k % 4}/0{1 + k // 4}/2025" for k in range(16)])  # 01/01, 02/01, …, 04/04
    frame(times, event=["view", "buy"] * 8).write_csv(path)
    expected = seconds(times, "%m/%d/%Y")
    assert sorted(expected) == sorted(seconds(times)) and expected != seconds(times)
    options = {"time_format": "%m/%d/%Y", "target": "buy"}
    assert load_dataset(path, **options).log.time.tolist() == expected
    recent = [t for t in expected if t >= max(expected) - 35 * DAY]
    assert load_dataset(path, **options, max_age="35d").log.time.tolist() == recent


def test_update_with_events_reads_as_in_the_training(caplog):
    log = event_log(frame(written([NOON - DAY * k for k in range(40)], "%m/%d/%Y"), event=["view", "buy"] * 20),
                    DataConfig(event_col="event", time_col="date"))  # fmt: skip
    recommender = Recommender(*small("softmax", epochs=1)).fit(log.ratings())
    recommender.metadata.update(settings={"time_format": "%m/%d/%Y"}, events=saved(log.types))
    caplog.clear()
    rows = {"user": ["u1", "new"], "item": ["i3", "i4"], "event": ["buy", "view"], "date": ["02/03/2021"] * 2}
    recommender.update(pl.DataFrame(rows))
    assert "may have the day" not in caplog.text


def test_the_model_keeps_the_form(tmp_path):
    write(tmp_path / "r.csv", [NOON - DAY * k for k in range(90)], "%m/%d/%Y")
    write(tmp_path / "test.csv", OPEN, "%m/%d/%Y", 5)
    done = recsys_here("train", "r.csv", *TRAIN, cwd=tmp_path)
    assert "read as %m/%d/%Y" in done.stderr
    settings = json.loads((tmp_path / "model" / "model.json").read_text())["settings"]
    assert settings["time_format"] == "%m/%d/%Y"
    done = recsys_here("evaluate", "--model", "model", "--test", "test.csv", cwd=tmp_path)
    assert "may have the day or the month first" not in done.stderr
    model = Recommender.load(tmp_path / "model")
    model.update(pl.read_csv(tmp_path / "test.csv"))


def test_update_reads_as_in_the_training(caplog):
    ratings = Ratings.from_frame(frame(written([NOON - DAY * k for k in range(40)], "%m/%d/%Y")))
    model, train = small("softmax")
    recommender = Recommender(model, train).fit(ratings)
    recommender.metadata.setdefault("settings", {})["time_format"] = "%m/%d/%Y"
    recommender.update(pl.DataFrame({"user": ["u1", "new"], "item": ["i3", "i4"], "date": ["02/03/2021"] * 2}))
    assert "may have the day" not in caplog.text


def test_files_without_a_header_have_dates_of_all_forms(tmp_path):
    times = [NOON - DAY * k for k in range(30)]
    for form in ("%d.%m.%Y %H:%M", "%m/%d/%Y", "%Y/%m/%d"):
        write(tmp_path / "r.csv", times, form)
        headless = tmp_path / "headless.csv"
        headless.write_text((tmp_path / "r.csv").read_text().partition("\n")[2])
        assert np.array_equal(
            np.sort(load_dataset(headless).ratings.time), np.sort(load_dataset(tmp_path / "r.csv").ratings.time)
        )
