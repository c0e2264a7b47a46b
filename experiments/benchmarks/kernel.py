"""How many samples a second training takes in, side by side with the compiled libraries.

    python experiments/benchmarks/kernel.py [--users 200000] [--items 50000] [--ratings 2000000] [--dim 64]
        [--batch 131072] [--rounds 5] [--only NAME,NAME] [--out FILE.json]

Uniform made-up ratings. A BPR sample is valid: a negative that the user knows is drawn again (implicit skips it
instead: its count is of all drawn). All begin anew in every round and take turns; medians, with the least and most.
Bytes: what a triple of distinct rows must move in our definition, three rows of weights and two moments, read and
written; the share is of a measured copy. Needs `pip install 'recsys-embed[bench]'` for the peers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

# As the command line sets it: torch's threads, spinning after each small operation, take a core from kernels.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
import torch
from torch.nn import functional as F

from recsys_embed import ModelConfig, Ratings, TrainConfig
from recsys_embed.config.recipes import Size, resolve_settings
from recsys_embed.config.settings import LossName
from recsys_embed.nets.losses import Objective
from recsys_embed.nets.negative_sampling import KnownPositives
from recsys_embed.nets.two_tower import build_two_tower
from recsys_embed.training.autograd_step import AutogradStep
from recsys_embed.training.batches import batch_drawer, columns_of
from recsys_embed.training.trainer import step_for

Pass = Callable[[], int]


class PlainStep(AutogradStep):
    """The step without any kernel, block or gradient of our own: torch's autograd, and Adam row by row in torch."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)  # type: ignore[arg-type]
        self.optimizer.fused = False
        loss = self.objective.loss
        self.objective = Objective(lambda s: loss(s), *self.objective[1:])  # not `softmax` itself: no blocks


def ours(ratings: Ratings, loss: LossName, plain: bool = False, **given: object) -> Pass:
    """Return a pass over a part of an epoch of our training; compiled and warm."""
    model_given = {k: given.pop(k) for k in list(given) if k in ("dim", "cosine")}
    size = Size(len(ratings.users), len(ratings.items), len(ratings))
    configs = resolve_settings(ModelConfig(**model_given), TrainConfig(loss=loss, **given), size)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    model = build_two_tower(configs[0], size.users, size.items)
    kind = PlainStep if plain else step_for(model, configs[1])
    known = KnownPositives(ratings.seen(), size.items, torch.device("cpu"))
    step = kind(model, configs[1], known, torch.from_numpy(ratings.item_counts), generator)
    columns = columns_of(ratings, configs[1], torch.device("cpu"))
    every = batch_drawer(columns, configs[1], generator)
    most = 12 if plain else 10**9  # what is slow is measured on fewer steps

    def epoch() -> int:
        done = 0
        for at, rows in enumerate(every()):
            if at == most:
                break
            step.step_on_rows(columns, rows)
            done += len(rows)
        return done

    return epoch


def sparse_adam(ratings: Ratings, dim: int, batch: int) -> Pass:
    """Return steps of torch.optim.SparseAdam on BPR, as most tutorials have them; known negatives are drawn again."""
    u, v = (torch.nn.Embedding(len(x), dim, sparse=True) for x in (ratings.users, ratings.items))
    optimizer = torch.optim.SparseAdam([u.weight, v.weight], lr=0.01)
    known = KnownPositives(ratings.seen(), len(ratings.items), torch.device("cpu"))
    user, item = torch.tensor(ratings.user), torch.tensor(ratings.item)

    def steps() -> int:
        for _ in range(12):
            rows = torch.randint(len(user), (batch,))
            negative = torch.randint(len(ratings.items), (batch,))
            while (wrong := known.contains(user[rows], negative)).any():
                negative[wrong] = torch.randint(len(ratings.items), (int(wrong.sum()),))
            score = (u(user[rows]) * (v(item[rows]) - v(negative))).sum(1)
            loss = F.softplus(-score).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return 12 * batch

    return steps


def implicit_bpr(ratings: Ratings, dim: int, threads: int) -> Pass:
    """Return one iteration of implicit's BPR (SGD, in place of a batch: every sample moves three rows at once)."""
    from implicit.bpr import BayesianPersonalizedRanking
    from scipy.sparse import csr_matrix

    shape = len(ratings.users), len(ratings.items)
    matrix = csr_matrix((np.ones(len(ratings), np.float32), (ratings.user, ratings.item)), shape)
    model = BayesianPersonalizedRanking(factors=dim - 1, iterations=1, num_threads=threads, random_state=0)

    def iteration() -> int:
        model.fit(matrix, show_progress=False)
        return len(ratings)

    return iteration


def lightfm(ratings: Ratings, dim: int, threads: int, loss: str) -> Pass:
    """Return one epoch of LightFM (Adagrad)."""
    from lightfm import LightFM
    from scipy.sparse import coo_matrix

    shape = len(ratings.users), len(ratings.items)
    matrix = coo_matrix((np.ones(len(ratings), np.float32), (ratings.user, ratings.item)), shape)
    model = LightFM(no_components=dim, loss=loss, random_state=0)

    def epoch() -> int:
        model.fit_partial(matrix, epochs=1, num_threads=threads)
        return len(ratings)

    return epoch


def copied() -> float:
    """Return the bytes a second that a copy of 512 MB reads and writes."""
    a = torch.empty(1 << 27)
    b, best = torch.zeros_like(a), 9e9
    for _ in range(4):
        begin = time.perf_counter()
        a.copy_(b)
        best = min(best, time.perf_counter() - begin)
    return 2 * a.nbytes / best


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("users", 200_000), ("items", 50_000), ("ratings", 2_000_000), ("dim", 64), ("batch", 131_072)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    random = np.random.default_rng(0)
    drawn = np.unique(random.integers(0, args.users * args.items, args.ratings))
    frame = pl.DataFrame({"user": drawn // args.items, "item": drawn % args.items})
    ratings = Ratings.from_frame(frame)
    threads, dim = torch.get_num_threads(), args.dim
    pairs = {"dim": dim, "negatives": 1, "user_decay": 1.0, "item_decay": 1.0}
    a_step = round(args.batch * args.users / len(ratings))
    shared = {"dim": dim, "negatives": 1024, "batch_users": 1024}
    contenders: dict[str, Callable[[], Pass]] = {
        "ours: bpr": lambda: ours(ratings, "bpr", batch_size=args.batch, **pairs),
        "ours: bpr batch 8192": lambda: ours(ratings, "bpr", batch_size=8192, **pairs),
        "ours: bpr, one moment a row": lambda: ours(
            ratings, "bpr", batch_size=args.batch, second_moment="row", **pairs
        ),
        "ours: bpr, users whole in a step": lambda: ours(ratings, "bpr", batch_users=a_step, **pairs),
        "ours: bpr in plain torch": lambda: ours(ratings, "bpr", True, batch_size=args.batch, **pairs),
        "torch SparseAdam: bpr batch 8192": lambda: sparse_adam(ratings, dim, 8192),
        "torch SparseAdam: bpr batch 65536": lambda: sparse_adam(ratings, dim, 65_536),
        "implicit bpr": lambda: implicit_bpr(ratings, dim, threads),
        "lightfm bpr": lambda: lightfm(ratings, dim, threads, "bpr"),
        "lightfm warp": lambda: lightfm(ratings, dim, threads, "warp"),
        "ours: sampled softmax": lambda: ours(ratings, "sampled-softmax", **shared),
        "ours: sampled softmax in plain torch": lambda: ours(ratings, "sampled-softmax", True, **shared),
    }
    only = [name for name in args.only.split(",") if name]
    chosen = {n: make() for n, make in contenders.items() if not only or any(o in n for o in only)}
    rates: dict[str, list[float]] = {name: [] for name in chosen}
    for turn in range(args.rounds + 1):
        for name, run in chosen.items():
            begin = time.perf_counter()
            done = run()
            if turn:  # the first is for warming up
                rates[name].append(done / (time.perf_counter() - begin) / 1e6)
    copy = copied()
    print(f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads; a copy moves {copy / 1e9:.1f} GB/s")
    print(f"{len(ratings.users):,} users x {len(ratings.items):,} items, {len(ratings):,} ratings, {dim} numbers")
    for name, found in rates.items():
        middle = float(np.median(found))
        moved = middle * 1e6 * 3 * 3 * 2 * 4 * dim
        share = f"  {moved / copy:5.0%} of the copy" if name.startswith("ours: bpr") else ""
        print(f"{name:36} {middle:8.3f} million/s  ({min(found):.3f} to {max(found):.3f}){share}")
    if args.out:
        args.out.write_text(json.dumps({"copy": copy, "threads": threads, **vars(args), "out": None, "rates": rates}))


if __name__ == "__main__":
    main()
