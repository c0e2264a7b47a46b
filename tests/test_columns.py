"""Columns are found by name and by content, said in one line, and never chosen where two would do."""

import uuid
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy.sparse import coo_array, csr_array, csr_matrix

from recsys_embed.data.columns import find_columns, find_event_like_column
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import DataError

ROLES = dict.fromkeys(("user", "item", "rating", "time"))


def world(*names):
    """A table of users, items, ratings and times with these names; a name may be missing."""
    random = np.random.default_rng(1)
    n = 400
    values = [
        random.integers(1, 60, n), random.integers(1, 50, n).astype(str), random.integers(1, 6, n),
        1_600_000_000 + random.integers(0, 10**6, n),
    ]  # fmt: skip
    return pl.DataFrame({name: value for name, value in zip(names, values, strict=False) if name})


@pytest.mark.parametrize(
    "names",
    [
        ("User-ID", "ISBN", "Book-Rating"),
        ("USERID", "itemid"),
        ("visitorid", "itemid", None, "timestamp"),
        ("customer", "sku", None, "bought_at"),
        ("customer_id", "product_id", "stars", "created_at"),
        ("CustomerID", "StockCode", None, "InvoiceDate"),
        ("reviewerID", "asin", "overall", "unixReviewTime"),
        ("user_id", "parent_asin", "rating", "timestamp"),
        ("user_id", "business_id", "stars", "date"),
        ("account", "song", "score", "ts"),
        ("client", "article", "review_score", "event_time"),
        ("member", "track", None, "datetime"),
        ("uid", "game", "value", "DATE"),
        ("orders.customer", "orders.product", None, "orders.purchase_date"),
        ("Kundennummer", "Artikel-Nr", "Bewertung", "Zeitpunkt"),
        ("usuario", "producto", None, "fecha"),
    ],
)
def test_usual_names_are_found_and_said_in_one_line(names, caplog):
    with caplog.at_level("INFO"):
        found = find_columns(world(*names), ROLES)
    wanted = dict(zip(ROLES, names, strict=False))
    assert found == {role: name for role, name in wanted.items() if name}
    assert found == find_columns(world(*reversed(names)).columns, ROLES), "the order of columns means nothing"
    (line,) = {record.getMessage() for record in caplog.records}
    assert line == f"columns: {', '.join(f'{r} = {n}' for r, n in found.items())} (--user-col … names others)"


def test_canonical_names_come_first_and_without_a_word(caplog):
    frame = world("user_id", "item_id", "rating", "timestamp").with_columns(
        customer="user_id", sku="item_id", stars="rating", date="timestamp"
    )
    with caplog.at_level("INFO"):
        assert find_columns(frame, ROLES) == dict(zip(ROLES, frame.columns, strict=False))
    assert not caplog.records
    assert find_columns(frame, ROLES | {"user": "customer"})["user"] == "customer"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("customer", "account", "sku"), "user: 'customer' or 'account'[?] --user-col customer decides"),
        (("user", "asin", "parent_asin"), "item: 'asin' or 'parent_asin'[?] --item-col"),
        (("user", "item", "stars", "score"), "rating: 'stars' or 'score'[?] --rating-col"),
        (("user", "item", None, "created_at", "paid_at"), None),
    ],
)
def test_two_that_would_do_are_named(names, message):
    frame = world("user", "item", "rating", "time")
    values = {"customer": "user", "account": "user", "user": "user", "sku": "item", "asin": "item", "item": "item"}
    values |= {"parent_asin": "item", "stars": "rating", "score": "rating"}
    columns = {name: frame[values.get(name, "time")].alias(name) for name in names if name}
    if message is None:
        assert find_columns(pl.DataFrame(columns), ROLES)["time"] == "created_at", "the clearer name"
        return
    with pytest.raises(DataError, match=message) as error:
        find_columns(pl.DataFrame(columns), ROLES)
    assert "\n" not in str(error.value)


def test_all_that_is_open_is_said_at_once():
    frame = world("customer", "sku", "stars", "bought_at").with_columns(client="customer", isbn="sku", score="stars")
    with pytest.raises(DataError) as error:
        find_columns(frame, ROLES)
    assert str(error.value) == (
        "which column holds the user: 'customer' or 'client'; the item: 'sku' or 'isbn'; "
        "the rating: 'stars' or 'score'? --user-col customer --item-col sku --rating-col stars decide"
    )
    with pytest.raises(DataError, match="the item: 'c1' or 'c2' or 'c5'[?] --user-col c1 --item-col c2 decide$"):
        find_columns(world("c1", "c2", "c3", "c4").with_columns(c5="c1"), ROLES)


@pytest.mark.parametrize("name", ["price", "UnitPrice", "Gesamtpreis", "prix", "total", "Menge", "cost"])
@pytest.mark.parametrize("event", ["Aktion", "ereignis_typ", "événement", "tipo de evento", "c9"])
def test_amounts_and_types_of_events_are_no_ids(name, event):
    frame = world("c1", "c2").with_columns(
        pl.int_range(pl.len()).mod(37).alias(name), pl.Series(event, ["view", "purchase"] * 200)
    )
    assert find_columns(frame, ROLES) == {"user": "c1", "item": "c2"}
    assert find_event_like_column(frame, ()) == event


@pytest.mark.parametrize("name", ["Aktion", "Ereignis-Typ", "Événement", "TipoEvento", "event_type"])
def test_a_log_finds_its_types_in_other_languages(name):
    frame = world("user", "item").with_columns(pl.Series(name, ["Ansicht", "Kauf"] * 200))
    assert find_columns(frame, {"user": None, "item": None, "event": None})["event"] == name


def test_of_a_thing_and_its_id_the_id_is_taken():
    frame = world("user", "product_id").with_columns(product=pl.col("product_id") + " cheese")
    assert find_columns(frame, ROLES)["item"] == "product_id"


def test_amounts_are_no_ratings_and_the_line_says_what_they_may_be(caplog):
    with caplog.at_level("INFO"):
        assert find_columns(world("steamid", "game", "playtime").rename({"steamid": "player"}), ROLES) == {
            "user": "player", "item": "game",
        }  # fmt: skip
    assert "playtime is an amount, no rating: --weight-col playtime" in caplog.text


def test_an_article_is_no_date():
    frame = world("c1", "c2").with_columns(c2=pl.format("05-11-{}", pl.col("c2").hash() % 60 + 40))
    assert find_columns(frame, ROLES) == {"user": "c1", "item": "c2"}
    dates = world("c1", "c2", "c3").with_columns(c3=pl.format("0{}-11-19", pl.int_range(pl.len()) % 9 + 1))
    assert find_columns(dates, ROLES) == {"user": "c1", "item": "c2", "time": "c3"}


def test_what_is_no_number_is_no_rating_and_what_is_no_date_no_time():
    frame = world("user", "item", "score", "date").with_columns(score=pl.lit("good"), date=pl.lit("some day"))
    assert find_columns(frame, ROLES) == {"user": "user", "item": "item"}
    gap = world("user", "item", "score", "date").with_columns(score=pl.col("score").replace(3, None))
    assert find_columns(gap, ROLES) == {"user": "user", "item": "item", "time": "date"}
    assert find_columns(gap, ROLES | {"rating": "score"})["rating"] == "score"


def test_all_that_is_undecided_is_asked_at_once():
    frame = pl.DataFrame({"c1": ["foo", "x"], "c2": ["bar", "y"], "c3": ["a b", "c d"], "c4": ["e", "f"]})
    with pytest.raises(DataError) as error:
        find_columns(frame, dict.fromkeys(("user", "item", "rating", "time")))
    said = str(error.value)
    assert "no column for the user and none for the item among 'c1', 'c2', 'c3', 'c4'" in said
    for option in ("--user-col", "--item-col", "--rating-col", "--time-col", "--columns user,item,rating,timestamp"):
        assert option in said
    with pytest.raises(DataError) as error:
        find_columns(frame.rename({"c1": "user", "c3": "rating"}), dict.fromkeys(("user", "item", "rating")))
    assert "--item-col)" in str(error.value) and "--user-col" not in str(error.value)


@pytest.mark.parametrize("as_text", [False, True])
def test_content_decides_where_names_say_nothing(as_text, caplog):
    frame = world("c1", "c2", "c3", "c4").select("c4", "c1", "c3", "c2")
    frame = frame.with_columns(pl.all().cast(pl.String)) if as_text else frame
    with caplog.at_level("INFO"):
        assert find_columns(frame, ROLES) == {"user": "c1", "item": "c2", "rating": "c3", "time": "c4"}
    assert "user = c1, item = c2, rating = c3, time = c4" in caplog.text
    with pytest.raises(DataError, match="user: 'c1' or 'c2' or 'c5'"):
        find_columns(frame.with_columns(c5="c1"), ROLES)
    with pytest.raises(DataError, match=r"no column for the item among .*: name it \(item=…, --item-col"):
        find_columns(frame.drop("c2"), ROLES | {"user": "c1"})
    with pytest.raises(DataError, match="no column for the user"):
        find_columns(frame.with_columns(c1=pl.int_range(pl.len())), ROLES)  # numbers of rows
    with pytest.raises(DataError, match="one row a rating"):
        find_columns(["name", *map(str, range(9))], ROLES)


def digests(*made):
    return {r.digest() for r in made}


def test_every_kind_of_frame_gives_the_same_ratings():
    frame = world("user", "item", "rating", "time")
    made = [Ratings.from_frame(f) for f in (frame, frame.lazy(), frame.to_pandas(), frame.to_arrow())]
    made.append(Ratings.from_tuples(frame.iter_rows()))
    made.append(Ratings.from_tuples(list(map(list, frame.rows()))))
    assert len(digests(*made)) == 1
    for other in ([1], {"user": [1]}, np.eye(3), None):
        with pytest.raises(DataError, match="a polars, pandas or pyarrow table is needed"):
            Ratings.from_frame(other)
    with pytest.raises(DataError, match="lazy frame cannot be collected"):
        Ratings.from_frame(frame.lazy().select("nothing"))


UUIDS = [uuid.uuid4() for _ in range(3)]


@pytest.mark.parametrize(
    "users",
    [
        [str(u) for u in UUIDS],
        UUIDS,
        pl.Series([u.bytes for u in UUIDS]),
        pd.Series(UUIDS),
        pa.array([u.bytes for u in UUIDS], pa.uuid()),
        pa.array([u.bytes for u in UUIDS], pa.binary(16)),
        pd.Series([str(u).encode() for u in UUIDS]),
    ],
    ids=["text", "objects", "bytes", "pandas", "arrow", "arrow bytes", "bytes of text"],
)
def test_uuids_are_text_whoever_holds_them(users, tmp_path):
    kinds = {pd.Series: pd.DataFrame, list: pl.DataFrame, pl.Series: pl.DataFrame}
    frame = kinds.get(type(users), pa.table)({"user": users, "item": [1, 2, 2]})
    ratings = Ratings.from_frame(frame)
    assert ratings.users.ids(ratings.user).to_list() == [str(u) for u in UUIDS]
    if not isinstance(frame, pa.Table):
        return
    import pyarrow.parquet

    pyarrow.parquet.write_table(frame, tmp_path / "r.parquet")
    assert Ratings.from_frame(pl.read_parquet(tmp_path / "r.parquet")).users == ratings.users


def test_a_uuid_of_no_version_is_one_where_arrow_says_so():
    few = [UUID(int=n) for n in (1, 2)]
    table = pa.table({"user": pa.array([u.bytes for u in few], pa.uuid()), "item": [1, 2]})
    assert Ratings.from_frame(table).users.series.to_list() == [str(u) for u in few]


def test_ids_are_kept_without_loss_or_refused():
    big = 2**64 - 1
    frame = pl.DataFrame({"user": pl.Series([big, 1], dtype=pl.UInt64), "item": [b"caf\xc3\xa9", b"x"]})
    ratings = Ratings.from_frame(frame)
    assert set(ratings.users.series) == {str(big), "1"} and set(ratings.items.series) == {"café", "x"}
    decimal = pl.DataFrame({"user": pl.Series(["10000000000000001", "2"]).cast(pl.Decimal(38, 0)), "item": [1, 2]})
    assert set(Ratings.from_frame(decimal).users.series) == {10**16 + 1, 2}
    for bad, message in [
        (pl.Series([b"\xff\xfe", b"x"]), "bytes that are neither UTF-8 text nor UUIDs"),
        (pl.Series([{"id": 1}, {"id": 2}]), "objects with the fields id"),
        (pl.Series([object(), object()], dtype=pl.Object), "holds Python objects"),
        (pl.Series([1.5, 2.0]), "holds floats"),
    ]:
        with pytest.raises(DataError, match=message):
            Ratings.from_frame(pl.DataFrame({"user": bad, "item": [1, 2]}))


def test_a_matrix_is_its_stored_values():
    dense = np.array([[0, 2, 0], [5, 0, 0], [0, 0, 0], [1, 0, 3]], np.float32)
    for made in (csr_matrix(dense), csr_array(dense), coo_array(dense)):
        ratings = Ratings.from_matrix(made)
        assert sorted(ratings.frame().rows()) == [(0, 1, 2.0), (1, 0, 5.0), (3, 0, 1.0), (3, 2, 3.0)]
    named = Ratings.from_matrix(csr_matrix(dense), users=["a", "b", "c", "d"], items=np.array([10, 20, 30]))
    assert sorted(named.frame().rows()) == [("a", 20, 2.0), ("b", 10, 5.0), ("d", 10, 1.0), ("d", 30, 3.0)]
    twice = coo_array(([1.0, 2.0], ([0, 0], [1, 1])), shape=(2, 2))
    assert Ratings.from_matrix(twice).frame().rows() == [(0, 1, 3.0)], "as SciPy adds them"
    stored = csr_array((np.array([1.0, 2.0]), np.array([1, 1]), np.array([0, 2, 2])), shape=(2, 2))
    assert Ratings.from_matrix(stored).frame().rows() == [(0, 1, 3.0)]
    assert stored.nnz == 2, "the caller's matrix is as it was"
    zero = csr_matrix(([1.0, 0.0], ([0, 1], [0, 1])), shape=(2, 2))
    with pytest.raises(DataError, match="stores 1 zeros, the first in row 1, column 1: X.eliminate_zeros"):
        Ratings.from_matrix(zero)
    assert zero.nnz == 2, "the caller's matrix is as it was"
    with pytest.raises(DataError, match="users must be 4 distinct ids"):
        Ratings.from_matrix(csr_matrix(dense), users=[1, 2, 3])
    with pytest.raises(DataError, match="a SciPy sparse matrix"):
        Ratings.from_matrix(dense)
    with pytest.raises(DataError, match="NaN"):
        Ratings.from_matrix(csr_matrix([[np.nan, 1]]))


def test_tuples_of_two_to_four_values_are_ratings():
    assert Ratings.from_tuples((u, i) for u, i in [(1, "x"), (2, "y")]).frame().rows() == [(1, "x", 1.0), (2, "y", 1.0)]
    assert Ratings.from_tuples([(1, 2, 0), (1, 3, 4.5)]).frame().rows() == [(1, 2, 0.0), (1, 3, 4.5)]
    timed = Ratings.from_tuples([(UUIDS[0], b"x", 5, 1_600_000_000)])
    assert timed.frame().rows() == [(str(UUIDS[0]), "x", 5.0, 1_600_000_000)] and isinstance(UUIDS[0], UUID)
    for rows, message in [
        ([], "the iterable is empty"),
        ([(1, 2), (1, 2, 3)], "tuple 2 has 3 values, but tuple 1 has 2"),
        ([(1,)], "tuple 1 has 1 values"),
        ([(1, 2), 5], "tuple 2 is a int"),
        ("ab", "not a str"),
        ([(1, 2), ("1", 3)], "user_id holds values of several types"),
        ([(1, 2), (1.5, 3)], "user_id holds float and int"),
        ([(1, None), (2, 3)], "item id is missing in row 1"),
    ]:
        with pytest.raises(DataError, match=message):
            Ratings.from_tuples(rows)
