"""Tables whose rows are spread over ranks: TorchRec plans who has which, and carries rows and gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from recsys_embed.distributed.backend import quietly
from recsys_embed.distributed.ranks import Ranks
from recsys_embed.errors import SettingError
from recsys_embed.nets.sparse_ops import empty_hugepage_table
from recsys_embed.nets.towers import TowerOutput
from recsys_embed.sources.memory import size_text

# FBGEMM carries rows with a multiple of so many numbers; those too many are zero.
_MULTIPLE = 4
_ROWS = "rows"


class ShardedTable(nn.Module):
    """A table [rows, dim] of which each rank has some rows, one after the other.

    weight: this rank's rows, [n, dim]; None if it has none. ranges: the first row and the end of each rank's.
    """

    def __init__(self, exchange: nn.Module, ranges: list[tuple[int, int]], shape: tuple[int, int]) -> None:
        super().__init__()
        self.ranges, self.rows, self.dim = ranges, *shape
        # Not as a submodule: TorchRec shows the same rows as parameters of its own.
        self.exchange = (exchange,)
        holders = [lookup._emb_modules for lookup in exchange._lookups if len(lookup._emb_modules)]  # type: ignore[union-attr]
        self.weight: nn.Parameter | None = None
        if holders:
            (holder,) = holders
            (rows,) = holder[0].split_embedding_weights()
            own = rows.detach() if rows.shape[1] == self.dim else empty_hugepage_table(rows[:, : self.dim])
            self.weight = nn.Parameter(own)
            holder[0] = _Rows(self.weight)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the vectors [n, dim] of rows [n], wherever they are."""
        from torchrec import KeyedJaggedTensor

        request = KeyedJaggedTensor(keys=[_ROWS], values=rows, lengths=torch.ones_like(rows))
        return self.exchange[0](request)[_ROWS].values()[:, : self.dim]

    @torch.no_grad()
    def scatter(self, ranks: Ranks, whole: Tensor | None) -> None:
        """Take this rank's rows from rank 0, which has all of them, [rows, dim]."""
        ranks.scatter(whole, self.ranges, self._part())

    @torch.no_grad()
    def gather(self, ranks: Ranks, out: Tensor | None) -> None:
        """Give rank 0 the rows of all ranks, [rows, dim]."""
        ranks.gather(self._part(), self.ranges, out)

    def _part(self) -> Tensor:
        return torch.empty(0, self.dim) if self.weight is None else self.weight.detach()


class _Rows(nn.Module):
    """Reads rows of a part of a table, in place of FBGEMM's module, so that they are updated by `RowLazyAdam`.

    FBGEMM has no Adam on CPU, and its Adam on CUDA counts the steps of the table, not of the row: settings would mean
    something else on every device.
    """

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, features: Any) -> Tensor:
        """Return rows as FBGEMM carries them, as often as they were asked for."""
        vectors, dim = F.embedding(features.values(), self.weight, sparse=True), self.weight.shape[1]
        return vectors if dim == _width(dim) else F.pad(vectors, (0, _width(dim) - dim))


class ShardedTower(nn.Module):
    """A tower of ids (see `IdTower`) whose tables are spread over ranks. first: what its rows are counted from."""

    def __init__(self, table: ShardedTable, bias: ShardedTable | None, first: int = 0) -> None:
        super().__init__()
        self.table, self.bias, self.first, self.dim = table, bias, first, table.dim

    def forward(self, rows: Tensor) -> TowerOutput:
        """Return the vectors [n, dim] and biases [n] of rows [n]. All ranks call it together."""
        rows = rows + self.first
        vectors = self.table(rows)
        return TowerOutput(vectors, vectors.new_zeros(len(rows)) if self.bias is None else self.bias(rows)[:, 0])


@quietly()
def shard_tables(
    shapes: dict[str, tuple[int, int]], ranks: Ranks, sharding: str, memory: int
) -> dict[str, ShardedTable]:
    """Return tables of these shapes, by name, spread over the ranks.

    sharding: "row-wise", "table-wise", or "auto", which leaves the choice to TorchRec's planner. memory: bytes of each
    rank. Raises SettingError if the tables do not fit.
    """
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from torchrec import EmbeddingCollection, EmbeddingConfig
    from torchrec.distributed.embedding import EmbeddingCollectionSharder
    from torchrec.distributed.embedding_types import EmbeddingComputeKernel
    from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
    from torchrec.distributed.planner.types import PlannerError
    from torchrec.distributed.types import ShardingEnv

    holder, sharder = nn.Module(), EmbeddingCollectionSharder({"optimizer": EmbOptimType.EXACT_SGD})
    for name, (rows, dim) in shapes.items():
        config = EmbeddingConfig(name=name, num_embeddings=rows, embedding_dim=_width(dim), feature_names=[_ROWS])
        setattr(holder, name, EmbeddingCollection([config], device=torch.device("meta")))
    # Not column-wise: the steps of a row are counted once.
    types = ["row_wise", "table_wise"] if sharding == "auto" else [sharding.replace("-", "_")]
    kernels = [EmbeddingComputeKernel.FUSED.value]
    constraints = {name: ParameterConstraints(sharding_types=types, compute_kernels=kernels) for name in shapes}
    topology = Topology(
        world_size=ranks.size,
        compute_device=ranks.device.type,
        local_world_size=ranks.local[1],
        hbm_cap=memory if ranks.device.type == "cuda" else None,
        ddr_cap=memory if ranks.device.type == "cpu" else None,
    )
    try:
        plan = EmbeddingShardingPlanner(topology=topology, constraints=constraints).plan(holder, [sharder])
    except PlannerError:
        needed = sum(4 * rows * _width(dim) for rows, dim in shapes.values())
        raise SettingError(
            f"the tables take {size_text(needed)}, more than {ranks.size} ranks of {size_text(memory)} hold beside "
            "their moments: give it more ranks, or a smaller --dim"
        ) from None
    env, tables = ShardingEnv.from_process_group(dist.group.WORLD), {}
    for name, shape in shapes.items():
        planned = plan.get_plan_for_module(name)
        shards = planned[name].sharding_spec.shards
        exchange = sharder.shard(getattr(holder, name), planned, env, ranks.device)
        tables[name] = ShardedTable(exchange, _ranges(shards, ranks.size), shape)
    return tables


def _ranges(shards: Any, size: int) -> list[tuple[int, int]]:
    ranges = [(0, 0)] * size
    for shard in shards:
        start = shard.shard_offsets[0]
        ranges[shard.placement.rank()] = (start, start + shard.shard_sizes[0])
    return ranges


def _width(dim: int) -> int:
    return -(-dim // _MULTIPLE) * _MULTIPLE
