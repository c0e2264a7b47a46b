"""Ratings received since the training, in a SQLite file. An event is on disk before it is acknowledged."""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
import uuid
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from recsys_embed.errors import DataError

_TABLE = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, user TEXT NOT NULL, item TEXT NOT NULL,
    rating REAL, timestamp INTEGER, received REAL NOT NULL, event TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS events_of_user ON events (user, seq);
"""
_COLUMNS = ("seq", "id", "user", "item", "rating", "timestamp", "received")
# Files of earlier versions do not have this column.
_ADD_TYPES = "ALTER TABLE events ADD COLUMN event TEXT"
_INSERT = """
INSERT INTO events (id, user, item, rating, timestamp, received, event) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING
"""
# Most events in one transaction: the first must not wait long for the last.
_MAX_BATCH_EVENTS = 10_000
# Seconds to wait for another process's transaction: fewer than a request may take.
_BUSY_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Event:
    """A user rated an item, or took it (rating None). id: the sender's id of the event, which makes a retry safe.
    event: its type, such as "view", or None."""

    user: str
    item: str
    rating: float | None = None
    timestamp: int | None = None
    id: str | None = None
    event: str | None = None


class ItemEvents(NamedTuple):
    """A user's events of an item. rating: of the latest that is a rating or a like (None) without a type. received:
    when the latest came, seconds since 1970. types: of all events, each once, in the order of the latest of each; None:
    without a type."""

    item: str
    rating: float | None
    received: float
    types: tuple[str | None, ...] = (None,)


class StoredEvent(NamedTuple):
    """An event as it is stored. seq: its number; time: its own, or that of its arrival (received)."""

    seq: int
    user: str
    item: str
    rating: float | None
    time: float
    received: float
    event: str | None


class AppendResult(NamedTuple):
    """The number of events that were new, and of those that had been stored before."""

    inserted: int
    duplicates: int


# Events that wait for the writer, and the future of the request that waits for them.
_Pending = tuple[list[Event], Future[AppendResult]]


class EventStore:
    """The events of all processes that serve with one file.

    A single thread writes: it puts everything that waits into one transaction, since a transaction waits for the disk.
    Any thread reads. Raises DataError where the file holds something else or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._local = threading.local()
        try:
            with self._connect() as connection:
                connection.executescript(_TABLE)
                _check_columns(connection)
            connection.close()
        except sqlite3.Error as error:
            raise DataError(f"{path} cannot store events ({error}): name another file with --events") from None
        self._writer = threading.Thread(target=self._write, name="events", daemon=True)
        self._writer.start()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL waits for the disk at every commit, so that acknowledged events survive a power loss too.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")  # deleted rows are overwritten
        return connection

    def append(self, events: list[Event]) -> Future[AppendResult]:
        """Store events, all of them or none; the future is done when they are on disk."""
        future: Future[AppendResult] = Future()
        self._queue.put((events, future))
        return future

    def last_seq(self, user: str) -> int | None:
        """Return a number that changes with the events of a user, or None where there are none."""
        (last,) = self.connection.execute("SELECT max(seq) FROM events WHERE user = ?", (user,)).fetchone()
        return None if last is None else int(last)

    def last_seq_of_all(self) -> int:
        """Return the number of the last event of all users; 0 without any."""
        (last,) = self.connection.execute("SELECT max(seq) FROM events").fetchone()
        return int(last or 0)

    def since(self, seq: int) -> list[StoredEvent]:
        """Return all events with a higher number than this, ascending."""
        rows = self.connection.execute(
            "SELECT seq, user, item, rating, coalesce(timestamp, received), received, event FROM events WHERE seq > ? "
            "ORDER BY seq",
            (seq,),
        )
        return [StoredEvent(*row) for row in rows]

    def by_item(self, user: str) -> list[ItemEvents]:
        """Return a user's events of each item, the item of their oldest first: by timestamp, or else by arrival."""
        rows = self.connection.execute(
            "SELECT item, rating, received, event FROM events WHERE user = ? "
            "ORDER BY coalesce(timestamp, received), seq",
            (user,),
        )
        found: dict[str, ItemEvents] = {}
        for item, rating, received, event in rows:
            before = found.pop(item, None)
            if before is None:
                found[item] = ItemEvents(item, rating, received, (event,))
                continue
            kept = before.rating if rating is None and event is not None else rating
            types = (*(name for name in before.types if name != event), event)
            found[item] = ItemEvents(item, kept, received, types)
        return list(found.values())

    def of_item(self, item: str) -> dict[str, tuple[str | None, ...]]:
        """Return the users with events of an item, and the types of these, the latest of each in order."""
        found: dict[str, tuple[str | None, ...]] = {}
        rows = self.connection.execute(
            "SELECT user, event FROM events WHERE item = ? ORDER BY coalesce(timestamp, received), seq", (item,)
        )
        for user, event in rows:
            found[user] = (*(name for name in found.get(user, ()) if name != event), event)
        return found

    def delete_of(self, user: str) -> int:
        """Delete all events of a user for good, and return how many there were."""
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            count = connection.execute("DELETE FROM events WHERE user = ?", (user,)).rowcount
            if count:  # all processes that serve with the file see that
                connection.execute(f"PRAGMA user_version = {self.deletions() + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return count

    def deletions(self) -> int:
        """Return a number that changes when events are deleted."""
        return int(self.connection.execute("PRAGMA user_version").fetchone()[0])

    @property
    def works(self) -> bool:
        """Whether events can be stored."""
        return self._writer.is_alive()

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        if not hasattr(self._local, "connection"):
            self._local.connection = self._connect()
        connection: sqlite3.Connection = self._local.connection
        return connection

    def close(self) -> None:
        """Write what still waits, and stop the writer."""
        self._queue.put(None)
        self._writer.join()

    def _write(self) -> None:
        connection = self._connect()
        closing = False
        while not closing:
            batch, n_events = [], 0
            pending = self._queue.get()
            while True:
                if pending is None:
                    closing = True
                    break
                batch.append(pending)
                n_events += len(pending[0])
                if n_events >= _MAX_BATCH_EVENTS or self._queue.empty():
                    break
                pending = self._queue.get()
            if batch:
                _commit(connection, batch)
        connection.close()


def _check_columns(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.Error unless the table is one of events; add the column of types to one of an earlier version."""
    connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM events LIMIT 0")
    connection.execute("BEGIN IMMEDIATE")  # so that of several processes that start one adds it
    try:
        if "event" not in {row[1] for row in connection.execute("PRAGMA table_info(events)")}:
            connection.execute(_ADD_TYPES)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _commit(connection: sqlite3.Connection, batch: list[_Pending]) -> None:
    """Write a batch in one transaction, and set the results of its futures."""
    # From here on the futures can no longer be cancelled.
    batch = [(events, future) for events, future in batch if future.set_running_or_notify_cancel()]
    results: list[AppendResult] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        for events, _ in batch:
            now, inserted = time.time(), 0
            for e in events:
                row = (e.id or uuid.uuid4().hex, e.user, e.item, e.rating, e.timestamp, now, e.event)
                inserted += connection.execute(_INSERT, row).rowcount
            results.append(AppendResult(inserted, len(events) - inserted))
        connection.execute("COMMIT")
    except Exception as error:  # a full disk, a lock: whoever waits must be told, and the thread must go on
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        for _, future in batch:
            future.set_exception(DataError(f"the events could not be stored: {error}"))
        return
    for (_, future), result in zip(batch, results, strict=True):
        future.set_result(result)
