"""What a training goes on from: the settings of a model, and whether it can be continued so."""

from __future__ import annotations

import copy
import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys_embed.config import PLACES, DataConfig, ModelConfig, TrainConfig
from recsys_embed.errors import DataError, SettingError
from recsys_embed.ratings.vocab import Vocab
from recsys_embed.recommend.bundle import facts_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from recsys_embed.model.model import Model
    from recsys_embed.ratings.table import Ratings
    from recsys_embed.recommend.recommender import Recommender

# A training that goes on needs fewer and smaller steps than one from nothing (experiments/LOG.md).
_EPOCHS, _PACE = 0.25, 0.25
_LEFT_OUT = ("seed", "device", "threads", "valid", "test", *PLACES)


def kept_settings(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a training begins with which continues the model of these facts, by name.

    They are the model's own, of data, model and training, with a quarter of its epochs and of its learning rate.
    """
    known = {f.name for config in (DataConfig, ModelConfig, TrainConfig) for f in fields(config)} - set(_LEFT_OUT)
    kept = {name: value for name, value in facts.get("settings", {}).items() if name in known}
    if kept.get("method") == "adam":
        kept["epochs"] = math.ceil(_EPOCHS * kept["epochs"])
        kept["lr"] = _PACE * kept["lr"]
    return kept


def settings_in(folder: str | None) -> dict[str, Any]:
    """Return the same of the model in a folder, or nothing without one. Raises BundleError."""
    return kept_settings(facts_of(Path(folder))) if folder else {}


def configs(facts: dict[str, Any], **given: Any) -> tuple[ModelConfig, TrainConfig]:
    """Return the same as a ModelConfig and a TrainConfig; what is given wins."""
    chosen = kept_settings(facts) | given
    model, train = ({f.name for f in fields(config)} for config in (ModelConfig, TrainConfig))
    unknown = sorted(set(given) - model - train)
    if unknown:
        raise SettingError(f"there is no setting {unknown[0]!r}; there are {', '.join(sorted(model | train))}")
    pick = lambda names: {name: value for name, value in chosen.items() if name in names}  # noqa: E731
    return ModelConfig(**pick(model)), TrainConfig(**pick(train))


def check_continues(start: Recommender, model: ModelConfig, train: TrainConfig, shared: bool, described: bool) -> None:
    """Raise SettingError where a training with these settings, all filled, cannot go on from a model."""
    was, plain = start.facts.get("settings", {}), start.plain
    against = []
    if train.method == "gibbs":
        against.append("the mean of gibbs samples does not go on from vectors: train again, or with --method adam")
    if described or start.described is not None:
        against.append("a model with descriptions keeps no net that reads them: train it again")
    if model.dim != plain.dim:
        against.append(f"it has vectors of {plain.dim}, not {model.dim}")
    for name, other, ours in (
        ("scorer", "mlp" if plain.layers else "dot", model.scorer),
        ("hidden", was.get("hidden"), model.hidden if plain.layers else was.get("hidden")),
        ("cosine", plain.unit, bool(model.cosine)),
        ("user-tower", was.get("user_tower") or "id", model.user_tower or "id"),
        ("shared-ids", start.shared, shared),
        ("loss mse", plain.link == "stars", train.loss == "mse"),
    ):
        if other != ours:
            against.append(f"its {name} is {other}, not {ours}")
    if plain.unit and model.user_tower == "both":
        against.append("of users of --user-tower both with --cosine their own part is not known")
    if against:
        raise SettingError(f"this model cannot be continued so: {'; '.join(against)}")


def check_knows(start: Recommender, users: Vocab, items: Vocab) -> None:
    """Raise DataError where ratings lack most of a model's users or items: a training forgets whom it does not see."""
    for known, now in ((start.users, users), (start.items, items)):
        there = int((now.rows(known.series, missing="negative") >= 0).sum())
        if 2 * there < len(known):
            raise DataError(
                f"the ratings have {there:,} of the {len(known):,} {known.name}s of the model that is continued, and "
                "the others would be lost: give all ratings, with new ones by --add FILE (Recommender.update takes "
                "new ones alone)"
            )


def brought_up(start: Recommender, ratings: Ratings) -> Recommender:
    """Return a model that knows the new users of these ratings by what they rated of its items; `start` is left alone.

    Its own users are not moved: the training does that.
    """
    begun = copy.copy(start)
    begun.facts = dict(start.facts)
    if start.shared:
        return begun
    if ratings.users.is_text and not start.users.is_text:  # somebody new whose id is no integer made all of them text
        begun.users = Vocab(start.users.series.cast(pl.String), start.users.name)
    users, items = (
        known.rows(now.series, missing="negative")
        for known, now in ((start.users, ratings.users), (start.items, ratings.items))
    )
    return begun.update(ratings.take((users[ratings.user] < 0) & (items[ratings.item] >= 0)))


def going_on(
    start: Recommender, model: ModelConfig, train: TrainConfig, ratings: Ratings, described: bool
) -> Callable[[Model], None]:
    """Return what puts a trained model into one that is not. Raises SettingError where that cannot be."""
    from recsys_embed.train.warm import begin_from

    check_continues(start, model, train, ratings.shared, described)
    begun = brought_up(start, ratings)
    users, items = (
        known.rows(now.series, missing="negative")
        for known, now in ((begun.users, ratings.users), (begun.items, ratings.items))
    )
    return lambda net: begin_from(net, begun.plain, users, items)


def went_on(start: Recommender, ratings: Ratings) -> dict[str, Any]:
    """Say what was continued, and how much of the ratings' users and items was not there."""
    known = {
        f"new_{name}s": int((old.rows(now.series, missing="negative") < 0).sum())
        for name, old, now in (("user", start.users, ratings.users), ("item", start.items, ratings.items))
    }
    return {name: start.facts[name] for name in ("created", "run_id", "epochs") if name in start.facts} | known
