"""Ratings from disk and in memory: how long reading, splitting and a pass take, and the memory at its highest.

    python experiments/benchmarks/beyond_memory.py make FOLDER USERS ITEMS RATINGS
    python experiments/benchmarks/beyond_memory.py fit DATA [--memory-limit 4GB] [--dim 64]
    python experiments/benchmarks/beyond_memory.py grow FOLDER [--out PICTURE.png]

`make` writes Parquet files of made-up ratings in bounded memory: users of several tastes among groups of items, skewed
activity and popularity, and what everybody takes. `fit` loads DATA, splits it at random and passes over the training
ratings once. `grow` does both from 1 to 100 million ratings on disk, 50 a user and 200 an item, each in a process of
its own, and draws time and memory beside the formulas of docs/scale.md. The memory is that of the process without the
pages of files, which the system takes back in need, and that of those pages.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl

from recsys_embed.sources.memory import BYTES_A_RATING

PART, MILLIONS = 5_000_000, (1, 3, 10, 30, 100)


def make(folder: Path, users: int, items: int, ratings: int) -> None:
    """Write the ratings."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    groups = max(8, items // 500)
    group = random.integers(0, groups, items)
    by_group = np.argsort(group, kind="stable")
    start = np.searchsorted(group[by_group], np.arange(groups + 1))
    activity = np.cumsum(random.lognormal(0, 1, users))
    tastes = random.integers(0, groups, (users, 3))
    popularity = np.cumsum((1.0 + random.permutation(items)) ** -0.7)
    for part, done in enumerate(range(0, ratings, PART)):
        n = min(PART, ratings - done)
        user = np.searchsorted(activity, random.random(n) * activity[-1])
        taste = tastes[user, random.integers(0, 3, n)]
        among = start[taste] + (random.random(n) ** 2 * (start[taste + 1] - start[taste])).astype(np.int64)
        anything = np.searchsorted(popularity, random.random(n) * popularity[-1])
        item = np.where(random.random(n) < 0.7, by_group[np.minimum(among, items - 1)], anything)
        columns = {"user_id": user + 1, "item_id": item + 1, "timestamp": 1_600_000_000 + random.integers(0, 10**8, n)}
        pl.DataFrame(columns).write_parquet(folder / f"part-{part:04}.parquet")


class Memory(threading.Thread):
    """The memory of this process, sampled, in MB. own: without pages of files; files: those pages."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = self.files = 0
        self.start()

    def run(self) -> None:
        """Sample for ever."""
        while True:
            lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.own = max(self.own, int(lines["RssAnon"].split()[0]) // 1000)
            self.files = max(self.files, int(lines["RssFile"].split()[0]) // 1000)
            time.sleep(0.1)

    def highest(self) -> tuple[int, int]:
        """Return the highest since the last call."""
        found = self.own, self.files
        self.own = self.files = 0
        return found


def fit(dataset: str, limit: str, dim: int) -> dict[str, float]:
    """Load, split and pass over the ratings once; return the sizes, the seconds of each and the memory."""
    from recsys_embed import DataConfig, ModelConfig, TrainConfig
    from recsys_embed.config.settings import ContentConfig
    from recsys_embed.sources.load import load_dataset
    from recsys_embed.training.fit import fit_state

    data = DataConfig(dataset, memory_limit=limit)
    memory, start = Memory(), time.perf_counter()
    facts: dict[str, float] = {}

    def lap(what: str) -> float:
        nonlocal start
        seconds, start = time.perf_counter() - start, time.perf_counter()
        own, files = memory.highest()
        print(f"{what:10} {seconds:8.1f} s   {own:,} MB, files {files:,} MB", flush=True)
        facts[what], facts[f"{what} MB"] = seconds, own
        return seconds

    loaded = load_dataset(dataset, data)
    lap("load")
    train = loaded.split(data).train
    where = "in memory" if train.disk is None else f"on disk, blocks of {train.disk.block:,}"
    lap("split")
    configs = ModelConfig("embeddings", dim=dim), TrainConfig(loss="sampled-softmax", epochs=1), ContentConfig()
    _, result = fit_state(train, configs)
    seconds = lap("fit")
    rate = result.history[0]["samples_per_s"]
    print(f"{len(train):,} ratings {where}; {rate:,.0f} a second in the pass, {len(train) / seconds:,.0f} in the fit")
    return facts | {"ratings": len(loaded.ratings), "ids": len(train.users) + len(train.items), "dim": dim}


def grow(folder: Path, picture: Path) -> None:
    """Measure each size, and draw."""
    found = []
    for million in MILLIONS:
        data = folder / f"{million}m"
        if not data.exists():
            make(data, million * 20_000, million * 5_000, million * 1_000_000)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found.append(pool.submit(fit, str(data), f"{million * 100}MB", 64).result())
        print(json.dumps(found[-1]), flush=True)
    draw(found, picture)


def draw(found: list[dict[str, float]], picture: Path) -> None:
    """Draw seconds and memory of each size, with the formulas."""
    from recsys_embed.config.settings import TrainConfig
    from recsys_embed.experiment.beyond_memory import table_memory
    from recsys_embed.plots.style import COLOURS, GREY, new_figure, save_figure, style_axes

    figure = new_figure(10, 4)
    seconds, memory = figure.subplots(1, 2)
    n = [f["ratings"] / 1e6 for f in found]
    for what, colour in zip(("load", "split", "fit"), COLOURS, strict=False):
        for axis, values in ((seconds, [f[what] for f in found]), (memory, [f[f"{what} MB"] / 1000 for f in found])):
            axis.plot(n, values, marker="o", color=colour, label={"fit": "one pass"}.get(what, what))
    tables = [table_memory(int(f["ids"]), int(f["dim"]), TrainConfig()) / 1e9 for f in found]
    memory.plot(n, tables, color=GREY, linestyle="--", label="formula of the tables")
    memory.plot(n, [m * BYTES_A_RATING / 1000 for m in n], color=GREY, linestyle=":", label="ratings in memory")
    for axis, title in ((seconds, "Seconds"), (memory, "Memory, GB")):
        axis.set(xscale="log", yscale="log")
        style_axes(axis, title, "million ratings")
        axis.legend(frameon=False, fontsize=9)
    save_figure(figure, picture)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    for name in ("users", "items", "ratings"):
        making.add_argument(name, type=int)
    fitting = commands.add_parser("fit")
    fitting.add_argument("data")
    fitting.add_argument("--memory-limit", default="4GB")
    fitting.add_argument("--dim", type=int, default=64)
    growing = commands.add_parser("grow")
    growing.add_argument("folder", type=Path)
    growing.add_argument("--out", type=Path, default=Path("beyond-memory.png"))
    args = parser.parse_args()
    if args.command == "make":
        make(args.folder, args.users, args.items, args.ratings)
    elif args.command == "grow":
        grow(args.folder, args.out)
    else:
        fit(args.data, args.memory_limit, args.dim)
