"""Vocab: the two-way mapping between external ids (integers or text) and rows 0..n-1."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.data.ids import Id, Rows, id_column
from recsys_embed.errors import DataError, UnknownId

# Few ids are looked up in a dict, one by one: up to the first number, or to the second among as many others. More are
# looked up together: in a dense table from the smallest to the largest integer id if it has at most `_MAX_DENSE`
# entries, or no more than there are ids to look up; in a join otherwise.
_FEW, _MAX_DICT, _MAX_DENSE = 500, 10_000, 1_000_000

# How Python writes an integer of up to 19 digits, which an int64 may hold.
_INTEGER = r"(?:0|-?[1-9][0-9]{0,18})"
_is_integer = re.compile(_INTEGER).fullmatch

# Characters of an id that a message shows. For longer ids no similar ones are searched: that takes quadratic time.
_MAX_ID_CHARS = 100


def _shorten(id_: object) -> str:
    """Return an id as a message shows it."""
    text = str(id_)
    return text if len(text) <= _MAX_ID_CHARS else text[: _MAX_ID_CHARS - 1] + "…"


class Vocab:
    """The users or the items: external ids, each with a row 0..n-1. Two are equal if they have equal ids in order.

    ids: distinct integers (kept as int64) or distinct strings.
    name: what messages call one of them, "user" or "item".
    """

    def __init__(self, ids: Sequence[Id] | NDArray[np.int64] | pl.Series, name: str) -> None:
        series = ids if isinstance(ids, pl.Series) else pl.Series("id", ids if len(ids) else [], strict=True)
        self.series = id_column(series.alias("id"), name) if len(series) else pl.Series("id", [], dtype=pl.Int64)
        self.name = name
        if self.series.n_unique() != len(self.series):
            raise DataError(f"{name} ids are not distinct")

    @classmethod
    def of(cls, column: pl.Series, name: str) -> Vocab:
        """Build the vocabulary of a column's distinct ids, sorted, so that it does not depend on the order of rows."""
        return cls(column.unique().sort(), name)

    @property
    def is_text(self) -> bool:
        """True if the ids are text, False if they are integers."""
        return self.series.dtype == pl.String

    @cached_property
    def _row_of(self) -> dict[Id, int]:
        return {id_: row for row, id_ in enumerate(self.series.to_list())}

    def __len__(self) -> int:
        return len(self.series)

    def __contains__(self, id_: object) -> bool:
        return isinstance(id_, int | str | np.integer) and self.cast(id_) in self._row_of

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocab) and self.series.equals(other.series)

    def __hash__(self) -> int:
        return hash((self.name, len(self)))

    def __repr__(self) -> str:
        return f"Vocab({len(self):,} {self.name}s, {'text' if self.is_text else 'integer'} ids)"

    def cast(self, id_: object) -> Id | None:
        """Convert an id to the type of this vocabulary, or return None if that is impossible.

        42 and "42" are the same id; "007" is never an integer. Raises UnknownId for anything but integers and text.
        """
        if isinstance(id_, bool) or not isinstance(id_, int | str | np.integer):
            raise UnknownId(f"{self.name} {id_!r} is a {type(id_).__name__}; ids are integers or text")
        if self.is_text:
            return str(id_)
        text = str(id_)
        return int(text) if _is_integer(text) else None

    def rows(
        self, ids: Iterable[Id] | NDArray[np.int64] | pl.Series, missing: Literal["raise", "negative"] = "raise"
    ) -> Rows:
        """Map external ids to rows, int64 [n].

        missing: what an unknown id does: "raise" an UnknownId that suggests similar ids, or give the row -1
            ("negative").
        """
        if isinstance(ids, np.ndarray):
            ids = pl.Series("id", ids)
        if isinstance(ids, pl.Series) and len(ids) > min(_MAX_DICT, max(_FEW, len(self))):
            rows = self.look_up(id_column(ids, self.name))
        else:
            if isinstance(ids, str):
                raise TypeError(f"rows() takes several ids; for one, write rows([{ids!r}])")
            id_list = ids.to_list() if isinstance(ids, pl.Series) else list(ids)
            row_of = self._row_of
            rows = np.fromiter((row_of.get(self.cast(i), -1) for i in id_list), np.int64, len(id_list))  # type: ignore[arg-type]
            if missing == "raise" and (rows < 0).any():
                raise self.unknown(id_list[int(np.argmax(rows < 0))])
        if missing == "raise" and (rows < 0).any():
            raise self.unknown(pl.Series(ids)[int(np.argmax(rows < 0))])
        return rows

    def row(self, id_: Id) -> int:
        """Map one external id to its row. Raises UnknownId."""
        row = self._row_of.get(self.cast(id_))  # type: ignore[arg-type]
        if row is None:
            raise self.unknown(id_)
        return row

    def look_up(self, ids: pl.Series) -> Rows:
        """Map many ids to rows at once, -1 for unknown ones."""
        if self.is_text:
            ids = ids.cast(pl.String)
        elif ids.dtype == pl.String:
            ids = _to_integers(ids)
        if not self.is_text and len(self):
            low, high = int(self.series.min()), int(self.series.max())  # type: ignore[arg-type]
            if high - low < max(_MAX_DENSE, len(ids)) and -(2**62) < low and high < 2**62:
                table = np.full(high - low + 3, -1, np.int64)  # with one extra entry at each end for ids out of range
                table[self.series.to_numpy() - (low - 1)] = np.arange(len(self))
                return table[ids.clip(low - 1, high + 1).fill_null(low - 1).to_numpy() - (low - 1)]
        frame = pl.DataFrame({"id": self.series, "row": np.arange(len(self), dtype=np.int64)})
        joined = pl.DataFrame({"id": ids}).join(frame, on="id", how="left", maintain_order="left")
        return joined["row"].fill_null(-1).to_numpy()

    def cast_column(self, column: pl.Series) -> pl.Series:
        """Convert a column of ids to the type of this vocabulary; null where that is impossible ("007" to an integer).

        Raises DataError if the column does not hold ids.
        """
        ids = id_column(column, self.name).alias("id")
        if self.is_text:
            return ids.cast(pl.String)
        if ids.dtype == pl.String:
            return _to_integers(ids).alias("id")
        return ids

    def ids(self, rows: Rows | Sequence[int]) -> pl.Series:
        """Map rows to external ids, a polars Series [n] of integers or text."""
        return self.series.gather(np.asarray(rows, dtype=np.int64)) if len(rows) else self.series.head(0)

    def unknown(self, id_: object) -> UnknownId:
        """Build the error for an unknown id; its message suggests similar ids."""
        similar = ", ".join(_shorten(i) for i in self.nearest(id_))
        return UnknownId(f"{self.name} {_shorten(id_)} is not known; {len(self):,} {self.name}s are, e.g. {similar}")

    def alike(self, id_: object) -> list[Id]:
        """Return the ids that differ from an unknown one by leading zeros, case or blanks around it alone.

        Spreadsheets drop zeros, so that 007 is asked for as 7.
        """
        plain = str(id_).strip().lstrip("0").lower()
        if len(plain) > _MAX_ID_CHARS or not plain.isprintable():  # half a character cannot be compared
            return []
        if not self.is_text:
            number = self.cast(plain)
            return [number] if number is not None and number in self._row_of else []
        ids = self.series.str.strip_chars_start("0").str.to_lowercase()
        return self.series.filter(ids == plain).to_list()

    def nearest(self, id_: object, n: int = 3) -> list[Id]:
        """Return the n ids of the vocabulary that are most similar to an unknown one, by number or by spelling."""
        if isinstance(id_, str) and len(id_) > _MAX_ID_CHARS:  # too long for a misspelling
            return self.series.head(n).to_list()
        if alike := self.alike(id_):
            return alike[:n]
        if self.is_text:
            # Spelling distance is slow, so at most 5,000 ids with the same first character are compared.
            candidates = self.series.filter(self.series.str.starts_with(str(id_)[:1])).head(5_000).to_list()
            return difflib.get_close_matches(str(id_), candidates, n=n, cutoff=0.5) or self.series.head(n).to_list()
        number = self.cast(id_) if isinstance(id_, int | str | np.integer) else None
        if number is None or abs(int(number)) >= 2**62:
            return self.series.head(n).to_list()
        return sorted(self.series.gather((self.series - int(number)).abs().arg_sort()[:n]).to_list())


def _to_integers(ids: pl.Series) -> pl.Series:
    """Convert text ids to Int64; null for those that are not the canonical text of an integer, such as "007"."""
    canonical = ids.str.contains(f"^{_INTEGER}$")
    return pl.select(pl.when(canonical).then(ids)).to_series().cast(pl.Int64, strict=False)
