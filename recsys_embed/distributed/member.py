"""Member: a rank's part of a training."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from recsys_embed.config.settings import ModelConfig, TrainConfig
from recsys_embed.data.user_items import UserItems
from recsys_embed.distributed.ranks import Ranks
from recsys_embed.distributed.shards import CheckpointException, load_shards, save_shards
from recsys_embed.distributed.tables import ShardedTable, ShardedTower, shard_tables
from recsys_embed.nets.negative_sampling import KnownPositives
from recsys_embed.nets.scorers import SCORERS
from recsys_embed.nets.two_tower import TwoTowerModel
from recsys_embed.training.autograd_step import AutogradStep, Batch
from recsys_embed.training.batches import batch_drawer
from recsys_embed.training.snapshot import generator_arrays, load_generators
from recsys_embed.training.trainer import cosine


class Whole(NamedTuple):
    """What rank 0 has and the others take a part of. columns: all ratings, ascending by user."""

    net: TwoTowerModel
    columns: Batch
    known: UserItems
    item_counts: Tensor


class Leading(NamedTuple):
    """What rank 0 does in an epoch. after: each step. save: a checkpoint. due: whether it wants one."""

    after: Callable[[int], None]
    save: Callable[[int, Callable[[], Tensor]], None]
    due: Callable[[], bool]


class Member:
    """A rank's part of a training: some rows of the tables, and the ratings of some users."""

    def __init__(self, ranks: Ranks, model: TwoTowerModel, step: _RankStep, columns: Batch, steps: int) -> None:
        self.ranks, self.model, self.step, self.columns, self.steps = ranks, model, step, columns, steps
        self.config = step.config
        self.draw = batch_drawer(columns, step.config, step.generator, steps=steps)
        self.drawn = generator_arrays(step)
        self.losses = torch.zeros(steps, device=ranks.device)

    @classmethod
    def set_up(cls, ranks: Ranks, message: dict[str, Any], whole: Whole | None = None) -> Member:
        """Take part in a fit, as the message says. whole: what rank 0 has."""
        settings, config = ModelConfig(**message["settings"]), TrainConfig(**message["config"])
        columns, known = _part_of_ratings(ranks, message, whole)
        counts = ranks.from_leader(whole and whole.item_counts, [message["sizes"][1]], torch.int64)
        model = _sharded_model(ranks, message, settings, whole and whole.net)
        device = ranks.device
        generator = torch.Generator(device).manual_seed(config.seed + _SEEDS * ranks.rank)
        positives = KnownPositives(known, message["sizes"][1], device)
        step = _RankStep(ranks, model, config, positives, counts.to(device), generator)
        return cls(ranks, model, step, Batch(*(column.to(device) for column in columns)), message["steps"])

    def do(self, message: dict[str, Any]) -> None:
        """Do what rank 0 says."""
        op = message["op"]
        if op == "epoch":
            self.train(message)
        elif op == "gather":
            self.gather()
        elif op == "save":
            with contextlib.suppress(OSError, CheckpointException):  # rank 0 hears of it, and says so
                self.mean_losses()
                self.save(Path(message["folder"]))
        else:
            self._load(message)

    def train(self, message: dict[str, Any], leading: Leading | None = None) -> tuple[Tensor, int]:
        """Pass over the rank's ratings, or the rest; return the mean losses and the number of ratings of all ranks."""
        first, (lr, total, _) = message["first"], message["curve"]
        batches = self._batches(first)
        lengths = torch.tensor([len(batches[n]) for n in range(len(batches))])
        everybody = self.ranks.total(lengths)
        # The mean over ranks of the losses, which are means over their batches, is then that over the whole batch.
        scale = (lengths * self.ranks.size / everybody).tolist()
        self.losses.zero_()
        with self._threads():
            for number in range(first, self.steps):
                self.step.optimizer.lr = cosine(lr, message["done"] + number / self.steps, total)
                batch = Batch(*(column[batches[number]] for column in self.columns))
                self.losses[number] = self.step(batch._replace(weight=batch.weight * scale[number]))
                if leading is not None:
                    leading.after(number)
                every = message["sync_every"]
                due = every and ((number + 1) % every == 0 or number + 1 == self.steps)
                if due and self.ranks.agree(int(leading is not None and leading.due())):
                    if leading is None:
                        self.do(self.ranks.hear())
                    else:
                        leading.save(number + 1, self.mean_losses)
        return self.mean_losses(), int(everybody[first:].sum())

    def mean_losses(self) -> Tensor:
        """Return the mean losses over all ranks, of each batch, [steps]; 0 for those that are not done."""
        return self.ranks.total(self.losses.clone()) / self.ranks.size

    def gather(self, net: TwoTowerModel | None = None) -> None:
        """Bring rank 0's net up to date."""
        self.step.flush()
        for name, table in _tables_of(self.model).items():
            table.gather(self.ranks, None if net is None else _weight_of(net, name).data)
        if net is not None:
            net.scorer.load_state_dict(self.model.scorer.state_dict())

    def save(self, folder: Path) -> None:
        """Write the rank's part of a checkpoint."""
        save_shards(folder, self.model, self.step.optimizer, self._own(), self.ranks)

    def _load(self, message: dict[str, Any]) -> None:
        """Read the rank's part of a checkpoint; random numbers go on where the ranks are as many as they were."""
        same = message["ranks"] == self.ranks.size
        own = self._own() if same else {}
        load_shards(Path(message["folder"]), self.model, self.step.optimizer, own, self.ranks)
        for group, decay in zip(self.step.optimizer.groups, message["log_decay"], strict=True):
            group.log_decay = decay
        if same:
            now, self.drawn = (
                {
                    name.removeprefix(f"{kind}.{self.ranks.rank}."): value.numpy()
                    for name, value in own.items()
                    if name.startswith(kind)
                }
                for kind in ("now", "drawn")
            )
            load_generators(self.step, now)
        else:
            self.step.generator.manual_seed(self.config.seed + _SEEDS * (self.ranks.rank + message["done"] + 1))
            self.drawn = generator_arrays(self.step)

    def _own(self) -> dict[str, Tensor]:
        """Return this rank's generators, now and as they were when the epoch began."""
        kinds = {"now": generator_arrays(self.step), "drawn": self.drawn}
        return {
            f"{kind}.{self.ranks.rank}.{name}": torch.from_numpy(value.copy())
            for kind, arrays in kinds.items()
            for name, value in arrays.items()
        }

    def _batches(self, first: int) -> Any:
        """Return the batches of the epoch: drawn now, or again if the first are done."""
        now = generator_arrays(self.step)
        if not first:
            self.drawn = now
            return self.draw()
        load_generators(self.step, self.drawn)
        batches = self.draw()
        load_generators(self.step, now)
        return batches

    @contextlib.contextmanager
    def _threads(self) -> Iterator[None]:
        """Share the cores with the other ranks of this machine."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.config.threads or max(1, (os.cpu_count() or 1) // self.ranks.local[1]))
        try:
            yield
        finally:
            torch.set_num_threads(before)


# Generators of ranks have seeds so far apart.
_SEEDS = 1_000_003


class _RankStep(AutogradStep):
    """`AutogradStep` on a rank's part of a batch: gradients are means over ranks, as TorchRec's are already."""

    def __init__(self, ranks: Ranks, model: TwoTowerModel, *args: Any) -> None:
        super().__init__(model, *args)
        tables = {id(table.weight) for table in _tables_of(model).values()}
        self.ranks, self.dense = ranks, [p for p in model.parameters() if id(p) not in tables]

    def backward(self, batch: Batch) -> Tensor:
        """Set the gradient of every parameter that the batch depends on; return the loss of this rank, detached."""
        loss = super().backward(batch)
        for parameter in self.dense:
            if parameter.grad is not None:
                parameter.grad.copy_(self.ranks.total(parameter.grad) / self.ranks.size)
        return loss


def _part_of_ratings(ranks: Ranks, message: dict[str, Any], whole: Whole | None) -> tuple[Batch, UserItems]:
    """Return a rank's ratings, whose users are counted from its first one, and what these users know."""
    rank, cuts, rows, known = ranks.rank, message["cuts"], message["rows"], message["known"]

    def part(array: Tensor | None, edges: list[int], dtype: torch.dtype, more: int = 0) -> Tensor:
        ranges = [(a, b + more) for a, b in pairwise(edges)]
        out = torch.empty(ranges[rank][1] - ranges[rank][0], dtype=dtype)
        ranks.scatter(array, ranges, out)
        return out

    kinds = torch.int64, torch.int64, torch.float32, torch.float32
    columns = whole.columns if whole else (None,) * 4
    batch = Batch(
        *(part(None if c is None else c.to(kind), rows, kind) for c, kind in zip(columns, kinds, strict=True))
    )
    indptr, indices = (None, None) if whole is None else (_tensor(whole.known.indptr), _tensor(whole.known.indices))
    own = part(indptr, cuts, torch.int64, 1)
    items = part(indices, known, torch.int64)
    return batch._replace(user=batch.user - cuts[rank]), UserItems((own - own[0]).numpy(), items.numpy())


def _sharded_model(
    ranks: Ranks, message: dict[str, Any], settings: ModelConfig, net: TwoTowerModel | None
) -> TwoTowerModel:
    """Return the net with tables that are spread over the ranks, with the weights of rank 0's."""
    shapes: dict[str, tuple[int, int]] = {}
    config = TrainConfig(**message["config"])
    for name, rows, biases in zip(("users", "items"), message["sizes"], message["biases"], strict=True):
        shapes |= {f"{name}_table": (rows, settings.dim or 1)} | ({f"{name}_bias": (rows, 1)} if biases else {})
    tables = shard_tables(shapes, ranks, config.sharding, message["memory"])
    first = {"users": message["cuts"][ranks.rank], "items": 0}
    towers = {n: ShardedTower(tables[f"{n}_table"], tables.get(f"{n}_bias"), first[n]) for n in first}
    model = TwoTowerModel(scorer=SCORERS[settings.scorer](settings), **towers)  # type: ignore[arg-type]
    for name, table in _tables_of(model).items():
        table.scatter(ranks, None if net is None else _weight_of(net, name).detach())
    own = net.scorer.state_dict() if net is not None else {}
    model.scorer.load_state_dict(
        {n: ranks.from_leader(own.get(n), v.shape, v.dtype) for n, v in model.scorer.state_dict().items()}
    )
    model.offset.fill_(message["offset"])
    return model.to(ranks.device)


def _tables_of(model: nn.Module) -> dict[str, ShardedTable]:
    return {name: module for name, module in model.named_modules() if isinstance(module, ShardedTable)}


def _weight_of(net: TwoTowerModel, name: str) -> nn.Parameter:
    """Return the table of a net of one process that has this name in the sharded one."""
    weight: nn.Parameter = net.get_submodule(name).weight  # type: ignore[assignment]
    return weight


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.asarray(array).astype(np.int64, copy=False))
