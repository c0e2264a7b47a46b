"""What came of the variants of an A/B test: rates, differences, and a verdict in one sentence."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from recsys_embed.evaluation.always_valid import (
    ALPHA,
    MAX_USERS,
    difference_interval,
    rate_interval,
    users_needed,
)
from recsys_embed.serving.outcome_store import Counts
from recsys_embed.serving.outcome_tables import AbTest

# The probability with which a sound division of the users is called unsound, at any time.
_ALPHA_OF_SHARES = 0.001


def report_of(test: AbTest, counts: Mapping[str, Counts]) -> dict[str, Any]:
    """Return a test as `GET /variants` and `recsys variants --json` show it. counts: by variant, the first in front.

    With several others, the intervals of all differences hold together with 95 %.
    """
    specs = {variant.name: variant for variant in test.variants}
    names = list(counts)
    first, alpha = names[0], ALPHA / max(len(names) - 1, 1)
    entries = []
    for name, found in counts.items():
        spec = specs.get(name)
        rate = rate_interval(found.converted, found.users)
        entry: dict[str, Any] = {
            "name": name,
            "model": None if spec is None else spec.model,
            "share": 0.0 if spec is None else spec.share,
            **found._asdict(),
            "rate": float(rate.value) if found.users else None,
            "interval": [float(rate.low), float(rate.high)] if found.users else None,
            "difference": None,
            "difference_interval": None,
            "lift": None,
        }
        if name != first:
            entry |= _comparison(counts[first], found, alpha)
        entries.append(entry)
    return {
        "ab_test": test.name,
        "started": datetime.datetime.fromtimestamp(test.started, datetime.UTC).isoformat(timespec="seconds"),
        "target": test.successes.text,
        "variants": entries,
        "verdict": verdict_of(counts, alpha),
        "warning": _warning(test, counts),
    }


def _comparison(first: Counts, other: Counts, alpha: float) -> dict[str, Any]:
    if not first.users or not other.users:
        return {}
    found = difference_interval(first.converted, first.users, other.converted, other.users, alpha)
    rate = first.converted / first.users
    return {
        "difference": float(found.value),
        "difference_interval": [float(found.low), float(found.high)],
        "lift": float(found.value) / rate if rate else None,
    }


def verdict_of(counts: Mapping[str, Counts], alpha: float = ALPHA) -> str:
    """Return one sentence: which variant is better, or how many more users it takes to see it."""
    first, *others = counts
    if not others:
        return f"there is nothing to compare {first} with"
    return "; ".join(_verdict(first, counts[first], name, counts[name], alpha) for name in others)


def _verdict(first: str, a: Counts, name: str, b: Counts, alpha: float) -> str:
    for one, counts in ((first, a), (name, b)):
        if not counts.users:
            return f"not clear yet: {one} has no users"
    found = difference_interval(a.converted, a.users, b.converted, b.users, alpha)
    rates = a.converted / a.users, b.converted / b.users
    if found.low > 0 or found.high < 0:
        better, worse = (name, first) if found.low > 0 else (first, name)
        high, low = max(rates), min(rates)
        bounds = sorted((abs(100 * float(found.low)), abs(100 * float(found.high))))
        return (
            f"{better} is better than {worse}: {_percent(high)} of its users converted against {_percent(low)}, "
            f"{100 * (high - low):.2f} points more, between {bounds[0]:.2f} and {bounds[1]:.2f}"
        )
    text = f"not clear yet: {_percent(rates[1])} of the users of {name} converted, {_percent(rates[0])} of {first}"
    if not a.converted and not b.converted:
        return text
    users = a.users + b.users
    needed = users_needed(*rates, b.users / users, alpha)
    if needed is None:
        return f"{text}; a difference as small as this takes more than {MAX_USERS:,} users"
    return f"{text}; if that stays so, about {_rounded(max(needed - users, 1)):,} more users"


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f} %"


def _rounded(n: int) -> int:
    """Return a number with two digits that say something."""
    step = 10 ** max(len(str(n)) - 2, 0)
    return -(-n // step) * step


def _warning(test: AbTest, counts: Mapping[str, Counts]) -> str | None:
    """Say so where the users are divided otherwise than the shares say: then lists, or users, of a variant are lost."""
    users = sum(found.users for found in counts.values())
    if not test.same_shares or not users:
        return None
    wrong = []
    for variant in test.variants:
        found = rate_interval(counts[variant.name].users, users, _ALPHA_OF_SHARES)
        if not found.low <= variant.share <= found.high:
            wrong.append(f"{variant.name} has {_percent(float(found.value))} of the users, not {variant.share:.4g}")
    return "the users are not divided as the shares say: " + "; ".join(wrong) if wrong else None


def table_of(report: Mapping[str, Any]) -> tuple[Sequence[str], list[list[object]]]:
    """Return the names of columns, and the rows, of a report as a table."""
    names = ["variant", "share", "users", "lists", "converted", "rate", "95 % interval", "hits", "lift", "points more"]
    rows: list[list[object]] = []
    for entry in report["variants"]:
        row: list[object] = [entry["name"], f"{100 * entry['share']:.4g} %"]
        row += [f"{entry[key]:,}" for key in ("users", "lists", "converted")]
        row += ["" if entry["rate"] is None else _percent(entry["rate"]), _bounds(entry["interval"])]
        row += [f"{entry['hits']:,}", "" if entry["lift"] is None else f"{100 * entry['lift']:+.1f} %"]
        rows.append([*row, _bounds(entry["difference_interval"])])
    return names, rows


def _bounds(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}"
