"""Splits of the data: what each would hold out, which suits, and whether its test part can be measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from recsys_embed.config.settings import DataConfig, SplitName
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import Split
from recsys_embed.doctor.codes import Finding, finding, plural, share_of
from recsys_embed.doctor.numbers import date_of
from recsys_embed.errors import DataError, SettingError

# With fewer test users the interval of a metric is wider than most differences between models.
_FEW_USERS = 100
# Shares of test rows of users, or items, without training rows that are pointed out.
_COLD = 0.2
# A split by time suits unless fewer of its test rows are of known users.
_KNOWN_ENOUGH = 0.2

Preview = dict[str, Any]


def preview(split: Split, min_rating: float | None = None) -> Preview:
    """Return what a split holds out: rows, users and dates of the test part.

    known_users, known_items: the shares of test rows whose user, or item, has a training row.
    """
    train, valid, test = (part.positives(min_rating) for part in split)
    facts: Preview = {"train": len(train), "valid": len(valid), "test": len(test)}
    facts["test_users"] = int(np.count_nonzero(np.bincount(test.user)))
    facts["known_users"], facts["known_items"] = _known(train, test)
    if test.time is not None and len(test):
        facts["test_from"], facts["test_to"] = date_of(int(test.time.min())), date_of(int(test.time.max()))
    return facts


def _known(train: Ratings, test: Ratings) -> tuple[float | None, float | None]:
    if not len(test):
        return None, None
    users = np.bincount(train.user, minlength=len(train.users)) > 0
    return float(users[test.user].mean()), float((train.item_counts > 0)[test.item].mean())


def previews(dataset: Dataset, config: DataConfig) -> tuple[dict[str, Preview], list[Finding]]:
    """Return what each split would hold out, by name, and what is wrong with the one that the settings name.

    Held-out files are one split, "files".
    """
    has_files = dataset.test is not None or dataset.valid is not None
    names: list[SplitName] = [config.split] if has_files else ["random", "leave-last", "time"]
    if config.split not in names:
        names.append(config.split)
    found: dict[str, Preview] = {}
    problems: list[Finding] = []
    for name in names:
        plain = {} if name == "time" else {"windows": 1, "window": None}
        try:
            split = dataset.split(replace(config, split=name, **plain))  # type: ignore[arg-type]
        except (DataError, SettingError) as error:
            if name == config.split:
                problems.append(finding("D706", 1, f"--split {name} cannot be done: {error}"))
            continue
        found["files" if has_files else name] = facts = preview(split, config.min_rating)
        if name == config.split:
            problems += find_split_problems(dataset, config, facts)
    return found, problems


def find_split_problems(dataset: Dataset, config: DataConfig, facts: Preview) -> Iterator[Finding]:
    """Yield what is wrong with the parts that the settings name. facts: their `preview`."""
    users, has_files = facts["test_users"], dataset.test is not None or dataset.valid is not None
    if 0 < users < _FEW_USERS and not dataset.ratings.is_graph:
        yield finding("D702", users, f"{plural(users, 'test user')}: the intervals of all metrics will be wide")
    time = dataset.ratings.time
    if time is not None and config.split == "random" and not has_files and time.min() != time.max():
        yield finding("D703", len(dataset.ratings), "the ratings have times, and a random split flatters")
    for code, side in (("D704", "user"), ("D705", "item")):
        known = facts[f"known_{side}s"]
        is_meant = side == "item" and config.split == "cold-items"
        if known is not None and 1 - known >= _COLD and not is_meant:
            rows = round((1 - known) * facts["test"])
            message = f"{share_of(1 - known)} of the test rows are of {side}s without a training row"
            yield finding(code, rows, message)


def suitable(found: dict[str, Preview], findings: list[Finding]) -> tuple[str, str] | None:
    """Return the split that suits the data, and why, or None if the parts come as files.

    found: see `previews`. findings: of the times.
    """
    if "files" in found:
        return None
    broken = {"D301", "D302", "D304", "D305"} & {f.code for f in findings}
    if "time" not in found or broken:
        return "random", "the times are not to be trusted" if broken else "there are no times"
    known = found["time"]["known_users"]
    if known is None or known < _KNOWN_ENOUGH:
        return "leave-last", f"few users of the newest rows are known before ({share_of(known or 0)} of the rows)"
    return "time", "the data have times, and a list for tomorrow should be measured on tomorrow"
