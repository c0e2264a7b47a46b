"""Data made ready for a training: loaded, split, checked and described."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from recsys_embed.answering.predict import is_seen
from recsys_embed.config.fields import settings
from recsys_embed.config.recipes import Size
from recsys_embed.config.settings import ContentConfig, DataConfig, ModelConfig, TrainConfig
from recsys_embed.data.checks import check_no_leakage, check_trainable
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.item_table import aligned
from recsys_embed.data.splits import Split
from recsys_embed.errors import DataError, SettingError
from recsys_embed.features.item_features import ItemFeatures, encode_items
from recsys_embed.presets import settings_of
from recsys_embed.sources.load import load_dataset
from recsys_embed.state.fitted import FittedState
from recsys_embed.training.continue_from import check_coverage

log = logging.getLogger("recsys_embed")


class Prepared(NamedTuple):
    """Data that is split and checked. data: with the seed of the split."""

    data: DataConfig
    dataset: Dataset
    split: Split
    item_features: ItemFeatures | None

    def for_warm_start(self, start: FittedState) -> Prepared:
        """Return the data for a training that begins from a model: it validates and tests on what that has not seen.

        Raises DataError where the ratings lack most of what the model knows.
        """
        check_coverage(start, self.split.train.users, self.split.train.items)
        dataset = self.dataset if self.dataset.items is not None else self.dataset._replace(items=start.table)
        return self._replace(dataset=dataset, split=_move_seen_to_train(self.split, start))


def prepare(data: DataConfig, seed: int, content: ContentConfig, dataset: Dataset | None = None) -> Prepared:
    """Load a data set, split it, check the parts, and read what describes the items.

    seed: of a random split where `data` names none. catalog: the data, where it is at hand already.
    """
    data = replace(data, split_seed=seed if data.split_seed is None else data.split_seed)
    dataset = dataset or load_dataset(data.dataset, data)
    dataset = dataset.with_unrated() if content.any else dataset
    split = dataset.split(data)
    _check(split, data)
    _describe(dataset, split, data)
    return Prepared(data, dataset, split, _descriptions(dataset, data, content))


# Validation ratings that a warm start needs; with fewer it trains for all epochs.
_MIN_VALID = 100


def _move_seen_to_train(split: Split, start: FittedState) -> Split:
    """Move held-out ratings that a model was fitted on to the training part: it would know the answers."""
    train, held_out, moved = split.train, [], 0
    for part in (split.valid, split.test):
        known = is_seen(start, part)
        train, moved = train.with_rows(part.take(known)), moved + int(known.sum())
        held_out.append(part.take(~known))
    valid, test = held_out
    if 0 < len(valid) < _MIN_VALID:  # too few to say when to stop
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


def preset_settings(preset: str | None, model: ModelConfig, train: TrainConfig) -> dict[str, Any]:
    """Return the settings of the preset that these began from. Raises SettingError where they did not."""
    begun, chosen = settings_of(preset), settings(model, train)
    missing = [name for name in begun if chosen[name] is None]
    if missing:
        raise SettingError(
            f"preset={preset!r} only says where settings come from, and {missing[0]} is not the preset's: "
            f"preset({preset!r}) gives the ModelConfig and TrainConfig"
        )
    return begun


def _descriptions(dataset: Dataset, data: DataConfig, content: ContentConfig) -> ItemFeatures | None:
    if not content.any:
        return None
    if content.columns and dataset.items is None:
        raise DataError("--text names columns of an item table, and there is none: name its file with --items")
    table = aligned(dataset.items, dataset.ratings.items)
    return encode_items(table, content, data.data_dir, data.offline)


def _check(split: Split, data: DataConfig) -> None:
    check_trainable(split.train.positives(data.min_rating))
    names = ("train", "validation", "test")
    for one, other in ((0, 1), (0, 2), (1, 2)):
        check_no_leakage(split[one], split[other], names[one], names[other])


def _describe(dataset: Dataset, split: Split, data: DataConfig) -> None:
    ratings = dataset.ratings
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

    from recsys_embed.training.trainer import choose_device

    if train.threads:
        torch.set_num_threads(train.threads)
    device, reason = choose_device(train.device)
    log.info("training on %s (%s)", device, reason)
    return device
