"""Hostile input: whatever a reader is given ends in a result or in an error of one line, in time and in memory.

    python experiments/faults/fuzz.py SECONDS [--seed 0] [--only NAME …]

Every reader of the package is given inputs that were made from sound ones by changing, cutting, doubling and splicing
bytes, tokens and numbers. A RecsysError (of a service: a status of 4xx) is a refusal. Anything else that is raised,
more than five seconds, or a process that ends (it may take 4 GB) is a failure: its input is written to failures/, and
the next is tried. The last lines are a table: inputs, refused, slowest, failures.
"""

from __future__ import annotations

import argparse
import asyncio
import bz2
import contextlib
import gzip
import hashlib
import io
import json
import logging
import lzma
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys_embed.errors import RecsysError

LONGEST, MEMORY = 5, 4 << 30
Read = Callable[[bytes], object]
# By name: sound inputs, what reads them, and its share of the time.
Readers = dict[str, tuple[list[bytes], Read, int]]

TOKENS = (
    b"", b"0", b"-1", b"1e999", b"-1e-999", b"nan", b"NaN", b"inf", b"9" * 25, b"9" * 400, b"0x10", b"null", b"true",
    b"[]", b"{}", b"[" * 2000, b'{"a":' * 500, b'"', b"'", b'""', b"\\", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3",
    b"\r\n", b"\n\n", b"\t", b",", b";", b"|", b"::", b"(", b")" * 300, b"(" * 300, b"not " * 300, b" and ", b" in ",
    b"==", b"<=", b"%", b"..", b"../../x", b"2024-02-30", b"24/01/31", b"99999-12-31", b"\x1b[31m", b"<script>",
    b"=1+1", b"\xe2\x80\xae", b"\xf0\x9f\x8e\xac", b"1,5", b"1.234.567,8", b"user_id", b"item_id", b"rating",
    b"timestamp", b"title", b"18446744073709551616", b"-9223372036854775809", b"1e308", b"0.1" * 30, b"a" * 3000,
    b" " * 1000,
)  # fmt: skip


def mutate(chance: random.Random, seeds: list[bytes]) -> bytes:
    """Return one of the sound inputs, changed in one to eight places."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at, kind = chance.randrange(len(data) + 1), chance.randrange(9)
        end = min(len(data), at + chance.choice((1, 2, 4, 8, 40)))
        if kind == 0 and data:
            data[at % len(data)] = chance.randrange(256)
        elif kind == 1 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = chance.choice(TOKENS)
        elif kind == 4:
            data[at:end] = chance.choice(TOKENS)
        elif kind == 5:
            data[at:at] = data[at:end] * chance.choice((1, 2, 50))
        elif kind == 6:
            data = data[:at]
        elif kind == 7:
            other = chance.choice(seeds)
            data[at:end] = other[at % (len(other) + 1) :][:40]
        else:
            number = chance.choice((0, 1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1))
            data[at : at + 8] = number.to_bytes(8, chance.choice(("little", "big")))
    return bytes(data[:200_000])


# --- readers: what they are given in files lies in a folder in memory -------------------------------------------------


def as_file(folder: Path, suffix: str, read: Callable[[Path], object]) -> Read:
    """Return a reader of bytes that reads them as a file."""
    path = folder / f"input{suffix}"

    def from_bytes(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return from_bytes


def frames() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return ratings and items."""
    rows = 40
    ratings = pl.DataFrame(
        {
            "user_id": [n % 7 for n in range(rows)],
            "item_id": [n * 3 % 11 for n in range(rows)],
            "rating": [1 + n % 5 for n in range(rows)],
            "timestamp": [1_600_000_000 + 86_400 * n for n in range(rows)],
        }
    )
    titles = [f"Film, the {n}" for n in range(11)]
    items = pl.DataFrame({"item_id": list(range(11)), "title": titles, "year": [1990 + n for n in range(11)]})
    return ratings, items


def written(frame: pl.DataFrame) -> dict[str, bytes]:
    """Return a table in every form that is read, by suffix."""
    forms: dict[str, bytes] = {}
    text = frame.write_csv()
    for name, separator in ((".csv", ","), (".tsv", "\t"), (".txt", ";"), (".dat", "::")):
        forms[name] = text.replace(",", separator).encode()
    forms[".jsonl"] = frame.write_ndjson().encode()
    forms[".json"] = frame.write_json().encode()
    for name, write in ((".parquet", frame.write_parquet), (".feather", frame.write_ipc)):
        buffer = io.BytesIO()
        write(buffer)
        forms[name] = buffer.getvalue()
    forms[".csv.gz"], forms[".csv.bz2"] = gzip.compress(text.encode()), bz2.compress(text.encode())
    forms[".csv.xz"] = lzma.compress(text.encode())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("ratings.csv", text)
    forms[".zip"] = buffer.getvalue()
    return forms


def tables(folder: Path) -> Readers:
    """Readers of tables."""
    from recsys_embed.config.settings import DataConfig
    from recsys_embed.doctor.check import examine
    from recsys_embed.sources.load import load_dataset, read_tables
    from recsys_embed.sources.read import read_items
    from recsys_embed.sources.users_file import read_users

    ratings, items = frames()
    days = pl.Series([f"{1 + n % 28:02}/03/2024 12:{n:02}" for n in range(len(ratings))])
    dates = ratings.with_columns(timestamp=days)
    events = ratings.with_columns(event=pl.Series(["view", "cart", "purchase", "view"] * 10))
    users = pl.DataFrame({"user_id": [1, 2, 3], "where": ["year > 1990", None, "title == 'a'"], "k": [3, None, 5]})
    found = Readers()
    by_suffix: dict[str, list[bytes]] = {}
    for frame in (ratings, dates, events):
        for suffix, data in written(frame).items():
            by_suffix.setdefault(suffix, []).append(data)
    for suffix, seeds in by_suffix.items():
        found[f"ratings{suffix}"] = seeds, as_file(folder, suffix, lambda path: load_dataset(str(path))), 2
    base = folder / "base.csv"
    ratings.write_csv(base)
    for suffix in (".csv", ".jsonl", ".parquet"):
        seeds = [written(items)[suffix]]
        found[f"items{suffix}"] = seeds, as_file(folder, suffix, lambda path: read_items(path)), 1
        found[f"users{suffix}"] = [written(users)[suffix]], as_file(folder, suffix, lambda path: read_users(path)), 1

    def examined(path: Path) -> object:
        config = DataConfig(str(path))
        return examine(read_tables(str(path), config, tolerant=True), config)

    found["doctor.csv"] = by_suffix[".csv"], as_file(folder, ".csv", examined), 2
    database = folder / "seed.db"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("create table ratings (user_id, item_id, rating, timestamp)")
        connection.executemany("insert into ratings values (?, ?, ?, ?)", ratings.rows())
        connection.commit()
    query = "select * from ratings"
    read_database = as_file(folder, ".db", lambda path: load_dataset(str(path), query=query))
    found["sqlite"] = [database.read_bytes()], read_database, 1
    return found


def words(folder: Path) -> Readers:
    """Readers of word vectors."""
    from recsys_embed.words.formats import read_vectors, write_vectors
    from recsys_embed.words.vectors import read_word_test

    names, vectors = pl.Series([f"word{n}" for n in range(8)]), np.arange(32, dtype=np.float32).reshape(8, 4)
    glove = "\n".join(f"{w} {' '.join(map(str, v))}" for w, v in zip(names, vectors.tolist(), strict=True)).encode()
    binary = b"8 4\n" + b"".join(w.encode() + b" " + v.tobytes() for w, v in zip(names, vectors, strict=True))
    found = {
        "words.txt": ([glove, b"8 4\n" + glove], as_file(folder, ".txt", read_vectors), 2),
        "words.bin": ([binary], as_file(folder, ".bin", read_vectors), 2),
        "words test": (
            [b"king queen 8.5\nman\twoman\t7\n: capital\na b c d\n"],
            as_file(folder, ".csv", read_word_test),
            1,
        ),
    }
    for suffix in (".npy", ".safetensors"):
        with contextlib.suppress(RecsysError):
            path = write_vectors(folder / f"vectors{suffix}", names, vectors)
            found[f"words{suffix}"] = [path.read_bytes()], as_file(folder, suffix, read_vectors), 1
    return found


def models(folder: Path) -> Readers:
    """Readers of what a model writes, and what is asked of it."""
    from recsys_embed import Recommender
    from recsys_embed.config.settings import ModelConfig, TrainConfig
    from recsys_embed.data.ratings import Ratings

    ratings, items = frames()
    model, train = ModelConfig("embeddings", dim=4), TrainConfig(loss="softmax", epochs=1, device="cpu")
    recommender = Recommender(model, train).fit(Ratings.from_frame(ratings), items)
    place = recommender.save(folder / "model")
    return {
        **bundles(place, folder), **checkpoints(folder), **parts(recommender, folder), **rules(recommender),
        **service(place, folder),
    }  # fmt: skip


def bundles(place: Path, folder: Path) -> Readers:
    """Readers of a model folder. But for the manifest's own, digests are those of what is there."""
    from recsys_embed import Recommender
    from recsys_embed.storage.safetensors_reader import read_arrays

    def bundle(name: str) -> Read:
        copy = folder / f"model-{name.replace('.', '-')}"
        shutil.copytree(place, copy)
        manifest = json.loads((place / "manifest.json").read_bytes())

        def read(data: bytes) -> object:
            (copy / name).write_bytes(data)
            if name != "manifest.json":
                manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                (copy / "manifest.json").write_text(json.dumps(manifest))
            return Recommender.load(copy).recommend([1], k=2)

        return read

    def safetensors(data: bytes) -> object:
        try:
            return read_arrays(data)
        except ValueError as error:  # bundles say whose it is
            raise RecsysError(str(error)) from None

    found: Readers = {f"model/{f.name}": ([f.read_bytes()], bundle(f.name), 1) for f in sorted(place.iterdir())}
    return found | {"safetensors": ([(place / "vectors.safetensors").read_bytes()], safetensors, 2)}


def checkpoints(folder: Path) -> Readers:
    """Readers of checkpoints, which are left aside where they are damaged."""
    from recsys_embed.training.checkpoints import Checkpoints

    states, found = folder / "states", Readers()
    Checkpoints(states, 0.0).stage("fit", "x").save({"a": np.arange(6.0)}, {"epoch": 1})
    for file in sorted(path for path in states.rglob("*") if path.is_file()):

        def resumed(data: bytes, file: Path = file) -> object:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            return Checkpoints(states, 60.0, resume=True).stage("fit", "x").saved

        found[f"checkpoint/{file.name}"] = [file.read_bytes()], resumed, 1
    return found


def parts(recommender: Any, folder: Path) -> Readers:
    """Readers of a folder of lists."""
    from recsys_embed.storage.part_folder import PartFolder

    place = folder / "lists"
    recommender.write_recommendations(f"{place}/", k=2, per_part=3)
    manifest = (place / "_manifest.json").read_bytes()
    request = json.loads(manifest)["request"]

    def of_manifest(data: bytes) -> object:
        (place / "_manifest.json").write_bytes(data)
        return PartFolder.open(place, request, ".parquet").facts

    def of_note(data: bytes) -> object:
        (place / "_manifest.json").write_bytes(manifest)
        (place / "_part-00009.parquet.json").write_bytes(data)
        return PartFolder.open(place, request, ".parquet").facts

    note = b'{"rows": 3, "lists": 2, "without_list": [1], "bytes": 99}'
    return {"parts": ([manifest], of_manifest, 1), "note of a part": ([note], of_note, 1)}


def rules(recommender: Any) -> Readers:
    """Readers of rules and titles, with a model."""
    from recsys_embed.config.answers import Rules

    def rule(field: str) -> Read:
        def read(data: bytes) -> object:
            return recommender.recommend([1], k=2, rules=Rules(**{field: data.decode("utf-8", "replace")}))

        return read

    where = [b"year >= 1990 and 'Film, the 3' in title", b'not (year in [1991, 1992] or title == "a")']
    names = [b"Film, the 3", b"3", b"film the"]
    return {
        "where": (where, rule("where"), 6),
        "boost": ([b"year > 1995: 0.5; title == 'x': -1"], rule("boost"), 3),
        "per-group": ([b"year: 2; title: 1"], rule("per_group"), 2),
        "as-of": ([b"2024-05-01", b"2024-05-01T12:00:00Z"], rule("as_of"), 1),
        "titles": (names, lambda data: recommender.find_item(data.decode("utf-8", "replace")), 3),
    }


def service(place: Path, folder: Path) -> Readers:
    """A service, asked in this process."""
    from recsys_embed.config.answers import ServeConfig
    from recsys_embed.serving.app import create_app
    from recsys_embed.serving.service import Service

    config = ServeConfig(model=str(place), events=str(folder / "events.db"), reload_interval=0.0)
    app, loop, found = create_app(Service(config)), asyncio.new_event_loop(), Readers()

    def asked(method: str, path: str | None, query: bool = False) -> Read:
        """path: None for one that the input is."""

        def read(data: bytes) -> object:
            where = "/" + data.decode("utf-8", "replace") if path is None else path
            sent = (b"", b"") if path is None else (b"", data) if query else (data, b"")
            status = loop.run_until_complete(answer(app, method, where, *sent))
            if 400 <= status < 500:
                raise RecsysError(str(status))
            assert status < 500, f"status {status}"
            return status

        return read

    lists = b'{"user": 1, "k": 3, "where": "year > 1990", "exclude": [2]}'
    new = b'{"likes": [1, 2], "ratings": {"3": 4.5}, "dislikes": [5], "boost": "year > 1: 0.5"}'
    event = b'{"user": 1, "item": 2, "rating": 4, "timestamp": 1700000000}'
    bodies = {
        ("POST", "recommend"): [lists, new],
        ("POST", "recommend/batch"): [b'{"users": [1, 2, 3], "k": 2}', b'{"requests": [' + lists + b"]}"],
        ("POST", "events"): [b'{"events": [' + event + b"]}", event],
        ("PATCH", "items"): [b'{"items": [{"item_id": 1, "year": 2001}]}', b'{"1": {"year": 2003}}'],
        ("POST", "explain"): [b'{"user": 1, "item": 2}', b'{"likes": [1], "item": 2}'],
    }
    for (method, name), seeds in bodies.items():
        found[f"{method} /{name}"] = seeds, asked(method, f"/{name}"), 5
    queries = [b"user=1&k=3&q=film&item=1", b"item=%32&k=1e3&items=1", b"users=1&user=2&item=3&items=4"]
    for name in ("recommend", "similar", "audience", "predict", "history", "items", "events", "variants"):
        found[f"GET /{name}"] = queries, asked("GET", f"/{name}", True), 3
    found["GET /…"] = [b"/items/1", b"/users/2/history", b"/map", b"/page/page.js"], asked("GET", None), 3
    return found


async def answer(app: Any, method: str, path: str, body: bytes, query: bytes) -> int:
    """Return the status that the service answers with, asked in this process."""
    status: list[int] = []
    left = [body]

    async def receive() -> dict[str, Any]:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode("utf-8", "replace"), "query_string": query, "root_path": "",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    await app(scope, receive, send)
    return status[0]


def values() -> Readers:
    """Readers of texts."""
    from recsys_embed.answering.titles import split_names, split_ratings
    from recsys_embed.config.amounts import read_bytes, read_seconds
    from recsys_embed.data.date_texts import read_dates
    from recsys_embed.rules.expression import parse_boost, parse_per_group, parse_where

    def text(read: Callable[[str], object]) -> Read:
        return lambda data: read(data.decode("utf-8", "replace"))

    where = [b"a >= 1 and not ('b' in c or d == \"e\")", b"x in ['1', 2, 3.5] or released < today - 3 days"]
    return {
        "parse where": (where, text(parse_where), 30),
        "parse boost": ([b"a > 1: 0.5; b == 'c': -1"], text(parse_boost), 20),
        "parse group": ([b"genre: 2; year: 1"], text(parse_per_group), 20),
        "split names": ([b"Toy Story (1995);Heat\\; again"], text(split_names), 10),
        "split ratings": ([b"Toy Story=5;Heat=2.5"], text(split_ratings), 10),
        "memory": ([b"4GB", b"1.5 TB"], text(lambda t: read_bytes("memory_limit", t)), 5),
        "age": ([b"12h", b"7 d"], text(lambda t: read_seconds("max_age", t)), 5),
        "dates": ([b"2024-05-01 12:00"], text(lambda t: read_dates(pl.Series([t]), "%Y-%m-%d %H:%M")), 3),
    }


# --- the work ---------------------------------------------------------------------------------------------------------


class TooSlow(BaseException):
    """An input took too long."""


def _ring(number: int, frame: Any) -> None:
    raise TooSlow


def work(seed: int, seconds: float, only: list[str], failures: Path, pipe: Any) -> None:
    """Fuzz for so long, and send counts after each turn; a process of its own."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _ring)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
        folder = Path(scratch)
        readers = {**values(), **tables(folder), **words(folder), **models(folder)}
        readers = {name: one for name, one in readers.items() if not only or any(text in name for text in only)}
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what native code prints
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, (seeds, read, share) in readers.items():
                turn = time.monotonic() + 0.05 * share
                while time.monotonic() < turn:
                    data = mutate(chance, seeds)
                    (failures / f"now-{seed}").write_bytes(data)
                    pipe.send(("one", name, *_try(read, data, name, failures)))
    pipe.send(("end",))


def _try(read: Read, data: bytes, name: str, failures: Path) -> tuple[str, float]:
    start = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        read(data)
        outcome = "read"
    except RecsysError as error:
        outcome = "refused" if "\n" not in str(error).strip() else "two lines"
    except BaseException:
        outcome = "failed"
        trace = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if outcome in ("failed", "two lines"):
        stem = f"{name.replace('/', '_').replace(' ', '_')}-{abs(hash(data)) % 10**8}"
        (failures / f"{stem}.input").write_bytes(data)
        (failures / f"{stem}.txt").write_text(trace if outcome == "failed" else "an error of two lines")
    return outcome, time.perf_counter() - start


def main(seconds: float, seed: int, only: list[str]) -> int:
    """Fuzz, start again what ended, and print the table; return how many inputs failed."""
    failures = Path("failures")
    failures.mkdir(exist_ok=True)
    counts: dict[str, dict[str, float]] = {}
    context, end = multiprocessing.get_context("spawn"), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 1:
        here, there = context.Pipe(False)
        process = context.Process(target=work, args=(seed, left, only, failures, there))
        process.start()
        there.close()
        name = ""
        with contextlib.suppress(EOFError):
            while (message := here.recv())[0] != "end":
                if message[0] == "one":
                    _, name, outcome, took = message
                    row = counts.setdefault(name, {"read": 0, "refused": 0, "failed": 0, "two lines": 0, "slowest": 0})
                    row[outcome] += 1
                    row["slowest"] = max(row["slowest"], took)
        process.join()
        if process.exitcode:
            print(f"a process ended with {process.exitcode} after {name}: failures/now-{seed} is the input", flush=True)
            counts.setdefault(name, {"read": 0, "refused": 0, "failed": 0, "two lines": 0, "slowest": 0})["failed"] += 1
            with contextlib.suppress(OSError):
                (failures / f"now-{seed}").rename(failures / f"ended-{seed}.input")
        seed += 1
    print(f"{'reader':28} {'inputs':>10} {'refused':>10} {'slowest s':>10} {'failures':>9}")
    total = [0.0] * 3
    for name, row in counts.items():
        inputs, failed = (
            sum(row[key] for key in ("read", "refused", "failed", "two lines")),
            row["failed"] + row["two lines"],
        )
        total = [a + b for a, b in zip(total, (inputs, row["refused"], failed), strict=True)]
        print(f"{name:28} {inputs:>10,.0f} {row['refused']:>10,.0f} {row['slowest']:>10.2f} {failed:>9,.0f}")
    print(f"{'all':28} {total[0]:>10,.0f} {total[1]:>10,.0f} {'':>10} {total[2]:>9,.0f}")
    return int(total[2])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    sys.exit(min(1, main(args.seconds, args.seed, args.only)))
