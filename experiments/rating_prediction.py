"""How well are ratings predicted? Random folds, the test part of each read once, beside Adam's vectors and myFM.

    python experiments/rating_prediction.py movielens                   # five folds of 80/20
    python experiments/rating_prediction.py movielens-1m --data-dir FOLDER     # one split of 90/10
    python experiments/rating_prediction.py movielens --valid dim=8 dim=32      # trials on validation rows

All rows are dealt at random, whoever's they are. With --valid nothing is read of the test folds: a tenth of the rows
that are trained on otherwise is held out, and each trial, settings as NAME=VALUE,NAME=VALUE, is measured there; so the
defaults were chosen. The peer (myFM, a factorization machine by Gibbs sampling, https://github.com/tohtsky/myFM) takes
part where it is installed.
"""

import argparse
import contextlib
import dataclasses
import sys
import time

import numpy as np
import torch

from recsys_embed import DataConfig, ModelConfig, Recommender, TrainConfig, load_dataset
from recsys_embed.evaluation.metrics import mae, rmse

# Name: folds of the data, how many of them are tested. What is compared, with its settings.
PROTOCOLS = {"movielens": (5, 5), "movielens-1m": (10, 1)}
METHODS = {
    "recsys --loss mse": {"loss": "mse"},
    "recsys --loss mse --dim 32 --epochs 200": {"loss": "mse", "dim": 32, "epochs": 200},
    "recsys --loss mse --method adam": {"loss": "mse", "method": "adam"},
}
# myFM: ids alone; users with what they rated, as SVD++; and items with who rated them too.
PEERS = {"myFM ids": (0, 0), "myFM SVD++": (1, 0), "myFM SVD++, both sides": (1, 1)}
PEER_RANK, PEER_SAMPLES = 10, {"movielens": 512, "movielens-1m": 200}
SEED = 0


def ours(train, test, given):
    """Fit on train and return the predictions for test."""
    names = {f.name for f in dataclasses.fields(ModelConfig)}
    model = ModelConfig(**{k: v for k, v in given.items() if k in names})
    config = TrainConfig(**{"seed": SEED, **{k: v for k, v in given.items() if k not in names}})
    return Recommender(model, config).fit(train).model.predict(test.user, test.item)


def peer(train, test, sides, samples):
    """The same by myFM, with or without the history of users and of items."""
    import myfm
    from scipy.sparse import diags, hstack, identity

    seen = train.matrix()
    seen.data[:] = 1
    groups, blocks = [], []
    for matrix, with_history in zip((seen, seen.T.tocsr()), sides, strict=True):
        size, parts = matrix.shape[0], [identity(matrix.shape[0])]
        groups.append(size)
        if with_history:
            groups.append(matrix.shape[1])
            parts.append(diags(np.maximum(1, np.asarray(matrix.sum(1)).ravel()) ** -0.5) @ matrix)
        blocks.append(hstack(parts).tocsr())
    relations = lambda rows: [myfm.RelationBlock(at, block) for at, block in zip((rows.user, rows.item), blocks)]  # noqa: B905, E731
    model = myfm.MyFMRegressor(rank=PEER_RANK, random_seed=SEED)
    kept = samples - samples // 20
    model.fit(None, train.value, X_rel=relations(train), group_shapes=groups, n_iter=samples, n_kept_samples=kept)
    return np.clip(model.predict(None, X_rel=relations(test)), train.value.min(), train.value.max())


def run(name, predict, train, test, found):
    begin = time.perf_counter(), time.process_time()
    predicted = predict(train, test)
    seconds = time.perf_counter() - begin[0], time.process_time() - begin[1]
    line = rmse(predicted, test.value), mae(predicted, test.value), *seconds
    found.setdefault(name, []).append(line)
    print("  RMSE {:.4f}  MAE {:.4f}  {:6.1f} s, {:6.1f} s of processor time".format(*line), name, flush=True)


def settings(text):
    """Return NAME=VALUE,NAME=VALUE as a dict of numbers and words."""

    def value(word):
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                return kind(word)
        return word

    return {name: value(word) for name, word in (part.split("=") for part in text.split(","))}


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("dataset", choices=PROTOCOLS)
    words.add_argument("trials", nargs="*", help="with --valid: settings, dim=32,epochs=200")
    words.add_argument("--valid", action="store_true", help="measure trials on rows held out of the training folds")
    words.add_argument("--folds", type=int, help="test so many folds only")
    words.add_argument("--data-dir")
    given = words.parse_intermixed_args()
    torch.set_num_threads(1)
    ratings = load_dataset(given.dataset, DataConfig(dataset=given.dataset, data_dir=given.data_dir)).ratings
    folds, tested = PROTOCOLS[given.dataset]
    part = np.random.default_rng(SEED).permutation(len(ratings)) % folds
    found = {}
    for fold in range(given.folds or tested):
        train, test = ratings.take(part != fold), ratings.take(part == fold)
        if given.valid:
            held = np.random.default_rng(100 + fold).random(len(train)) < 0.1
            train, test = train.take(~held), train.take(held)
        print(f"fold {fold}: {len(train):,} ratings to train, {len(test):,} to {'validate' if given.valid else 'test'}")
        methods = {text: {"loss": "mse"} | settings(text) for text in given.trials} if given.valid else METHODS
        for name, chosen in methods.items():
            run(name, lambda a, b, s=chosen: ours(a, b, s), train, test, found)
        for name, sides in () if given.valid else PEERS.items():
            try:
                run(name, lambda a, b, s=sides: peer(a, b, s, PEER_SAMPLES[given.dataset]), train, test, found)
            except ImportError:
                print(f"  {name}: not installed (pip install myfm 'setuptools<81')", file=sys.stderr)
    print("means")
    for name, lines in found.items():
        print("  RMSE {:.4f}  MAE {:.4f}  {:6.1f} s, {:6.1f} s of processor time".format(*np.mean(lines, 0)), name)


if __name__ == "__main__":
    main()
