"""fit(): the one loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from recsys_embed.config.settings import DeviceName, TrainConfig
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import SettingError, TrainingError
from recsys_embed.kernels import available, triton_available
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.nets.losses import LOSSES
from recsys_embed.nets.negative_sampling import KnownPositives
from recsys_embed.nets.sparse_ops import ranges
from recsys_embed.nets.two_tower import Model
from recsys_embed.tracking.tracker import Tracker
from recsys_embed.training.autograd_step import AutogradStep, Batch
from recsys_embed.training.interface import TrainingResult, Validate

log = logging.getLogger("recsys_embed")


def fit(
    model: Model,
    ratings: Ratings,
    config: TrainConfig,
    tracker: Tracker | None = None,
    validate: Validate | None = None,
    better: tuple[str, int] = ("ndcg_at_10", 1),
    epochs: int | None = None,
    begin: Callable[[Model], None] | None = None,
) -> TrainingResult:
    """Train a model on ratings and return it as plain arrays.

    config: with every None filled (`resolve_settings`). The learning rate falls along a half cosine to zero over
        `config.epochs`; `epochs` ends the training sooner, on the same curve.
    validate: called with the model after each epoch; with it, the best epoch's model is kept and training ends
        after `config.patience` epochs without a better one. better: the metric that decides, and +1 where more
        is better or -1 where less is.
    begin: puts into the model what it begins with, instead of chance and numbers of ratings.
    Ctrl-C ends the training and keeps the best model so far; before the first epoch's end it is passed on.
    Raises TrainingError when the loss is not finite.
    """
    tracker = tracker or Tracker()
    total, lr = config.epochs or 1, config.lr or 0.0
    device = torch.device(choose_device(config.device)[0])
    model.to(device)
    generator = torch.Generator(device).manual_seed(config.seed)
    objective = LOSSES[config.loss or "softmax"]
    stars = objective.output == "stars"
    scale = (float(ratings.value.min()), float(ratings.value.max()))
    if stars:
        model.offset.fill_(float(ratings.value.mean(dtype=np.float64)))
    else:
        model.items.start_bias(_first_bias(ratings.counts, objective.negatives))
    if begin is not None:
        begin(model.cpu())
        model.to(device)
    columns = _columns(ratings, config, device)
    known = KnownPositives(ratings.hidden(), len(ratings.items), device)
    sizes = len(ratings.users), len(ratings.items)
    counts = [torch.bincount(c, minlength=n) for c, n in zip(columns[:2], sizes, strict=True)]
    step = step_for(model, config)(model, config, known, counts[1], generator)
    batches = _batches(columns, config, generator)

    def read() -> EmbeddingModel:
        step.flush()
        return model.to_arrays((counts[0], counts[1]), objective.output, scale)

    best: TrainingResult | None = None
    history: list[dict[str, float]] = []
    clock, (name, sign), last = time.perf_counter(), better, epochs or total
    stopped = "epochs"
    try:
        for epoch in range(1, last + 1):
            facts = _epoch(step, columns, batches(), epoch, (lr, total, last), tracker, _note(history))
            if not math.isfinite(facts["loss"]):
                raise _diverged(int(facts["batch"]), facts["loss"], epoch, config)
            plain = read() if validate or epoch == last else None
            if validate and plain:
                facts |= validate(plain)
                if not math.isfinite(facts[name]):
                    raise SettingError(f"the validation metric {name} is {facts[name]}: is there validation data?")
            history.append(facts)
            tracker.metrics(facts, epoch)
            tracker.progress(epoch, last, _note(history))
            if plain and (not validate or not best or sign * facts[name] > sign * history[best.epochs - 1][name]):
                best = TrainingResult(plain, epoch)
            if validate and best and config.patience and epoch - best.epochs >= config.patience:
                stopped = "patience"
                break
    except KeyboardInterrupt:
        if not history:
            raise
        best = best or TrainingResult(read(), len(history))
        stopped = "interrupted"
        log.warning("interrupted in epoch %d: the model of epoch %d is kept", len(history) + 1, best.epochs)
    assert best is not None
    best.history, best.seconds, best.stopped = history, time.perf_counter() - clock, stopped
    return best


def step_for(model: Model, config: TrainConfig) -> type[AutogradStep]:
    """Return the fastest step that can train this model so; kernels are compiled here, before a clock starts."""
    kind: type[AutogradStep] = AutogradStep
    pairs = config.loss in ("bpr", "logistic")
    if next(model.parameters()).is_cuda:
        if pairs and triton_available():
            from recsys_embed.training.cuda_pairwise_step import CudaPairsStep as kind
    elif pairs and available("adam") and available("pairs"):
        from recsys_embed.training.pairwise_step import PairsStep as kind
    elif config.loss in ("softmax", "sampled-softmax") and available("adam") and available("softmax"):
        from recsys_embed.training.softmax_step import SoftmaxStep as kind
    return AutogradStep if kind.why_not(model, config) else kind


def _epoch(
    step: AutogradStep,
    columns: Batch,
    batches: Sequence[torch.Tensor],
    epoch: int,
    plan: tuple[float, int, int],
    tracker: Tracker,
    note: str,
) -> dict[str, float]:
    """Pass once over all ratings; return the mean loss and the rate.

    batches: the rows of each step. plan: the first learning rate, and the epochs of the curve and of this training.
    Where a loss is not finite, the first such loss stands under "loss" and its batch under "batch".
    """
    lr, total, last = plan
    n = len(columns.user)
    start = time.perf_counter()
    losses = torch.zeros(len(batches), device=columns.user.device)
    for at, rows in enumerate(batches):
        done = epoch - 1 + at / len(batches)
        step.optimizer.lr = lr * 0.5 * (1 + math.cos(math.pi * done / total))
        losses[at] = step.at(columns, rows)
        if at % 64 == 0:
            tracker.progress(done, last, note)
    values = losses.cpu()
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        return {"loss": float(values[bad[0]]), "batch": float(bad[0]) + 1}
    return {"loss": float(values.mean()), "samples_per_s": n / (time.perf_counter() - start)}


def _batches(columns: Batch, config: TrainConfig, generator: torch.Generator) -> Callable[[], Sequence[torch.Tensor]]:
    """Return what draws the batches of an epoch: rows of ratings at random, or those of users at random.

    columns: ascending by user, and so are the rows of each batch: what a user has is together then.
    Batches are even: Adam takes a whole step on whatever gradient it gets, so a small last batch would be noise at
    full strength (it cost 3 % of NDCG@10 on ML-100K).
    """
    n, device = len(columns.user), columns.user.device
    if not config.batch_users:
        steps = max(1, round(n / (config.batch_size or n)))

        if device.type == "cpu" and available("pairs"):
            return lambda: _parted(n, steps, generator)
        drawn = lambda: torch.randperm(n, generator=generator, device=device)  # noqa: E731
        return lambda: [part.sort().values for part in drawn().tensor_split(steps)]
    _, counts = columns.user.unique_consecutive(return_counts=True)
    start = counts.cumsum(0) - counts
    steps = max(1, round(len(counts) / config.batch_users))

    def of_users() -> list[torch.Tensor]:
        drawn = torch.randperm(len(counts), generator=generator, device=device).tensor_split(steps)
        return [ranges(start[users], counts[users])[0] for users in (part.sort().values for part in drawn)]

    return of_users


def _parted(n: int, steps: int, generator: torch.Generator) -> Sequence[torch.Tensor]:
    """Return the rows 0 to n - 1 in so many random parts, ascending in each."""
    from recsys_embed.kernels.pairs import part

    order = torch.randperm(n, generator=generator, dtype=torch.int32).numpy()
    edges = np.cumsum([0, *(n // steps + (at < n % steps) for at in range(steps))])
    rows = np.empty(n, np.int64)
    part(order, edges, np.empty(n, np.int32), rows)
    return torch.from_numpy(rows).tensor_split(steps)


def _columns(ratings: Ratings, config: TrainConfig, device: torch.device) -> Batch:
    """Put the columns on the device, once, ascending by user.

    Weights are 1 on average: by rating, and by how much a user has rated.
    """
    ratings = ratings.take(np.argsort(ratings.user, kind="stable"))
    weight = np.ones(len(ratings))
    if config.weight == "rating":
        if ratings.value.min() < 0 or not ratings.value.any():
            raise SettingError("--weight rating needs ratings from 0 up, and one above 0")
        weight = ratings.value.astype(float)
    if config.balance:
        weight = weight * np.bincount(ratings.user)[ratings.user] ** -config.balance
    weight = (weight / weight.mean()).astype(np.float32)
    arrays = (ratings.user, ratings.item, ratings.value, weight)
    return Batch(*(torch.tensor(a, device=device) for a in arrays))


def _first_bias(counts: Rows, negatives: str) -> torch.Tensor:
    """Return the biases that the items of a ranking loss begin with, [items].

    A softmax over biases alone is popularity: it begins there. The losses on drawn negatives begin at zero. An item
    that nobody rated begins as the least popular one with both, and stays so, since nothing ever moves it.
    """
    popularity = np.log((counts + 1) / (counts + 1).mean())
    return torch.from_numpy(popularity if negatives != "each" else np.where(counts > 0, 0.0, popularity)).float()


def _note(history: list[dict[str, float]]) -> str:
    if not history:
        return ""
    return "  ".join(
        f"{name} {value:,.0f}" if name == "samples_per_s" else f"{name} {value:.4f}"
        for name, value in history[-1].items()
        if name in ("loss", "samples_per_s", "ndcg_at_10", "rmse")
    )


def _diverged(batch: int, loss: float, epoch: int, config: TrainConfig) -> TrainingError:
    hint = f"lower --lr (now {config.lr:g}), or bound the step with --clip 1"
    if config.loss == "mse":
        hint += ", or scale the ratings"
    return TrainingError(f"the loss became {loss:g} in epoch {epoch}, batch {batch}: {hint}")


def choose_device(name: str) -> tuple[DeviceName, str]:
    """Return the device to train on, "cpu" or "cuda", and why. Raises SettingError for a cuda that is not there."""
    if name == "cpu":
        return "cpu", "as asked"
    if torch.cuda.is_available():
        return "cuda", f"{torch.cuda.get_device_name()}, {'as asked' if name == 'cuda' else 'found'}"
    if name == "cuda":
        raise SettingError("--device cuda: this torch finds no CUDA device; --device cpu trains without one")
    return "cpu", "no CUDA device was found"
