"""Types of events: a log that is not told to be one, a log that is none, and what each type brings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from recsys_embed.config.settings import DataConfig
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.event_types import candidate_weights, says_no
from recsys_embed.data.events import EventLog
from recsys_embed.data.sorting import pair_keys
from recsys_embed.doctor.codes import N_EXAMPLES, Finding, finding, plural


def find_events(dataset: Dataset, frame: pl.DataFrame | None) -> Iterator[Finding]:
    """Yield what is wrong with types of events. frame: the table that the data set was made of, if it is there."""
    if dataset.event_like_column is not None:
        name, n_types = dataset.event_like_column, 0
        examples: list[str] = []
        if frame is not None:
            found = frame[name].cast(pl.String).value_counts(name="rows").sort("rows", descending=True)
            n_types = found.height
            examples = [f"{type_} ({rows:,})" for type_, rows in found.head(N_EXAMPLES).iter_rows()]
        message = f"column {name!r} seems to hold types of events, and no option names it"
        yield finding(
            "D601", n_types, message, examples, f"--event-col {name}, or every view trains as much as a purchase"
        )
    if dataset.log is None:
        return
    counts = dict(zip((t.name for t in dataset.log.types), dataset.log.counts.tolist(), strict=True))
    if len(counts) == 1:
        yield finding("D602", len(dataset.log), f"all events are of one type, {next(iter(counts))!r}")
    for name, count in counts.items():
        weight = next(t.weight for t in dataset.log.types if t.name == name)
        if says_no(name) and not weight:
            yield finding("D603", count, f"{plural(count, 'event')} {name!r} say no")


def unknown_types(found: dict[str, int], config: DataConfig) -> Iterator[Finding]:
    """Yield types that the settings name and that do not occur. found: the events of each type, by name."""
    known = ", ".join(f"{name} ({count:,})" for name, count in list(found.items())[:8])
    options = {
        "--event-weights": list(config.weights_of_events or ()),
        "--target": config.names_of(config.target),
        "--hide": config.names_of(config.hide),
    }
    for option, names in options.items():
        unknown = [name for name in names if name not in found]
        if unknown:
            yield finding("D604", len(unknown), f"{option} names types that do not occur; there are {known}", unknown)


def event_table(events: EventLog) -> dict[str, dict[str, Any]]:
    """Return for each type, by name: events, users, items, pairs of a user and item, what it weighs, whether it is the
    target, and the weights that `--event-weights auto` would try."""
    tried = candidate_weights(events.types, events.counts.tolist())
    table = {}
    for number, type_ in enumerate(events.types):
        rows = events.event == number
        user, item = events.user[rows], events.item[rows]
        table[type_.name] = {
            "events": int(rows.sum()),
            "users": int(np.count_nonzero(np.bincount(user))),
            "items": int(np.count_nonzero(np.bincount(item))),
            "pairs": pl.Series(pair_keys(user, item, len(events.items))).n_unique(),
            "weight": type_.weight,
            "is_target": type_.is_target,
            "says_no": says_no(type_.name),
            "auto_tries": [weights[type_.name] for weights in tried],
        }
    return table
