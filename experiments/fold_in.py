"""200 users held out of training, folded in from 80 % of their ratings, against the same users trained; and updates.

    python experiments/fold_in.py movielens 0,1,2,3,4 id history both bpr mse mlp
    python experiments/fold_in.py movielens-1m 0 id --users 1000

Each user's ratings are split at random, 80 to 20. A is trained on the 80 % of everybody, B on those of all but the 200
users drawn, who are then folded in from theirs (likes, or for mse ratings). Both are measured on the other 20 %:
NDCG@10 of all items but the rated ones, or the squared error of the ratings. C is trained on everybody, but for 30 % of
the ratings of the 200, which `Recommender.update` brings in; `C, left` is C without them, `C, replaced` takes a fold-in
of all instead.
No early stopping: all epochs of the settings. A user's values are averaged over the seeds; the ratio to A has a 95 %
interval, paired by user. A fold-in's time is the median of the users.
"""

import argparse
import time
from dataclasses import replace

import numpy as np
import polars as pl

from recsys_embed import DataConfig, ModelConfig, Recommender, TrainConfig, load_dataset
from recsys_embed.answering.profile import UserProfile, with_feedback
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.evaluation.significance import paired
from recsys_embed.models.ranker import Ranker
from recsys_embed.retrieval.exact import ExactIndex

NOTHING = np.zeros(0, np.int64)
KINDS = {
    "id": ({}, {}),
    "dot": ({"cosine": False}, {}),
    "history": ({"user_tower": "history"}, {}),
    "both": ({"user_tower": "both"}, {}),
    "bpr": ({}, {"loss": "bpr"}),
    "mse": ({}, {"loss": "mse"}),
    "adam": ({}, {"loss": "mse", "method": "adam"}),
    "mlp": ({"scorer": "mlp"}, {}),
}


def folded(model, rows, users):
    """Return the model with these users' vectors and biases made of their rows, and the milliseconds of each."""
    vectors, bias, took = model.model.users.copy(), model.model.user_bias.copy(), []
    stars = model.model.output == "stars"
    with_feedback(
        model.state, UserProfile(None), rows.item[:1], NOTHING, {}
    )  # what is made once is no part of the time
    for user in users:
        own = rows.take(rows.user == user)
        said = (NOTHING, NOTHING, dict(zip(own.item.tolist(), own.value.tolist(), strict=True)))
        begin = time.perf_counter()
        person = with_feedback(model.state, UserProfile(None), *(said if stars else (own.item, NOTHING, {})))
        took.append(1000 * (time.perf_counter() - begin))
        vectors[user], bias[user] = person.vector, person.bias
    return replace(model.model, users=vectors, user_bias=bias), took


def values(plain, rows, target):
    """Return user_id and value: NDCG@10, or the mean squared error of a model of stars."""
    if plain.output == "stars":
        error = (plain.predict(target.user, target.item) - target.value) ** 2
        frame = pl.DataFrame({"user_id": target.users.ids(target.user), "value": error})
        return frame.group_by("user_id").agg(pl.col("value").mean())
    ranker = Ranker(ExactIndex.of(plain), plain.queries)
    return rank_metrics(ranker, target, rows.seen(), rows.item_counts, (10,)).per_user.select(
        "user_id", value="ndcg_at_10"
    )


def measured(kind, seed, split, users, update):
    """Yield (what, values, milliseconds) of one split."""
    rows, target = split.train, split.test.take(np.isin(split.test.user, users))
    made = lambda: Recommender(ModelConfig(**KINDS[kind][0]), TrainConfig(**KINDS[kind][1], seed=seed))  # noqa: E731
    of_them = np.isin(rows.user, users)
    yield "A", values(made().fit(rows).model, rows, target), []
    plain, took = folded(made().fit(rows.take(~of_them)), rows, users)
    yield "B", values(plain, rows, target), took
    if update:
        told = of_them & (np.random.default_rng(seed + 99).random(len(rows)) < 0.3)
        model = made().fit(rows.take(~told))
        yield "C, left", values(model.model, rows, target), []
        yield "C, replaced", values(folded(model, rows, users)[0], rows, target), []
        begin = time.perf_counter()
        model.update(rows.take(told))
        yield "C", values(model.model, rows, target), [1000 * (time.perf_counter() - begin) / len(users)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    parser.add_argument("seeds")
    parser.add_argument("kinds", nargs="+", choices=list(KINDS))
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--update", action="store_true", help="C too")
    parser.add_argument("--data-dir")
    asked = parser.parse_args()
    for kind in asked.kinds:
        found, times = [], {}
        for seed in map(int, asked.seeds.split(",")):
            config = DataConfig(
                dataset=asked.dataset, split_seed=seed, valid_share=0.0, test_share=0.2, data_dir=asked.data_dir
            )
            split = load_dataset(asked.dataset, config).split(config)
            users = np.sort(np.random.default_rng(seed).permutation(len(split.train.users))[: asked.users])
            for what, table, took in measured(kind, seed, split, users, asked.update):
                found.append(table.with_columns(what=pl.lit(what)))
                times.setdefault(what, []).extend(took)
        table = pl.concat(found).group_by("what", "user_id").agg(pl.col("value").mean()).sort("what", "user_id")
        of = {what: part["value"].to_numpy() for (what,), part in table.group_by("what", maintain_order=True)}
        for what, ours in of.items():
            d, share = paired(ours, of["A"]), 100 / of["A"].mean()
            said = f"{d.mean * share:+.1f} % ({d.low * share:+.1f} to {d.high * share:+.1f})"
            name = "MSE" if kind in ("mse", "adam") else "NDCG@10"
            ms = f"  {np.median(times[what]):.2f} ms a user" if times[what] else ""
            print(f"{kind:8s} {what:12s} {name} {ours.mean():.4f}  {said}{ms}", flush=True)


if __name__ == "__main__":
    main()
