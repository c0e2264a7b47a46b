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

log = logging.getLogger("recsys_embed")

_METRIC = "ndcg_at_10"


def measure_earlier(prepared: Prepared, configs: Configs, tracker: Tracker) -> list[TrainingReport]:
    """Train and measure in all windows but the newest, the earliest first; their models are not kept."""
    reports = []
    for number in range(configs.data.windows - 1, 0, -1):
        of_window = prepared.window(number)
        log.info("window %d of %d: %s", configs.data.windows - number, configs.data.windows, _span(of_window))
        fit = fit_and_refit(of_window, configs, tracker)
        measured = training_report(
            fit.state, fit.rows, of_window.split, of_window.item_features, configs.data, configs.run
        )
        measured.metrics["span"] = _span(of_window)
        reports.append(measured)
    return reports


def windows_report(prepared: Prepared, earlier: Sequence[TrainingReport], newest: TrainingReport) -> dict[str, Any]:
    """Return {"windows": …} for the metrics of a training, or nothing where there is one window.

    each: the span, the users and the NDCG@10 by name of every window. mean: over windows. differences: of the model to
    each baseline, user by user; a user of several windows counts once, with the mean over them.
    """
    newest.metrics["span"] = _span(prepared)
    measured = [report for report in (*earlier, newest) if report.test is not None]
    if not earlier or not measured:
        return {}
    names = [name for name in measured[-1].baselines if all(name in report.baselines for report in measured)]
    each = [
        {"span": report.metrics["span"], "users": report.test.users, **_values(report, names)}
        for report in measured
        if report.test is not None
    ]
    mean = {name: sum(row[name] for row in each) / len(each) for name in ("this model", *names)}
    own = _per_user([report.test.per_user for report in measured if report.test is not None])
    differences = {}
    for name in names:
        other = _per_user([report.baselines[name].per_user for report in measured])
        both = own.join(other, on="user_id", suffix="_other")
        differences[name] = paired(both[_METRIC].to_numpy(), both[f"{_METRIC}_other"].to_numpy(), 1000).summary()
    return {"windows": {"each": each, "mean": mean, "differences": differences}}


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
