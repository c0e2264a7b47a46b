"""Warm starts: the settings that a training inherits from a model, and whether it can start from that model."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys_embed.config.fields import NON_RESULT_SETTINGS
from recsys_embed.config.settings import DataConfig, ModelConfig, TrainConfig
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError, SettingError
from recsys_embed.state.update import update
from recsys_embed.storage.model_folders import read_metadata
from recsys_embed.tracking.model_registry import resolve_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from recsys_embed.data.ratings import Ratings
    from recsys_embed.nets.two_tower import TwoTowerModel
    from recsys_embed.state.fitted import FittedState

# A warm start needs fewer and smaller steps than a training from scratch (experiments/LOG.md).
_EPOCH_SHARE, _LR_SHARE = 0.25, 0.25
_NOT_INHERITED = (
    "seed", "device", "threads", "engine", "sharding",
    "valid", "test", "windows", "half_life", "trend", *NON_RESULT_SETTINGS
)  # fmt: skip


def inherited_settings(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the settings, by name, of a training that is warm-started from the model with this metadata.

    They are the model's own settings of data, model and training, with a quarter of its epochs and learning rate.
    """
    names = {f.name for config in (DataConfig, ModelConfig, TrainConfig) for f in fields(config)} - set(_NOT_INHERITED)
    inherited = {name: value for name, value in metadata.get("settings", {}).items() if name in names}
    if inherited.get("method") == "adam":
        inherited |= shortened(inherited["epochs"], inherited["lr"])
    return inherited


def shortened(epochs: int, lr: float) -> dict[str, Any]:
    """Return the settings, by name, of a training that starts from trained vectors."""
    return {"epochs": math.ceil(_EPOCH_SHARE * epochs), "lr": _LR_SHARE * lr}


def inherited_settings_of(model: str | None, tracking_uri: str | None = None) -> dict[str, Any]:
    """Return the inherited settings of a model by its folder or URI, or none without one. Raises BundleError and, for
    an URI, the errors of `model_folder`."""
    return inherited_settings(read_metadata(resolve_folder(model, tracking_uri))) if model else {}


def warm_start_configs(metadata: dict[str, Any], **given: Any) -> tuple[ModelConfig, TrainConfig]:
    """Return the inherited settings as a ModelConfig and a TrainConfig; the given settings take precedence."""
    chosen = inherited_settings(metadata) | given
    model, train = ({f.name for f in fields(config)} for config in (ModelConfig, TrainConfig))
    unknown = sorted(set(given) - model - train)
    if unknown:
        raise SettingError(f"there is no setting {unknown[0]!r}; there are {', '.join(sorted(model | train))}")
    pick = lambda names: {name: value for name, value in chosen.items() if name in names}  # noqa: E731
    return ModelConfig(**pick(model)), TrainConfig(**pick(train))


def check_warm_start(
    previous: FittedState, model: ModelConfig, train: TrainConfig, shared: bool, has_content: bool
) -> None:
    """Raise SettingError where a training with these complete settings cannot be warm-started from a state."""
    old_settings, vectors = previous.metadata.get("settings", {}), previous.embeddings
    reasons = []
    if train.method == "gibbs":
        reasons.append("gibbs samples cannot start from vectors: train from scratch, or with --method adam")
    if has_content or previous.content_model is not None:
        reasons.append("a model with descriptions does not keep the net that encodes them: train from scratch")
    if model.dim != vectors.dim:
        reasons.append(f"it has vectors of {vectors.dim}, not {model.dim}")
    old_layers = old_settings.get("mlp_layers")
    for name, old, new in (
        ("scorer", "mlp" if vectors.layers else "dot", model.scorer),
        ("mlp-layers", old_layers, model.mlp_layers if vectors.layers else old_layers),
        ("cosine", vectors.normalized, bool(model.cosine)),
        ("user-tower", old_settings.get("user_tower") or "id", model.user_tower or "id"),
        ("shared-ids", previous.is_graph, shared),
        ("loss mse", vectors.output == "stars", train.loss == "mse"),
    ):
        if old != new:
            reasons.append(f"its {name} is {old}, not {new}")
    if vectors.normalized and model.user_tower == "both":
        reasons.append("with --user-tower both and --cosine the users' own vectors are not kept")
    if reasons:
        raise SettingError(f"cannot warm-start from this model: {'; '.join(reasons)}")


def check_coverage(previous: FittedState, users: Vocab, items: Vocab) -> None:
    """Raise DataError where the ratings lack most of a model's users or items, which the training would forget."""
    for old, new in ((previous.users, users), (previous.items, items)):
        present = int((new.rows(old.series, missing="negative") >= 0).sum())
        if 2 * present < len(old):
            raise DataError(
                f"the ratings have {present:,} of the {len(old):,} {old.name}s of the model to start from, and the "
                "others would be lost: give all ratings, and new ones by --extra-ratings FILE (Recommender.update "
                "takes new ones alone)"
            )


def with_new_users(previous: FittedState, ratings: Ratings) -> FittedState:
    """Return a state that includes the new users in these ratings, folded in by what they rated of its items.

    Its own users stay as they are: training updates them.
    """
    if previous.is_graph:
        return previous
    if ratings.users.is_text and not previous.users.is_text:  # a single new id that is no integer makes all ids text
        previous = previous.replace(users=Vocab(previous.users.series.cast(pl.String), previous.users.name))
    users, items = (
        old.rows(new.series, missing="negative")
        for old, new in ((previous.users, ratings.users), (previous.items, ratings.items))
    )
    return update(previous, ratings.take((users[ratings.user] < 0) & (items[ratings.item] >= 0)))


def warm_start_initializer(
    previous: FittedState, model: ModelConfig, train: TrainConfig, ratings: Ratings, has_content: bool
) -> Callable[[TwoTowerModel], None]:
    """Return a function that initializes an untrained model from a trained one. Raises SettingError if none can."""
    from recsys_embed.training.warm_start_weights import copy_weights

    check_warm_start(previous, model, train, ratings.is_graph, has_content)
    state = with_new_users(previous, ratings)
    users, items = (
        old.rows(new.series, missing="negative")
        for old, new in ((state.users, ratings.users), (state.items, ratings.items))
    )
    return lambda net: copy_weights(net, state.embeddings, users, items)


def warm_start_summary(previous: FittedState, ratings: Ratings) -> dict[str, Any]:
    """Return which model a training started from, and how many of the ratings' users and items were new."""
    new = {
        f"new_{name}s": int((old.rows(new.series, missing="negative") < 0).sum())
        for name, old, new in (("user", previous.users, ratings.users), ("item", previous.items, ratings.items))
    }
    summary = {name: previous.metadata[name] for name in ("created", "run_id", "epochs") if name in previous.metadata}
    return summary | new
