"""The file of items that a service follows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recsys_embed.errors import DataError
from recsys_embed.serving.item_store import ItemStore
from recsys_embed.sources.read import read_items
from recsys_embed.state.change_items import ItemValue


class ItemsTable(NamedTuple):
    """The content of a file of items. version: of the file; seq: values of the store up to this number are older."""

    table: pl.DataFrame
    version: str
    seq: int

    def newer(self, values: list[ItemValue], seqs: list[int]) -> list[ItemValue]:
        """Return the values, with their numbers, that the table does not replace: newer ones, and others than its."""
        items = set(self.table["item_id"].cast(pl.String).to_list())
        return [
            value
            for value, seq in zip(values, seqs, strict=True)
            if seq > self.seq or value.column not in self.table.columns or str(value.item) not in items
        ]


class ItemsFile:
    """A table of items in a file that others replace or write. store: knows which of its values are older.

    likely: the column of ids, if it is there; otherwise it has a usual name.
    """

    def __init__(self, path: Path, store: ItemStore, likely: str | None = None) -> None:
        self.path, self.store, self.likely = path, store, likely

    def version(self) -> str:
        """Return a text that changes with the file; it is cheap. "": there is none."""
        try:
            status = self.path.stat()
        except OSError:
            return ""
        return f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"

    def read(self) -> ItemsTable:
        """Read the file. Raises DataError if it is no item table, or changes meanwhile."""
        before = self.version()
        table = read_items(self.path, likely=self.likely)
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        if not before or before != self.version():
            raise DataError(f"{self.path} is being written")
        return ItemsTable(table, before, self.store.seq_of_file(self.path, digest))
