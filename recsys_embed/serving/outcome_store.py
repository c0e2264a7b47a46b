"""Outcomes: which lists the variants of an A/B test gave, and which events followed; kept in the file of events."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from recsys_embed.config.variants import Variant
from recsys_embed.errors import DataError
from recsys_embed.serving.event_store import EventStore
from recsys_embed.serving.outcome_tables import AbTest, Successes, create_tables, start_test

log = logging.getLogger("recsys_embed")

# A hit is a success with an item that was in one of the user's last lists, of this many seconds and this many lists.
HIT_SECONDS, HIT_LISTS = 24 * 3600, 20
# Most lists that are kept for that, of all users and tests.
_MAX_LISTS = 1_000_000
# Seconds after their last list from which on users are forgotten; the sums stay. Whoever returns later counts anew.
_USER_SECONDS = 90 * 24 * 3600
# Seconds between two writes: lists that were given since are lost when the process is killed.
_PAUSE_S = 0.2
# Most lists that wait for the file, e.g. on a full disk.
_MAX_WAITING = 100_000
# Seconds by which events are counted late if another process may still hold the list that they follow.
LAG_S = 2.0
# Seconds by which a sender's clock, of whole seconds, may be behind ours.
_SKEW_S = 60.0
_EVENTS = """
SELECT seq, user, item, rating, coalesce(timestamp, received), received, event FROM events WHERE seq > ?
ORDER BY seq LIMIT 10000
"""
_COUNT = """
INSERT INTO ab_counts (test, variant, users, lists, converted, events, hits) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (test, variant) DO UPDATE SET users = users + excluded.users, lists = lists + excluded.lists,
converted = converted + excluded.converted, events = events + excluded.events, hits = hits + excluded.hits
"""
_FIELDS = ("users", "lists", "converted", "events", "hits")


class Counts(NamedTuple):
    """Sums of a variant. users: with a list; lists: that they got; converted: users with a success after their first
    list; events: those successes; hits: those of them with an item of a recent list."""

    users: int = 0
    lists: int = 0
    converted: int = 0
    events: int = 0
    hits: int = 0


class _List(NamedTuple):
    user: str
    variant: str
    time: float
    items: list[str]


class Outcomes:
    """Counts the lists of an A/B test and the events that follow them.

    Lists wait in memory for a thread that writes them, some times a second; `count` waits for nothing. Events are taken
    from the store, each once, whichever process does. A user counts for the variant of their first list; lists of
    others, after a change of shares, are left out. lag: seconds; see `LAG_S`, the default. Raises DataError for a file
    that cannot be written, SettingError for a test that counts other events.
    """

    def __init__(
        self,
        events: EventStore,
        name: str,
        variants: Sequence[Variant],
        successes: Successes,
        fixed: bool = False,
        lag: float | None = None,
    ) -> None:
        self.events, self.lag = events, LAG_S if lag is None else lag
        self._waiting: list[_List] = []
        self._lock, self._writing, self._closing = threading.Lock(), threading.Lock(), threading.Event()
        self._failed, self._next_cleaning = False, 0.0
        try:
            create_tables(events.connection)
            self.test = start_test(events.connection, name, variants, successes, fixed)
        except sqlite3.Error as error:
            raise DataError(f"{events.path} cannot store outcomes ({error}): name another file with --events") from None
        self._writer = threading.Thread(target=self._write, name="outcomes", daemon=True)
        self._writer.start()

    def count(self, user: str, variant: str, items: list[str]) -> None:
        """Count a list that a user gets. Thread-safe."""
        with self._lock:
            self._waiting.append(_List(user, variant, time.time(), items))
            if len(self._waiting) > _MAX_WAITING:
                del self._waiting[0]

    def flush(self) -> None:
        """Write the lists that wait, and count the events that came. Raises sqlite3.Error; then nothing is lost."""
        with self._writing:
            with self._lock:
                lists, self._waiting = self._waiting, []
            try:
                _store_lists(self.events.connection, self.test, lists)
            except BaseException:
                with self._lock:
                    self._waiting = lists + self._waiting
                raise
            while follow_events(self.events.connection, self.test, self.lag):
                pass
            if time.monotonic() > self._next_cleaning:
                self._next_cleaning = time.monotonic() + 600
                _clean(self.events.connection, self.test)

    def counts(self, flush: bool = True) -> dict[str, Counts]:
        """Return the sums by variant. flush: as of now, not of the last write. Raises DataError."""
        try:
            if flush:
                self.flush()
        except sqlite3.Error as error:
            raise DataError(f"the outcomes could not be stored: {error}") from None
        return read_counts(self.events.connection, self.test)

    def close(self) -> None:
        """Write what waits, and stop the thread."""
        self._closing.set()
        self._writer.join()

    def _write(self) -> None:
        self.events.connection.execute("PRAGMA synchronous = NORMAL")  # a list is not worth waiting for the disk
        while True:
            closing = self._closing.wait(_PAUSE_S)
            try:
                self.flush()
                self._failed = False
            except sqlite3.Error as error:
                if not self._failed:
                    log.warning("the outcomes of variants could not be stored, and will be tried again: %s", error)
                self._failed = True
            if closing:
                return


def _store_lists(connection: sqlite3.Connection, test: AbTest, lists: Sequence[_List]) -> None:
    if not lists:
        return
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for given in lists:
            key = test.number, given.user
            is_new = connection.execute(
                "INSERT INTO ab_users VALUES (?, ?, ?, ?, ?, 0) ON CONFLICT DO NOTHING",
                (*key, given.variant, given.time, given.time),
            ).rowcount
            if (
                not is_new
                and not connection.execute(
                    "UPDATE ab_users SET last = ? WHERE test = ? AND user = ? AND variant = ?",
                    (given.time, *key, given.variant),
                ).rowcount
            ):
                continue  # the user was another variant's first
            sums[given.variant].update(users=is_new, lists=1)
            connection.execute(
                "INSERT INTO ab_lists (test, user, time, items) VALUES (?, ?, ?, ?)",
                (*key, given.time, json.dumps(given.items)),
            )
        _add_counts(connection, test, sums)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _add_counts(connection: sqlite3.Connection, test: AbTest, sums: dict[str, Counter[str]]) -> None:
    rows = [(test.number, variant, *(found[name] for name in _FIELDS)) for variant, found in sums.items()]
    connection.executemany(_COUNT, rows)


def follow_events(connection: sqlite3.Connection, test: AbTest, lag: float) -> bool:
    """Count some events that were not counted yet, and return whether there may be more. lag: see `Outcomes`."""
    now = time.time()
    if not _new_events(connection, test, now, lag):
        return False
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    connection.execute("BEGIN IMMEDIATE")
    try:
        events = _new_events(connection, test, now, lag)  # another process may have been faster
        for _, user, item, rating, at, received, kind in events:
            if test.successes.include(kind, rating):
                _count_success(connection, test, sums, user, item, min(at, received), received)
        if events:
            connection.execute("UPDATE ab_tests SET seq = ? WHERE test = ?", (events[-1][0], test.number))
        _add_counts(connection, test, sums)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return True


def _new_events(connection: sqlite3.Connection, test: AbTest, now: float, lag: float) -> list[tuple]:  # type: ignore[type-arg]
    (seq,) = connection.execute("SELECT seq FROM ab_tests WHERE test = ?", (test.number,)).fetchone()
    events = connection.execute(_EVENTS, (seq,)).fetchall()
    late = next((n for n, event in enumerate(events) if now - lag < event[5] <= now and lag), len(events))
    return events[:late]


def _count_success(
    connection: sqlite3.Connection,
    test: AbTest,
    sums: dict[str, Counter[str]],
    user: str,
    item: str,
    at: float,
    received: float,
) -> None:
    """Count a success if the user had a list before it. at, received: seconds since 1970."""
    found = connection.execute(
        "SELECT variant, first, converted FROM ab_users WHERE test = ? AND user = ?", (test.number, user)
    ).fetchone()
    if found is None or received < found[1] or at < found[1] - _SKEW_S:
        return
    variant, _, converted = found
    given = connection.execute(
        "SELECT items FROM ab_lists WHERE user = ? AND test = ? AND time BETWEEN ? AND ? ORDER BY time DESC LIMIT ?",
        (user, test.number, at - HIT_SECONDS, min(received, at + _SKEW_S), HIT_LISTS),
    ).fetchall()
    sums[variant].update(events=1, converted=not converted, hits=any(item in json.loads(items) for (items,) in given))
    if not converted:
        connection.execute("UPDATE ab_users SET converted = 1 WHERE test = ? AND user = ?", (test.number, user))


def _clean(connection: sqlite3.Connection, test: AbTest) -> None:
    """Delete lists that can lead to no hit any more, and users who have been away for long."""
    now = time.time()
    old = "DELETE FROM ab_lists WHERE test = ? AND time < ?"
    connection.execute(old, (test.number, now - HIT_SECONDS - _SKEW_S))
    connection.execute("DELETE FROM ab_lists WHERE number <= (SELECT max(number) FROM ab_lists) - ?", (_MAX_LISTS,))
    connection.execute("DELETE FROM ab_users WHERE last < ?", (now - _USER_SECONDS,))


def read_counts(connection: sqlite3.Connection, test: AbTest) -> dict[str, Counts]:
    """Return the sums by variant: those that are served now first."""
    rows = connection.execute(f"SELECT variant, {', '.join(_FIELDS)} FROM ab_counts WHERE test = ?", (test.number,))
    found = {variant: Counts(*sums) for variant, *sums in rows}
    return {variant.name: Counts() for variant in test.variants} | found
