"""Compare the maps of two models: align one with the other, and count how many neighbours each item kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.config.answers import MapConfig
from recsys_embed.data.ids import Rows
from recsys_embed.errors import DataError
from recsys_embed.projection import Projection, project
from recsys_embed.recommender import Recommender
from recsys_embed.retrieval.exact import CosineIndex

_NEIGHBOURS = 10
_MAX_ARROWS = 60  # that the page draws at once


@dataclass(frozen=True)
class MapChanges:
    """How the map and the neighbours of n items changed between two models.

    old_points [n, 2]: positions on the old map, aligned with the new one; NaN for new items. neighbours_kept [n]: how
    many of an item's `n_neighbours` nearest shared items are the same in both models, or -1. mean_distance: between
    old and new positions, on a map of radius 1. n_shared: items of both models.
    """

    old_points: Floats
    neighbours_kept: NDArray[np.int64]
    n_neighbours: int
    n_shared: int
    mean_distance: float

    @property
    def churn(self) -> float:
        """The share of the nearest neighbours that are new."""
        return 1 - float(self.neighbours_kept[self.neighbours_kept >= 0].mean()) / self.n_neighbours

    def summary(self) -> dict[str, Any]:
        """Return the numbers, for JSON."""
        return {
            "shared": self.n_shared,
            "neighbour_churn": self.churn,
            "neighbours": self.n_neighbours,
            "mean_distance": self.mean_distance,
        }

    def data(self) -> dict[str, Any]:
        """Return the data that the page draws."""
        coordinates = [None if np.isnan(v) else round(1000 * float(v)) for v in self.old_points.ravel()]
        shared = np.flatnonzero(self.neighbours_kept >= 0)
        most_changed = shared[np.argsort(self.neighbours_kept[shared], kind="stable")][:_MAX_ARROWS]
        return {
            "from": coordinates,
            "kept": [None if k < 0 else k for k in self.neighbours_kept.tolist()],
            "of": self.n_neighbours,
            "most": most_changed.tolist(),
        }


def align_maps(
    new: Recommender, rows: Rows, old: Recommender, old_rows: Rows, config: MapConfig
) -> tuple[MapChanges, Projection]:
    """Project the items `rows` of a model, align the map of another with it, and return the changes and the projection.

    Raises DataError where the models share too few items.
    """
    item = old.items.rows(new.items.ids(rows), missing="negative")
    positions = np.full(len(old.items), -1)
    positions[old_rows] = np.arange(len(old_rows))
    position = np.where(item >= 0, positions[item], -1)
    shared = np.flatnonzero(position >= 0)
    if len(shared) < 3:
        raise DataError(f"the two models share {len(shared)} items; a comparison needs three or more")
    old_projection = project(old.state.embeddings.items[old_rows], config.method, config.seed)
    old_points = old_projection.points[position[shared]]
    # The initial layout decides where clusters end up, so the new map starts from the old one.
    start = np.zeros((len(rows), 2), np.float32)
    start[shared] = old_points
    projection = project(new.state.embeddings.items[rows], config.method, config.seed, start)
    aligned = procrustes(old_points, projection.points[shared])
    all_aligned = np.full((len(rows), 2), np.nan, np.float32)
    all_aligned[shared] = aligned
    old_vectors = old.state.embeddings.items[old_rows][position[shared]]
    n_neighbours = min(_NEIGHBOURS, len(shared) - 1)
    kept = np.full(len(rows), -1)
    kept[shared] = common_neighbours(old_vectors, new.state.embeddings.items[rows][shared], n_neighbours)
    distance = float(np.linalg.norm(aligned - projection.points[shared], axis=1).mean())
    return MapChanges(all_aligned, kept, n_neighbours, len(shared), distance), projection


def procrustes(points: Floats, target: Floats) -> Floats:
    """Return points [n, 2] rotated, reflected, scaled and shifted to be as close as possible to target points, by row.

    The orthogonal Procrustes problem (Schönemann, Psychometrika 1966), with scale and shift.
    """
    centre, target_centre = points.mean(axis=0), target.mean(axis=0)
    a, b = points - centre, target - target_centre
    left, values, right = np.linalg.svd(a.T.astype(np.float64) @ b)
    scale = values.sum() / max(float((a**2).sum()), 1e-12)
    return (a @ (left @ right) * scale + target_centre).astype(np.float32)


def common_neighbours(one: Floats, other: Floats, k: int) -> NDArray[np.int64]:
    """Return how many of its k nearest rows by cosine each row has in common in two sets of vectors [n, d], [n, e]."""
    rows = np.arange(len(one))
    nearest = [CosineIndex(vectors).neighbours(rows, k)[1] + len(one) * rows[:, None] for vectors in (one, other)]
    return np.isin(nearest[0], nearest[1]).sum(axis=1)
