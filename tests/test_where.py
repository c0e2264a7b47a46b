"""Conditions on items: read by a grammar of their own, they equal a row-by-row evaluation, and nothing is executed."""

import datetime
import operator
import warnings

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_embed.errors import SettingError
from recsys_embed.rules.evaluate import ItemColumns
from recsys_embed.rules.expression import MAX_LENGTH, parse_boost, parse_per_group, parse_where

TABLE = pl.DataFrame(
    {
        "item_id": [1, 2, 3, 4, 5, 2**60 + 1],
        "title": ["Toy Story (1995)", "HEAT (1995)", "Schindler's List", 'A "quoted" one; with: signs', "Ünder Ÿ", "x"],
        "year": [1995, 1995, 1993, None, 2001, -5],
        "genres": ["Animation|Comedy", "Action|Crime", "Drama|War", "", None, "drama | Comedy"],
        "names": [["Tom Hanks", "Tim Allen"], ["Al Pacino"], None, [], ["tom hanks"], ["Al Pacino", None]],
        "price": [1.5, float("nan"), None, -2.0, 0.0, 1e300],
        "adult": [True, False, None, False, False, True],
        "release date": [datetime.date(1995, 11, 22), None, *[datetime.date(1993, 1, 1)] * 4],
        "runtime": ["81", "170", "195", "n/a", "90", "90.5"],
        "nothing": pl.Series([None] * 6, dtype=pl.String),
        "country": pl.Series(["US", "us", "UK", None, "US", "UK"], dtype=pl.Categorical),
        "odd": [{"a": 1}] * 6,
    }
)
COUNTS = np.array([7, 0, 3, 3, 1, 0])
ITEMS = ItemColumns(TABLE, COUNTS)


def where(text, items=ITEMS):
    return items.where(*parse_where(text))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("year >= 1995", [0, 1, 4]),
        ("1990 < year <= 1995", [0, 1, 2]),
        ("year == -5 or year==2001", [4, 5]),
        ("year != 1995", [2, 3, 4, 5]),  # exactly where == does not hold
        ("not year == 1995", [2, 3, 4, 5]),
        ("year < 1995", [2, 5]),  # what is not known is neither less
        ("year >= 1995 or year < 1995", [0, 1, 2, 4, 5]),  # … nor more
        ("not (year >= 1995 or year < 1995)", [3]),
        ("year is None", [3]),
        ("year is not None and year != 1995", [2, 4, 5]),
        ("year in [1995, 2001.0]", [0, 1, 4]),
        ("year not in (1995, 2001)", [2, 3, 5]),
        ("year in []", []),
        ("year > 1e999", []),
        ("year < 99999999999999999999999999", [0, 1, 2, 4, 5]),
        (f"item_id == {2**60 + 1}", [5]),
        (f"item_id == {2**60}", []),  # whole numbers are compared to the last digit
        (f"item_id in [1, {2**59}]", [0]),
        ("item_id not in [1, 2, 3]", [3, 4, 5]),
        ("price >= -2", [0, 3, 4, 5]),
        ("price is None", [1, 2]),
        ("runtime > 90", [1, 2, 5]),
        ("runtime is None", [3]),
        ("'Comedy' in genres", [0, 5]),
        ("'comedy' in genres and not 'Animation' in genres", [5]),
        ("'Com' in genres", []),  # a tag is named whole
        ("'Comedy' not in genres", [1, 2, 3, 4]),
        ("genres is None", [3, 4]),
        ("genres == 'drama|war'", [2]),
        ("'TOM HANKS' in names", [0, 4]),
        ("names == 'al pacino'", [1, 5]),
        ("names is None", [2, 3]),
        ("'toy' in title", [0]),
        ("'list' in title or 'heat' in title", [1, 2]),
        ("title == 'heat (1995)'", [1]),
        ('"schindler\'s" in title', [2]),
        (r"'schindler\'s' in title", [2]),
        ("'; with: ' in title", [3]),
        ("'ünder ÿ' in title", [4]),
        ("'.*' in title", []),  # no pattern
        ("title >= 'U'", [4, 5]),
        ("country == 'US'", [0, 1, 4]),
        ("country in ['us', 'fr']", [0, 1, 4]),
        ("adult", [0, 5]),
        ("not adult", [1, 2, 3, 4]),
        ("adult == False", [1, 3, 4]),
        ("`release date` >= 1995", [0]),
        ("`release date` is None", [1]),
        ("nothing > 3 or nothing == 'x' or 'x' in nothing or nothing in [1]", []),
        ("nothing is None", [0, 1, 2, 3, 4, 5]),
        ("ratings >= 3", [0, 2, 3]),
        ("ratings < year", [0, 1, 2, 4]),
        ("title == country", []),
        ("True", [0, 1, 2, 3, 4, 5]),
        ("False or (False)", []),
        ("not not not True", []),
        ("(year) == (1993)", [2]),
        ("year == 1995 and ratings == 0 or adult", [0, 1, 5]),  # 'and' binds more
        ("year == 1995 and (ratings == 0 or adult)", [0, 1]),
    ],
)
def test_what_holds(text, rows):
    found = where(text)
    assert found.dtype == bool and found.shape == (6,) and np.flatnonzero(found).tolist() == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("year = 1995", "where: write == to compare, at character 6 of 'year = 1995'"),
        ("year >= 1990 AND adult", "write 'and', in lower case, at character 14"),
        ("year > 1 && adult", "write 'and', at character 10"),
        ("!adult", "write 'not'"),
        ("", "it ends where a column or a value is needed, at character 1"),
        ("yeer > 3", "there is no column 'yeer' .did you mean year..; the columns are item_id, title, year, "),
        ("odd == 1", "'odd' holds Struct"),
        ("year", "'year' is a number, not a condition: compare it"),
        ("genres or adult", "'genres' is tags, not a condition"),
        ("year > 'a'", "'year' is a number, and 'a' is text, at character 6"),
        ("title == 3", "'title' is text, and '3' is a number"),
        ("3 in genres", "'genres' is tags, and '3' is a number"),
        ("'a' in year", "'year' is a number, and 'a' is text"),
        ("1995 in year", "'year' is a number: nothing is in it"),
        ("title < year", "'title' is text, and 'year' is a number"),
        ("year in [1, 'a']", "'a' is text"),
        ("year == None", "write 'is None'"),
        ("year in [None]", "write 'is None'"),
        ("year is 3", "'is' goes with None"),
        ("1 < 2", "this compares no column"),
        ("'a' in ['a']", "this compares no column"),
        ("year in 3", "'in' stands after"),
        ("year == [3]", r"\[values\] go with 'in'"),
        ("'Comedy'", "a value alone is not a condition"),
        ("adult and 3", "a value alone is not a condition, at character 11"),
        ("(1, 2)", "a value alone is not a condition"),
        ("(year > 1) == adult", "not beside another condition"),
        ("adult adult", "'and' or 'or' is needed, not 'adult' .*in backticks: `adult adult`.*, at character 7"),
        ("release date > 3", "not one word stands in backticks: `release date`"),
        ("release_date is None", "there is no column 'release_date' .did you mean `release date`..;"),
        ("'release date' > 3", "this compares no column: names of columns have no quotes, or backticks"),
        ("`release date` > 1995-01-01", r"not '-' \(a date stands in quotes: '2026-12-24'\), at character 22"),
        ("year > 19,5", r"not ',' \(a number has a point: 19\.5\)"),
        ("year > 1 not adult", "'in' is needed"),
        ("title == 'x", "this quote is never closed, at character 10"),
        ("`release date", "this quote is never closed"),
        ("year > 1990s", "does not begin a number"),
        ("year > --3", "a number is needed, not '-'"),
        ("year in [1, 2", r"it ends where '\]' is needed"),
        ("()", "a column or a value is needed, not"),
        ("__import__('os').system('true')", "is not part of a condition"),
        ("year.real > 1", "'.' is not part of a condition"),
        ("len(title) > 1", "is needed, not '\\('"),
        ("lambda: True", "is needed, not ':'"),
        ("f'{year}' == title", "is needed, not"),
        ("9**9**9 > year", "is not part of a condition"),
        ("(y := 3) > year", "write =="),
        ("year > 1 if adult else 2", "is needed, not 'if'"),
        ("adult\0", "not part of a condition"),
        ("title == '\ud800'", "a surrogate, half a character, is not text"),
        ("(" * 10_000, "where has 10,000 characters; 2,000 are the most"),
        ("(" * 1_000, "parentheses may be nested 40 deep at most"),
        ("-" * 1_999, "a number is needed"),
        ("not " * 499, "it ends where"),
        ("adult or " * 70 + "year < 3 or " * 70 + "adult", "comparison 65; 64 are the most"),
    ],
)
def test_what_is_refused_says_what_and_where(text, message):
    with pytest.raises(SettingError, match=message) as error:
        where(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    str(error.value).encode()  # whatever was given, the message can be printed


def test_as_much_as_is_allowed_is_answered():
    assert where("not " * 498 + "adult").tolist() == where("adult").tolist()
    assert where("(" * 40 + "adult" + ")" * 40).any() and where(" or ".join(["(adult)"] * 60)).any()
    assert where("item_id in [" + "1," * 900 + "]").sum() == 1
    assert len("a" * MAX_LENGTH) == MAX_LENGTH and not where("title == '" + "x" * (MAX_LENGTH - 11) + "'").any()


PIECES = ["year", "title", "genres", "adult", "odd", "nope", "`release date`", "and", "or", "not", "in", "is", "None",
          "True", "(", ")", "[", "]", ",", "==", "!=", "<", ">=", "=", "-", "3", "0.5", "1e9", "'x'", '"', "'", "`",
          ":", ";", ".", "\\", "\0", "\ud800", "☃", "lambda", "__import__"]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES), max_size=14).map(" ".join)))
def test_any_text_is_answered_or_refused_in_one_way(text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in (where, parse_boost, parse_per_group):
            try:
                read(text)
            except SettingError as error:
                str(error).encode()


# A row as plain Python has it: tags as a set, texts in lower case, None where nothing is known.
WORLD = pl.DataFrame(
    {
        "item_id": range(40),
        "year": [None if n % 7 == 0 else 1990 + n % 6 for n in range(40)],
        "score": [None if n % 5 == 0 else n / 4 - 3 for n in range(40)],
        "genres": [None if n % 9 == 0 else "|".join(g for at, g in enumerate("ABC") if n >> at & 1) for n in range(40)],
        "title": [None if n % 11 == 0 else f"Film {n % 13} aB" for n in range(40)],
        "adult": [None if n % 6 == 0 else n % 4 == 0 for n in range(40)],
    }
)
ROWS = [
    row
    | {
        "genres": set(row["genres"].lower().split("|")) if row["genres"] else None,
        "title": row["title"] and row["title"].lower(),
        "ratings": n % 4,
    }
    for n, row in enumerate(WORLD.to_dicts())
]
OPERATORS = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip
NUMBERS = st.one_of(st.integers(-5, 2000), st.integers(1988, 1997), st.floats(-4, 8).map(lambda x: round(x, 2)))
TEXTS = st.sampled_from(["film 3 ab", "FILM 12 AB", "film", "B", "1", "", "'", '"', "\\", "a: b; c"])


def quoted(value):
    return repr(value) if not isinstance(value, str) else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def compared(name, sign, value):
    """None is equal to nothing, and neither less nor more."""
    compare = OPERATORS[sign]

    def holds(row):
        known = row[name] is not None
        return compare(row[name], value.lower() if isinstance(value, str) else value) if known else sign == "!="

    return f"{name} {sign} {quoted(value)}", holds


def within(value, name, negated):
    def holds(row):
        return (row[name] is not None and value.lower() in row[name]) != negated

    return f"{quoted(value)} {'not ' * negated}in {name}", holds


def listed(name, values, negated):
    def holds(row):
        lowered = [v.lower() if isinstance(v, str) else v for v in values]
        return (row[name] in lowered) != negated

    return f"{name} {'not ' * negated}in [{', '.join(map(quoted, values))}]", holds


NUMERIC = st.sampled_from(["year", "score", "ratings", "item_id"])
SIMPLE = st.one_of(
    st.builds(compared, NUMERIC, st.sampled_from(list(OPERATORS)), NUMBERS),
    st.builds(compared, st.just("title"), st.sampled_from(list(OPERATORS)), TEXTS),
    st.builds(compared, st.just("adult"), st.sampled_from(["==", "!="]), st.booleans()),
    st.builds(within, st.sampled_from(["A", "b", "C", "AB", "x"]), st.just("genres"), st.booleans()),
    st.builds(within, TEXTS, st.just("title"), st.booleans()),
    st.builds(listed, NUMERIC, st.lists(NUMBERS, max_size=4), st.booleans()),
    st.builds(listed, st.just("title"), st.lists(TEXTS, max_size=3), st.booleans()),
    st.sampled_from(["year", "score", "genres", "title", "adult"]).map(
        lambda name: (f"{name} is None", lambda row: row[name] is None)
    ),
    st.just(("adult", lambda row: row["adult"] is True)),
    st.just(("score <= ratings < year", lambda row: _chain(row["score"], row["ratings"], row["year"]))),
    st.booleans().map(lambda value: (str(value), lambda row: value)),
)


def _chain(low, middle, high):
    return low is not None and high is not None and low <= middle < high


def joined(word, parts):
    of = all if word == "and" else any
    return f" {word} ".join(f"({text})" for text, _ in parts), lambda row: of(holds(row) for _, holds in parts)


CONDITIONS = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.builds(joined, st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)),
        inner.map(lambda one: (f"not ({one[0]})", lambda row: not one[1](row))),
    ),
    max_leaves=6,
)
SMALL = ItemColumns(WORLD, np.arange(40) % 4)


@settings(max_examples=150, deadline=None)
@given(CONDITIONS)
def test_conditions_are_what_python_says_row_by_row(condition):
    text, holds = condition
    assert where(text, SMALL).tolist() == [bool(holds(row)) for row in ROWS], text


@settings(max_examples=30, deadline=None)
@given(CONDITIONS, CONDITIONS)
def test_not_parts_the_items_in_two(one, other):
    left, right = where(one[0], SMALL), where(other[0], SMALL)
    np.testing.assert_array_equal(where(f"not ({one[0]})", SMALL), ~left)
    np.testing.assert_array_equal(
        where(f"not (({one[0]}) or ({other[0]}))", SMALL), where(f"not ({one[0]}) and not ({other[0]})", SMALL)
    )
    np.testing.assert_array_equal(where(f"({one[0]}) and ({other[0]})", SMALL), left & right)


def test_text_ids_are_compared_as_they_are():
    items = ItemColumns(pl.DataFrame({"item_id": ["a", "A", "007"], "title": ["x", "y", "z"]}), np.zeros(3, np.int64))
    assert where("item_id == 'A'", items).tolist() == [False, True, False]
    assert where("item_id in ['a', '7']", items).tolist() == [True, False, False]
    with pytest.raises(SettingError, match="'item_id' is text, and '7' is a number"):
        where("item_id == 7", items)


def test_boosts_and_limits_are_read_with_the_same_signs():
    parts, _ = parse_boost("':;' in title: 0.7; `release date` < 1990: -1e2 ;")
    assert [amount for _, amount in parts] == [0.7, -100]
    assert [ITEMS.where(condition, parse_boost("True: 1")[1]).sum() for condition, _ in parts] == [0, 0]
    parts, _ = parse_per_group("genres: 2; `release date`: 10")
    assert [(column.name, most) for column, most in parts] == [("genres", 2), ("release date", 10)]


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (parse_boost, "", "boost is empty: write EXPRESSION: AMOUNT"),
        (parse_boost, "adult", "boost: it ends where ':' is needed"),
        (parse_boost, "adult: x", "a column or a value is needed|a number is needed"),
        (parse_boost, "adult: True", "a number is needed"),
        (parse_boost, "adult: 1e999", "an amount lies between -1000 and 1000"),
        (parse_boost, "adult: 1, year > 3: 2", "';' is needed, not ','"),
        (parse_per_group, "", "per-group is empty: write COLUMN: NUMBER"),
        (parse_per_group, "genres", "it ends where ':' is needed"),
        (parse_per_group, "genres: 0", "a whole number, at least 1, is needed"),
        (parse_per_group, "genres: 1.5", "a whole number, at least 1, is needed"),
        (parse_per_group, "'genres': 1", "the name of a column is needed"),
    ],
)
def test_what_is_no_boost_or_limit_is_refused(read, text, message):
    with pytest.raises(SettingError, match=message):
        read(text)
