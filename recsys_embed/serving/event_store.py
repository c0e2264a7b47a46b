"""Ratings received since the training, in a SQLite file. An event is on disk before it is acknowledged."""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from recsys_embed.errors import DataError

log = logging.getLogger("recsys_embed")

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
# Reading more events of a user than this takes more than some milliseconds.
_MANY_EVENTS = 2_000
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
        # Why the file cannot be read any more, or None.
        self._unreadable: str | None = None
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._local = threading.local()
        try:
            with self._connect() as connection:
                connection.executescript(_TABLE)
                _check_columns(connection)
            connection.close()
            self._identity = _identity(path)
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

    def read(self, query: str, *values: Any) -> list[Any]:
        """Return the rows of a query. Raises DataError if the file cannot be read any more; `problem` says so then."""
        try:
            return self.connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            if not isinstance(error, sqlite3.OperationalError) and self._unreadable is None:
                self._unreadable = f"{self.path} cannot be read any more ({error})"
                log.error("%s: restore it from a copy, and restart the service", self._unreadable)
            raise DataError(f"the events cannot be read: {error}") from None

    def problem(self) -> str | None:
        """Return in a sentence why events are not taken any more, or None. Cheap."""
        if not self._writer.is_alive():
            return "events can no longer be stored: restart the service"
        if self._unreadable is not None:
            return self._unreadable
        try:
            self._check_file()
            self.last_seq_of_all()
        except DataError as error:
            return str(error)
        return None

    def _check_file(self) -> None:
        """Raise DataError if the file is not the one that was opened: what is written to that one would be lost."""
        if _identity(self.path) != self._identity:
            raise DataError(f"{self.path} was removed or replaced: put it back, or restart the service")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give this thread's connection within a transaction, of which all is stored or nothing. Raises DataError."""
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._check_file()
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise DataError(f"{self.path} could not be written: {error}") from None

    def last_seq(self, user: str) -> int | None:
        """Return a number that changes with the events of a user, or None where there are none."""
        ((last,),) = self.read("SELECT max(seq) FROM events WHERE user = ?", user)
        return None if last is None else int(last)

    def has_many(self, user: str) -> bool:
        """Return whether a user has so many events that reading them takes more than some milliseconds."""
        return bool(self.read("SELECT 1 FROM events WHERE user = ? LIMIT 1 OFFSET ?", user, _MANY_EVENTS))

    def last_seq_of_all(self) -> int:
        """Return the number of the last event of all users; 0 without any."""
        ((last,),) = self.read("SELECT max(seq) FROM events")
        return int(last or 0)

    def since(self, seq: int) -> list[StoredEvent]:
        """Return all events with a higher number than this, ascending."""
        rows = self.read(
            "SELECT seq, user, item, rating, coalesce(timestamp, received), received, event FROM events WHERE seq > ? "
            "ORDER BY seq",
            seq,
        )
        return [StoredEvent(*row) for row in rows]

    def by_item(self, user: str) -> list[ItemEvents]:
        """Return a user's events of each item, the item of their oldest first: by timestamp, or else by arrival."""
        rows = self.read(
            "SELECT item, rating, received, event FROM events WHERE user = ? "
            "ORDER BY coalesce(timestamp, received), seq",
            user,
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
        rows = self.read(
            "SELECT user, event FROM events WHERE item = ? ORDER BY coalesce(timestamp, received), seq", item
        )
        for user, event in rows:
            found[user] = (*(name for name in found.get(user, ()) if name != event), event)
        return found

    def delete_of(self, user: str, first: Callable[[sqlite3.Connection, str], None] = lambda *_: None) -> int:
        """Delete all events of a user for good, and return how many there were.

        first: what else is done, in the same transaction, while they are still there.
        """
        with self.transaction() as connection:
            first(connection, user)
            count = connection.execute("DELETE FROM events WHERE user = ?", (user,)).rowcount
            if count:  # all processes that serve with the file see that
                connection.execute(f"PRAGMA user_version = {self.deletions() + 1}")
        return count

    def deletions(self) -> int:
        """Return a number that changes when events are deleted."""
        return int(self.read("PRAGMA user_version")[0][0])

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection. Raises DataError for a file that is gone: SQLite would make an empty one."""
        if not hasattr(self._local, "connection"):
            self._check_file()
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
                _commit(connection, batch, self._check_file)
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


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one at the same place, or None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _commit(connection: sqlite3.Connection, batch: list[_Pending], check: Callable[[], None]) -> None:
    """Write a batch in one transaction, and set the results of its futures. check: raises where it would be lost."""
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
        check()
        connection.execute("COMMIT")
    except Exception as error:  # a full disk, a lock: whoever waits must be told, and the thread must go on
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        for _, future in batch:
            future.set_exception(DataError(f"the events could not be stored: {error}"))
        return
    for (_, future), result in zip(batch, results, strict=True):
        future.set_result(result)
