"""A trial of a search: its settings, its fit on train, and what stops it early. It never gets the test part."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from recsys_embed.config.fields import settings, updated
from recsys_embed.config.recipes import Size, resolve_settings
from recsys_embed.config.settings import ContentConfig, ModelConfig, TrainConfig
from recsys_embed.config.tuning import TuneConfig
from recsys_embed.errors import SettingError
from recsys_embed.experiment.fit_and_refit import validation
from recsys_embed.experiment.prepare import Prepared, size_of
from recsys_embed.recommender import Recommender
from recsys_embed.storage.json import jsonable
from recsys_embed.tracking.progress import BarTracker
from recsys_embed.tracking.tracker import Stop, Tracker
from recsys_embed.tuning.space import Range

log = logging.getLogger("recsys_embed")

_DECAYS = ("user_decay", "item_decay", "bias_decay", "content_decay")
# Settings that describe the machine, or that a trial's value does not depend on.
_MACHINE_SETTINGS = ("threads", "device", "engine", "sharding", "nproc", "data_dir", "offline")
# A trial is compared with the others after each of this many equal parts of its epochs.
_N_STAGES = 10


class TrialSettings(NamedTuple):
    """The settings of a trial, with None filled in from the recipe."""

    model: ModelConfig
    train: TrainConfig


def baseline_settings(
    model: ModelConfig, train: TrainConfig, size: Size, has_content: bool, trains_content: bool
) -> TrialSettings:
    """Return the settings of the first trial: the given ones and the recipe's.

    Where the recipe's weight decay is too strong for the learning rate that was given, it is reduced.
    """
    try:
        return TrialSettings(*resolve_settings(model, train, size, has_content, trains_content))
    except SettingError:
        if train.lr is None:
            raise
        default = resolve_settings(model, replace(train, lr=None), size, has_content, trains_content)[1]
        max_decay = float(f"{0.9 / train.lr:.3g}")
        too_strong = [n for n in _DECAYS if getattr(train, n) is None and (getattr(default, n) or 0) * train.lr >= 1]
        train = updated(train, dict.fromkeys(too_strong, max_decay))
        baseline = TrialSettings(*resolve_settings(model, train, size, has_content, trains_content))
        log.warning(
            "--lr %g is too high for the usual decay: the search starts with a decay of %g", train.lr, max_decay
        )
        return baseline


class TuningObjective:
    """Fits and measures trials. prepared: the data. baseline: the settings that the search starts from.

    metric: the validation metric; sign: +1 if higher is better, -1 if lower is.
    """

    def __init__(self, prepared: Prepared, baseline: TrialSettings, content: ContentConfig, config: TuneConfig) -> None:
        # From here on there is no test part that could leak.
        self.split = prepared.split._replace(test=prepared.split.test.take(np.zeros(0, np.int64)))
        self.data, self.items, self.item_features = prepared.data, prepared.dataset.items, prepared.item_features
        self.baseline, self.content, self.config = baseline, content, config
        self.validate, (self.metric, self.sign) = validation(self.split, self.data, baseline.train)

    def settings(self, tuned: dict[str, Any]) -> TrialSettings:
        """Return the settings of a trial. Raises SettingError if they contradict each other."""
        configs = updated(self.baseline.model, tuned), updated(self.baseline.train, tuned)
        return TrialSettings(*resolve_settings(*configs, size_of(self.split), self.content.any, self.content.trains))

    def fit(self, chosen: TrialSettings, tracker: Tracker) -> tuple[float, int]:
        """Fit on train, like the first fit of `recsys train`; return the best epoch's metric, and its number."""
        fitted = Recommender(chosen.model, chosen.train, self.content).fit(
            self.split.train,
            self.items,
            min_rating=self.data.min_rating,
            validate=self.validate,
            monitor=(self.metric, self.sign),
            tracker=tracker,
            item_features=self.item_features,
        )
        if fitted.training.stopped == "interrupted":  # the second Ctrl-C: half a trial has no value
            raise KeyboardInterrupt
        return fitted.training.history[fitted.training.epochs - 1][self.metric], fitted.training.epochs


def study_facts(prepared: Prepared, objective: TuningObjective, space: Mapping[str, Range]) -> dict[str, Any]:
    """Return what identifies a search: its data without the test part, its starting point, and what it tunes."""
    chosen = settings(prepared.data, objective.content, *objective.baseline)
    return jsonable(
        {
            "dataset": prepared.data.dataset,
            "digest": prepared.split.train.digest(),
            "valid_digest": prepared.split.valid.digest(),
            "metric": objective.metric,
            "moved": list(space),
            "settings": {name: value for name, value in chosen.items() if name not in _MACHINE_SETTINGS},
        }
    )


class TrialMonitor(Tracker):
    """Stops a trial: when time is up, on Ctrl-C, or if it is worse than the median of the others.

    should_continue: (stage, best value so far) -> whether to go on. stop_reason: returns why every trial must stop now,
    or "". pruned: why this trial was stopped by comparison, or "".
    """

    def __init__(
        self,
        objective: TuningObjective,
        epochs: int,
        should_continue: Callable[[int, float], bool],
        stop_reason: Callable[[], str],
        bar: BarTracker,
    ) -> None:
        self.objective, self.epochs, self.bar = objective, epochs, bar
        self.should_continue, self.stop_reason = should_continue, stop_reason
        self.best, self.stage, self.pruned = -math.inf, 0, ""

    def progress(self, done: float, total: float, note: str = "", unit: str = "epoch") -> None:
        """Show the progress, and stop where `stop_reason` says so."""
        self.bar.bar.update(self.bar.task, description=unit, completed=done, total=total, note=note)
        if reason := self.stop_reason():
            raise Stop(reason)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Compare the best epoch so far with other trials at the same stage."""
        sign = self.objective.sign
        self.best = max(self.best, sign * values[self.objective.metric])
        stage = _N_STAGES * (step or 0) // self.epochs
        if self.stage < stage < _N_STAGES:
            self.stage = stage
            if not self.should_continue(stage, sign * self.best):
                self.pruned = f"ended early, after epoch {step} of {self.epochs}"
                raise Stop(self.pruned)
