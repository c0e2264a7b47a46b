"""Compare training runs: which settings differ, and whether one run is significantly better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl

from recsys_embed.config.fields import NON_RESULT_SETTINGS
from recsys_embed.config.renamed import with_current_names
from recsys_embed.config.settings import AUTO
from recsys_embed.errors import BundleError, SettingError
from recsys_embed.evaluation.metrics import Values
from recsys_embed.evaluation.significance import Difference, by_user, paired
from recsys_embed.state.folder import PER_USER
from recsys_embed.storage.bundle import Bundle
from recsys_embed.storage.json import parse_json
from recsys_embed.storage.parquet_reader import read_parquet
from recsys_embed.tracking.model_registry import is_model_uri, resolve_folder
from recsys_embed.tracking.runs import is_run_id, read_run

_METADATA = "model.json"
# Settings that decide which ratings are tested.
_SPLIT_SETTINGS = ("split", "valid_share", "test_share", "cold_share", "split_seed", "min_rating", "valid", "test")


@dataclass(frozen=True)
class Run:
    """A finished training. name: its folder or MLflow run id. metadata: its model.json. per_user: as in `Report`."""

    name: str
    metadata: dict[str, Any]
    per_user: pl.DataFrame | None

    @classmethod
    def read(cls, name: str, uri: str | None = None) -> Run:
        """Read a model folder, a model in MLflow by its URI, or a run by its id or the first 6 or more digits of it.

        Raises BundleError, and UnknownId and DataError as `resolve_folder` and `tracking.runs.read_run` do.
        """
        if Path(name).is_dir() or is_model_uri(name):
            bundle = Bundle.read(resolve_folder(name, uri), only=(_METADATA, PER_USER))
            metadata, per_user = bundle.metadata.get(_METADATA), bundle.frames.get(PER_USER)
        elif is_run_id(name):
            name, files = read_run(name, (_METADATA, PER_USER), uri)
            try:
                metadata = parse_json(files[_METADATA]) if _METADATA in files else None
                per_user = read_parquet(files[PER_USER], PER_USER) if PER_USER in files else None
            except ValueError:
                raise BundleError(f"run {name}: its {_METADATA} or {PER_USER} is broken") from None
        else:
            raise BundleError(
                f"{name} is neither a model folder, nor models:/NAME@ALIAS, nor a run id (6 to 32 of the digits 0-9 "
                "and a-f)"
            )
        if metadata is None or "settings" not in metadata:
            raise BundleError(f"{name} has no {_METADATA} with settings: its training did not finish")
        return cls(name, with_current_names(metadata), per_user)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings, including those chosen by the recipe."""
        settings: dict[str, Any] = self.metadata["settings"]
        types = self.metadata.get("events")
        if types and settings.get("event_weights") == AUTO:  # which it chose
            weights = ",".join(f"{name}={saved['weight']:g}" for name, saved in types.items())
            return settings | {"event_weights": f"{AUTO}: {weights}"}
        return settings

    @property
    def test(self) -> dict[str, Any]:
        """The test metrics; empty without a test."""
        return (self.metadata.get("metrics") or {}).get("test") or {}


@dataclass(frozen=True)
class PairedComparison:
    """A run compared with the first: the difference and its values [users], or the reason why there is none."""

    difference: Difference | None = None
    values: Values | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Runs, the metric they are compared in, and the comparison of every other run with the first."""

    runs: list[Run]
    metric: str
    comparisons: list[PairedComparison]
    KEY_SETTINGS: ClassVar = ("dataset", "loss", "scorer", "dim")  # printed whether they differ or not

    @property
    def differing_settings(self) -> list[str]:
        """The settings that differ between runs, without `KEY_SETTINGS` and those that cannot affect results."""
        names = dict.fromkeys(name for run in self.runs for name in run.settings)
        return [
            name
            for name in names
            if name not in (*NON_RESULT_SETTINGS, *self.KEY_SETTINGS)
            and any(run.settings.get(name) != self.runs[0].settings.get(name)
                                                         for run in self.runs)
        ]  # fmt: skip


def compare(runs: Sequence[Run], metric: str = "ndcg_at_10") -> Comparison:
    """Compare every run with the first, over the users that both were tested on.

    metric: a test metric. Raises SettingError for a metric that none of the runs has.
    """
    known = {name for run in runs for name, value in run.test.items() if isinstance(value, float)}
    if known and metric not in known:
        raise SettingError(f"no run was tested by {metric}; the metrics are {', '.join(sorted(known))}")
    first = runs[0]
    return Comparison(list(runs), metric, [_compare_pair(run, first, metric) for run in runs[1:]])


def _compare_pair(run: Run, first: Run, metric: str) -> PairedComparison:
    reason = _incomparable_reason(run, first, metric)
    if reason is not None:
        return PairedComparison(reason=reason)
    assert run.per_user is not None and first.per_user is not None
    ours, theirs = by_user(run.per_user, first.per_user, metric)
    if not len(ours):
        return PairedComparison(reason="no user was tested in both")
    return PairedComparison(paired(ours, theirs), np.asarray(ours - theirs))


def _incomparable_reason(run: Run, first: Run, metric: str) -> str | None:
    """Return why two runs cannot be compared user by user, or None."""
    for side in (first, run):
        if side.per_user is None:
            return f"{side.name} has no per-user metrics ({PER_USER})"
        if metric not in side.per_user.columns:
            return f"{metric} is not a per-user metric of {side.name}"
    if run.metadata.get("test_digest") == first.metadata.get("test_digest"):
        # Seen items are excluded from lists, so models that were fitted on other rows rank other items.
        same = run.metadata.get("fitted_digest") == first.metadata.get("fitted_digest")
        return None if same else "they were fitted on different ratings, so their lists were made of different items"
    if run.metadata.get("digest") != first.metadata.get("digest"):
        return f"they were tested on different data: {_data(run)} and {_data(first)}"
    different = [n for n in _SPLIT_SETTINGS if run.settings.get(n) != first.settings.get(n)]
    pairs = ", ".join(f"{n} {run.settings.get(n)} and {first.settings.get(n)}" for n in different)
    return f"they were tested on different ratings of {first.metadata.get('dataset')}: {pairs or 'their files differ'}"


def _data(run: Run) -> str:
    return f"{run.metadata.get('dataset')} (digest {run.metadata.get('digest')})"
