"""One answer among a million items: exact and approximate side by side, with filters, and an MLP in two stages.

    python experiments/benchmarks/million.py [--items 1000000] [--dim 64] [--users 2000] [--seconds 2]
        [--model FOLDER] [--out FILE.json]

Two kinds of vectors: tight groups of items of very different lengths, and, with --model, the items of a trained model,
each drawn again with noise of half their spread. Every user has 200 items that are not shown. The approximate index is
built as `Recommender.use_index` does, on other users than those that are timed; it needs
`pip install 'recsys-embed[ann]'`. NumPy's BLAS and faiss take a thread a core, unless OPENBLAS_NUM_THREADS and
OMP_NUM_THREADS say otherwise; one answer of faiss takes one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")  # as the command line has it
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import numpy as np

from recsys_embed.data.user_items import UserItems
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.recommender import Recommender
from recsys_embed.retrieval.approximate import ApproximateIndex
from recsys_embed.retrieval.base import Index
from recsys_embed.retrieval.exact import ExactIndex

PARSER = argparse.ArgumentParser()
for option, value in (("items", 1_000_000), ("dim", 64), ("users", 2000), ("seconds", 2)):
    PARSER.add_argument(f"--{option}", type=int, default=value)
PARSER.add_argument("--model")
PARSER.add_argument("--out", type=Path)
ARGS = PARSER.parse_args()

K, SEEN, SAMPLE, TIMED, BATCH = 10, 200, 300, 100, 256
SHARES = (None, 0.8, 0.2, 0.01)


def grouped(random: np.random.Generator) -> EmbeddingModel:
    """Return items in 2,000 groups of all sizes, of lengths from 1 to 6, and users who like some of the groups."""
    spread = np.arange(1, ARGS.dim + 1) ** -0.5
    centres = random.normal(size=(2000, ARGS.dim)) * spread
    chance = np.arange(1, 2001) ** -0.8
    chance /= chance.sum()
    items = centres[random.choice(2000, ARGS.items, p=chance)]
    items += 0.6 * random.normal(size=items.shape) * spread
    items *= np.exp(0.3 * random.normal(size=(ARGS.items, 1)))
    liked = centres[random.choice(2000, (ARGS.users, 3), p=chance)].mean(axis=1)
    users = 1.5 * (liked + 0.3 * random.normal(size=liked.shape) * spread)
    return _plain(users, items, 0.7 * random.normal(size=ARGS.items))


def enlarged(random: np.random.Generator, folder: str) -> EmbeddingModel:
    """Return a trained model's users and as many items as wanted, drawn from its own, with noise."""
    plain = Recommender.load(folder).model
    items, users = plain.items, plain.users
    if plain.dim > ARGS.dim and not plain.layers:  # the directions that tell items apart most
        turn = np.linalg.svd(items, full_matrices=False)[2][: ARGS.dim].T
        items, users = items @ turn, users @ turn
    drawn = random.integers(0, len(items), ARGS.items)
    noise = 0.5 * random.normal(size=(ARGS.items, items.shape[1])).astype(np.float32)
    bias = plain.item_bias[drawn] + 0.5 * plain.item_bias.std() * random.normal(size=ARGS.items)
    return replace(_plain(users, items[drawn] + noise * items.std(axis=0), bias), layers=plain.layers)


def with_layers(plain: EmbeddingModel, random: np.random.Generator) -> EmbeddingModel:
    """Return the same with the scorer of an MLP: layers 64, 32, 1 of random weights."""
    sizes = (64, 2 * plain.dim), (32, 64), (1, 32)
    layers = [(random.normal(size=s) * (2 / s[1]) ** 0.5, np.zeros(s[0])) for s in sizes]
    return replace(plain, layers=[(w.astype(np.float32), b.astype(np.float32)) for w, b in layers])


def _plain(*arrays: np.ndarray) -> EmbeddingModel:
    users, items, bias = (a.astype(np.float32) for a in arrays)
    return EmbeddingModel(users, items, np.zeros(len(users), np.float32), bias)


def took(index: Index, plain: EmbeddingModel, seen: UserItems, users: np.ndarray, allowed: Any) -> dict[str, float]:
    """Return milliseconds of one answer, p50 and p99, and of one in a batch."""
    one: list[float] = []
    end = time.perf_counter() + ARGS.seconds
    for at, user in enumerate(np.resize(users, 2000)):
        begin = time.perf_counter()
        if begin > end and at >= 10:
            break
        asked = np.array([user])
        index.search(plain.queries(asked), K, allowed, seen.pairs_of(asked))
        one.append(time.perf_counter() - begin)
    many = users[: BATCH if np.median(one) < 0.1 else 16]
    begin = time.perf_counter()
    index.search(plain.queries(many), K, allowed, seen.pairs_of(many))
    batch = (time.perf_counter() - begin) / len(many)
    p50, p99 = np.percentile(one, (50, 99)).tolist()
    return {"p50_ms": 1e3 * p50, "p99_ms": 1e3 * p99, "batch_ms": 1e3 * batch, "answers": len(one)}


def compared(plain: EmbeddingModel) -> Iterator[dict[str, Any]]:
    random = np.random.default_rng(1)
    users, n = len(plain.users), len(plain.items)
    seen = UserItems.of(np.repeat(np.arange(users), SEEN), random.integers(0, n, users * SEEN), users)
    order = random.permutation(users)
    sample, timed = order[:SAMPLE], order[SAMPLE:]
    begin = time.perf_counter()
    approximate = ApproximateIndex.of(plain, plain.queries(sample), seen.pairs_of(sample))
    built = {"build_s": time.perf_counter() - begin, "memory_mb": approximate.candidates.nbytes >> 20}
    for share in SHARES:
        allowed = None if share is None else random.random(n) < share
        few = timed[: TIMED if not plain.layers else 20]
        recall = approximate.recall(plain.queries(few), K, allowed, seen.pairs_of(few))
        for name, index, more in (
            ("exact", ExactIndex.of(plain), {"build_s": 0.0, "memory_mb": 0, "recall": 1.0}),
            ("approximate", approximate, {**built, "recall": recall}),
        ):
            yield {"index": name, "filter": share or 1.0, **took(index, plain, seen, timed, allowed), **more}


def main() -> None:
    random = np.random.default_rng(0)
    first = grouped(random)
    worlds = {"groups, dot": first, "groups, MLP": with_layers(first, random)}
    if ARGS.model:
        worlds = {"trained, dot": enlarged(random, ARGS.model), **worlds}
        if worlds["trained, dot"].layers:
            worlds = {"trained, MLP": worlds.pop("trained, dot")}
    threads = {name: os.environ.get(name) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
    print(f"{platform.machine()}, {os.cpu_count()} cores, {threads}; the load was {os.getloadavg()[0]:.1f}")
    print(f"{ARGS.items:,} items x {ARGS.dim}, the best {K} without {SEEN} of each user; milliseconds an answer")
    print("items         index        filter     p50     p99  in a batch  recall@10  build s  memory MB")
    lines = []
    for world, plain in worlds.items():
        for line in compared(plain):
            lines.append({"items": world, **line})
            print(
                f"{world:13} {line['index']:12} {line['filter']:6.0%} {line['p50_ms']:7.2f} {line['p99_ms']:7.2f} "
                f"{line['batch_ms']:11.2f} {line['recall']:10.4f} {line['build_s']:8.1f} {line['memory_mb']:10,}",
                flush=True,
            )
    if ARGS.out:
        facts = {"items": ARGS.items, "dim": ARGS.dim, **threads, "cores": os.cpu_count()}
        ARGS.out.write_text(json.dumps({**facts, "lines": lines}, indent=1))


if __name__ == "__main__":
    main()
