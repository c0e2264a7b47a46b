"""Old names of settings, still accepted in options, requests, presets and model folders; and those of Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recsys_embed.errors import SettingError

# old name -> new name, of settings and of options that are no setting.
RENAMED: dict[str, str] = {
    "add": "extra_ratings",
    "among": "candidates",
    "clip": "max_grad_norm",
    "content_pace": "content_lr_scale",
    "continue": "warm_start",
    "family": "model_family",
    "fix": "freeze",
    "hidden": "mlp_layers",
    "max_ratings": "max_support",
    "min_ratings": "min_support",
    "moments": "second_moment",
    "rated": "ratings",
    "start": "warm_start",
    "watch": "reload_interval",
    "weight": "sample_weight",
}

# Old attributes and methods of `Recommender`, for an error that helps.
RENAMED_ATTRIBUTES: dict[str, str] = {
    "blocks": "state",
    "counts": "item_counts",
    "described": "content_model",
    "facts": "metadata",
    "fitted": "training",
    "fold": "fold_in",
    "held": "held_out",
    "hidden": "excluded",
    "plain": "model",
    "shared": "is_graph",
    "vector_of": "user_vector",
    "words_near": "nearest_tokens",
}


def current_name(name: str) -> str:
    """Return the current name of a setting."""
    return RENAMED.get(name, name)


def current_names(values: Mapping[str, Any], old_names: Mapping[str, str] = RENAMED) -> dict[str, Any]:
    """Return values under their current names, in the same order. Raises SettingError if both names of one are given.

    old_names: old -> new names.
    """
    both = next((name for name in values if old_names.get(name) in values), None)
    if both is not None:
        raise SettingError(f"{both} is the old name of {old_names[both]}: give one of them")
    current = {old_names.get(name, name): value for name, value in values.items()}
    return current | ({"model_family": "embeddings"} if current.get("model_family") == "embedding" else {})


def with_current_names(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a training that a file holds, with "settings" under their current names."""
    settings = facts.get("settings")
    if not isinstance(settings, Mapping):
        return facts
    return {**facts, "settings": current_names(settings)}
