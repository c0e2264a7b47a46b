"""Tags and words that items have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.data.ids import Rows
from recsys_embed.words import tokens as text
from recsys_embed.words.tokens import Kind


@dataclass(frozen=True)
class TokenIndex:
    """Tags and words of the items: those of row i are token[start[i]:start[i + 1]].

    names: (column, kind, token) of each; share [T]: the share of the items that have it.
    """

    names: list[tuple[str, str, str]]
    start: Rows
    token: Rows
    share: NDArray[np.float64]

    @classmethod
    def of(cls, table: pl.DataFrame, kinds: Mapping[str, Kind]) -> TokenIndex:
        """Take the columns of tags of an item table, one row an item, and of words those that `kinds` names.

        kinds: what the columns hold that the model was trained on.
        """
        n = table.height
        parts = [pl.DataFrame(schema={"row": pl.UInt32, "column": pl.String, "kind": pl.String, "token": pl.String})]
        for column in table.iter_columns():
            kind = kinds.get(column.name) or (text.kind_of(column) if _is_text(column) else "number")
            if kind == "number" or (kind == "words" and column.name not in kinds):
                continue
            lists = (text.tags if kind == "tags" else text.words)(column).list.unique(maintain_order=True)
            frame = lists.alias("token").to_frame().with_row_index("row").explode("token").drop_nulls()
            parts.append(frame.select("row", pl.lit(column.name).alias("column"), pl.lit(kind).alias("kind"), "token"))
        found = pl.concat(parts)
        key = ["column", "kind", "token"]
        names = found.select(key).unique(maintain_order=True).with_row_index("at")
        found = found.join(names, on=key, maintain_order="left").sort("row", maintain_order=True)
        token = found["at"].to_numpy().astype(np.int64)
        start = np.concatenate(([0], np.bincount(found["row"].to_numpy(), minlength=n).cumsum()))
        share = np.bincount(token, minlength=names.height) / max(1, n)
        return cls(names.select(key).rows(), start, token, share)

    def common(self, row: int, own: Rows, k: int) -> list[dict[str, Any]]:
        """Return at most k tokens that an item has in common with `own` items: column, token, how many of them.

        First comes what those have more often than other items: p log(p / q) of the shares p of theirs and q of all
        items, the token's part of the Kullback-Leibler divergence. Words that they do not have more often are
        left out.
        """
        mine = self.token[self.start[row] : self.start[row + 1]]
        if not len(own) or not len(mine):
            return []
        theirs = np.concatenate([self.token[self.start[at] : self.start[at + 1]] for at in own])
        count = (theirs[:, None] == mine).sum(axis=0)
        mine, count = mine[count > 0], count[count > 0]
        p = count / len(own)
        divergence = p * np.log(p / self.share[mine])
        order = np.argsort(-divergence, kind="stable")
        found = []
        for at in order:
            column, kind, token = self.names[mine[at]]
            if kind == "tags" or divergence[at] > 0:
                found.append({"column": column, "token": token, "items": int(count[at])})
        return found[:k]


def _is_text(column: pl.Series) -> bool:
    return column.dtype in (pl.String, pl.List(pl.String)) and column.name not in ("item_id", "title")
