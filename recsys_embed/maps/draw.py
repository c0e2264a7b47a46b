"""Draw a map: the items of a model in two dimensions, as a page and as a picture."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats, normalize
from recsys_embed.config.answers import MapConfig
from recsys_embed.config.fields import short_name
from recsys_embed.data.ids import Rows
from recsys_embed.errors import DataError, SettingError
from recsys_embed.maps.alignment import MapChanges, align_maps
from recsys_embed.maps.columns import colour_column, item_columns
from recsys_embed.maps.page import PALETTES, column_data, points_data, vectors_data, write_page
from recsys_embed.maps.picture import draw_picture
from recsys_embed.models.fold_in.softmax import SoftmaxFoldIn
from recsys_embed.projection import Projection, project
from recsys_embed.recommender import Recommender
from recsys_embed.retrieval.exact import ExactIndex
from recsys_embed.storage.atomic import atomic_write

log = logging.getLogger("recsys_embed")

_USER_NEIGHBOURS = 5  # a user is drawn in the middle of this many items


@dataclass(frozen=True)
class Map:
    """A map that was drawn. files: the page and the picture. rows: its items; projection: their positions.

    changes: how positions and neighbours changed from another model, or None.
    """

    files: list[Path]
    rows: Rows
    projection: Projection
    changes: MapChanges | None

    def summary(self) -> dict[str, Any]:
        """Return the facts of the map, for JSON."""
        p = self.projection
        facts = {
            "files": [str(f) for f in self.files],
            "items": len(self.rows),
            "method": p.name,
            "trustworthiness": p.trustworthiness,
            "neighbours_kept": p.neighbours_kept,
            "trustworthiness_of": p.sample_size,
        }
        return facts if self.changes is None else {**facts, "compared": self.changes.summary()}


def draw_map(
    recommender: Recommender,
    out: str | Path = "map",
    config: MapConfig | None = None,
    *,
    compare: Recommender | None = None,
    title: str | None = None,
) -> Map:
    """Write map.html and map.png into the folder `out`, and return the map.

    compare: another model of (some of) the same items, whose map is aligned with this one to show changes.
    Raises SettingError for settings that do not fit the model, and DataError if no item is left to draw, the models
    share too few items, or the folder cannot be created.
    """
    config, folder = config or MapConfig(), Path(out)
    if config.users and recommender.is_graph:
        raise SettingError("--users: users and items of this model are the same nodes, which the map shows anyway")
    try:  # before minutes of work rather than after
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the map needs a folder, and {folder} cannot be one: {error.strerror}") from None
    rows = map_items(recommender, config.min_support)
    columns = item_columns(recommender.table[rows], recommender.item_counts[rows])
    colour = colour_column(columns, config.colour)
    if compare is None:
        changes, projection = None, project(recommender.state.embeddings.items[rows], config.method, config.seed)
    else:
        old_rows = map_items(compare, config.min_support)
        changes, projection = align_maps(recommender, rows, compare, old_rows, config)
    titles = recommender.table["title"].gather(rows).to_list()
    name = title or short_name(str(recommender.metadata.get("dataset", "items")))
    data: dict[str, Any] = {
        "title": name,
        "facts": _facts(recommender, projection, changes, config.users),
        "ids": [str(i) for i in recommender.items.ids(rows)],
        "titles": titles,
        "columns": [column_data(c) for c in columns],
        "colour": colour.name,
        "palette": PALETTES,
        "vectors": _vectors(recommender, rows),
        "moves": None if changes is None else changes.data(),
    }
    users = np.zeros((0, 2), np.float32)
    if config.users:
        nearest = _nearest_items_of_users(recommender, rows)
        users = projection.points[nearest].mean(axis=1)
        data["users"] = {
            "ids": [str(i) for i in recommender.users.series],
            "counts": recommender.seen.count.tolist(),
            "near": nearest.tolist(),
        }
    data["points"] = points_data(np.concatenate((projection.points, users)))
    page, picture = folder / "map.html", folder / "map.png"
    with atomic_write(page) as file:
        file.write(write_page(data).encode("utf-8"))
    draw_picture(picture, projection.points, users, titles, recommender.item_counts[rows], colour, name, data["facts"])
    return Map([page, picture], rows, projection, changes)


def map_items(recommender: Recommender, min_support: int) -> Rows:
    """Return the rows of the items that a map shows: those with at least `min_support` training ratings.

    An item without ratings is included only if min_support is 0 and its content gives it a vector.
    """
    included = recommender.item_counts >= max(1, min_support)
    if not min_support and recommender.content_model is not None:
        included |= (recommender.state.embeddings.items != 0).any(axis=1)
    if not included.any():
        raise DataError(f"no item has {max(1, min_support)} training ratings or more: nothing is left to draw")
    return np.flatnonzero(included)


def trust_text(projection: Projection) -> str:
    """Return the quality of a projection as a text."""
    n = projection.sample_size
    sample = "" if n == len(projection.points) else f" (of {n:,} of them)"
    return (
        f"trustworthiness {projection.trustworthiness:.2f}, {projection.neighbours_kept:.0%} of neighbours kept{sample}"
    )


def _facts(recommender: Recommender, projection: Projection, changes: MapChanges | None, users: bool) -> str:
    loss = (recommender.metadata.get("settings") or {}).get("loss")
    dim = recommender.model.dim
    model = f"{dim} dimension{'s' * (dim > 1)}" + (f", {loss}" if loss else "")
    sizes = f"{len(projection.points):,} items" + (f", {len(recommender.users):,} users" if users else "")
    text = f"{sizes} · {model} · {projection.name} · {trust_text(projection)}"
    if changes is None:
        return text
    return f"{text} · {changes.churn:.0%} of the {changes.n_neighbours} nearest are others than before"


def _vectors(recommender: Recommender, rows: Rows) -> dict[str, Any]:
    model = recommender.state.embeddings
    # The page folds new users in by a closed form, which an MLP scorer lacks.
    fold_in = None if model.layers else SoftmaxFoldIn.of(model, recommender.item_counts)
    return vectors_data(model.items[rows], model.item_bias[rows], fold_in)


def _nearest_items_of_users(recommender: Recommender, rows: Rows) -> NDArray[np.int64]:
    """Return the positions in `rows` of the items nearest to every user by cosine, [users, 5]."""
    if recommender.state.embeddings.layers:
        raise SettingError("--users needs a model with a dot product: an MLP's users and items share no space")
    items: Floats = normalize(recommender.state.embeddings.items[rows])
    users = normalize(recommender.state.embeddings.users)
    return ExactIndex(items).search(users, min(_USER_NEIGHBOURS, len(rows)))[1]
