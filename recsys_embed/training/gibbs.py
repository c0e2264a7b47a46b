"""fit_gibbs(): vectors that predict ratings, as the mean of many samples of what they may be."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys_embed.config.settings import TrainConfig
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.tracking.tracker import Tracker
from recsys_embed.training.interface import TrainingResult, Validate
from recsys_embed.training.trainer import choose_device

log = logging.getLogger("recsys_embed")

# All of this was chosen on validation ratings (experiments/LOG.md), where nothing of it matters much.
_BURN_IN = 0.2  # share of the sweeps before the first one that counts
_START = 0.1  # deviation of the first vectors' numbers
_HISTORY = 100  # principal directions of who rated what
_NOISE = 5.0  # shape of the gamma distribution of how reliable a user, or an item, is
_PADDED = 0.75  # rows of a block have at least this share of the ratings of its first row
_NUMBERS = 1_000_000  # numbers that a block holds of the other side's vectors
_SPARE = 4  # the mean is held this much wider than what is kept of it


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: of many small products and roots two make ten times the work, waiting for each other.

    (1.7 against 17 s of processor time for 40 epochs of ML-100K beside other programs.)
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def fit_gibbs(
    ratings: Ratings,
    dim: int,
    config: TrainConfig,
    tracker: Tracker | None = None,
    validate: Validate | None = None,
    epochs: int | None = None,
) -> TrainingResult:
    """Sample the posterior of a factorisation of the ratings, and return the mean of its predictions as plain vectors.

    rating of u for i ~ normal(offset + bias_u + bias_i + u . v, 1 / (precision * noise_u * noise_i)). The vectors with
    their biases have a normal prior, whose mean and covariance are sampled too (Salakhutdinov and Mnih, Bayesian
    probabilistic matrix factorization by MCMC, ICML 2008). A prior's mean is linear in whom a row has ratings of, as
    in SVD++ (Koren, KDD 2008) and for both sides, by a regression that is sampled (Simm et al., Macau, 2015); that a
    rating is there says something, whatever it is, and no held-out pair takes part. The noise of users and items is
    sampled as well (Lakshminarayanan et al., Robust Bayesian matrix factorisation, AISTATS 2011).

    A sweep samples all users and then all items, each whole vector at once: it is an epoch. The mean of the sampled
    models' predictions is one dot product of long vectors, of which `PosteriorMean` keeps the best `dim` directions.
    config: with every None filled; `epochs` ends the sampling sooner, as in `loop.fit`. validate: called
    after every epoch, and decides nothing: more samples are no worse but for chance, so the last model is the best one.
    Ctrl-C keeps the mean so far.
    """
    tracker = tracker or Tracker()
    last = epochs or config.epochs or 1
    device = torch.device(choose_device(config.device)[0])
    generator = torch.Generator(device).manual_seed(config.seed)
    scale = (float(ratings.value.min()), float(ratings.value.max()))
    offset = float(ratings.value.mean(dtype=np.float64))
    unit = float(ratings.value.std(dtype=np.float64)) or 1.0  # inside, ratings have mean 0 and deviation 1
    value = ((ratings.value - offset) / unit).astype(np.float32)
    begin, history, stopped = time.perf_counter(), [], "epochs"
    sizes = len(ratings.users), len(ratings.items)
    users = _Side(ratings.user, ratings.item, value, sizes, dim, generator)
    items = _Side(ratings.item, ratings.user, value, sizes[::-1], dim, generator)
    chain, mean = _Chain(users, items, generator), PosteriorMean(_SPARE * dim)

    def read() -> EmbeddingModel:
        (u, a), (v, b) = mean.read(dim)
        arrays = [(t * by).cpu().numpy() for t, by in ((u, unit**0.5), (v, unit**0.5), (a, unit), (b, unit))]
        return EmbeddingModel(arrays[0], arrays[1], arrays[2], arrays[3], offset, "stars", scale)

    note = ""
    try:
        for epoch in range(1, last + 1):
            start = time.perf_counter()
            models = chain.sweep()
            # Until the burn-in is over, the newest sample stands for the mean: there is always something to read.
            if epoch <= math.floor(_BURN_IN * last) + 1:
                mean = PosteriorMean(_SPARE * dim)
            mean.add(*models)
            facts = {"loss": chain.loss * unit**2, "samples_per_s": len(ratings) / (time.perf_counter() - start)}
            if validate:
                facts |= validate(read())
            history.append(facts)
            tracker.metrics(facts, epoch)
            note = f"loss {facts['loss']:.4f}" + (f"  rmse {facts['rmse']:.4f}" if "rmse" in facts else "")
            tracker.progress(epoch, last, note)
    except KeyboardInterrupt:
        if not history:
            raise
        stopped = "interrupted"
        log.warning("interrupted in epoch %d: the mean of the samples so far is kept", len(history) + 1)
    return TrainingResult(read(), len(history), history, time.perf_counter() - begin, stopped)


class PosteriorMean:
    """The mean of the predictions of many dot-product models, itself one: all their vectors beside each other.

    That would grow, so of the products' sum the `width` directions are held that matter most.
    """

    def __init__(self, width: int) -> None:
        self.width, self.count = width, 0
        self.vectors: list[Tensor] = []  # of the users, [U, w], and of the items, [I, w]
        self.bias: list[Tensor] = []

    def add(self, *models: tuple[Tensor, Tensor]) -> None:
        """Add models of vectors [U, d + 1] and [I, d + 1], whose last numbers are the biases."""
        sides = list(zip(*models, strict=True))
        bias = [torch.stack([part[:, -1] for part in side]).double().sum(0) for side in sides]
        vectors = [torch.cat([part[:, :-1] for part in side], 1) for side in sides]
        if self.count:
            bias = [a + b for a, b in zip(self.bias, bias, strict=True)]
            vectors = [torch.cat(both, 1) for both in zip(self.vectors, vectors, strict=True)]
        self.vectors, self.bias = list(narrowed(vectors[0], vectors[1], self.width)), bias
        self.count += len(models)

    def read(self, dim: int) -> list[tuple[Tensor, Tensor]]:
        """Return (vectors [n, dim], biases [n]) of the users and of the items."""
        vectors = [F.pad(v[:, :dim], (0, max(0, dim - v.shape[1]))) / self.count**0.5 for v in self.vectors]
        return [(v, (b / self.count).float()) for v, b in zip(vectors, self.bias, strict=True)]


def narrowed(left: Tensor, right: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return [U, w] and [I, w], w <= width, whose product is nearest to left @ right.T, by its singular values.

    left, right: [U, n] and [I, n]. Both get the same lengths along each direction, and the longest come first.
    """
    (u, first), (v, second) = torch.linalg.qr(left), torch.linalg.qr(right)
    a, size, b = torch.linalg.svd(first.double() @ second.double().T, full_matrices=False)
    root = size[:width].sqrt()
    return u @ (a[:, :width] * root).float(), v @ (b[:width].T * root).float()


class _Block(NamedTuple):
    """Some rows of a side, with about equally many ratings: rows [b], the other side's rows and values [b, L].

    Where a row has fewer than L ratings, the other's row is the one after the last, and the value is zero. number: of
    ratings, [b].
    """

    rows: Tensor
    other: Tensor
    value: Tensor
    number: Tensor


class _Side:
    """The users or the items: their sampled vectors with biases, and what their prior is.

    drawn, mean: [n, d + 1], the sample and what it would be on average, given all else; the last number is the bias.
    noise: [n + 1], how reliable a row's ratings are, 1 on average; a last zero is that of the padding.
    prior: [n, d + 1], the prior's mean; precision: [d + 1, d + 1].
    """

    def __init__(
        self, own: Rows, other: Rows, value: np.ndarray, sizes: tuple[int, int], dim: int, generator: torch.Generator
    ) -> None:
        self.generator, device = generator, generator.device
        self.blocks = list(_blocks(own, other, value, sizes, dim + 2, device))
        self.drawn = _START * torch.randn(sizes[0], dim + 1, generator=generator, device=device)
        self.drawn[:, -1] = 0
        self.mean, self.noise = torch.zeros_like(self.drawn), torch.ones(sizes[0] + 1, device=device)
        self.noise[-1] = 0
        directions, share = _history(own, other, sizes)
        self.directions, self.share = directions.to(device), share.to(device)
        self.history = torch.zeros_like(self.drawn)

    def draw_prior(self) -> None:
        """Sample the prior's mean, precision and dependence on the history, given the vectors."""
        centre, root = _normal_wishart(self.drawn - self.history, self.generator)
        # In units of the prior's own deviations every number of a vector has noise 1 around its history's part, and
        # the directions do not mix: for each, a ridge regression of its own in closed form.
        seen = self.directions.T @ ((self.drawn - centre) @ root)
        strength = self.share[:, None] * torch.logspace(-3, 2, 51, device=seen.device)
        likelihood = -0.5 * (seen.shape[1] * strength.log1p() + (seen**2).sum(1, keepdim=True) / (1 + strength)).sum(0)
        chosen = torch.multinomial(likelihood.double().softmax(0), 1, generator=self.generator)
        kept = (strength / (1 + strength))[:, chosen]
        noise = torch.randn(seen.shape, generator=self.generator, device=seen.device)
        effect = torch.linalg.solve_triangular(root, kept * seen + kept.sqrt() * noise, upper=False, left=False)
        self.history = self.directions @ effect
        self.prior, self.precision = centre + self.history, root @ root.T

    def draw(self, other: _Side, precision: float) -> float:
        """Sample all vectors and noises, given the other side; return the weighted squared error of all ratings.

        All that the ratings say of a row stands in one matrix [d + 2, d + 2]: the products of the other side's
        vectors, a one (for the bias) and the rating less the other's bias, weighted and summed over the ratings.
        """
        table = torch.cat((other.drawn[:, :-1], torch.ones_like(other.drawn[:, :1]), -other.drawn[:, -1:]), 1)
        table = torch.cat((table, torch.zeros_like(table[:1])))
        total = 0.0
        for block in self.blocks:
            weight = precision * self.noise[block.rows][:, None] * other.noise[block.other]
            parts = F.embedding(block.other, table)
            parts[..., -1] += block.value
            parts *= weight.sqrt()[..., None]
            sums = parts.mT @ parts
            factor = torch.linalg.cholesky(sums[:, :-1, :-1] + self.precision)
            pull = sums[:, :-1, -1:] + (self.prior[block.rows] @ self.precision)[..., None]
            half = torch.linalg.solve_triangular(factor, pull, upper=False)
            noise = torch.randn(half.shape, generator=self.generator, device=half.device)
            both = torch.linalg.solve_triangular(factor.mT, torch.cat((half, half + noise), 2), upper=True)
            self.mean[block.rows], self.drawn[block.rows] = both[..., 0], both[..., 1]
            residual = torch.cat((-both[..., 1:], torch.ones_like(both[:, :1, 1:])), 1)
            error = (residual.mT @ sums @ residual)[:, 0, 0].clamp(min=0) / self.noise[block.rows]
            shape = _NOISE + block.number / 2
            self.noise[block.rows] = torch._standard_gamma(shape, generator=self.generator) / (_NOISE + error / 2)
            total += float((error * self.noise[block.rows]).sum())
        return total


class _Chain:
    """The state of the sampler: both sides, and the precision of a rating."""

    def __init__(self, users: _Side, items: _Side, generator: torch.Generator) -> None:
        self.users, self.items, self.generator = users, items, generator
        self.ratings = sum(int(block.number.sum()) for block in users.blocks)
        self.precision, self.loss = 1.0, math.nan

    def sweep(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Sample everything once; return two models, each the mean given the other side's sample.

        (Such a conditional mean has the same expectation as the sample and less noise: Rao and Blackwell.)
        """
        before = self.items.drawn.clone()
        self.users.draw_prior()
        self.users.draw(self.items, self.precision)
        self.items.draw_prior()
        error = self.items.draw(self.users, self.precision) / self.precision
        self.loss = error / self.ratings
        shape = torch.tensor(1 + self.ratings / 2, device=before.device)
        self.precision = float(torch._standard_gamma(shape, generator=self.generator)) / (1 + error / 2)
        return (self.users.mean, before), (self.users.drawn, self.items.mean)


def _blocks(
    own: Rows, other: Rows, value: np.ndarray, sizes: tuple[int, int], width: int, device: torch.device
) -> Iterator[_Block]:
    """Yield all rows in blocks of about equally many ratings, those with the most first."""
    order, count = np.argsort(own, kind="stable"), np.bincount(own, minlength=sizes[0])
    start = np.cumsum(count) - count
    rows = np.argsort(-count, kind="stable")
    other, value = np.append(other[order], sizes[1]), np.append(value[order], np.float32(0))
    at = 0
    while at < len(rows):
        longest = int(count[rows[at]])
        near = np.searchsorted(-count[rows], -math.floor(_PADDED * longest), side="right")
        end = min(int(near), at + max(1, _NUMBERS // max(1, longest * width)))
        part, place = rows[at:end], np.arange(longest)
        found = np.where(place < count[part][:, None], start[part][:, None] + place, len(order))
        arrays = part, other[found], value[found], count[part].astype(np.float32)
        yield _Block(*(torch.from_numpy(array).to(device) for array in arrays))
        at = end


def _history(own: Rows, other: Rows, sizes: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the principal directions [n, r] of which rows have ratings of what, and their variances [r].

    A row's features are ones over the root of their number, as in SVD++. The directions are found by subspace
    iteration (Halko, Martinsson and Tropp, SIAM Review 2011, algorithm 4.4).
    """
    from scipy.sparse import csr_matrix

    count = np.bincount(own, minlength=sizes[0])
    features = csr_matrix(((count[own] ** -0.5).astype(np.float32), (own, other)), sizes)
    back = features.T.tocsr()
    width = min(_HISTORY, *sizes)
    basis = np.random.default_rng(0).standard_normal((sizes[1], width)).astype(np.float32)
    for _ in range(4):
        # By torch: NumPy's threads spin while they wait, which takes seconds beside another program.
        basis = torch.linalg.qr(torch.from_numpy(back @ (features @ basis)))[0].numpy()
    directions, size, _ = torch.linalg.svd(torch.from_numpy(features @ basis), full_matrices=False)
    return directions, size**2


def _normal_wishart(rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sample a mean [d] and the lower root [d, d] of a precision of rows [n, d], under a vague prior.

    (Salakhutdinov and Mnih, ICML 2008, equation 14, with beta 2, nu d and W the identity.)
    """
    n, d = rows.shape
    rows = rows.double()
    noise: dict[str, Any] = {"generator": generator, "device": rows.device, "dtype": rows.dtype}
    mean, beta = rows.mean(0), 2.0
    centred = rows - mean
    inverse = torch.eye(d, device=rows.device, dtype=rows.dtype) + centred.T @ centred
    inverse += beta * n / (beta + n) * torch.outer(mean, mean)
    scale = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(inverse)))
    # Bartlett's decomposition: a Wishart sample is scale A A' scale', A lower triangular.
    freedom = d + n - torch.arange(d, device=rows.device, dtype=rows.dtype)
    bartlett = torch.randn(d, d, **noise).tril(-1) + torch.diag(
        (2 * torch._standard_gamma(freedom / 2, generator=generator)).sqrt()
    )
    root = scale @ bartlett
    centre = n * mean / (beta + n)
    centre += torch.linalg.solve_triangular(root.T, torch.randn(d, 1, **noise), upper=True)[:, 0] / (beta + n) ** 0.5
    return centre.float(), root.float()
