"""The families of models, by name. A new one is its own file and one line here."""

from __future__ import annotations

from importlib import import_module

from recsys_embed.models.base import Family

# name -> where its `Family` stands; it is imported when it is asked for, so that answers load no torch.
FAMILIES: dict[str, str] = {
    "embedding": "recsys_embed.training.embedding:FAMILY",
}


def family(name: str) -> Family:
    """Return a family by its name. Raises KeyError."""
    module, _, attribute = FAMILIES[name].partition(":")
    found: Family = getattr(import_module(module), attribute)
    return found
