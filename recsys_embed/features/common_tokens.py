"""TokenIndex: the tags and words of each item, and those that an item shares with others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.data.ids import Rows
from recsys_embed.words.tokens import Kind, infer_kind, split_tags, split_words


@dataclass(frozen=True)
class TokenIndex:
    """The tags and words of the items: those of item row i are `indices[indptr[i]:indptr[i + 1]]`.

    names: (column, kind, token) of each token. indptr: int64 [items + 1]. indices: int64 [n], positions in `names`.
    share: float64 [T], the share of the items that have each token.
    """

    names: list[tuple[str, str, str]]
    indptr: Rows
    indices: Rows
    share: NDArray[np.float64]

    @classmethod
    def of(cls, table: pl.DataFrame, kinds: Mapping[str, Kind]) -> TokenIndex:
        """Build it from all columns of tags of an item table, one row per item, and the columns of words in `kinds`.

        kinds: the kinds of the columns that the model was trained on, by name.
        """
        n = table.height
        frames = [pl.DataFrame(schema={"row": pl.UInt32, "column": pl.String, "kind": pl.String, "token": pl.String})]
        for column in table.iter_columns():
            kind = kinds.get(column.name) or (infer_kind(column) if _is_text(column) else "number")
            if kind == "number" or (kind == "words" and column.name not in kinds):
                continue
            lists = (split_tags if kind == "tags" else split_words)(column).list.unique(maintain_order=True)
            frame = lists.alias("token").to_frame().with_row_index("row").explode("token").drop_nulls()
            frames.append(frame.select("row", pl.lit(column.name).alias("column"), pl.lit(kind).alias("kind"), "token"))
        occurrences = pl.concat(frames)
        key = ["column", "kind", "token"]
        names = occurrences.select(key).unique(maintain_order=True).with_row_index("at")
        occurrences = occurrences.join(names, on=key, maintain_order="left").sort("row", maintain_order=True)
        indices = occurrences["at"].to_numpy().astype(np.int64)
        indptr = np.concatenate(([0], np.bincount(occurrences["row"].to_numpy(), minlength=n).cumsum()))
        share = np.bincount(indices, minlength=names.height) / max(1, n)
        return cls(names.select(key).rows(), indptr, indices, share)

    def common(self, row: int, others: Rows, k: int) -> list[dict[str, Any]]:
        """Return at most k tokens that an item shares with other items: column, token and how many of them have it.

        row: the item. others: the rows of the other items, such as a user's history.
        Tokens are sorted by how much more common they are among the others than among all items: by p log(p / q) for
        the shares p and q, their part of the Kullback-Leibler divergence. Words that are not more common are dropped.
        """
        tokens = self.indices[self.indptr[row] : self.indptr[row + 1]]
        if not len(others) or not len(tokens):
            return []
        other_tokens = np.concatenate([self.indices[self.indptr[at] : self.indptr[at + 1]] for at in others])
        count = (other_tokens[:, None] == tokens).sum(axis=0)
        tokens, count = tokens[count > 0], count[count > 0]
        p = count / len(others)
        divergence = p * np.log(p / self.share[tokens])
        order = np.argsort(-divergence, kind="stable")
        common = []
        for at in order:
            column, kind, token = self.names[tokens[at]]
            if kind == "tags" or divergence[at] > 0:
                common.append({"column": column, "token": token, "items": int(count[at])})
        return common[:k]


def _is_text(column: pl.Series) -> bool:
    return column.dtype in (pl.String, pl.List(pl.String)) and column.name not in ("item_id", "title")
