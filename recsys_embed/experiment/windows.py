"""Rolling windows: the same training at several points in time, each measured on what came next."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Sequence
from typing import Any

import polars as pl

from recsys_embed.evaluation.significance import paired
from recsys_embed.evaluation.training_report import TrainingReport, training_report
from recsys_embed.experiment.fit_and_refit import Configs, fit_and_refit
from recsys_embed.experiment.prepare import Prepared
from recsys_embed.tracking.tracker import Tracker
from recsys_embed.training.checkpoints import Checkpoints

log = logging.getLogger("recsys_embed")

_METRIC = "ndcg_at_10"


# The days of a test window, and what was measured in it.
Measured = tuple[str, TrainingReport]


def measure_earlier(
    prepared: Prepared, configs: Configs, tracker: Tracker, checkpoints: Checkpoints | None = None
) -> list[Measured]:
    """Train and measure in all windows but the newest, the earliest first; their models are not kept."""
    reports = []
    for number in range(configs.data.windows - 1, 0, -1):
        of_window = prepared.window(number)
        log.info("window %d of %d: %s", configs.data.windows - number, configs.data.windows, _span(of_window))
        fit = fit_and_refit(of_window, configs, tracker, checkpoints=checkpoints)
        measured = training_report(
            fit.state, fit.rows, of_window.split, of_window.item_features, configs.data, configs.run
        )
        reports.append((_span(of_window), measured))
    return reports


def windows_report(
    prepared: Prepared, earlier: Sequence[Measured], newest: TrainingReport, resamples: int
) -> dict[str, Any]:
    """Return {"windows": …} for the metrics of a training, or nothing where there is one window.

    each: the span, the users and the NDCG@10 by name of every window. mean: over windows. differences: of the model to
    each baseline, user by user; a user of several windows counts once, with the mean over them.
    """
    windows = [(span, report) for span, report in (*earlier, (_span(prepared), newest)) if report.test is not None]
    if not earlier or not windows:
        return {}
    measured = [report for _, report in windows]
    names = [name for name in measured[-1].baselines if all(name in report.baselines for report in measured)]
    each: list[dict[str, Any]] = [
        {"span": span, "users": len(_frame(report)), **_values(report, names)} for span, report in windows
    ]
    mean = {name: sum(row[name] for row in each) / len(each) for name in ("this model", *names)}
    own, differences = _per_user([_frame(report) for report in measured]), {}
    for name in names if resamples else ():
        other = _per_user([report.baselines[name].per_user for report in measured])
        both = own.join(other, on="user_id", suffix="_other")
        values = both[_METRIC].to_numpy(), both[f"{_METRIC}_other"].to_numpy()
        differences[name] = paired(*values, resamples).summary()
    return {"windows": {"each": each, "mean": mean, "differences": differences}}


def _frame(report: TrainingReport) -> pl.DataFrame:
    """Return the metrics of the users of a window with a test."""
    assert report.test is not None
    return report.test.per_user


def _values(report: TrainingReport, names: Sequence[str]) -> dict[str, float]:
    assert report.test is not None
    reports = {"this model": report.test, **{name: report.baselines[name] for name in names}}
    return {name: found.metrics[_METRIC] for name, found in reports.items()}


def _per_user(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return the mean of the metric of each user over several windows."""
    rows = pl.concat([frame.select("user_id", _METRIC) for frame in frames])
    return rows.group_by("user_id", maintain_order=True).agg(pl.col(_METRIC).mean())


def _span(prepared: Prepared) -> str:
    """Return the days of the test part."""
    times = prepared.split.test.time
    if times is None or not len(times):
        return "no test ratings"
    first, last = (datetime.datetime.fromtimestamp(int(t), datetime.UTC).date() for t in (times.min(), times.max()))
    return f"{first} to {last}"
