"""Does a user who is the sum of vectors of what they rated pass EASE? A prototype, measured on validation data alone.

    python experiments/history.py DATASET SEEDS TRIAL [TRIAL ...] [-- --data-dir FOLDER]
    python experiments/history.py movielens 0,1,2 "dim=256,decay=6" "dim=128,drop=0.3"

u = drop(x) P / n^power (+ the user's own vector), score = u Q' + b, x the user's ratings as ones: a linear autoencoder
with a bottleneck, as in Mult-DAE (Liang et al., WWW 2018) without hidden layers. A step takes some users with all their
ratings; a rating is compared with the items that the user has not rated (`exclude=1`) or with all others too.
"""

import dataclasses
import math
import sys
import time

import numpy as np
import torch
from torch.nn import functional as F

from recsys_embed import DataConfig, load_dataset
from recsys_embed.evaluation.baselines import choose_ease
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.models.ease import Ease
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.ranker import Ranker
from recsys_embed.training.optim import Group, RowLazyAdam


@dataclasses.dataclass
class Trial:
    dim: int = 128
    epochs: int = 40
    batch: int = 256  # users
    lr: float = 0.01
    drop: float = 0.5  # share of a user's ratings that is left out of their vector in a step
    decay: float = 4.0
    own_decay: float = 8.0
    power: float = 0.5
    balance: float = 0.5
    exclude: int = 1
    own: int = 0  # 1: the user's own vector is added
    scale: float = 0.1
    unseen: int = 0  # users left out of training, and measured by their history alone


def train(x, trial, seed):
    """Fit on x, float [users, items] of ones; return a PlainModel of all users, those of no training too."""
    torch.manual_seed(seed)
    users, items = x.shape
    counts, sizes = x.sum(0), x.sum(1)
    parameter = lambda n, by=1.0: torch.nn.Parameter(by * trial.scale / trial.dim**0.5 * torch.randn(n, trial.dim))  # noqa: E731
    p, q, own = parameter(items), parameter(items), parameter(users, float(trial.own))
    bias = torch.nn.Parameter(torch.log((counts + 1) / (counts + 1).mean()))
    groups = [Group([p, q], trial.decay), Group([bias])] + ([Group([own], trial.own_decay)] if trial.own else [])
    optimizer = RowLazyAdam(groups, trial.lr)

    def vectors(rows, seen):
        summed = (seen / seen.sum(1, keepdim=True).clamp(min=1) ** trial.power) @ p
        return summed + own[rows] if trial.own else summed

    trained = sizes.nonzero().flatten()[trial.unseen :] if trial.unseen else sizes.nonzero().flatten()
    steps, at = trial.epochs * math.ceil(len(trained) / trial.batch), 0
    for _ in range(trial.epochs):
        for rows in trained[torch.randperm(len(trained))].tensor_split(math.ceil(len(trained) / trial.batch)):
            known = x[rows]
            kept = known * (torch.rand_like(known) >= trial.drop) / (1 - trial.drop)
            score = (vectors(rows, kept) @ q.T + bias).masked_fill(counts == 0, -1e9)
            if trial.exclude:
                rest = score.masked_fill(known > 0, -1e9).logsumexp(1, keepdim=True)
                loss = (F.softplus(rest - score) * known).sum(1)
            else:
                loss = -(score.log_softmax(1) * known).sum(1)
            weight = sizes[rows] ** -trial.balance
            optimizer.zero_grad()
            ((loss * weight).sum() / (sizes[rows] * weight).sum()).backward()
            optimizer.lr = trial.lr * 0.5 * (1 + math.cos(math.pi * at / steps))
            optimizer.step()
            at += 1
    optimizer.flush()
    with torch.no_grad():
        both = vectors(torch.arange(users), x), q
    none = np.zeros(users, np.float32)
    return EmbeddingModel(*(v.detach().numpy() for v in both), none, bias.detach().numpy())


def main():
    words = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    folder = sys.argv[sys.argv.index("--data-dir") + 1] if "--data-dir" in sys.argv else None
    name, seeds, *trials = words
    found = {}
    for seed in map(int, seeds.split(",")):
        config = DataConfig(dataset=name, split_seed=seed, data_dir=folder)
        dataset = load_dataset(name, config)
        split = dataset.split(config)
        shared = split.valid, split.train.seen(), split.train.item_counts
        ease = Ease(split.train)
        ranker = ease.fit(choose_ease(ease, split.train, split.valid))
        found.setdefault("EASE", []).append(rank_metrics(ranker, *shared).metrics["ndcg_at_10"])
        x = torch.from_numpy(split.train.matrix().toarray()).float()
        for text in trials:
            given = {k: type(getattr(Trial, k))(v) for k, v in (part.split("=") for part in text.split(",") if part)}
            begin = time.perf_counter()
            model = train(x, Trial(**given), seed)
            report = rank_metrics(Ranker.of(model), *shared)
            found.setdefault(text, []).append(report.metrics["ndcg_at_10"])
            print(f"seed {seed}  {found[text][-1]:.4f} (EASE {found['EASE'][-1]:.4f})  "
                  f"{time.perf_counter() - begin:.0f} s  {text}", flush=True)  # fmt: skip
    for text, values in found.items():
        print(f"{np.mean(values):.4f}  {text}")


if __name__ == "__main__":
    main()
