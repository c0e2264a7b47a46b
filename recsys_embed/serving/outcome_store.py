"""Outcomes: which lists the variants of an A/B test gave, and which events followed; kept in the file of events."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from recsys_embed.config.variants import Variant
from recsys_embed.errors import DataError
from recsys_embed.serving.event_store import EventStore
from recsys_embed.serving.outcome_cleaning import cleaning, delete_user_rows, deleted_since, in_steps
from recsys_embed.serving.outcome_tables import AbTest, Successes, create_tables, has_tables, read_tests, start_test

log = logging.getLogger("recsys_embed")

# A hit is a success with an item that was in one of the user's last lists, of this many seconds and this many lists.
HIT_SECONDS, HIT_LISTS = 24 * 3600, 20
# Most lists that are kept for that, of all users and tests.
_MAX_LISTS = 1_000_000
# Seconds between two writes: lists that were given since are lost when the process is killed.
_PAUSE_S = 0.2
# Seconds between two cleanings.
_CLEANING_S = 600.0
# Most lists that wait for the file, e.g. on a full disk.
_MAX_WAITING = 100_000
# Most lists, or events, in one transaction: events that are sent meanwhile wait for it.
_STEP = 300
# Seconds by which events are counted late if another process may still hold the list that they follow.
LAG_S = 2.0
# Seconds by which a sender's clock, of whole seconds, may be behind ours.
_SKEW_S = 60.0
# Events that a test has not counted yet: those of its runs.
_EVENTS = """
SELECT seq, user, item, rating, coalesce(timestamp, received), received, event,
    (SELECT test FROM ab_runs WHERE ab_runs.seq < events.seq ORDER BY run DESC LIMIT 1) = :test
FROM events WHERE seq > (SELECT seq FROM ab_tests WHERE test = :test) AND seq <= coalesce(
    (SELECT seq FROM ab_runs WHERE run > (SELECT max(run) FROM ab_runs WHERE test = :test) ORDER BY run LIMIT 1), 1e18)
"""
_EVENTS_OF_ALL = f"{_EVENTS} ORDER BY seq LIMIT :step"
_EVENTS_OF_USER = f"{_EVENTS} AND user = :user ORDER BY seq"
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


class GivenList(NamedTuple):
    """A list that a user, or a session, got from a variant."""

    user: str
    variant: str
    items: list[str]


class _List(NamedTuple):
    user: str
    variant: str
    items: list[str]
    time: float


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
        self._waiting: deque[_List] = deque(maxlen=_MAX_WAITING)
        # Who wants to know when all of this is stored.
        self._requests: list[Future[None]] = []
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._wake, self._closing = threading.Event(), False
        self._failed = False
        self._cleaning: Iterator[bool] | None = None
        self._next_cleaning = 0.0
        try:
            create_tables(events.connection)
            self.test = start_test(events.connection, name, variants, successes, fixed)
        except sqlite3.Error as error:
            raise DataError(f"{events.path} cannot store outcomes ({error}): name another file with --events") from None
        self._writer = threading.Thread(target=self._write, name="outcomes", daemon=True)
        self._writer.start()

    def count(self, user: str, variant: str, items: list[str]) -> None:
        """Count a list that a user gets. Thread-safe."""
        self.count_all([GivenList(user, variant, items)])

    def count_all(self, lists: Iterable[GivenList]) -> None:
        """Count lists, before anybody sees them. Thread-safe."""
        with self._lock:
            now = time.time()
            self._waiting.extend(_List(*given, now) for given in lists)

    def flush(self) -> None:
        """Write the lists that wait, and count the events that came. Raises sqlite3.Error; then nothing is lost."""
        with self._writing:
            # Events from now on may follow lists that are given from now on, which this does not write.
            before = time.time() - self.lag
            with self._lock:
                lists, self._waiting = self._waiting, deque(maxlen=_MAX_WAITING)
            try:
                in_steps(lambda: self._store_some(lists))
            finally:
                if lists:
                    with self._lock:
                        lists.extend(self._waiting)
                        self._waiting = lists
            in_steps(lambda: follow_events(self.events.connection, self.test, before))

    def _store_some(self, lists: deque[_List]) -> bool:
        some = [lists[n] for n in range(min(_STEP, len(lists)))]
        _store_lists(self.events.connection, self.test, some)
        for _ in some:
            lists.popleft()
        return bool(lists)

    def flush_soon(self) -> Future[None]:
        """Have the thread do that now, so that nobody else waits for the file. Raises DataError in the future."""
        future: Future[None] = Future()
        with self._lock:
            self._requests.append(future)
        self._wake.set()
        return future

    def counts(self, flush: bool = True) -> dict[str, Counts]:
        """Return the sums by variant. flush: as of now, not of the last write. Raises DataError."""
        try:
            if flush:
                self.flush()
        except sqlite3.Error as error:
            raise _not_stored(error) from None
        try:
            connection = self.events.connection
        except sqlite3.Error as error:
            raise _not_readable(error) from None
        return read_counts(connection, self.test)

    def close(self) -> None:
        """Write what waits, and stop the thread."""
        self._closing = True
        self._wake.set()
        self._writer.join()

    def _write(self) -> None:
        while True:
            self._wake.wait(_PAUSE_S)
            self._wake.clear()
            closing = self._closing
            with self._lock:
                requests, self._requests = self._requests, []
            error = self._try_to_flush()
            for future in requests:
                if not future.set_running_or_notify_cancel():
                    continue
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(_not_stored(error))
            if closing:
                return

    def _try_to_flush(self) -> Exception | None:
        try:
            self.events.connection.execute("PRAGMA synchronous = NORMAL")  # a list is not worth waiting for the disk
            self.flush()
            self._clean_some()
        except Exception as error:  # whatever is wrong with the file, the next one may pass, and the thread goes on
            if not self._failed:
                log.warning("the outcomes of variants could not be stored, and will be tried again: %s", error)
            self._failed = True
            return error
        self._failed = False
        return None

    def _clean_some(self) -> None:
        if self._cleaning is None and time.monotonic() >= self._next_cleaning:
            self._cleaning = cleaning(self.events.connection, HIT_SECONDS + _SKEW_S, _MAX_LISTS)
        if self._cleaning is not None and not next(self._cleaning, False):  # one that failed is at its end too
            self._cleaning, self._next_cleaning = None, time.monotonic() + _CLEANING_S


def _not_stored(error: Exception) -> DataError:
    return DataError(f"the outcomes could not be stored: {error}")


def _not_readable(error: Exception) -> DataError:
    return DataError(f"the outcomes cannot be read: {error}")


def _store_lists(connection: sqlite3.Connection, test: AbTest, lists: Sequence[_List]) -> None:
    if not lists:
        return
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    connection.execute("BEGIN IMMEDIATE")
    try:
        is_deleted = deleted_since(connection, min(given.time for given in lists))
        for given in lists:
            if is_deleted(given.user, given.time):
                continue
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


def follow_events(connection: sqlite3.Connection, test: AbTest, before: float) -> bool:
    """Count some events that were not counted yet, and return whether there may be more.

    before: seconds since 1970; lists that later events follow may not be stored yet.
    """
    if not _new_events(connection, test, before):
        return False
    connection.execute("BEGIN IMMEDIATE")
    try:
        events = _new_events(connection, test, before)  # another process may have been faster
        _count_successes(connection, test, events)
        if events:
            connection.execute("UPDATE ab_tests SET seq = ? WHERE test = ?", (events[-1][0], test.number))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return True


def _new_events(connection: sqlite3.Connection, test: AbTest, before: float) -> list[Any]:
    events = connection.execute(_EVENTS_OF_ALL, {"test": test.number, "step": _STEP}).fetchall()
    now = time.time()  # what came after that came when the clock was wrong, and does not hold up the others
    late = next((n for n, event in enumerate(events) if before <= event[5] <= now), len(events))
    return events[:late]


def delete_outcomes(connection: sqlite3.Connection, user: str) -> None:
    """Delete within a transaction which lists a user got, before their events are; what came of them stays counted."""
    if has_tables(connection):
        create_tables(connection)  # an earlier version has fewer
        for test in read_tests(connection):
            events = connection.execute(_EVENTS_OF_USER, {"test": test.number, "user": user}).fetchall()
            _count_successes(connection, test, events)
        delete_user_rows(connection, user)


def _count_successes(connection: sqlite3.Connection, test: AbTest, events: Sequence[Any]) -> None:
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for _, user, item, rating, at, received, kind, is_of_test in events:
        if is_of_test and test.successes.include(kind, rating):
            _count_success(connection, test, sums, user, item, min(at, received), received)
    _add_counts(connection, test, sums)


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


def read_counts(connection: sqlite3.Connection, test: AbTest) -> dict[str, Counts]:
    """Return the sums by variant: those that are served now first. Raises DataError."""
    query = f"SELECT variant, {', '.join(_FIELDS)} FROM ab_counts WHERE test = ?"
    try:
        found = {variant: Counts(*sums) for variant, *sums in connection.execute(query, (test.number,))}
    except sqlite3.Error as error:
        raise _not_readable(error) from None
    return {variant.name: Counts() for variant in test.variants} | found
