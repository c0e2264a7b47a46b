"""How long 5 million rows take to read: Parquet, CSV, SQLite and PostgreSQL, with the time that the drivers take alone.

    python experiments/benchmarks/databases.py [--rows 5000000] [--repeats 3]

PostgreSQL is started where Debian's package and its driver are installed. A run reads with `read_table` and makes
`Ratings`; the least time of the repeats counts.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from recsys_embed.sources.load import load_dataset
from recsys_embed.sources.read import read_table

sys.path.insert(0, str(Path(__file__).parents[1]))
from forty_inputs import postgres_server

QUERY = "SELECT user_id, item_id, rating, timestamp FROM ratings"


def least(repeats: int, work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def of_sqlite(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        cursor = connection.execute(QUERY)
        while cursor.fetchmany(50_000):
            pass


def of_postgres(address: str) -> None:
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(address) as connection, connection.cursor() as cursor:
        cursor.execute(QUERY)
        cursor.fetch_arrow_table()


def show() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    random, n = np.random.default_rng(0), given.rows
    frame = pl.DataFrame(
        {
            "user_id": random.integers(1, 200_000, n),
            "item_id": random.integers(1, 30_000, n),
            "rating": random.integers(1, 11, n) / 2,
            "timestamp": random.integers(1_400_000_000, 1_700_000_000, n),
        }
    )
    with tempfile.TemporaryDirectory() as folder, postgres_server() as address:
        path = Path(folder)
        frame.write_parquet(path / "r.parquet")
        frame.write_csv(path / "r.csv")
        with contextlib.closing(sqlite3.connect(path / "r.db")) as made:
            made.execute("CREATE TABLE ratings (user_id INTEGER, item_id INTEGER, rating REAL, timestamp INTEGER)")
            made.executemany("INSERT INTO ratings VALUES (?, ?, ?, ?)", frame.iter_rows())
            made.commit()
        sources = {"Parquet": (str(path / "r.parquet"), None, None), "CSV": (str(path / "r.csv"), None, None)}
        sources["SQLite"] = (f"sqlite:///{path}/r.db", QUERY, lambda: of_sqlite(path / "r.db"))
        if address:
            from adbc_driver_postgresql import dbapi

            with dbapi.connect(address) as connection, connection.cursor() as cursor:
                cursor.adbc_ingest("ratings", frame.to_arrow(), mode="create")
                connection.commit()
            sources["PostgreSQL"] = (address, QUERY, lambda: of_postgres(address))
        print(f"{n:,} rows; seconds, the least of {given.repeats}")
        print(f"{'':12s}{'driver':>8s}{'read':>8s}{'load':>8s}   (load - driver) / load of Parquet")
        parquet = 0.0
        for name, (location, query, driver) in sources.items():
            alone = least(given.repeats, driver) if driver else 0.0
            read = least(given.repeats, lambda: read_table(location, query=query))  # noqa: B023
            load = least(given.repeats, lambda: load_dataset(location, query=query))  # noqa: B023
            parquet = parquet or load
            print(f"{name:12s}{alone:8.2f}{read:8.2f}{load:8.2f}{(load - alone) / parquet:9.2f}", flush=True)


if __name__ == "__main__":
    show()
