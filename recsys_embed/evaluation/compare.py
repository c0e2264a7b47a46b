"""Trainings side by side: what differs in their settings, and how sure it is that one is better."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl

from recsys_embed.config.fields import NON_RESULT_SETTINGS
from recsys_embed.errors import BundleError, SettingError
from recsys_embed.evaluation.metrics import Values
from recsys_embed.evaluation.significance import Difference, paired
from recsys_embed.state.folder import PER_USER
from recsys_embed.storage.bundle import Bundle
from recsys_embed.tracking.runs import is_run_id, read_run

_FACTS = "model.json"
_SPLIT = ("split", "valid_share", "test_share", "cold_share", "split_seed", "min_rating", "valid", "test")


@dataclass(frozen=True)
class Run:
    """A training that ended. name: its folder, or its id in MLflow. facts: its model.json. per_user: as in Report."""

    name: str
    facts: dict[str, Any]
    per_user: pl.DataFrame | None

    @classmethod
    def read(cls, named: str, uri: str | None = None) -> Run:
        """Read a model folder, or a run of MLflow by its id or the beginning of it (6 digits or more).

        Raises BundleError, UnknownId and DataError (`track.runs.read_run`).
        """
        if Path(named).is_dir():
            bundle = Bundle.read(Path(named), only=(_FACTS, PER_USER))
            facts, per_user = bundle.facts.get(_FACTS), bundle.frames.get(PER_USER)
        elif is_run_id(named):
            named, files = read_run(named, (_FACTS, PER_USER), uri)
            try:
                facts = json.loads(files[_FACTS]) if _FACTS in files else None
                per_user = pl.read_parquet(io.BytesIO(files[PER_USER])) if PER_USER in files else None
            except (ValueError, pl.exceptions.PolarsError):
                raise BundleError(f"run {named}: its {_FACTS} or {PER_USER} is broken") from None
        else:
            raise BundleError(f"{named} is no model folder, and no run id: one has 6 to 32 of the digits 0-9 and a-f")
        if facts is None or "settings" not in facts:
            raise BundleError(f"{named} keeps no {_FACTS} with settings: its training did not end")
        return cls(named, facts, per_user)

    @property
    def settings(self) -> dict[str, Any]:
        """Its settings, those of the recipe too."""
        settings: dict[str, Any] = self.facts["settings"]
        return settings

    @property
    def test(self) -> dict[str, Any]:
        """The metrics of its test; empty where nothing was held out."""
        return (self.facts.get("metrics") or {}).get("test") or {}


@dataclass(frozen=True)
class PairedComparison:
    """A run beside the first: the difference, and its values user by user [users], or why there is none."""

    difference: Difference | None = None
    values: Values | None = None
    why_not: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Runs, the metric that they are compared in, and every run but the first beside the first."""

    runs: list[Run]
    metric: str
    beside: list[PairedComparison]
    always: ClassVar = ("dataset", "loss", "scorer", "dim")  # settings that are shown whether they differ or not

    @property
    def differing(self) -> list[str]:
        """The settings that are not the same for all runs, but for places and those that are always shown."""
        names = dict.fromkeys(name for run in self.runs for name in run.settings)
        return [
            name
            for name in names
            if name not in (*NON_RESULT_SETTINGS, *self.always)
            and any(run.settings.get(name) != self.runs[0].settings.get(name)
                                                         for run in self.runs)
        ]  # fmt: skip


def compare(runs: Sequence[Run], metric: str = "ndcg_at_10") -> Comparison:
    """Compare every run with the first, over the users that both were tested on.

    metric: of the test. Raises SettingError for a metric that none of the runs has.
    """
    known = {name for run in runs for name, value in run.test.items() if isinstance(value, float)}
    if known and metric not in known:
        raise SettingError(f"no run was tested by {metric}; the metrics are {', '.join(sorted(known))}")
    first = runs[0]
    return Comparison(list(runs), metric, [_beside(run, first, metric) for run in runs[1:]])


def _beside(run: Run, first: Run, metric: str) -> PairedComparison:
    why_not = _why_not(run, first, metric)
    if why_not is not None:
        return PairedComparison(why_not=why_not)
    assert run.per_user is not None and first.per_user is not None
    one, other = (
        frame.select(pl.col("user_id").cast(pl.String), pl.col(metric)) for frame in (run.per_user, first.per_user)
    )
    both = one.join(other, on="user_id", suffix="_first").sort("user_id")
    if both.is_empty():
        return PairedComparison(why_not="no user was tested in both")
    ours, theirs = (both[name].to_numpy() for name in (metric, f"{metric}_first"))
    return PairedComparison(paired(ours, theirs), np.asarray(ours - theirs))


def _why_not(run: Run, first: Run, metric: str) -> str | None:
    """Return why two runs cannot be compared user by user, or None."""
    for side in (first, run):
        if side.per_user is None:
            return f"{side.name} keeps no metrics of single users ({PER_USER})"
        if metric not in side.per_user.columns:
            return f"{metric} is no metric of single users in {side.name}"
    if run.facts.get("test_digest") == first.facts.get("test_digest"):
        # What a model was fitted on is left out of its lists, so other rows mean other lists.
        same = run.facts.get("fitted_digest") == first.facts.get("fitted_digest")
        return None if same else "they were fitted on different ratings, so their lists were made of different items"
    if run.facts.get("digest") != first.facts.get("digest"):
        return f"they were tested on different data: {_data(run)} and {_data(first)}"
    apart = [n for n in _SPLIT if run.settings.get(n) != first.settings.get(n)]
    how = ", ".join(f"{n} {run.settings.get(n)} and {first.settings.get(n)}" for n in apart) or "their files differ"
    return f"they were tested on different ratings of {first.facts.get('dataset')}: {how}"


def _data(run: Run) -> str:
    return f"{run.facts.get('dataset')} (digest {run.facts.get('digest')})"
