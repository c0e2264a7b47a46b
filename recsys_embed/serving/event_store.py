"""What was rated since the training: a SQLite file. An event is on the disk before anybody is told that it is kept."""

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
    rating REAL, timestamp INTEGER, received REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS events_of_user ON events (user, seq);
"""
_INSERT = """
INSERT INTO events (id, user, item, rating, timestamp, received) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING
"""
# Events that one transaction takes at most: the first in it must not wait long for the last.
_MAX_BATCH_EVENTS = 10_000
# Seconds that a process waits for another one's transaction: fewer than a request waits for its answer.
_BUSY_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Event:
    """A user rated an item (rating None: took it). id: the sender's name for it, which makes sending it again safe."""

    user: str
    item: str
    rating: float | None = None
    timestamp: int | None = None
    id: str | None = None


class LatestFeedback(NamedTuple):
    """What a user said last of an item. received: seconds since 1970."""

    item: str
    rating: float | None
    received: float


class AppendResult(NamedTuple):
    """What became of events: how many were new, and how many had been kept before."""

    inserted: int
    duplicates: int


class EventLog:
    """The events of all processes that serve from one file.

    One thread writes, all that wait together in one transaction, since a transaction waits for the disk. Any thread
    reads. Raises DataError where the file is none of ours or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: queue.SimpleQueue[tuple[list[Event], Future[AppendResult]] | None] = queue.SimpleQueue()
        self._own = threading.local()
        try:
            with self._connect() as connection:
                connection.executescript(_TABLE)
                connection.execute("SELECT seq, id, user, item, rating, timestamp, received FROM events LIMIT 0")
            connection.close()
        except sqlite3.Error as error:
            raise DataError(f"{path} cannot keep events ({error}): name another file with --events") from None
        self._writer = threading.Thread(target=self._write, name="events", daemon=True)
        self._writer.start()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL waits for the disk at every commit, so that what is acknowledged outlives a loss of power too.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")  # what is removed is overwritten
        return connection

    def append(self, events: list[Event]) -> Future[AppendResult]:
        """Keep events, all of them or none; the future is done when they are on the disk."""
        future: Future[AppendResult] = Future()
        self._waiting.put((events, future))
        return future

    def last(self, user: str) -> int | None:
        """Return a number that changes with the events of a user; None where there are none."""
        (last,) = self._reader.execute("SELECT max(seq) FROM events WHERE user = ?", (user,)).fetchone()
        return None if last is None else int(last)

    def of(self, user: str) -> list[LatestFeedback]:
        """Return what a user said last of each item, the oldest first: by its time, or else by its arrival."""
        rows = self._reader.execute(
            "SELECT item, rating, received FROM events WHERE user = ? ORDER BY coalesce(timestamp, received), seq",
            (user,),
        )
        said: dict[str, LatestFeedback] = {}
        for row in rows:
            said.pop(row[0], None)
            said[row[0]] = LatestFeedback(*row)
        return list(said.values())

    def delete_of(self, user: str) -> int:
        """Remove all events of a user for good, and return how many there were."""
        return self._reader.execute("DELETE FROM events WHERE user = ?", (user,)).rowcount

    @property
    def works(self) -> bool:
        """Whether events can be kept."""
        return self._writer.is_alive()

    @property
    def _reader(self) -> sqlite3.Connection:
        if not hasattr(self._own, "connection"):
            self._own.connection = self._connect()
        connection: sqlite3.Connection = self._own.connection
        return connection

    def close(self) -> None:
        """Write what still waits, and end."""
        self._waiting.put(None)
        self._writer.join()

    def _write(self) -> None:
        connection = self._connect()
        last = False
        while not last:
            together, count = [], 0
            entry = self._waiting.get()
            while True:
                if entry is None:
                    last = True
                    break
                together.append(entry)
                count += len(entry[0])
                if count >= _MAX_BATCH_EVENTS or self._waiting.empty():
                    break
                entry = self._waiting.get()
            if together:
                _commit(connection, together)
        connection.close()


def _commit(connection: sqlite3.Connection, waiting: list[tuple[list[Event], Future[AppendResult]]]) -> None:
    """Write what waited in one transaction, and tell all who wait for it what became of it."""
    # From here on nobody can take back what they asked for, so that they can be told.
    together = [(events, future) for events, future in waiting if future.set_running_or_notify_cancel()]
    kept: list[AppendResult] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        for events, _ in together:
            now, inserted = time.time(), 0
            for e in events:
                row = (e.id or uuid.uuid4().hex, e.user, e.item, e.rating, e.timestamp, now)
                inserted += connection.execute(_INSERT, row).rowcount
            kept.append(AppendResult(inserted, len(events) - inserted))
        connection.execute("COMMIT")
    except Exception as error:  # a full disk, a lock that stays: whoever waits must hear of it, and the thread go on
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        for _, future in together:
            future.set_exception(DataError(f"the events could not be kept: {error}"))
        return
    for (_, future), result in zip(together, kept, strict=True):
        future.set_result(result)
