"""fit_state: ratings -> a fitted state, for any family of models."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from recsys_embed.config.fields import settings, updated
from recsys_embed.config.recipes import Size, resolve_settings
from recsys_embed.config.settings import ContentConfig, ModelConfig, TrainConfig
from recsys_embed.data.checks import check_trainable
from recsys_embed.data.item_table import align_items
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.user_items import UserItems
from recsys_embed.errors import DataError, SettingError
from recsys_embed.features.item_features import ItemFeatures, encode_items
from recsys_embed.forks import needs_threads
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.hybrid import HybridModel
from recsys_embed.models.registry import family
from recsys_embed.state.content_model import ContentModel
from recsys_embed.state.fitted import FittedState
from recsys_embed.tracking.tracker import Tracker
from recsys_embed.training.checkpoints import Checkpoints
from recsys_embed.training.interface import FitRequest, TrainingResult, Validate
from recsys_embed.training.trend import DEFAULT_TREND, with_trend
from recsys_embed.training.warm_start import warm_start_summary

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

# The settings of a training.
Configs = tuple[ModelConfig, TrainConfig, ContentConfig]


@needs_threads("a training")
def fit_state(
    ratings: Ratings,
    configs: Configs,
    items: pl.DataFrame | pd.DataFrame | None = None,
    *,
    held_out: Ratings | None = None,
    min_rating: float | None = None,
    validate: Validate | None = None,
    monitor: tuple[str, int] = ("ndcg_at_10", 1),
    epochs: int | None = None,
    tracker: Tracker | None = None,
    item_features: ItemFeatures | None = None,
    warm_start: FittedState | None = None,
    initial: EmbeddingModel | None = None,
    checkpoints: Checkpoints | None = None,
) -> tuple[FittedState, TrainingResult]:
    """Train a model on ratings; see `Recommender.fit`. initial, checkpoints: see `FitRequest`.

    Raises DataError for ratings that cannot be learnt from, SettingError for settings that contradict each other.
    """
    if not isinstance(ratings, Ratings):
        raise DataError(f"fit takes Ratings, not a {type(ratings).__name__}: Ratings.from_frame(frame) makes them")
    size = Size(len(ratings.users), len(ratings.items), len(ratings), ratings.is_graph, ratings.weight is not None)
    model, train, content = configs
    model, train = resolve_settings(model, train, size, content.any, content.trains)
    # Rating prediction learns from all ratings; for the other losses, one below the threshold is no positive.
    positives = ratings if train.loss == "mse" else ratings.positives(min_rating)
    check_trainable(positives)
    table = align_items(items, ratings.items)
    if content.any and item_features is None:
        item_features = encode_items(table, content)
    how = tracker, validate, monitor, epochs, warm_start, initial, checkpoints
    request = FitRequest(ratings, positives, model, train, content, item_features, *how)
    result = family(model.model_family or "embeddings").fit(request)
    # With a trend it matters who has a positive, see `FittedState.is_known`.
    of_positives = result.model.has_history_users or bool(model.half_life)
    history_is_positives = of_positives and len(positives) < len(ratings)
    metadata = _metadata(result, (model, train, content), min_rating)
    if positives.weight is not None:
        metadata["mean_weight"] = float(positives.weight.mean(dtype="float64"))
    if warm_start is not None:
        metadata["continued"] = warm_start_summary(warm_start, ratings)
    state = FittedState(
        users=ratings.users,
        items=ratings.items,
        model=result.model,
        seen=ratings.seen(),
        hidden_items=None if ratings.hidden is None else ratings.hiding().seen(),
        held_out=held_out.seen() if held_out is not None else UserItems.empty(len(ratings.users)),
        table=table if item_features is None else table.with_columns(known_words=item_features.coverage),
        item_counts=positives.item_counts,
        metadata=metadata,
        history_items=positives.seen() if history_is_positives else None,
        content=_content_model(item_features, result, content),
    )
    if model.half_life:
        _check_trend(state, positives)
        state = with_trend(state, positives, model.half_life, DEFAULT_TREND if model.trend is None else model.trend)
    return state, result


def _check_trend(state: FittedState, positives: Ratings) -> None:
    """Raise where there can be no trend."""
    if positives.time is None:
        raise DataError("--half-life needs times, and this data has none: name the column with --time-col")
    if state.is_graph or state.model.output == "stars":
        other = "--shared-ids" if state.is_graph else "--loss mse"
        raise SettingError(f"--half-life is about the order of lists, and does not go with {other}")


def _metadata(result: TrainingResult, configs: Configs, min_rating: float | None) -> dict[str, Any]:
    """Return what a state says of its training: complete settings, as they were chosen, and the epochs."""
    model, train, content = configs
    model, train = updated(model, result.chosen), replace(updated(train, result.chosen), device=result.device)
    complete = settings(model, train, content) | {"min_rating": min_rating}
    return {"settings": complete, "epochs": result.epochs, "metrics": {}}


def _content_model(
    item_features: ItemFeatures | None, result: TrainingResult, content: ContentConfig
) -> ContentModel | None:
    model = result.model.embedding if isinstance(result.model, HybridModel) else result.model
    if item_features is None or not isinstance(model, EmbeddingModel) or not model.dim:
        return None
    return ContentModel.of(item_features, model, content.image_size)
