"""NDCG@10 on the test rows against the wall time of the fit: ours and the peers, each tuned, all curves in one picture.

    python experiments/benchmarks/time_to_quality.py movielens|movielens-1m|gowalla [--data-dir FOLDER] [--rounds 3]
        [--only NAME,NAME] [--out FILE.json] [--picture FILE.png]
    python experiments/benchmarks/time_to_quality.py NAME --tune NAME,NAME     the search that chose a peer's settings
    python experiments/benchmarks/time_to_quality.py NAME --from FILE.json [--picture FILE.png]     of a run before

One split for all: random 80/10/10 a user; of Gowalla LightGCN's test file, and a tenth of each user's train rows for
validation. One dimension, 128. Peers' settings were chosen on validation rows (`--tune`: one step on one setting's
ladder at a time, until no step is better; how many passes, by the curve of each trial); ours are the defaults. Then
each is fitted on train and validation, and ranked on test with those masked, by the same code. The clock stands still
while quality is measured, begins with ratings at hand (peers: as their sparse matrix), and kernels are compiled before.

Ours twice: one training of the default length, after each of its epochs; and whole trainings of other lengths, each
with its own fall of the learning rate. All take turns, with another seed each round: medians, least and most. What
takes more than 20 s runs once. Needs `pip install 'recsys-embed[bench]'`; RecBole where it can be imported.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import (
    DIM,
    LADDERS,
    MODULES,
    OURS,
    PACKAGES,
    PEERS,
    SETTINGS,
    WHOLE,
    Enough,
    Point,
    Watch,
    ours,
    ours_whole,
)

from recsys_embed import DataConfig, ModelConfig, TrainConfig, load_dataset
from recsys_embed.config.recipes import Size, resolve_settings
from recsys_embed.data.splits import Split
from recsys_embed.plots.style import COLOURS, INK, Label, new_figure, place_labels, save_figure, style_axes

NAMES = {"movielens": "MovieLens-100K", "movielens-1m": "MovieLens-1M", "gowalla": "Gowalla"}
LONG = 20  # seconds of a run that is not repeated
USERS = 6_500  # users at most whose lists are measured, the same for all
TUNED_ON = 3_000  # the same of --tune
LENGTHS = (2, 3, 5, 8, 9, 10, 12, 20)  # epochs of our other trainings
# What the command `recsys` sets (cli/main.py). It would cost implicit's ALS two fifths of its speed.
OUR_THREADS = {"GOMP_SPINCOUNT": "2000"}


def load(name: str, folder: str | None, seed: int) -> Split:
    data = DataConfig(dataset=name, data_dir=folder, split_seed=seed)
    if name == "gowalla":
        place = f"{folder}/gowalla"
        data = DataConfig(dataset=f"{place}/train.txt.gz", test=f"{place}/test.txt", split_seed=seed)
    return load_dataset(data.dataset, data).split(data)


def tune(name: str, split: Split, passes: int) -> None:
    """Walk up and down the ladders of a peer's settings, from their middle, to the best validation NDCG@10."""
    ladders, relevant = LADDERS[name], split.valid.of_random_users(TUNED_ON)
    tried: dict[tuple[int, ...], float] = {}

    def quality(place: tuple[int, ...]) -> float:
        if place not in tried:
            watch = Watch(split.train, relevant, patience=5)
            given = {key: values[at] for at, (key, values) in zip(place, ladders.items(), strict=True)}
            with contextlib.suppress(Enough):
                PEERS[name](split.train, watch, 0, passes, **given)
            best = watch.best
            tried[place] = best[1]
            said = "  ".join(f"{k} {v:g}" for k, v in given.items())
            print(f"{name}  {said}  {best[1]:.4f} after {best[2]} of {passes}  {watch.spent:.1f} s", flush=True)
        return tried[place]

    place = tuple(len(values) // 2 for values in ladders.values())
    while True:
        near = [
            (*place[:n], place[n] + step, *place[n + 1 :])
            for n, values in enumerate(ladders.values())
            for step in (-1, 1)
            if 0 <= place[n] + step < len(values)
        ]
        better = max(near, key=quality)
        if quality(better) <= quality(place):
            return
        place = better


def contenders(name: str) -> list[str]:
    """Return who takes part; a peer that is not installed does not."""
    peers = [peer for peer in SETTINGS[name] if peer not in MODULES or importlib.util.find_spec(MODULES[peer])]
    for peer in SETTINGS[name].keys() - peers:
        print(f"{peer} is left out: {MODULES[peer]} is not installed", file=sys.stderr)
    return [OURS, WHOLE, *peers]


def one(name: str, folder: str | None, who: str, seed: int) -> dict[str, Any]:
    """Fit one contender once; return its points, and the sizes of the data."""
    split = load(name, folder, 0)
    rows, relevant = split.train.concat(split.valid), split.test.of_random_users(USERS)
    size = Size(len(rows.users), len(rows.items), len(split.train))
    epochs = resolve_settings(ModelConfig(), TrainConfig(), size)[1].epochs or 1
    lengths = [n for n in LENGTHS if n < 0.8 * epochs]
    fits = {OURS: partial(ours, size), WHOLE: partial(ours_whole, size, lengths)}
    fit = fits[who] if who in fits else partial(PEERS[who], **SETTINGS[name][who])
    few = rows.take(rows.user < 200)
    fit(few, Watch(few, relevant.take(relevant.user < 200)), 0, passes=1)  # kernels are compiled, modules loaded
    watch = Watch(rows, relevant)
    fit(rows, watch, seed)
    counted = {"users": size.users, "items": size.items, "ratings": len(rows), "epochs": epochs}
    return {"points": watch.points, "measured_users": len(np.unique(relevant.user)), **counted}


def measured(name: str, rounds: int, only: list[str], given: list[str]) -> dict[str, Any]:
    """Let all take turns, each in a process of its own; return what was measured, by contender and round."""
    runs: dict[str, list[list[Point]]] = {
        who: [] for who in contenders(name) if not only or any(o in who for o in only)
    }
    found: dict[str, Any] = {"dataset": name, "machine": machine(), "dim": DIM, "settings": SETTINGS[name]}
    for turn in range(rounds):
        for who, done in runs.items():
            if turn and done[0][-1][0] > LONG:
                continue
            with tempfile.NamedTemporaryFile(suffix=".json") as file:
                command = [sys.executable, "-W", "ignore", __file__, name, *given, "--one", who, "--seed", str(turn)]
                environment = {"OPENBLAS_THREAD_TIMEOUT": "16"} | (OUR_THREADS if who in (OURS, WHOLE) else {})
                subprocess.run([*command, "--out", file.name], check=True, env={**os.environ, **environment})
                result = json.loads(Path(file.name).read_text())
            done.append(result.pop("points"))
            found |= result
            seconds, quality, passes = done[-1][-1]
            print(f"round {turn}  {who:26} {quality:.4f} after {passes} passes, {seconds:.2f} s", file=sys.stderr)
    return found | {"runs": runs}


def machine() -> str:
    """Name the processor, its cores, the threads that were taken, and the versions."""
    model, file = platform.processor(), Path("/proc/cpuinfo")
    if file.exists():
        lines = [line.partition(":")[2].strip() for line in file.read_text().splitlines() if "model name" in line]
        model = lines[0] if lines else model
    packages = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module)]
    versions = " ".join(f"{name} {importlib.metadata.version(name)}" for name in [*packages, "numpy", "torch"])
    return f"{model or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; {versions}"


def middle(runs: list[list[Point]]) -> list[Point]:
    """Return the medians of several runs, point by point."""
    length = min(map(len, runs))
    return [tuple(np.median([run[at] for run in runs], axis=0).tolist()) for at in range(length)]  # type: ignore[misc]


def reached(curve: list[Point], quality: float) -> float:
    """Return when a curve first has a quality; infinity for never."""
    return min((p[0] for p in curve if p[1] >= quality), default=math.inf)


def by(curve: list[Point], seconds: float) -> float:
    """Return the best that a curve has had until then."""
    return max((p[1] for p in curve if p[0] <= seconds), default=0.0)


def facts(found: dict[str, Any]) -> list[str]:
    """Say what each came to, and how ours stands to ALS and to all."""
    runs, curves = found["runs"], {who: middle(of) for who, of in found["runs"].items()}
    lines = [
        f"{found['dataset']}: {found['ratings']:,} ratings of {found['users']:,} x {found['items']:,}, the lists of "
        f"{found['measured_users']:,} users; {found['machine']}"
    ]
    for who, curve in curves.items():
        best = max(range(len(curve)), key=lambda at: curve[at][1])
        for at in range(len(curve)) if who == WHOLE else sorted({best, len(curve) - 1}):
            seconds, quality = ([run[at][n] for run in runs[who]] for n in (0, 1))
            lines.append(
                f"{who:26} {curve[at][1]:.4f} ({min(quality):.4f} to {max(quality):.4f}) after {curve[at][2]:3.0f} "
                f"passes, {curve[at][0]:7.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), {len(runs[who])} runs"
            )
    als = curves.get("implicit ALS")
    if not als or not {OURS, WHOLE} & set(curves):
        return lines
    level, whole = max(p[1] for p in als), als[-1][0]
    lines.append(f"ALS has its best, {level:.4f}, after {reached(als, level):.2f} s, and ends after {whole:.2f} s")
    lines.append(
        f"so the plain `recsys train`, as a whole process, may take 15 s + 5 x {whole:.2f} s = {15 + 5 * whole:.1f} s"
    )
    mine = {"one training": curves.get(OURS, []), "trainings of all lengths": sorted(envelope(curves))}
    for what, curve in mine.items():
        since = reached(curve, level)
        lines.append(f"ours, {what}: {level:.4f} after {since:.2f} s")
        for who in [] if since == math.inf else set(curves) - {OURS, WHOLE}:
            times = sorted({since, *(p[0] for p in [*curve, *curves[who]] if p[0] > since)})
            gaps = {t: by(curves[who], t) - by(curve, t) for t in times}
            below = [t for t in times if gaps[t] > 0]
            if below:
                until = "the end" if gaps[times[-1]] > 0 else f"{next(t for t in times if t > below[-1]):.2f} s"
                most = max(gaps.values())
                lines.append(f"    after that below {who} from {below[0]:.2f} s to {until}, by {most:.4f} at most")
    return lines


def envelope(curves: dict[str, list[Point]]) -> list[Point]:
    """Return what whole trainings of all lengths come to, the default one among them."""
    return curves.get(WHOLE, []) + curves.get(OURS, [])[-1:]


def draw(found: dict[str, Any], out: Path) -> None:
    """Draw all curves, with every run behind its median."""
    figure = new_figure(9, 5.6)
    axis = figure.add_subplot()
    looks = dict(zip((OURS, *PEERS), (*COLOURS[:5], INK), strict=True)) | {WHOLE: COLOURS[0]}
    curves = {who: middle(of) for who, of in found["runs"].items()}
    best = max(p[1] for curve in curves.values() for p in curve)
    low, high = 0.45 * best, 1.05 * best
    anchors, labels, lines = [], [], []
    for who, curve in curves.items():
        colour, whole, alone = looks[who], who == WHOLE, len(curve) == 1
        curve = sorted(envelope(curves)) if whole else curve
        for run in found["runs"][who]:
            axis.plot([p[0] for p in run], [p[1] for p in run], color=colour, alpha=0.25, linewidth=0.8)
        x, y = np.array(curve)[:, :2].T
        axis.plot(
            x, y, "--" if whole else "-", color=colour, linewidth=2, marker="D" if alone else "o",
            markersize=7 if alone else 3.5, markerfacecolor="white" if whole else colour, zorder=3 + (who == OURS),
        )  # fmt: skip
        if not whole:
            at = max(curve, key=lambda p: p[1])
            anchors.append(at[:2])
            labels.append(Label(f"{who} {at[1]:.4f}", colour=colour, weight="bold", required=True))
        at_all, known = np.linspace(0, len(x) - 1, 40 * len(x)), np.arange(len(x))
        lines.append(np.column_stack((np.exp(np.interp(at_all, known, np.log(x))), np.interp(at_all, known, y))))
    axis.set_xscale("log")
    axis.set_xlim(axis.get_xlim()[0], axis.get_xlim()[1] * 2)
    axis.set_ylim(low, high)
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    title = f"{NAMES[found['dataset']]}: NDCG@10 on test against the time of the fit"
    if WHOLE in curves:
        title += f"\ndashed: {OURS}, whole trainings of {', '.join(f'{p[2]:.0f}' for p in envelope(curves))} passes"
    style_axes(axis, title, f"seconds of fitting ({found['machine']})", "NDCG@10")
    axis.xaxis.label.set_size(8)
    figure.canvas.draw()
    place_labels(axis, np.concatenate([np.array(anchors), *lines]), labels, len(labels), clear=True)
    save_figure(figure, out)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=SETTINGS)
    parser.add_argument("--data-dir", help="folder of downloads; for gowalla the one that holds gowalla/train.txt.gz")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="parts of names, by commas")
    parser.add_argument("--tune", help="peers by commas: search their settings on validation rows instead")
    parser.add_argument("--passes", type=int, default=20, help="the longest that a trial of --tune may take")
    parser.add_argument("--from", dest="before", type=Path, help="what --out wrote, to be drawn again")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tune:
        split = load(args.name, args.data_dir, 0)
        for peer in args.tune.split(","):
            tune(peer, split, args.passes)
        return
    if args.one:
        args.out.write_text(json.dumps(one(args.name, args.data_dir, args.one, args.seed)))
        return
    if args.before:
        found = json.loads(args.before.read_text())
    else:
        given = ["--data-dir", args.data_dir] if args.data_dir else []
        found = measured(args.name, args.rounds, [o for o in args.only.split(",") if o], given)
    print("\n".join(facts(found)))
    if args.out:
        args.out.write_text(json.dumps(found) + "\n")
    if args.picture:
        draw(found, args.picture)


if __name__ == "__main__":
    main()
