"""Warm starts: the settings that a training takes over from a model, and whether it can begin from it."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys_embed.config.fields import NON_RESULT_SETTINGS
from recsys_embed.config.settings import DataConfig, ModelConfig, TrainConfig
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError, SettingError
from recsys_embed.state.update import update
from recsys_embed.storage.model_folders import facts_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from recsys_embed.data.ratings import Ratings
    from recsys_embed.nets.two_tower import Model
    from recsys_embed.state.fitted import FittedState

# A warm start needs fewer and smaller steps than a training from scratch (experiments/LOG.md).
_EPOCH_SHARE, _LR_SHARE = 0.25, 0.25
_LEFT_OUT = ("seed", "device", "threads", "valid", "test", *NON_RESULT_SETTINGS)


def kept_settings(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the settings, by name, of a training that is warm-started from the model with this metadata.

    They are the model's own settings of data, model and training, with a quarter of its epochs and learning rate.
    """
    known = {f.name for config in (DataConfig, ModelConfig, TrainConfig) for f in fields(config)} - set(_LEFT_OUT)
    kept = {name: value for name, value in metadata.get("settings", {}).items() if name in known}
    if kept.get("method") == "adam":
        kept["epochs"] = math.ceil(_EPOCH_SHARE * kept["epochs"])
        kept["lr"] = _LR_SHARE * kept["lr"]
    return kept


def settings_in(folder: str | None) -> dict[str, Any]:
    """Return the same of the model in a folder, or nothing without one. Raises BundleError."""
    return kept_settings(facts_of(Path(folder))) if folder else {}


def warm_start_configs(metadata: dict[str, Any], **given: Any) -> tuple[ModelConfig, TrainConfig]:
    """Return the same as a ModelConfig and a TrainConfig; what is given wins."""
    chosen = kept_settings(metadata) | given
    model, train = ({f.name for f in fields(config)} for config in (ModelConfig, TrainConfig))
    unknown = sorted(set(given) - model - train)
    if unknown:
        raise SettingError(f"there is no setting {unknown[0]!r}; there are {', '.join(sorted(model | train))}")
    pick = lambda names: {name: value for name, value in chosen.items() if name in names}  # noqa: E731
    return ModelConfig(**pick(model)), TrainConfig(**pick(train))


def check_continues(start: FittedState, model: ModelConfig, train: TrainConfig, shared: bool, described: bool) -> None:
    """Raise SettingError where a training with these settings, all filled, cannot be warm-started from a state."""
    previous, vectors = start.metadata.get("settings", {}), start.embeddings
    against = []
    if train.method == "gibbs":
        against.append("the mean of gibbs samples does not go on from vectors: train again, or with --method adam")
    if described or start.content_model is not None:
        against.append("a model with descriptions keeps no net that reads them: train it again")
    if model.dim != vectors.dim:
        against.append(f"it has vectors of {vectors.dim}, not {model.dim}")
    for name, other, ours in (
        ("scorer", "mlp" if vectors.layers else "dot", model.scorer),
        ("hidden", previous.get("hidden"), model.hidden if vectors.layers else previous.get("hidden")),
        ("cosine", vectors.normalized, bool(model.cosine)),
        ("user-tower", previous.get("user_tower") or "id", model.user_tower or "id"),
        ("shared-ids", start.shared, shared),
        ("loss mse", vectors.output == "stars", train.loss == "mse"),
    ):
        if other != ours:
            against.append(f"its {name} is {other}, not {ours}")
    if vectors.normalized and model.user_tower == "both":
        against.append("of users of --user-tower both with --cosine their own part is not known")
    if against:
        raise SettingError(f"this model cannot be continued so: {'; '.join(against)}")


def check_coverage(start: FittedState, users: Vocab, items: Vocab) -> None:
    """Raise DataError where ratings lack most of a model's users or items: training forgets those that it lacks."""
    for known, now in ((start.users, users), (start.items, items)):
        there = int((now.rows(known.series, missing="negative") >= 0).sum())
        if 2 * there < len(known):
            raise DataError(
                f"the ratings have {there:,} of the {len(known):,} {known.name}s of the model that is continued, and "
                "the others would be lost: give all ratings, with new ones by --add FILE (Recommender.update takes "
                "new ones alone)"
            )


def with_new_users(start: FittedState, ratings: Ratings) -> FittedState:
    """Return a state that knows the new users of these ratings by what they rated of its items.

    Its own users stay as they are: training moves them.
    """
    if start.shared:
        return start
    if ratings.users.is_text and not start.users.is_text:  # one new id that is no integer made all of them text
        start = start.but(users=Vocab(start.users.series.cast(pl.String), start.users.name))
    users, items = (
        known.rows(now.series, missing="negative")
        for known, now in ((start.users, ratings.users), (start.items, ratings.items))
    )
    return update(start, ratings.take((users[ratings.user] < 0) & (items[ratings.item] >= 0)))


def make_warm_start(
    start: FittedState, model: ModelConfig, train: TrainConfig, ratings: Ratings, described: bool
) -> Callable[[Model], None]:
    """Return what puts a trained model into an untrained one. Raises SettingError where that cannot be."""
    from recsys_embed.training.warm_start import warm_start_from

    check_continues(start, model, train, ratings.shared, described)
    state = with_new_users(start, ratings)
    users, items = (
        known.rows(now.series, missing="negative")
        for known, now in ((state.users, ratings.users), (state.items, ratings.items))
    )
    return lambda net: warm_start_from(net, state.embeddings, users, items)


def warm_start_summary(start: FittedState, ratings: Ratings) -> dict[str, Any]:
    """Return what was continued, and how many of the ratings' users and items were new."""
    new = {
        f"new_{name}s": int((old.rows(now.series, missing="negative") < 0).sum())
        for name, old, now in (("user", start.users, ratings.users), ("item", start.items, ratings.items))
    }
    return {name: start.metadata[name] for name in ("created", "run_id", "epochs") if name in start.metadata} | new
