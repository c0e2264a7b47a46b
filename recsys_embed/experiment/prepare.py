"""Prepare data for a training: load, split and check it, and encode item content."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from recsys_embed.answering.predict import is_seen
from recsys_embed.config.fields import settings
from recsys_embed.config.recipes import Size
from recsys_embed.config.settings import AUTO, ContentConfig, DataConfig, ModelConfig, TrainConfig
from recsys_embed.data.checks import check_no_leakage, check_trainable
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.item_table import align_items
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import Split
from recsys_embed.errors import DataError, SettingError
from recsys_embed.experiment.choose_event_weights import choose_event_weights
from recsys_embed.experiment.choose_trend import check_trend
from recsys_embed.features.item_features import ItemFeatures, encode_items
from recsys_embed.presets import preset_settings
from recsys_embed.sources.load import load_dataset
from recsys_embed.state.fitted import FittedState
from recsys_embed.training.warm_start import check_coverage

log = logging.getLogger("recsys_embed")


class Prepared(NamedTuple):
    """Data that is split and checked. data: its settings, with the split's seed filled in. both: the rows of train and
    validation for the second fit, if they are more than those of the two parts together."""

    data: DataConfig
    dataset: Dataset
    split: Split
    item_features: ItemFeatures | None
    both: Ratings | None = None

    @property
    def refit_rows(self) -> Ratings:
        """The ratings of the second fit."""
        return self.split.train.concat(self.split.valid) if self.both is None else self.both

    @property
    def all_rows(self) -> Ratings:
        """All ratings, those of the test included."""
        rows = self.dataset.ratings
        for part in (self.dataset.valid, self.dataset.test):
            rows = rows if part is None else rows.concat(_without(part, rows))
        return rows

    def tested_by_type(self) -> dict[str, Ratings]:
        """Return what is done in the test part, for each type of events; see `EventLog.tested_by_type`."""
        return {} if self.dataset.log is None else self.dataset.log.tested_by_type(self.data)

    def window(self, number: int) -> Prepared:
        """Return the same data split at an earlier test window; see `Dataset.split`."""
        dataset = _with_weights(self.dataset, self.data, number)
        split, both = _split(dataset, self.data, number)
        _check_split(split, self.data)
        return self._replace(dataset=dataset, split=split, both=both)

    def for_warm_start(self, start: FittedState) -> Prepared:
        """Return the data for a warm start from a model: it is validated and tested on pairs the model has not seen.

        Raises DataError where most of the model's users or items have no ratings here.
        """
        if self.data.windows > 1:
            raise SettingError("--windows does not go with --warm-start: the model knows what earlier windows measure")
        check_coverage(start, self.split.train.users, self.split.train.items)
        dataset = self.dataset if self.dataset.items is not None else self.dataset._replace(items=start.table)
        split = _move_seen_to_train(self.split, start)
        # Events before the test are all in `both`; only those that are moved from the test are not.
        both = None if self.both is None else self.both.concat(_without(split.train, self.both))
        return self._replace(dataset=dataset, split=split, both=both)


def prepare(data: DataConfig, seed: int, content: ContentConfig, dataset: Dataset | None = None) -> Prepared:
    """Load a data set, split it, check the parts, and encode the items' content.

    seed: the random split's, unless `data` names one. dataset: the data, if it is loaded already.
    """
    data = replace(data, split_seed=seed if data.split_seed is None else data.split_seed)
    dataset = dataset or load_dataset(data.dataset, data)
    data = replace(data, time_format=data.time_format or dataset.time_format)  # so that later reads are alike
    dataset = _with_weights(dataset, data)
    dataset = dataset.with_unrated_items() if content.any else dataset
    split, both = _split(dataset, data)
    _check_split(split, data)
    _log_sizes(dataset, split)
    return Prepared(data, dataset, split, _encode_content(dataset, data, content), both)


def _with_weights(dataset: Dataset, data: DataConfig, window: int = 0) -> Dataset:
    """Return a data set whose events have the weights that validation chooses, if it is to."""
    if dataset.log is None or data.event_weights != AUTO:
        return dataset
    events = dataset.log.with_weights(choose_event_weights(dataset.log, data, window))
    return dataset._replace(log=events, ratings=events.ratings())


def _split(dataset: Dataset, data: DataConfig, window: int = 0) -> tuple[Split, Ratings | None]:
    """Return the parts, and for an event log the rows of train and validation together."""
    return (dataset.split(data, window), None) if dataset.log is None else dataset.log.split(data, window)


# Validation ratings that a warm start needs for early stopping; with fewer it trains for all epochs.
_MIN_VALID = 100


def _move_seen_to_train(split: Split, start: FittedState) -> Split:
    """Move held-out ratings that a model was fitted on to the training part: it would know the answers."""
    train, held_out, n_leaked = split.train, [], 0
    for part in (split.valid, split.test):
        seen = is_seen(start, part)
        train, n_leaked = train.concat(_without(part.take(seen), train)), n_leaked + int(seen.sum())
        held_out.append(part.take(~seen))
    valid, test = held_out
    if 0 < len(valid) < _MIN_VALID:  # too few for early stopping
        train, n_leaked = train.concat(_without(valid, train)), n_leaked + len(valid)
        valid = valid.take(np.zeros(0, np.int64))
    if n_leaked:
        log.info(
            "moved %s held-out ratings to training: the model of the warm start has seen them, or they are too few; "
            "%s are left for validation, %s for test", f"{n_leaked:,}", f"{len(valid):,}", f"{len(test):,}",
        )  # fmt: skip
    return Split(train, valid, test)


def _without(rows: Ratings, other: Ratings) -> Ratings:
    """Return the rows whose user and item have none among others: in an event log, what is held out may be viewed."""
    return rows.take(~other.seen().contains(rows.user, rows.item))


def size_of(split: Split) -> Size:
    """Return the size of the training data, which recipes depend on."""
    return Size(
        len(split.train.users),
        len(split.train.items),
        len(split.train),
        split.train.is_graph,
        split.train.weight is not None,
    )


def check_values(model: ModelConfig, train: TrainConfig, data: DataConfig, split: Split) -> None:
    """Raise where the settings cannot work with the values and times of the ratings."""
    check_trend(model, train.loss, split, data)
    if train.loss == "mse":
        if not split.train.explicit:
            raise DataError(
                "--loss mse learns rating values, and all of this data's are equal; choose a loss for positives"
            )


def checked_preset(preset: str | None, model: ModelConfig, train: TrainConfig) -> dict[str, Any]:
    """Return the settings of the preset that the configs were made from. Raises SettingError where they were not."""
    base, chosen = preset_settings(preset), settings(model, train)
    missing = [name for name in base if chosen[name] is None]
    if missing:
        raise SettingError(
            f"preset={preset!r} only records where settings come from, and {missing[0]} is not the preset's: "
            f"preset({preset!r}) gives the ModelConfig and TrainConfig"
        )
    return base


def _encode_content(dataset: Dataset, data: DataConfig, content: ContentConfig) -> ItemFeatures | None:
    if not content.any:
        return None
    if content.columns and dataset.items is None:
        raise DataError("--text names columns of an item table, and there is none: give its file with --items")
    table = align_items(dataset.items, dataset.ratings.items)
    return encode_items(table, content, data.data_dir, data.offline)


def _check_split(split: Split, data: DataConfig) -> None:
    check_trainable(split.train.positives(data.min_rating))
    names = ("train", "validation", "test")
    for one, other in ((0, 1), (0, 2), (1, 2)):
        check_no_leakage(split[one], split[other], names[one], names[other])


def _log_sizes(dataset: Dataset, split: Split) -> None:
    ratings = dataset.ratings
    if ratings.is_graph:
        sizes, units = [len(ratings.users), *(len(part) // 2 for part in split)], "%s nodes; %s edges"
    else:
        sizes, units = [len(ratings.users), len(ratings.items), *map(len, split)], "%s users, %s items; %s ratings"
    if dataset.log is not None:
        log.info("events: %s", dataset.log.describe())
    log.info(f"{units} to train, %s to validate, %s to test", *(f"{n:,}" for n in sizes))
    if not len(split.valid):
        log.warning("there are no validation ratings: the model trains for all epochs, and is not fitted again")
    if not len(split.test):
        log.warning("nothing is held out for test: there will be no test metrics")


def start_torch(train: TrainConfig) -> str:
    """Set torch's number of threads, choose the device to train on, log it, and return it."""
    import torch

    from recsys_embed.training.trainer import choose_device

    if train.threads:
        torch.set_num_threads(train.threads)
    device, reason = choose_device(train.device)
    log.info("training on %s (%s)", device, reason)
    return device
