"""Recommendations from collaborative-filtering embeddings.

The public names are loaded on first use, so that `import recsys_embed` imports neither torch nor mlflow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from recsys_embed.version import __version__

if TYPE_CHECKING:
    from recsys_embed.config.answers import MapConfig, Rules
    from recsys_embed.config.settings import ContentConfig, DataConfig, ModelConfig, RunConfig, TrainConfig
    from recsys_embed.config.tuning import TuneConfig
    from recsys_embed.data.dataset import Dataset
    from recsys_embed.data.ratings import Ratings
    from recsys_embed.data.splits import split_cold_items, split_leave_last, split_random, split_time
    from recsys_embed.data.vocab import Vocab
    from recsys_embed.evaluation.evaluate import evaluate
    from recsys_embed.experiment.run import run_experiment
    from recsys_embed.exports.write import export, export_words
    from recsys_embed.maps.draw import draw_map
    from recsys_embed.plots.words import plot_words
    from recsys_embed.presets import preset
    from recsys_embed.recommender import Recommender
    from recsys_embed.reports.write import write_report
    from recsys_embed.sources.load import load_dataset
    from recsys_embed.training.text_classifier import TextClassifier
    from recsys_embed.training.trainer import fit
    from recsys_embed.tuning.search import tune
    from recsys_embed.words.vectors import WordVectors

_HOMES = {
    "ContentConfig": "config.settings",
    "DataConfig": "config.settings",
    "Dataset": "data.dataset",
    "MapConfig": "config.answers",
    "ModelConfig": "config.settings",
    "Ratings": "data.ratings",
    "Recommender": "recommender",
    "Rules": "config.answers",
    "RunConfig": "config.settings",
    "TextClassifier": "training.text_classifier",
    "TrainConfig": "config.settings",
    "TuneConfig": "config.tuning",
    "Vocab": "data.vocab",
    "WordVectors": "words.vectors",
    "draw_map": "maps.draw",
    "evaluate": "evaluation.evaluate",
    "export": "exports.write",
    "export_words": "exports.write",
    "fit": "training.trainer",
    "load_dataset": "sources.load",
    "plot_words": "plots.words",
    "preset": "presets",
    "run_experiment": "experiment.run",
    "split_cold_items": "data.splits",
    "split_leave_last": "data.splits",
    "split_random": "data.splits",
    "split_time": "data.splits",
    "tune": "tuning.search",
    "write_report": "reports.write",
}
# Names of the version before, and what they are called now.
_RENAMED = {"Catalog": "Dataset"}

__all__ = [
    "ContentConfig",
    "DataConfig",
    "Dataset",
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
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        import warnings

        warnings.warn(f"recsys_embed.{name} is called {_RENAMED[name]} now", DeprecationWarning, stacklevel=2)
        name = _RENAMED[name]
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
