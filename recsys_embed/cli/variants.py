"""recsys variants: which model of a service is better."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys_embed.cli.options import JSON
from recsys_embed.cli.output import echo, print_json, print_table
from recsys_embed.errors import DataError, UnknownId


def variants(
    events: Annotated[Path, typer.Option(help="File of events of the service; it may run or not.")] = Path("events.db"),
    ab_test: Annotated[str | None, typer.Option(help="Name of the A/B test. (default: the one served last)")] = None,
    json: JSON = False,
) -> None:
    """Compare the variants of recsys serve --variant: users, users with a target event, and which one is better.

    Example: recsys variants --events events.db
    """
    from recsys_embed.serving.variant_report import table_of

    report = _read(events, ab_test)
    if json:
        return print_json(report)
    print_table(*table_of(report), "share users lists converted rate hits lift")
    echo(f"A/B test {report['ab_test']}, since {report['started']}; target events: {report['target']}", dim=True)
    if report["warning"]:
        echo(f"warning: {report['warning']}")
    return echo(f"verdict: {report['verdict']}")


def _read(path: Path, name: str | None) -> dict[str, Any]:
    from recsys_embed.serving.event_store import EventStore
    from recsys_embed.serving.outcome_cleaning import in_steps
    from recsys_embed.serving.outcome_store import LAG_S, follow_events, read_counts
    from recsys_embed.serving.outcome_tables import create_tables, read_test
    from recsys_embed.serving.variant_report import report_of

    try:
        _check(path)
        store = EventStore(path)
        try:
            create_tables(store.connection)  # an earlier version has fewer
            test = read_test(store.connection, name)
            before = time.time() - LAG_S
            in_steps(lambda: follow_events(store.connection, test, before))
            return report_of(test, read_counts(store.connection, test))
        finally:
            store.close()
    except sqlite3.Error as error:
        raise DataError(f"{path} cannot be read ({error})") from None


def _check(path: Path) -> None:
    """Raise UnknownId unless a file has the tables of a test; another file must not gain them."""
    from recsys_embed.serving.outcome_tables import has_tables

    if not path.exists():
        raise DataError(f"there is no file {path}: --events names the one of a service")
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        if not has_tables(connection) or not connection.execute("SELECT 1 FROM ab_tests").fetchone():
            raise UnknownId(
                f"there is no A/B test in {path}: recsys serve --variant a=MODEL --variant b=MODEL --events {path} "
                "starts one"
            )
