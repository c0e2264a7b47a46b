"""Two models of the same items: one picture laid over the other, and how many neighbours each item kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.config.settings import MapConfig
from recsys_embed.data.ids import Rows
from recsys_embed.errors import DataError
from recsys_embed.projection import Projection, project
from recsys_embed.recommender import Recommender
from recsys_embed.retrieval.exact import CosineIndex

_NEIGHBOURS = 10
_MOST = 60  # arrows that a page draws at once


@dataclass(frozen=True)
class Moves:
    """What became of n items. before [n, 2]: their places in the other picture, laid over this one; NaN for new ones.

    kept [n]: how many of an item's `of` nearest shared items were its nearest before, or -1. distance: mean distance
    between the places, where a picture's radius is 1. shared: items of both.
    """

    before: Floats
    kept: NDArray[np.int64]
    of: int
    shared: int
    distance: float

    @property
    def churn(self) -> float:
        """Share of the neighbours that are others now."""
        return 1 - float(self.kept[self.kept >= 0].mean()) / self.of

    def summary(self) -> dict[str, Any]:
        """Return the numbers, for JSON."""
        return {
            "shared": self.shared,
            "neighbour_churn": self.churn,
            "neighbours": self.of,
            "mean_distance": self.distance,
        }

    def data(self) -> dict[str, Any]:
        """Return what the page shows."""
        places = [None if np.isnan(v) else round(1000 * float(v)) for v in self.before.ravel()]
        changed = np.flatnonzero(self.kept >= 0)
        most = changed[np.argsort(self.kept[changed], kind="stable")][:_MOST]
        return {
            "from": places,
            "kept": [None if k < 0 else k for k in self.kept.tolist()],
            "of": self.of,
            "most": most.tolist(),
        }


def moves(
    now: Recommender, rows: Rows, before: Recommender, rows_before: Rows, config: MapConfig
) -> tuple[Moves, Projection]:
    """Lay the picture of another model over that of the items `rows` of this one; return what moved, and the picture.

    Raises DataError where the models share too few items.
    """
    place = before.items.rows(now.items.ids(rows), missing="negative")
    known = np.full(len(before.items), -1)
    known[rows_before] = np.arange(len(rows_before))
    there = np.where(place >= 0, known[place], -1)
    shared = np.flatnonzero(there >= 0)
    if len(shared) < 3:
        raise DataError(f"the two models share {len(shared)} items; a comparison needs three or more")
    old = project(before.state.embeddings.items[rows_before], config.method, config.seed)
    # Where a picture begins decides where its islands come to lie, so this one begins where the other one ended.
    start = np.zeros((len(rows), 2), np.float32)
    start[shared] = old.points[there[shared]]
    new = project(now.state.embeddings.items[rows], config.method, config.seed, start)
    turned = procrustes(old.points[there[shared]], new.points[shared])
    laid = np.full((len(rows), 2), np.nan, np.float32)
    laid[shared] = turned
    both = before.state.embeddings.items[rows_before][there[shared]], now.state.embeddings.items[rows][shared]
    of = min(_NEIGHBOURS, len(shared) - 1)
    kept = np.full(len(rows), -1)
    kept[shared] = overlap(*both, of)
    distance = float(np.linalg.norm(turned - new.points[shared], axis=1).mean())
    return Moves(laid, kept, of, len(shared), distance), new


def procrustes(points: Floats, onto: Floats) -> Floats:
    """Return points [n, 2] turned, mirrored, scaled and shifted to lie as near as they can to others, row by row.

    The orthogonal Procrustes problem (Schönemann, Psychometrika 1966), with scale and shift.
    """
    centre, target = points.mean(axis=0), onto.mean(axis=0)
    a, b = points - centre, onto - target
    left, values, right = np.linalg.svd(a.T.astype(np.float64) @ b)
    scale = values.sum() / max(float((a**2).sum()), 1e-12)
    return (a @ (left @ right) * scale + target).astype(np.float32)


def overlap(one: Floats, other: Floats, k: int) -> NDArray[np.int64]:
    """Return how many of the k nearest rows by cosine each row has in common in two sets of vectors [n, d], [n, e]."""
    rows = np.arange(len(one))
    near = [CosineIndex(vectors).neighbours(rows, k)[1] + len(one) * rows[:, None] for vectors in (one, other)]
    return np.isin(near[0], near[1]).sum(axis=1)
