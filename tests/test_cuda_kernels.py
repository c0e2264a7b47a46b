"""The kernels for CUDA: each says what the plain definition says. Without a GPU Triton's interpreter runs them."""
# ruff: noqa: E402

import copy
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from worlds import ITEMS, USERS, scattered, small

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ["TRITON_INTERPRET"] = "1"  # before a kernel is made
pytest.importorskip("triton", reason="Triton comes with torch for CUDA; for torch on CPU: pip install triton")

from recsys_embed.kernels import cuda_pairwise, cuda_tiles, pairwise, triton_available
from recsys_embed.nets.losses import LOSSES, Scores
from recsys_embed.nets.negative_sampling import KnownPositives
from recsys_embed.nets.two_tower import build_two_tower
from recsys_embed.training import cuda_pairwise_step, optim
from recsys_embed.training.autograd_step import AutogradStep, Batch
from recsys_embed.training.cuda_pairwise_step import CudaPairwiseStep
from recsys_embed.training.optim import Group, RowLazyAdam
from recsys_embed.training.trainer import step_for

DEVICE = torch.device("cuda" if CUDA else "cpu")
K = 3
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


@pytest.fixture(autouse=True)
def by_kernels(monkeypatch):
    """Tables are taken where they lie, and tiles and pieces are small enough for these worlds to need several."""
    for module in (optim, cuda_pairwise_step):
        monkeypatch.setattr(module, "fits_cuda_kernels", lambda table: table.ndim == 2 and table.dtype == torch.float32)
    monkeypatch.setattr(optim, "fits_cpu_kernels", lambda table: False)
    monkeypatch.setattr(cuda_tiles, "TILE", 128)
    monkeypatch.setattr(cuda_tiles, "PIECE", 4)


def updated(rows, dim, fused, layout="sparse", decay=0.4, moments=torch.float32, steps=5):
    """What a table and its state come to; a fifth of the rows is never touched, others several times a step."""
    torch.manual_seed(1)
    table = nn.Parameter(torch.randn(rows, dim).to(DEVICE))
    adam = RowLazyAdam([Group([table], weight_decay=decay)], lr=0.03, fused=fused)
    state = adam.state_of(table)
    state.mean, state.square = state.mean.to(moments), state.square.to(moments)
    never = torch.randperm(rows)[: rows // 5]
    for at in range(steps):
        adam.lr = 0.03 / (1 + at)
        drawn = torch.randint(rows, (rows // 2,))
        drawn = drawn[~torch.isin(drawn, never)].repeat(2 if at % 2 else 1)
        gradient = torch.randn(len(drawn), dim) * 10.0 ** torch.randint(-6, 3, (len(drawn), 1))
        table.grad = torch.sparse_coo_tensor(drawn[None], gradient, table.shape).to(DEVICE)
        if layout == "dense":
            table.grad = table.grad.to_dense()
        adam.step()
    untouched = table.detach()[never.to(DEVICE)].clone()
    adam.flush()
    return [table.detach(), state.mean, state.square, state.steps, state.log_decay, untouched]


@pytest.mark.parametrize("decay", [0.4, 0.0])
@pytest.mark.parametrize("layout", ["sparse", "dense"])
@pytest.mark.parametrize(("rows", "dim"), [(1, 1), (7, 5), (30, 64), (40, 1), (5, 200)])
def test_adam_is_the_plain_step(rows, dim, layout, decay):
    plain, fused = (updated(rows, dim, way, layout, decay) for way in (False, True))
    for a, b in zip(plain, fused, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


def test_first_steps_and_late_ones_have_the_bias_corrections_of_doubles():
    table = nn.Parameter(torch.zeros(200, 1, device=DEVICE))
    adam = RowLazyAdam([Group([table])], lr=1.0, eps=0.0)
    steps = adam.state_of(table).steps
    steps += torch.arange(200, device=DEVICE)[:, None] ** 2
    table.grad = torch.ones_like(table)
    adam.step()
    n = steps.double()
    expected = -0.1 / (1 - 0.9**n) / (0.001 / (1 - 0.999**n)).sqrt()
    torch.testing.assert_close(table.double(), expected, rtol=2e-6, atol=0)


def test_moments_of_sixteen_bits_are_close():
    """Each number is off by 2^-8 at most in a step, and errors do not all go one way."""
    exact, half = updated(30, 64, True), updated(30, 64, True, moments=torch.bfloat16)
    assert half[1].dtype == half[2].dtype == torch.bfloat16
    assert ((half[2].float() - exact[2]).norm() / exact[2].norm()) < 0.01
    assert ((half[1].float() - exact[1]).norm() / exact[1].norm()) < 0.01
    assert (half[0] - exact[0]).abs().max() < 0.005  # of steps that sum up to .07
    assert half[3].equal(exact[3]) and half[4].equal(exact[4])


def test_a_square_of_sixteen_bits_falls_as_it_should():
    table = nn.Parameter(torch.zeros(8, 64, device=DEVICE))
    adam = RowLazyAdam([Group([table])], lr=0.0)
    state = adam.state_of(table)
    state.mean = torch.full_like(state.mean, torch.nan, dtype=torch.bfloat16)
    state.square = torch.ones_like(state.square, dtype=torch.bfloat16)
    for _ in range(20):
        table.grad = torch.zeros_like(table)
        adam.step()
    square = state.square.float()
    assert square.mean().item() == pytest.approx(0.999**20, abs=0.002)  # rounded to the nearest it would stay 1
    assert state.mean.isnan().all()


def test_what_is_not_finite_stays_so():
    table = nn.Parameter(torch.zeros(3, 2, device=DEVICE))
    table.grad = torch.tensor([[0.0, 0.0], [torch.nan, 1.0], [torch.inf, 1.0]], device=DEVICE)
    RowLazyAdam([Group([table])], lr=0.1).step()
    assert table.isfinite().tolist() == [[True, True], [False, True], [False, True]]


def drawn(users, rated, first, known, seed, edges=None, k=K):
    n = len(users)
    put = lambda *arrays: [torch.from_numpy(np.asarray(a)).to(DEVICE) for a in arrays]  # noqa: E731
    out = cuda_pairwise.DrawnItems(*(torch.full((n, 1 + k), -99, dtype=torch.int32, device=DEVICE) for _ in range(2)))
    depth = int(np.diff(first).max()).bit_length()
    user, item, rated_, first_, known_ = put(users, np.arange(n) % 7, rated, first, known)
    cuda_pairwise.draw_negatives(
        out, user, item, rated_, None if edges is None else put(edges)[0], (first_, known_), depth, seed
    )
    return out.coded.cpu().numpy(), out.row.cpu().numpy()


def test_negatives_are_those_that_a_processor_draws():
    random = np.random.default_rng(0)
    lists = [np.flatnonzero(random.random(40) < share) for share in (0.0, 0.1, 0.9, 1.0, 0.5)]
    first = np.concatenate(([0], np.cumsum([len(x) for x in lists])))
    known, rated = np.concatenate(lists), np.flatnonzero(np.arange(40) % 7 > 0)
    users, seed = random.integers(0, 5, 60), (1 << 61) + 12345
    compared, row = drawn(users, rated, first, known, seed)
    expected = np.zeros((60, 1 + K), np.int32)
    expected[:, 0] = np.arange(60) % 7
    pairwise.draw_negatives(0, 60, expected, users.astype(np.int32), rated, first, known, np.uint64(seed))
    assert (compared == expected).all() and (compared < 0).any()
    assert (row == np.where(expected < 0, -1 - expected, expected)).all()


def test_negatives_by_chance_have_their_chances():
    chance = np.array([0.1, 0.4, 0.0, 0.2, 0.3])
    edges = np.cumsum(chance)
    compared, _ = drawn(np.zeros(1000, int), np.arange(5) + 10, [0, 1], [14], 1 << 61, edges)
    found = np.bincount(compared[:, 1:].ravel() - 10, minlength=5)
    expected = chance[:4] / 0.7 * found.sum()
    assert found[2] == found[4] == 0
    assert ((found - np.append(expected, 0)) ** 2 / np.maximum(np.append(expected, 1), 1)).sum() < 20


def world(ratings, loss, **given):
    """A model with biases of all sizes, its step, and what draws batches with duplicates."""
    given = {"lr": 0.1, "user_decay": 0.5, "item_decay": 0.2, "bias_decay": 0.9, **given}
    model_config, config = small(loss, negatives=K, **given)
    model = scattered(model_config)
    model.to(DEVICE)
    known = KnownPositives(ratings.seen(), ITEMS, DEVICE)
    counts = torch.from_numpy(ratings.item_counts).to(DEVICE)
    step = CudaPairwiseStep(model, config, known, counts, torch.Generator(DEVICE).manual_seed(0))
    weight = np.linspace(0.2, 1.8, len(ratings)).astype(np.float32)
    columns = [torch.tensor(c).to(DEVICE) for c in (ratings.user, ratings.item, ratings.value, weight)]

    def batch(size):
        rows = torch.randint(len(ratings), (size,)).to(DEVICE)
        return Batch(*(c[rows] for c in columns))

    return model, step, batch


def by_autograd(model, loss, batch, compared):
    """Set the gradients of the tables from the definitions, sparse; return the loss."""
    known, rows = compared < 0, torch.where(compared < 0, -1 - compared, compared).long()
    at = lambda embedding, row: F.embedding(row, embedding.weight, sparse=True)  # noqa: E731
    users, items = model.users, model.items
    scores = (at(users.table, batch.user)[:, None] * at(items.table, rows)).sum(-1) + model.offset
    if users.bias is not None:
        if loss == "logistic":
            scores = scores + at(users.bias, batch.user)
        scores = scores + at(items.bias, rows)[..., 0]
    scores = scores.masked_fill(known, -1e9)
    index = torch.arange(len(rows), device=DEVICE)
    found = LOSSES[loss].loss(Scores(scores[:, 0], scores[:, 1:], index, batch.value, batch.weight))
    found.backward()
    return found.detach()


@pytest.mark.parametrize(("dim", "biases"), [(5, True), (16, False)])
@pytest.mark.parametrize("loss", ["bpr", "logistic"])
def test_steps_on_pairs_are_those_of_autograd_and_plain_adam(ratings, loss, dim, biases):
    model, step, batches = world(ratings, loss, dim=dim, biases=biases)
    plain = copy.deepcopy(model)
    adam = AutogradStep(plain, step.config, step.known, step.rated_index * 0 + 1, step.generator).optimizer
    adam.fused = False
    draw = step.draw_items
    for size in (40, 1, 13):
        batch = batches(size)
        made = draw(batch)
        made.coded[::5, 2] = -1 - made.row[::5, 2]  # some negatives that are none
        step.draw_items = lambda _, made=made: made
        adam.zero_grad()
        torch.testing.assert_close(step(batch), by_autograd(plain, loss, batch, made.coded), rtol=1e-5, atol=1e-5)
        adam.step()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)
    for name, parameter in model.named_parameters():
        if loss == "bpr" and name == "users.bias.weight":
            assert parameter not in step.optimizer.state  # it says nothing of a user's bias
            continue
        ours, theirs = (a.state[b] for a, b in ((step.optimizer, parameter), (adam, plain.get_parameter(name))))
        assert ours.steps.equal(theirs.steps) and ours.steps.max() in (2, 3)
        torch.testing.assert_close(ours.mean, theirs.mean, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(ours.square, theirs.square, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(ours.log_decay, theirs.log_decay, rtol=1e-13, atol=0)  # a float32 would not do


@pytest.mark.parametrize("loss", ["bpr", "logistic"])
def test_scores_beyond_any_exponential_have_a_gradient(ratings, loss):
    model, step, batches = world(ratings, loss)
    with torch.no_grad():
        model.users.table.weight.mul_(1e3)
    found = step(batches(40))
    assert found.isfinite() and found > 10
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
@pytest.mark.parametrize("sampler", ["uniform", "popularity"])
def test_no_step_waits_for_the_device(ratings, sampler):
    _, step, batches = world(ratings, "bpr", sampler=sampler)
    table = nn.Parameter(torch.zeros(9, 4, device=DEVICE))
    adam, rows = RowLazyAdam([Group([table], 0.1)], lr=0.1), torch.tensor([[3, 1, 3]], device=DEVICE)
    batch = batches(40)
    for mode in ("default", "error"):  # to compile the kernels may wait
        torch.cuda.set_sync_debug_mode(mode)
        try:
            step(batch)
            gradient = torch.ones(3, 4, device=DEVICE)
            table.grad = torch.sparse_coo_tensor(rows, gradient, table.shape, check_invariants=False)
            adam.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("sampler", ["uniform", "popularity"])
def test_equal_seeds_give_equal_bits_and_steps_differ(ratings, sampler):
    found = []
    for _ in range(2):
        model, step, batches = world(ratings, "bpr", sampler=sampler)
        batch = batches(20)
        first, second = step.draw_items(batch), step.draw_items(batch)
        assert (first.row[:, 0] == batch.item).all() and not first.row.equal(second.row)
        pairs_ = set(zip(ratings.user.tolist(), ratings.item.tolist(), strict=True))
        users = batch.user[:, None].expand(-1, K)[first.coded[:, 1:] >= 0]
        items = first.coded[:, 1:][first.coded[:, 1:] >= 0]
        assert not pairs_ & set(zip(users.tolist(), items.tolist(), strict=True))
        for _ in range(2):
            step(batch)
        found.append([p.detach().clone() for p in model.parameters()])
    assert all(a.equal(b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"loss": "bpr"}, None),
        ({"loss": "logistic", "biases": False}, None),
        ({"loss": "bpr", "max_grad_norm": 1.0}, "clipping"),
        ({"loss": "bpr", "dropout": 0.1}, "dropout"),
        ({"loss": "bpr", "scorer": "mlp"}, "a scorer that is not the dot product"),
        ({"loss": "logistic", "cosine": True}, "a cosine, or a temperature"),
        ({"loss": "softmax"}, "loss softmax"),
    ],
)
def test_it_takes_the_place_where_it_says_the_same(given, why):
    model_config, config = small(given.pop("loss"), given.pop("scorer", "dot"), **given)
    model = build_two_tower(model_config, USERS, ITEMS).to(DEVICE)
    assert CudaPairwiseStep.unsupported_reason(model, config) == why
    if CUDA:
        assert (step_for(model, config) is CudaPairwiseStep) == (why is None)


def test_without_triton_the_plain_steps_do_and_say_so(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "triton", None)
    for name in ("cuda_tiles", "cuda_adam", "cuda_pairwise"):
        monkeypatch.delitem(sys.modules, f"recsys_embed.kernels.{name}")
        monkeypatch.delattr(f"recsys_embed.kernels.{name}")
    triton_available.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert not triton_available() and not triton_available()
    finally:
        triton_available.cache_clear()
    assert caplog.text.count("Triton cannot be used") == 1


COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from recsys_embed.kernels import cuda_adam, cuda_pairwise, cuda_tiles

def kind(name):
    if name in ("keys", "coded", "rows_out", "slot"):
        return "*i32"
    if name in ("order", "user", "item", "candidates", "indptr", "known"):
        return "*i64"
    if name in ("n", "batch", "choices"):
        return "i32"
    if name in ("mean", "square", "u_mean", "u_square", "v_mean", "v_square") and half:
        return "*bf16"
    if name.endswith(("cdf", "log_decay")):
        return "*fp64"
    number = name in ("beta1", "beta2", "eps", "log1", "log2") or name.endswith(("lr", "high", "low"))
    return "i64" if name == "seed" else "fp32" if number else "*fp32"

for half, dim in ((False, 64), (True, 5)):
    tile = cuda_tiles.tile_options(dim)
    warps = tile.pop("num_warps")
    common = {"HALF": half, "DECAYS": not half, **tile}
    pairs = {"BIASES": True, "BIAS_DECAYS": True, "BIAS_HALF": False, "PIECE": 16, "WIDE": 3, **common}
    draw = {"WIDE": 3, "DEPTH": 5, "UNIFORM": half, "CHOICE_STEPS": 9, "BLOCK": 256}
    made = [(cuda_adam._adam_all_rows, common), (cuda_pairwise._draw_negatives, draw)]
    for later in (False, True):
        made += [(cuda_pairwise._update_users, {"LATER_PIECES": later, "LOGISTIC": half, **pairs})]
        made += [(cuda_adam.adam_summed_rows, {"LATER_PIECES": later, "GIVEN": half, **pairs})]
    for kernel, constants in made:
        names = [p.name for p in kernel.params]
        signature = {n: "constexpr" if n in constants else kind(n) for n in names}
        source = ASTSource(kernel, signature, {(names.index(n),): value for n, value in constants.items()})
        compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_warps": warps})
        assert compiled.asm["cubin"] and "atom." not in compiled.asm["ptx"], kernel
"""


@pytest.mark.slow
def test_they_compile_for_a_gpu_where_none_is(tmp_path):
    """The interpreter takes what the compiler refuses."""
    env = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILED], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
