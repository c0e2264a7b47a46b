"""The families of models by name. To add one, add a file and a line here."""

from __future__ import annotations

from importlib import import_module

from recsys_embed.errors import SettingError
from recsys_embed.models.base import Family

# name -> the location of its `Family`, imported on demand so that answering loads no torch.
FAMILIES: dict[str, str] = {
    "auto": "recsys_embed.training.hybrid:AUTO",
    "embeddings": "recsys_embed.training.embedding:FAMILY",
    "neighbours": "recsys_embed.training.hybrid:NEIGHBOURS",
    "ease": "recsys_embed.training.hybrid:EASE",
    "both": "recsys_embed.training.hybrid:BOTH",
}


def family(name: str) -> Family:
    """Return a family by its name. Raises SettingError for an unknown one."""
    if name not in FAMILIES:
        raise SettingError(f"model-family must be one of {', '.join(FAMILIES)}, got {name!r}")
    module, _, attribute = FAMILIES[name].partition(":")
    result: Family = getattr(import_module(module), attribute)
    return result
