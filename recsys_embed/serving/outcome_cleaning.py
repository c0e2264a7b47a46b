"""What leaves the tables of A/B tests again: old lists, users who have been away for long, and users on request."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator

# Seconds after which a deletion is no longer remembered, and a list that still waits is given up.
DELETION_SECONDS = 7 * 24 * 3600
# Seconds after their last list from which on users are forgotten; the sums stay. Whoever returns later counts anew.
_USER_SECONDS = 90 * 24 * 3600
# Most rows that a transaction looks at: others wait for it.
_STEP_ROWS = 1_000
_OLD_LISTS = """
DELETE FROM ab_lists WHERE number < (SELECT min(number) FROM ab_lists) + :step
AND (time < :oldest OR number <= (SELECT max(number) FROM ab_lists) - :most)
"""
_NEXT_USERS = "SELECT test, user FROM ab_users WHERE (test, user) > (?, ?) ORDER BY test, user LIMIT 1 OFFSET ?"
_LAST_USER = "SELECT test, user FROM ab_users WHERE (test, user) > (?, ?) ORDER BY test DESC, user DESC LIMIT 1"
_OLD_USERS = "FROM ab_users WHERE (test, user) > (?, ?) AND (test, user) <= (?, ?) AND last < ?"


def in_steps(step: Callable[[], bool]) -> None:
    """Repeat a step, a short transaction, until it returns False.

    SQLite lets those who wait for its lock try again now and then. The pauses, as long as the steps, are their chance.
    """
    while True:
        start = time.monotonic()
        if not step():
            return
        time.sleep(time.monotonic() - start)


def cleaning(connection: sqlite3.Connection, list_seconds: float, max_lists: int) -> Iterator[bool]:
    """Delete lists of more than these seconds ago, or beyond this number, and users who have been away for long.

    Yields True after each short transaction: others write in between. Lists are numbered in the order in which they
    were stored, so that the old ones, of all tests, are the first.
    """
    now = time.time()
    bounds = {"step": _STEP_ROWS, "oldest": now - list_seconds, "most": max_lists}
    while connection.execute(_OLD_LISTS, bounds).rowcount > 0:
        yield True
    start: tuple[int, str] = (-1, "")
    while (last := _last_of_step(connection, start)) is not None:
        rows = (*start, *last, now - _USER_SECONDS)
        if connection.execute(f"SELECT 1 {_OLD_USERS} LIMIT 1", rows).fetchone():  # reading takes no lock
            connection.execute(f"DELETE {_OLD_USERS}", rows)
        start = last
        yield True
    connection.execute("DELETE FROM ab_deletions WHERE time < ?", (now - DELETION_SECONDS,))


def _last_of_step(connection: sqlite3.Connection, start: tuple[int, str]) -> tuple[int, str] | None:
    """Return the last of the users that a step looks at, in the order of their key, or None after the last of all."""
    row: tuple[int, str] | None = connection.execute(_NEXT_USERS, (*start, _STEP_ROWS - 1)).fetchone()
    if row is None:
        row = connection.execute(_LAST_USER, start).fetchone()
    return row


def _key(user: str) -> str:
    """What is remembered of a user who was deleted: not the id."""
    return hashlib.blake2b(user.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def delete_user_rows(connection: sqlite3.Connection, user: str) -> None:
    """Delete within a transaction what a user was given, in all tests; the sums stay.

    A list that still waits in some process is not stored any more; see `deleted_since`.
    """
    connection.execute("DELETE FROM ab_lists WHERE user = ?", (user,))
    connection.execute("DELETE FROM ab_users WHERE user = ? AND test IN (SELECT test FROM ab_tests)", (user,))
    row = _key(user), time.time()
    connection.execute("INSERT INTO ab_deletions VALUES (?, ?) ON CONFLICT DO UPDATE SET time = excluded.time", row)


def deleted_since(connection: sqlite3.Connection, start: float) -> Callable[[str, float], bool]:
    """Return a function that says whether a user was deleted after a time, which is not before the start.

    It says so too where nobody can know, since it is longer ago than deletions are remembered.
    """
    rows = connection.execute("SELECT user, time FROM ab_deletions WHERE time >= ?", (start,)).fetchall()
    times, oldest = dict(rows), time.time() - DELETION_SECONDS

    def is_deleted(user: str, at: float) -> bool:
        return at < oldest or (bool(times) and at <= times.get(_key(user), -1.0))

    return is_deleted
