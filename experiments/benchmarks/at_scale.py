"""What a training on several ranks takes: formulas, measurements beside them, and what they say of a very large one.

    python experiments/benchmarks/at_scale.py measure [--ranks 2] [--dim 64] [--users 400000] …
    python experiments/benchmarks/at_scale.py table

`measure` trains on made-up ratings, and prints the memory of a rank, the bytes that it sends, and the seconds of an
epoch beside the formulas. Of the machine it measures first how fast a rank computes with its share of the cores, how
long an exchange of messages takes, and how many bytes a second go over it. `table` works the formulas out for 1 billion
users, 100 million items and 1 trillion ratings.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

GB, TB = 1e9, 1e12
# Exchanges of a step: two tables and their biases, each of sizes, lengths, rows, vectors and gradients.
MESSAGES = 4 * 5


@dataclass(frozen=True)
class Job:
    """What is trained. ratings: of the training part. users_a_step, rows_a_step: that a rank asks for in a step (rows
    of items: positives and negatives). steps: of an epoch."""

    users: int
    items: int
    ratings: int
    dim: int
    ranks: int
    users_a_step: float
    rows_a_step: float
    steps: int


def table_bytes(job: Job) -> float:
    """Bytes of tables and moments on a rank, row-wise: weights, two moments, and 12 bytes of steps and decay a row."""
    return (job.users + job.items) * (12 * (job.dim + 1) + 24) / job.ranks


def rating_bytes(job: Job) -> float:
    """Bytes of ratings on a rank: user, item, value, weight, and the item once more among what the user knows."""
    return job.ratings * 32 / job.ranks


def step_bytes(job: Job) -> float:
    """Bytes of a step on a rank: vectors and gradients on their way, about 25 copies, and 50 MB; as was measured."""
    return 5e7 + 100 * (job.users_a_step + job.rows_a_step) * job.dim


def leader_bytes(job: Job) -> float:
    """Bytes of whole tables on rank 0: the net that is measured, and the best one."""
    return 2 * (job.users + job.items) * (job.dim + 1) * 4


def sent_bytes(job: Job) -> float:
    """Bytes that a rank sends in a step, row-wise: ids and lengths for the table and the biases of items, vectors there
    and gradients back. The rows of users are on the rank that has their ratings, but for a few at its ends."""
    width = 4 * (-(-job.dim // 4) * 4 + 4)
    return job.rows_a_step * (2 * 16 + 2 * width) * (job.ranks - 1) / job.ranks


def epoch_seconds(job: Job, step_seconds: float, bandwidth: float, latency: float) -> float:
    """Seconds of an epoch: computing, then waiting for MESSAGES exchanges. bandwidth: bytes a second of a rank."""
    waiting = (MESSAGES * latency + sent_bytes(job) / bandwidth) if job.ranks > 1 else 0.0
    return job.steps * (step_seconds + waiting)


# --- measured ---------------------------------------------------------------------------------------------------------


class Watch(threading.Thread):
    """The most memory of processes, in bytes, without pages of files, and what they had when it began."""

    def __init__(self, pids: list[int]) -> None:
        super().__init__(daemon=True)
        self.pids, self.before = pids, [self._now(pid) for pid in pids]
        self.most, self.ended = list(self.before), False
        self.start()

    @staticmethod
    def _now(pid: int) -> int:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024

    def run(self) -> None:
        """Look every 50 ms."""
        while not self.ended:
            self.most = [max(most, self._now(pid)) for most, pid in zip(self.most, self.pids, strict=True)]
            time.sleep(0.05)


def loopback_bytes() -> int:
    """Bytes that went over the loopback device so far."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[0])


def ratings(users: int, items: int, count: int) -> Any:
    """Made-up ratings, whose items are as popular as their rank says."""
    from recsys_embed.data.ratings import Ratings

    random = np.random.default_rng(0)
    popularity = np.cumsum((1.0 + random.permutation(items)) ** -0.7)
    user = np.concatenate((np.arange(users), random.integers(0, users, count - users)))
    item = np.searchsorted(popularity, random.random(count) * popularity[-1])
    frame = pl.DataFrame({"user": user, "item": np.minimum(item, items - 1)}).unique(maintain_order=True)
    return Ratings.from_frame(frame.with_columns(rating=pl.lit(1.0)))


def exchange(rank: int, size: int, port: int, out: Any) -> None:
    """Measure how long an exchange of nothing takes between processes that compute, and one of 8 MB, in a process."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=rank == 0, wait_for_workers=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    square = torch.ones(700, 700)

    def seconds(numbers: int, computing: bool) -> float:
        """Of a turn. numbers: how many floats each rank sends to each; 0 for no exchange."""
        there, back = torch.zeros(size * numbers), torch.zeros(size * numbers)
        for turn in range(110):
            if turn == 10:
                dist.barrier()
                start = time.perf_counter()
            if computing:
                square @ square
            if numbers:
                dist.all_to_all_single(back, there)
        dist.barrier()
        return (time.perf_counter() - start) / 100

    latency = float(np.median([seconds(1, True) - seconds(0, True) for _ in range(5)]))
    bandwidth = 8e6 * (size - 1) / (seconds(2_000_000, False) - seconds(1, False))
    if rank == 0:
        out.send((latency, bandwidth))
    dist.barrier()


def machine(ranks: int) -> tuple[float, float]:
    """Return the seconds of an empty exchange, and the bytes a second that each of the ranks sends."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    processes = [context.Process(target=exchange, args=(n, ranks, port, there)) for n in range(ranks)]
    for process in processes:
        process.start()
    found: tuple[float, float] = here.recv()
    for process in processes:
        process.join()
    return found


def run(ranks: int, args: argparse.Namespace, batch_users: int, threads: int) -> tuple[Job, dict[str, Any]]:
    """Train for two epochs, of which the second counts; return the job and what it took."""
    data = ratings(args.users, args.items, args.ratings)
    from recsys_embed.config.recipes import Size, resolve_settings
    from recsys_embed.config.settings import ModelConfig, TrainConfig
    from recsys_embed.distributed import engine, member
    from recsys_embed.distributed.ranks import joined
    from recsys_embed.nets.two_tower import build_two_tower
    from recsys_embed.tracking.tracker import Tracker
    from recsys_embed.training.snapshot import LoopState

    given = TrainConfig(
        loss="sampled-softmax", epochs=2, batch_users=batch_users, negatives=args.negatives, device="cpu",
        threads=threads, dropout=0.0, engine="torchrec", sharding="row-wise",
    )  # fmt: skip
    model, train = resolve_settings(
        ModelConfig("embeddings", dim=args.dim), given, Size(len(data.users), len(data.items), len(data))
    )
    asked = {"users": 0, "items": 0}
    forward = member.ShardedTower.forward

    def counting(self: Any, rows: Any) -> Any:
        asked["users" if self.table.rows == len(data.users) else "items"] += len(rows)
        return forward(self, rows)

    ends: list[float] = []
    update = member._RankStep.__call__

    def timed(self: Any, batch: Any) -> Any:
        loss = update(self, batch)
        ends.append(time.perf_counter())
        return loss

    member.ShardedTower.forward, member._RankStep.__call__ = counting, timed  # type: ignore[method-assign]

    def start_training(of: Any) -> Any:
        sizes, history = (len(of.users), len(of.items)), (of.seen(), 0.5)
        return engine.ShardedEngine(model, build_two_tower(model, *sizes, 0, history=history), of, train)

    with joined(ranks) as here:
        curve = (train.lr or 0.01, 2, 2)
        few = start_training(ratings(2000, 1000, 20_000))  # loads what is loaded once
        few.train_epoch(LoopState(), curve, Tracker(), None)
        watch = Watch([worker.pid for worker in here.workers])
        one = start_training(data)
        one.train_epoch(LoopState(), curve, Tracker(), None)
        asked.update(users=0, items=0)
        ends.clear()
        before, start = loopback_bytes(), time.perf_counter()
        one.train_epoch(LoopState(), curve, Tracker(), None)
        seconds, sent = time.perf_counter() - start, loopback_bytes() - before
        watch.ended = True
        memory = max((most - before for most, before in zip(watch.most, watch.before, strict=True)), default=0)
        steps = one.member.steps
    member.ShardedTower.forward, member._RankStep.__call__ = forward, update  # type: ignore[method-assign]
    sizes, rows = (len(data.users), len(data.items), len(data)), (asked["users"] / steps, asked["items"] / steps)
    job = Job(*sizes, args.dim, ranks, *rows, steps)
    return job, {"memory": memory, "sent": sent / steps / ranks, "seconds": seconds, "steps": np.diff(ends)}


def measure(args: argparse.Namespace) -> None:
    """Print what formulas say beside what is measured."""
    cores = max(1, (os.cpu_count() or 1) // args.ranks)
    latency, bandwidth = machine(args.ranks)
    print(f"an exchange takes {latency * 1e6:.0f} us; {bandwidth / 1e6:,.0f} MB/s of each rank")
    with ProcessPoolExecutor(args.ranks, multiprocessing.get_context("spawn")) as pool:
        runs = [pool.submit(run, 1, args, args.batch_users // args.ranks, cores) for _ in range(args.ranks)]
        found = [one.result()[1]["steps"] for one in runs]
    # Every step lasts as long as that of the slowest rank.
    step_seconds = float(np.max([one[: min(map(len, found))] for one in found], axis=0).mean())
    each = ", ".join(f"{1000 * one.mean():.1f}" for one in found)
    print(
        f"{args.ranks} ranks by themselves, {cores} threads each: {each} ms a step; slowest {step_seconds * 1000:.1f}"
    )
    job, took = run(args.ranks, args, args.batch_users, cores)
    print(f"{job}")
    for what, formula, measured, unit in (
        ("memory of a rank, MB", table_bytes(job) + rating_bytes(job) + step_bytes(job), took["memory"], 1e6),
        ("sent by a rank in a step, MB", sent_bytes(job), took["sent"], 1e6),
        ("seconds of an epoch", epoch_seconds(job, step_seconds, bandwidth, latency), took["seconds"], 1),
    ):
        values = f"formula {formula / unit:10,.2f}   measured {measured / unit:10,.2f}"
        print(f"{what:30} {values}   {formula / measured - 1:+.0%}")


# --- worked out -------------------------------------------------------------------------------------------------------

# Devices of 80 GB, of which some is for other things, with 3.35 TB/s of memory, half of it reached, and 50 GB/s of
# network each; an exchange among hundreds takes .2 ms. Rank 0 reads a million ratings a second (docs/scale.md).
DEVICE, MEMORY_RATE, NETWORK_RATE, EXCHANGE, READING = 72 * GB, 1.7 * TB, 50 * GB, 2e-4, 1e6
USERS, ITEMS, RATINGS, DIM, USERS_A_STEP, NEGATIVES = 10**9, 10**8, 10**12, 64, 512, 4096


def table() -> None:
    """Print the formulas for a very large training."""
    per_step = USERS_A_STEP * RATINGS // USERS + NEGATIVES
    print(f"{USERS:,} users, {ITEMS:,} items, {RATINGS:,} ratings, d = {DIM}; {USERS_A_STEP} users a rank and step")
    heads = ("ranks", "tables GB", "ratings GB", "step GB", "fits", "sent MB", "update ms", "network ms", "pass min")
    print(" ".join(f"{head:>10}" for head in heads))
    for ranks in (16, 64, 256, 512, 1024):
        steps = -(-USERS // (USERS_A_STEP * ranks))
        job = Job(USERS, ITEMS, RATINGS, DIM, ranks, USERS_A_STEP, per_step, steps)
        parts = table_bytes(job), rating_bytes(job), step_bytes(job)
        # A row and its moments are read and written, and its gradient is written and read.
        update = (job.users_a_step + job.rows_a_step) * (DIM + 1) * 4 * 8 / MEMORY_RATE
        seconds = epoch_seconds(job, update, NETWORK_RATE, EXCHANGE)
        network = seconds / steps - update
        cells = [f"{ranks:,}", *(f"{part / GB:,.1f}" for part in parts), "yes" if sum(parts) <= DEVICE else "no"]
        cells += [
            f"{sent_bytes(job) / 1e6:,.0f}",
            f"{update * 1e3:.2f}",
            f"{network * 1e3:.1f}",
            f"{seconds / 60:,.1f}",
        ]
        print(" ".join(f"{cell:>10}" for cell in cells))
    print(f"rank 0: whole tables {leader_bytes(job) / GB:,.0f} GB; reading {RATINGS / READING / 86400:.1f} days")
    print(f"a checkpoint: {table_bytes(job) * job.ranks / GB:,.0f} GB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    for name, default in {
        "ranks": 2, "dim": 64, "users": 400_000, "items": 100_000, "ratings": 4_000_000, "batch-users": 8192,
        "negatives": 1024,
    }.items():  # fmt: skip
        measuring.add_argument(f"--{name}", type=int, default=default)
    commands.add_parser("table")
    args = parser.parse_args()
    if args.command == "measure":
        measure(args)
    else:
        table()
