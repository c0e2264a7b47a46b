"""What is asked of a family of models that is to be fitted, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recsys_embed.config.settings import ContentConfig, DeviceName, ModelConfig, TrainConfig
from recsys_embed.data.ratings import Ratings
from recsys_embed.models.base import ScoringModel
from recsys_embed.state.fitted import FittedState
from recsys_embed.tracking.tracker import Tracker

if TYPE_CHECKING:
    from recsys_embed.features.item_features import ItemFeatures

# Measures the model after an epoch, on validation data: metrics by name.
Validate = Callable[[Any], dict[str, float]]


@dataclass(frozen=True)
class FitRequest:
    """A training that is asked for; every None of the settings is filled.

    ratings: all that is known; positives: those that the model learns from. item_features: what describes the items.
    validate: called after each epoch, where there are any; monitor: the metric that decides, and 1 where more is better
    or -1 where less is. epochs: end sooner, on the same learning-rate curve. warm_start: a state to begin from.
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


@dataclass
class TrainingResult:
    """What a training came to.

    model: plain arrays of the best epoch. epochs: the best epoch's number, from 1. history: the metrics of every
    epoch. seconds: of the loop. stopped: why it ended: "epochs", "patience" or "interrupted". device: where it ran.
    """

    model: ScoringModel
    epochs: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str = "epochs"
    device: DeviceName = "cpu"
