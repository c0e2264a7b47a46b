"""Lists as tables, and ids as rows: the border between the state's rows and the outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Id, Rows
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import UnknownId
from recsys_embed.state.fitted import FittedState


def as_table(state: FittedState, scores: Floats, rows: Rows, **whose: pl.Series) -> pl.DataFrame:
    """Return lists as one long table: scores and item rows [b, k], best first; row -1 is none.

    whose: a column, by its name, of whose lists they are: [b] ids.
    """
    which, rank = np.nonzero(rows >= 0)
    found = rows[rows >= 0]
    return pl.DataFrame(
        {
            **{name: ids.gather(which) for name, ids in whose.items()},
            "item_id": state.items.ids(found),
            "title": state.table["title"].gather(found),
            "score": scores[rows >= 0],
            "rank": rank + 1,
        }
    )


def one_or_more(vocab: Vocab, ids: Id | Iterable[Id]) -> Iterable[Id]:
    """Return one id or several as several. Raises UnknownId for what is no id."""
    if isinstance(ids, int | str | np.integer):
        return [ids]
    if isinstance(ids, bytes | Mapping) or not isinstance(ids, Iterable):
        raise UnknownId(f"{ids!r} names no {vocab.name}: ids are integers or text, one or a list of them")
    return ids


def rows_of(vocab: Vocab, ids: Id | Iterable[Id]) -> Rows:
    """Return the rows of one id or several. Raises UnknownId."""
    return vocab.rows(one_or_more(vocab, ids))
