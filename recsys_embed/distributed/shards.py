"""Checkpoints of tables that are spread over ranks: torch's distributed format, in safetensors, a file of each rank.

They load on any number of ranks. No file is a pickle, and none is read before its digest was compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from recsys_embed.distributed.backend import quietly
from recsys_embed.distributed.ranks import Ranks
from recsys_embed.distributed.tables import ShardedTable
from recsys_embed.storage.atomic import sync
from recsys_embed.training.optim import RowLazyAdam

__all__ = ["CheckpointException", "load_shards", "save_shards"]


def save_shards(folder: Path, model: nn.Module, optimizer: RowLazyAdam, own: dict[str, Tensor], ranks: Ranks) -> None:
    """Write the weights and the state of the optimizer, and each rank's own arrays, into a folder; all ranks together.

    Raises an OSError or a CheckpointException on all ranks if one of them cannot write.
    """
    with quietly():
        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        save(_state_of(model, optimizer, ranks) | own, storage_writer=writer)
    for file in folder.glob(f"shard-{ranks.rank + 1:05}-*"):
        sync(file)
    dist.barrier()


def load_shards(folder: Path, model: nn.Module, optimizer: RowLazyAdam, own: dict[str, Tensor], ranks: Ranks) -> None:
    """Read what `save_shards` wrote, perhaps on other ranks, in place. own: the arrays that this rank reads besides."""
    with quietly():
        load(_state_of(model, optimizer, ranks) | own, storage_reader=HuggingFaceStorageReader(str(folder)))


def _state_of(model: nn.Module, optimizer: RowLazyAdam, ranks: Ranks) -> dict[str, Any]:
    """Return the weights and moments by name: those of tables as parts of wholes, others as they are."""
    rowwise = any(group.rowwise for group in optimizer.groups)
    state: dict[str, Any] = {}
    tables = {f"{name}.": module for name, module in model.named_modules() if isinstance(module, ShardedTable)}
    for prefix, table in tables.items():
        shapes: dict[str, Any] = {"weight": table.dim, "mean": table.dim, "steps": 1, "log_decay": 1}
        shapes["square"] = 1 if rowwise and ".bias." not in prefix else table.dim
        own: dict[str, Tensor] = {}
        if table.weight is not None:
            own = {"weight": table.weight.detach(), **vars(optimizer.state_of(table.weight))}
        for name, width in shapes.items():
            state[prefix + name] = _whole(own.get(name), table, width, ranks)
    for name, parameter in model.named_parameters():
        if not any(name.startswith(prefix) for prefix in tables):
            state[name] = parameter.detach()
            state |= {f"{name}.{n}": value for n, value in vars(optimizer.state_of(parameter)).items()}
    return state


def _whole(part: Tensor | None, table: ShardedTable, width: int, ranks: Ranks) -> Any:
    """Return a rank's rows as a part of the whole table."""
    from torch.distributed._shard.metadata import ShardMetadata
    from torch.distributed._shard.sharded_tensor.api import ShardedTensor
    from torch.distributed._shard.sharded_tensor.shard import Shard

    start, end = table.ranges[ranks.rank]
    where = f"rank:{ranks.rank}/{ranks.device}"
    shards = [] if part is None else [Shard(part, ShardMetadata([start, 0], [end - start, width], where))]
    return ShardedTensor._init_from_local_shards(shards, (table.rows, width))
