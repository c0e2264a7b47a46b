"""The data doctor: what it finds in data that are broken on purpose, what it leaves alone, and what it repairs."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from spoilt import DAY, FILMS, RATINGS, changed, codes, events, found, in_form, plus

from recsys_embed.config.settings import DataConfig
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.ratings import Ratings
from recsys_embed.doctor import CODES, check, examine
from recsys_embed.doctor.codes import chosen
from recsys_embed.errors import DataError, SettingError
from recsys_embed.sources.load import load_dataset, read_tables

PAGE = (Path(__file__).parents[1] / "docs" / "data-check.md").read_text()

# What is found


def test_clean_data_have_no_fault():
    for frame in (RATINGS, RATINGS.drop("timestamp"), RATINGS.drop("rating", "timestamp")):
        assert [f for f in check(frame) if f.severity != "note"] == []
    assert codes(check(RATINGS.drop("timestamp"))) == []
    assert codes(check(RATINGS)) == ["D703"], "a random split, though there are times"
    assert codes(check(RATINGS, DataConfig(split="leave-last"))) == []


@pytest.mark.parametrize(
    ("code", "count", "frame"),
    [
        ("D101", 3, pl.concat([RATINGS, RATINGS[[5, 6, 6]]])),
        ("D104", 2, changed("user_id", (3, 8), None)),
        ("D104", 2, changed("item_id", (3, 8), " ")),
        ("D105", 3, changed("rating", (1, 2, 3), float("nan"))),
        ("D105", 1, changed("rating", (1,), float("inf"))),
        ("D105", 2, changed("rating", (1, 2), "n/a", RATINGS.with_columns(pl.col("rating").cast(pl.String)))),
        ("D106", 2, changed("timestamp", (1, 2), None)),
        ("D106", 1, changed("timestamp", (1,), "soon", RATINGS.with_columns(pl.col("timestamp").cast(pl.String)))),
        ("D201", 4, changed("rating", (1, 2, 3, 4), 99.0)),
        ("D201", 4, changed("rating", (1, 2, 3, 4), -99.0)),
        ("D202", 5, changed("rating", range(5), 0.0)),
        ("D203", 4000, RATINGS.with_columns(rating=pl.lit(3.0))),
        ("D301", 2, changed("timestamp", (1, 2), 4_000_000_000)),
        ("D302", 3, changed("timestamp", (1, 2, 3), 0)),
        ("D303", 4000, RATINGS.with_columns(pl.col("timestamp") * 1000)),
        ("D304", 30, changed("timestamp", range(30), lambda t: t * 1000)),
        ("D304", 30, changed("timestamp", range(30, 4000), lambda t: t * 1000)),
        ("D303", 4000, in_form("%d/%m/%Y")),
        ("D305", 4000, RATINGS.with_columns(timestamp=pl.lit(1_600_000_000))),
        ("D307", 4000, RATINGS.with_columns(timestamp=pl.lit("03/04/2021"))),
        ("D308", 2, changed("timestamp", (1, 2), "2021-04-03", in_form("%d/%m/%Y"))),
        ("D308", 1, changed("timestamp", (1,), "12/31/2021", in_form("%d/%m/%Y"))),
        ("D306", 1, RATINGS.rename({"timestamp": "processing_time"})),
        ("D401", 1, plus((" 7", "7", 3, 1_600_000_000))),
        ("D402", 1, plus(("Zo\u00eb", "7", 3, 1_600_000_000), ("Zoe\u0308", "8", 3, 1_600_000_000))),
        ("D403", 1, plus(("anna", "7", 3, 1_600_000_000), ("Anna", "8", 3, 1_600_000_000))),
        ("D404", 2, plus(("007", "7", 3, 1_600_000_000), ("07", "8", 3, 1_600_000_000))),
        ("D405", 1, changed("user_id", (3,), "7.0")),
        ("D406", 12, plus(*[("Guest", str(n), 3, 1_600_000_000) for n in range(1, 13)])),
        ("D406", 12, plus(*[("Gast", str(n), 3, 1_600_000_000) for n in range(1, 13)])),
        ("D406", 1, changed("user_id", (3,), -1, RATINGS.with_columns(pl.col("user_id").cast(pl.Int64)))),
        ("D501", 50, plus(*[(f"new {n}", str(n % 9), 3, 1_600_000_000) for n in range(50)])),
        ("D502", 9, plus(*[("7", f"new {n}", 3, 1_600_000_000) for n in range(9)])),
        ("D503", 1, plus(*[("7", f"b{n}", 3, 1_600_000_000 + n) for n in range(2100)])),
        ("D503", 1, plus(*[("robot", f"b{n}", 3, 1_600_000_000 + n * DAY) for n in range(1500)])),
    ],
)
def test_what_is_broken_is_found_and_counted(code, count, frame):
    finding = found(frame, code)
    assert (finding.count, finding.severity) == (count, CODES[code].severity)
    assert finding.remedy and len(finding.examples) <= 3
    assert "D110" not in codes(check(frame)), "the rest is examined all the same"


def test_one_is_singular():
    few = pl.DataFrame({"user": ["a", "b", "b"], "item": ["x", "x", "y"]})
    assert "1 user of 2 (50 %) has one rating" in found(few, "D501").describe()


def test_examples_say_where():
    frame = changed("rating", (0, 4, 5, 6), None)
    assert found(frame, "D105").examples == ("row 1: nothing", "row 5: nothing", "row 6: nothing")
    assert found(frame, "D105").describe().endswith("row 6: nothing, …")
    twice = found(pl.concat([RATINGS, RATINGS[[5]]]), "D101")
    assert twice.examples == (f"user {RATINGS['user_id'][5]} and item {RATINGS['item_id'][5]}",)


def test_repeats_are_copies_contradictions_or_nothing_new():
    user, item, rating, time = RATINGS.row(9)
    frame = plus((user, item, rating, time), (user, item, rating, time + 1))
    assert [found(frame, code).count for code in ("D101", "D103")] == [1, 1]
    frame = plus((user, item, rating % 5 + 1, time + 1))
    findings = check(frame)
    assert found(frame, "D102").count == 1 and not {"D101", "D103"} & set(codes(findings))
    assert found(frame, "D102", duplicates="error").severity == "error"
    bought = pl.concat([RATINGS, RATINGS[[5, 6]]]).drop("rating", "timestamp")
    assert found(bought, "D103").count == 2 and "D101" not in codes(check(bought)), "it may have happened twice"


@pytest.mark.parametrize("seed", range(3))
def test_counts_and_amounts_are_no_scale(seed):
    random = np.random.default_rng(seed)
    tails = random.geometric(0.5, 4000), random.zipf(1.8, 4000), random.pareto(1.5, 4000) * 20, random.poisson(3, 4000)
    for amounts in (*tails, random.normal(50, 10, 4000)):
        assert "D201" not in codes(check(RATINGS.with_columns(rating=pl.Series(amounts.astype(float)))))


def test_what_goes_on_is_no_outlier():
    tail = changed("rating", range(10, 25), 7.0, changed("rating", range(4), 30.0))
    assert "D201" not in codes(check(tail)), "more values lie in between"


def test_users_of_a_day_and_of_a_share():
    day = plus(*[("7", f"b{n}", 3, 1_600_000_000 + n) for n in range(2100)])
    assert (
        "rows in one day" in found(day, "D503").examples[0]
        and "% of all" in found(day.drop("timestamp"), "D503").examples[0]
    )
    years = pl.concat([RATINGS, RATINGS.with_columns(item_id="b" + pl.col("item_id"))])
    assert "D503" not in codes(check(years))


def test_a_yes_or_no_and_a_threshold_are_understood():
    liked = RATINGS.with_columns(rating=pl.col("rating") > 3)
    assert "zeros" in found(liked, "D202").remedy
    assert "D202" not in codes(check(liked, DataConfig(min_rating=1)))


def test_a_column_that_is_something_else_does_not_hide_the_rest():
    frame = plus(("anna", "7", 3, 1_600_000_000), ("Anna", "8", 3, 1_600_000_000))
    frame = frame.with_columns(rating=pl.lit("purchase"), timestamp=pl.lit("soon"))
    findings = check(frame)
    assert {"D105", "D106", "D403"} <= set(codes(findings))
    assert "--event-col" in found(frame, "D105").remedy


def test_ids_of_floats_are_read_where_they_are_whole():
    floats = RATINGS.with_columns(pl.col("user_id").cast(pl.Float64))
    assert found(floats, "D109").severity == "error" and "D110" not in codes(check(floats))
    assert found(changed("user_id", (3,), float("nan"), floats), "D104").count == 1


def test_dates_without_hyphens_are_guessed():
    frame = RATINGS.with_columns(timestamp=20_230_101 + pl.int_range(pl.len()) % 28)
    assert "%Y%m%d" in found(frame, "D303").message and "D302" not in codes(check(frame))
    broken = frame.with_columns(timestamp=pl.when(pl.int_range(pl.len()) == 3).then(20_230_230).otherwise("timestamp"))
    assert "without hyphens" in found(broken, "D302").message, "there is no such day"
    assert "hyphens" not in found(RATINGS.with_columns(timestamp=pl.int_range(pl.len())), "D302").message


def test_the_order_of_day_and_month_is_open_only_where_nothing_says_it():
    frame = RATINGS.with_columns(timestamp=pl.lit("03/04/2021"))
    assert "D307" not in codes(check(frame, DataConfig(time_format="%d/%m/%Y")))
    assert "D307" not in codes(check(in_form("%d/%m/%Y"))), "some are after the 12th"
    assert "%m/%d/%Y" in found(frame, "D307").remedy


def test_the_option_counts_for_all_that_is_read_of_times(world):
    frame = changed("timestamp", (7,), "04/13/2021", RATINGS.with_columns(timestamp=pl.lit("03/04/2021")))
    assert "D106" not in codes(check(frame)), "by itself the column has the month first"
    assert found(frame, "D106", time_format="%d/%m/%Y").count == 1
    assert "of the test file" in finding_of(world(frame[8:], test=frame[:8], time_format="%d/%m/%Y"), "D106").message
    compact = in_form("%d%m%Y%H%M").with_columns(pl.col("timestamp").cast(pl.Int64))
    messages = [f.message for f in check(compact, DataConfig(time_format="%d%m%Y%H%M")) if f.code == "D303"]
    assert messages == ["times are written as %d%m%Y%H%M"], "no milliseconds"


def test_days_of_a_spreadsheet_are_guessed():
    frame = RATINGS.with_columns(timestamp=pl.col("timestamp") / DAY + 25_569)
    assert "--time-format excel" in found(frame, "D302").message
    assert "D302" not in codes(check(frame, DataConfig(time_format="excel")))


def test_a_date_and_a_time_of_day_are_examined_as_one():
    time = pl.from_epoch("timestamp")
    frame = RATINGS.select("user_id", "item_id", date=time.dt.strftime("%d.%m.%Y"), time=time.dt.strftime("%H:%M"))
    assert {f.severity for f in check(frame)} <= {"note"}


def test_one_user_alone_is_an_error():
    assert found(RATINGS.with_columns(user_id=pl.lit("me")), "D204").severity == "error"
    nothing = RATINGS.with_columns(user_id=pl.lit(None, pl.String))
    assert found(nothing, "D110").severity == "error"


def test_graphs_have_loops():
    frame = pl.DataFrame({"source": [1, 2, 3, 4, 4, 1], "target": [2, 3, 4, 1, 4, 2]})
    assert found(frame, "D111", shared_ids=True).count == 1 and found(frame, "D103", shared_ids=True).count == 1


def test_frames_of_pandas_and_data_sets_are_examined():
    frame = changed("rating", range(5), 0.0)
    assert codes(check(pd.DataFrame(frame.to_dict(as_series=False)))) == codes(check(frame))
    assert "D202" in codes(check(Dataset(Ratings.from_frame(frame), None)))
    with pytest.raises(DataError, match="no column for the user"):
        check(pl.DataFrame({"a": [1]}))


# Events


def test_a_log_that_no_option_names_is_pointed_out_at_every_door(tmp_path):
    finding = found(events(), "D601")
    assert finding.count == 4 and finding.examples[0].startswith("view (") and "--event-col kind" in finding.remedy
    assert "D601" not in codes(check(events(), DataConfig(event_col="kind")))
    numbers = events().with_columns(kind=pl.col("kind").replace_strict({"view": 1}, default=2, return_dtype=pl.Int64))
    assert "D601" not in codes(check(numbers))
    assert found(numbers.rename({"kind": "behavior_type"}), "D601").count == 2
    events().write_csv(tmp_path / "log.csv")
    assert "D601" in codes(check(load_dataset(str(tmp_path / "log.csv"))))


def test_types_of_events():
    said = found(events(), "D603", event_col="kind")
    assert said.count == int((events()["kind"] == "return").sum())
    assert "D603" not in codes(check(events(), DataConfig(event_col="kind", event_weights="view=1,return=2")))
    assert found(events().with_columns(kind=pl.lit("view")), "D602", event_col="kind").count == 3000
    assert found(events(), "D604", event_col="kind", target="buy").examples == ("buy",)
    blank = events().with_columns(kind=pl.when(pl.int_range(pl.len()) > 1).then("kind"))
    assert found(blank, "D108", event_col="kind").count == 2
    twice = pl.concat([events(), events().head(4)])
    assert found(twice, "D101", event_col="kind").count == 4
    assert not {"D101", "D102", "D103"} & set(codes(check(events(), DataConfig(event_col="kind")))), (
        "repeats are normal"
    )


def test_weights_that_are_none():
    frame = RATINGS.with_columns(amount=pl.when(pl.int_range(pl.len()) > 2).then(1.5).otherwise(0))
    assert found(frame, "D107", weight_col="amount").count == 3


# Files, item tables, splits


@pytest.fixture
def world(tmp_path):
    """Write a frame, or another, and files of held-out rows; examine them."""

    def examined(frame=RATINGS, items=None, **settings):
        frame.write_csv(tmp_path / "ratings.csv")
        for name in ("valid", "test"):
            if isinstance(settings.get(name), pl.DataFrame):
                settings[name].write_csv(tmp_path / f"{name}.csv")
                settings[name] = str(tmp_path / f"{name}.csv")
        if items is not None:
            items.write_csv(tmp_path / "items.csv")
            settings["items"] = str(tmp_path / "items.csv")
        config = DataConfig(str(tmp_path / "ratings.csv"), **settings)
        return examine(read_tables(config.dataset, config), config)

    return examined


def finding_of(result, code):
    return next(f for f in result.findings if f.code == code)


def test_rows_of_held_out_files_in_train(world):
    result = world(RATINGS[:3500], test=RATINGS[3490:], valid=RATINGS[3495:3510])
    counts = sorted(f.count for f in result.findings if f.code == "D701")
    assert counts == [5, 10, 15] and finding_of(result, "D701").severity == "error"
    assert "D701" not in codes(world(RATINGS[:3500], test=RATINGS[3500:]).findings)


def test_item_tables(world):
    films = pl.concat([FILMS[:40], FILMS[:2]])
    result = world(items=films)
    assert (finding_of(result, "D504").count, finding_of(result, "D505").count) == (20, 2)
    assert finding_of(world(items=FILMS[1:]), "D504").severity == "note", "one lacks"
    strange = FILMS.with_columns(item_id=pl.col("item_id") + 1000)
    assert finding_of(world(items=strange), "D504").severity == "error", "all lack"
    assert not {"D504", "D505"} & set(codes(world(items=FILMS).findings))


def test_few_test_users_and_cold_ones(world):
    few = RATINGS.filter(pl.col("user_id").cast(pl.Int64) <= 50)
    assert finding_of(world(few), "D702").count <= 50 and "D702" not in codes(world().findings)
    new = RATINGS[3500:].with_columns(user_id="n" + pl.col("user_id"), item_id="n" + pl.col("item_id"))
    result = world(RATINGS[:3500], test=new)
    assert [finding_of(result, code).count for code in ("D704", "D705")] == [500, 500]


def test_previews_say_what_each_split_would_hold_out(world):
    result = world(split="time")
    for name, facts in result.splits.items():
        _, _, test = result.dataset.split(DataConfig(split=name))
        assert (facts["test"], facts["test_users"]) == (len(test), len(set(test.user.tolist()))), name
    assert set(result.splits) == {"random", "leave-last", "time"} and result.suits[0] == "time"
    assert "D703" not in codes(result.findings)
    without = world(RATINGS.drop("timestamp"))
    assert set(without.splits) == {"random"} and without.suits[0] == "random"
    assert finding_of(world(RATINGS.drop("timestamp"), split="time"), "D706").severity == "error"
    future = world(changed("timestamp", range(9), 4_000_000_000))
    assert future.suits[0] == "random" and "D703" not in codes(future.findings), "with times like these"
    # Every user for a short while: nobody of the newest rows is known.
    waves = RATINGS.with_columns(timestamp=1_600_000_000 + DAY * pl.col("user_id").cast(pl.Int64))
    assert world(waves).suits[0] == "leave-last"


# Codes


def test_every_code_has_its_section_and_every_section_its_code():
    sections = re.findall(r"^### (D\d{3}): .+ \((\w+)\)$", PAGE, re.MULTILINE)
    assert [code for code, _ in sections] == list(CODES) == sorted(CODES)
    assert {code: severity for code, severity in sections} == {code: c.severity for code, c in CODES.items()}
    for section in PAGE.split("\n### ")[1:]:
        code, text = section[:4], section.partition("\n## ")[0]
        assert len(text.split()) > 25, f"{code}: what it is, why it harms, what to do"
        assert ("`--fix`" in text) == CODES[code].is_fixed, code


def test_codes_are_chosen_by_their_beginnings():
    some = check(changed("rating", (1,), None, changed("timestamp", (9,), 0)))
    assert codes(chosen(some, only=["d3", "D105"])) == ["D105", "D302"]
    with pytest.raises(SettingError, match="no finding has the code 'X'"):
        chosen(some, ignore=["X"])
