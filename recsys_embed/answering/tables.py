"""Convert between the rows inside a state and the ids and tables outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Id, Rows
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import UnknownId
from recsys_embed.state.fitted import FittedState


def as_table(state: FittedState, scores: Floats, rows: Rows, **owners: pl.Series) -> pl.DataFrame:
    """Return lists (scores and item rows [b, k], best first, padded with row -1) as one long table.

    owners: a column, by name, of the ids [b] that the lists belong to.
    """
    line, rank = np.nonzero(rows >= 0)
    items = rows[rows >= 0]
    return pl.DataFrame(
        {
            **{name: ids.gather(line) for name, ids in owners.items()},
            "item_id": state.items.ids(items),
            "title": state.table["title"].gather(items),
            "score": scores[rows >= 0],
            "rank": rank + 1,
        }
    )


def one_or_more(vocab: Vocab, ids: Id | Iterable[Id]) -> Iterable[Id]:
    """Return one id as a list, several ids unchanged. Raises UnknownId for anything else."""
    if isinstance(ids, int | str | np.integer):
        return [ids]
    if isinstance(ids, bytes | Mapping) or not isinstance(ids, Iterable):
        raise UnknownId(f"{ids!r} names no {vocab.name}: ids are integers or text, one or a list of them")
    return ids


def rows_of(vocab: Vocab, ids: Id | Iterable[Id]) -> Rows:
    """Return the rows of one id or of several. Raises UnknownId."""
    return vocab.rows(one_or_more(vocab, ids))
