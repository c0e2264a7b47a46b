"""Run one experiment from file to report: load, split, fit, refit, evaluate, compare, save, track."""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from recsys_embed.config.fields import command, settings, short_name
from recsys_embed.config.recipes import resolve_settings
from recsys_embed.config.settings import ContentConfig, DataConfig, ModelConfig, RunConfig, TrainConfig
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.event_types import saved
from recsys_embed.evaluation.training_report import TrainingReport, training_report
from recsys_embed.experiment import publish
from recsys_embed.experiment.beyond_memory import check_on_disk
from recsys_embed.experiment.data_findings import log_findings
from recsys_embed.experiment.fit_and_refit import Configs, Fit, fit_and_refit
from recsys_embed.experiment.prepare import (
    Prepared,
    check_values,
    checked_preset,
    prepare,
    size_of,
    start_torch,
)
from recsys_embed.experiment.production import Admission, admission_of, fit_on_everything, register
from recsys_embed.experiment.resuming import checkpoints_of, remove_checkpoints
from recsys_embed.experiment.windows import Measured, measure_earlier, windows_report
from recsys_embed.recommender import Recommender
from recsys_embed.reports.facts import groups_of
from recsys_embed.sources.movielens import TERMS
from recsys_embed.state.fitted import FittedState
from recsys_embed.state.folder import load_state, save_state
from recsys_embed.storage.json import jsonable
from recsys_embed.storage.model_folders import Reserved, check_writable, reserved_folder
from recsys_embed.tracking.model_registry import is_model_uri, resolve_folder
from recsys_embed.tracking.progress import progress_bar
from recsys_embed.tracking.tracker import MultiTracker, ProgressOnly, Tracker
from recsys_embed.training.checkpoints import Checkpoints
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
    The report is what `recsys train --json` prints: model, run_id, dataset, registration, settings, metrics, seconds,
    epochs.
    """
    data, model, train, run = data or DataConfig(), model or ModelConfig(), train or TrainConfig(), run or RunConfig()
    content, model = content or ContentConfig(), replace(model, model_family=model.model_family or "auto")
    preset = checked_preset(run.preset, model, train) or inherited_settings_of(run.warm_start, run.tracking_uri)
    start = load_state(resolve_folder(run.warm_start, run.tracking_uri)) if run.warm_start else None
    # No command line reproduces a data set passed as an object.
    facts: dict[str, Any] = {} if dataset else {"command": command(data, content, model, train, run, preset=preset)}
    clock = Clock()
    with clock("data"):
        prepared = prepare(data, train.seed, content, dataset)
        if start is not None:
            prepared = prepared.for_warm_start(start)
    data, dataset, split, *_ = prepared
    model, train = resolve_settings(model, train, size_of(split), content.any, content.trains)
    check_on_disk(model, train, split.train)
    if start is not None:
        check_warm_start(start, model, train, split.train.is_graph, content.any)
    device, configs = start_torch(train), Configs(data, model, train, run, content)
    facts |= _facts(prepared, configs) | {"findings": log_findings(dataset, data, split, train.loss)}
    check_values(model, train, data, split)
    with (
        _model_folder(configs) as reserved,
        checkpoints_of(configs, prepared, reserved.folder.parent) as checkpoints,
        publish.tracker_of(*reserved, run, facts, device) as tracker,
    ):
        folder = reserved.folder
        if run.register:
            tracker.check_register()
        earlier, fit = _fit(prepared, configs, start, tracker, clock, checkpoints)
        facts["settings"] |= fit.result.chosen
        facts |= {"metrics": {"valid": fit.valid}, "device": device, "run_id": tracker.run_id}
        fit.state.metadata.update({**facts, "seconds": clock.seconds, "history": fit.result.history})
        if named := run.warm_start:
            fit.state.metadata["continued"]["model"] = named if is_model_uri(named) else Path(named).name
        save_state(fit.state, folder)  # before the evaluation, which may be long: nothing is lost if it is interrupted
        state, measured, admission = _measure_and_save(fit, prepared, configs, earlier, folder, clock)
        remove_checkpoints(checkpoints, fit.result)
        recommender = Recommender.of(state)
        recommender.training = fit.result
        publish.log_metrics(tracker, state.metadata)
        publish.log_model_artifacts(tracker, recommender, folder, split, data)
        registration = register(tracker, run, admission)
        publish.draw(tracker, recommender, folder, measured, run)
    report = {"model": str(folder), "run_id": tracker.run_id, "dataset": data.dataset, "registration": registration}
    report |= {name: recommender.metadata[name] for name in ("settings", "metrics", "seconds", "epochs")}
    return recommender, jsonable(report)


def _fit(
    prepared: Prepared,
    configs: Configs,
    start: FittedState | None,
    tracker: Tracker,
    clock: Clock,
    checkpoints: Checkpoints | None,
) -> tuple[list[Measured], Fit]:
    """Fit with a progress bar; return what was measured in earlier windows, and the fit."""
    with progress_bar() as bar, clock("fit"):
        try:
            earlier = measure_earlier(prepared, configs, ProgressOnly(bar), checkpoints)
            return earlier, fit_and_refit(prepared, configs, MultiTracker(tracker, bar), start, checkpoints)
        except KeyboardInterrupt:
            log.warning("interrupted before the end of the first epoch: no model was saved")
            raise


def _measure_and_save(
    fit: Fit, prepared: Prepared, configs: Configs, earlier: list[Measured], folder: Path, clock: Clock
) -> tuple[FittedState, TrainingReport, Admission | None]:
    """Measure and save a fit, and then, if it is wanted, the one for production; return what is saved last."""
    run, test = configs.run, prepared.split.test.positives(configs.data.min_rating)
    with clock("evaluate"):
        state, measured = _measure(fit, prepared, configs, earlier)
    admission = admission_of(run, state, fit, test)
    save_state(state, folder)
    if run.for_production:
        with clock("production"):
            state.metadata["groups"] = asdict(groups_of(Recommender.of(state), test if len(test) else None))
            state = fit_on_everything(fit, state, prepared.all_rows)
        save_state(state, folder)
    return state, measured, admission


def _measure(
    fit: Fit, prepared: Prepared, configs: Configs, earlier: list[Measured]
) -> tuple[FittedState, TrainingReport]:
    """Measure a fit on the test part; return its state, with the metrics, and the report."""
    data, run = configs.data, configs.run
    by_type = prepared.tested_by_type()
    measured = training_report(fit.state, fit.rows, prepared.split, prepared.item_features, data, run, by_type)
    metrics = {"valid": fit.valid} | measured.metrics
    metrics |= windows_report(prepared, earlier, measured, run.resamples)
    fit.state.metadata.update({"metrics": metrics, "fitted_digest": fit.rows.pairs_digest()})
    return fit.state.replace(per_user=None if measured.test is None else measured.test.per_user), measured


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
def _model_folder(configs: Configs) -> Iterator[Reserved]:
    """Yield the model's folder, checked before the training. Without --out, a new folder is reserved for this run."""
    if configs.run.out:
        check_writable(Path(configs.run.out))
        with reserved_folder(Path(configs.run.out)) as reserved:
            yield reserved
        return
    name, method = short_name(configs.data.dataset), configs.train.loss or configs.model.model_family
    name = name.split(".")[0] or "ratings"
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    with reserved_folder(Path("models") / f"{name}-{method}-{stamp}", unique=True) as reserved:
        yield reserved
