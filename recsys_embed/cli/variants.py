"""recsys variants: which model of a service is better."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys_embed.cli.options import JSON
from recsys_embed.cli.output import echo, print_json, print_table
from recsys_embed.errors import DataError


def variants(
    events: Annotated[Path, typer.Option(help="File of events of the service; it may run or not.")] = Path("events.db"),
    ab_test: Annotated[str | None, typer.Option(help="Name of the A/B test. (default: the latest)")] = None,
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
    from recsys_embed.serving.outcome_store import LAG_S, follow_events, read_counts
    from recsys_embed.serving.outcome_tables import create_tables, read_test
    from recsys_embed.serving.variant_report import report_of

    if not path.exists():
        raise DataError(f"there is no file {path}: --events names the one of a service")
    store = EventStore(path)
    try:
        create_tables(store.connection)
        test = read_test(store.connection, name)
        while follow_events(store.connection, test, LAG_S):
            pass
        return report_of(test, read_counts(store.connection, test))
    except sqlite3.Error as error:
        raise DataError(f"{path} cannot be read ({error})") from None
    finally:
        store.close()
