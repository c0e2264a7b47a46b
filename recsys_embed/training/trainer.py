"""fit(): the training loop."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from recsys_embed.config.settings import DeviceName, TrainConfig
from recsys_embed.data.disk import Disk
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import SettingError, TrainingError
from recsys_embed.kernels import available, triton_available
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.nets.losses import LOSSES
from recsys_embed.nets.negative_sampling import KnownPositives
from recsys_embed.nets.two_tower import TwoTowerModel
from recsys_embed.tracking.tracker import Tracker
from recsys_embed.training.autograd_step import AutogradStep
from recsys_embed.training.batches import batch_drawer, columns_of
from recsys_embed.training.checkpoints import Checkpoints, Saved, Stage
from recsys_embed.training.interface import TrainingResult, Validate, finite_metric
from recsys_embed.training.snapshot import (
    LoopState,
    generator_arrays,
    load_generators,
    load_result,
    load_step,
    result_arrays,
    step_arrays,
    weights_digest,
)

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
    checkpoints: Checkpoints | None = None,
    engine: Callable[..., Engine] | None = None,
) -> TrainingResult:
    """Train a model on ratings and return it as plain arrays.

    config: without None (see `resolve_settings`). The learning rate falls along a half cosine to zero over
        `config.epochs`; `epochs` stops the training earlier, on the same curve.
    validate: called with the model after each epoch; with it, the best epoch's model is kept and training stops
        after `config.patience` epochs without a better one. monitor: the metric that decides, and +1 if more is better
        or -1 if less is.
    init: initializes the model, in place of random vectors and biases from the numbers of ratings. checkpoints: where
        the state is saved from time to time, and gone on from. engine: makes what runs it, see `engine_of`.
    Ctrl-C keeps the best model so far; before the end of the first epoch it is passed on.
    Raises TrainingError when the loss is not finite.
    """
    tracker, last, (name, sign) = tracker or Tracker(), epochs or config.epochs or 1, monitor
    run, state = (engine or LocalEngine)(model, ratings, config, init), LoopState()
    stage = None
    if checkpoints is not None:
        how = repr((config, monitor, last, bool(validate)))
        stage = checkpoints.stage("the training of embeddings", ratings.digest(), weights_digest(model), how)
        if stage.saved is not None and stage.saved.done:
            return load_result(stage.saved.arrays, stage.saved.facts)
        if stage.saved is not None:
            run.restore(state, stage.saved)
    state.start_clock()
    with contextlib.nullcontext() if stage is None else stage.deferred():
        try:
            stopped = "epochs"
            while state.epoch < last and stopped == "epochs":
                metrics = run.train_epoch(state, (config.lr or 0.0, config.epochs or 1, last), tracker, stage)
                if not math.isfinite(metrics["loss"]):
                    raise _diverged(int(metrics["batch"]), metrics["loss"], state.epoch + 1, config)
                trained = run.to_arrays() if validate or state.epoch + 1 == last else None
                if validate and trained:
                    metrics |= validate(trained)
                    finite_metric(metrics, name)
                state.end_epoch(metrics, trained, lambda new, old: not validate or sign * new[name] > sign * old[name])
                tracker.metrics(metrics, state.epoch)
                tracker.progress(state.epoch, last, describe(state.history))
                if validate and state.best and config.patience and state.epoch - state.best.epochs >= config.patience:
                    stopped = "patience"
            result = state.result(run.to_arrays, stopped)
            if stage is not None:
                stage.save(*result_arrays(result), done=True)
        except KeyboardInterrupt:
            if not state.history:
                raise
            result = state.result(run.to_arrays, "interrupted")
            log.warning("interrupted in epoch %d: the model of epoch %d is kept", state.epoch + 1, result.epochs)
    return result


class Engine(Protocol):
    """What the training loop runs: it has the model, the ratings and the optimizer, wherever they are."""

    def train_epoch(
        self, state: LoopState, curve: tuple[float, int, int], tracker: Tracker, stage: Stage | None
    ) -> dict[str, float]:
        """Pass over all ratings, or those that are left of the epoch; return the mean loss and the ratings per second.

        curve: the initial learning rate, the epochs until it is zero, and the epochs of this training. If a loss is not
        finite, return the first such loss as "loss" and the number of its batch as "batch".
        """
        ...

    def to_arrays(self) -> EmbeddingModel:
        """Return the present model."""
        ...

    def restore(self, state: LoopState, saved: Saved) -> None:
        """Go on from what `train_epoch` saved in a stage."""
        ...


class LocalEngine:
    """The engine of one process: the step that its device and settings allow, on all ratings."""

    def __init__(
        self,
        model: TwoTowerModel,
        ratings: Ratings,
        config: TrainConfig,
        init: Callable[[TwoTowerModel], None] | None = None,
    ) -> None:
        """Put the model and the ratings on the device, initialize the biases, and choose the step."""
        device = torch.device(choose_device(config.device)[0])
        model.to(device)
        generator = torch.Generator(device).manual_seed(config.seed)
        initialize(model, ratings, config)
        if init is not None:
            init(model.cpu())
            model.to(device)
        self.model, self.disk, self.columns = model, ratings.disk, columns_of(ratings, config, device)
        known = KnownPositives(replace(ratings, hidden=None).excluded(), len(ratings.items), device)
        sizes = len(ratings.users), len(ratings.items)
        self.counts = [torch.bincount(c, minlength=n) for c, n in zip(self.columns[:2], sizes, strict=True)]
        self.step = step_for(model, config)(model, config, known, self.counts[1], generator)
        self.draw_batches = batch_drawer(self.columns, config, generator, ratings.disk)
        self.kind = LOSSES[config.loss or "softmax"].output, scale_of(ratings)

    def to_arrays(self) -> EmbeddingModel:
        """Return the present model."""
        self.step.flush()
        return stored(self.model.to_arrays((self.counts[0], self.counts[1]), *self.kind), self.disk)

    def restore(self, state: LoopState, saved: Saved) -> None:
        """Go on from what `train_epoch` saved in a stage."""
        state.restore(saved, self.step.generator.device)
        load_step(self.step, saved.arrays)

    def train_epoch(
        self, state: LoopState, curve: tuple[float, int, int], tracker: Tracker, stage: Stage | None
    ) -> dict[str, float]:
        """Pass over all ratings, or over those that are left of the epoch; see `Engine`."""
        lr, total, last = curve
        note, start = describe(state.history), time.perf_counter()
        batches = self._drawn(state)
        first, rows = state.batch, 0
        if state.losses is None:
            state.losses = torch.zeros(len(batches), device=self.columns.user.device)
        for number in range(first, len(batches)):
            done = state.epoch + number / len(batches)
            self.step.optimizer.lr = cosine(lr, done, total)
            batch = batches[number]
            state.losses[number] = self.step.step_on_rows(self.columns, batch)
            rows += len(batch)
            if number % 64 == 0:
                tracker.progress(done, last, note)
            if stage is not None and stage.due:
                state.batch = number + 1
                state.save(stage, step_arrays(self.step))
        return summary(state.losses.cpu(), rows / (time.perf_counter() - start))

    def _drawn(self, state: LoopState) -> Sequence[torch.Tensor]:
        """Return the batches of the next epoch: drawn now, or again if a part of it is done."""
        if not state.batch:
            state.drawn = generator_arrays(self.step)
            return self.draw_batches()
        now = generator_arrays(self.step)
        load_generators(self.step, state.drawn)
        batches = self.draw_batches()
        load_generators(self.step, now)
        return batches


def initialize(model: TwoTowerModel, ratings: Ratings, config: TrainConfig) -> None:
    """Set the constant of the scores, or the biases of the items, as they follow from the ratings."""
    objective = LOSSES[config.loss or "softmax"]
    if objective.output == "stars":
        model.offset.fill_(float(ratings.value.mean(dtype=np.float64)))
    else:
        model.items.init_bias(_initial_bias(ratings.item_counts, objective.negatives))


def stored(model: EmbeddingModel, disk: Disk | None) -> EmbeddingModel:
    """Return a model whose vectors are where the ratings are: in memory, or on disk."""
    return model if disk is None else replace(model, users=disk.stored(model.users), items=disk.stored(model.items))


def scale_of(ratings: Ratings) -> tuple[float, float]:
    """Return the least and the highest rating."""
    return float(ratings.value.min()), float(ratings.value.max())


def cosine(lr: float, done: float, total: int) -> float:
    """Return the learning rate after so many of all epochs, on a half cosine."""
    return lr * 0.5 * (1 + math.cos(math.pi * done / total))


def summary(losses: torch.Tensor, samples_per_s: float) -> dict[str, float]:
    """Return the metrics of an epoch whose batches had these losses; see `Engine.train_epoch`."""
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        return {"loss": float(losses[bad[0]]), "batch": float(bad[0]) + 1}
    return {"loss": float(losses.mean()), "samples_per_s": samples_per_s}


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


def _initial_bias(counts: Rows, negatives: str) -> torch.Tensor:
    """Return the initial biases of the items for a ranking loss, [items].

    A softmax over biases alone is popularity, so it starts there; losses with negatives for each rating start at zero.
    An unrated item starts with the bias of the least popular item in both cases, and keeps it, since no step moves it.
    """
    popularity = np.log((counts + 1) / (counts + 1).mean())
    return torch.from_numpy(popularity if negatives != "each" else np.where(counts > 0, 0.0, popularity)).float()


def describe(history: list[dict[str, float]]) -> str:
    """Return the last metrics in a few words."""
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
