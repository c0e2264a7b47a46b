"""Further ratings: they are appended once, and messages name their files."""

import datetime

import polars as pl
import pytest

from recsys_embed.config.addresses import several_locations
from recsys_embed.config.settings import DataConfig
from recsys_embed.errors import DataError, SettingError
from recsys_embed.sources.load import load_dataset

HEADER = "user,item,event,time\n"
ROWS = "a,x,view,2026-01-01 10:00:00\na,x,purchase,2026-01-01 10:00:07\nb,y,view,2026-01-02 09:00:00\n"
OF_THE_WEEK = "b,y,purchase,2026-01-08 12:00:00\nb,x,view,2026-01-08 12:00:01\nb,x,view,2026-01-08 12:00:01\n"
FIRST, WEEK = HEADER + ROWS, HEADER + OF_THE_WEEK


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.csv").write_text(FIRST)
    (tmp_path / "week.csv").write_text(WEEK)
    return tmp_path


def events_of(dataset="shop.csv", **options):
    log = load_dataset(dataset, target="purchase", **options).log
    return sorted(
        zip(log.users.ids(log.user), log.items.ids(log.item), log.time.tolist(), log.event.tolist(), strict=True)
    )


def test_a_week_that_the_grown_file_has_too_is_taken_once(files, caplog):
    once = events_of(extra_ratings="week.csv")
    assert len(once) == 6, "a row that is twice in one file happened twice"
    (files / "grown.csv").write_text(FIRST + OF_THE_WEEK)
    assert events_of("grown.csv", extra_ratings="week.csv") == events_of("grown.csv") == once
    assert "3 of the 3 rows of week.csv are there already" in caplog.text


def test_a_rating_that_was_corrected_without_another_time_is_no_copy(files):
    (files / "first.csv").write_text("user,item,rating,time\na,x,3,1600000001\na,y,2.0,1600000050\n")
    (files / "more.csv").write_text("user,item,rating,time\na,x,5,1600000001\na,y,2,1600000050\n")
    ratings = load_dataset("first.csv", extra_ratings="more.csv").ratings.frame()
    assert ratings.sort("item_id")["rating"].to_list() == [5, 2]


def test_on_days_alone_nothing_is_a_copy(files):
    for name in ("shop.csv", "week.csv"):
        days = pl.read_csv(files / name).with_columns(pl.col("time").str.slice(0, 10))
        days.write_csv(files / name)
    (files / "week.csv").write_text((files / "shop.csv").read_text())
    assert len(events_of(extra_ratings="week.csv")) == 6


def test_local_midnights_are_days_through_summer_time(files):
    """Times in UTC of a place's midnights differ by an hour, and are no moments."""
    days = pl.Series("time", [datetime.datetime(2026, 3, 28), datetime.datetime(2026, 4, 3)])
    log = pl.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "event": ["view", "purchase"], "time": days})
    log = log.with_columns(pl.col("time").dt.replace_time_zone("Europe/Berlin"))
    log.write_parquet("shop.parquet")
    assert len(events_of("shop.parquet", extra_ratings="shop.parquet")) == 4, "what is done twice on a day"
    moments = log.with_columns(pl.col("time") + pl.Series([datetime.timedelta(hours=h) for h in (1, 2)]))
    moments.write_parquet("shop.parquet")
    assert len(events_of("shop.parquet", extra_ratings="shop.parquet")) == 2


def test_times_that_are_seconds_by_now_are_not_read_again(files):
    (files / "shop.csv").write_text("user,item,time\na,x,2101312359\nb,y,2102010000\n")
    (files / "more.csv").write_text("user,item,time\nc,x,2021-01-31T22:32:39\n")  # in seconds 1612132359
    data = load_dataset("shop.csv", time_format="%y%m%d%H%M", extra_ratings="more.csv", max_age="2d")
    assert sorted(data.ratings.time.tolist()) == [1612132359, 1612137540, 1612137600]
    log = pl.read_csv("shop.csv").with_columns(event=pl.lit("purchase"))
    log.write_csv("log.csv")
    events = load_dataset("log.csv", target="purchase", time_format="%y%m%d%H%M", extra_ratings="more.csv").log
    assert sorted(events.time.tolist()) == [1612132359, 1612137540, 1612137600]


def test_several_files_are_named_at_once_and_may_differ(files):
    (files / "other.csv").write_text("customer;sku;action;date\nc;z;purchase;09.01.2026 08:00\n")
    together = events_of(extra_ratings="week.csv; other.csv")
    assert len(together) == 7 and together[-1][:2] == ("c", "z")
    assert several_locations("a.csv;b.csv;") == ["a.csv", "b.csv"]
    assert several_locations("postgresql://h/d;x") == ["postgresql://h/d;x"]
    with pytest.raises(SettingError, match="alone"):
        DataConfig(extra_ratings="a.csv;postgresql://me:secret@h/d")
    assert events_of(extra_ratings="") == events_of()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("b,y,purchase,\n", "line 5 of week.csv"),
        (",y,purchase,2026-01-08 12:00:00\n", "user id is missing in line 5 of week.csv"),
    ],
)
def test_what_is_wrong_with_a_further_file_names_it(files, rows, message):
    (files / "week.csv").write_text(WEEK + rows)
    with pytest.raises(DataError, match=message):
        events_of(extra_ratings="week.csv")


def test_columns_that_are_not_found_are_those_of_the_further_file(files):
    (files / "week.csv").write_text("event,time\nview,2026-01-08\n")
    with pytest.raises(DataError, match=r"^week\.csv: "):
        events_of(extra_ratings="week.csv")
