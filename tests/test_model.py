"""Contracts of towers, scorers, losses and samplers: each implementation is a parameter, not a copy."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from worlds import BATCH, DIM, ITEMS, USERS, small

from recsys_embed.config import settings as config
from recsys_embed.config.fields import options
from recsys_embed.config.recipes import RECIPES
from recsys_embed.config.settings import ModelConfig, TrainConfig
from recsys_embed.data.dataset import SPLITS
from recsys_embed.nets import blocked_softmax as module
from recsys_embed.nets.blocked_softmax import Negatives, Pairs, shared_softmax
from recsys_embed.nets.losses import LOSSES, Scores, softmax, take
from recsys_embed.nets.negative_sampling import SAMPLERS, KnownPositives, _redraw_on_cuda, draw_negatives
from recsys_embed.nets.scorers import SCORERS
from recsys_embed.nets.sparse_ops import sparse_bag_sum
from recsys_embed.nets.towers import IdTower
from recsys_embed.nets.two_tower import build_two_tower

SCORER_CONFIGS = {
    "dot": ModelConfig(dim=DIM),
    "cosine": ModelConfig(dim=DIM, cosine=True, temperature=0.2),
    "mlp": ModelConfig(dim=DIM, scorer="mlp", mlp_layers="9,4"),
    "deep mlp": ModelConfig(dim=DIM, scorer="mlp", mlp_layers="3"),
}


def scorer_of(name):
    torch.manual_seed(1)
    return SCORERS[SCORER_CONFIGS[name].scorer](SCORER_CONFIGS[name])


@pytest.mark.parametrize("name", SCORER_CONFIGS)
class TestScorers:
    def test_all_call_forms_agree(self, name):
        scorer = scorer_of(name)
        u, v = torch.randn(USERS, DIM), torch.randn(ITEMS, DIM)
        table = scorer.matrix(u, v)
        assert table.shape == (USERS, ITEMS)
        torch.testing.assert_close(scorer(u[:, None], v[None]), table)
        pairs = scorer(u[[0, 3, 6]], v[[10, 2, 5]])
        torch.testing.assert_close(pairs, table[[0, 3, 6], [10, 2, 5]])

    def test_no_negatives_is_an_empty_table(self, name):
        scorer = scorer_of(name)
        assert scorer(torch.randn(BATCH, 1, DIM), torch.randn(BATCH, 0, DIM)).shape == (BATCH, 0)

    def test_gradients_reach_both_sides(self, name):
        u, v = (torch.randn(n, DIM, requires_grad=True) for n in (USERS, ITEMS))
        scorer_of(name).matrix(u, v).sum().backward()
        assert u.grad.abs().sum() > 0 and v.grad.abs().sum() > 0

    def test_plain_arrays_give_the_same_scores(self, name):
        model = build_two_tower(ModelConfig(**{**vars(SCORER_CONFIGS[name]), "init_scale": 1.0}), USERS, ITEMS, seed=3)
        with torch.no_grad():
            model.users.bias.weight.normal_()
            model.items.bias.weight.normal_()
            model.offset.fill_(2.5)
        plain = model.to_arrays((torch.ones(USERS, dtype=torch.int64), torch.ones(ITEMS, dtype=torch.int64)))
        table = model.matrix(model.users(torch.arange(USERS)), model.items(torch.arange(ITEMS))).detach().numpy()
        users, items = np.repeat(np.arange(USERS), ITEMS), np.tile(np.arange(ITEMS), USERS)
        np.testing.assert_allclose(plain.score_pairs(users, items).reshape(USERS, ITEMS), table, rtol=1e-5, atol=1e-5)
        scores = plain.score(plain.queries(np.arange(USERS)))
        np.testing.assert_allclose(scores, table, rtol=1e-5, atol=1e-5)


def test_an_mlp_is_what_its_layers_say():
    scorer = scorer_of("mlp")
    u, v = torch.randn(1, DIM), torch.randn(1, DIM)
    hidden = torch.cat((u, v), 1)
    first, second, last = scorer.layers
    expected = last(torch.relu(second(torch.relu(first(hidden)))))
    torch.testing.assert_close(scorer(u, v), expected[:, 0])


def test_a_tower_gives_rows_of_its_table():
    tower = IdTower(ITEMS, DIM, 1.0, torch.Generator().manual_seed(0))
    whole = tower.encode_all(torch.arange(ITEMS) != 2)
    assert tower(torch.tensor([4, 1])).vectors.equal(whole.vectors[[4, 1]])
    assert not whole.vectors[2].any(), "a row without ratings is where chance put it"
    assert tower(torch.zeros(0, dtype=torch.long)).vectors.shape == (0, DIM)
    tower(torch.tensor([4, 1])).vectors.sum().backward()
    assert tower.table.weight.grad.coalesce().indices().tolist() == [[1, 4]]


def test_equal_seeds_build_equal_models_and_leave_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    config = ModelConfig(dim=DIM, scorer="mlp", init_scale=0.5)
    one, other = build_two_tower(config, USERS, ITEMS, 1), build_two_tower(config, USERS, ITEMS, 1)
    assert torch.rand(1).equal(expected)
    assert all(a.equal(b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not build_two_tower(config, USERS, ITEMS, 2).users.table.weight.equal(one.users.table.weight)


def scores(pos, neg, row, value=None, weight=None):
    ones = [1.0] * len(pos)
    return Scores(*map(torch.tensor, (pos, neg, row, value or ones, weight or ones)))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_losses_are_their_formulas():
    pos, neg, row = [1.0, -0.5, 2.0], [[0.3, 0.1], [-1.0, 0.7]], [0, 1, 0]
    s = scores(pos, neg, row, weight=[0.5, 1.0, 1.5])
    softmax = [
        -math.log(math.exp(p) / (math.exp(p) + sum(map(math.exp, neg[r])))) for p, r in zip(pos, row, strict=True)
    ]
    bpr = [sum(-math.log(sigmoid(p - n)) for n in neg[r]) / 2 for p, r in zip(pos, row, strict=True)]
    bce = [
        -math.log(sigmoid(p)) - 4 * sum(math.log(1 - sigmoid(n)) for n in neg[r]) / 2
        for p, r in zip(pos, row, strict=True)
    ]
    for name, each in (("softmax", softmax), ("bpr", bpr), ("logistic", bce)):
        expected = (0.5 * each[0] + each[1] + 1.5 * each[2]) / 3
        assert LOSSES[name].loss(s).item() == pytest.approx(expected, rel=1e-5), name
    rated = scores([3.0, 4.0], [[], []], [0, 1], value=[5.0, 4.5])
    assert LOSSES["mse"].loss(rated).item() == pytest.approx((4 + 0.25) / 2)


@pytest.mark.parametrize("name", [n for n, o in LOSSES.items() if o.negatives != "none"])
def test_a_negative_that_is_none_changes_nothing_and_gives_no_nan(name):
    pos, neg = torch.zeros(2, requires_grad=True), torch.full((2, 3), -1e9, requires_grad=True)
    ones = torch.ones(2)
    LOSSES[name].loss(Scores(pos, neg, torch.arange(2), ones, ones)).backward()
    assert pos.grad.isfinite().all() and neg.grad.abs().max() == 0


def test_take_is_indexing_with_its_gradient():
    for table in (torch.randn(4, DIM, requires_grad=True), torch.randn(4, requires_grad=True)):
        rows, weights = torch.tensor([3, 0, 3, 3]), torch.randn(4)
        taken = take(table, rows)
        assert taken.equal(table[rows])
        (taken.reshape(4, -1).sum(1) * weights).sum().backward()
        expected = torch.zeros(4).index_add_(0, rows, weights)
        torch.testing.assert_close(table.grad.reshape(4, -1)[:, 0], expected)


@pytest.mark.parametrize("name", SAMPLERS)
class TestSamplers:
    def test_items_come_as_often_as_they_should(self, name):
        counts = torch.tensor([0, 1, 10, 100, 50])
        sampler = SAMPLERS[name](counts)
        drawn = sampler.draw((40_000, 2), torch.Generator().manual_seed(0))
        share = torch.bincount(drawn.flatten(), minlength=5) / drawn.numel()
        torch.testing.assert_close(share, sampler.probs, atol=0.01, rtol=0)
        expected = torch.ones(5) if name == "uniform" else counts.clamp(min=1) ** 0.75
        torch.testing.assert_close(sampler.probs, expected / expected.sum())

    def test_the_distinct_draw_estimates_sums_without_bias(self, name):
        counts = torch.arange(1, 42)
        sampler, generator, value = SAMPLERS[name](counts), torch.Generator().manual_seed(0), torch.rand(41)
        estimates = []
        for _ in range(4000):
            rows, log_prob = sampler.draw_distinct(7, generator)
            assert rows.unique().equal(rows) and len(rows) == 7  # ascending, too
            estimates.append((value[rows] * torch.exp(-log_prob)).sum())
        assert torch.stack(estimates).mean().item() == pytest.approx(value.sum().item(), rel=0.03)

    def test_all_items_when_more_are_asked_for(self, name):
        rows, log_prob = SAMPLERS[name](torch.arange(ITEMS)).draw_distinct(99, torch.Generator())
        assert rows.tolist() == list(range(ITEMS)) and log_prob.abs().max() == 0


def test_negatives_of_a_row_belong_to_the_user_of_that_row(ratings):
    known = KnownPositives(ratings.seen(), ITEMS, torch.device("cpu"))
    users = torch.tensor([6, 0, 6, 2, 5])
    generator = torch.Generator().manual_seed(0)
    rows, still = draw_negatives(
        SAMPLERS["uniform"](torch.ones(ITEMS)), known, torch.arange(ITEMS), users, 50, generator, rounds=30
    )
    assert rows.shape == (5, 50)
    assert still.all(1).tolist() == [False, True, False, False, False]  # user 0 knows every item
    assert not still[[0, 2, 3, 4]].any()
    for user, line in [(u, n) for u, n in zip(users.tolist(), rows.tolist(), strict=True) if u]:
        assert not set(line) & set(ratings.seen()[user].tolist())
        assert set(line) == set(range(ITEMS)) - set(ratings.seen()[user].tolist())


def test_on_cuda_all_are_drawn_and_what_is_known_is_replaced(ratings):
    known = KnownPositives(ratings.seen(), ITEMS, torch.device("cpu"))
    users, items = torch.tensor([6, 0, 6, 2, 5]), torch.arange(ITEMS)
    sampler, generator = SAMPLERS["uniform"](torch.ones(ITEMS)), torch.Generator().manual_seed(0)
    first = sampler.draw((5, 50), generator)
    drawn = first, known.contains(users[:, None], first)
    for _ in range(30):
        drawn = _redraw_on_cuda(sampler, known, items, users, drawn, generator)
    rows, still = drawn
    assert rows[~known.contains(users[:, None], first)].equal(first[~known.contains(users[:, None], first)])
    assert still.all(1).tolist() == [False, True, False, False, False] and still.sum() == 50
    assert known.contains(users[:, None], rows).equal(still)


def test_what_a_user_knows_is_masked_by_value(ratings):
    known, seen = KnownPositives(ratings.seen(), ITEMS, torch.device("cpu")), ratings.seen()
    users, items = torch.tensor([5, 1, 6]), torch.tensor([9, 3, 0, 7])
    expected = [[i in seen[u] for i in items.tolist()] for u in users.tolist()]
    assert known.mask(users, items).tolist() == expected
    every = known.mask(users, torch.arange(ITEMS)).tolist()
    assert every == [[i in seen[u] for i in range(ITEMS)] for u in users.tolist()]
    assert known.contains(users[:, None], items[None]).tolist() == expected


def test_the_names_in_the_settings_are_the_names_that_exist():
    pairs = [
        (config.LossName, LOSSES),
        (config.ScorerName, SCORERS),
        (config.SamplerName, SAMPLERS),
        (config.SplitName, SPLITS),
    ]
    for literal, names in pairs:
        assert set(get_args(literal)) == set(names)
    assert set(RECIPES) == {(loss, scorer) for loss in LOSSES for scorer in SCORERS}
    fields = {f.name for c in (ModelConfig, TrainConfig) for f, _, _ in options(c)} | {"batch_share"}
    assert all(set(known) <= fields for known in RECIPES.values())
    assert small("mse")[1].batch_size == 64


class TestSharedSoftmax:
    """The softmax in blocks, with its written-out gradient, beside autograd on the matrix of all scores."""

    @pytest.fixture(params=[("all", 1), ("drawn", 1), ("all", 1.4), ("drawn", 1.4)], ids=str)
    def case(self, request):
        generator = torch.Generator().manual_seed(1)
        u, v, bias = (torch.randn(*shape, generator=generator) * 2 for shape in ((9, 4), (12, 4), (12,)))
        known = torch.rand(9, 12, generator=generator) < 0.4
        known[3] = True  # a user who knows everything
        row, item = known.nonzero()[torch.randperm(int(known.sum()), generator=generator)[:25]].T
        items = None if request.param[0] == "all" else torch.tensor([7, 2, 11, 5])
        columns = torch.arange(12) if items is None else items
        chance = torch.zeros(len(columns)) if items is None else torch.randn(4, generator=generator)
        pairs = Pairs(row, item, torch.rand(25, generator=generator))
        negatives = Negatives(items, None if items is None else chance, *known[:, columns].nonzero().T)

        def slow(u, v, bias):
            neg = (u @ v.T + bias)[:, columns] - chance
            pos = (u[row] * v[item]).sum(1) + bias[item]
            return softmax(Scores(pos, neg.masked_fill(known[:, columns], -1e9), row, pairs.weight, pairs.weight))

        def pressed(u, v, bias):
            neg = ((u @ v.T + bias)[:, columns] - chance).masked_fill(known[:, columns], -torch.inf).logsumexp(1)
            return slow(u, v, bias) + 0.4 * (pairs.weight * neg[row].nan_to_num(neginf=0.0)).mean()

        if request.param[1] == 1:
            return (u, v, bias), lambda *t: shared_softmax(*t, pairs, negatives), slow
        return (u, v, bias), lambda *t: shared_softmax(*t, pairs, negatives, 1.4), pressed

    @pytest.mark.parametrize("block", [1, 30, 10**6])
    def test_it_is_the_softmax_of_all_scores(self, case, block, monkeypatch):
        monkeypatch.setitem(module.BLOCK, "cpu", block)
        tables, fast, slow = case
        results = []
        for loss in (fast, slow):
            leaves = [t.clone().requires_grad_() for t in tables]
            value = loss(*leaves)
            (3 * value).backward()
            results.append([value.detach(), *(leaf.grad for leaf in leaves)])
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)

    def test_large_scores_stay_finite(self, case):
        (u, v, bias), fast, _ = case
        leaf = (1e4 * u).requires_grad_()
        value = fast(leaf, v, bias)
        value.backward()
        assert value.isfinite() and leaf.grad.isfinite().all()


def test_sums_of_rows_are_a_matrix_product_with_its_gradient():
    generator = torch.Generator().manual_seed(2)
    table, rows = torch.randn(6, 3, generator=generator), torch.tensor([4, 1, 4, 0, 1])
    bag, weight = torch.tensor([0, 0, 2, 2, 2]), torch.rand(5, generator=generator)
    matrix = torch.zeros(4, 6).index_put_((bag, rows), weight, accumulate=True)
    leaves = [table.clone().requires_grad_() for _ in range(2)]
    toward = torch.randn(4, 3, generator=generator)
    for found in (sparse_bag_sum(leaves[0], rows, bag, weight, 4), matrix @ leaves[1]):
        torch.testing.assert_close(found, matrix @ table)
        (found * toward).sum().backward()
    gradient = leaves[0].grad
    assert gradient._indices().tolist() == [[0, 1, 4]]
    torch.testing.assert_close(gradient.to_dense(), leaves[1].grad)
