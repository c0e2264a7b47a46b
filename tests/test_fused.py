"""The steps that kernels take: each equals the plain one, and none takes a place that is not its own."""

import copy
import os
import subprocess
import sys
from dataclasses import replace

import numba
import numpy as np
import pytest
import torch
from worlds import ITEMS, USERS, scattered, small

from recsys_embed import kernels
from recsys_embed.kernels import available, compiled, pairwise
from recsys_embed.nets.losses import LOSSES, Scores
from recsys_embed.nets.negative_sampling import KnownPositives
from recsys_embed.nets.sparse_ops import sparse_lookup
from recsys_embed.nets.two_tower import build_two_tower
from recsys_embed.training import pairwise_step
from recsys_embed.training.autograd_step import AutogradStep, Batch, dropout_mask
from recsys_embed.training.batches import _split_randomly
from recsys_embed.training.optim import Group, RowLazyAdam, coalesced
from recsys_embed.training.pairwise_step import PairwiseStep
from recsys_embed.training.trainer import fit, step_for

K = 3


def world(ratings, loss, **given):
    """A model with biases of all sizes, its step, and ratings of a step, ascending by user, with duplicates."""
    config = small(loss, negatives=K, lr=0.1, **given)
    model = scattered(config[0])
    known = KnownPositives(ratings.seen(), ITEMS, torch.device("cpu"))
    step = PairwiseStep(
        model, config[1], known, torch.from_numpy(ratings.item_counts), torch.Generator().manual_seed(0)
    )
    by_user = ratings.take(np.argsort(ratings.user, kind="stable"))
    weight = np.linspace(0.2, 1.8, len(ratings)).astype(np.float32)
    columns = Batch(*(torch.tensor(c) for c in (by_user.user, by_user.item, by_user.value, weight)))
    return model, step, columns, torch.randint(len(ratings), (40,)).sort().values


def given(step, compared):
    """Let a step compare these items, whatever it would draw."""
    drawn = step.draw_items

    def compare(columns, rows):
        return drawn(columns, rows)[0], compared.copy()

    step.draw_items = compare


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


@pytest.mark.parametrize(("threads", "moments"), [(1, "row"), (1, "number"), (2, "number"), (3, "number")])
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("loss", ["bpr", "logistic"])
def test_a_step_is_that_of_autograd_and_the_plain_adam(ratings, loss, biases, threads, moments, monkeypatch):
    monkeypatch.setattr(compiled, "_MIN_ROWS_PER_THREAD", 1)  # so that every thread has a part of this small step
    monkeypatch.setattr(compiled, "num_threads", lambda: threads)
    monkeypatch.setattr(pairwise_step, "num_threads", lambda: threads)
    decay = {"user_decay": 0.5, "item_decay": 0.3, "bias_decay": 0.2}
    model, step, columns, rows = world(ratings, loss, biases=biases, second_moment=moments, **decay)
    plain = copy.deepcopy(model)
    rowwise = moments == "row"
    groups = [Group([plain.get_submodule(n).weight], d, rowwise=rowwise) for n, d in tables(biases)]
    adam = RowLazyAdam(groups, 0.1, fused=False)
    for turn in range(4):
        part = rows[turn * 3 :]
        compared = step.draw_items(columns, part.numpy())[1].copy()
        compared[::5, 2] = -1 - compared[::5, 2]  # some negatives that are none
        given(step, compared)
        found = step.step_on_rows(columns, part)
        del step.draw_items
        adam.zero_grad()
        expected = by_autograd(plain, loss, Batch(*(c[part] for c in columns)), compared)
        if biases and loss == "bpr":  # it says nothing of a user's bias
            assert plain.users.bias.weight.grad.abs().max() < 1e-6
            plain.users.bias.weight.grad = None
        keep_rows(plain.users, columns.user[part])
        keep_rows(plain.items, torch.from_numpy(np.where(compared < 0, -1 - compared, compared)).long())
        adam.step()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        for one, other in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        if theirs.grad is not None:
            for a, b in zip(vars(step.optimizer.state[mine]).values(), vars(adam.state[theirs]).values(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def keep_rows(tower, rows):
    """Make the gradients of a tower's tables sparse: they hold these rows, zero or not, and no other."""
    rows = rows.unique()
    for table in (tower.table.weight, *([] if tower.bias is None else [tower.bias.weight])):
        if table.grad is not None:
            table.grad = torch.sparse_coo_tensor(rows[None], table.grad[rows], table.shape).coalesce()


def tables(biases):
    yield "users.table", 0.5
    yield "items.table", 0.3
    if biases:
        yield "users.bias", 0.2
        yield "items.bias", 0.2


def test_scores_beyond_any_exponential_have_a_gradient(ratings):
    model, step, columns, rows = world(ratings, "logistic")
    with torch.no_grad():
        model.users.table.weight.mul_(1e3)
    compared = step.draw_items(columns, rows.numpy())[1].copy()
    given(step, compared)
    plain = copy.deepcopy(model)
    found = step.step_on_rows(columns, rows)
    torch.testing.assert_close(found, by_autograd(plain, "logistic", Batch(*(c[rows] for c in columns)), compared))
    mean = step.optimizer.state[model.items.table.weight].mean  # after one step, a tenth of the gradient
    torch.testing.assert_close(mean, 0.1 * plain.items.table.weight.grad.to_dense(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sampler", ["uniform", "popularity"])
def test_negatives_are_rated_items_that_the_user_does_not_know(ratings, sampler):
    fewer = ratings.take(ratings.item != 3)
    _, step, columns, rows = world(fewer, "bpr", sampler=sampler)
    for _ in range(20):
        user, compared = step.draw_items(columns, rows.numpy())
        assert (compared[:, 0] == columns.item[rows].numpy()).all()
        assert (user == columns.user[rows].numpy()).all()
        drawn = compared[:, 1:]
        assert not (drawn == 3).any() and drawn.max() < ITEMS
        users = np.repeat(user, K)[drawn.ravel() >= 0]
        pairs_ = set(zip(fewer.user.tolist(), fewer.item.tolist(), strict=True))
        assert not pairs_ & set(zip(users.tolist(), drawn[drawn >= 0].tolist(), strict=True))


def test_draws_are_uniform_and_differ_from_seed_to_seed():
    items, known = 50, np.arange(0, 50, 5)
    first, user = np.array([0, len(known)]), np.zeros(4000, np.int32)
    found = []
    for seed in (1, 2):
        compared = np.zeros((4000, 1 + K), np.int32)
        pairwise.draw_negatives(0, 4000, compared, user, np.arange(items), first, known, np.uint64(seed))
        found.append(compared[:, 1:])
    counts = np.bincount(found[0].ravel(), minlength=items)
    assert not counts[known].any()
    others = np.delete(counts, known)
    expected = others.mean()
    assert ((others - expected) ** 2 / expected).sum() < 80  # chi squared with 39 degrees: 1 in 10,000 above 80
    assert (found[0] == found[1]).mean() < 0.1


def test_who_knows_everything_has_no_negatives(ratings):
    compared = np.zeros((5, 1 + K), np.int32)
    pairwise.draw_negatives(
        0, 5, compared, np.zeros(5, np.int32), np.arange(4), np.array([0, 4]), np.arange(4), np.uint64(7)
    )
    assert (compared[:, 1:] < 0).all() and (-1 - compared[:, 1:] < 4).all()


@pytest.mark.parametrize(("share", "dim"), [(0.1, 7), (0.5, 128), (0.9, 1)])
def test_dropout_leaves_out_its_share_and_scales_up_the_rest(share, dim):
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(40_000 // dim)
    dropped = dropout_mask(rows, dim, share, generator)
    off = (dropped == 0).float()
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / (1 - share)])
    assert off.mean() == pytest.approx(share, abs=5 * (share * (1 - share) / 40_000) ** 0.5)
    if dim > 1:  # every place has its share, and neighbours do not tell of each other
        each = (share * (1 - share) * dim / 40_000) ** 0.5
        assert (off.mean(0) - share).abs().max() < 5 * each
        both = (off[:, 1:] * off[:, :-1]).mean()
        assert both == pytest.approx(share**2, abs=0.02)
    assert not dropped.equal(dropout_mask(rows, dim, share, generator))
    turned = dropout_mask(rows.flip(0), dim, share, torch.Generator().manual_seed(0))
    assert turned.flip(0).equal(dropped)


@pytest.mark.parametrize(("n", "steps"), [(1, 1), (7, 7), (300, 7), (5000, 2)])
def test_parts_are_even_random_and_ascending(n, steps):
    drawn = [_split_randomly(n, steps, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    for batches in drawn:
        assert torch.cat(list(batches)).sort().values.equal(torch.arange(n))
        assert len(batches) == steps and max(map(len, batches)) - min(map(len, batches)) <= 1
        assert all((batch[1:] > batch[:-1]).all() for batch in batches)
    assert all(a.equal(b) for a, b in zip(drawn[0], drawn[1], strict=True))
    if n > 100:
        assert not all(a.equal(b) for a, b in zip(drawn[0], drawn[2], strict=True))


@numba.njit
def entries_of(rows, edges, chunk, scratch):
    start, end = pairwise._select_entries(rows, edges[chunk], edges[chunk + 1], chunk, scratch[0], scratch[1])
    key, entry = pairwise._radix_sort(
        start, end, edges[chunk + 1] - edges[chunk], scratch[0], scratch[1], scratch[2], scratch[3]
    )
    return key[start:end] + edges[chunk], entry[start:end]


@pytest.mark.parametrize("size", [1, 300, 70_000, 2**31 - 2])
def test_entries_are_parted_and_sorted_by_item_and_then_by_themselves(size):
    rows = np.random.default_rng(size).integers(0, size, 999).astype(np.int32)
    rows[::7] = rows[5]
    edges = np.array([0, size // 3, size // 3, size])
    scratch = tuple(np.empty(999 + 3, np.int32) for _ in range(4))
    chunks = [entries_of(rows, edges, chunk, scratch) for chunk in range(3)]
    order = np.argsort(rows, kind="stable")
    assert np.concatenate([entry for _, entry in chunks]).tolist() == order.tolist()
    assert np.concatenate([item for item, _ in chunks]).tolist() == rows[order].tolist()


@pytest.mark.parametrize("loss", ["bpr", "logistic"])
def test_equal_seeds_give_equal_bits_whatever_the_threads(ratings, loss):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 1, 2):
            torch.set_num_threads(threads)
            model, step, columns, _ = world(ratings, loss)
            big = Batch(*(column.repeat_interleave(60) for column in columns))
            for _ in range(3):
                step.step_on_rows(big, torch.arange(len(big.user)))
            found.append([p.detach().clone() for p in model.parameters()])
    finally:
        torch.set_num_threads(before)
    assert all(a.equal(b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize(
    ("given", "fused"),
    [
        ({"loss": "bpr"}, True),
        ({"loss": "logistic"}, True),
        ({"loss": "bpr", "biases": False}, True),
        ({"loss": "bpr", "max_grad_norm": 1.0}, False),
        ({"loss": "bpr", "dropout": 0.1}, False),
        ({"loss": "bpr", "scorer": "mlp"}, False),
        ({"loss": "logistic", "cosine": True}, False),
        ({"loss": "softmax"}, False),
        ({"loss": "mse", "method": "adam"}, False),
    ],
)
def test_it_takes_the_place_where_it_says_the_same(given, fused):
    model_config, config = small(given.pop("loss"), given.pop("scorer", "dot"), **given)
    model = build_two_tower(model_config, USERS, ITEMS)
    assert (step_for(model, config) is PairwiseStep) == fused


def test_one_table_for_both_sides_is_left_to_autograd():
    model_config, config = small("bpr", "dot", items=USERS)
    assert step_for(build_two_tower(model_config, USERS, USERS, shared=True), config) is AutogradStep


def test_without_numba_the_plain_steps_do_the_same_and_say_so(ratings, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "numba", None)
    for cached in (available, kernels._warn_once):
        cached.cache_clear()
    try:
        assert not any(map(available, ("ranking", "pairwise", "histories")))
        model_config, config = small("bpr")
        model = build_two_tower(model_config, USERS, ITEMS)
        assert step_for(model, config) is AutogradStep
        fit(model, ratings, replace(config, epochs=1))
    finally:
        for cached in (available, kernels._warn_once):
            cached.cache_clear()
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
        sparse_lookup(table, torch.tensor(rows)).sum().backward()
        found = coalesced(table.grad)
        assert (found is table.grad) == once
        assert found.to_dense().equal(torch.bincount(torch.tensor(rows), minlength=9)[:, None] * torch.ones(1, 2))


@pytest.mark.slow
def test_where_nothing_can_be_kept_kernels_are_compiled_all_the_same(tmp_path):
    code = 'from recsys_embed.kernels import available; assert available("adam")'
    command = f"ulimit -f 1; {sys.executable} -c '{code}'"
    done = subprocess.run(["bash", "-c", command], env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)})
    assert done.returncode == 0
