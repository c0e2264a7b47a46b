"""What happens to forty inputs as they lie in real life: `recsys train INPUT` trains, or refuses it in one clear line.

    python experiments/forty_inputs.py [--markdown FILE]

Each input is made anew from the same 900 ratings and trained on with tiny settings, in this process. `--markdown`
writes the table that docs/data.md holds. The script ends with 1 where an input did something else than is expected.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import polars as pl

from recsys_embed.cli.main import main
from recsys_embed.sources.synthetic import generate

TINY = (
    "--epochs 1 --dim 4 --model-family embeddings --no-baselines --no-track --no-refit --resamples 0 --out model"
).split()
RATINGS, FILMS = generate(users=60, items=40, ratings=900)
ROWS = RATINGS.rows()
N = len(ROWS)


class Input(NamedTuple):
    """One input. make: writes it into the current folder. call: the arguments. trains: whether it should train.
    stdin: what is piped in."""

    what: str
    make: Callable[[], object]
    call: list[str]
    trains: bool = True
    stdin: Callable[[], bytes] | None = None


def text(header: str, line: Callable[[tuple[Any, ...]], str], end: str = "\n") -> str:
    return end.join([*([header] if header else []), *map(line, ROWS)]) + end


def write(name: str, content: str | bytes) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def plain(separator: str = ",", header: str = "user_id,item_id,rating,timestamp") -> str:
    return text(header.replace(",", separator) if header else "", lambda r: separator.join(map(str, r)))


def date(seconds: int) -> str:
    return str(np.datetime64(int(seconds), "s")).replace("T", " ")


def dated(form: str, days: int = 31, header: str = "user,item,rating,date") -> str:
    """The ratings with times as a strptime format says. days: the most days that a month has."""
    times = [np.datetime64(int(r[3]), "s").astype(object) for r in ROWS]
    times = [t.replace(day=min(t.day - 1, 27) % days + 1) for t in times]
    lines = (f"{r[0]},{r[1]},{r[2]},{t.strftime(form)}" for r, t in zip(ROWS, times, strict=True))
    return "\n".join([header, *lines]) + "\n"


def zipped(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return buffer.getvalue()


def zstd(content: str) -> bytes:
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content.encode())
    return bytes(sink.getvalue())


def parquet_parts() -> None:
    for n in range(3):
        Path("sales").mkdir(exist_ok=True)
        RATINGS[n::3].write_parquet(f"sales/part-{n:05d}.parquet")
    write("sales/_SUCCESS", "")


def sqlite_shop() -> None:
    with contextlib.closing(sqlite3.connect("shop.db")) as shop:
        shop.execute("CREATE TABLE orders (customer INTEGER, sku TEXT, bought_at TEXT)")
        shop.execute("CREATE TABLE products (sku TEXT, title TEXT)")
        shop.executemany("INSERT INTO orders VALUES (?, ?, ?)", [(u, f"S{i}", date(t)) for u, i, _, t in ROWS])
        shop.executemany("INSERT INTO products VALUES (?, ?)", [(f"S{r[0]}", r[1]) for r in FILMS.rows()])
        shop.commit()


ORDERS = "SELECT customer, sku, bought_at FROM orders"


def inputs(postgres: str | None) -> list[Input]:
    jsonl = [{"reviewerID": f"A{u}", "asin": f"B{i:03d}", "overall": r, "unixReviewTime": t} for u, i, r, t in ROWS]
    id_of = {u: str(uuid.uuid5(uuid.NAMESPACE_DNS, str(u))) for u, *_ in ROWS}
    found = [
        Input("plain CSV", lambda: write("r.csv", plain()), ["r.csv"]),
        Input("CSV by --dataset, and items", lambda: (write("r.csv", plain()), FILMS.write_csv("films.csv")),
              ["--dataset", "r.csv", "--items", "films.csv"]),
        Input("semicolons and decimal commas", lambda: write("r.csv", text(
            "Kunde;sku;score;date", lambda r: f"{r[0]};{r[1]};{r[2] - 0.5:.1f};{date(r[3])}".replace(".", ","))),
            ["r.csv", "--user-col", "Kunde"]),
        Input("every field in quotes", lambda: write("r.csv", text(
            '"User-ID","ISBN","Book-Rating"', lambda r: f'"{r[0]}","0{r[1]:09d}","{r[2]:.0f}"')), ["r.csv"]),
        Input("tabs and quotes", lambda: write("r.tsv", text(
            '"uid"\t"track"', lambda r: f'"{r[0]}"\t"a, ""{r[1]}"""')), ["r.tsv"]),
        Input("Latin-1 text", lambda: write("r.csv", text(
            "user,item", lambda r: f"Zoë{r[0]},café {r[1]}").encode("latin-1")), ["r.csv"]),
        Input("Windows-1252 text", lambda: write("r.csv", text(
            "user,item", lambda r: f"{r[0]},“{r[1]}” – €").encode("cp1252")), ["r.csv"]),
        Input("UTF-16, as Excel saves “Unicode text”", lambda: write("r.txt", text(
            "customer\tproduct", lambda r: f"{r[0]}\t{r[1]}", "\r\n").encode("utf-16")), ["r.txt"]),
        Input("UTF-8 with a byte order mark, Windows lines", lambda: write("r.csv", plain().replace(
            "\n", "\r\n").encode("utf-8-sig")), ["r.csv"]),
        Input("Excel's sep=; before the header", lambda: write("r.csv", "sep=;\n" + plain(";")), ["r.csv"]),
        Input("columns aligned with blanks", lambda: write("r.txt", text(
            "  user   item  rating", lambda r: f"{r[0]:6d} {r[1]:6d} {r[2]:7.1f}")), ["r.txt"]),
        Input("3,000 lines of comments", lambda: write("r.txt", "# a comment, with a comma\n" * 3000 + text(
            "", lambda r: f"{r[0]}\t{r[1]}")), ["r.txt"]),
        Input("a separator at the end of every row", lambda: write("r.csv", text(
            "user_id,item_id,rating,timestamp", lambda r: ",".join(map(str, r)) + ",")), ["r.csv"]),
        Input("the row numbers of pandas in front", lambda: write("r.csv", ",user,item,rating\n" + "\n".join(
            f"{n},{r[0]},{r[1]},{r[2]}" for n, r in enumerate(ROWS))), ["r.csv"]),
        Input("MovieLens' ::, no header", lambda: write("r.dat", plain("::", "")), ["r.dat"]),
        Input("text ids, dates, no header", lambda: write("r.csv", text(
            "", lambda r: f"ann{r[0]},film {r[1]},{date(r[3])}")), ["r.csv"]),
        Input("LightGCN's lists", lambda: write("train.txt", "\n".join(
            f"{u} " + " ".join(str(r[1]) for r in ROWS if r[0] == u) for u in sorted({r[0] for r in ROWS}))),
            ["train.txt"]),
        Input("headers c1 … c4: by content", lambda: write("r.csv", text(
            "c1,c2,c3,c4", lambda r: f"u{r[0]},i{r[1]},{r[2]},{r[3]}")), ["r.csv"]),
        Input("a JSON list", lambda: write("r.json", json.dumps(
            [{"userId": u, "game": i, "playtime": r * 7} for u, i, r, _ in ROWS])), ["r.json"]),
        Input("JSON lines, gzipped (Amazon's reviews)", lambda: write("r.json.gz", gzip.compress(
            "\n".join(map(json.dumps, jsonl)).encode())), ["r.json.gz"]),
        Input("JSON lines with nested details", lambda: write("r.jsonl", "\n".join(
            json.dumps(row | {"style": {"Size:": "L"}, "helpful": [0, 1]}) for row in jsonl)), ["r.jsonl"]),
        Input("JSON lines with nested users", lambda: write("r.jsonl", "\n".join(
            json.dumps({"user": {"id": u, "name": "x"}, "item": i}) for u, i, *_ in ROWS)), ["r.jsonl"], False),
        Input("Parquet", lambda: RATINGS.write_parquet("r.parquet"), ["r.parquet"]),
        Input("Parquet with UUIDs as bytes", lambda: RATINGS.with_columns(user_id=pl.Series(
            [uuid.UUID(id_of[u]).bytes for u, *_ in ROWS])).write_parquet("r.parquet"), ["r.parquet"]),
        Input("a folder of Parquet parts (Spark)", parquet_parts, ["sales"]),
        Input("a pattern of CSV parts, one header", lambda: [write(f"p/x{n}.csv", chunk) for n, chunk in enumerate(
            ["\n".join(plain().splitlines()[a:a + 301]) + "\n" for a in range(0, N + 1, 301)])], ["p/x*.csv"]),
        Input("a folder of tables that differ", lambda: (write("ml/ratings.csv", plain()), FILMS.write_csv(
            "ml/movies.csv")), ["ml"], False),
        Input("bzip2", lambda: write("r.csv.bz2", bz2.compress(plain().encode())), ["r.csv.bz2"]),
        Input("xz", lambda: write("r.csv.xz", lzma.compress(plain().encode())), ["r.csv.xz"]),
        Input("Zstandard", lambda: write("r.csv.zst", zstd(plain())), ["r.csv.zst"]),
        Input("a zip with one table and a README", lambda: write("r.zip", zipped(
            ratings__csv=plain(), README__txt="hello")), ["r.zip"]),
        Input("a zip with two tables", lambda: write("r.zip", zipped(ratings__csv=plain(), links__csv="a,b\n1,2\n")),
              ["r.zip"], False),
        Input("one table of such a zip", lambda: write("r.zip", zipped(ratings__csv=plain(), links__csv="a,b\n1,2\n")),
              ["r.zip/ratings.csv"]),
        Input("standard input", lambda: None, ["-"], True, lambda: plain().encode()),
        Input("a query of SQLite", sqlite_shop, ["sqlite:///shop.db", "--query", ORDERS, "--items", "sqlite:///shop.db#products"]),
        Input("an SQLite file of two tables", sqlite_shop, ["shop.db"], False),
        Input("two columns would do", lambda: write("r.csv", text(
            "customer,account,sku", lambda r: f"{r[0]},{r[0]},{r[1]}")), ["r.csv"], False),
        Input("a wide matrix, users x items", lambda: write("r.csv", RATINGS.pivot(
            "item_id", index="user_id", values="rating").write_csv()), ["r.csv"], False),
        Input("a row too long", lambda: write("r.csv", plain() + "1,2,3,4,5\n"), ["r.csv"], False),
        Input("a gzip cut short", lambda: write("r.csv.gz", gzip.compress(plain().encode())[:-99]), ["r.csv.gz"],
              False),
        Input("days first: 31.12.2025 14:05", lambda: write("r.csv", dated("%d.%m.%Y %H:%M")), ["r.csv"]),
        Input("months first: 12/31/2025 2:05 PM", lambda: write("r.csv", dated("%m/%d/%Y %I:%M %p")), ["r.csv"]),
        Input("day or month first, both fit", lambda: write("r.csv", dated("%d/%m/%Y", days=12)), ["r.csv"]),
        Input("the same, and the option", lambda: write("r.csv", dated("%d/%m/%Y", days=12)),
              ["r.csv", "--time-format", "%d/%m/%Y"]),
        Input("zones that differ: 2025-12-31T14:05:00+02:00", lambda: write("r.csv", "".join(
            line + ("+02:00" if n % 2 else "-0500") * (n > 0) + "\n" for n, line in enumerate(
                dated("%Y-%m-%dT%H:%M:%S").splitlines()))), ["r.csv"]),
        Input("names of months: 31 Dec 2025", lambda: write("r.csv", dated("%d %b %Y")), ["r.csv"]),
        Input("dates without hyphens: 20251231", lambda: write("r.csv", dated("%Y%m%d")), ["r.csv"]),
        Input("the same as integers, with times: 20251231140500", lambda: RATINGS.with_columns(
            timestamp=pl.from_epoch("timestamp").dt.strftime("%Y%m%d%H%M%S").cast(pl.Int64)
        ).write_parquet("r.parquet"), ["r.parquet"]),
        Input("a date and a time of day", lambda: write("r.csv", dated(
            "%d.%m.%Y,%H:%M", header="user,item,rating,date,time")), ["r.csv"]),
        Input("the same under other names", lambda: write("r.csv", dated(
            "%d.%m.%Y,%H:%M", header="user,item,rating,bought,clock")), ["r.csv", "--time-col", "bought,clock"]),
        Input("two forms of dates in one column", lambda: write("r.csv", dated("%d.%m.%Y") + "1,1,3,2025-12-31\n"), [
            "r.csv"], False),
        Input("a spreadsheet's days: 45123.5", lambda: write("r.csv", text(
            "user,item,rating,day", lambda r: f"{r[0]},{r[1]},{r[2]},{r[3] / 86400 + 25569:.4f}")),
            ["r.csv", "--time-col", "day", "--time-format", "excel"]),
        Input("a PDF", lambda: write("r.csv", b"%PDF-1.7 \x00"), ["r.csv"], False),
        Input("a missing file", lambda: None, ["rating.csv"], False),
    ]  # fmt: skip
    if postgres:
        found.append(Input("a query of PostgreSQL", lambda: None, [postgres, "--query", ORDERS]))
    return found


def run(given: Input) -> tuple[bool, str]:
    """Make an input, train on it; return whether it trained, and what was said of it."""
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        given.make()
        stdin = io.TextIOWrapper(io.BytesIO(given.stdin() if given.stdin else b""))
        with (
            contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
            patch.object(sys, "stdin", stdin), patch.object(sys, "argv", ["recsys", "train", *given.call, *TINY]),
        ):  # fmt: skip
            try:
                main()
                code = 0
            except SystemExit as stop:
                code = int(stop.code or 0)
    lines = [line for line in err.getvalue().splitlines() if line.strip()]
    if code:
        assert sum(line.startswith("error: ") for line in lines) == 1 and code in (2, 3), lines
        return False, next(line for line in lines if line.startswith("error: "))
    said = [
        line
        for line in lines
        if line.startswith(("columns: ", "times ", "warning: times "))
        or "assuming" in line
        or "read as" in line
        or "UTF-16" in line
    ]
    sizes = next(line for line in lines if " to train" in line)
    return True, "; ".join([*said, sizes.partition("; ")[0]])


@contextlib.contextmanager
def postgres_server():
    """Start a PostgreSQL server with the table of orders, and give its address; None where none is installed."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    binaries = next((str(h) for h in reversed(homes)), os.path.dirname(shutil.which("initdb") or ""))
    try:
        from adbc_driver_postgresql import dbapi
    except ImportError:
        dbapi = None
    if not binaries or dbapi is None:
        yield None
        return
    owner = {}
    if os.geteuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        owner = {"user": "postgres" if "postgres" in names else "nobody", "extra_groups": []}
    with tempfile.TemporaryDirectory() as folder:
        if owner:
            shutil.chown(folder, owner["user"])
        call = {"check": True, "capture_output": True, "cwd": folder, **owner}
        subprocess.run([f"{binaries}/initdb", "-D", f"{folder}/data", "-U", "shop", "-A", "trust", "-N"], **call)
        options = f"-k {folder} -c listen_addresses="
        subprocess.run(
            [f"{binaries}/pg_ctl", "-D", f"{folder}/data", "-w", "-l", f"{folder}/log", "-o", options, "start"], **call
        )
        try:
            address = f"postgresql://shop@/postgres?host={folder}"
            with dbapi.connect(address) as connection, connection.cursor() as cursor:
                cursor.execute("CREATE TABLE orders (customer bigint, sku text, bought_at timestamptz)")
                values = ", ".join(f"({u}, 'S{i}', to_timestamp({t}))" for u, i, _, t in ROWS)
                cursor.execute(f"INSERT INTO orders VALUES {values}")
                connection.commit()
            yield address
        finally:
            subprocess.run([f"{binaries}/pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop"], **call)


def show() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", help="write the table here too")
    given, rows, wrong = parser.parse_args(), [], 0
    with postgres_server() as address:
        for number, one in enumerate(inputs(address), 1):
            trained, said = run(one)
            wrong += trained != one.trains
            mark = "trains" if trained else "refused"
            said = said.removeprefix("error: ")
            for noise in filter(None, (address,)):
                said = said.replace(noise, "postgresql://…")
            rows.append((number, one.what, mark, said))
            print(f"{number:2d}  {one.what:48.48s} {mark:8s} {'' if trained == one.trains else 'NOT EXPECTED '}{said}")
    if given.markdown:
        cells = ["| | input | | what is said |", "|---|---|---|---|"]
        cells += [f"| {n} | {what} | {mark} | {said.replace('|', chr(92) + '|')} |" for n, what, mark, said in rows]
        Path(given.markdown).write_text("\n".join(cells) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    show()
