"""Values that are set in an item table: what was computed before stays right, and what was asked before stays as it
was."""

import datetime
import json
import re
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import recsys_here, small, tastes

from recsys_embed.config.answers import Rules
from recsys_embed.config.settings import ContentConfig
from recsys_embed.data.cells import with_cells
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import DataError, UnknownId
from recsys_embed.recommender import Recommender
from recsys_embed.rules.compile import RuleCache
from recsys_embed.serving.event_store import EventStore
from recsys_embed.serving.item_store import ItemStore
from recsys_embed.serving.items_file import ItemsFile
from recsys_embed.state.change_items import ItemValue, check_item_values, set_item_values

ITEMS = 30
TABLE = pl.DataFrame(
    {
        "item_id": range(ITEMS),
        "title": [f"Item {n}" for n in range(ITEMS)],
        "price": [None if n % 7 == 0 else float(n) for n in range(ITEMS)],
        "stock": range(ITEMS),
        "runtime": [None if n % 5 == 0 else str(60 + n) for n in range(ITEMS)],
        "genres": ["|".join("ABC"[: 1 + n % 3]) for n in range(ITEMS)],
        "labels": [["new", "red"][: n % 3] for n in range(ITEMS)],
        "on": [n % 2 == 0 for n in range(ITEMS)],
        "until": [datetime.date(2026, 12, 1 + n) for n in range(ITEMS)],
        "empty": pl.Series([None] * ITEMS, dtype=pl.String),
    }
)


@pytest.fixture(scope="module")
def made():
    pairs = [(u, i) for u in range(7) for i in range(ITEMS) if (u * i) % 3]
    frame = pl.DataFrame(pairs, schema=["user", "item"], orient="row")
    ratings = Ratings.from_frame(frame).with_items(pl.Series(range(ITEMS)))
    return Recommender(*small("softmax", epochs=2)).fit(ratings, TABLE)


CONDITIONS = [
    "price > 9", "not price > 9", "stock > 4 and price < 20", "'B' in genres", "'red' in labels or on", "on",
    "until >= '2026-12-20'", "until == today", "runtime > 70", "'item 1' in title", "stock is None", "genres == 'a|b'",
    "year(2026) is None".replace("year(2026)", "until"), "price is None and stock >= 0", "ratings > 2",
]  # fmt: skip
VALUES = {
    "price": st.none() | st.floats(0, 40, width=32), "stock": st.none() | st.integers(-5, 40) | st.just(2.5),
    "runtime": st.integers(60, 80) | st.none(), "genres": st.sampled_from(["A", "B|C", ["C", "A"], None, ""]),
    "labels": st.sampled_from([[], ["red"], "new|red", None]), "on": st.booleans() | st.none(),
    "until": st.sampled_from(["2026-12-20", "2027-01-01T12:00", None]), "title": st.sampled_from(["Item 1x", "Other"]),
}  # fmt: skip
CHANGE = st.one_of(
    *(st.builds(ItemValue, st.integers(0, ITEMS - 1), st.just(name), values) for name, values in VALUES.items())
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(CHANGE, min_size=1, max_size=5), min_size=1, max_size=3))
def test_rules_that_are_mended_say_what_new_ones_say(made, batches):
    boost, group = "stock > 9: 1; on: -0.5", Rules(per_group="stock: 1; genres: 2")
    rules = [Rules(where=text, as_of="2026-12-20") for text in CONDITIONS]
    state = made.state
    before = [state.rules.compile(rule, None, ()).allowed.copy() for rule in rules]
    for batch in batches:
        amounts = state.rules.compile(Rules(boost=boost), None, ()).boost.amounts.copy()
        state.rules.compile(group, None, ())
        state, unknown, errors = set_item_values(state, batch)
        assert not unknown and not errors
        fresh = RuleCache(state.table, state.item_counts, state.scorer, state.popularity, made.table)
        for rule in rules[:: len(batches)]:  # some are asked again after the last batch only
            np.testing.assert_array_equal(
                state.rules.compile(rule, None, ()).allowed, fresh.compile(rule, None, ()).allowed, rule.where
            )
        found, expected = (cache.compile(Rules(boost=boost), None, ()).boost.amounts for cache in (state.rules, fresh))
        np.testing.assert_array_equal(found, expected)
        groups, expected = (cache.compile(group, None, ()).limits for cache in (state.rules, fresh))
        np.testing.assert_array_equal(np.diff(groups.indptr), np.diff(expected.indptr))
        assert len(amounts) == ITEMS
    for rule in rules:
        fresh_mask = fresh.compile(rule, None, ()).allowed
        np.testing.assert_array_equal(state.rules.compile(rule, None, ()).allowed, fresh_mask, rule.where)
    assert state.titles == state.table["title"].to_list()
    for rule, mask in zip(rules, before, strict=True):  # the state from before is as it was
        np.testing.assert_array_equal(made.state.rules.compile(rule, None, ()).allowed, mask)
    assert made.table.equals(made.state.table) and made.titles == TABLE["title"].to_list()


def test_what_does_not_name_the_column_is_not_computed_again(made):
    state = made.state
    rules = Rules(where="price > 9", boost="on: 1", per_group="genres: 2")
    before = state.rules.compile(rules, None, ())
    _ = state.index, state.fold_in, state.tokens
    other = set_item_values(state, [ItemValue(3, "stock", 0), ItemValue(3, "shelf", "A")]).state
    after = other.rules.compile(rules, None, ())
    assert after.allowed is before.allowed and after.boost is before.boost and after.limits is before.limits
    assert other.index is state.index and other.fold_in is state.fold_in and other.titles is state.titles
    same = set_item_values(state, [ItemValue(3, "on", state.table["on"][3])]).state
    assert same.rules.compile(rules, None, ()).boost is before.boost, "no amount differs"


def test_a_later_value_counts_and_types_widen(made):
    values = [ItemValue(1, "stock", 5), ItemValue(1, "stock", 2.5), ItemValue("2", "until", "2026-12-24T18:00+01:00")]
    state = set_item_values(made.state, [*values, ItemValue(1, "empty", "text"), ItemValue(99, "stock", 1)])
    table = state.state.table
    assert table["stock"][1] == 2.5 and table["stock"][2] == 2 and state.unknown == [99]
    assert table["until"][2] == datetime.datetime(2026, 12, 24, 17) and table["until"][0].date() == TABLE["until"][0]
    assert table["empty"].to_list()[:3] == [None, "text", None]
    left = set_item_values(made.state, [ItemValue(1, "stock", "x"), ItemValue(1, "price", 3)])
    assert left.state.table["price"][1] == 3 and left.state.table["stock"][1] == 1 and len(left.errors) == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [("on", 1), ("stock", True), ("stock", "3"), ("runtime", "long"), ("until", 2026), ("until", "2026"),
     ("labels", [1]), ("genres", True), ("title", ""), ("price", float("nan")), ("item", 1), ("new", {"a": 1})],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused(made, column, value):
    with pytest.raises(DataError):
        check_item_values(made.state, [ItemValue(1, "price", 3), ItemValue(2, column, value)])


@given(st.lists(st.integers(0, 9), max_size=12), st.sampled_from([0, 1000]))
def test_cells_of_any_column_can_be_set(rows, many):
    for column in (
        pl.Series("n", range(10)),
        pl.Series("l", [[str(n)] for n in range(10)]),
        pl.Series("t", [None, *(f"text {n}" for n in range(9))]),
    ):
        values = column.gather([9 - n % 10 for n in range(len(rows))])
        expected = column.to_list()
        for row, value in zip(rows, values.to_list(), strict=True):
            expected[row] = value
        before = column.to_list()
        with patch("recsys_embed.data.cells._MANY", many):
            assert with_cells(column, np.array(rows, np.int64), values).to_list() == expected
        assert column.to_list() == before


def test_a_table_of_items_is_set_as_a_whole(made):
    other = Recommender.of(made.state)
    table = pl.DataFrame(
        {"item_id": ["1", "3", "1", "else"], "stock": ["70", "80.5", "9", "1"], "shelf": ["x", "", "y", "z"]}
    )
    other.set_items(table.with_columns(title=pl.Series([None, "Three", "x", "y"])))
    assert other.table["stock"].to_list()[:4] == [0, 70, 2, 80.5] and other.titles[:4] == [
        "Item 0",
        "Item 1",
        "Item 2",
        "Three",
    ]
    assert other.recommend(1, rules=Rules(where="shelf == 'x'"), include_seen=True)["item_id"].to_list() == [1]
    assert made.table["stock"][1] == 1
    for column, value in {"stock": "many", "until": "soon", "on": "maybe", "runtime": "long"}.items():
        with pytest.raises(DataError, match=column) as error:
            other.set_items(pl.DataFrame({"item_id": range(20), column: [value] * 20}))
        assert not re.search(r"Int|Float|String|Date|Boolean", str(error.value)), "in words, as for a single value"
    with pytest.raises(DataError, match="column 'stock' holds numbers in the model, and 'many' is text"):
        other.set_items(pl.DataFrame({"item_id": range(20), "stock": ["many"] * 20}))
    with pytest.raises(DataError, match="column 'stock' holds dates, and the model's numbers"):
        other.set_items(pl.DataFrame({"item_id": [1], "stock": [datetime.date(2026, 1, 1)]}))


def test_the_command_line_changes_a_model_or_a_store(made, tmp_path):
    made.save(tmp_path / "m")
    command = ["items", "update", "--model", "m", "--json"]
    said = recsys_here(*command, "--item", "3", "--item", "77", "--set", "stock=0", "--set", "shelf=A 3", cwd=tmp_path)
    assert json.loads(said.stdout) == {"changed": 1, "added": 0, "unknown_items": 1, "model": "m"}
    table = Recommender.load(tmp_path / "m").table
    assert table["stock"][3] == 0 and table["shelf"][3] == "A 3" and table["stock"][4] == 4
    (tmp_path / "new.csv").write_text("id,price,until,box\n3,1.5,2027-01-01,7\n4,,,8\n")
    recsys_here(*command, "new.csv", cwd=tmp_path)
    loaded = Recommender.load(tmp_path / "m")
    assert loaded.table["price"][3] == 1.5 and loaded.table["price"][4] is None and loaded.table["box"][4] == 8
    assert loaded.table["until"][3] == datetime.date(2027, 1, 1)
    store = EventStore(tmp_path / "events.db")
    recsys_here(*command, "new.csv", "--events", "events.db", cwd=tmp_path)
    assert ItemValue("3", "box", 7) in ItemStore(store).of_items(["3"])
    store.close()
    text = recsys_here(*command[:-1], "--item", "3", "--set", "stock=1", "--events", "events.db", cwd=tmp_path).stdout
    assert text.startswith("1 item changed, 0 added   ")
    # Which model it is that does not know an item: without --model the newest here, whatever is served.
    text = recsys_here(*command[:-1], "--item", "77", "--set", "stock=1", "--events", "events.db", cwd=tmp_path).stdout
    assert text == "0 items changed, 0 added, 1 unknown to m (--model names the one that is served)   events.db\n"
    one = "--item", "3", "--set"
    wrong = {one[:2]: 2, ("new.csv", *one, "stock=1"): 2, (*one, "stock=x"): 3, (*one, "stock"): 2,
             ("new.csv", "--events", "none.db"): 3, ("none.csv",): 3}  # fmt: skip
    for options, code in wrong.items():
        recsys_here(*command, *options, cwd=tmp_path, code=code)


def test_todays_values_hold_for_the_lists_of_one_command(made, tmp_path):
    made.metadata["settings"] = {"item_col": "Artikel-Nr"}
    made.save(tmp_path / "m")
    (tmp_path / "today.csv").write_text("box,Artikel-Nr,shelf\n1,7,here\n2,9,here\n")
    command = ["recommend", "--anonymous", "--model", "m", "--where", "shelf == 'here'", "--json"]
    said = recsys_here(*command, "--items", "today.csv", cwd=tmp_path)
    assert {entry["item"] for entry in json.loads(said.stdout)["items"]} == {7, 9}
    assert "shelf" not in Recommender.load(tmp_path / "m").table.columns, "the model stays as it is"
    recsys_here("items", "update", "today.csv", "--model", "m", cwd=tmp_path)
    assert Recommender.load(tmp_path / "m").table["shelf"][9] == "here"
    assert ItemsFile(tmp_path / "today.csv", ItemStore(EventStore(tmp_path / "e.db")), "Artikel-Nr").read().table.height


def test_described_items_are_added():
    ratings, table, _ = tastes()
    model = Recommender(*small("softmax", epochs=3, dim=4), ContentConfig(text="kind")).fit(ratings, table)
    n = len(model.items)
    new = pl.DataFrame({"item_id": ["90001", "90002"], "kind": ["red|round", None], "stock": [4, 5]})
    model.set_items(new)
    assert len(model.items) == n + 1 and model.table["stock"].to_list()[-1] == 4
    with pytest.raises(UnknownId):
        model.items.row(90002)


def test_a_list_says_what_it_goes_by(made, tmp_path):
    made.save(tmp_path / "m")
    for options, origin in ((["--user", "1"], "personal"), (["--likes", "3"], "session"), (["--anonymous"], "popular")):
        said = recsys_here("recommend", *options, "--model", "m", "--json", cwd=tmp_path)
        assert json.loads(said.stdout)["from"] == origin
    dated = ["recommend", "--anonymous", "--k", "50", "--model", "m", "--json", "--where", "until < today"]
    found = [
        json.loads(recsys_here(*dated, "--as-of", day, cwd=tmp_path).stdout)["items"] for day in ("2026-12-04", "2027")
    ]
    assert [len(items) for items in found] == [3, ITEMS]
    assert "as-of must be a date" in recsys_here(*dated, "--as-of", "soon", cwd=tmp_path, code=2).stderr
