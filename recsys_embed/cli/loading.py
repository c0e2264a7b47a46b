"""Load the model that a command answers with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from recsys_embed.recommender import Recommender


def load(model: str | None) -> tuple[Recommender, Path]:
    """Load a model from a folder or from MLflow, by default the newest in models/; return it and its name."""
    from recsys_embed.recommender import Recommender
    from recsys_embed.storage.model_folders import newest_model_folder
    from recsys_embed.tracking.model_registry import resolve_folder

    folder = Path(model) if model else newest_model_folder()
    return Recommender.load(resolve_folder(model) if model else folder), folder


def read_item_values(file: Path, recommender: Recommender) -> pl.DataFrame:
    """Read a table of items, whose ids are in the column that they had in training or in one with a usual name."""
    from recsys_embed.sources.read import read_items

    return read_items(file, likely=recommender.metadata.get("settings", {}).get("item_col"))
