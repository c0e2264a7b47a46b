"""How long the lists of all users take, and a whole evaluation, side by side with other ways to rank.

    python experiments/benchmarks/ranking.py [--users 6040] [--items 3706] [--dim 128] [--k 20] [--seen 150]
        [--rounds 9] [--only NAME,NAME] [--out FILE.json]

Made-up vectors; every user has seen and is tested on some random items, and nobody is shown what they have seen (but by
the bare products). All take turns in every round, after one that is for warming up; medians, with the least and most.
Without --users and --items these are the sizes of MovieLens-1M. Needs `pip install 'recsys-embed[bench]'` for implicit;
RecBole's full evaluation stands beside it where it is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")  # as the command line has it
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import numpy as np
import polars as pl
import torch

from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.user_items import UserItems
from recsys_embed.data.vocab import Vocab
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.ranker import Ranker
from recsys_embed.retrieval.exact import BLOCK

Run = Callable[[], object]
KS = (5, 10, 20, 50)


class World:
    """Vectors of users and items, and what the users have seen and are tested on, random all."""

    def __init__(self, args: argparse.Namespace) -> None:
        random = np.random.default_rng(0)
        users, items, self.k = args.users, args.items, args.k
        vectors = (random.normal(size=(n, args.dim)).astype(np.float32) for n in (users, items))
        self.model = EmbeddingModel(*vectors, np.zeros(users, np.float32), random.normal(size=items).astype(np.float32))
        drawn = np.unique(np.repeat(np.arange(users), args.seen) * items + random.integers(0, items, users * args.seen))
        tested = random.random(len(drawn)) < 0.2
        vocabs = Vocab(pl.Series(range(users)), "user"), Vocab(pl.Series(range(items)), "item")
        user, item = drawn // items, drawn % items
        ratings = Ratings(*vocabs, user, item, np.ones(len(drawn), np.float32))
        self.train, self.test = ratings.take(~tested), ratings.take(tested)
        self.seen: UserItems = self.train.seen()
        self.users: Rows = np.arange(users)
        self.ranker = Ranker.of(self.model)
        self.step = max(1, BLOCK // items)

    def keys(self) -> np.ndarray:
        """Return the items' vectors with their biases folded in: query @ key is the score."""
        return np.column_stack((self.model.items, np.ones(len(self.model.items), np.float32), self.model.item_bias))

    def product(self, best: Callable[[np.ndarray], object] = lambda table: None) -> Run:
        """Return all users' scores as products of NumPy in blocks, and what is done with each."""
        queries, keys = self.model.queries(self.users), self.keys()

        def run() -> None:
            for start in range(0, len(queries), self.step):
                best(queries[start : start + self.step] @ keys.T)

        return run

    def partition(self, table: np.ndarray) -> None:
        rows = np.argpartition(table, table.shape[1] - self.k, axis=1)[:, -self.k :]
        np.take_along_axis(rows, np.argsort(-np.take_along_axis(table, rows, 1), axis=1), 1)

    def torch(self) -> Run:
        queries, keys = (torch.from_numpy(x) for x in (self.model.queries(self.users), self.keys()))

        def run() -> None:
            for start in range(0, len(queries), self.step):
                torch.topk(queries[start : start + self.step] @ keys.T, self.k)

        return run

    def implicit(self) -> Run:
        """Return implicit's lists of the same vectors: its ALS recommends by the dot product of its factors."""
        from implicit.cpu.als import AlternatingLeastSquares

        model = AlternatingLeastSquares(factors=self.model.dim + 2)
        model.user_factors, model.item_factors = self.model.queries(self.users), self.keys()
        matrix = self.train.matrix()
        return lambda: model.recommend(self.users, matrix, N=self.k, filter_already_liked_items=True)

    def ours(self) -> Run:
        return lambda: list(self.ranker.top_k(self.users, self.k, self.seen))

    def evaluation(self, resamples: int) -> Run:
        counts = self.train.item_counts
        return lambda: rank_metrics(self.ranker, self.test, self.seen, counts, KS, resamples)

    def recbole(self, batch: int) -> Run:
        """Return RecBole's evaluation by full ranking, of its own split of as many ratings and with its metrics.

        batch: scores that it takes at once; 4,096 by default, which is a user.
        """
        for old, kind in (("float_", np.float64), ("complex_", np.complex128), ("unicode_", np.str_)):
            if not hasattr(np, old):  # RecBole 1.2.1 does not know NumPy 2
                setattr(np, old, kind)
        from recbole.config import Config
        from recbole.data import create_dataset, data_preparation
        from recbole.model.general_recommender import BPR
        from recbole.trainer import Trainer

        rows = self.train.concat(self.test)
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # where it leaves its logs
            given = {
                "embedding_size": self.model.dim, "use_gpu": False, "data_path": folder, "checkpoint_dir": folder,
                "load_col": {"inter": ["user_id", "item_id"]}, "show_progress": False, "state": "ERROR",
                "eval_args": {"split": {"RS": [0.8, 0, 0.2]}, "order": "RO", "mode": "full"}, "topk": list(KS),
                "metrics": ["NDCG", "Recall", "Precision", "MAP", "MRR", "Hit"], "eval_batch_size": batch,
            }  # fmt: skip
            (Path(folder) / "all").mkdir()
            pairs = pl.DataFrame({"user_id:token": rows.user, "item_id:token": rows.item})
            pairs.write_csv(Path(folder) / "all" / "all.inter", separator="\t")
            with mock.patch.object(sys, "argv", sys.argv[:1]):
                config = Config(model="BPR", dataset="all", config_dict=given)
            train, _, test = data_preparation(config, create_dataset(config))
            trainer = Trainer(config, BPR(config, train.dataset))
        return lambda: trainer.evaluate(test, load_best_model=False)


def main() -> None:
    parser = argparse.ArgumentParser()
    sizes = ("users", 6040), ("items", 3706), ("dim", 128), ("k", 20), ("seen", 150), ("rounds", 9)
    for name, value in sizes:
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    world = World(args)
    contenders: dict[str, Callable[[], Run]] = {
        "product": world.product,
        "product + argpartition": lambda: world.product(world.partition),
        "product + topk of torch": world.torch,
        "implicit recommend": world.implicit,
        "ours: lists": world.ours,
        "ours: evaluation": lambda: world.evaluation(0),
        "ours: evaluation with intervals": lambda: world.evaluation(1000),
        "RecBole evaluation, batch 4096": lambda: world.recbole(4096),
        "RecBole evaluation, largest batch": lambda: world.recbole(BLOCK),
    }
    missing = [n for n, p in (("implicit", "implicit"), ("RecBole", "recbole")) if not find_spec(p)]
    only = [name for name in args.only.split(",") if name]
    runs = {
        name: make()
        for name, make in contenders.items()
        if (not only or any(o in name for o in only)) and name.split()[0] not in missing
    }
    took: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(args.rounds + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if turn:  # the first is for warming up
                took[name].append(time.perf_counter() - begin)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {args.rounds} rounds")
    print(f"{args.users:,} users x {args.items:,} items, {args.dim} numbers, the best {args.k}, {args.seen} seen")
    print("".join(f"{name} is not installed: not measured\n" for name in missing), end="")
    least = min(float(np.median(found)) for found in took.values())
    for name, found in took.items():
        middle = float(np.median(found))
        spread = f"({1e3 * min(found):.0f} to {1e3 * max(found):.0f})"
        print(f"{name:34} {1e3 * middle:8.0f} ms  {spread:18} {middle / least:6.1f} x the least")
    if args.out:
        args.out.write_text(json.dumps({**vars(args), "out": None, "threads": torch.get_num_threads(), "took": took}))


if __name__ == "__main__":
    main()
