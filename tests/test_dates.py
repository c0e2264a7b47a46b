"""Dates in conditions: texts that name a span of time, and today."""

import datetime
import operator

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_embed.config.answers import Rules
from recsys_embed.errors import SettingError
from recsys_embed.rules.compile import RuleCache
from recsys_embed.rules.dates import span_of
from recsys_embed.rules.evaluate import ItemColumns
from recsys_embed.rules.expression import parse_where


def where(text, items):
    return items.where(*parse_where(text))


TIMES = [datetime.datetime(2026, 12, 23, 23, 59), datetime.datetime(2026, 12, 24), None,
         datetime.datetime(2026, 12, 24, 18, 30), datetime.datetime(2026, 12, 25)]  # fmt: skip
DATES = pl.DataFrame(
    {
        "item_id": range(5),
        "day": [at and at.date() for at in TIMES],
        "at": TIMES,
        "zoned": pl.Series(TIMES).dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo"),
        "iso": ["2026-12-23T23:59:00Z", "2026-12-24", None, "2026-12-24 19:30+01:00", "2026-12-25"],
        "year": [2025, 2026, 2026, 2027, None],
        "today": [1, 0, 0, 0, 0],
    }
)
DATED = ItemColumns(DATES, np.zeros(5, np.int64))


@pytest.mark.parametrize("column", ["day", "at", "zoned", "iso"])
@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("{} >= '2026-12-24'", [1, 3, 4]),
        ("'2026-12-24' <= {}", [1, 3, 4]),
        ("{} > '2026-12-24'", [4]),  # a day is all of it
        ("{} <= '2026-12-24'", [0, 1, 3]),
        ("{} < '2026-12-24'", [0]),
        ("{} == '2026-12-24'", [1, 3]),
        ("{} != '2026-12-24'", [0, 2, 4]),
        ("{} in ['2026-12-23', '2026-12-25']", [0, 4]),
        ("{} in [2026, '2020']", [0, 1, 3, 4]),
        ("{} == '2026-12' and {} == '2026' and {} == 2026", [0, 1, 3, 4]),
        ("{} > '2026-11' and {} < '2027' and {} >= 1990", [0, 1, 3, 4]),
        ("{} > '2026' or {} > 2026 or {} < 2026", []),
        ("'2026-12-23' < {} <= '2026-12-24T12:00:00.5Z'", {"day": [1, 3], "else": [1]}),
        ("{} == '2026-12-24T19:30+01:00'", {"day": [], "else": [3]}),
        ("{} >= year", [0, 1]),
        ("{} is None", [2]),
        ("{} >= day", {"day": [0, 1, 3, 4], "else": [0, 1, 3, 4]}),
    ],
)
def test_dates_are_compared_with_texts_and_years(column, text, rows):
    expected = rows if isinstance(rows, list) else rows["day" if column == "day" else "else"]
    assert np.flatnonzero(where(text.replace("{}", column), DATED)).tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("day >= 'soon'", "'day' is a date, and 'soon' is none: write e.g. '2026-12-24', or a year, at character 5"),
        ("iso == '2026-02-30'", "'2026-02-30' is none"),
        ("at in ['2026-12-24', '24.12.2026']", "'24.12.2026' is none"),
        ("'2026' in day", "'day' is a date: nothing is in it"),
        ("year >= today", "'year' is a number, and today is a date"),
        ("day == item_id or day == title", "there is no column 'title'"),
        ("today < now", "this compares no column"),
        ("today", "a value alone is not a condition"),
        ("day > -now", "a number is needed"),
        ("day", "'day' is a date, not a condition"),
    ],
)
def test_what_is_no_date_is_refused(text, message):
    with pytest.raises(SettingError, match=message):
        where(text, DATED)


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m/%d/%y", "%d.%m.%Y %H:%M", "%d %b %Y", "%B %d, %Y", "%Y/%m/%d"])
def test_dates_of_other_forms_are_no_text_to_be_ordered(form):
    """As text 22/12/2026 comes after 2026-12-24."""
    days = pl.Series([datetime.datetime(2026, 12, 10 + k) for k in range(5)]).dt.strftime(form)
    table = ItemColumns(DATES.with_columns(other=days), np.zeros(5, np.int64))
    for text in ("other >= '2026-12-24'", "'2026-12' < other", "other < '2026-12-24T12:00'"):
        with pytest.raises(SettingError, match="'other' has dates that are not ISO"):
            where(text, table)
    assert where(f"other == '{days[1]}'", table).tolist() == [False, True, False, False, False]
    words = ItemColumns(DATES.with_columns(other=pl.lit("24 hours")), np.zeros(5, np.int64))
    assert where("other >= '2026-12-24'", words).all(), "words are text"


def test_dates_as_text_are_still_text():
    assert where("'12-24' in iso", DATED).tolist() == [False, True, False, True, False]
    assert where("`today` == 1", DATED).tolist() == [True, False, False, False, False], "a column of that name"


@pytest.mark.parametrize("text", ["2026", "2026-12", "2026-12-31", "2026-12-31T23:59", "2026-12-31T23:59:59"])
def test_a_text_names_the_time_up_to_the_next_one(text):
    span = span_of(text)
    assert span_of(text.replace("2026", "2027")).start > span.start
    assert span.end == span_of({4: "2027", 7: "2027-01"}.get(len(text), "2027-01-01")).start
    assert span_of("9999-12") is None and span_of("2026-13") is None and span_of("") is None


MOMENTS = st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1))


@settings(max_examples=50, deadline=None)
@given(MOMENTS, MOMENTS)
def test_moments_are_in_the_order_of_their_times(one, other):
    items = ItemColumns(pl.DataFrame({"item_id": [0], "at": [one], "iso": [one.isoformat()]}), np.zeros(1, np.int64))
    for sign, compare in (("<", operator.lt), ("<=", operator.le), (">", operator.gt), (">=", operator.ge)):
        text = other.isoformat(timespec="microseconds")
        for column in ("at", "iso"):
            assert where(f"{column} {sign} '{text}'", items)[0] == compare(one, other)


def test_today_and_now_are_those_of_the_moment():
    rules = RuleCache(DATES, np.zeros(5, np.int64), None, None)

    def allowed(text, as_of):
        return np.flatnonzero(rules.compile(Rules(where=text, as_of=as_of), None, ()).allowed).tolist()

    for as_of in ("2026-12-24", "2026-12-24T12:00", "2026-12-25T00:30+01:00"):
        assert allowed("at >= today", as_of) == [1, 3, 4] and allowed("at == today", as_of) == [1, 3]
    assert allowed("at >= now", "2026-12-24T12:00") == [3, 4] and allowed("at >= now", "2026-12-24T19:00") == [4]
    assert allowed("at in [today, '2026-12-23']", "2026-12-25") == [0, 4]
    assert allowed("today > at", "2027-01-01") == [0, 1, 3, 4]
    assert len(rules._masks.items()) <= 9
    before = len(rules._masks.items())
    assert allowed("at >= today", "2026-12-24T13:00") and len(rules._masks.items()) == before, "a day has one answer"
    with pytest.raises(SettingError, match="as-of must be a date such as 2026-12-24"):
        allowed("at >= today", "tomorrow")


def test_without_a_moment_now_is_now():
    frame = pl.DataFrame({"item_id": [0, 1], "at": [datetime.datetime(1990, 1, 1), datetime.datetime(9000, 1, 1)]})
    rules = RuleCache(frame, np.zeros(2, np.int64), None, None)
    for text, found in (("at < now", [0]), ("at >= today", [1])):
        assert np.flatnonzero(rules.compile(Rules(where=text), None, ()).allowed).tolist() == found
