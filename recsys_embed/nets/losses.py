"""Losses of a step's scores, and what the score of a model trained with each loss means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys_embed.models.base import OutputKind


class Scores(NamedTuple):
    """The input of a loss, for B ratings.

    pos [B]: the score of each rating's pair. neg [R, K]: the scores of negatives; those of rating b are in row `row[b]`
    (where negatives are shared, all ratings of a user share a row). A negative that is a known positive of the user
    scores -1e9. Drawn negatives are corrected by their probability of being drawn, so that exp(neg).sum(1) estimates
    the sum over all items that are not known positives. value [B]: the ratings. weight [B]: 1 on average.
    """

    pos: Tensor
    neg: Tensor
    row: Tensor
    value: Tensor
    weight: Tensor


def take(table: Tensor, rows: Tensor) -> Tensor:
    """Return table[rows] of a table [R] or [R, d]; on CPU its gradient is summed in one fixed order.

    (Indexing sums with atomics on several threads, so two runs would differ in their last bits.)
    """
    return F.embedding(rows, table) if table.ndim == 2 else F.embedding(rows, table[:, None]).squeeze(1)


def softmax(s: Scores) -> Tensor:
    """Return the mean of -log of the softmax probability of the positive among itself and its negatives.

    -log( exp(pos) / (exp(pos) + sum_k exp(neg_k)) ), where a user's other positives are not negatives.
    """
    log_z = take(torch.logsumexp(s.neg, dim=1), s.row)
    return (s.weight * F.softplus(log_z - s.pos)).mean()


def bpr(s: Scores) -> Tensor:
    """Return the mean of -log sigmoid(pos - neg) over all negatives (Rendle et al., BPR, UAI 2009, section 4.1)."""
    return (s.weight * F.softplus(take(s.neg, s.row) - s.pos[:, None]).mean(1)).mean()


def logistic(s: Scores) -> Tensor:
    """Return the binary cross-entropy of a positive, labelled 1, and its negatives, 0 (He et al., WWW 2017, eq. 7).

    The negatives together weigh four times the positive, as four of them would; more of them only reduce noise.
    """
    return (s.weight * (F.softplus(-s.pos) + 4 * take(F.softplus(s.neg).mean(1), s.row))).mean()


def mse(s: Scores) -> Tensor:
    """Return the mean squared error of the ratings."""
    return (s.weight * (s.pos - s.value) ** 2).mean()


class Objective(NamedTuple):
    """A loss, the meaning of its score, and the negatives it needs.

    negatives: "none"; "each": K for every rating; "shared": K shared by all ratings of a step; "all": every item.
    """

    loss: Callable[[Scores], Tensor]
    output: OutputKind
    negatives: Literal["none", "each", "shared", "all"]


LOSSES: dict[str, Objective] = {
    "softmax": Objective(softmax, "score", "all"),
    "sampled-softmax": Objective(softmax, "score", "shared"),
    "bpr": Objective(bpr, "score", "each"),
    "logistic": Objective(logistic, "chance", "each"),
    "mse": Objective(mse, "stars", "none"),
}
