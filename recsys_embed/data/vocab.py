"""Vocab: outside ids (integers or text) <-> rows 0..n-1."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.data.ids import CANONICAL_INTEGER, Id, Rows, id_column
from recsys_embed.errors import DataError, UnknownId

# Below this many ids a dict is asked; above, all are mapped at once: by a table of all integers from the least to the
# greatest where it is no longer than this or than what is mapped, and else by one join.
_FEW, _DENSE = 10_000, 1_000_000


# Characters of an id that stand in a message; of longer ones no near ones are looked for, which takes the square.
_SPELLED = 100


def _cut(id_: object) -> str:
    """Return an id as a message has it."""
    text = str(id_)
    return text if len(text) <= _SPELLED else text[: _SPELLED - 1] + "…"


class Vocab:
    """The users or the items: outside ids, each with a row 0..n-1. Equal if the ids are equal, in order.

    ids: distinct integers (kept as int64) or distinct strings.
    name: what one of them is called in messages, "user" or "item".
    """

    def __init__(self, ids: Sequence[Id] | NDArray[np.int64] | pl.Series, name: str) -> None:
        series = ids if isinstance(ids, pl.Series) else pl.Series("id", ids if len(ids) else [], strict=True)
        self.series = id_column(series.alias("id"), name) if len(series) else pl.Series("id", [], dtype=pl.Int64)
        self.name = name
        if self.series.n_unique() != len(self.series):
            raise DataError(f"{name} ids are not distinct")

    @classmethod
    def of(cls, column: pl.Series, name: str) -> Vocab:
        """Build the vocabulary of the distinct ids of a column, in sorted order, so that row order never matters."""
        return cls(column.unique().sort(), name)

    @property
    def is_text(self) -> bool:
        """True where the ids are text, False where they are integers."""
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
        """Give an id the type of this vocabulary, or None: 42 and "42" name the same user, "007" is only ever text."""
        if isinstance(id_, bool) or not isinstance(id_, int | str | np.integer):
            raise UnknownId(f"{self.name} {id_!r} is a {type(id_).__name__}; ids are integers or text")
        if self.is_text:
            return str(id_)
        text = str(id_)
        if len(text) <= 20 and text.lstrip("-").isascii() and text.lstrip("-").isdigit() and str(int(text)) == text:
            return int(text)
        return None

    def rows(
        self, ids: Iterable[Id] | NDArray[np.int64] | pl.Series, missing: Literal["raise", "negative"] = "raise"
    ) -> Rows:
        """Map outside ids to rows, int64 [n].

        missing: "raise" an UnknownId that names the nearest known ids, or give "negative", -1.
        """
        if isinstance(ids, np.ndarray):
            ids = pl.Series("id", ids)
        if isinstance(ids, pl.Series) and len(ids) > _FEW:
            rows = self._join(id_column(ids, self.name))
        else:
            if isinstance(ids, str):
                raise TypeError(f"rows() takes several ids; for one, write rows([{ids!r}])")
            given = ids.to_list() if isinstance(ids, pl.Series) else list(ids)
            known = self._row_of
            rows = np.fromiter((known.get(self.cast(i), -1) for i in given), np.int64, len(given))  # type: ignore[arg-type]
            if missing == "raise" and (rows < 0).any():
                raise self.unknown(given[int(np.argmax(rows < 0))])
        if missing == "raise" and (rows < 0).any():
            raise self.unknown(pl.Series(ids)[int(np.argmax(rows < 0))])
        return rows

    def row(self, id_: Id) -> int:
        """Map one outside id to its row. Raises UnknownId."""
        found = self._row_of.get(self.cast(id_))  # type: ignore[arg-type]
        if found is None:
            raise self.unknown(id_)
        return found

    def _join(self, ids: pl.Series) -> Rows:
        if self.is_text:
            ids = ids.cast(pl.String)
        elif ids.dtype == pl.String:  # "007" is not 7
            known = ids.str.contains(CANONICAL_INTEGER)
            ids = pl.select(pl.when(known).then(ids)).to_series().cast(pl.Int64, strict=False)
        if not self.is_text and len(self):
            low, high = int(self.series.min()), int(self.series.max())  # type: ignore[arg-type]
            if high - low < max(_DENSE, len(ids)) and -(2**62) < low and high < 2**62:
                row = np.full(high - low + 3, -1, np.int64)  # one place more at each end, for what lies outside
                row[self.series.to_numpy() - (low - 1)] = np.arange(len(self))
                return row[ids.clip(low - 1, high + 1).fill_null(low - 1).to_numpy() - (low - 1)]
        table = pl.DataFrame({"id": self.series, "row": np.arange(len(self), dtype=np.int64)})
        joined = pl.DataFrame({"id": ids}).join(table, on="id", how="left", maintain_order="left")
        return joined["row"].fill_null(-1).to_numpy()

    def like(self, column: pl.Series) -> pl.Series:
        """Return the ids of a column in the type of this vocabulary, null where they cannot be: "007" is no integer.

        Raises DataError for what is no column of ids.
        """
        ids = id_column(column, self.name).alias("id")
        if self.is_text:
            return ids.cast(pl.String)
        if ids.dtype == pl.String:
            known = ids.str.contains(CANONICAL_INTEGER)
            return pl.select(pl.when(known).then(ids)).to_series().cast(pl.Int64, strict=False).alias("id")
        return ids

    def ids(self, rows: Rows | Sequence[int]) -> pl.Series:
        """Map rows to outside ids, a polars Series [n] of integers or text."""
        return self.series.gather(np.asarray(rows, dtype=np.int64)) if len(rows) else self.series.head(0)

    def unknown(self, id_: object) -> UnknownId:
        """Build the error for an id that is not known; it names the nearest ones."""
        near = ", ".join(_cut(i) for i in self.nearest(id_))
        return UnknownId(f"{self.name} {_cut(id_)} is not known; {len(self):,} {self.name}s are, e.g. {near}")

    def nearest(self, id_: object, n: int = 3) -> list[Id]:
        """Return the n known ids nearest to one that is not known: by number, or by spelling."""
        if isinstance(id_, str) and len(id_) > _SPELLED:  # no misspelling of anything
            return self.series.head(n).to_list()
        if self.is_text:
            # Spelling distance is slow, so at most 5,000 ids take part: those that begin alike come first.
            alike = self.series.filter(self.series.str.starts_with(str(id_)[:1])).head(5_000).to_list()
            return difflib.get_close_matches(str(id_), alike, n=n, cutoff=0.5) or self.series.head(n).to_list()
        number = self.cast(id_) if isinstance(id_, int | str | np.integer) else None
        if number is None or abs(int(number)) >= 2**62:
            return self.series.head(n).to_list()
        return sorted(self.series.gather((self.series - int(number)).abs().arg_sort()[:n]).to_list())
