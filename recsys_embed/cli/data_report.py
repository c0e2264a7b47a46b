"""Print what `recsys data check` found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recsys_embed.cli.output import echo, print_table

if TYPE_CHECKING:
    from recsys_embed.doctor.codes import Finding

# Facts that have tables of their own, or say what findings say too.
_APART = ("events", "splits", "suits", "findings", "fixed", "times", "repeated_rows_merged")


def print_examination(facts: dict[str, Any], findings: Sequence[Finding]) -> None:
    """Print facts, types of events, splits, findings and what was repaired."""
    lines = [[name.replace("_", " "), _cell(value)] for name, value in facts.items() if name not in _APART]
    print_table(["fact", "value"], [line for line in lines if line[1] is not None])
    if "events" in facts:
        echo()
        _print_events(facts["events"])
    if facts.get("splits"):
        echo()
        _print_splits(facts["splits"], facts["suits"])
    echo()
    for finding in findings:
        echo(f"{finding.severity} {finding.code}: {finding.describe()}")
        echo(f"    {finding.remedy}", dim=True)
    numbers = [(severity, sum(f.severity == severity for f in findings)) for severity in ("error", "warning", "note")]
    total = ", ".join(f"{n} {severity}{'s' * (n != 1)}" for severity, n in numbers if n)
    echo(f"{total}; docs/data-check.md explains each" if total else "nothing to find fault with")
    if fixed := facts.get("fixed"):
        echo(f"{fixed['out']}: {'; '.join(fixed['changes']) or 'nothing had to be changed'}")


def _cell(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:,g}" for name, number in value.items())
    if isinstance(value, list):
        if len(value) == 2 and isinstance(value[0], str):
            return f"{value[0]} to {value[1]}"
        return ", ".join(f"{v:g}" for v in value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else value


def _print_events(events: dict[str, dict[str, Any]]) -> None:
    rows = []
    for name, facts in events.items():
        what = "says no" if facts["says_no"] else "the target" if facts["is_target"] else ""
        tries = ", ".join(f"{weight:g}" for weight in facts["auto_tries"])
        numbers = [f"{facts[column]:,}" for column in ("events", "users", "items", "pairs")]
        rows.append([name, *numbers, f"{facts['weight']:g}", tries, what])
    head = ["type", "events", "users", "items", "pairs", "weight", "auto tries", ""]
    print_table(head, rows, "events users items pairs weight")


def _print_splits(splits: dict[str, dict[str, Any]], suits: dict[str, str] | None) -> None:
    rows = []
    for name, facts in splits.items():
        dates = f"{facts['test_from']} to {facts['test_to']}" if "test_from" in facts else ""
        numbers = [f"{facts[part]:,}" for part in ("train", "valid", "test", "test_users")]
        known = ["" if facts[part] is None else f"{100 * facts[part]:.0f} %" for part in ("known_users", "known_items")]
        rows.append([name, *numbers, *known, dates])
    head = ["split", "train", "valid", "test", "test users", "known users", "known items", "dates of the test"]
    print_table(head, rows, "")
    if suits is not None:
        echo(f"--split {suits['split']} suits: {suits['because']}")
