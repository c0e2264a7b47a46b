"""The columns of the item table on a map, to colour, filter and read items by: tags, numbers and texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.errors import SettingError
from recsys_embed.words import tokens as text

# Ten hues that differ in lightness too, so that colour-blind people can distinguish most of them; legible on white and
# on near-black.
PALETTE = (
    "#3b7dd8", "#e8871e", "#2a9d5c", "#d1495b", "#8f63c9", "#8a5a3b", "#e377b0", "#a3a81f", "#1fb0c0", "#5b6470",
)  # fmt: skip
OTHER = "#a9b0b8"
# From low to high.
SCALE = ("#4b3f8f", "#35679a", "#2a8f8c", "#5fb661", "#d9c53a")

_MAX_TEXT_LENGTH = 140


@dataclass(frozen=True)
class MapColumn:
    """One column of n items.

    kind: "tags" (`members` [n] holds each item's indices into `names`, the most frequent name first), "number"
    (`values` [n], NaN where unknown), or "text" (`texts` [n], cut to a line).
    """

    name: str
    kind: Literal["tags", "number", "text"]
    names: list[str] = field(default_factory=list)
    members: list[list[int]] = field(default_factory=list)
    values: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    texts: list[str] = field(default_factory=list)

    @property
    def is_colourable(self) -> bool:
        """Whether points can be coloured by this column."""
        return self.kind != "text"

    def colours(self) -> list[str]:
        """Return the colour of each item: with several tags, that of the rarest among the ten most frequent ones."""
        if self.kind == "tags":
            rarest = [max((tag for tag in tags if tag < len(PALETTE)), default=-1) for tags in self.members]
            return [PALETTE[tag] if tag >= 0 else OTHER for tag in rarest]
        ranks = self.ranks()
        position = np.nan_to_num(ranks) * (len(SCALE) - 1)
        stops = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in SCALE])
        below = np.minimum(position.astype(int), len(SCALE) - 2)
        mixed = stops[below] + (stops[below + 1] - stops[below]) * (position - below)[:, None]
        return [
            OTHER if np.isnan(rank) else "#{:02x}{:02x}{:02x}".format(*rgb)
            for rank, rgb in zip(ranks, mixed.round().astype(int), strict=True)
        ]

    def ranks(self) -> NDArray[np.float64]:
        """Return the rank of each number, from 0 to 1, NaN where unknown: by rank, outliers do not use up the scale."""
        known = np.isfinite(self.values)
        ranks = np.full(len(self.values), np.nan)
        distinct, inverse = np.unique(self.values[known], return_inverse=True)
        below = np.concatenate(([0], np.cumsum(np.bincount(inverse))))
        middle = (below[:-1] + below[1:] - 1) / 2
        ranks[known] = middle[inverse] / max(1, int(known.sum()) - 1)
        return ranks if len(distinct) > 1 else np.where(known, 0.5, np.nan)


def item_columns(table: pl.DataFrame, counts: NDArray[np.int64]) -> list[MapColumn]:
    """Return the number of ratings, and the columns of the item table except id and title."""
    columns = [MapColumn("ratings", "number", values=counts.astype(float))]
    for name in table.columns:
        if name not in ("item_id", "title", "known_words"):
            columns += _column(table[name])
    return columns


def _column(column: pl.Series) -> Iterator[MapColumn]:
    """Yield a column of the item table as a `MapColumn`; nothing if a map cannot show it."""
    column = text.normalize_column(column)
    if column.dtype.is_nested() and not isinstance(column.dtype, pl.List):
        return
    if column.dtype in (pl.Binary, pl.Object):
        return
    kind = text.infer_kind(column)
    if kind == "tags":
        yield _tags(column)
    elif kind == "number":
        values = text.parse_numbers(column).fill_null(float("nan")).to_numpy()
        if np.isfinite(values).any():
            yield MapColumn(column.name, "number", values=values)
    elif not isinstance(column.dtype, pl.List):
        texts = column.cast(pl.String).fill_null("").to_list()
        if any(texts):
            cut = [t if len(t) <= _MAX_TEXT_LENGTH else t[: _MAX_TEXT_LENGTH - 1].rstrip() + "…" for t in texts]
            yield MapColumn(column.name, "text", texts=cut)


def _tags(column: pl.Series) -> MapColumn:
    lists = text.split_tags(column).to_list()
    counts: dict[str, int] = {}
    for tag in (tag for tags in lists for tag in tags):
        counts[tag] = counts.get(tag, 0) + 1
    order = sorted(counts, key=lambda tag: (-counts[tag], tag))
    index = {tag: n for n, tag in enumerate(order)}
    return MapColumn(
        column.name,
        "tags",
        names=_spellings(column, order),
        members=[sorted(index[tag] for tag in tags) for tags in lists],
    )


def _spellings(column: pl.Series, tags: list[str]) -> list[str]:
    """Return lower-case tags as the table spells them first."""
    entries = column if column.dtype == pl.List else column.cast(pl.String).str.replace_all("[,;]", "|").str.split("|")
    distinct = entries.explode().drop_nulls().unique(maintain_order=True).to_list()
    spelling: dict[str, str] = {}
    for entry in distinct:
        spelling.setdefault(entry.strip().lower(), entry.strip())
    return [spelling.get(tag, tag) for tag in tags]


def colour_column(columns: list[MapColumn], name: str | None) -> MapColumn:
    """Return the column that colours the points: the named one, or else genres, the first tags, or ratings.

    Raises SettingError for a name that is no column, or a column of texts.
    """
    able = [c for c in columns if c.is_colourable]
    if name is None:
        tags = [c for c in able if c.kind == "tags"]
        return next((c for c in tags if c.name == "genres"), tags[0] if tags else able[0])
    by_name = {c.name: c for c in able}
    column = by_name.get(name, by_name["ratings"] if name == "popularity" else None)
    if column is None:
        raise SettingError(f"--colour {name!r} is no column to colour by; these are: {', '.join(c.name for c in able)}")
    return column
