"""Run one experiment from file to report: load, split, fit, refit, evaluate, compare, save, track."""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from recsys_embed.config.fields import command, settings, short_name
from recsys_embed.config.recipes import resolve_settings
from recsys_embed.config.settings import ContentConfig, DataConfig, ModelConfig, RunConfig, TrainConfig
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.event_types import saved
from recsys_embed.evaluation.training_report import training_report
from recsys_embed.experiment import publish
from recsys_embed.experiment.data_findings import log_findings
from recsys_embed.experiment.fit_and_refit import Configs, fit_and_refit
from recsys_embed.experiment.prepare import (
    Prepared,
    check_values,
    checked_preset,
    prepare,
    size_of,
    start_torch,
)
from recsys_embed.experiment.windows import measure_earlier, windows_report
from recsys_embed.recommender import Recommender
from recsys_embed.sources.movielens import TERMS
from recsys_embed.state.folder import load_state, save_state
from recsys_embed.storage.json import jsonable
from recsys_embed.storage.model_folders import check_writable, create_unique_folder
from recsys_embed.tracking.progress import BarTracker
from recsys_embed.tracking.tracker import MultiTracker, ProgressOnly
from recsys_embed.training.warm_start import check_warm_start, inherited_settings_of

log = logging.getLogger("recsys_embed")


def run_experiment(
    data: DataConfig | None = None,
    model: ModelConfig | None = None,
    train: TrainConfig | None = None,
    run: RunConfig | None = None,
    content: ContentConfig | None = None,
    dataset: Dataset | None = None,
) -> tuple[Recommender, dict[str, Any]]:
    """Train on a data set with the given settings, save the model, and return the recommender and a report.

    dataset: the data, if it is loaded already; by default `data.dataset` is loaded.
    The report is what `recsys train --json` prints: model, run_id, dataset, settings, metrics, seconds, epochs.
    """
    data, model, train, run = data or DataConfig(), model or ModelConfig(), train or TrainConfig(), run or RunConfig()
    content, model = content or ContentConfig(), replace(model, model_family=model.model_family or "auto")
    preset = checked_preset(run.preset, model, train) or inherited_settings_of(run.warm_start)
    start = load_state(Path(run.warm_start)) if run.warm_start else None
    # No command line reproduces a data set passed as an object.
    facts: dict[str, Any] = {} if dataset else {"command": command(data, content, model, train, run, preset=preset)}
    clock = Clock()
    with clock("data"):
        prepared = prepare(data, train.seed, content, dataset)
        if start is not None:
            prepared = prepared.for_warm_start(start)
    data, dataset, split, item_features, _ = prepared
    model, train = resolve_settings(model, train, size_of(split), content.any, content.trains)
    if start is not None:
        check_warm_start(start, model, train, split.train.is_graph, content.any)
    device = start_torch(train)
    configs = Configs(data, model, train, run, content)
    facts |= _facts(prepared, configs) | {"findings": log_findings(dataset, data, split, train.loss)}
    check_values(model, train, data, split)
    with _model_folder(configs) as folder, publish.tracker_of(folder, run, facts, device) as tracker:
        with BarTracker(quiet=log.level > logging.INFO) as bar, clock("fit"):
            try:
                earlier = measure_earlier(prepared, configs, ProgressOnly(bar))
                fit = fit_and_refit(prepared, configs, MultiTracker(tracker, bar), start)
            except KeyboardInterrupt:
                log.warning("interrupted before the end of the first epoch: nothing was saved")
                raise
        state, history = fit.state, fit.result.history
        facts["settings"] |= fit.result.chosen
        state.metadata.update({**facts, "metrics": {"valid": fit.valid}, "device": device, "run_id": tracker.run_id})
        state.metadata.update({"seconds": clock.seconds, "history": history})
        if start is not None:
            state.metadata["continued"]["model"] = Path(run.warm_start or "").name
        save_state(state, folder)  # before the evaluation, which may be long: nothing is lost if it is interrupted
        with clock("evaluate"):
            measured = training_report(state, fit.rows, split, item_features, data, run, prepared.tested_by_type())
        metrics = {"valid": fit.valid} | measured.metrics | windows_report(prepared, earlier, measured, run.resamples)
        state.metadata.update({"metrics": metrics, "fitted_digest": fit.rows.pairs_digest()})
        recommender = Recommender.of(state.replace(per_user=None if measured.test is None else measured.test.per_user))
        recommender.training = fit.result
        recommender.save(folder)
        tracker.metrics(publish.flatten_metrics(metrics) | {f"seconds_{k}": v for k, v in clock.seconds.items()})
        publish.log_model_artifacts(tracker, recommender, folder, split, data, run)
        publish.draw(tracker, recommender, folder, measured, run)
    report = {"model": str(folder), "run_id": tracker.run_id, "dataset": data.dataset}
    report |= {name: recommender.metadata[name] for name in ("settings", "metrics", "seconds", "epochs")}
    return recommender, jsonable(report)


def _facts(prepared: Prepared, configs: Configs) -> dict[str, Any]:
    """Return the facts about data and settings that a model folder records."""
    data, test = configs.data, prepared.split.test
    facts = {
        "dataset": data.dataset,
        "digest": prepared.dataset.ratings.digest(),
        "test_digest": test.positives(data.min_rating).pairs_digest(),
        "settings": settings(data, configs.model, configs.train, configs.run, configs.content),
    }
    log_of_events = prepared.dataset.log
    facts |= {} if log_of_events is None else {"events": saved(log_of_events.types)}
    return facts | ({"terms": TERMS} if "movielens" in data.dataset else {})


class Clock:
    """Adds up the seconds of named phases."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a phase."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)


@contextlib.contextmanager
def _model_folder(configs: Configs) -> Iterator[Path]:
    """Yield the model's folder, checked before the training. Without --out, a new folder is reserved for this run."""
    if configs.run.out:
        check_writable(Path(configs.run.out))
        yield Path(configs.run.out)
        return
    name, method = short_name(configs.data.dataset), configs.train.loss or configs.model.model_family
    name = name.split(".")[0] or "ratings"
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = create_unique_folder(Path("models") / f"{name}-{method}-{stamp}")
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # succeeds only if it is empty: nothing was saved
