"""Times as shops have them: every form gives the same seconds, content decides, and what is open is said."""

import datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from time_texts import DAY, NOON, frame, seconds, written
from worlds import event_log

from recsys_embed import Ratings
from recsys_embed.config.settings import DataConfig
from recsys_embed.data import date_texts, time_formats
from recsys_embed.data.ids import RowLabel
from recsys_embed.data.time_formats import find_format, settled_format
from recsys_embed.data.values import are_days, parse_times
from recsys_embed.doctor import check
from recsys_embed.errors import DataError, SettingError

DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%m.%d.%Y", "%d-%m-%Y", "%m-%d-%Y", "%d/%m/%y",
    "%m/%d/%y", "%d.%m.%y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y", "%a, %d %b %Y", "%Y%m%d",
)  # fmt: skip
ENDINGS = (
    "", " %H:%M:%S", ", %H:%M", "T%H:%M:%S", " %I:%M:%S %p", ", %H:%M:%S", " %I:%M:%S%p", " %H:%M:%S.250", " %H:%M:%SZ",
)  # fmt: skip


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
