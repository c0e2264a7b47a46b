"""What is known of the items, as something to colour, filter and read: tags, numbers and texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.errors import SettingError
from recsys_embed.words import tokens as text

# Ten hues that differ in lightness too, so that people who see fewer colours tell most of them apart; they are to be
# read on white and on near-black.
PALETTE = (
    "#3b7dd8", "#e8871e", "#2a9d5c", "#d1495b", "#8f63c9", "#8a5a3b", "#e377b0", "#a3a81f", "#1fb0c0", "#5b6470",
)  # fmt: skip
OTHER = "#a9b0b8"
# From few to many.
SCALE = ("#4b3f8f", "#35679a", "#2a8f8c", "#5fb661", "#d9c53a")

_LONGEST = 140


@dataclass(frozen=True)
class Column:
    """One column of n items.

    kind: "tags" (names; `members` [n] are indices into `names`, the most frequent name first), "number" (`values`
    [n], NaN where nothing is known), or "text" (`texts` [n], cut to a line).
    """

    name: str
    kind: Literal["tags", "number", "text"]
    names: list[str] = field(default_factory=list)
    members: list[list[int]] = field(default_factory=list)
    values: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    texts: list[str] = field(default_factory=list)

    @property
    def paints(self) -> bool:
        """Whether points can be coloured by it."""
        return self.kind != "text"

    def colours(self) -> list[str]:
        """Return the colour of each item. One of several tags has that of its rarest among the ten most frequent."""
        if self.kind == "tags":
            shown = [max((m for m in mine if m < len(PALETTE)), default=-1) for mine in self.members]
            return [PALETTE[m] if m >= 0 else OTHER for m in shown]
        share = self.shares()
        place = np.nan_to_num(share) * (len(SCALE) - 1)
        stops = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in SCALE])
        below = np.minimum(place.astype(int), len(SCALE) - 2)
        mixed = stops[below] + (stops[below + 1] - stops[below]) * (place - below)[:, None]
        return [
            OTHER if np.isnan(s) else "#{:02x}{:02x}{:02x}".format(*rgb)
            for s, rgb in zip(share, mixed.round().astype(int), strict=True)
        ]

    def shares(self) -> NDArray[np.float64]:
        """Return where each number stands among all, by rank from 0 to 1, so that no outlier takes the whole scale."""
        known = np.isfinite(self.values)
        share = np.full(len(self.values), np.nan)
        different, place = np.unique(self.values[known], return_inverse=True)
        below = np.concatenate(([0], np.cumsum(np.bincount(place))))
        middle = (below[:-1] + below[1:] - 1) / 2
        share[known] = middle[place] / max(1, int(known.sum()) - 1)
        return share if len(different) > 1 else np.where(known, 0.5, np.nan)


def columns_of(table: pl.DataFrame, counts: NDArray[np.int64]) -> list[Column]:
    """Return what can be shown of items: the columns of their table but id and title, and their ratings."""
    found = [Column("ratings", "number", values=counts.astype(float))]
    for name in table.columns:
        if name not in ("item_id", "title", "known_words"):
            found += _column(table[name])
    return found


def _column(column: pl.Series) -> Iterator[Column]:
    column = text.readable(column)
    if column.dtype.is_nested() and not isinstance(column.dtype, pl.List):
        return
    if column.dtype in (pl.Binary, pl.Object):
        return
    kind = text.kind_of(column)
    if kind == "tags":
        yield _tags(column)
    elif kind == "number":
        values = text.numbers(column).fill_null(float("nan")).to_numpy()
        if np.isfinite(values).any():
            yield Column(column.name, "number", values=values)
    elif not isinstance(column.dtype, pl.List):
        texts = column.cast(pl.String).fill_null("").to_list()
        if any(texts):
            cut = [t if len(t) <= _LONGEST else t[: _LONGEST - 1].rstrip() + "…" for t in texts]
            yield Column(column.name, "text", texts=cut)


def _tags(column: pl.Series) -> Column:
    lists = text.tags(column).to_list()
    counts: dict[str, int] = {}
    for tag in (t for mine in lists for t in mine):
        counts[tag] = counts.get(tag, 0) + 1
    order = sorted(counts, key=lambda tag: (-counts[tag], tag))
    place = {tag: at for at, tag in enumerate(order)}
    return Column(
        column.name, "tags", names=_spelled(column, order), members=[sorted(place[t] for t in m) for m in lists]
    )


def _spelled(column: pl.Series, tags: list[str]) -> list[str]:
    """Return the tags as the table spells them; they are compared in lower case."""
    entries = column if column.dtype == pl.List else column.cast(pl.String).str.replace_all("[,;]", "|").str.split("|")
    seen = entries.explode().drop_nulls().unique(maintain_order=True).to_list()
    spelling: dict[str, str] = {}
    for entry in seen:
        spelling.setdefault(entry.strip().lower(), entry.strip())
    return [spelling.get(tag, tag) for tag in tags]


def colour_column(columns: list[Column], name: str | None) -> Column:
    """Return the column that colours the points: the named one, else genres, else the first tags, else ratings.

    Raises SettingError for a name that is not there, or that holds texts.
    """
    able = [c for c in columns if c.paints]
    if name is None:
        tags = [c for c in able if c.kind == "tags"]
        return next((c for c in tags if c.name == "genres"), tags[0] if tags else able[0])
    own = {c.name: c for c in able}
    chosen = own.get(name, own["ratings"] if name == "popularity" else None)
    if chosen is None:
        raise SettingError(f"--colour {name!r} is no column to colour by; these are: {', '.join(c.name for c in able)}")
    return chosen
