"""Queries of SQLite and of a real PostgreSQL; no password is written anywhere."""

import os
import sqlite3
import uuid

import polars as pl
import pytest
from postgres import PASSWORD, server
from worlds import recsys_here

from recsys_embed.config.addresses import with_password, without_password
from recsys_embed.config.fields import command, settings
from recsys_embed.config.settings import DataConfig
from recsys_embed.errors import DataError, SettingError
from recsys_embed.sources.load import load_dataset
from recsys_embed.sources.read import read_table
from recsys_embed.sources.sql import read_database

TINY = [
    "--epochs",
    "1",
    "--dim",
    "4",
    "--model-family",
    "embeddings",
    "--no-baselines",
    "--no-refit",
    "--resamples",
    "0",
]
ROWS = [(u, f"s{i}", 1_700_000_000 + 60 * (13 * u + i)) for u in range(12) for i in range(9) if (u + i) % 3]


@pytest.fixture
def shop(tmp_path):
    with sqlite3.connect(tmp_path / "shop.db") as shop:
        shop.execute("CREATE TABLE orders (customer INTEGER, sku TEXT, bought_at INTEGER)")
        shop.execute("CREATE TABLE products (sku TEXT, title TEXT)")
        shop.executemany("INSERT INTO orders VALUES (?, ?, ?)", ROWS)
        shop.executemany("INSERT INTO products VALUES (?, ?)", [(f"s{i}", f"Thing {i}") for i in range(9)])
    shop.close()
    return tmp_path / "shop.db"


def test_a_query_a_table_and_a_file_give_the_same_rows(shop):
    query = "SELECT customer, sku, bought_at FROM orders"
    wanted = load_dataset(f"sqlite:///{shop}", query=query).ratings.digest()
    assert load_dataset(f"sqlite:///{shop}#orders").ratings.digest() == wanted
    assert load_dataset(f"sqlite:///{shop}#{query}").ratings.digest() == wanted
    assert load_dataset(str(shop), query=query).ratings.digest() == wanted
    made = load_dataset(f"sqlite:///{shop}", query=query, items=f"sqlite:///{shop}#products")
    assert made.items is not None and made.items.row(0) == ("s0", "Thing 0")


@pytest.mark.parametrize("at_once", [1, 50_000])
def test_values_of_several_types_keep_what_they_say(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr("recsys_embed.sources.sql._ROWS", at_once)
    with sqlite3.connect(tmp_path / "a.db") as made:
        made.execute("CREATE TABLE t (user, item, rating)")
        made.executemany("INSERT INTO t VALUES (?, ?, ?)", [(1, b"x", 4), ("007", b"y", 4.5), (2**53 + 1, b"x", None)])
    made.close()
    frame = read_table(tmp_path / "a.db").frame
    assert frame["user"].to_list() == ["1", "007", "9007199254740993"]
    assert frame["rating"].to_list() == [4.0, 4.5, None]
    with pytest.raises(DataError, match="rating is missing in row 3"):
        load_dataset(str(tmp_path / "a.db"))
    with sqlite3.connect(tmp_path / "a.db") as made:
        made.execute("INSERT INTO t VALUES (1, 'text', 4)")
    made.close()
    with pytest.raises(DataError, match="holds bytes and other values"):
        read_table(tmp_path / "a.db")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (None, 'tables orders, products: name one, .*#orders, or give --query "SELECT'),
        ("SELECT price FROM orders", "no such column: price"),
        ("DELETE FROM orders", "readonly"),
        ("SELECT 1 AS user, 2 AS user", "two columns of the same name"),
    ],
)
def test_what_a_query_may_not_be(shop, query, message):
    with pytest.raises(DataError, match=message):
        load_dataset(f"sqlite:///{shop}", query=query)


def test_a_query_needs_a_database(tmp_path):
    (tmp_path / "r.csv").write_text("user,item\n1,2\n")
    for given in (str(tmp_path / "r.csv"), "synthetic"):
        with pytest.raises(SettingError, match="--query goes with a database"):
            load_dataset(given, query="SELECT 1")
    with pytest.raises(DataError, match="both say what to read"):
        read_database("sqlite:///a.db#t", "SELECT 1")
    with pytest.raises(DataError, match="no file"):
        load_dataset("sqlite:///nothing.db")
    with pytest.raises(DataError, match=r"mysql --batch .* \| recsys train -"):
        load_dataset("mysql://shop@host/db", query="SELECT 1")


def everything_below(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "shop.db"}


@pytest.mark.slow
def test_a_training_writes_the_address_without_its_password(shop):
    address = f"sqlite:///{shop}?password={PASSWORD}"
    done = recsys_here("train", address, "--query", "orders", "--no-map", *TINY, cwd=shop.parent)
    assert PASSWORD not in done.stdout + done.stderr
    found = everything_below(shop.parent)
    assert any(path.name == "model.json" for path in found) and any(path.name == "mlflow.db" for path in found)
    assert [path for path, data in found.items() if PASSWORD.encode() in data] == []
    assert any(b"shop.db?password=***" in data for data in found.values())


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("postgresql://u:p%40ss:w@host:5432/db", "postgresql://u@host:5432/db"),
        ("postgresql://u:pw@host/db#SELECT '@' FROM t", "postgresql://u@host/db#SELECT '@' FROM t"),
        ("postgresql://host/db?user=u&password=pw", "postgresql://host/db?user=u&password=***"),
        ("https://host/r.csv?sig=abc&v=1", "https://host/r.csv?sig=***&v=1"),
        ("s3://bucket/part-*.parquet", "s3://bucket/part-*.parquet"),
        ("data/r.csv", "data/r.csv"),
    ],
)
def test_settings_hold_no_secret_and_the_process_does(address, public):
    config = DataConfig(dataset=address, items=address)
    assert config.dataset == config.items == public == without_password(public)
    assert with_password(config.dataset) == address.partition("#")[0]
    shown = repr(config) + str(settings(config)) + command(config)
    assert not {"p%40ss", "pw@", "=pw", "abc"} & {word for word in ("p%40ss", "pw@", "=pw", "abc") if word in shown}


@pytest.mark.parametrize("password", ["a@b", "a/b@c", "a#b", "a?@b"])
def test_a_password_that_cannot_be_told_from_the_host_is_refused_unseen(password):
    with pytest.raises(SettingError) as error:
        DataConfig(dataset=f"postgresql://u:{password}@host/db")
    assert password not in str(error.value) and "PGPASSWORD" in str(error.value)


@pytest.fixture(scope="module")
def address():
    with server() as address:
        from adbc_driver_postgresql import dbapi

        with dbapi.connect(address) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE orders (customer uuid, sku numeric, bought_at timestamptz, stars real)")
            rows = ", ".join(
                f"('{uuid.uuid5(uuid.NAMESPACE_DNS, str(u))}', {10**16 + int(i[1:])}, to_timestamp({t}), {u % 5})"
                for u, i, t in ROWS
            )
            cursor.execute(f"INSERT INTO orders VALUES {rows}")
            connection.commit()
        yield address


def test_postgresql_keeps_ids_and_times(address):
    ratings = load_dataset(address, query="SELECT * FROM orders").ratings
    assert ratings.digest() == load_dataset(f"{address}#orders").ratings.digest()
    frame = ratings.frame().sort("timestamp")
    assert frame["user_id"][0] == str(uuid.uuid5(uuid.NAMESPACE_DNS, "0"))
    assert frame["item_id"].to_list() == [10**16 + int(i[1:]) for _, i, _ in ROWS], "beyond what a float holds"
    assert frame["timestamp"].to_list() == [t for *_, t in ROWS]
    assert frame["rating"].to_list() == [float(u % 5) for u, *_ in ROWS]


def test_postgresql_says_what_is_wrong_and_changes_nothing(address):
    for query, message in [
        ("SELECT nothing FROM orders", '"nothing" does not exist'),
        ("DELETE FROM orders RETURNING *", "read-only transaction"),
        (None, "--query"),
    ]:
        with pytest.raises(DataError, match=message) as error:
            load_dataset(address, query=query)
        assert PASSWORD not in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(DataError, match="password authentication failed"):
        load_dataset(address.replace(PASSWORD, "wrong-word"), query="orders")
    assert len(load_dataset(address, query="orders").ratings) == len(ROWS)


def test_a_training_on_postgresql_writes_no_password_and_runs_again(address, tmp_path):
    call = ["train", address, "--query", "SELECT customer, sku FROM orders", *TINY, "--no-track", "--out", "model"]
    done = recsys_here(*call, cwd=tmp_path)
    assert PASSWORD not in done.stdout + done.stderr
    found = everything_below(tmp_path)
    assert [path for path, data in found.items() if PASSWORD.encode() in data] == []
    again = [address.replace(f":{PASSWORD}", "") if word == address else word for word in call]
    recsys_here(*again, cwd=tmp_path, PGPASSWORD=os.environ.get("PGPASSWORD", PASSWORD))
    assert pl.read_parquet(tmp_path / "model" / "users.parquet").height == 12
