"""What training does on a CUDA device: kernels, losses, whole runs; beside peers on the same card.

    python experiments/benchmarks/gpu.py [--only SECTION,SECTION] [--dataset NAME|FILE]... [--tune] [--out FILE.json]
    python experiments/benchmarks/gpu.py --small      # without a GPU: only that this script runs

Without a GPU it says so and ends. Sections, in this order; one that fails says why, and the others go on:

copy     what a device-to-device copy reads and writes a second: the measure of all shares below
check    a step of the kernels against plain torch, with duplicates and rows that many ratings share; and equal bits
bpr      steps of BPR, one negative a rating, known ones drawn again; 10^6 users, 10^6 items, uniform ratings; by
         dimension and batch: our kernels, our step by autograd, torch's SparseAdam, FBGEMM's fused tables and
         implicit's BPR on GPU where they are installed. "must" is what our definition has to move in float32: weights
         and two moments, read and written, of each distinct row of the batch. "4.6 kB" counts a rating as three such
         rows (6 x 4 d bytes each: 4.6 kB for d = 64). Both as a share of the copy. "host" is what Python takes for a
         step: where that is the time of a step, the device waits.
profile  which kernels a step of BPR is made of
softmax  the default loss, by the recipe of a world of 10^5 users and 10^5 items, and with all items of a small one
mlp      the MLP scorer with logistic loss, sizes of NVIDIA's NCF (138,493 x 26,744, layers 256,256,128,64, dim 64, four
         negatives); a sample is a pair that is scored. bfloat16 products, as all training on CUDA here
run      `recsys train` from the file to the final metric, on a made-up world and on every --dataset

Times are medians over rounds of device events around several steps, after warm-up; batches are cut beforehand and take
turns, so many that no cache holds what they touch. --tune tries other tiles of the BPR kernels. Needs what the package
needs, but for MLflow, and Triton, which torch for CUDA brings.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
if not CUDA:
    os.environ["TRITON_INTERPRET"] = "1"  # for --small; before a kernel is made

from recsys_embed import (  # noqa: E402
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
    run_experiment,
)
from recsys_embed.config.recipes import (  # noqa: E402
    Size,
    resolve_settings,
)
from recsys_embed.data.user_items import UserItems  # noqa: E402
from recsys_embed.nets.losses import (  # noqa: E402
    LOSSES,
    Scores,
)
from recsys_embed.nets.negative_sampling import (  # noqa: E402
    SAMPLERS,
    KnownPositives,
    draw_negatives,
)
from recsys_embed.nets.two_tower import build_two_tower  # noqa: E402
from recsys_embed.training.autograd_step import (  # noqa: E402
    AutogradStep,
    Batch,
)
from recsys_embed.training.trainer import step_for  # noqa: E402

Step = Callable[[], object]
found: dict[str, Any] = {}


def wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


def timed(step: Step, rounds: int = 7, least: float = 0.05) -> dict[str, float]:
    """Return the seconds of a step, median over rounds, with the least and most; and what the host took to ask for it.

    A round is as many steps as take `least` seconds.
    """
    for _ in range(3):
        step()
    wait()
    begin = time.perf_counter()
    step()
    wait()
    steps = max(1, min(200, round(least / (time.perf_counter() - begin))))
    device, host = [], []
    for _ in range(rounds):
        begin = time.perf_counter()
        if CUDA:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
        for _ in range(steps):
            step()
        host.append((time.perf_counter() - begin) / steps)
        if CUDA:
            last.record()
            wait()
            device.append(first.elapsed_time(last) / 1000 / steps)
        else:
            device.append(host[-1])
    return {
        "seconds": statistics.median(device), "least": min(device), "most": max(device),
        "host": statistics.median(host), "steps": steps,
    }  # fmt: skip


class World:
    """Uniform ratings of users and items on the device, without ids."""

    def __init__(self, users: int, items: int, ratings: int, zipf: bool = False) -> None:
        random = np.random.default_rng(0)
        item = random.integers(0, items, ratings)
        if zipf:
            item = np.minimum(items - 1, (items ** random.random(ratings) - 1).astype(np.int64))
        pair = np.unique(random.integers(0, users, ratings) * items + item)
        pair = pair[random.permutation(len(pair))]
        user, item = pair // items, pair % items
        self.size = Size(users, items, len(pair))
        self.known = KnownPositives(UserItems.of(user, item, users), items, DEVICE)
        self.item_counts = torch.from_numpy(np.bincount(item, minlength=items)).to(DEVICE)
        ones = torch.ones(len(pair), device=DEVICE)
        self.columns = Batch(torch.from_numpy(user).to(DEVICE), torch.from_numpy(item).to(DEVICE), ones, ones)

    def batches(self, size: int) -> Iterator[Batch]:
        """Give batches for ever, as the loop cuts them."""
        while True:
            order = torch.randperm(self.size.ratings, device=DEVICE)
            for rows in order.split(size):
                if len(rows) == min(size, self.size.ratings):
                    yield Batch(*(c[rows] for c in self.columns))

    def by_users(self, users: int) -> Iterator[Batch]:
        """Give batches of all ratings of so many users."""
        order = self.columns.user.argsort(stable=True)
        start = self.known.indptr.tolist()
        while True:
            for drawn in torch.randperm(self.size.users).split(users):
                rows = torch.cat([order[start[u] : start[u + 1]] for u in drawn.tolist()])
                yield Batch(*(c[rows] for c in self.columns))


def ready(batches: Iterator[Batch], count: int) -> Iterator[Batch]:
    """Give these batches in turns, cut beforehand: how they are cut is not measured."""
    return cycle(list(islice(batches, count)))


@cache
def wide_world(small: bool) -> World:
    return World(60, 40, 600) if small else World(10**6, 10**6, 8_000_000)


def step_of(world: World, model: ModelConfig, train: TrainConfig, kind: str = "best") -> AutogradStep:
    """Return a step of ours: the "best" one, "kernels", by "autograd" with Adam's kernel, or "plain" without it."""
    model, train = resolve_settings(model, train, world.size)
    made = build_two_tower(model, world.size.users, world.size.items).to(DEVICE)
    chosen: type[AutogradStep] = AutogradStep
    if kind == "best":
        chosen = step_for(made, train)
    elif kind == "kernels":
        from recsys_embed.training.cuda_pairwise_step import CudaPairwiseStep

        chosen = CudaPairwiseStep
    generator = torch.Generator(DEVICE).manual_seed(0)
    step = chosen(made, train, world.known, world.item_counts, generator)
    step.optimizer.fused = kind != "plain"
    return step


def pairs_step(world: World, dim: int, kind: str, biases: bool = False, **given: Any) -> AutogradStep:
    train = TrainConfig(**{"loss": "bpr", "negatives": 1, "user_decay": 1.0, "item_decay": 1.0, "lr": 0.01, **given})
    return step_of(world, ModelConfig(dim=dim, biases=biases), train, kind)


def halve(step: AutogradStep) -> None:
    """Keep the optimizer's moments of the tables in bfloat16."""
    for tower in (step.model.users, step.model.items):
        state = step.optimizer._state(tower.table.weight)
        state.mean, state.square = state.mean.bfloat16(), state.square.bfloat16()


def copied(small: bool) -> None:
    """Measure the copy."""
    size = 1 << (18 if small else 29)
    a, b = torch.empty(size, device=DEVICE), torch.randn(size, device=DEVICE)
    took = timed(lambda: a.copy_(b), rounds=15)
    found["copy"] = {**took, "bytes_per_s": 2 * a.nbytes / took["seconds"]}
    print(f"copy of {a.nbytes / 1e9:.2f} GB: {found['copy']['bytes_per_s'] / 1e9:,.0f} GB/s read and written")


def by_definition(model: nn.Module, loss: str, batch: Batch, compared: Tensor) -> Tensor:
    """Set the sparse gradients of a model of tables with biases by autograd; return the loss."""
    known, rows = compared < 0, torch.where(compared < 0, -1 - compared, compared).long()
    at = lambda embedding, row: F.embedding(row, embedding.weight, sparse=True)  # noqa: E731
    users, items = model.users, model.items
    scores = (at(users.table, batch.user)[:, None] * at(items.table, rows)).sum(-1) + at(items.bias, rows)[..., 0]
    if loss == "logistic":
        scores = scores + at(users.bias, batch.user)
    scores = scores.masked_fill(known, -1e9)
    index = torch.arange(len(rows), device=DEVICE)
    value = LOSSES[loss].loss(Scores(scores[:, 0], scores[:, 1:], index, batch.value, batch.weight))
    value.backward()
    return value.detach()


def check(small: bool) -> None:
    """Compare three steps with plain torch on what they leave behind, and with themselves. Raises where they differ."""
    found["check"] = {}
    world = World(60, 40, 400, zipf=True) if small else World(20_000, 5000, 400_000, zipf=True)
    cases = [("bpr", 5), ("logistic", 5)] if small else [("bpr", 64), ("bpr", 128), ("logistic", 64), ("logistic", 50)]
    for loss, dim in cases:
        left = [compare(world, loss, dim, 50 if small else 60_000) for _ in range(2)]
        if not all(a.equal(b) for a, b in zip(*left, strict=True)):
            raise AssertionError(f"{loss}, dim {dim}: equal seeds gave other bits")
    print(f"kernels are the plain step: largest error {max(found['check'].values()):.1e}; equal seeds, equal bits")


def compare(world: World, loss: str, dim: int, size: int) -> list[Tensor]:
    """Take three steps by kernels and by the definitions; raise where they differ; return what the kernels left."""
    torch.manual_seed(0)
    step = pairs_step(world, dim, "kernels", True, loss=loss, negatives=3, bias_decay=0.3, lr=0.1)
    with torch.no_grad():
        for parameter in step.model.parameters():
            parameter.normal_(std=parameter.shape[1] ** -0.5)
    plain = copy.deepcopy(step.model)
    adam = AutogradStep(plain, step.config, world.known, world.item_counts, step.generator).optimizer
    adam.fused = False
    batches, draw = world.batches(size), step.draw_items
    for _ in range(3):
        batch = next(batches)
        drawn = draw(batch)
        step.draw_items = lambda _, drawn=drawn: drawn
        adam.zero_grad()
        expected = by_definition(plain, loss, batch, drawn.coded)
        torch.testing.assert_close(step(batch), expected, rtol=1e-4, atol=1e-5)
        adam.step()
    for name, theirs in plain.named_parameters():
        if (loss, name) == ("bpr", "users.bias.weight"):  # BPR says nothing of it
            continue
        ours = step.model.get_parameter(name)
        states = step.optimizer.state[ours], adam.state[theirs]
        of = {part: [getattr(s, part) for s in states] for part in ("mean", "square", "steps", "log_decay")}
        for part, (a, b) in {"weight": [ours.detach(), theirs.detach()], **of}.items():
            error = float((a.double() - b.double()).norm() / b.double().norm())
            found["check"][f"{loss} {dim} {name} {part}"] = error
            if not error < 1e-4:
                raise AssertionError(f"{loss}, dim {dim}: {part} of {name} is off by {error:.2e}")
    return [p.detach().clone() for p in step.model.parameters()]


def sparse_adam(world: World, dim: int, batches: Iterator[Batch]) -> Step:
    """Return a step of torch.optim.SparseAdam on BPR, as most tutorials have it; known negatives are drawn again."""
    u, v = (nn.Embedding(n, dim, sparse=True, device=DEVICE) for n in world.size[:2])
    optimizer = torch.optim.SparseAdam([u.weight, v.weight], lr=0.01)
    draw = negatives_of(world)

    def step() -> None:
        batch = next(batches)
        score = (u(batch.user) * (v(batch.item) - v(draw(batch)))).sum(1)
        optimizer.zero_grad()
        F.softplus(-score).mean().backward()
        optimizer.step()

    return step


def negatives_of(world: World) -> Callable[[Batch], Tensor]:
    sampler, generator = SAMPLERS["uniform"](world.item_counts), torch.Generator(DEVICE).manual_seed(0)
    every = torch.arange(world.size.items, device=DEVICE)
    return lambda batch: draw_negatives(sampler, world.known, every, batch.user, 1, generator, rounds=1)[0][:, 0]


def fbgemm(world: World, dim: int, kind: str, batches: Iterator[Batch]) -> Step:
    """Return a step of FBGEMM's fused tables: the optimizer runs in the backward pass, duplicates summed."""
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    place = (EmbeddingLocation.DEVICE, ComputeDevice.CUDA) if CUDA else (EmbeddingLocation.HOST, ComputeDevice.CPU)
    tables = [
        SplitTableBatchedEmbeddingBagsCodegen(
            [(rows, dim, *place)], optimizer=getattr(EmbOptimType, kind), learning_rate=0.01, eps=1e-8,
            pooling_mode=PoolingMode.NONE,
        )
        for rows in world.size[:2]
    ]  # fmt: skip
    for table in tables:
        table.init_embedding_weights_uniform(-0.1, 0.1)
    draw = negatives_of(world)

    def rows_of(table: nn.Module, rows: Tensor) -> Tensor:
        return table(rows, torch.arange(len(rows) + 1, device=DEVICE, dtype=rows.dtype))

    def step() -> None:
        batch = next(batches)
        both = rows_of(tables[1], torch.cat((batch.item, draw(batch))))
        good, bad = both.split(len(batch.user))
        F.softplus(-(rows_of(tables[0], batch.user) * (good - bad)).sum(1)).mean().backward()

    return step


def report_step(name: str, took: dict[str, float], dim: int, batch: int, distinct: int) -> None:
    rate, copy_rate = batch / took["seconds"], found["copy"]["bytes_per_s"]
    shares = {
        "share_must": 6 * 4 * dim * distinct / took["seconds"] / copy_rate,
        "share_4.6kB": 18 * 4 * dim * rate / copy_rate,
    }
    found["bpr"].append(
        {"name": name, "dim": dim, "batch": batch, "distinct": distinct, "rate": rate, **took, **shares}
    )
    print(
        f"{name:34} d {dim:4} batch {batch:9,} {rate / 1e6:9.2f} million/s  must {shares['share_must']:5.1%}"
        f"  4.6 kB {shares['share_4.6kB']:5.1%}  step {took['seconds'] * 1e3:7.3f} ms"
        f" ({took['least'] * 1e3:.3f} to {took['most'] * 1e3:.3f}), host {took['host'] * 1e3:.3f}",
        flush=True,
    )


def measure(name: str, dim: int, size: int, make: Callable[[Iterator[Batch]], Step], small: bool) -> None:
    """Measure a step of BPR, of which `make` makes one on batches of a size."""
    world = wide_world(small)
    batches = ready(world.batches(size), 4 if small else min(64, 4_194_304 // size))
    first = next(batches)
    negative = torch.randint(world.size.items, (size,), device=DEVICE)
    distinct = len(first.user.unique()) + len(torch.cat((first.item, negative)).unique())
    took = timed(make(batches), rounds=2 if small else 7)
    report_step(name, took, dim, size, distinct)


def ours(kind: str, dim: int, small: bool, half: bool = False, **given: Any) -> Callable[[Iterator[Batch]], Step]:
    def make(batches: Iterator[Batch]) -> Step:
        step = pairs_step(wide_world(small), dim, kind, **given)
        if half:
            halve(step)
        return lambda: step(next(batches))

    return make


def bpr(small: bool) -> None:
    """Measure the steps of BPR, ours and others'."""
    found["bpr"] = []
    world = wide_world(small)
    many = [16] if small else [65_536, 262_144, 1_048_576]
    middle = many[len(many) // 2]
    kinds = ("ADAM", "EXACT_ADAGRAD") if CUDA else ("EXACT_ADAGRAD",)
    if not importlib.util.find_spec("fbgemm_gpu"):
        print("FBGEMM is not installed")
        kinds = ()
    for dim in (16,) if small else (64, 16, 128):
        for size in many:
            measure("ours: kernels", dim, size, ours("kernels", dim, small), small)
        measure("ours: kernels, with biases", dim, middle, ours("kernels", dim, small, biases=True), small)
        measure("ours: kernels, bfloat16 moments", dim, middle, ours("kernels", dim, small, True), small)
        measure("ours: autograd, Adam's kernel", dim, middle, ours("autograd", dim, small), small)
        measure("ours: autograd, plain torch", dim, middle, ours("plain", dim, small), small)
        for size in many if dim == 64 else [middle]:
            measure("torch SparseAdam", dim, size, partial(sparse_adam, world, dim), small)
        for kind in kinds:
            measure(f"FBGEMM {kind}", dim, middle, partial(fbgemm, world, dim, kind), small)
    implicit_bpr(world, 64)


def tune(small: bool) -> None:
    """Try other tiles."""
    from recsys_embed.kernels import cuda_tiles

    size = 16 if small else 262_144
    before = cuda_tiles.TILE, cuda_tiles.WARPS
    for cuda_tiles.TILE in (512, 1024, 2048):
        for cuda_tiles.WARPS in (2, 4, 8):
            measure(
                f"ours: tile {cuda_tiles.TILE}, warps {cuda_tiles.WARPS}", 64, size, ours("kernels", 64, small), small
            )
    cuda_tiles.TILE, cuda_tiles.WARPS = before


def implicit_bpr(world: World, dim: int) -> None:
    """Measure an iteration of implicit's BPR on GPU: SGD in place, without moments."""
    if not importlib.util.find_spec("implicit"):
        print("implicit is not installed")
        return
    import implicit.gpu
    from scipy.sparse import csr_matrix

    if not implicit.gpu.HAS_CUDA:
        print("this implicit has no GPU")
        return
    from implicit.gpu.bpr import BayesianPersonalizedRanking

    user, item = (c.cpu().numpy() for c in world.columns[:2])
    matrix = csr_matrix((np.ones(len(user), np.float32), (user, item)), world.size[:2])
    rates = []
    for _ in range(3):
        seconds = []
        for iterations in (1, 6):  # the difference leaves out what is done once
            model = BayesianPersonalizedRanking(factors=dim - 1, iterations=iterations, random_state=0)
            begin = time.perf_counter()
            model.fit(matrix, show_progress=False)
            wait()
            seconds.append(time.perf_counter() - begin)
        rates.append(5 * len(user) / (seconds[1] - seconds[0]))
    found["bpr"].append({"name": "implicit GPU BPR", "dim": dim, "rate": statistics.median(rates), "rates": rates})
    print(f"implicit BPR on GPU, {dim} numbers: {statistics.median(rates) / 1e6:.2f} million/s")


def profile(small: bool) -> None:
    """List what the device does in steps of BPR."""
    world = wide_world(small)
    batches = ready(world.batches(16 if small else 262_144), 4 if small else 16)
    step = pairs_step(world, 64, "kernels")
    activity = torch.profiler.ProfilerActivity
    for _ in range(3):
        step(next(batches))
    steps = 1 if small else 10
    with torch.profiler.profile(activities=[activity.CUDA] if CUDA else [activity.CPU]) as profiled:
        for _ in range(steps):
            step(next(batches))
        wait()
    key = "self_device_time_total" if CUDA else "self_cpu_time_total"
    rows = sorted(profiled.key_averages(), key=lambda e: -getattr(e, key))[:16]
    found["profile"] = [{"name": e.key, "ms_a_step": getattr(e, key) / 1e3 / steps, "count": e.count} for e in rows]
    for row in found["profile"]:
        print(f"{row['ms_a_step']:9.4f} ms a step  {row['count']:4} calls  {row['name'][:90]}")


def softmax(small: bool) -> None:
    """Measure the default loss."""
    found["softmax"] = []
    worlds = [(60, 40, 600)] if small else [(100_000, 100_000, 5_000_000), (6040, 3700, 800_000)]
    for sizes in worlds:
        world = World(*sizes)
        model, train = resolve_settings(ModelConfig(), TrainConfig(), world.size)
        for users in [16] if small else [train.batch_users or 128, 1024, 4096]:
            step = step_of(world, model, replace(train, batch_users=users))
            cut = list(islice(world.by_users(users), 8))
            batches = cycle(cut)
            took = timed(lambda: step(next(batches)), rounds=2 if small else 7)  # noqa: B023
            rate = sum(len(b.user) for b in cut) / 8 / took["seconds"]
            found["softmax"].append({"sizes": sizes, "loss": train.loss, "users": users, "rate": rate, **took})
            print(
                f"{train.loss}, dim {model.dim}, {sizes[1]:,} items, {users:,} users a step: {rate / 1e6:.2f} million/s"
                f"  step {took['seconds'] * 1e3:.3f} ms, host {took['host'] * 1e3:.3f}",
                flush=True,
            )


def mlp(small: bool) -> None:
    """Measure the MLP scorer."""
    found["mlp"] = []
    world = World(60, 40, 600) if small else World(138_493, 26_744, 4_000_000)
    for size in [16] if small else [8192, 65_536, 209_715]:
        model = ModelConfig(dim=8 if small else 64, scorer="mlp", mlp_layers="16,8" if small else "256,256,128,64")
        train = TrainConfig(loss="logistic", negatives=4, batch_size=size)
        step, batches = step_of(world, model, train), ready(world.batches(size), 8)
        took = timed(lambda: step(next(batches)), rounds=2 if small else 7)  # noqa: B023
        rate = 5 * size / took["seconds"]
        found["mlp"].append({"batch": size, "rate": rate, **took})
        print(
            f"MLP, {size:,} ratings and {4 * size:,} negatives a step: {rate / 1e6:.2f} million samples/s"
            f"  step {took['seconds'] * 1e3:.3f} ms, host {took['host'] * 1e3:.3f}",
            flush=True,
        )


def runs(small: bool, datasets: list[str]) -> None:
    """Train from file to metric, as `recsys train` does."""
    found["run"] = []
    worlds = ["users=60,items=40,ratings=900"] if small else ["users=20000,items=5000,ratings=1000000"]
    losses: list[dict[str, Any]] = [{}, {"loss": "bpr"}]
    for name in [f"synthetic:{world}" for world in worlds] + datasets:
        for given in losses:
            with tempfile.TemporaryDirectory() as folder:
                begin = time.perf_counter()
                _, report = run_experiment(
                    DataConfig(dataset=name, offline=True),
                    train=TrainConfig(**given, **({"epochs": 2} if small else {})),
                    run=RunConfig(track=False, out=f"{folder}/model", baselines=False, map=False),
                )
                wait()
                seconds = time.perf_counter() - begin
            score = report["metrics"]["test"]["ndcg_at_10"]
            row = {"dataset": name, **given, "total": seconds, "ndcg_at_10": score, "parts": report["seconds"]}
            found["run"].append({**row, "epochs": report["epochs"]})
            parts = ", ".join(f"{part} {took:.2f}" for part, took in report["seconds"].items())
            print(f"{name} {given or 'default'}: {seconds:.2f} s ({parts}), NDCG@10 {score:.4f}", flush=True)


def machine() -> dict[str, Any]:
    facts: dict[str, Any] = {"torch": torch.__version__, "python": sys.version.split()[0], "cores": os.cpu_count()}
    if importlib.util.find_spec("triton"):
        import triton

        facts["triton"] = triton.__version__
    if CUDA:
        device = torch.cuda.get_device_properties(0)
        facts |= {"device": device.name, "memory": device.total_memory, "processors": device.multi_processor_count}
    return facts


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="sections, with commas between")
    parser.add_argument("--dataset", action="append", default=[], help="name of a data set or a ratings file")
    parser.add_argument("--small", action="store_true", help="tiny sizes: shows that the script runs, and nothing else")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if not CUDA and not args.small:
        print("There is no CUDA device here, so there is nothing to measure (--small: only that this script runs).")
        return 0
    if args.small:
        print("Tiny sizes: no number below says anything about speed.")
    found["machine"] = machine()
    print("  ".join(f"{k} {v}" for k, v in found["machine"].items()))
    sections: dict[str, Callable[[], None]] = {
        "copy": lambda: copied(args.small),
        "check": lambda: check(args.small),
        "bpr": lambda: bpr(args.small),
        **({"tune": lambda: tune(args.small)} if args.tune else {}),
        "profile": lambda: profile(args.small),
        "softmax": lambda: softmax(args.small),
        "mlp": lambda: mlp(args.small),
        "run": lambda: runs(args.small, args.dataset),
    }
    failed = {}
    for name, section in sections.items():
        if args.only and name not in ("copy", *args.only.split(",")):
            continue
        print(f"== {name}", flush=True)
        begin = time.perf_counter()
        try:
            section()
        except Exception as error:  # what else was asked for is worth having
            failed[name] = repr(error)
            traceback.print_exc()
        found.setdefault("took", {})[name] = time.perf_counter() - begin
        if CUDA:
            torch.cuda.empty_cache()
        if args.out:
            args.out.write_text(json.dumps({**found, "failed": failed}, indent=1))
    for name, error in failed.items():
        print(f"FAILED {name}: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
