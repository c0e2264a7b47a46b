"""recsys map: the items of a model in two dimensions, as a page and as a picture."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats, unit
from recsys_embed.config.fields import short_name
from recsys_embed.config.settings import MapConfig
from recsys_embed.data.ids import Rows
from recsys_embed.errors import DataError, SettingError
from recsys_embed.maps.alignment import Moves, moves
from recsys_embed.maps.columns import colour_column, columns_of
from recsys_embed.maps.page import PALETTES, column_data, points_data, vectors_data, write_page
from recsys_embed.maps.picture import draw_picture
from recsys_embed.models.fold_in.softmax import SoftmaxFoldIn
from recsys_embed.projection import Projection, project
from recsys_embed.recommender import Recommender
from recsys_embed.retrieval.exact import ExactIndex
from recsys_embed.storage.atomic import writing_whole

log = logging.getLogger("recsys_embed")

_STANDS_AMID = 5


@dataclass(frozen=True)
class Map:
    """What was drawn. files: the page and the picture. rows: the items on it; projection: their places.

    moves: what became of the places and neighbours since another model, or None.
    """

    files: list[Path]
    rows: Rows
    projection: Projection
    moves: Moves | None

    def summary(self) -> dict[str, Any]:
        """Return what the map came to, for JSON."""
        p = self.projection
        facts = {
            "files": [str(f) for f in self.files],
            "items": len(self.rows),
            "method": p.name,
            "trustworthiness": p.trust,
            "neighbours_kept": p.kept,
            "trustworthiness_of": p.trusted,
        }
        return facts if self.moves is None else {**facts, "compared": self.moves.summary()}


def draw_map(
    recommender: Recommender,
    out: str | Path = "map",
    config: MapConfig | None = None,
    *,
    compare: Recommender | None = None,
    title: str | None = None,
) -> Map:
    """Write map.html and map.png into the folder `out`, and return what was drawn.

    compare: another model of (some of) the same items: its map is laid over this one, which shows what moved.
    Raises SettingError for settings that do not fit the model, DataError where no item is left to draw, the models
    share too few, or the folder cannot be made.
    """
    config, folder = config or MapConfig(), Path(out)
    if config.users and recommender.shared:
        raise SettingError("--users: users and items of this model are the same nodes, which the map shows anyway")
    try:  # before minutes of work, not after
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the map needs a folder, and {folder} cannot be one: {error.strerror}") from None
    rows = shown_items(recommender, config.min_ratings)
    columns = columns_of(recommender.table[rows], recommender.counts[rows])
    colour = colour_column(columns, config.colour)
    if compare is None:
        moved, projection = None, project(recommender.state.embeddings.items[rows], config.method, config.seed)
    else:
        moved, projection = moves(recommender, rows, compare, shown_items(compare, config.min_ratings), config)
    titles = recommender.table["title"].gather(rows).to_list()
    name = title or short_name(str(recommender.metadata.get("dataset", "items")))
    data: dict[str, Any] = {
        "title": name,
        "facts": _facts(recommender, projection, moved, config.users),
        "ids": [str(i) for i in recommender.items.ids(rows)],
        "titles": titles,
        "columns": [column_data(c) for c in columns],
        "colour": colour.name,
        "palette": PALETTES,
        "vectors": _vectors(recommender, rows),
        "moves": None if moved is None else moved.data(),
    }
    users = np.zeros((0, 2), np.float32)
    if config.users:
        near = _amid(recommender, rows)
        users = projection.points[near].mean(axis=1)
        data["users"] = {
            "ids": [str(i) for i in recommender.users.series],
            "counts": recommender.seen.count.tolist(),
            "near": near.tolist(),
        }
    data["points"] = points_data(np.concatenate((projection.points, users)))
    page, picture = folder / "map.html", folder / "map.png"
    with writing_whole(page) as file:
        file.write(write_page(data).encode("utf-8"))
    draw_picture(picture, projection.points, users, titles, recommender.counts[rows], colour, name, data["facts"])
    return Map([page, picture], rows, projection, moved)


def shown_items(recommender: Recommender, least: int) -> Rows:
    """Return the rows of the items that a map shows: those with so many training ratings.

    Without a rating, an item has a place only where a description gives it one, and where `least` is 0.
    """
    counts = recommender.counts
    shown = counts >= max(1, least)
    if not least and recommender.content_model is not None:
        shown |= (recommender.state.embeddings.items != 0).any(axis=1)
    if not shown.any():
        raise DataError(f"no item has {max(1, least)} training ratings or more: nothing is left to draw")
    return np.flatnonzero(shown)


def trust_text(projection: Projection) -> str:
    """Say how far a picture can be trusted."""
    sample = "" if projection.trusted == len(projection.points) else f" (of {projection.trusted:,} of them)"
    return f"trustworthiness {projection.trust:.2f}, {projection.kept:.0%} of neighbours kept{sample}"


def _facts(recommender: Recommender, projection: Projection, moved: Moves | None, users: bool) -> str:
    loss = (recommender.metadata.get("settings") or {}).get("loss")
    dim = recommender.model.dim
    model = f"{dim} dimension{'s' * (dim > 1)}" + (f", {loss}" if loss else "")
    shown = f"{len(projection.points):,} items" + (f", {len(recommender.users):,} users" if users else "")
    text = f"{shown} · {model} · {projection.name} · {trust_text(projection)}"
    return text if moved is None else f"{text} · {moved.churn:.0%} of the {moved.of} nearest are others than before"


def _vectors(recommender: Recommender, rows: Rows) -> dict[str, Any]:
    plain = recommender.state.embeddings
    # An MLP scorer has no closed form for a visitor.
    fold = None if plain.layers else SoftmaxFoldIn.of(plain, recommender.counts)
    return vectors_data(plain.items[rows], plain.item_bias[rows], fold)


def _amid(recommender: Recommender, rows: Rows) -> NDArray[np.int64]:
    """Return, for every user, the items of the map whose vectors point most nearly the user's way, [users, 5]."""
    if recommender.state.embeddings.layers:
        raise SettingError("--users needs a model with a dot product: an MLP's users and items share no space")
    items: Floats = unit(recommender.state.embeddings.items[rows])
    return ExactIndex(items).search(unit(recommender.state.embeddings.users), min(_STANDS_AMID, len(rows)))[1]
