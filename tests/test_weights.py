"""Weights of rows: where they come from, what they change, and that equal ones change nothing."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from worlds import small, tastes

from recsys_embed.config.settings import DataConfig
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import split_random
from recsys_embed.errors import DataError, SettingError
from recsys_embed.recommender import Recommender
from recsys_embed.sources.load import load_dataset

PLAIN, _, COLOUR = tastes()


def heavy(seed=0):
    """For each user, half of the items count 50 times as much as the others."""
    chosen = np.random.default_rng(seed).random(len(PLAIN)) < 0.5
    return replace(PLAIN, weight=np.where(chosen, 5.0, 0.1).astype(np.float32)), chosen


ANY, RANKED = ("softmax", "sampled-softmax", "bpr", "logistic", "mse"), ("softmax", "sampled-softmax", "bpr")


@pytest.mark.parametrize(
    ("family", "loss"), [*(("embeddings", loss) for loss in ANY), *(("both", loss) for loss in RANKED)]
)
def test_equal_weights_are_none(loss, family):
    rated = replace(PLAIN, value=(1 + PLAIN.item % 5).astype(np.float32))
    given = {"batch_users": 16} if loss == "softmax" else {}
    settings = small(loss, epochs=2, dim=4, model_family=family, method="adam", **given)
    arrays = [
        Recommender(*settings).fit(r).state.model.save()[0]
        for r in (rated, replace(rated, weight=np.full(len(rated), 8, np.float32)))
    ]
    for name, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][name], err_msg=name)


@pytest.mark.parametrize("loss", ["softmax", "sampled-softmax", "bpr", "logistic"])
def test_what_weighs_more_is_learnt_more(loss):
    weighted, chosen = heavy()
    settings = small(loss, epochs=15, dim=4, negatives=20)
    plain, other = (Recommender(*settings).fit(r).state.model for r in (PLAIN, weighted))
    gain = other.predict(PLAIN.user, PLAIN.item) - plain.predict(PLAIN.user, PLAIN.item)
    assert gain[chosen].mean() > gain[~chosen].mean() + 0.1


def test_neighbours_weigh_their_histories_and_their_counts():
    weighted, _ = heavy()
    settings = small("softmax", dim=4, epochs=1, model_family="neighbours", embeddings=False)
    plain, other = (Recommender(*settings).fit(r).state.model for r in (PLAIN, weighted))
    row = PLAIN.user == 3
    items, amounts = other.histories.user(3)
    by_item = dict(zip(items.tolist(), amounts.tolist(), strict=True))
    weight = weighted.weight / weighted.weight.mean()
    for item, amount in zip(PLAIN.item[row].tolist(), weight[row].tolist(), strict=True):
        assert by_item[item] == pytest.approx(amount, rel=1e-5)
    assert not np.array_equal(plain.neighbours.weights.weight, other.neighbours.weights.weight)


def test_a_weighted_fit_of_ratings_is_by_adam_which_can():
    rated = replace(heavy()[0], value=(1 + PLAIN.item % 5).astype(np.float32))
    model, train = small("mse", epochs=2, dim=4)
    train = replace(train, **dict.fromkeys(("batch_size", "lr", "user_decay", "item_decay", "bias_decay"), None))
    with pytest.raises(SettingError, match="--weight-col"):
        Recommender(model, replace(train, method="gibbs")).fit(rated)


def test_weights_go_where_their_rows_go():
    weighted, _ = heavy()
    parts = split_random(weighted, seed=3)
    assert sum(len(part.weight) for part in parts) == len(weighted)
    joined = parts.train.concat(parts.valid).concat(parts.test)
    of_pair = dict(zip(zip(weighted.user, weighted.item, strict=True), weighted.weight, strict=True))
    for user, item, weight in zip(joined.user, joined.item, joined.weight, strict=True):
        assert of_pair[user, item] == weight
    frame = weighted.frame()
    back = Ratings.from_frame(frame, weight="weight")
    np.testing.assert_array_equal(back.weight, weighted.weight)
    assert back.digest() == weighted.digest() != PLAIN.digest()
    assert Ratings.from_frame(frame).weight is None, "only where the column is named"
    filled = parts.train.concat(replace(parts.valid, weight=None)).weight
    np.testing.assert_array_equal(filled[: len(parts.train)], parts.train.weight)
    np.testing.assert_allclose(filled[len(parts.train) :], parts.train.weight.mean())
    other = replace(parts.valid, weight=None).concat(parts.train).weight
    np.testing.assert_array_equal(np.sort(other), np.sort(filled))


def test_repeated_rows_merge_their_weights():
    frame = pl.DataFrame({"user": [1, 1, 2], "item": [1, 1, 3], "rating": [1, 3, 5], "w": [2.0, 4.0, 1.0]})
    for duplicates, wanted in (("last", 4), ("first", 2), ("mean", 3), ("sum", 6)):
        assert Ratings.from_frame(frame, weight="w", duplicates=duplicates).weight.tolist() == [wanted, 1]


def test_a_file_names_its_column(tmp_path):
    file = tmp_path / "r.csv"
    file.write_text("user,item,amount\n1,1,2.5\n1,2,1\n2,1,3\n")
    found = load_dataset(str(file), DataConfig(dataset=str(file), weight_col="amount"))
    assert found.ratings.weight.tolist() == [2.5, 1, 3]
    for bad, said in (("0", "weight is 0 in line 3"), ("x", "weight 'x' is not a number"), ("", "weight is missing")):
        file.write_text(f"user,item,amount\n1,1,2.5\n1,2,{bad}\n2,1,3\n")
        with pytest.raises(DataError, match=said):
            load_dataset(str(file), DataConfig(dataset=str(file), weight_col="amount"))
    with pytest.raises(DataError, match="there is no column 'amounts' for the weight"):
        load_dataset(str(file), DataConfig(dataset=str(file), weight_col="amounts"))
