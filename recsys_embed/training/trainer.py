"""fit(): the training loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

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
from recsys_embed.nets.sparse_ops import expand_ranges
from recsys_embed.nets.two_tower import TwoTowerModel
from recsys_embed.tracking.tracker import Tracker
from recsys_embed.training.autograd_step import AutogradStep, Batch
from recsys_embed.training.interface import TrainingResult, Validate, finite_metric

log = logging.getLogger("recsys_embed")


def fit(
    model: TwoTowerModel,
    ratings: Ratings,
    config: TrainConfig,
    tracker: Tracker | None = None,
    validate: Validate | None = None,
    monitor: tuple[str, int] = ("ndcg_at_10", 1),
    epochs: int | None = None,
    init: Callable[[TwoTowerModel], None] | None = None,
) -> TrainingResult:
    """Train a model on ratings and return it as plain arrays.

    config: without None (see `resolve_settings`). The learning rate falls along a half cosine to zero over
        `config.epochs`; `epochs` stops the training earlier, on the same curve.
    validate: called with the model after each epoch; with it, the best epoch's model is kept and training stops
        after `config.patience` epochs without a better one. monitor: the metric that decides, and +1 if more is better
        or -1 if less is.
    init: initializes the model, in place of random vectors and biases from the numbers of ratings.
    Ctrl-C stops the training and keeps the best model so far; before the end of the first epoch it is passed on.
    Raises TrainingError when the loss is not finite.
    """
    tracker = tracker or Tracker()
    run = _set_up(model, ratings, config, init)
    best: TrainingResult | None = None
    history: list[dict[str, float]] = []
    total = config.epochs or 1
    clock, (name, sign), last = time.perf_counter(), monitor, epochs or total
    stopped = "epochs"
    try:
        for epoch in range(1, last + 1):
            curve = config.lr or 0.0, total, last
            metrics = _train_epoch(run, epoch, curve, tracker, _note(history))
            if not math.isfinite(metrics["loss"]):
                raise _diverged(int(metrics["batch"]), metrics["loss"], epoch, config)
            trained = run.to_arrays() if validate or epoch == last else None
            if validate and trained:
                metrics |= validate(trained)
                finite_metric(metrics, name)
            history.append(metrics)
            tracker.metrics(metrics, epoch)
            tracker.progress(epoch, last, _note(history))
            if trained and (not validate or not best or sign * metrics[name] > sign * history[best.epochs - 1][name]):
                best = TrainingResult(trained, epoch)
            if validate and best and config.patience and epoch - best.epochs >= config.patience:
                stopped = "patience"
                break
    except KeyboardInterrupt:
        if not history:
            raise
        best = best or TrainingResult(run.to_arrays(), len(history))
        stopped = "interrupted"
        log.warning("interrupted in epoch %d: the model of epoch %d is kept", len(history) + 1, best.epochs)
    assert best is not None
    best.history, best.seconds, best.stopped = history, time.perf_counter() - clock, stopped
    return best


class _Run(NamedTuple):
    """What every epoch needs: the step, all ratings, a function that draws batches, and one that reads the model."""

    step: AutogradStep
    columns: Batch
    draw_batches: Callable[[], Sequence[torch.Tensor]]
    to_arrays: Callable[[], EmbeddingModel]


def _set_up(
    model: TwoTowerModel, ratings: Ratings, config: TrainConfig, init: Callable[[TwoTowerModel], None] | None
) -> _Run:
    """Put the model and the ratings on the device, initialize the biases, and choose the step."""
    device = torch.device(choose_device(config.device)[0])
    model.to(device)
    generator = torch.Generator(device).manual_seed(config.seed)
    objective = LOSSES[config.loss or "softmax"]
    scale = (float(ratings.value.min()), float(ratings.value.max()))
    if objective.output == "stars":
        model.offset.fill_(float(ratings.value.mean(dtype=np.float64)))
    else:
        model.items.init_bias(_initial_bias(ratings.item_counts, objective.negatives))
    if init is not None:
        init(model.cpu())
        model.to(device)
    columns = _columns(ratings, config, device)
    known = KnownPositives(replace(ratings, hidden=None).excluded(), len(ratings.items), device)
    sizes = len(ratings.users), len(ratings.items)
    counts = [torch.bincount(c, minlength=n) for c, n in zip(columns[:2], sizes, strict=True)]
    step = step_for(model, config)(model, config, known, counts[1], generator)

    def to_arrays() -> EmbeddingModel:
        step.flush()
        return model.to_arrays((counts[0], counts[1]), objective.output, scale)

    return _Run(step, columns, _batches(columns, config, generator), to_arrays)


def step_for(model: TwoTowerModel, config: TrainConfig) -> type[AutogradStep]:
    """Return the fastest step that can train this model; kernels are compiled here, before any time is measured."""
    kind: type[AutogradStep] = AutogradStep
    pairwise = config.loss in ("bpr", "logistic")
    if next(model.parameters()).is_cuda:
        if pairwise and triton_available():
            from recsys_embed.training.cuda_pairwise_step import CudaPairwiseStep as kind
    elif pairwise and available("adam") and available("pairwise"):
        from recsys_embed.training.pairwise_step import PairwiseStep as kind
    elif config.loss in ("softmax", "sampled-softmax") and available("adam") and available("softmax"):
        from recsys_embed.training.softmax_step import SoftmaxStep as kind
    return AutogradStep if kind.unsupported_reason(model, config) else kind


def _train_epoch(run: _Run, epoch: int, curve: tuple[float, int, int], tracker: Tracker, note: str) -> dict[str, float]:
    """Pass once over all ratings; return the mean loss and the ratings per second.

    curve: the initial learning rate, the epochs until it is zero, and the epochs of this training. If a loss is not
    finite, return the first such loss as "loss" and the number of its batch as "batch".
    """
    lr, total, last = curve
    batches = run.draw_batches()
    n = len(run.columns.user)
    start = time.perf_counter()
    losses = torch.zeros(len(batches), device=run.columns.user.device)
    for number, rows in enumerate(batches):
        done = epoch - 1 + number / len(batches)
        run.step.optimizer.lr = lr * 0.5 * (1 + math.cos(math.pi * done / total))
        losses[number] = run.step.step_on_rows(run.columns, rows)
        if number % 64 == 0:
            tracker.progress(done, last, note)
    values = losses.cpu()
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        return {"loss": float(values[bad[0]]), "batch": float(bad[0]) + 1}
    return {"loss": float(values.mean()), "samples_per_s": n / (time.perf_counter() - start)}


def _batches(columns: Batch, config: TrainConfig, generator: torch.Generator) -> Callable[[], Sequence[torch.Tensor]]:
    """Return a function that draws the batches of an epoch: rows of random ratings, or all those of random users.

    columns: ascending by user, and so are the rows of each batch, so that each user's ratings are together.
    Batches have equal sizes, give or take one: Adam takes a full step whatever the gradient, so a small last batch
    would add noise at full strength (it cost 3 % of NDCG@10 on ML-100K).
    """
    n, device = len(columns.user), columns.user.device
    if not config.batch_users:
        steps = max(1, round(n / (config.batch_size or n)))

        if device.type == "cpu" and available("pairwise"):
            return lambda: _split_randomly(n, steps, generator)
        draw = lambda: torch.randperm(n, generator=generator, device=device)  # noqa: E731
        return lambda: [batch.sort().values for batch in draw().tensor_split(steps)]
    _, counts = columns.user.unique_consecutive(return_counts=True)
    start = counts.cumsum(0) - counts
    steps = max(1, round(len(counts) / config.batch_users))

    def draw_users() -> list[torch.Tensor]:
        drawn = torch.randperm(len(counts), generator=generator, device=device).tensor_split(steps)
        return [expand_ranges(start[users], counts[users])[0] for users in (part.sort().values for part in drawn)]

    return draw_users


def _split_randomly(n: int, steps: int, generator: torch.Generator) -> Sequence[torch.Tensor]:
    """Split the rows 0 to n - 1 at random into this many batches, each ascending."""
    from recsys_embed.kernels.pairwise import sort_within_batches

    order = torch.randperm(n, generator=generator, dtype=torch.int32).numpy()
    edges = np.cumsum([0, *(n // steps + (step < n % steps) for step in range(steps))])
    rows = np.empty(n, np.int64)
    sort_within_batches(order, edges, np.empty(n, np.int32), rows)
    return torch.from_numpy(rows).tensor_split(steps)


def _columns(ratings: Ratings, config: TrainConfig, device: torch.device) -> Batch:
    """Return all ratings as columns on the device, ascending by user.

    Weights are 1 on average; they depend on the weight of the row, and as the settings say on the rating and on how
    many ratings its user has.
    """
    ratings = ratings.take(np.argsort(ratings.user, kind="stable"))
    amounts = ratings.amounts(config.sample_weight == "rating")
    weight = np.ones(len(ratings)) if amounts is None else amounts
    if config.balance:
        weight = weight * np.bincount(ratings.user)[ratings.user] ** -config.balance
    weight = (weight / weight.mean()).astype(np.float32)
    arrays = (ratings.user, ratings.item, ratings.value, weight)
    return Batch(*(torch.tensor(a, device=device) for a in arrays))


def _initial_bias(counts: Rows, negatives: str) -> torch.Tensor:
    """Return the initial biases of the items for a ranking loss, [items].

    A softmax over biases alone is popularity, so it starts there; losses with negatives for each rating start at zero.
    An unrated item starts with the bias of the least popular item in both cases, and keeps it, since no step moves it.
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
    hint = f"lower --lr (now {config.lr:g}), or bound the step with --max-grad-norm 1"
    if config.loss == "mse":
        hint += ", or scale the ratings"
    return TrainingError(f"the loss became {loss:g} in epoch {epoch}, batch {batch}: {hint}")


def choose_device(name: str) -> tuple[DeviceName, str]:
    """Return the device to train on, "cpu" or "cuda", and why. Raises SettingError if cuda is requested but missing."""
    if name == "cpu":
        return "cpu", "as requested"
    if torch.cuda.is_available():
        return "cuda", f"{torch.cuda.get_device_name()}, {'as requested' if name == 'cuda' else 'found'}"
    if name == "cuda":
        raise SettingError("--device cuda: this torch finds no CUDA device; --device cpu trains without one")
    return "cpu", "no CUDA device was found"
