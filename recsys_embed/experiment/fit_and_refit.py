"""Fit on train with early stopping, then refit on train and validation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from recsys_embed.config.fields import settings, updated
from recsys_embed.config.settings import ContentConfig, DataConfig, ModelConfig, RunConfig, TrainConfig
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import Split
from recsys_embed.evaluation.cold_start import cold_only_metrics
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.evaluation.metrics import rmse
from recsys_embed.evaluation.training_report import evaluate_on
from recsys_embed.experiment.choose_trend import choose_trend
from recsys_embed.experiment.prepare import Prepared
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.ranker import Ranker
from recsys_embed.state.fitted import FittedState
from recsys_embed.tracking.tracker import ProgressOnly, Tracker
from recsys_embed.training.checkpoints import Checkpoints
from recsys_embed.training.fit import fit_state
from recsys_embed.training.interface import TrainingResult
from recsys_embed.training.trend import with_trend

log = logging.getLogger("recsys_embed")


class Configs(NamedTuple):
    """All settings of a run."""

    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    run: RunConfig
    content: ContentConfig


class Fit(NamedTuple):
    """A fitted state, its training result, the ratings it was fitted on, and the validation metrics before a refit.

    again: fits on other rows in the same way, with the settings and the epochs that were chosen.
    """

    state: FittedState
    result: TrainingResult
    rows: Ratings
    valid: dict[str, Any] | None
    again: Callable[[Ratings, Tracker], FittedState]


def fit_and_refit(
    prepared: Prepared,
    configs: Configs,
    tracker: Tracker,
    start: FittedState | None = None,
    checkpoints: Checkpoints | None = None,
) -> Fit:
    """Fit on train with early stopping, then refit on train and validation.

    The second fit trains the vectors of the first one on, or starts again for the best number of epochs where it is not
    known that training on is as good. start: a state to warm-start both from. checkpoints: where all save their state.
    """
    (data, model, train, run, content), split = configs, prepared.split
    tracker.params(settings(*configs))

    def fit(
        rows: Ratings, held_out: Ratings | None, chosen: Mapping[str, Any], **given: Any
    ) -> tuple[FittedState, TrainingResult]:
        return fit_state(
            rows, (updated(model, chosen), updated(train, chosen), content), prepared.dataset.items, held_out=held_out,
            min_rating=data.min_rating, item_features=prepared.item_features, warm_start=start,
            checkpoints=checkpoints, **given,
        )  # fmt: skip

    valid, held_out = split.valid.positives(data.min_rating), split.valid.concat(split.test)
    if not len(valid):
        only = fit(split.train, held_out, {}, tracker=tracker)
        return Fit(*only, split.train, None, lambda rows, bar: fit(rows, None, only[1].chosen, tracker=bar)[0])
    validate, (name, sign) = validation(split, data, train)
    first, result = fit(split.train, held_out, {}, validate=validate, monitor=(name, sign), tracker=tracker)
    first = _choose_trend(first, result, split, configs)
    tracker.params({f"chosen_{name}": value for name, value in result.chosen.items()})
    report = evaluate_on(first, valid, run, split.valid).summary()
    _log_best_epoch(result, name)
    how: dict[str, Any] = {"epochs": result.epochs}
    trains_on = start is None and not content.trains and can_train_on(first, result)
    if trains_on:
        how = {"initial": _trained_vectors(first)}

    def fit_again(rows: Ratings, bar: Tracker) -> FittedState:
        state = fit(rows, None, result.chosen, tracker=bar, **how)[0]
        state.metadata["epochs"] = result.epochs
        return state

    first_fit = Fit(first, result, split.train, report, fit_again)
    if not train.refit or result.stopped == "interrupted":
        return first_fit
    rows = prepared.refit_rows
    log.info("fitting %s", "on, with the validation ratings too" if trains_on else "again, on train and validation")
    try:
        state, refit = fit(rows, split.test, result.chosen, tracker=ProgressOnly(tracker), **how)
        interrupted = refit.stopped == "interrupted"
    except KeyboardInterrupt:
        interrupted = True
    if interrupted:
        log.warning("the fit on train and validation was interrupted: the model fitted on train alone is kept")
        return first_fit
    refit.history, refit.chosen, refit.epochs = result.history, result.chosen, result.epochs
    state.metadata["epochs"] = result.epochs
    return Fit(state, refit, rows, report, fit_again)


def _choose_trend(first: FittedState, result: TrainingResult, split: Split, configs: Configs) -> FittedState:
    """Return the first fit with the trend that is best on validation data, which is noted among what was chosen."""
    result.chosen |= (trend := choose_trend(first, split, configs.data, configs.model, configs.train.seed))
    if trend.get("half_life"):
        first = with_trend(first, split.train.positives(configs.data.min_rating), **trend)
    first.metadata["settings"] |= trend
    return first


def _log_best_epoch(result: TrainingResult, metric: str) -> None:
    if result.history:  # a closed form has no epochs
        log.info(
            "best epoch %d of %d (%s): validation %s %.4f",
            result.epochs, len(result.history), result.stopped, metric, result.history[result.epochs - 1][metric],
        )  # fmt: skip


def _trained_vectors(first: FittedState) -> EmbeddingModel:
    """Return the embeddings with zeros for unrated items, whose vectors come from their descriptions, if at all."""
    embeddings = first.embeddings
    items = np.where(first.item_counts[:, None] > 0, embeddings.items, np.float32(0))
    return replace(embeddings, items=items)


# A best epoch before this share of them is one from which the training had gone too far.
_LATE = 0.75


def can_train_on(first: FittedState, result: TrainingResult) -> bool:
    """Return whether the second fit trains the first one's vectors on.

    It does where that was found to be as good (experiments/LOG.md): the vectors of users and items, compared by cosine
    in a softmax, that were still getting better at the end.
    """
    given = first.metadata["settings"]
    of_ids = given["embeddings"] and given["user_tower"] == "id" and not first.is_graph
    is_cosine = given["cosine"] and given["loss"] in ("softmax", "sampled-softmax")
    return bool(of_ids and is_cosine) and result.epochs >= _LATE * len(result.history)


# Epochs and settings are compared on at most this many users; the reported metrics take more.
_VALIDATION_USERS = 5_000


def validation(
    split: Split, data: DataConfig, train: TrainConfig
) -> tuple[Callable[[EmbeddingModel], dict[str, float]], tuple[str, int]]:
    """Return the function that measures a model after each epoch, and the metric to monitor with its sign.

    The sign is +1 where higher is better and -1 where lower is.
    """
    valid, seen = split.valid.positives(data.min_rating), split.train.excluded()
    counts = split.train.positives(data.min_rating).item_counts
    valid = valid.of_random_users(_VALIDATION_USERS, train.seed)

    def measure_ratings(model: EmbeddingModel) -> dict[str, float]:
        return {"rmse": rmse(model.predict(split.valid.user, split.valid.item), split.valid.value)}

    def measure_ranking(model: EmbeddingModel) -> dict[str, float]:
        ranker = Ranker.of(model)
        metrics = {"ndcg_at_10": rank_metrics(ranker, valid, seen, counts, (10,)).metrics["ndcg_at_10"]}
        if data.split == "cold-items":
            metrics["cold_ndcg_at_10"] = cold_only_metrics(ranker, valid, counts)["ndcg_at_10"]
        return metrics

    return (measure_ratings, ("rmse", -1)) if train.loss == "mse" else (measure_ranking, ("ndcg_at_10", 1))
