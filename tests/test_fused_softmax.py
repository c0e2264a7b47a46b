"""The softmax's step by kernels is the one by autograd, and takes no other's place."""

import copy

import numba
import numpy as np
import pytest
import torch
from worlds import ITEMS, USERS, scattered, small

from recsys_embed.kernels import softmax as kernels
from recsys_embed.nets import blocked_softmax as model_softmax
from recsys_embed.nets.negative_sampling import KnownPositives
from recsys_embed.nets.two_tower import build_two_tower
from recsys_embed.training.autograd_step import AutogradStep, Batch
from recsys_embed.training.softmax_step import SoftmaxStep
from recsys_embed.training.trainer import step_for


def steps(ratings, loss, **given):
    """The two steps, on equal models with biases of all sizes and equal random numbers; and all ratings, by user."""
    config = small(loss, negatives=5, lr=0.1, user_decay=0.5, item_decay=0.3, bias_decay=0.2, **given)
    model = scattered(config[0])
    known, counts = KnownPositives(ratings.seen(), ITEMS, torch.device("cpu")), torch.from_numpy(ratings.item_counts)
    made = [
        kind(copy.deepcopy(model), config[1], known, counts, torch.Generator().manual_seed(0))
        for kind in (SoftmaxStep, AutogradStep)
    ]
    ratings = ratings.take(np.argsort(ratings.user, kind="stable"))
    weight = np.linspace(0.2, 1.8, len(ratings)).astype(np.float32)
    return made, Batch(*(torch.tensor(c) for c in (ratings.user, ratings.item, ratings.value, weight)))


def compare(made, columns, turns=4):
    fused, plain = made
    for turn in range(turns):
        rows = torch.randperm(len(columns.user), generator=torch.Generator().manual_seed(turn))[:20].sort().values
        torch.testing.assert_close(
            fused.step_on_rows(columns, rows), plain.step_on_rows(columns, rows), rtol=1e-5, atol=1e-6
        )
        for one, other in zip(fused.model.parameters(), plain.model.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)
    for one, other in zip(fused.model.parameters(), plain.model.parameters(), strict=True):
        assert (one in fused.optimizer.state) == (other in plain.optimizer.state)
        if one in fused.optimizer.state:
            states = (vars(s.optimizer.state[p]).values() for s, p in ((fused, one), (plain, other)))
            for a, b in zip(*states, strict=True):
                torch.testing.assert_close(a, b, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"second_moment": "row"},
        {"cosine": True, "temperature": 0.3, "dropout": 0.0},
        # (wide: of a vector that keeps one number, the gradient is nothing but rounding, and Adam makes a step of it)
        {"cosine": True, "temperature": 0.3, "dropout": 0.3, "negative_weight": 1.3, "dim": 24},
        {"cosine": False, "temperature": 2.0, "dropout": 0.5},
    ],
)
@pytest.mark.parametrize("loss", ["softmax", "sampled-softmax"])
def test_a_step_is_that_of_autograd(ratings, loss, given, biases):
    compare(*steps(ratings, loss, biases=biases, **given))


@pytest.mark.parametrize("block", [1, 25])
@pytest.mark.parametrize("loss", ["softmax", "sampled-softmax"])
def test_blocks_of_users_change_nothing(ratings, loss, block, monkeypatch):
    monkeypatch.setitem(model_softmax.BLOCK, "cpu", block)
    compare(*steps(ratings, loss, cosine=True, dropout=0.0))


@pytest.mark.parametrize("loss", ["softmax", "sampled-softmax"])
def test_items_without_ratings_and_users_who_know_everything(ratings, loss):
    everything = np.arange(len(ratings)) % 5 > 0
    fewer = ratings.take(everything & (ratings.item != 3))
    full = fewer.take(fewer.user != 2)
    items = np.setdiff1d(np.arange(ITEMS), [3])
    rows = ratings.take(np.zeros(len(items), int))
    full = full.concat(type(rows)(rows.users, rows.items, np.full(len(items), 2), items, rows.value, rows.time))
    made, columns = steps(full, loss, cosine=True)
    before = made[0].model.items.table.weight[3].clone()
    compare((made[0], made[1]), columns)
    assert made[0].model.items.table.weight[3].equal(before)


def test_a_vector_of_zeros_is_left_where_it_is_and_nothing_is_nan(ratings):
    made, columns = steps(ratings, "softmax", cosine=True)
    with torch.no_grad():
        made[0].model.users.table.weight[1] = 0
    for _ in range(3):
        assert made[0].step_on_rows(columns, torch.arange(len(columns.user))).isfinite()
    assert all(p.isfinite().all() for p in made[0].model.parameters())


def test_a_batch_in_any_order_is_one_step(ratings):
    (one, other), columns = steps(ratings, "softmax")
    rows = torch.randperm(len(columns.user), generator=torch.Generator().manual_seed(0))
    shuffled = Batch(*(c[rows] for c in columns))
    torch.testing.assert_close(one(shuffled), other(Batch(*columns)), rtol=1e-5, atol=1e-6)
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


def test_a_loss_that_is_no_number_is_seen_at_once(ratings):
    (step, _), columns = steps(ratings, "softmax")
    with torch.no_grad():
        step.model.items.table.weight[4] = torch.nan
    assert step(columns).isnan()


@numba.njit
def exponentials(x):
    return np.array([kernels.exp(one) for one in x])


def test_the_exponential_is_one():
    x = -np.concatenate((np.linspace(0, 87, 100_000), np.geomspace(1e-9, 1, 1000))).astype(np.float32)
    np.testing.assert_allclose(exponentials(x), np.exp(x.astype(float)), rtol=4e-7)
    assert exponentials(np.float32([0, -88, -1e30, -np.inf])).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("given", "fused"),
    [
        ({"loss": "softmax"}, True),
        ({"loss": "sampled-softmax", "cosine": True, "dropout": 0.2, "negative_weight": 1.2}, True),
        ({"loss": "softmax", "max_grad_norm": 1.0}, False),
        ({"loss": "softmax", "scorer": "mlp"}, False),
    ],
)
def test_it_takes_the_place_where_it_says_the_same(given, fused):
    model_config, config = small(given.pop("loss"), given.pop("scorer", "dot"), **given)
    assert (step_for(build_two_tower(model_config, USERS, ITEMS), config) is SoftmaxStep) == fused


def test_one_table_for_both_sides_is_left_to_autograd():
    model_config, config = small("softmax", "dot", items=USERS)
    assert step_for(build_two_tower(model_config, USERS, USERS, shared=True), config) is AutogradStep
