"""The published tables of dot-product embeddings, with their splits: Gowalla (LightGCN's), and IR-Benchmark.

    python experiments/published.py NAME --data-dir FOLDER [--seeds 0,1,2] [--trial "k=v,k=v" ...]

NAME: gowalla, movielens-100k, amazon2014-health, amazon2014-electronic. Without --trial the settings below, which were
chosen on validation rows, are fitted and the test rows read, once a seed. With --trial, settings are fitted on nine
tenths of each user's train rows and measured on the rest: the test file is not opened.

Gowalla: fitted on all of train, train masked. IR-Benchmark (PSL, NeurIPS 2024; SL@K, KDD 2025): a tenth of train is
held out for validation, the model is fitted on the other nine tenths, and only those are masked at test, so that
validation items compete. Recall and NDCG at 20 as LightGCN defines them, which are ours.
"""

import argparse
import dataclasses
import gzip
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys_embed import ModelConfig, Ratings, Recommender, TrainConfig
from recsys_embed.data.splits import split_random
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.models.ranker import Ranker

_PURCHASES = {"temperature": 0.25, "bias_decay": 0.5, "balance": 0.0, "dropout": 0.0, "negative_weight": 1.1}
SETTINGS: dict[str, dict[str, Any]] = {
    "gowalla": {
        "loss": "sampled-softmax", "negatives": 512, "batch_size": 2048, "epochs": 40, "lr": 0.01, "init_scale": 0.1,
        "user_decay": 0.0, "item_decay": 0.0, "temperature": 0.08, "negative_weight": 1.22, "balance": 0.0,
        "dropout": 0.1, "biases": False,
    },
    "movielens-100k": {
        "temperature": 0.2, "user_decay": 3.0, "item_decay": 3.0, "balance": 0.25, "dropout": 0.0, "biases": False,
    },
    "amazon2014-health": _PURCHASES,
    "amazon2014-electronic": {**_PURCHASES, "loss": "softmax"},
}  # fmt: skip
MODEL = {f.name for f in dataclasses.fields(ModelConfig)}


def read(folder: Path, name: str, part: str) -> pl.DataFrame:
    if name == "gowalla":
        path = folder / "gowalla" / ("train.txt.gz" if part == "train" else "test.txt")
        lines = (gzip.open(path, "rt") if part == "train" else path.open()).read().splitlines()
        rows = [list(map(int, line.split())) for line in lines if line.strip()]
        user = np.repeat([r[0] for r in rows], [len(r) - 1 for r in rows])
        return pl.DataFrame({"user": user, "item": np.concatenate([r[1:] for r in rows])})
    path = folder / "ir-benchmark" / name / ("train.tsv.gz" if part == "train" else "test.tsv")
    return pl.read_csv(path, separator="\t", new_columns=["user", "item"])


def fit(rows: Ratings, settings: dict[str, Any], seed: int) -> Recommender:
    settings = {"dim": 64, "patience": 0, "seed": seed} | settings
    model = {k: v for k, v in settings.items() if k in MODEL}
    train = {k: v for k, v in settings.items() if k not in MODEL}
    return Recommender(ModelConfig(**model), TrainConfig(**train)).fit(rows)


def quality(model: Recommender, rows: Ratings, masked: Ratings) -> str:
    found = rank_metrics(Ranker.of(model.model), rows, masked.seen(), masked.item_counts, (20,)).metrics
    return f"Recall@20 {found['recall_at_20']:.4f}  NDCG@20 {found['ndcg_at_20']:.4f}"


def value(text: str) -> float | int | str | bool:
    if text in ("yes", "no"):
        return text == "yes"
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=SETTINGS)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--trial", nargs="*", default=[])
    args = parser.parse_args()
    frame = read(args.data_dir, args.name, "train")
    if args.trial:
        train = Ratings.from_frame(frame)
    else:
        both = pl.concat([frame, read(args.data_dir, args.name, "test")])
        known = Ratings.from_frame(both)
        train, test = known.take(np.arange(len(frame))), known.take(np.arange(len(frame), len(both)))
    for seed in map(int, args.seeds.split(",")):
        split = split_random(train, valid=0.1, test=0.0, seed=seed)
        for text in args.trial or [""]:
            begin = time.perf_counter()
            if text:
                given = {k: value(v) for k, v in (pair.split("=") for pair in text.split(","))}
                found = quality(fit(split.train, given, seed), split.valid, split.train)
            else:
                rows = train if args.name == "gowalla" else split.train
                found = quality(fit(rows, SETTINGS[args.name], seed), test, rows)
            print(f"seed {seed}  {found}  {time.perf_counter() - begin:.0f} s  {text}", flush=True)


if __name__ == "__main__":
    main()
