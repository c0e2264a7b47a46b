"""fit_gibbs(): vectors that predict ratings, as the mean of many samples from their posterior."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recsys_embed.config.settings import TrainConfig
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.tracking.tracker import Tracker
from recsys_embed.training.checkpoints import Checkpoints, Saved
from recsys_embed.training.interface import TrainingResult, Validate
from recsys_embed.training.trainer import choose_device

log = logging.getLogger("recsys_embed")

# All of these were chosen on validation ratings (experiments/LOG.md), where none of them matters much.
_BURN_IN = 0.2  # share of the sweeps before the first one that counts
_INIT_STD = 0.1  # standard deviation of the initial vectors' numbers
_HISTORY_DIM = 100  # principal directions of who rated what
_NOISE_SHAPE = 5.0  # shape of the gamma distribution of a user's, or an item's, reliability
_MIN_FILL = 0.75  # rows of a block have at least this share of the ratings of its first row
_BLOCK_NUMBERS = 1_000_000  # numbers of the other side's vectors in a block
_OVERSIZE = 4  # the mean is kept this many times wider than what is returned of it


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Restrict torch to one thread: on many small products and roots, two threads do ten times the work in waiting.

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
    checkpoints: Checkpoints | None = None,
) -> TrainingResult:
    """Sample the posterior of a factorization of the ratings; return the mean of its predictions as plain vectors.

    rating of u for i ~ normal(offset + bias_u + bias_i + u . v, 1 / (precision * noise_u * noise_i)). The vectors with
    their biases have a normal prior, whose mean and covariance are sampled too (Salakhutdinov and Mnih, Bayesian
    probabilistic matrix factorization by MCMC, ICML 2008). The mean of a row's prior is linear in whom the row has
    ratings of, as in SVD++ (Koren, KDD 2008) and for both sides, by a regression that is sampled (Simm et al., Macau,
    2015): that a rating exists is informative whatever its value, and no held-out pair is used. The noise of users and
    items is sampled as well (Lakshminarayanan et al., Robust Bayesian matrix factorisation, AISTATS 2011).

    A sweep samples all users and then all items, each whole vector at once: it is an epoch. The mean of the sampled
    models' predictions is one dot product of long vectors, of which `PosteriorMean` keeps the best `dim` directions.
    config: without None; `epochs` stops the sampling earlier, as in `trainer.fit`. validate: called after every epoch,
    and decides nothing: more samples are no worse except by chance, so the last model is the best one.
    checkpoints: see `trainer.fit`. Ctrl-C keeps the mean so far.
    """
    tracker = tracker or Tracker()
    last = epochs or config.epochs or 1
    generator = torch.Generator(torch.device(choose_device(config.device)[0])).manual_seed(config.seed)
    stopped, scale = "epochs", _Scale.of(ratings)
    chain, mean = _Chain.of(ratings, scale, dim, generator), PosteriorMean(_OVERSIZE * dim)
    stage, history, start = None, list[dict[str, float]](), time.perf_counter()
    if checkpoints is not None:
        how = repr((config, dim, last, bool(validate)))
        stage = checkpoints.stage("the sampling of embeddings", ratings.digest(), how)
        history, start = chain.resumed(mean, stage.saved, start)
    with contextlib.nullcontext() if stage is None else stage.deferred():
        try:
            for epoch in range(len(history) + 1, last + 1):
                epoch_start = time.perf_counter()
                models = chain.sweep()
                # Until the burn-in is over, the latest sample replaces the mean, so that there always is a model.
                if epoch <= math.floor(_BURN_IN * last) + 1:
                    mean = PosteriorMean(_OVERSIZE * dim)
                mean.add(*models)
                rate = len(ratings) / (time.perf_counter() - epoch_start)
                metrics = {"loss": chain.loss * scale.unit**2, "samples_per_s": rate}
                if validate:
                    metrics |= validate(scale.to_model(mean, dim))
                history.append(metrics)
                tracker.metrics(metrics, epoch)
                note = f"loss {metrics['loss']:.4f}" + (f"  rmse {metrics['rmse']:.4f}" if "rmse" in metrics else "")
                tracker.progress(epoch, last, note)
                if stage is not None and (stage.due or epoch == last):
                    facts = {"history": history, "count": mean.count, "seconds": time.perf_counter() - start}
                    stage.save(chain.arrays(mean), facts)
        except KeyboardInterrupt:
            if not history:
                raise
            stopped = "interrupted"
            log.warning("interrupted in epoch %d: the mean of the samples so far is kept", len(history) + 1)
    return TrainingResult(scale.to_model(mean, dim), len(history), history, time.perf_counter() - start, stopped)


class _Scale(NamedTuple):
    """The mean, standard deviation and range of the ratings; the sampler works on standardized ratings."""

    offset: float
    unit: float
    range: tuple[float, float]

    @classmethod
    def of(cls, ratings: Ratings) -> _Scale:
        """Measure the ratings."""
        return cls(
            float(ratings.value.mean(dtype=np.float64)),
            float(ratings.value.std(dtype=np.float64)) or 1.0,
            (float(ratings.value.min()), float(ratings.value.max())),
        )

    def standardize(self, value: np.ndarray) -> np.ndarray:
        """Return ratings with mean 0 and standard deviation 1."""
        return ((value - self.offset) / self.unit).astype(np.float32)

    def to_model(self, mean: PosteriorMean, dim: int) -> EmbeddingModel:
        """Return the mean of the samples as plain vectors that predict ratings."""
        (u, a), (v, b) = mean.read(dim)
        factors = ((u, self.unit**0.5), (v, self.unit**0.5), (a, self.unit), (b, self.unit))
        users, items, user_bias, item_bias = ((tensor * factor).cpu().numpy() for tensor, factor in factors)
        return EmbeddingModel(users, items, user_bias, item_bias, self.offset, "stars", self.range)


class PosteriorMean:
    """The mean of the predictions of many dot-product models, itself one: all their vectors side by side.

    Those would grow with every model, so only the `width` strongest directions of the sum of their products are kept.
    """

    def __init__(self, width: int) -> None:
        self.width, self.count = width, 0
        self.vectors: list[Tensor] = []  # of the users, [U, w], and of the items, [I, w]
        self.bias: list[Tensor] = []

    def add(self, *models: tuple[Tensor, Tensor]) -> None:
        """Add models of vectors [U, d + 1] and [I, d + 1], whose last column holds the biases."""
        sides = list(zip(*models, strict=True))
        bias = [torch.stack([vectors[:, -1] for vectors in side]).double().sum(0) for side in sides]
        vectors = [torch.cat([vectors[:, :-1] for vectors in side], 1) for side in sides]
        if self.count:
            bias = [a + b for a, b in zip(self.bias, bias, strict=True)]
            vectors = [torch.cat(pair, 1) for pair in zip(self.vectors, vectors, strict=True)]
        self.vectors, self.bias = list(truncated_product_svd(vectors[0], vectors[1], self.width)), bias
        self.count += len(models)

    def read(self, dim: int) -> list[tuple[Tensor, Tensor]]:
        """Return (vectors [n, dim], biases [n]) of the users and of the items."""
        vectors = [F.pad(v[:, :dim], (0, max(0, dim - v.shape[1]))) / self.count**0.5 for v in self.vectors]
        return [(v, (b / self.count).float()) for v, b in zip(vectors, self.bias, strict=True)]


def truncated_product_svd(left: Tensor, right: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return [U, w] and [I, w], w <= width, whose product is the best approximation of left @ right.T.

    left, right: [U, n] and [I, n]. Along each direction both have the same length, and the longest come first.
    """
    (u, first), (v, second) = torch.linalg.qr(left), torch.linalg.qr(right)
    a, size, b = torch.linalg.svd(first.double() @ second.double().T, full_matrices=False)
    root = size[:width].sqrt()
    return u @ (a[:, :width] * root).float(), v @ (b[:width].T * root).float()


class _Block(NamedTuple):
    """Some rows of a side with about equally many ratings: rows [b], and the other side's rows and values [b, L].

    A row with fewer than L ratings is padded with the row after the last and the value zero. n_ratings: [b].
    """

    rows: Tensor
    other: Tensor
    value: Tensor
    n_ratings: Tensor


class _Side:
    """The users or the items: their sampled vectors with biases, and their prior.

    sample, mean: [n, d + 1], the sample and its conditional mean given everything else; the last column is the bias.
    noise: [n + 1], the reliability of a row's ratings, 1 on average; the last one, zero, is that of the padding.
    prior: [n, d + 1], the prior's mean; precision: [d + 1, d + 1].
    """

    def __init__(
        self, rows: Rows, other: Rows, value: np.ndarray, sizes: tuple[int, int], dim: int, generator: torch.Generator
    ) -> None:
        self.generator, device = generator, generator.device
        self.blocks = list(_blocks(rows, other, value, sizes, dim + 2, device))
        self.sample = _INIT_STD * torch.randn(sizes[0], dim + 1, generator=generator, device=device)
        self.sample[:, -1] = 0
        self.mean, self.noise = torch.zeros_like(self.sample), torch.ones(sizes[0] + 1, device=device)
        self.noise[-1] = 0
        directions, variance = _history_directions(rows, other, sizes)
        self.directions, self.variance = directions.to(device), variance.to(device)
        self.history = torch.zeros_like(self.sample)

    def draw_prior(self) -> None:
        """Sample the prior's mean, its precision and its dependence on the history, given the vectors."""
        centre, root = _normal_wishart(self.sample - self.history, self.generator)
        # In units of the prior's own deviations, every number of a vector has noise 1 around what its history predicts,
        # and the directions are independent: each is a ridge regression of its own, in closed form.
        projected = self.directions.T @ ((self.sample - centre) @ root)
        strength = self.variance[:, None] * torch.logspace(-3, 2, 51, device=projected.device)
        fit = (projected**2).sum(1, keepdim=True) / (1 + strength)
        likelihood = -0.5 * (projected.shape[1] * strength.log1p() + fit).sum(0)
        chosen = torch.multinomial(likelihood.double().softmax(0), 1, generator=self.generator)
        shrinkage = (strength / (1 + strength))[:, chosen]
        noise = torch.randn(projected.shape, generator=self.generator, device=projected.device)
        drawn = shrinkage * projected + shrinkage.sqrt() * noise
        effect = torch.linalg.solve_triangular(root, drawn, upper=False, left=False)
        self.history = self.directions @ effect
        self.prior, self.precision = centre + self.history, root @ root.T

    def draw(self, other: _Side, precision: float) -> float:
        """Sample all vectors and noises, given the other side; return the weighted squared error of all ratings.

        One matrix [d + 2, d + 2] holds all that a row's ratings say of it: the products of the other side's vectors, a
        one (for the bias) and the rating minus the other's bias, weighted and summed over the ratings.
        """
        table = torch.cat((other.sample[:, :-1], torch.ones_like(other.sample[:, :1]), -other.sample[:, -1:]), 1)
        table = torch.cat((table, torch.zeros_like(table[:1])))
        total = 0.0
        for block in self.blocks:
            weight = precision * self.noise[block.rows][:, None] * other.noise[block.other]
            factors = F.embedding(block.other, table)
            factors[..., -1] += block.value
            factors *= weight.sqrt()[..., None]
            sums = factors.mT @ factors
            root = torch.linalg.cholesky(sums[:, :-1, :-1] + self.precision)
            pull = sums[:, :-1, -1:] + (self.prior[block.rows] @ self.precision)[..., None]
            half = torch.linalg.solve_triangular(root, pull, upper=False)
            noise = torch.randn(half.shape, generator=self.generator, device=half.device)
            drawn = torch.linalg.solve_triangular(root.mT, torch.cat((half, half + noise), 2), upper=True)
            self.mean[block.rows], self.sample[block.rows] = drawn[..., 0], drawn[..., 1]
            residual = torch.cat((-drawn[..., 1:], torch.ones_like(drawn[:, :1, 1:])), 1)
            error = (residual.mT @ sums @ residual)[:, 0, 0].clamp(min=0) / self.noise[block.rows]
            shape = _NOISE_SHAPE + block.n_ratings / 2
            gamma = torch._standard_gamma(shape, generator=self.generator)
            self.noise[block.rows] = gamma / (_NOISE_SHAPE + error / 2)
            total += float((error * self.noise[block.rows]).sum())
        return total


# What of a side a sweep starts from.
_STATE = ("sample", "mean", "noise", "history")


class _Chain:
    """The state of the sampler: both sides, and the precision of a rating."""

    def __init__(self, users: _Side, items: _Side, generator: torch.Generator) -> None:
        self.users, self.items, self.generator = users, items, generator
        self.ratings = sum(int(block.n_ratings.sum()) for block in users.blocks)
        self.precision, self.loss = 1.0, math.nan

    @classmethod
    def of(cls, ratings: Ratings, scale: _Scale, dim: int, generator: torch.Generator) -> _Chain:
        """Start a chain on ratings."""
        value = scale.standardize(ratings.value)
        sizes = len(ratings.users), len(ratings.items)
        users = _Side(ratings.user, ratings.item, value, sizes, dim, generator)
        items = _Side(ratings.item, ratings.user, value, sizes[::-1], dim, generator)
        return cls(users, items, generator)

    def arrays(self, mean: PosteriorMean) -> dict[str, NDArray[Any]]:
        """Return the state of the chain and of the mean of its samples."""
        found = {
            "generator": self.generator.get_state(),
            "precision": torch.tensor([self.precision], dtype=torch.double),
        }
        for n, side in enumerate((self.users, self.items)):
            found |= {f"{name}.{n}": getattr(side, name) for name in _STATE}
            found |= {f"vectors.{n}": mean.vectors[n], f"bias.{n}": mean.bias[n]}
        return {name: value.cpu().numpy() for name, value in found.items()}

    def resumed(self, mean: PosteriorMean, saved: Saved | None, start: float) -> tuple[list[dict[str, float]], float]:
        """Restore the chain and the mean; return the history, and when the training would have started."""
        if saved is None:
            return [], start
        tensor = lambda name: torch.from_numpy(saved.arrays[name].copy()).to(self.generator.device)  # noqa: E731
        self.generator.set_state(torch.from_numpy(saved.arrays["generator"].copy()))
        self.precision = float(saved.arrays["precision"][0])
        for n, side in enumerate((self.users, self.items)):
            for name in _STATE:
                setattr(side, name, tensor(f"{name}.{n}"))
        mean.count = saved.facts["count"]
        mean.vectors, mean.bias = ([tensor(f"{name}.{n}") for n in range(2)] for name in ("vectors", "bias"))
        return saved.facts["history"], start - saved.facts["seconds"]

    def sweep(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Sample everything once; return two models, each with one side's mean given the other side's sample.

        (Such a conditional mean has the same expectation as the sample, with less noise: Rao and Blackwell.)
        """
        before = self.items.sample.clone()
        self.users.draw_prior()
        self.users.draw(self.items, self.precision)
        self.items.draw_prior()
        error = self.items.draw(self.users, self.precision) / self.precision
        self.loss = error / self.ratings
        shape = torch.tensor(1 + self.ratings / 2, device=before.device)
        self.precision = float(torch._standard_gamma(shape, generator=self.generator)) / (1 + error / 2)
        return (self.users.mean, before), (self.users.sample, self.items.mean)


def _blocks(
    rows: Rows, other: Rows, value: np.ndarray, sizes: tuple[int, int], width: int, device: torch.device
) -> Iterator[_Block]:
    """Yield all rows in blocks with about equally many ratings, those with the most first."""
    order, count = np.argsort(rows, kind="stable"), np.bincount(rows, minlength=sizes[0])
    start = np.cumsum(count) - count
    by_count = np.argsort(-count, kind="stable")
    other, value = np.append(other[order], sizes[1]), np.append(value[order], np.float32(0))
    first = 0
    while first < len(by_count):
        longest = int(count[by_count[first]])
        similar = np.searchsorted(-count[by_count], -math.floor(_MIN_FILL * longest), side="right")
        end = min(int(similar), first + max(1, _BLOCK_NUMBERS // max(1, longest * width)))
        block, offset = by_count[first:end], np.arange(longest)
        index = np.where(offset < count[block][:, None], start[block][:, None] + offset, len(order))
        arrays = block, other[index], value[index], count[block].astype(np.float32)
        yield _Block(*(torch.from_numpy(array).to(device) for array in arrays))
        first = end


def _history_directions(rows: Rows, other: Rows, sizes: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the principal directions [n, r] of which rows have ratings of what, and their variances [r].

    A row's features are ones divided by the root of their number, as in SVD++. The directions are found by subspace
    iteration (Halko, Martinsson and Tropp, SIAM Review 2011, algorithm 4.4).
    """
    from scipy.sparse import csr_matrix

    count = np.bincount(rows, minlength=sizes[0])
    features = csr_matrix(((count[rows] ** -0.5).astype(np.float32), (rows, other)), sizes)
    transposed = features.T.tocsr()
    width = min(_HISTORY_DIM, *sizes)
    basis = np.random.default_rng(0).standard_normal((sizes[1], width)).astype(np.float32)
    for _ in range(4):
        # By torch: NumPy's threads spin while they wait, which takes seconds beside another program.
        basis = torch.linalg.qr(torch.from_numpy(transposed @ (features @ basis)))[0].numpy()
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
