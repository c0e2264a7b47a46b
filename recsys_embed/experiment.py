"""One training from file to report: load, split, fit, refit, evaluate, compare, save, track."""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recsys_embed import publish
from recsys_embed.config import (
    ContentConfig,
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
    command,
    settings,
    short_name,
)
from recsys_embed.content.items import Descriptions, describe_items
from recsys_embed.datasets.catalog import Catalog, load_dataset
from recsys_embed.datasets.movielens import TERMS
from recsys_embed.errors import DataError, SettingError
from recsys_embed.evaluation.cold import among_cold
from recsys_embed.evaluation.measure import measure, report_on
from recsys_embed.evaluation.metrics import rmse
from recsys_embed.evaluation.protocol import Ranker, rank_metrics
from recsys_embed.model.plain import PlainModel
from recsys_embed.presets import settings_of
from recsys_embed.ratings.checks import check_apart, check_trainable
from recsys_embed.ratings.splits import Split
from recsys_embed.ratings.table import Ratings
from recsys_embed.recipes import Size, recipe
from recsys_embed.recommend.bundle import check_writable, claim, jsonable
from recsys_embed.recommend.continued import check_continues, check_knows, settings_in
from recsys_embed.recommend.recommender import Recommender
from recsys_embed.recommend.tables import aligned
from recsys_embed.track.tracker import BarTracker, Tracker, Trackers

log = logging.getLogger("recsys_embed")


def run_experiment(
    data: DataConfig | None = None,
    model: ModelConfig | None = None,
    train: TrainConfig | None = None,
    run: RunConfig | None = None,
    content: ContentConfig | None = None,
    catalog: Catalog | None = None,
) -> tuple[Recommender, dict[str, Any]]:
    """Train on a data set as the settings say; return the recommender, saved, and the report.

    catalog: the data, where it is at hand already; by default `data.dataset` is loaded.
    The report is what `recsys train --json` prints: model, run_id, dataset, settings, metrics, seconds, epochs.
    """
    data, model, train, run = data or DataConfig(), model or ModelConfig(), train or TrainConfig(), run or RunConfig()
    content = content or ContentConfig()
    begun = begun_from(run.preset, model, train) or settings_in(run.start)
    start = Recommender.load(run.start) if run.start else None
    # Of data that was handed over no command knows.
    facts: dict[str, Any] = {} if catalog else {"command": command(data, content, model, train, run, preset=begun)}
    clock = Clock()
    with clock("data"):
        data, catalog, split, descriptions = prepare(data, train.seed, content, catalog)
        if start is not None:
            check_knows(start, split.train.users, split.train.items)
            split = _apart(split, start)
            if catalog.items is None:
                catalog = catalog._replace(items=start.table)
    model, train = recipe(model, train, size_of(split), content.any)
    if start is not None:
        check_continues(start, model, train, split.train.shared, content.any)
    device = start_torch(train)
    facts |= {
        "dataset": data.dataset,
        "digest": catalog.ratings.digest(),
        "test_digest": split.test.positives(data.min_rating).pairs_digest(),
        "settings": settings(data, model, train, run, content),
    }
    if "movielens" in data.dataset:
        facts["terms"] = TERMS
    check_loss(train, split)
    configs = Configs(data, model, train, run, content)
    with _place(data, train, run) as folder, publish.tracker_of(folder, run, facts, device) as tracker:
        with BarTracker(quiet=log.level > logging.INFO) as bar, clock("fit"):
            try:
                fit = _fit(catalog, split, descriptions, configs, Trackers(tracker, bar), start)
            except KeyboardInterrupt:
                log.warning("interrupted before the first epoch ended: nothing was saved")
                raise
        recommender = fit.recommender
        recommender.facts |= {**facts, "metrics": {"valid": fit.valid}, "device": device, "run_id": tracker.run_id}
        recommender.facts |= {"seconds": clock.seconds, "history": recommender.fitted.history}
        if start is not None:
            recommender.facts["continued"]["model"] = Path(run.start or "").name
        recommender.save(folder)  # before the evaluation, which may be long: nothing is lost if that is ended
        with clock("evaluate"):
            measured = measure(recommender, fit.rows, split, descriptions, data, run)
            metrics = {"valid": fit.valid} | measured.metrics
        recommender.facts |= {"metrics": metrics, "fitted_digest": fit.rows.pairs_digest()}
        recommender.per_user = None if measured.test is None else measured.test.per_user
        recommender.save(folder)
        tracker.metrics(publish.flat(metrics) | {f"seconds_{k}": v for k, v in clock.seconds.items()})
        publish.hand_over(tracker, recommender, folder, split, data, run)
        publish.draw(tracker, recommender, folder, measured, run)
    report = {
        "model": str(folder), "run_id": tracker.run_id, "dataset": data.dataset, "settings": facts["settings"],
        "metrics": metrics, "seconds": clock.seconds, "epochs": recommender.facts["epochs"],
    }  # fmt: skip
    return recommender, jsonable(report)


class Prepared(NamedTuple):
    """Data that is split and checked. data: with the seed of the split."""

    data: DataConfig
    catalog: Catalog
    split: Split
    descriptions: Descriptions | None


def prepare(data: DataConfig, seed: int, content: ContentConfig, catalog: Catalog | None = None) -> Prepared:
    """Load a data set, split it, check the parts, and read what describes the items.

    seed: of a random split where `data` names none. catalog: the data, where it is at hand already.
    """
    data = replace(data, split_seed=seed if data.split_seed is None else data.split_seed)
    catalog = catalog or load_dataset(data.dataset, data)
    catalog = catalog.with_unrated() if content.any else catalog
    split = catalog.split(data)
    _check(split, data)
    _describe(catalog, split, data)
    return Prepared(data, catalog, split, _descriptions(catalog, data, content))


# Ratings that a validation needs beside a model that is continued; with fewer it goes on for all epochs.
_VALID = 100


def _apart(split: Split, start: Recommender) -> Split:
    """Put into the training part what a model that is continued was fitted on: it would know the answers."""
    train, parts, moved = split.train, [], 0
    for part in (split.valid, split.test):
        known = start.knows(part)
        train, moved = train.with_rows(part.take(known)), moved + int(known.sum())
        parts.append(part.take(~known))
    valid, test = parts
    if 0 < len(valid) < _VALID:  # too few to say when to stop
        train, valid, moved = train.with_rows(valid), valid.take(np.zeros(0, np.int64)), moved + len(valid)
    if moved:
        log.info(
            "%s held-out ratings go to training: the model that is continued knew them, or they are too few; "
            "%s are left to validate, %s to test", f"{moved:,}", f"{len(valid):,}", f"{len(test):,}",
        )  # fmt: skip
    return Split(train, valid, test)


def size_of(split: Split) -> Size:
    """Return how large the data is that recipes are for."""
    return Size(len(split.train.users), len(split.train.items), len(split.train), split.train.shared)


def check_loss(train: TrainConfig, split: Split) -> None:
    """Raise DataError where the loss cannot learn from these ratings."""
    if train.loss == "mse" and not split.train.explicit:
        raise DataError("--loss mse learns ratings, and all of this data's are equal; the other losses take positives")


def begun_from(preset: str | None, model: ModelConfig, train: TrainConfig) -> dict[str, Any]:
    """Return the settings of the preset that these began from. Raises SettingError where they did not."""
    begun, chosen = settings_of(preset), settings(model, train)
    missing = [name for name in begun if chosen[name] is None]
    if missing:
        raise SettingError(
            f"preset={preset!r} only says where settings come from, and {missing[0]} is not the preset's: "
            f"preset({preset!r}) gives the ModelConfig and TrainConfig"
        )
    return begun


class Configs(NamedTuple):
    """All settings of a run."""

    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    run: RunConfig
    content: ContentConfig


def _descriptions(catalog: Catalog, data: DataConfig, content: ContentConfig) -> Descriptions | None:
    if not content.any:
        return None
    if content.columns and catalog.items is None:
        raise DataError("--text names columns of an item table, and there is none: name its file with --items")
    table = aligned(catalog.items, catalog.ratings.items)
    return describe_items(table, content, data.data_dir, data.offline)


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


def _check(split: Split, data: DataConfig) -> None:
    check_trainable(split.train.positives(data.min_rating))
    names = ("train", "validation", "test")
    for one, other in ((0, 1), (0, 2), (1, 2)):
        check_apart(split[one], split[other], names[one], names[other])


def _describe(catalog: Catalog, split: Split, data: DataConfig) -> None:
    ratings = catalog.ratings
    if ratings.merged:
        what = "an edge, in one direction or the other" if ratings.shared else "a user and item"
        log.warning("%s rows repeated %s: --duplicates %s was applied", f"{ratings.merged:,}", what, data.duplicates)
    if ratings.shared:
        sizes, said = [len(ratings.users), *(len(part) // 2 for part in split)], "%s nodes; %s edges"
    else:
        sizes, said = [len(ratings.users), len(ratings.items), *map(len, split)], "%s users, %s items; %s ratings"
    log.info(f"{said} to train, %s to validate, %s to test", *(f"{n:,}" for n in sizes))
    if not len(split.valid):
        log.warning("there is no validation rating: it trains for all epochs, and is not fitted again")
    if not len(split.test):
        log.warning("nothing is held out for test: there will be no test metrics")


def start_torch(train: TrainConfig) -> str:
    """Set torch's threads, say where it will train, and return that device."""
    import torch

    from recsys_embed.train.loop import choose_device

    if train.threads:
        torch.set_num_threads(train.threads)
    device, reason = choose_device(train.device)
    log.info("training on %s (%s)", device, reason)
    return device


@contextlib.contextmanager
def _place(data: DataConfig, train: TrainConfig, run: RunConfig) -> Iterator[Path]:
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


class _Fit(NamedTuple):
    """A fitted recommender, the rows it was fitted on, and the validation metrics of the fit on train alone."""

    recommender: Recommender
    rows: Ratings
    valid: dict[str, Any] | None


def _fit(
    catalog: Catalog,
    split: Split,
    descriptions: Descriptions | None,
    configs: Configs,
    tracker: Tracker,
    start: Recommender | None = None,
) -> _Fit:
    """Fit on train with early stopping, then again on train and validation for the best number of epochs."""
    data, model, train, run, content = configs
    tracker.params(settings(*configs))
    valid, held = split.valid.positives(data.min_rating), split.valid.with_rows(split.test)
    first = Recommender(model, train, content)
    both: dict[str, Any] = {"min_rating": data.min_rating, "descriptions": descriptions, "start": start}
    if not len(valid):
        first.fit(split.train, catalog.items, held=held, tracker=tracker, **both)
        return _Fit(first, split.train, None)
    validate, better = validation(split, data, train)
    first.fit(
        split.train,
        catalog.items,
        held=held,
        validate=validate,
        better=better,
        tracker=tracker,
        **both,
    )
    report = report_on(first, valid, run, split.valid).summary()
    fitted, (name, _) = first.fitted, better
    log.info(
        "best epoch %d of %d (%s): validation %s %.4f",
        fitted.epochs, len(fitted.history), fitted.stopped, name, fitted.history[fitted.epochs - 1][name],
    )  # fmt: skip
    if not train.refit or fitted.stopped == "interrupted":
        return _Fit(first, split.train, report)
    log.info("fitting again on train and validation for %d epochs", fitted.epochs)
    rows, again = split.train.with_rows(split.valid), Recommender(model, train, content)
    try:
        again.fit(
            rows,
            catalog.items,
            held=split.test,
            epochs=fitted.epochs,
            tracker=Quiet(tracker),
            **both,
        )
        interrupted = again.fitted.stopped == "interrupted"
    except KeyboardInterrupt:
        interrupted = True
    if interrupted:
        log.warning("the fit on train and validation was interrupted: the model fitted on train alone is kept")
        return _Fit(first, split.train, report)
    again.fitted.history = fitted.history
    return _Fit(again, rows, report)


# Early stopping looks at so many users at most; the metrics that are reported take all of them.
_VALIDATION_USERS = 10_000


def validation(
    split: Split, data: DataConfig, train: TrainConfig
) -> tuple[Callable[[PlainModel], dict[str, float]], tuple[str, int]]:
    """Return what is measured after an epoch, and the metric that decides, with its direction."""
    valid, seen = split.valid.positives(data.min_rating), split.train.hidden()
    counts = split.train.positives(data.min_rating).counts
    users = np.unique(valid.user)
    if len(users) > _VALIDATION_USERS:
        users = np.random.default_rng(train.seed).permutation(users)[:_VALIDATION_USERS]
        valid = valid.take(np.isin(valid.user, users))

    def stars(model: PlainModel) -> dict[str, float]:
        return {"rmse": rmse(model.predict(split.valid.user, split.valid.item), split.valid.value)}

    def lists(model: PlainModel) -> dict[str, float]:
        ranker = Ranker.of(model)
        quality = {"ndcg_at_10": rank_metrics(ranker, valid, seen, counts, (10,)).metrics["ndcg_at_10"]}
        if data.split == "cold-items":
            quality["cold_ndcg_at_10"] = among_cold(ranker, valid, counts)["ndcg_at_10"]
        return quality

    return (stars, ("rmse", -1)) if train.loss == "mse" else (lists, ("ndcg_at_10", 1))


class Quiet(Tracker):
    """Hands on progress alone: the refit's loss must not stand among the first fit's."""

    def __init__(self, tracker: Tracker) -> None:
        self.progress = tracker.progress  # type: ignore[method-assign]
