"""Time and memory as users, items, ratings and dimension grow, each alone from one base and by ten.

    python experiments/benchmarks/scaling.py [--out FOLDER] [--large]

Every case is a process of its own on made-up ratings that are as skewed as MovieLens-20M: it reads a Parquet file,
splits it and checks the parts, trains for one epoch with the defaults (the loss that they choose is named), ranks all
items for the users of validation as training does (10,000 at most), saves the model, and answers once from its folder.
Times are of one run; the peak is that of the whole process, torch with it. `--large` adds 20 million ratings of
138,000 users and 27,000 items, at the default dimension, from CSV and from Parquet. `--out` takes a table and a plot.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl


class Case(NamedTuple):
    """What a process is given; `grows` says of which line of the picture it is a point."""

    grows: str
    users: int = 20_000
    items: int = 10_000
    ratings: int = 1_200_000
    dim: int = 32
    form: str = "parquet"


BASE = Case("")
SIZES = {
    "users": (2_000, 20_000, 200_000, 1_000_000),
    "items": (1_000, 10_000, 100_000),
    "ratings": (120_000, 1_200_000, 12_000_000),
    "dim": (8, 32, 128, 512),
}
LARGE = [Case("large", 138_000, 27_000, 20_000_000, 128, form) for form in ("csv", "parquet")]
STAGES = ("read", "split", "epoch", "rank", "save", "answer")


def world(users: int, items: int, ratings: int, seed: int = 0, groups: int = 20) -> pl.DataFrame:
    """Return made-up ratings as skewed as MovieLens-20M, shuffled: user_id, item_id, rating (half stars), timestamp.

    How much users rate and how often items are rated are log-normal, and each of some groups of users has its own
    favourites. Every user and every item has a rating (ratings must be at least users + items), no pair stands twice.
    """
    random = np.random.default_rng(seed)
    popularity = np.log(random.lognormal(0.0, 2.0, items))
    taste = popularity + random.normal(0.0, 1.0, (groups, items))
    group = random.integers(0, groups, users)
    active = np.cumsum(random.lognormal(0.0, 1.0, users))
    every_user = np.arange(users) * items + random.integers(0, items, users)
    every_item = random.integers(0, users, items) * items + np.arange(items)
    kept = np.unique(np.concatenate((every_user, every_item)))
    pair = kept
    while len(pair) < ratings:
        drawn = np.searchsorted(active, random.random(ratings // 4 + ratings - len(pair)) * active[-1])
        of_group = group[drawn]
        for at, edge in enumerate(np.cumsum(np.exp(taste), axis=1)):
            mine = np.flatnonzero(of_group == at)
            drawn[mine] = drawn[mine] * items + np.searchsorted(edge, random.random(len(mine)) * edge[-1])
        pair = pl.Series(np.concatenate((pair, drawn))).unique().sort().to_numpy()
        taste *= 0.7  # what everybody has rated by now leaves room for the rest
    spare = np.setdiff1d(pair, kept, assume_unique=True)
    pair = random.permutation(np.concatenate((kept, random.permutation(spare)[: ratings - len(kept)])))
    user, item = np.divmod(pair, items)
    stars = np.clip(np.rint(2 * (3.2 + 0.1 * popularity[item] + random.normal(0.0, 1.0, ratings))) / 2, 0.5, 5.0)
    return pl.DataFrame(
        {
            "userId": user + 1,
            "movieId": item * 3 + 1,
            "rating": stars.astype(np.float32),
            "timestamp": random.integers(800_000_000, 1_400_000_000, ratings),
        }
    )


def measured(case: Case, file: Path, folder: Path) -> dict[str, Any]:
    """Go through all stages in this process; return their seconds, the peak of memory and what was trained."""
    from recsys_embed import ModelConfig, Recommender, TrainConfig
    from recsys_embed.config.recipes import resolve_settings
    from recsys_embed.config.settings import DataConfig
    from recsys_embed.data.checks import check_no_leakage
    from recsys_embed.experiment.fit_and_refit import validation
    from recsys_embed.experiment.prepare import size_of
    from recsys_embed.kernels import available
    from recsys_embed.sources.load import load_dataset
    from recsys_embed.training import trainer as loop  # noqa: F401, so that no stage pays for importing torch

    all(available(kernel) for kernel in ("adam", "pairwise", "softmax", "ranking"))  # nor for compiling kernels

    seconds: dict[str, float] = {}
    begin = time.perf_counter()

    def stage(name: str) -> None:
        nonlocal begin
        seconds[name] = time.perf_counter() - begin
        begin = time.perf_counter()

    data = DataConfig(dataset=str(file), split_seed=0)
    dataset = load_dataset(data.dataset, data)
    stage("read")
    split = dataset.split(data)
    for one, other in ((split.train, split.valid), (split.train, split.test), (split.valid, split.test)):
        check_no_leakage(one, other, "one", "other")
    stage("split")
    configs = resolve_settings(ModelConfig(dim=case.dim), TrainConfig(epochs=1), size_of(split))
    recommender = Recommender(*configs).fit(split.train, held_out=split.valid.concat(split.test))
    stage("epoch")
    quality = validation(split, data, configs[1])[0](recommender.model)
    stage("rank")
    recommender.save(folder)
    stage("save")
    Recommender.load(folder).recommend([int(dataset.ratings.users.series[0])], 10)
    stage("answer")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
    return {"seconds": seconds, "peak_gb": peak, "loss": configs[1].loss, **quality}


def run(case: Case) -> dict[str, Any]:
    """Make the file of a case and measure it, in two processes."""
    with tempfile.TemporaryDirectory() as folder:
        ask = [sys.executable, __file__, "--case", json.dumps([*case, folder])]
        subprocess.run([*ask, "--make"], check=True)
        done = subprocess.run(ask, check=True, stdout=subprocess.PIPE, text=True)
    return {**case._asdict(), **json.loads(done.stdout.splitlines()[-1])}


def child(given: list[Any], make: bool) -> None:
    *of_case, folder = given
    case = Case(*of_case)
    file = Path(folder) / f"ratings.{case.form}"
    if not make:
        print(json.dumps(measured(case, file, Path(folder) / "model")))
        return
    frame = world(case.users, case.items, case.ratings)
    frame.write_csv(file) if case.form == "csv" else frame.write_parquet(file)


def line(row: dict[str, Any]) -> str:
    sizes = f"{row['users']:>9,} {row['items']:>8,} {row['ratings']:>11,} {row['dim']:>4}"
    return (
        f"{sizes}  {row['loss']:15} "
        + " ".join(f"{row['seconds'][s]:7.2f}" for s in STAGES)
        + f" {row['peak_gb']:7.2f}"
    )


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw seconds and memory over each size, one column of pictures a size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(SIZES), figsize=(13, 6.4), sharey="row", sharex="col", layout="constrained")
    for column, size in enumerate(SIZES):
        mine = sorted((r for r in rows if r["grows"] in (size, "")), key=lambda r: r[size])
        x = [r[size] for r in mine]
        for stage in STAGES:
            axes[0, column].loglog(x, [max(r["seconds"][stage], 1e-3) for r in mine], marker="o", ms=3.5, label=stage)
        axes[1, column].loglog(x, [r["peak_gb"] for r in mine], marker="o", ms=3.5, color="black")
        axes[1, column].set_xlabel(size)
        for row in axes[:, column]:
            row.axvline(BASE._asdict()[size], color="0.8", lw=1, zorder=0)
            row.grid(alpha=0.3)
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("peak memory of the process, GB")
    axes[1, 0].set_ylim(0.45, 4.5)
    axes[1, 0].set_yticks([0.5, 1, 2, 4], labels=["0.5", "1", "2", "4"])
    axes[1, 0].tick_params(axis="y", which="minor", length=0)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    base = f"{BASE.users:,} users, {BASE.items:,} items, {BASE.ratings:,} ratings, {BASE.dim} numbers"
    figure.suptitle(f"Each size alone, from {base} (grey lines)", fontsize=11)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, help="folder for scaling.json and scaling.png")
    parser.add_argument("--large", action="store_true", help="the case of 20 million ratings alone")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        return child(json.loads(args.case), args.make)
    # As the command line has it: threads that wait must not keep a core from those that work.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")
    grown = [BASE._replace(grows=size, **{size: n}) for size, all_ in SIZES.items() for n in all_]
    cases = LARGE if args.large else [BASE, *(c for c in grown if c[1:] != BASE[1:])]
    print(f"{platform.machine()}, {os.cpu_count()} cores; seconds a stage, GB at the peak")
    print(
        f"{'users':>9} {'items':>8} {'ratings':>11} {'dim':>4}  {'loss':15} "
        + " ".join(f"{s:>7}" for s in STAGES)
        + "    peak"
    )
    rows = []
    for case in cases:
        rows.append(run(case))
        print(line(rows[-1]) + f"  {case.form}" * args.large, flush=True)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        name = "scaling-large" if args.large else "scaling"
        (args.out / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
        if not args.large:
            draw(rows, args.out / "scaling.png")


if __name__ == "__main__":
    main()
