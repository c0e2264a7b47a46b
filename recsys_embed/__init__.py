"""Recommendations from collaborative-filtering embeddings.

The public names are loaded on first use, so that `import recsys_embed` imports neither torch nor mlflow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from recsys_embed.config import (
        ContentConfig,
        DataConfig,
        MapConfig,
        ModelConfig,
        Rules,
        RunConfig,
        TrainConfig,
        TuneConfig,
    )
    from recsys_embed.content.words import WordVectors
    from recsys_embed.datasets.catalog import Catalog, load_dataset
    from recsys_embed.evaluation.protocol import evaluate
    from recsys_embed.experiment import run_experiment
    from recsys_embed.presets import preset
    from recsys_embed.ratings.splits import split_cold_items, split_leave_last, split_random, split_time
    from recsys_embed.ratings.table import Ratings
    from recsys_embed.ratings.vocab import Vocab
    from recsys_embed.recommend.recommender import Recommender
    from recsys_embed.show.export import export, export_words
    from recsys_embed.show.map import draw_map
    from recsys_embed.show.words import plot_words
    from recsys_embed.train.classifier import TextClassifier
    from recsys_embed.train.loop import fit
    from recsys_embed.tuning.search import tune

_HOMES = {
    "Catalog": "datasets.catalog",
    "ContentConfig": "config",
    "DataConfig": "config",
    "MapConfig": "config",
    "ModelConfig": "config",
    "Ratings": "ratings.table",
    "Recommender": "recommend.recommender",
    "Rules": "config",
    "RunConfig": "config",
    "TextClassifier": "train.classifier",
    "TrainConfig": "config",
    "TuneConfig": "config",
    "Vocab": "ratings.vocab",
    "WordVectors": "content.words",
    "draw_map": "show.map",
    "evaluate": "evaluation.protocol",
    "export": "show.export",
    "export_words": "show.export",
    "fit": "train.loop",
    "load_dataset": "datasets.catalog",
    "plot_words": "show.words",
    "preset": "presets",
    "run_experiment": "experiment",
    "split_cold_items": "ratings.splits",
    "split_leave_last": "ratings.splits",
    "split_random": "ratings.splits",
    "split_time": "ratings.splits",
    "tune": "tuning.search",
}

__all__ = [
    "Catalog",
    "ContentConfig",
    "DataConfig",
    "MapConfig",
    "ModelConfig",
    "Ratings",
    "Recommender",
    "Rules",
    "RunConfig",
    "TextClassifier",
    "TrainConfig",
    "TuneConfig",
    "Vocab",
    "WordVectors",
    "__version__",
    "draw_map",
    "evaluate",
    "export",
    "export_words",
    "fit",
    "load_dataset",
    "plot_words",
    "preset",
    "run_experiment",
    "split_cold_items",
    "split_leave_last",
    "split_random",
    "split_time",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
