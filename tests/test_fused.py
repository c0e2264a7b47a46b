"""The steps that kernels take: each equals the plain one, and none takes a place that is not its own."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds import ITEMS, USERS, small

from recsys_embed.kernels import available, pairs
from recsys_embed.model.gather import rows_of
from recsys_embed.model.losses import LOSSES, Scores
from recsys_embed.model.model import build
from recsys_embed.model.samplers import Known
from recsys_embed.train.fused import PairsStep
from recsys_embed.train.loop import fit, step_for
from recsys_embed.train.sparse_adam import Group, RowLazyAdam, summed_rows
from recsys_embed.train.step import AutogradStep, Batch, mask

K = 3


def world(ratings, loss, **given):
    """A model with biases of all sizes, its step, and a batch with duplicates."""
    config = small(loss, negatives=K, lr=0.1, **given)
    model = build(config[0], USERS, ITEMS)
    torch.manual_seed(3)
    with torch.no_grad():
        for tower in (model.users, model.items):
            tower.table.weight.normal_()
            if tower.bias is not None:
                tower.bias.weight.normal_()
        model.offset.fill_(0.7)
    known = Known(ratings.seen(), ITEMS, torch.device("cpu"))
    step = PairsStep(model, config[1], known, torch.from_numpy(ratings.counts), torch.Generator().manual_seed(0))
    rows = torch.randint(len(ratings), (40,))
    columns = ratings.user, ratings.item, ratings.value, np.linspace(0.2, 1.8, len(ratings)).astype(np.float32)
    return model, step, Batch(*(torch.tensor(c)[rows] for c in columns))


def by_autograd(model, loss, batch, compared):
    """The loss of the same pairs, and the gradients of the tables, from the definitions."""
    known = torch.from_numpy(compared) < 0
    rows = torch.from_numpy(np.where(compared < 0, -1 - compared, compared))
    users, items = model.users, model.items
    scores = (users.table.weight[batch.user][:, None] * items.table.weight[rows]).sum(-1) + model.offset
    for tower, at in ((users, batch.user[:, None]), (items, rows)):
        if tower.bias is not None:
            scores = scores + tower.bias.weight[at, 0]
    scores = scores.masked_fill(known, -1e9)
    found = LOSSES[loss].loss(Scores(scores[:, 0], scores[:, 1:], torch.arange(len(rows)), batch.value, batch.weight))
    found.backward()
    return found.detach()


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("loss", ["bpr", "logistic"])
def test_its_loss_and_gradients_are_those_of_autograd(ratings, loss, biases):
    model, step, batch = world(ratings, loss, biases=biases)
    compared = step.negatives(batch)
    compared[::5, 2] = -1 - compared[::5, 2]  # some negatives that are none
    step.negatives = lambda _: compared.copy()
    found = step.gradient(batch)
    ours = {name: p.grad.to_dense() for name, p in model.named_parameters() if p.grad is not None}
    step.optimizer.zero_grad()
    torch.testing.assert_close(found, by_autograd(model, loss, batch, compared))
    for name, parameter in model.named_parameters():
        if loss == "bpr" and name == "users.bias.weight":
            assert name not in ours and parameter.grad.abs().max() < 1e-6  # it says nothing of a user's bias
        else:
            torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-4, atol=1e-7)


def test_scores_beyond_any_exponential_have_a_gradient(ratings):
    model, step, batch = world(ratings, "logistic")
    with torch.no_grad():
        model.users.table.weight.mul_(1e3)
    compared = step.negatives(batch)
    step.negatives = lambda _: compared.copy()
    found = step.gradient(batch)
    grad = model.items.table.weight.grad.to_dense()
    step.optimizer.zero_grad()
    torch.testing.assert_close(found, by_autograd(model, "logistic", batch, compared))
    torch.testing.assert_close(grad, model.items.table.weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", ["uniform", "popularity"])
def test_negatives_are_rated_items_that_the_user_does_not_know(ratings, sampler):
    fewer = ratings.take(ratings.item != 3)
    _, step, batch = world(fewer, "bpr", sampler=sampler)
    for _ in range(20):
        compared = step.negatives(batch)
        assert (compared[:, 0] == batch.item.numpy()).all()
        drawn = compared[:, 1:]
        assert not (drawn == 3).any() and drawn.max() < ITEMS
        users = np.repeat(batch.user.numpy(), K)[drawn.ravel() >= 0]
        pairs_ = set(zip(fewer.user.tolist(), fewer.item.tolist(), strict=True))
        assert not pairs_ & set(zip(users.tolist(), drawn[drawn >= 0].tolist(), strict=True))


def test_draws_are_uniform_and_differ_from_seed_to_seed():
    items, known = 50, np.arange(0, 50, 5)
    first, user = np.array([0, len(known)]), np.zeros(4000, np.int64)
    found = []
    for seed in (1, 2):
        compared = np.zeros((4000, 1 + K), np.int64)
        pairs.draw(0, 4000, compared, user, np.arange(items), first, known, np.uint64(seed))
        found.append(compared[:, 1:])
    counts = np.bincount(found[0].ravel(), minlength=items)
    assert not counts[known].any()
    others = np.delete(counts, known)
    expected = others.mean()
    assert ((others - expected) ** 2 / expected).sum() < 80  # chi squared with 39 degrees: 1 in 10,000 above 80
    assert (found[0] == found[1]).mean() < 0.1


def test_who_knows_everything_has_no_negatives(ratings):
    compared = np.zeros((5, 1 + K), np.int64)
    pairs.draw(0, 5, compared, np.zeros(5, np.int64), np.arange(4), np.array([0, 4]), np.arange(4), np.uint64(7))
    assert (compared[:, 1:] < 0).all() and (-1 - compared[:, 1:] < 4).all()


@pytest.mark.parametrize(("share", "dim"), [(0.1, 7), (0.5, 128), (0.9, 1)])
def test_dropout_leaves_out_its_share_and_scales_up_the_rest(share, dim):
    generator = torch.Generator().manual_seed(0)
    dropped = mask((40_000 // dim, dim), share, generator)
    off = (dropped == 0).float()
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / (1 - share)])
    assert off.mean() == pytest.approx(share, abs=5 * (share * (1 - share) / 40_000) ** 0.5)
    if dim > 1:  # every place has its share, and neighbours do not tell of each other
        each = (share * (1 - share) * dim / 40_000) ** 0.5
        assert (off.mean(0) - share).abs().max() < 5 * each
        both = (off[:, 1:] * off[:, :-1]).mean()
        assert both == pytest.approx(share**2, abs=0.02)
    assert not dropped.equal(mask((40_000 // dim, dim), share, generator))


@pytest.mark.parametrize("size", [1, 2, 300])
def test_groups_are_the_equal_rows_in_order(size):
    rows = np.random.default_rng(size).integers(0, 40, size)
    place, order, edge, distinct = np.full(40, -1), np.empty(size, int), np.empty(size + 1, int), np.empty(size, int)
    count = pairs.group(rows, place, order, edge, distinct)
    assert (place == -1).all() and sorted(distinct[:count]) == sorted(set(rows))
    for x in range(count):
        assert (order[edge[x] : edge[x + 1]] == np.flatnonzero(rows == distinct[x])).all()


@pytest.mark.parametrize("loss", ["bpr", "logistic"])
def test_equal_seeds_give_equal_bits_whatever_the_threads(ratings, loss):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 1, 2):
            torch.set_num_threads(threads)
            model, step, batch = world(ratings, loss)
            big = Batch(*(column.repeat(80) for column in batch))
            for _ in range(3):
                step(big)
            found.append([p.detach().clone() for p in model.parameters()])
    finally:
        torch.set_num_threads(before)
    assert all(a.equal(b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize(
    ("given", "fused"),
    [
        ({"loss": "bpr"}, True),
        ({"loss": "logistic"}, True),
        ({"loss": "bpr", "biases": False, "clip": 1.0}, True),
        ({"loss": "bpr", "dropout": 0.1}, False),
        ({"loss": "bpr", "scorer": "mlp"}, False),
        ({"loss": "logistic", "cosine": True}, False),
        ({"loss": "softmax"}, False),
        ({"loss": "mse", "method": "adam"}, False),
    ],
)
def test_it_takes_the_place_where_it_says_the_same(given, fused):
    model_config, config = small(given.pop("loss"), given.pop("scorer", "dot"), **given)
    model = build(model_config, USERS, ITEMS)
    assert (step_for(model, config) is PairsStep) == fused


def test_one_table_for_both_sides_is_left_to_autograd():
    model_config, config = small("bpr", "dot", items=USERS)
    assert step_for(build(model_config, USERS, USERS, shared=True), config) is AutogradStep


def test_without_numba_the_plain_steps_do_the_same_and_say_so(ratings, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "numba", None)
    available.cache_clear()
    try:
        model_config, config = small("bpr")
        model = build(model_config, USERS, ITEMS)
        assert step_for(model, config) is AutogradStep
        fit(model, ratings, replace(config, epochs=1))
    finally:
        available.cache_clear()
    assert caplog.text.count("Numba cannot be used") == 1


@pytest.mark.parametrize("fused", [True, False])
def test_a_table_that_lies_otherwise_in_memory_moves_all_the_same(fused):
    for table in (torch.ones(3, 5).T, torch.ones(6, 5)[::2], torch.ones(3, 2, dtype=torch.float64)):
        parameter = torch.nn.Parameter(table)
        parameter.grad = torch.ones_like(parameter)
        RowLazyAdam([Group([parameter])], lr=0.1, fused=fused).step()
        torch.testing.assert_close(parameter.data, torch.full_like(table, 0.9), rtol=1e-5, atol=1e-6)


def test_gradients_with_ascending_rows_are_not_sorted_again():
    table = torch.nn.Parameter(torch.ones(9, 2))
    for rows, once in (([1, 4, 8], True), ([4, 1], False), ([4, 4], False)):
        table.grad = None
        rows_of(table, torch.tensor(rows)).sum().backward()
        found = summed_rows(table.grad)
        assert (found is table.grad) == once
        assert found.to_dense().equal(torch.bincount(torch.tensor(rows), minlength=9)[:, None] * torch.ones(1, 2))


def test_ratings_of_short_integers_train(ratings):
    _, step, batch = world(ratings, "bpr")
    step(batch._replace(user=batch.user.int(), item=batch.item.int()))


def test_where_nothing_can_be_kept_kernels_are_compiled_all_the_same(tmp_path):
    code = 'from recsys_embed.kernels import available; assert all(map(available, ("adam", "pairs", "ranking")))'
    command = f"ulimit -f 1; {sys.executable} -c '{code}'"
    done = subprocess.run(["bash", "-c", command], env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)})
    assert done.returncode == 0
