"""What may be shown: rules and lists of ids, made ready for the items of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.config import Rules
from recsys_embed.errors import SettingError
from recsys_embed.ratings.vocab import Id

if TYPE_CHECKING:
    from recsys_embed.recommend.recommender import Recommender

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Shown:
    """Rules, ready for the items of a model. allowed [I]: which may be shown, or None: all.

    boost [I]: what is added to the scores, or None.
    """

    allowed: Mask | None = None
    boost: Floats | None = None


def ready(recommender: Recommender, rules: Rules, among: Sequence[Id] | None, exclude: Sequence[Id]) -> Shown:
    """Make rules ready. among: item ids to choose from; exclude: ids to leave out. Raises UnknownId, SettingError."""
    if rules.where or rules.boost or rules.per_group or rules.diversity:
        raise SettingError("not built yet")
    masks = []
    if rules.min_ratings or rules.max_ratings is not None:
        most = np.inf if rules.max_ratings is None else rules.max_ratings
        masks.append((recommender.counts >= rules.min_ratings) & (recommender.counts <= most))
    if among is not None:
        masks.append(_at(recommender, among))
    if len(exclude):
        masks.append(~_at(recommender, exclude))
    return Shown(np.logical_and.reduce(masks) if masks else None)


def _at(recommender: Recommender, ids: Sequence[Id]) -> Mask:
    mask = np.zeros(len(recommender.items), bool)
    mask[recommender.items.rows(ids)] = True
    return mask
