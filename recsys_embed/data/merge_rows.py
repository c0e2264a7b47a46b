"""Rows of a table of ratings as one row for each pair: repeated ones are merged, and edges of a graph are mirrored."""

from __future__ import annotations

import logging

import numpy as np
import polars as pl

from recsys_embed.config.settings import DuplicatesName
from recsys_embed.data.ids import RowLabel, row_labels
from recsys_embed.data.sorting import pair_keys, stable_argsort
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError

log = logging.getLogger("recsys_embed")


def orient_edges(table: pl.DataFrame) -> pl.DataFrame:
    """Turn each edge so that the node with the lower row comes first."""
    return table.with_columns(user=pl.min_horizontal("user", "item"), item=pl.max_horizontal("user", "item"))


def mirror_edges(table: pl.DataFrame) -> pl.DataFrame:
    """Return each edge in both directions, without self-loops."""
    edges = table.filter(pl.col("user") != pl.col("item"))
    if edges.height < table.height:
        log.warning("dropped %s edges of a node with itself", f"{table.height - edges.height:,}")
    if edges.is_empty():
        raise DataError("there are no edges between two nodes")
    return pl.concat([edges, edges.with_columns(user="item", item="user")])


def drop_isolated_nodes(table: pl.DataFrame, nodes: Vocab) -> tuple[pl.DataFrame, Vocab]:
    """Leave only nodes that have an edge; those that had self-loops alone have none."""
    rows = table["user"].unique().sort().to_numpy()
    vocab = Vocab(nodes.ids(rows), "node")
    return table.with_columns(pl.Series(c, np.searchsorted(rows, table[c])) for c in ("user", "item")), vocab


def deduplicate(table: pl.DataFrame, duplicates: DuplicatesName, row_label: RowLabel) -> tuple[pl.DataFrame, int]:
    """Return the table with one row per (user, item), by the given policy, and the number of rows dropped."""
    width = int(table["item"].max()) + 1  # type: ignore[arg-type]
    keys = pair_keys(table["user"].to_numpy(), table["item"].to_numpy(), width)
    if pl.Series(keys).n_unique() == len(keys):
        return table, 0
    if duplicates == "error":
        repeated = row_labels(pl.Series(keys).is_duplicated(), row_label)
        raise DataError(f"a user and item, or an edge, occur more than once in {repeated}")
    by_time = stable_argsort(table["time"].to_numpy()) if "time" in table.columns else np.arange(len(keys))
    if duplicates in ("last", "first"):
        by_pair = stable_argsort(keys, by_time)
        last_of_pair = np.flatnonzero(np.diff(keys[by_pair]))
        keep = np.zeros(len(keys), bool)
        keep[by_pair[np.append(last_of_pair, -1) if duplicates == "last" else np.insert(last_of_pair + 1, 0, 0)]] = True
        unique = table[by_time[keep[by_time]]]
    else:
        sums = [pl.col(name) for name in ("value", "weight") if name in table.columns]
        time = [pl.col("time").last()] if "time" in table.columns else []
        merged = [column.mean() if duplicates == "mean" else column.sum() for column in sums]
        unique = table[by_time].group_by("user", "item", maintain_order=True).agg(*merged, *time)
    return unique, table.height - unique.height
