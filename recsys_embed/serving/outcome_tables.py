"""The tables of A/B tests, in the SQLite file of the events, and what counts as a success."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Sequence
from typing import NamedTuple

from recsys_embed.config.fields import parse_names
from recsys_embed.config.variants import Variant
from recsys_embed.data.event_types import says_no
from recsys_embed.errors import SettingError, UnknownId
from recsys_embed.state.fitted import FittedState

log = logging.getLogger("recsys_embed")

_TABLES = """
CREATE TABLE IF NOT EXISTS ab_tests (
    test INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, started REAL NOT NULL, successes TEXT NOT NULL,
    variants TEXT NOT NULL, same_shares INTEGER NOT NULL, seq INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS ab_counts (
    test INTEGER NOT NULL, variant TEXT NOT NULL, users INTEGER NOT NULL, lists INTEGER NOT NULL,
    converted INTEGER NOT NULL, events INTEGER NOT NULL, hits INTEGER NOT NULL, PRIMARY KEY (test, variant)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ab_users (
    test INTEGER NOT NULL, user TEXT NOT NULL, variant TEXT NOT NULL, first REAL NOT NULL, last REAL NOT NULL,
    converted INTEGER NOT NULL, PRIMARY KEY (test, user)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ab_lists (
    number INTEGER PRIMARY KEY AUTOINCREMENT, test INTEGER NOT NULL, user TEXT NOT NULL, time REAL NOT NULL,
    items TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS ab_lists_of_user ON ab_lists (user, test, time);
CREATE TABLE IF NOT EXISTS ab_runs (
    run INTEGER PRIMARY KEY AUTOINCREMENT, test INTEGER NOT NULL, seq INTEGER NOT NULL
) STRICT;
INSERT INTO ab_runs (test, seq)
SELECT test, 0 FROM ab_tests WHERE NOT EXISTS (SELECT 1 FROM ab_runs) ORDER BY started DESC LIMIT 1;
CREATE TABLE IF NOT EXISTS ab_deletions (user TEXT PRIMARY KEY, time REAL NOT NULL) STRICT, WITHOUT ROWID;
"""
_START = """
INSERT INTO ab_tests (name, started, successes, variants, same_shares, seq) VALUES (?, ?, ?, ?, 1, ?)
"""
# Another process of the same service goes on with the same run.
_RUN = """
INSERT INTO ab_runs (test, seq) SELECT test, :seq FROM ab_tests
WHERE name = :name AND test IS NOT (SELECT test FROM ab_runs ORDER BY run DESC LIMIT 1)
"""


class Successes(NamedTuple):
    """Which events count. types: their types, None for an event without one; or None: all but those that say no.
    min_rating: the lowest rating that counts."""

    types: tuple[str | None, ...] | None = None
    min_rating: float | None = None

    def include(self, event: str | None, rating: float | None) -> bool:
        """Return whether an event of this type, with this rating, counts."""
        if rating is not None and self.min_rating is not None and rating < self.min_rating:
            return False
        if self.types is None:
            return event is None or not says_no(event)
        return event in self.types

    @property
    def text(self) -> str:
        """The events that count, for people."""
        types = "any" if self.types is None else ", ".join("without a type" if t is None else t for t in self.types)
        return types if self.min_rating is None else f"{types} (ratings from {self.min_rating:g} on)"

    @classmethod
    def load(cls, text: str) -> Successes:
        """Read what `save` returned."""
        saved = json.loads(text)
        return cls(None if saved["types"] is None else tuple(saved["types"]), saved["min_rating"])

    def save(self) -> str:
        """Return this as text."""
        return json.dumps(self._asdict())


def successes_for(target: str | None, state: FittedState) -> Successes:
    """Return which events count. target: types of events by name, or None for the targets of a model."""
    types = state.event_types.types
    if target is not None:
        names = parse_names(target)
        unknown = [name for name in names if types is not None and name not in types]
        if unknown:
            log.warning(
                "--target: the model knows no events %s; it knows %s", ", ".join(unknown), ", ".join(types or ())
            )
        return Successes(names, state.positive_threshold)
    targets = None if types is None else (None, *(t.name for t in types.values() if t.is_target))
    return Successes(targets, state.positive_threshold)


class AbTest(NamedTuple):
    """A test as the file has it. variants: as of the last start; same_shares: they never changed; started: seconds
    since 1970."""

    number: int
    name: str
    started: float
    successes: Successes
    variants: tuple[Variant, ...]
    same_shares: bool


def create_tables(connection: sqlite3.Connection) -> None:
    """Add the tables to a file that lacks them, within a transaction if there is one."""
    for statement in _TABLES.split(";"):  # executescript would commit
        connection.execute(statement)


def has_tables(connection: sqlite3.Connection) -> bool:
    """Return whether a file has the tables, as this version or an earlier one writes them."""
    names = "('events', 'ab_tests', 'ab_counts', 'ab_users', 'ab_lists')"
    found = connection.execute(f"SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN {names}")
    return bool(found.fetchone()[0] == 5)


def read_tests(connection: sqlite3.Connection) -> list[AbTest]:
    """Return all tests, the one that was served last first."""
    rows = connection.execute(
        "SELECT test, name, started, successes, variants, same_shares FROM ab_tests "
        "ORDER BY (SELECT max(run) FROM ab_runs WHERE ab_runs.test = ab_tests.test) DESC, started DESC"
    )
    return [
        AbTest(
            number,
            name,
            started,
            Successes.load(successes),
            tuple(Variant(*variant) for variant in json.loads(variants)),
            bool(same_shares),
        )
        for number, name, started, successes, variants, same_shares in rows
    ]


def read_test(connection: sqlite3.Connection, name: str | None) -> AbTest:
    """Return a test by its name, or the one that was served last. Raises UnknownId."""
    tests = read_tests(connection)
    found = next((test for test in tests if name is None or test.name == name), None)
    if found is None:
        names = ", ".join(test.name for test in tests) or "none"
        raise UnknownId(f"there is no A/B test {'' if name is None else repr(name) + ' '}in this file; it has {names}")
    return found


def start_test(
    connection: sqlite3.Connection, name: str, variants: Sequence[Variant], successes: Successes, fixed: bool
) -> AbTest:
    """Return a test, which begins where the file lacks it; otherwise what counts stays as it was.

    Events from now on are those of this test, and of no other: a file has one test at a time, which is its last run.
    fixed: successes were given by the user. Raises SettingError if the test counts others.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        saved = json.dumps(variants)
        row = connection.execute("SELECT successes, variants FROM ab_tests WHERE name = ?", (name,)).fetchone()
        (seq,) = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
        if row is None:
            connection.execute(_START, (name, time.time(), successes.save(), saved, seq))
        else:
            counted = Successes.load(row[0])
            if fixed and set(counted.types or ()) != set(successes.types or ()):
                raise SettingError(
                    f"the A/B test {name!r} counts these events: {counted.text}; to count others, begin another one "
                    "with --ab-test NAME"
                )
            same = _shares(json.loads(row[1])) == _shares(variants)
            connection.execute(
                "UPDATE ab_tests SET variants = ?, same_shares = same_shares AND ? WHERE name = ?", (saved, same, name)
            )
        connection.execute(_RUN, {"name": name, "seq": seq})
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return read_test(connection, name)


def _shares(variants: Sequence[Sequence[object]]) -> dict[object, object]:
    return {name: share for name, _, share in variants}
