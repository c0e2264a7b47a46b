"""What a family of models takes to be fitted, and what it returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys_embed.config.settings import ContentConfig, DeviceName, ModelConfig, TrainConfig
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import SettingError
from recsys_embed.models.base import ScoringModel
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.state.fitted import FittedState
from recsys_embed.tracking.tracker import Tracker
from recsys_embed.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from recsys_embed.features.item_features import ItemFeatures

# Measures the model after an epoch on validation data; returns metrics by name.
Validate = Callable[[Any], dict[str, float]]


def finite_metric(metrics: dict[str, float], name: str) -> float:
    """Return a validation metric. Raises SettingError if it is not finite."""
    if not math.isfinite(metrics[name]):
        raise SettingError(f"the validation metric {name} is {metrics[name]}: is there validation data?")
    return metrics[name]


# Validation metrics that differ by no more than this part of the best are as good.
_TOLERANCE = 0.005


def as_good(values: Sequence[float]) -> list[int]:
    """Return the positions of the validation metrics that are as good as the best."""
    return np.flatnonzero(np.array(values) >= max(values) - _TOLERANCE * abs(max(values))).tolist()


@dataclass(frozen=True)
class FitRequest:
    """The input of a training; the settings have no None left to fill.

    ratings: all ratings; positives: those that the model learns from. item_features: the features of the items.
    validate: called after each epoch, if given; monitor: the metric that decides, and 1 if more is better or -1 if less
    is. epochs: stop earlier, on the same learning-rate curve. warm_start: a state to start from. initial: embeddings of
    the same users and items to train on from, with fewer and smaller steps. checkpoints: where the training saves its
    state.
    """

    ratings: Ratings
    positives: Ratings
    model: ModelConfig
    train: TrainConfig
    content: ContentConfig
    item_features: ItemFeatures | None = None
    tracker: Tracker | None = None
    validate: Validate | None = None
    monitor: tuple[str, int] = ("ndcg_at_10", 1)
    epochs: int | None = None
    warm_start: FittedState | None = None
    initial: EmbeddingModel | None = None
    checkpoints: Checkpoints | None = None


@dataclass
class TrainingResult:
    """The output of a training.

    model: plain arrays of the best epoch. epochs: the number of the best epoch, from 1. history: the metrics of every
    epoch. seconds: the time of the training loop. stopped: why it ended: "epochs", "patience" or "interrupted". device:
    where it ran. chosen: settings of model and training that were chosen on validation data, by name.
    """

    model: ScoringModel
    epochs: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str = "epochs"
    device: DeviceName = "cpu"
    chosen: dict[str, Any] = field(default_factory=dict)
