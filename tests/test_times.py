"""Times as shops have them: every form gives the same seconds, content decides, and what is open is said."""

import datetime
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import event_log, recsys_here, small

from recsys_embed import Ratings, Recommender
from recsys_embed.cli import evaluate
from recsys_embed.config.settings import DataConfig
from recsys_embed.data import date_texts, time_formats
from recsys_embed.data.event_types import saved
from recsys_embed.data.ids import RowLabel
from recsys_embed.data.time_formats import find_format, settled_format
from recsys_embed.data.values import are_days, parse_times
from recsys_embed.doctor import check
from recsys_embed.errors import DataError, SettingError
from recsys_embed.sources.load import load_dataset

DAY = 86_400
NOON = 1_609_416_000  # 2020-12-31 12:00
DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%m.%d.%Y", "%d-%m-%Y", "%m-%d-%Y", "%d/%m/%y",
    "%m/%d/%y", "%d.%m.%y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y", "%a, %d %b %Y", "%Y%m%d",
)  # fmt: skip
ENDINGS = (
    "", " %H:%M:%S", ", %H:%M", "T%H:%M:%S", " %I:%M:%S %p", ", %H:%M:%S", " %I:%M:%S%p", " %H:%M:%S.250", " %H:%M:%SZ",
)  # fmt: skip


def seconds(column, time_format=None):
    column = column if isinstance(column, pl.Series) else pl.Series("time", column)
    return parse_times(column, RowLabel(), time_format).to_list()


def written(times, form):
    return pl.Series("time", [datetime.datetime.fromtimestamp(t, datetime.UTC).strftime(form) for t in times])


def frame(times, **columns):
    n = len(times)
    users, items = [f"u{k % 7}" for k in range(n)], [f"i{k % 11}" for k in range(n)]
    return pl.DataFrame({"user": users, "item": items, **columns, "date": times})


@pytest.mark.parametrize(
    ("form", "ending"),
    [(form, ENDINGS[n % len(ENDINGS)]) for n, form in enumerate(DATES)] + [(f, e) for f in DATES[:4] for e in ENDINGS],
)
def test_every_form_gives_the_same_seconds(form, ending):
    times = [NOON + 7919 * k for k in range(40)]
    precision = (1 if "%S" in ending else 60) if ending else DAY
    assert seconds(written(times, form + ending)) == [t // precision * precision for t in times]


@pytest.mark.parametrize("form", ["%Y%m%d", "%Y%m%d%H%M%S", "%Y%m%d%H%M"])
def test_compact_dates_are_dates_as_text_and_as_numbers(form):
    times = [NOON - DAY * k for k in range(20)]
    text = written(times, form)
    expected = times if "%H" in form else [t // DAY * DAY for t in times]
    for column in (text, text.cast(pl.Int64), text.cast(pl.Float64)):
        assert seconds(column) == expected


def test_numbers_that_are_no_dates_stay_seconds():
    for numbers in ([20_250_230, 20_250_101], [19_500_101, 20_250_101], [20_990_101, 20_250_101], [20_250_101, 5]):
        assert seconds(numbers) == numbers
    for numbers in ([NOON, NOON + 1], [str(NOON), str(NOON + 1)], [0, 1], [-5, 3], [True, False]):
        assert find_format(pl.Series(numbers)).format is None
    assert seconds([NOON * 1000, NOON * 1000]) == [NOON, NOON]


@settings(max_examples=10)
@given(st.lists(st.integers(631_152_000, 1_700_000_000), min_size=1, max_size=30))
def test_day_and_month_are_never_swapped_where_one_row_tells(times):
    times = [*times, NOON]  # the 31st
    days = [t // DAY * DAY for t in times]
    for form in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%m-%d-%Y"):
        assert seconds(written(times, form)) == days


def test_the_row_that_tells_may_be_the_last_one(caplog):
    caplog.set_level("INFO")
    few = [NOON + 60 * k for k in range(3)]
    early = [datetime.datetime(2020, 1 + k % 12, 1 + k % 11, tzinfo=datetime.UTC).timestamp() for k in range(3000)]
    column = written([*early, *few], "%m/%d/%Y %H:%M")
    assert settled_format(column) == "%m/%d/%Y"
    assert "%m/%d/%Y" in caplog.text and "WARNING" not in caplog.text


def test_what_is_open_is_said_and_the_option_decides(caplog):
    column = pl.Series("time", ["03/04/2025", "05/06/2025", "01/02/2025"])
    assert settled_format(column) == "%d/%m/%Y"
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "%d/%m/%Y" in record.message and "'%m/%d/%Y'" in record.message
    caplog.clear()
    assert settled_format(column, "%m/%d/%Y") == "%m/%d/%Y" and not caplog.records
    assert seconds(column, "%m/%d/%Y") == seconds(["2025-03-04", "2025-05-06", "2025-01-02"])
    assert seconds(["03/04/2025 10:00"], "%m/%d/%Y") == seconds(["2025-03-04 10:00"]), "a time of day may follow"
    assert seconds(["03/04/2025 10:00"], "%m/%d/%Y %H:%M") == seconds(["2025-03-04 10:00"])


def test_what_chooses_where_both_orders_fit(monkeypatch):
    now = datetime.datetime.now(datetime.UTC)
    next_year = now.year + 1
    assert find_format(pl.Series(["01/02/2025", "02/02/2025", "03/02/2025", "01/03/2025"])).format == "%d/%m/%Y"
    assert find_format(pl.Series(["02/01/2025", "02/02/2025", "02/03/2025", "03/01/2025"])).format == "%m/%d/%Y"
    unordered = ["05/06/2025 2:00 PM", "03/04/2025 1:00 PM", "04/05/2025 1:00 PM"]
    assert find_format(pl.Series(unordered)).format == "%m/%d/%Y", "AM and PM are American"
    assert find_format(pl.Series(["05/06/2025", "03/04/2025", "04/05/2025"])).format == "%d/%m/%Y"
    assert find_format(pl.Series([f"05/05/{next_year}", "05/05/2020"])).other is None, "both orders give the same"
    monkeypatch.setattr(time_formats, "_DAY", datetime.datetime(2020, 6, 15, tzinfo=datetime.UTC) - now)
    for text, form in (("01/12/2020", "%m/%d/%Y"), ("12/01/2020", "%d/%m/%Y")):  # as if it were June 2020
        assert find_format(pl.Series([text, "02/03/2020", text])).format == form


def test_a_cell_that_is_no_date_leaves_the_question_open(caplog):
    dates = ["03/04/2025", "soon", "05/06/2025", "01/02/2025"]
    assert find_format(pl.Series(dates)).other == "%m/%d/%Y"
    assert settled_format(pl.Series(["02/01/2025", "soon", "02/02/2025", "03/01/2025"])) == "%m/%d/%Y", "in order"
    assert "since the rows are then in order" in caplog.text
    for numbers in (["20250101", "soon", "20250102"], [20_250_101, None, 20_250_102]):
        assert find_format(pl.Series(numbers)).format == "%Y%m%d", "no seconds of 1970"


def test_a_year_of_two_digits_may_be_first():
    found = find_format(pl.Series(["24/01/31"]))
    assert found.format == "%y/%m/%d" and found.other == "%d/%m/%y", "in 2031 it is not"
    assert found.question == "the day or the year first"
    assert seconds(["24/01/31 10:00", "24/02/05 11:00"]) == seconds(["2024-01-31 10:00", "2024-02-05 11:00"])
    days = [NOON - DAY * k for k in range(0, 1000, 7)]
    for form in ("%y/%m/%d", "%d/%m/%y", "%m/%d/%y", "%y-%m-%d", "%y.%m.%d"):
        found = find_format(written(days, form))
        assert found == (form, None, ""), "that years are few says it without a word"
    assert find_format(pl.Series(["19/01/05"])).other == "%y/%m/%d"
    few = find_format(pl.Series(["19/05/05", "19/06/06"]))
    assert few.format == "%y/%m/%d" and few.why == "since the times are then of fewer years"


def test_zones_are_taken_off():
    same = ["2020-12-31T14:00:00+02:00", "2020-12-31T07:00:00-0500", "2020-12-31T12:00:00Z", "2020-12-31 12:00:00",
            "2020-12-31 17:30 +0530", "2020-12-31T12:00:00.000+00", "2020-12-31 12:00 UTC"]  # fmt: skip
    for first in range(len(same)):
        assert seconds(same[first:] + same[:first]) == [NOON] * len(same)
    assert seconds(["31/12/2020 14:00 +02:00", "31/12/2020 12:00"]) == [NOON, NOON]
    assert seconds(["Thu Dec 31 12:00:00 +0000 2020"]) == seconds(["31/Dec/2020:13:00:00 +0100"]) == [NOON]


def test_usual_times_of_day_are_read_without_a_look_at_their_pieces(monkeypatch):
    monkeypatch.setattr(date_texts, "_split_texts", None)  # which takes a hundred times as long
    times = [NOON, NOON + 3600]
    for ending in (" %H:%M", ", %H:%M", "T%H:%M:%S", ", %H:%M:%S", " %H:%M:%S.250", " %I:%M %p", ", %I:%M:%S %p"):
        (dates,) = date_texts.read_in_each(written(times, "%d.%m.%Y" + ending), ("%d.%m.%Y",))
        assert dates.dt.epoch("s").to_list() == times


BERLIN = [datetime.datetime(2025, 3, 29) + datetime.timedelta(days=k) for k in range(4)]  # summer begins on the 30th


def test_local_midnights_are_days_through_summer_time():
    naive = pl.Series("time", BERLIN)
    zoned = naive.dt.replace_time_zone("Europe/Berlin")
    text = zoned.dt.to_string("%Y-%m-%d %H:%M:%S%:z")
    for column in (naive, naive.dt.date(), zoned, text, zoned.dt.epoch("s")):
        assert are_days(column, parse_times(column, RowLabel()))
        assert are_days(column[:1], parse_times(column[:1], RowLabel()))
    hours = naive + pl.Series([datetime.timedelta(hours=h) for h in (0, 1, 0, 1)])
    for column in (hours.dt.replace_time_zone("America/Lima"), naive + pl.duration(minutes=pl.Series([0, 5, 0, 9]))):
        column = column if isinstance(column, pl.Series) else pl.select(column).to_series()
        assert not are_days(column, parse_times(column, RowLabel())), "moments"


@pytest.mark.parametrize(
    "column",
    [
        written([NOON], "%d.%m.%Y %H:%M:%S") + pl.Series([".75", ".25", ".500001"]),
        written([NOON], "%Y-%m-%dT%H:%M:%S") + pl.Series([".75", ".25", ".5"]) + "Z",
        pl.Series([NOON + 0.75, NOON + 0.25, NOON + 0.5]),
        pl.Series([NOON + 0.75, NOON + 0.25, NOON + 0.5]).cast(pl.String),
        pl.Series([NOON * 1000 + 750, NOON * 1000 + 250, NOON * 1000 + 500]),
        pl.Series([NOON * 1000 + 750, NOON * 1000 + 250, NOON * 1000 + 500]).cast(pl.Datetime("ms")),
    ],
)
def test_what_happened_within_a_second_keeps_its_order(column):
    rows = pl.DataFrame({"user": ["a"] * 3, "item": ["x"] * 3, "rating": [3.0, 1.0, 2.0], "date": column})
    for duplicates, value in (("last", 3), ("first", 1)):
        ratings = Ratings.from_frame(rows, duplicates=duplicates)
        assert ratings.value.tolist() == [value] and ratings.time.tolist() == [NOON]
    log = event_log(rows.with_columns(event=pl.Series(["c", "a", "b"])), DataConfig(event_col="event", time_col="date"))
    assert [log.types[n].name for n in log.event] == ["a", "b", "c"]


DAYS_OF_TEXT = pl.Series("date", ["2025-01-02", "2025-01-01"])


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(sorted(DAYS_OF_TEXT)), pl.Binary], ids=str)
def test_categories_and_bytes_are_text(dtype):
    assert seconds(DAYS_OF_TEXT.cast(dtype)) == seconds(DAYS_OF_TEXT)
    settled_format(DAYS_OF_TEXT.cast(dtype), "%d/%m/%Y")


@pytest.mark.parametrize(
    "times", [[[1], [2]], [{"a": 1}] * 2, [datetime.time(1)] * 2, [datetime.timedelta(1)] * 2, [b"\xff", b"1"]], ids=str
)
def test_what_holds_no_times_is_said_in_a_line(times):
    with pytest.raises(DataError, match="column 'date' holds .*, and times are dates, numbers or text: .*--time-col"):
        Ratings.from_frame(frame(times), time="date")
    found = check(frame(times), DataConfig(time_col="date"))
    assert "D106" in [f.code for f in found]


def test_twelve_is_noon_and_midnight():
    assert seconds(["12/31/2020 12:00 PM", "12/31/2020 12:00 am"]) == [NOON, NOON - 12 * 3600]


@pytest.mark.parametrize("times", [["31/12/2020 25:00"], ["31/12/2020 12:61"], ["31/12/2020 13:00 PM"], ["30/02/2020"],
                                   ["31/12/0025"], ["soon"], ["12:00"], ["december"]])  # fmt: skip
def test_what_is_no_time_is_refused(times):
    with pytest.raises(DataError, match="in row 1"):
        seconds(times)


def test_errors_name_the_row_and_the_form_of_the_others():
    good = ["31/12/2020", "30/12/2020", "29/12/2020"]
    with pytest.raises(DataError, match=r"'2020-12-31' is not written as the others, %d/%m/%Y, in row 4: write all"):
        seconds([*good, "2020-12-31"])
    with pytest.raises(DataError, match=r"'12/31/2020' is not written as the others, %d/%m/%Y, in row 4"):
        seconds([*good, "12/31/2020"])
    with pytest.raises(DataError, match="time is missing in row 4: fill it in"):
        seconds([*good, None])
    with pytest.raises(DataError, match="--time-format"):
        seconds(["soon", "later"])


def test_days_of_a_spreadsheet_are_read_where_the_option_says_so():
    assert seconds([44_196.5, 44_197.0], "excel") == [NOON, NOON + DAY // 2]
    assert seconds(["44196.5"], "excel") == [NOON]
    assert seconds([44_196.5]) == [44_196], "not by itself"


def test_a_form_that_fits_nothing_is_said_and_the_content_decides(caplog):
    assert settled_format(pl.Series(["31/12/2020"]), "%Y/%m/%d") == "%d/%m/%Y"
    assert "not written as --time-format %Y/%m/%d" in caplog.text
    caplog.clear()
    for plain in ([NOON], ["2020-12-31"], [str(NOON)], [datetime.date(2020, 12, 31)]):
        assert settled_format(pl.Series(plain), "%d/%m/%Y") is None
        assert settled_format(pl.Series(plain), "%Y%m%d") is None
    assert not caplog.records, "these can be read in one way only"


def test_a_format_is_checked():
    for form in ("%d/%m/%Y", "%m-%d-%y", "%F", "%s", "excel", "%-d.%-m.%Y"):
        assert DataConfig(time_format=form).time_format == form
    for form in ("", "dd/mm/yyyy", "d/m/Y", "%Y"):
        with pytest.raises(SettingError, match="time-format"):
            DataConfig(time_format=form)


# A date and a time of day


def test_a_date_and_a_time_of_day_are_one_time(caplog):
    caplog.set_level("INFO")
    times = [NOON + 3600 * k for k in range(30)]
    base = frame(written(times, "%d.%m.%Y"), time=written(times, "%H:%M"))
    expected = Ratings.from_frame(frame(pl.Series(times)), time="date").time.tolist()
    assert Ratings.from_frame(base).time.tolist() == expected
    assert "time = date,time" in caplog.text
    renamed = base.rename({"date": "bought", "time": "clock"})
    assert Ratings.from_frame(renamed, time="bought,clock").time.tolist() == expected
    dates = base.with_columns(pl.col("date").str.to_date("%d.%m.%Y"), pl.col("time").str.to_time("%H:%M"))
    assert Ratings.from_frame(dates).time.tolist() == expected
    for zone in ("Europe/Berlin", "America/Lima"):  # midnight there is another day in London
        midnights = dates.with_columns(pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone(zone))
        assert Ratings.from_frame(midnights).time.tolist() == expected
    log = event_log(base.with_columns(event=pl.lit("view")), DataConfig(event_col="event"))
    assert log.time.tolist() == times
    with pytest.raises(DataError, match="no column 'hour'"):
        Ratings.from_frame(renamed, time="bought,hour")


def test_columns_that_are_no_pair_stay_two():
    times = written([NOON, NOON + 60], "%Y-%m-%d")
    seconds_beside = frame(times, time=pl.Series([NOON, NOON]))
    assert Ratings.from_frame(seconds_beside).time.tolist() == [NOON, NOON], "time is a time by itself"
    named = frame(times, time=pl.Series(["12:00", "13:00"]), timestamp=pl.Series([5, 6]))
    assert Ratings.from_frame(named).time.tolist() == [5, 6]
    whole = frame(written([NOON, NOON + 60], "%Y-%m-%d %H:%M"), time=pl.Series(["12:00", "13:00"]))
    assert Ratings.from_frame(whole, time="date").time.tolist() == [NOON, NOON + 60]


# All doors


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
