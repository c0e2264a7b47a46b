"""Going on from a model that knows the first nine tenths of the ratings, against training on all of them from nothing.

    python experiments/continued.py DATASET SEEDS [--grid] [--loss L] [--user-tower T] [--scorer S]
    python experiments/continued.py movielens-1m 0

Of the training part of a random split the first 90 % by time train the model that is there; it does not know the users
who came later. (Of data without times: random ones, without a twentieth of the users.) Then all of it is trained on:
from nothing, with the settings of the recipe, and going on from that model, with `Recommender.configs` or, with
`--grid`, with other shares of the epochs and of the learning rate. Measured are validation NDCG@10 (or RMSE) after the
last epoch, without early stopping, and the seconds of the fit.
"""

import argparse
import time
from dataclasses import replace

import numpy as np
import polars as pl

from recsys_embed import DataConfig, ModelConfig, Recommender, TrainConfig, load_dataset
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.evaluation.metrics import rmse
from recsys_embed.models.ranker import Ranker


def parts(split):
    """Return the first nine tenths of the training ratings, without the users who have none of them."""
    rows = split.train
    random = np.random.default_rng(0)
    drawn = np.where(random.random(len(rows.users))[rows.user] < 0.05, 2.0, random.random(len(rows)))
    first = rows.take(
        np.sort(np.argsort(drawn if rows.time is None else rows.time, kind="stable")[: round(0.9 * len(rows))])
    )
    return type(rows).from_frame(first.frame())


def quality(model, split):
    """Return validation NDCG@10, or RMSE for a model of stars."""
    valid = split.valid
    if model.model.output == "stars":
        return rmse(model.model.predict(valid.user, valid.item), valid.value)
    seen = split.train.seen()
    return rank_metrics(Ranker.of(model.model), valid, seen, split.train.item_counts, (10,)).metrics["ndcg_at_10"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    parser.add_argument("seeds")
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--loss")
    parser.add_argument("--user-tower")
    parser.add_argument("--scorer", default="dot")
    parser.add_argument("--data-dir")
    asked = parser.parse_args()
    found = []
    for seed in map(int, asked.seeds.split(",")):
        config = DataConfig(dataset=asked.dataset, split_seed=seed, data_dir=asked.data_dir)
        split = load_dataset(asked.dataset, config).split(config)
        own = ModelConfig(user_tower=asked.user_tower, scorer=asked.scorer), TrainConfig(loss=asked.loss, seed=seed)

        def measured(name, configs, start=None, seed=seed, split=split):
            begin = time.perf_counter()
            model = Recommender(*configs).fit(split.train, warm_start=start)
            took = time.perf_counter() - begin
            found.append({"what": name, "seed": seed, "value": quality(model, split), "seconds": took})
            print(found[-1], flush=True)

        measured("from nothing", own)
        start = Recommender(*own).fit(parts(split))
        full = start.metadata["settings"]
        measured("going on", start.warm_start_configs(seed=seed), start)
        for e in (0.1, 0.25) if asked.grid else ():
            short = max(1, round(e * full["epochs"]))
            measured(f"from nothing, epochs x {e}", (own[0], replace(own[1], epochs=short)))
            for lr in (0.03, 0.1, 0.25):
                given = {"epochs": short, "lr": lr * full["lr"], "seed": seed}
                measured(f"going on, epochs x {e}, lr x {lr}", start.warm_start_configs(**given), start)
    table = pl.DataFrame(found).group_by("what", maintain_order=True).agg(pl.col("value", "seconds").mean())
    for what, value, seconds in table.rows():
        print(f"{value:.4f}  {seconds:6.1f} s  {what}")


if __name__ == "__main__":
    main()
