"""`kill -9` in the middle of every command that writes: what is there afterwards, and does the same command then work?

    python experiments/faults/commands.py KILLS [--seed 0] [--only NAME …]

Each command runs in a copy of a folder with data, a model and an MLflow store, once whole and then killed, with all
that it has started, at random moments of its whole duration. After each kill the model of before must give the same
lists, and every file under a final name must be whole: tables parse, model folders are as their manifests say, JSON
reads. Then the same command must end well, and leave no unfinished file, and no run that MLflow calls RUNNING.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from recsys_embed import Recommender
from recsys_embed.storage.bundle import Bundle

TRAIN = ["train", "ratings.csv", "--model-family", "embeddings", "--dim", "8", "--epochs", "2", "--device", "cpu"]
COMMANDS = {
    "train": [*TRAIN, "--out", "models/new"],
    "train, checkpoints": [*TRAIN, "--out", "models/new", "--checkpoint-every", "0.001", "--resume"],
    "train, registered": [*TRAIN, "--out", "models/new", "--register", "shop@champion", "--allow-worse"],
    "train over a model": [*TRAIN, "--out", "models/base", "--seed", "0", "--no-track"],
    "retrain": ["retrain", "--model", "models/base"],
    "export": ["export", "--model", "models/base", "--out", "exported", "--to", "projector"],
    "recommend, a file": ["recommend", "--all-users", "--model", "models/base", "--out", "lists.parquet"],
    "recommend, parts": [
        "recommend", "--all-users", "--model", "models/base", "--out", "lists/", "--per-part", "40",
    ],
    "audience": ["audience", "--all-items", "--model", "models/base", "--out", "people.csv"],
    "tune": ["tune", "ratings.csv", "--trials", "2", "--model-family", "embeddings", "--device", "cpu"],
    "data check --fix": ["data", "check", "messy.csv", "--fix", "fixed.csv"],
    "map": ["map", "--model", "models/base", "--method", "pca"],
    "report": ["report", "--model", "models/base", "--out", "report.html"],
}  # fmt: skip
# Files of a command that others wait for, and the mark of a folder that locks were tried in.
KEPT = (".lease", ".recsys-place")


def prepare(folder: Path) -> None:
    """Make data, a model and an MLflow store."""
    from recsys_embed.sources.synthetic import generate

    ratings, _ = generate(400, 120, 9000)
    ratings.write_csv(folder / "ratings.csv")
    pl.concat([ratings, ratings.head(500)]).write_csv(folder / "messy.csv")
    run([*TRAIN, "--out", "models/base"], folder)


def start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own."""
    program = [sys.executable, "-m", "recsys_embed", *command]
    return subprocess.Popen(
        program, cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def run(command: list[str], folder: Path) -> tuple[int, str]:
    """Run a command to its end; return its code and what it said."""
    process = start(command, folder)
    _, errors = process.communicate()
    return process.returncode, errors.decode(errors="replace")[-500:]


def killed(command: list[str], folder: Path, seconds: float) -> bool:
    """Run a command, and kill it and all that it has started after so many seconds; return whether it still ran."""
    process = start(command, folder)
    try:
        process.communicate(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True


def lists_of(folder: Path) -> pl.DataFrame:
    """Return the lists of the model that was there before."""
    return Recommender.load(folder / "models" / "base").recommend(k=3)


def broken(folder: Path) -> list[str]:
    """Return the files under final names that are not whole."""
    found = []
    for file in folder.rglob("*"):
        names = file.relative_to(folder).parts
        if not file.is_file() or any(name.startswith(".") for name in names) or "mlruns" in names:
            continue
        try:
            if file.name == "manifest.json":
                Bundle.read(file.parent)
            elif file.suffix == ".parquet":
                pl.read_parquet(file)
            elif file.suffix == ".csv":
                pl.read_csv(file, infer_schema=False)
            elif file.suffix == ".json":
                json.loads(file.read_text())
            elif file.suffix == ".html" and "</html>" not in file.read_text().lower():
                found.append(str(file.relative_to(folder)))
        except Exception as error:
            found.append(f"{file.relative_to(folder)}: {type(error).__name__}: {str(error)[:100]}")
    return found


def left_over(folder: Path) -> list[str]:
    """Return what a command that has ended should not leave: unfinished files, and runs that MLflow calls RUNNING."""
    import sqlite3

    hidden = [file for file in folder.rglob(".*") if not file.name.endswith(KEPT) and "mlruns" not in file.parts]
    found = [str(file.relative_to(folder)) for file in hidden]
    store = folder / "mlflow.db"
    if store.exists():
        connection = sqlite3.connect(store)
        (running,) = connection.execute("select count(*) from runs where status = 'RUNNING'").fetchone()
        connection.close()
        found += [f"{running} runs RUNNING"] * bool(running)
    return found


def main(kills: int, seed: int, only: list[str]) -> int:
    """Kill, print a table, and return how often something was wrong."""
    chance, faults, total = random.Random(seed), 0, 0
    names = [name for name in COMMANDS if not only or any(text in name for text in only)]
    print(f"seed {seed}\n{'command':22} {'seconds':>8} {'kills':>6} {'ended before':>13} {'faults':>7}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "base"
        base.mkdir()
        prepare(base)
        expected = lists_of(base)
        for number, name in enumerate(names):
            place = Path(scratch) / "whole"
            shutil.copytree(base, place)
            begun = time.perf_counter()
            code, said = run(COMMANDS[name], place)
            seconds = time.perf_counter() - begun
            shutil.rmtree(place)
            if code:
                print(f"{name}: code {code} without a kill: {said}")
                faults += 1
                continue
            hit = missed = wrong = 0
            for _ in range(kills // len(names) + (number < kills % len(names))):
                shutil.copytree(base, place)
                moment = chance.uniform(0, seconds)
                stopped = killed(COMMANDS[name], place, moment)
                hit, missed = hit + stopped, missed + (not stopped)
                problems = broken(place)
                if not lists_of(place).equals(expected):
                    problems.append("the model of before answers otherwise")
                code, said = run(COMMANDS[name], place)
                problems += [f"code {code} afterwards: {said}"] * bool(code) + left_over(place) + broken(place)
                for problem in problems:
                    print(f"  {name}, killed after {moment:.2f} of {seconds:.2f} s: {problem}", flush=True)
                wrong += bool(problems)
                shutil.rmtree(place)
            print(f"{name:22} {seconds:>8.1f} {hit:>6} {missed:>13} {wrong:>7}", flush=True)
            faults, total = faults + wrong, total + hit
    print(f"{total} kills, {faults} faults")
    return faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    sys.exit(min(1, main(args.kills, args.seed, args.only)))
