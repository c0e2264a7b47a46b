"""One training from file to report: load, split, fit, refit, evaluate, compare, save, track."""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recsys_embed.config.fields import command, settings, short_name
from recsys_embed.config.recipes import resolve_settings
from recsys_embed.config.settings import ContentConfig, DataConfig, ModelConfig, RunConfig, TrainConfig
from recsys_embed.data.dataset import Dataset
from recsys_embed.evaluation.training_report import training_report
from recsys_embed.experiment import publish
from recsys_embed.experiment.prepare import Prepared, check_loss, prepare, preset_settings, size_of, start_torch
from recsys_embed.experiment.refit import Configs, fit_and_refit
from recsys_embed.recommender import Recommender
from recsys_embed.sources.movielens import TERMS
from recsys_embed.state.folder import load_state, save_state
from recsys_embed.storage.json import jsonable
from recsys_embed.storage.model_folders import check_writable, claim
from recsys_embed.tracking.progress import BarTracker
from recsys_embed.tracking.tracker import MultiTracker
from recsys_embed.training.continue_from import check_continues, settings_in

log = logging.getLogger("recsys_embed")


def run_experiment(
    data: DataConfig | None = None,
    model: ModelConfig | None = None,
    train: TrainConfig | None = None,
    run: RunConfig | None = None,
    content: ContentConfig | None = None,
    dataset: Dataset | None = None,
) -> tuple[Recommender, dict[str, Any]]:
    """Train on a data set as the settings say; return the recommender, saved, and the report.

    dataset: the data, where it is at hand already; by default `data.dataset` is loaded.
    The report is what `recsys train --json` prints: model, run_id, dataset, settings, metrics, seconds, epochs.
    """
    data, model, train, run = data or DataConfig(), model or ModelConfig(), train or TrainConfig(), run or RunConfig()
    content = content or ContentConfig()
    preset = preset_settings(run.preset, model, train) or settings_in(run.start)
    start = load_state(Path(run.start)) if run.start else None
    # No command line has data that was handed over.
    facts: dict[str, Any] = {} if dataset else {"command": command(data, content, model, train, run, preset=preset)}
    clock = Clock()
    with clock("data"):
        prepared = prepare(data, train.seed, content, dataset)
        if start is not None:
            prepared = prepared.for_warm_start(start)
    data, dataset, split, item_features = prepared
    model, train = resolve_settings(model, train, size_of(split), content.any)
    if start is not None:
        check_continues(start, model, train, split.train.shared, content.any)
    device = start_torch(train)
    configs = Configs(data, model, train, run, content)
    facts |= _facts(prepared, configs)
    check_loss(train, split)
    with _model_folder(data, train, run) as folder, publish.tracker_of(folder, run, facts, device) as tracker:
        with BarTracker(quiet=log.level > logging.INFO) as bar, clock("fit"):
            try:
                fit = fit_and_refit(prepared, configs, MultiTracker(tracker, bar), start)
            except KeyboardInterrupt:
                log.warning("interrupted before the first epoch ended: nothing was saved")
                raise
        state, history = fit.state, fit.result.history
        state.metadata.update({**facts, "metrics": {"valid": fit.valid}, "device": device, "run_id": tracker.run_id})
        state.metadata.update({"seconds": clock.seconds, "history": history})
        if start is not None:
            state.metadata["continued"]["model"] = Path(run.start or "").name
        save_state(state, folder)  # before the evaluation, which may be long: nothing is lost if that is ended
        with clock("evaluate"):
            measured = training_report(state, fit.rows, split, item_features, data, run)
        metrics = {"valid": fit.valid} | measured.metrics
        state.metadata.update({"metrics": metrics, "fitted_digest": fit.rows.pairs_digest()})
        recommender = Recommender.of(state.but(per_user=None if measured.test is None else measured.test.per_user))
        recommender.training = fit.result
        recommender.save(folder)
        tracker.metrics(publish.flatten_metrics(metrics) | {f"seconds_{k}": v for k, v in clock.seconds.items()})
        publish.log_model_artifacts(tracker, recommender, folder, split, data, run)
        publish.draw(tracker, recommender, folder, measured, run)
    report = {
        "model": str(folder), "run_id": tracker.run_id, "dataset": data.dataset, "settings": facts["settings"],
        "metrics": metrics, "seconds": clock.seconds, "epochs": recommender.metadata["epochs"],
    }  # fmt: skip
    return recommender, jsonable(report)


def _facts(prepared: Prepared, configs: Configs) -> dict[str, Any]:
    """Return what a model folder says of its data and settings."""
    data, test = configs.data, prepared.split.test
    facts = {
        "dataset": data.dataset,
        "digest": prepared.dataset.ratings.digest(),
        "test_digest": test.positives(data.min_rating).pairs_digest(),
        "settings": settings(data, configs.model, configs.train, configs.run, configs.content),
    }
    return facts | ({"terms": TERMS} if "movielens" in data.dataset else {})


class Clock:
    """Adds up the seconds of named phases."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a phase."""
        begin = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - begin, 3)


@contextlib.contextmanager
def _model_folder(data: DataConfig, train: TrainConfig, run: RunConfig) -> Iterator[Path]:
    """Give the folder of the model, checked before the training; one of our own naming is claimed for us alone."""
    if run.out:
        check_writable(Path(run.out))
        yield Path(run.out)
        return
    name = short_name(data.dataset).split(".")[0] or "ratings"
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = claim(Path("models") / f"{name}-{train.loss}-{stamp}")
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # goes only where nothing was saved, since it must be empty
