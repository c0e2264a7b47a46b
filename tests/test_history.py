"""Users who are the sum of what they rated."""

import numpy as np
import polars as pl
import pytest
import torch
from worlds import BATCH, DIM, ITEMS, USERS, checkerboard, small, tastes

from recsys_embed import Recommender
from recsys_embed.config.recipes import Size, resolve_settings
from recsys_embed.config.settings import ContentConfig, ModelConfig, TrainConfig
from recsys_embed.data.user_items import UserItems
from recsys_embed.errors import SettingError
from recsys_embed.nets.towers import HistoryTower, IdTower
from recsys_embed.nets.two_tower import build_two_tower
from recsys_embed.training.batches import batch_drawer, columns_of

SEEN = UserItems.of(np.array([0, 0, 0, 2, 3, 3, 5, 6, 6]), np.array([4, 1, 9, 1, 0, 10, 3, 2, 4]), USERS)


def tower(dropout=0.0):
    return HistoryTower(SEEN, ITEMS, DIM, 1.0, torch.Generator().manual_seed(1), dropout, seed=0)


def test_a_user_is_the_sum_of_their_items_over_the_root_of_their_number():
    made = tower()
    rows = torch.tensor([3, 0, 1, 6])
    vectors, bias, _ = made(rows)
    for row, vector in zip(rows.tolist(), vectors, strict=True):
        own = SEEN[row]
        torch.testing.assert_close(vector, made.table[own].sum(0) / max(1, len(own)) ** 0.5)
    assert not vectors[2].any() and not bias.any()
    torch.testing.assert_close(made.encode_all(torch.ones(USERS, dtype=torch.bool)).vectors[rows], vectors)


def test_a_step_leaves_items_out_and_makes_up_for_them():
    made = tower(0.5)
    made.train()
    rows = torch.zeros(4000, dtype=torch.long)
    drawn = made(rows).vectors.detach()
    assert len(drawn.unique(dim=0)) == 2**3, "each of three items is in or out"
    whole = tower()(torch.tensor([0])).vectors[0]
    torch.testing.assert_close(drawn.mean(0), whole.detach(), atol=0.08, rtol=0)
    made.eval()
    torch.testing.assert_close(made(rows[:2]).vectors[0], whole)


def test_only_items_of_the_step_move():
    made = tower()
    made(torch.tensor([2, 6])).vectors.sum().backward()
    assert made.table.grad.is_sparse
    assert made.table.grad.coalesce().indices()[0].tolist() == [1, 2, 4]


def test_a_vector_of_ones_own_is_added():
    own = IdTower(USERS, DIM, 1.0, torch.Generator().manual_seed(2), biases=False)
    made = HistoryTower(SEEN, ITEMS, DIM, 1.0, torch.Generator().manual_seed(1), 0.0, 0, own)
    rows = torch.tensor([6, 1, 0])
    vectors = made(rows).vectors
    torch.testing.assert_close(vectors[[0, 2]], (tower()(rows).vectors + own.table.weight[rows])[[0, 2]])
    assert not vectors[1].any(), "without a rating nothing is known"


@pytest.mark.parametrize("made", ["history", "both"])
@pytest.mark.parametrize("loss", ["softmax", "sampled-softmax"])
def test_the_checkerboard_is_learnt(loss, made):
    board = checkerboard()
    configs = small(loss, user_tower=made, batch_users=5, history_dropout=0.3, negatives=8, epochs=80)
    got = Recommender(*configs).fit(board).recommend(k=1)
    assert (got["user_id"] == got["item_id"]).all()


def test_a_step_takes_users_whole_and_an_epoch_takes_all(ratings):
    config = TrainConfig(batch_users=2)
    columns = columns_of(ratings, config, torch.device("cpu"))
    draw = batch_drawer(columns, config, torch.Generator().manual_seed(0))
    first, second = draw(), draw()
    assert len(first) == 4  # 7 users, 2 a step
    assert torch.cat(list(first)).sort().values.tolist() == list(range(len(ratings)))
    assert [b.tolist() for b in first] != [b.tolist() for b in second]
    counts = torch.bincount(columns.user)
    for batch in first:
        users, taken = columns.user[batch].unique(return_counts=True)
        assert taken.tolist() == counts[users].tolist()


def test_batches_of_ratings_are_even(ratings):
    columns = columns_of(ratings, TrainConfig(), torch.device("cpu"))
    sizes = [len(b) for b in batch_drawer(columns, TrainConfig(batch_size=BATCH), torch.Generator().manual_seed(0))()]
    assert sum(sizes) == len(ratings) and max(sizes) - min(sizes) <= 1


def test_its_recipe_is_its_own():
    made = ModelConfig(user_tower="history")
    train = resolve_settings(made, TrainConfig(), Size(1000, 2000, 90_000))[1]
    assert train.loss == "softmax" and train.batch_users
    assert train.lr != resolve_settings(ModelConfig(), TrainConfig(), Size(1000, 2000, 90_000))[1].lr
    assert resolve_settings(made, TrainConfig(batch_users=3), Size(9, 9, 9))[1].batch_users == 3
    for given in ({"loss": "bpr"}, {"loss": "mse"}):
        with pytest.raises(
            SettingError, match=r"history goes with --scorer dot and a softmax, not with dot and (bpr|mse)"
        ):
            resolve_settings(ModelConfig(user_tower="history"), TrainConfig(**given), Size(9, 9, 9))
    with pytest.raises(SettingError, match="history goes with"):
        resolve_settings(ModelConfig(user_tower="history", scorer="mlp"), TrainConfig(), Size(9, 9, 9))


def test_it_cannot_be_built_without_a_history():
    with pytest.raises(TypeError, match="history"):
        build_two_tower(small("softmax", user_tower="history")[0], USERS, ITEMS)


def test_one_seed_gives_the_same_bits_and_a_saved_model_the_same_answers(tmp_path, ratings):
    configs = small("softmax", user_tower="history", batch_users=3, epochs=5)
    one, two = (Recommender(*configs).fit(ratings) for _ in range(2))
    np.testing.assert_array_equal(one.model.users, two.model.users)
    np.testing.assert_array_equal(one.model.items, two.model.items)
    assert Recommender.load(one.save(tmp_path / "m")).recommend(k=3).equals(one.recommend(k=3))


def test_what_is_below_the_threshold_is_no_history(ratings):
    configs = small("softmax", user_tower="history", batch_users=3, epochs=3)
    threshold = float(np.sort(ratings.value)[len(ratings) // 2])
    some = Recommender(*configs).fit(ratings, min_rating=threshold)
    liked = ratings.positives(threshold)
    alone = Recommender(*configs).fit(liked)
    np.testing.assert_array_equal(some.model.users, alone.model.users)


def test_it_goes_with_descriptions():
    world, table, colour = tastes()
    configs = small("softmax", user_tower="history", batch_users=16, dim=8, epochs=30)
    more = Recommender(*configs, ContentConfig(text="kind")).fit(world.with_items(pl.Series([900])), table)
    more.add_items(pl.DataFrame({"item_id": [901], "title": ["new"], "kind": ["red|round"]}))
    nearest = more.similar(901, 5)["item_id"].to_list()
    assert (colour[nearest] == 0).all()
