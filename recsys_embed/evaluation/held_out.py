"""The test ratings of a model: those of its own split, from the data that it was trained on."""

from __future__ import annotations

from dataclasses import fields, replace

from recsys_embed.answering.predict import is_seen
from recsys_embed.config.settings import DataConfig
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import SettingError
from recsys_embed.recommender import Recommender
from recsys_embed.sources.load import load_dataset


def data_config_of(recommender: Recommender) -> DataConfig:
    """Return the data settings that the model was trained with."""
    given = recommender.metadata.get("settings", {})
    names = {f.name for f in fields(DataConfig)}
    return DataConfig(**{name: value for name, value in given.items() if name in names})


def training_data(recommender: Recommender, offline: bool = False) -> tuple[Dataset, DataConfig]:
    """Load the data that a model was trained on, and return them with the settings of its training.

    Raises SettingError if the model does not say which data these are, and DataError if they are not there.
    """
    if "dataset" not in recommender.metadata:
        raise SettingError("this model does not say which data it was trained on")
    data = replace(data_config_of(recommender), offline=offline)
    return load_dataset(data.dataset, data), data


def held_out_test(recommender: Recommender, dataset: Dataset, data: DataConfig) -> Ratings:
    """Return the test positives of the split that the settings name, without those that went to training.

    (After a warm start, pairs that the model before had seen are no test.)
    """
    test = dataset.split(data).test
    if "continued" in recommender.metadata:
        test = test.take(~is_seen(recommender.state, test))
    return test.positives(data.min_rating)
