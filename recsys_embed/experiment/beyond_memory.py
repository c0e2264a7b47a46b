"""What a training on ratings on disk can do, and whether its tables fit into memory."""

from __future__ import annotations

from recsys_embed.config.settings import ModelConfig, TrainConfig
from recsys_embed.data.disk import PROGRAM_BYTES
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import SettingError
from recsys_embed.sources.memory import size_text

# Numbers that a training holds of each number of a table: itself, its two moments, the model that is measured and the
# best one.
_COPIES = 5
_FAMILIES = ("auto", "both", "embeddings", "neighbours")
_WIDTHS = (256, 192, 128, 96, 64, 48, 32, 24, 16, 8)


def check_on_disk(model: ModelConfig, train: TrainConfig, ratings: Ratings) -> None:
    """Raise SettingError for settings that ratings on disk do not go with, or tables that do not fit into memory.

    model, train: complete, see `resolve_settings`.
    """
    if ratings.disk is None:
        return
    pairwise = train.loss in ("bpr", "logistic")
    for used, what, other in (
        (model.model_family not in _FAMILIES, f"--model-family {model.model_family}", "--model-family auto"),
        (model.scorer != "dot", f"--scorer {model.scorer}", "--scorer dot"),
        (train.method == "gibbs", "--method gibbs", "--method adam"),
        (pairwise and train.sampler != "uniform", f"--sampler {train.sampler}", "--sampler uniform"),
    ):
        if used:
            raise SettingError(f"{what} needs the ratings in memory, and they are longer: {other} trains from disk")
    limit, ids = ratings.disk.memory, len(ratings.users) + len(ratings.items)
    if table_memory(ids, model.dim or 0, train) <= limit:
        return
    fitting = next((dim for dim in _WIDTHS if dim < (model.dim or 0) and table_memory(ids, dim, train) <= limit), None)
    needed = size_text(table_memory(ids, model.dim or 0, train))
    raise SettingError(
        f"the tables of {ids:,} users and items x {model.dim} need {needed} while they are trained, and "
        f"{size_text(limit)} may be taken: {f'--dim {fitting} fits' if fitting else 'give it more (--memory-limit)'}"
    )


def table_memory(ids: int, dim: int, train: TrainConfig) -> int:
    """Return the bytes that a training takes whose tables have so many rows, at its highest."""
    return PROGRAM_BYTES + ids * (dim + 1) * 4 * (_COPIES - (train.second_moment == "row"))
