"""The engines of the training loop by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from recsys_embed.config.settings import EngineName, ModelConfig

if TYPE_CHECKING:
    from recsys_embed.training.trainer import Engine

# name -> its class, imported on demand: TorchRec is an extra.
ENGINES: dict[EngineName, str] = {
    "local": "recsys_embed.training.trainer:LocalEngine",
    "torchrec": "recsys_embed.distributed.engine:ShardedEngine",
}


def engine_of(name: EngineName, settings: ModelConfig) -> Callable[..., Engine]:
    """Return what makes an engine from a model with these settings, its ratings, a config and an initializer."""
    module, _, attribute = ENGINES[name].partition(":")
    engine: Callable[..., Engine] = getattr(import_module(module), attribute)
    return engine if name == "local" else partial(engine, settings)
