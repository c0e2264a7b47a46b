"""Values of items that were set since the training, in the SQLite file of the events."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from recsys_embed.errors import DataError
from recsys_embed.serving.event_store import EventStore
from recsys_embed.state.change_items import ItemValue

_TABLES = """
CREATE TABLE IF NOT EXISTS item_values (
    item TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (item, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS item_values_by_seq ON item_values (seq);
CREATE TABLE IF NOT EXISTS item_files (path TEXT PRIMARY KEY, digest TEXT NOT NULL, seq INTEGER NOT NULL) STRICT;
"""
_UPSERT = """
INSERT INTO item_values (item, name, value, seq) VALUES (?, ?, ?, ?)
ON CONFLICT (item, name) DO UPDATE SET value = excluded.value, seq = excluded.seq
"""
_UPSERT_FILE = """
INSERT INTO item_files (path, digest, seq) VALUES (?, ?, ?)
ON CONFLICT (path) DO UPDATE SET digest = excluded.digest, seq = excluded.seq
"""


class ItemStore:
    """The values that all processes with one file set: of each item and column the last.

    They are on disk before `set` returns. Any thread may use it. seq: the number of a batch; later ones have larger
    numbers. Raises DataError where the file cannot be written.
    """

    def __init__(self, events: EventStore) -> None:
        self.events = events
        try:
            events.connection.executescript(_TABLES)
        except sqlite3.Error as error:
            raise DataError(f"{events.path} cannot store items ({error}): name another file with --events") from None

    def set(self, values: Sequence[ItemValue]) -> int:
        """Store values, all of them or none, and return their number. Raises DataError."""
        with self.events.transaction() as connection:
            seq = self.last_seq() + 1
            rows = ((str(item), name, json.dumps(value), seq) for item, name, value in values)
            connection.executemany(_UPSERT, rows)
        return seq

    def last_seq(self) -> int:
        """Return the number of the last batch; 0 without any."""
        ((last,),) = self.events.read("SELECT max(seq) FROM item_values")
        return int(last or 0)

    def since(self, seq: int) -> tuple[list[ItemValue], list[int]]:
        """Return all values with higher numbers than this, in their order, and their numbers."""
        found = self.events.read("SELECT item, name, value, seq FROM item_values WHERE seq > ? ORDER BY seq", seq)
        return [ItemValue(item, name, json.loads(value)) for item, name, value, _ in found], [row[3] for row in found]

    def of_items(self, items: Sequence[str]) -> list[ItemValue]:
        """Return all values of some items."""
        found: list[ItemValue] = []
        for item in items:
            rows = self.events.read("SELECT name, value FROM item_values WHERE item = ?", item)
            found += [ItemValue(item, name, json.loads(value)) for name, value in rows]
        return found

    def seq_of_file(self, path: Path, digest: str) -> int:
        """Return the number of the last batch before a file had this content; it is kept when it is first asked."""
        name = str(path.resolve())
        with self.events.transaction() as connection:
            rows = self.events.read("SELECT digest, seq FROM item_files WHERE path = ?", name)
            if not rows or rows[0][0] != digest:
                rows = [(digest, self.last_seq())]
                connection.execute(_UPSERT_FILE, (name, *rows[0]))
        return int(rows[0][1])
