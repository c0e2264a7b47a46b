"""What does it cost not to have been there in training? New users, from their histories, against known ones.

    python experiments/new_users.py DATASET SEEDS MODEL [MODEL ...] [--part test] [--folds N] [--first N] [--closed]
    python experiments/new_users.py movielens 0,1,2 id history both:history_dropout=0.6

The users fall into five parts at random. Model A is trained on everybody; for each part (or the first N of them) model
B is trained without the ratings of that part's users, and recommends to them from the same ratings, as `recommend_for`
does. Both rank all items but those ratings. With `--part test` the ratings are train and validation and the measure
is the test part, else train and validation. No early stopping: all epochs of the settings. A user's values are averaged
over the seeds (each its own split); intervals are over users, paired. EASE stands beside them: it has no users, so that
what it loses is what fewer ratings cost. `--first N`: B is told only so many of a user's ratings, drawn at random;
`--closed`: B goes by the closed form where it has a history table, too.
"""

import argparse
import time
from dataclasses import fields, replace

import numpy as np
import polars as pl

from recsys_embed import DataConfig, ModelConfig, Recommender, TrainConfig, load_dataset
from recsys_embed.evaluation.baselines import choose_ease
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.evaluation.significance import paired
from recsys_embed.models.ease import Ease
from recsys_embed.models.fold_in.base import Feedback
from recsys_embed.models.fold_in.choose import fold_in_for
from recsys_embed.models.ranker import Ranker
from recsys_embed.retrieval.exact import ExactIndex

PARTS = 5


def model_of(text, seed):
    """Make "both:dim=512,user_decay=4" a Recommender."""
    tower, _, rest = text.partition(":")
    given = {"user_tower": tower, "seed": seed} | dict(pair.split("=") for pair in rest.split(",") if pair)
    made = []
    for config in (ModelConfig, TrainConfig):
        own = {f.name: given.pop(f.name) for f in fields(config) if f.name in given}
        numbers = {k: v if k == "user_tower" else float(v) for k, v in own.items()}
        made.append(config(**{k: int(v) if isinstance(v, float) and v == int(v) else v for k, v in numbers.items()}))
    assert not given, given
    return Recommender(*made)


def newcomers(model, rows, users, first, closed):
    """Rank for users whom the model does not know, from their rows; also return the milliseconds a vector takes."""
    plain = replace(model.model, history_vectors=None) if closed else model.model
    fold_in, seen = fold_in_for(plain, model.item_counts, model.seen), rows.seen()
    told = {u: np.random.default_rng(u).permutation(seen[u])[:first] for u in users.tolist()}
    begin = time.perf_counter()
    made = {u: fold_in.fit_user(Feedback.from_likes(np.sort(items)))[0] for u, items in told.items()}
    took = 1000 * (time.perf_counter() - begin) / len(made)
    return Ranker(
        ExactIndex.of(plain), lambda rows: plain.queries_from_vectors(np.stack([made[u] for u in rows.tolist()]))
    ), took


def ndcg(ranker, users, rows, target):
    """Return user_id and value, NDCG@10 of some users' lists."""
    report = rank_metrics(ranker, target.take(np.isin(target.user, users)), rows.seen(), rows.item_counts, (10,))
    return report.per_user.select("user_id", value="ndcg_at_10")


def ease(fitted, rows, regularization):
    """Rank by EASE of some ratings for the histories of others."""
    matrix = rows.matrix()
    return Ranker(Ease(fitted).fit(regularization).index, lambda users: matrix[users])


def measured(config, seed, asked):
    """Yield (model and A or B, values of users) of one split."""
    split = load_dataset(asked.dataset, config).split(config)
    parts = split.train, split.valid
    regularization = choose_ease(Ease(split.train), *parts)
    if asked.part == "test":
        parts = split.train.concat(split.valid), split.test
    rows = parts[0]
    drawn = np.random.default_rng(seed).permutation(len(rows.users))
    folds = [np.sort(drawn[at::PARTS]) for at in range(asked.folds)]
    without = [rows.take(~np.isin(rows.user, users)) for users in folds]
    everybody = np.concatenate(folds)
    yield "EASE A", ndcg(ease(rows, rows, regularization), everybody, *parts)
    for users, others in zip(folds, without, strict=True):
        yield "EASE B", ndcg(ease(others, rows, regularization), users, *parts)
    for text in asked.models:
        begin, took = time.perf_counter(), []
        yield f"{text} A", ndcg(Ranker.of(model_of(text, seed).fit(rows).model), everybody, *parts)
        for users, others in zip(folds, without, strict=True):
            ranker, ms = newcomers(model_of(text, seed).fit(others), rows, users, asked.first, asked.closed)
            yield f"{text} B", ndcg(ranker, users, *parts)
            took.append(ms)
        seconds = time.perf_counter() - begin
        print(f"seed {seed}  {text}  {seconds:.0f} s; a vector {np.mean(took):.2f} ms", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    parser.add_argument("seeds")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--part", choices=["valid", "test"], default="valid")
    parser.add_argument("--folds", type=int, default=PARTS)
    parser.add_argument("--first", type=int)
    parser.add_argument("--closed", action="store_true")
    parser.add_argument("--data-dir")
    asked = parser.parse_args()
    found = []
    for seed in map(int, asked.seeds.split(",")):
        config = DataConfig(dataset=asked.dataset, split_seed=seed, data_dir=asked.data_dir)
        found += [values.with_columns(name=pl.lit(name)) for name, values in measured(config, seed, asked)]
        report(pl.concat(found), asked)


def report(found, asked):
    """Print what the splits so far came to."""
    table = found.group_by("name", "user_id").agg(pl.col("value").mean()).sort("name", "user_id")
    of = {name: part["value"].to_numpy() for (name,), part in table.group_by("name", maintain_order=True)}
    print(f"{len(of['EASE A'])} users; NDCG@10 on {asked.part}: known, new, the difference in % of known (95 %), p")
    pairs = [(name, name) for name in ("EASE", *asked.models)]
    if "id" in asked.models:
        pairs += [(name, "id") for name in asked.models if name != "id"]
    for new, known in pairs:
        ours, theirs = of[f"{new} B"], of[f"{known} A"]
        d, share = paired(ours, theirs), 100 / theirs.mean()
        loss = f"{d.mean * share:+.1f} ({d.low * share:+.1f} to {d.high * share:+.1f})"
        print(f"{theirs.mean():.4f}  {ours.mean():.4f}  {loss}  p {d.p:.4f}  {new}", end="")
        print("" if new == known else f" against {known}", flush=True)


if __name__ == "__main__":
    main()
