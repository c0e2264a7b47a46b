"""Row-lazy Adam for embedding tables: its definition in plain torch, and calls of the kernels that do the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys_embed.kernels import available, triton_available
from recsys_embed.nets.sparse_ops import empty_hugepage_table

if TYPE_CHECKING:
    from recsys_embed.kernels.cuda_adam import Table


@dataclass
class Group:
    """Parameters that share a weight decay and a learning-rate scale.

    lr_scale: their learning rate is this times the optimizer's. rowwise: keep one second moment for each row, that of
    the mean square of its gradient, so that moments take half the memory. log_decay: the sum over all steps of
    log(1 - lr * lr_scale * weight_decay).
    """

    parameters: list[nn.Parameter]
    weight_decay: float = 0.0
    lr_scale: float = 1.0
    rowwise: bool = False
    log_decay: float = 0.0


@dataclass
class _State:
    """The optimizer state of a table: two moments, and each row's number of steps and log decay applied so far."""

    mean: Tensor
    square: Tensor
    steps: Tensor
    log_decay: Tensor


@dataclass
class RowLazyAdam:
    """Adam (Kingma and Ba, ICLR 2015) with decoupled weight decay (Loshchilov and Hutter, ICLR 2019), row by row.

    Only the rows in a step's gradient move, together with their two moments:

    * the bias correction counts each row's own steps, so the first step of a rarely seen row is lr and no more;
    * every step shrinks every row by 1 - lr * weight_decay. A row that was in no gradient for n steps is shrunk n times
      when it is next updated, or by `flush()`, which must be called before the table is read;
    * entries of one row in a gradient are summed first.

    When every step touches every row, it equals torch.optim.AdamW to rounding, so it serves dense weights too: a dense
    gradient touches all rows. A row is an index of the first dimension. lr may change between steps.

    fused: matrices of float32 are updated by a kernel that equals `_update` to rounding and makes one pass over the
    rows: on CPU (kernels/adam.py) and on CUDA (kernels/cuda_adam.py).

    (It is not a torch.optim.Optimizer: that class alone makes torch import its compiler, which takes seconds.)
    """

    groups: list[Group]
    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    fused: bool = True
    state: dict[nn.Parameter, _State] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for group in self.groups:
            lr = self.lr * group.lr_scale
            if not 0 <= lr * group.weight_decay < 1:
                raise ValueError(f"lr * weight_decay must be from 0 to below 1, got {lr} * {group.weight_decay}")

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    def accrue_decay(self) -> None:
        """Add this step's weight decay to what all rows owe; `step` does so, callers of kernels must do it first."""
        for group in self.groups:
            group.log_decay += math.log1p(-self.lr * group.lr_scale * group.weight_decay)

    @torch.no_grad()
    def step(self) -> None:
        """Update the rows in the gradients."""
        self.accrue_decay()
        for group in self.groups:
            for table in group.parameters:
                if table.grad is None:
                    continue
                if table.grad.layout == torch.sparse_coo and self._uses_cuda_kernel(table):
                    # the kernel sums duplicate rows, and never waits for the device
                    self._update(table, table.grad._indices()[0], table.grad._values(), group)
                elif table.grad.layout == torch.sparse_coo:
                    gradient = coalesced(table.grad)
                    self._update(table, gradient.indices()[0], gradient.values(), group)
                else:
                    self._update(table, slice(None), table.grad, group)

    def kernel_arguments(self, table: nn.Parameter) -> tuple[Any, Any, Any]:
        """Return a table as CPU kernels take it (kernels/adam.py): tables, row_state, hyper. See `fits_cpu_kernels`."""
        state, group = self.state_of(table), self._group(table)
        tables = tuple(t.detach().numpy() for t in (table, state.mean, state.square))
        row_state = tuple(column.view(-1).numpy() for column in (state.steps, state.log_decay))
        return tables, row_state, (self.lr * group.lr_scale, *self.betas, self.eps, group.log_decay)

    def _update(self, table: nn.Parameter, rows: Tensor | slice, gradient: Tensor, group: Group) -> None:
        if self.fused and fits_cpu_kernels(table) and gradient.dtype == table.dtype and available("adam"):
            from recsys_embed.kernels.adam import adam
            from recsys_embed.kernels.compiled import parallel_for

            every = torch.arange(len(table)) if isinstance(rows, slice) else rows
            arguments = every.contiguous().numpy(), gradient.contiguous().numpy()
            parallel_for(len(every), adam, *self.kernel_arguments(table), *arguments)
            return
        if self._uses_cuda_kernel(table):
            from recsys_embed.kernels.cuda_adam import AdamConstants, adam
            from recsys_embed.kernels.cuda_tiles import Sorted

            entries = None if isinstance(rows, slice) else Sorted(*rows.sort(stable=True))
            adam(self.cuda_table(table), entries, gradient.contiguous(), AdamConstants(*self.betas, self.eps))
            return
        beta1, beta2 = self.betas
        state = self.state_of(table)
        mean = state.mean[rows].lerp_(gradient, 1 - beta1)
        squared = gradient.square()
        if group.rowwise:
            squared = squared.flatten(1).mean(1).view(state.square[rows].shape)
        square = state.square[rows].lerp_(squared, 1 - beta2)
        steps = state.steps[rows] + 1
        weights = table[rows]
        if group.log_decay:
            weights = weights * torch.exp(group.log_decay - state.log_decay[rows]).to(weights.dtype)
            state.log_decay[rows] = group.log_decay
        size = (square / (1 - beta2**steps)).sqrt_().add_(self.eps)
        table[rows] = weights - self.lr * group.lr_scale * (mean / (1 - beta1**steps)) / size
        state.mean[rows], state.square[rows], state.steps[rows] = mean, square, steps

    def _uses_cuda_kernel(self, table: nn.Parameter) -> bool:
        if not self.fused or table.grad is None or table.grad.dtype != table.dtype or self._group(table).rowwise:
            return False
        return fits_cuda_kernels(table)

    def cuda_table(self, table: nn.Parameter) -> Table:
        """Return a table as CUDA kernels take it (kernels/cuda_adam.py). See `fits_cuda_kernels`."""
        from recsys_embed.kernels.cuda_adam import Table

        state, group = self.state_of(table), self._group(table)
        columns = state.steps.view(-1), state.log_decay.view(-1)
        return Table(table.detach(), state.mean, state.square, *columns, self.lr * group.lr_scale, group.log_decay)

    def _group(self, table: nn.Parameter) -> Group:
        return next(group for group in self.groups if any(one is table for one in group.parameters))

    def state_of(self, table: nn.Parameter) -> _State:
        """Return the state of a table, which is zero before its first step."""
        if table not in self.state:
            column = (len(table), *[1] * (table.ndim - 1))
            if self._group(table).rowwise:
                square = torch.zeros(column, device=table.device)
            else:
                square = empty_hugepage_table(table).zero_()
            self.state[table] = _State(
                mean=empty_hugepage_table(table).zero_(),
                square=square,
                steps=torch.zeros(column, device=table.device),
                # Doubles: a sum of small logarithms over many steps must keep its last digits.
                log_decay=torch.zeros(column, device=table.device, dtype=torch.float64),
            )
        return self.state[table]

    def state_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state, by the position of the parameter, with the decay of the groups, to be copied or saved."""
        arrays = {"log_decay": np.array([group.log_decay for group in self.groups])}
        for n, table in enumerate(self._tables()):
            if state := self.state.get(table):
                arrays |= {f"{n}.{name}": value.cpu().numpy() for name, value in vars(state).items()}
        return arrays

    def load_state_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore what `state_arrays` returned."""
        for group, log_decay in zip(self.groups, arrays["log_decay"].tolist(), strict=True):
            group.log_decay = log_decay
        for n, table in enumerate(self._tables()):
            if f"{n}.mean" in arrays:
                for name, value in vars(self.state_of(table)).items():
                    value.copy_(torch.from_numpy(arrays[f"{n}.{name}"].copy()))

    def _tables(self) -> list[nn.Parameter]:
        return [table for group in self.groups for table in group.parameters]

    @torch.no_grad()
    def flush(self) -> None:
        """Apply the weight decay that rows still owe; without this, reading a table gives outdated rows."""
        for group in self.groups:
            for table in group.parameters if group.log_decay else ():
                state = self.state_of(table)
                table.mul_(torch.exp(group.log_decay - state.log_decay).to(table.dtype))
                state.log_decay.fill_(group.log_decay)


def fits_cpu_kernels(table: Tensor) -> bool:
    """Return whether CPU kernels can work on a table in place: a C-contiguous float32 matrix on CPU."""
    return table.device.type == "cpu" and table.ndim == 2 and table.dtype == torch.float32 and table.is_contiguous()


def fits_cuda_kernels(table: Tensor) -> bool:
    """Return whether CUDA kernels can: a C-contiguous float32 matrix on CUDA with rows of up to 4,096 numbers."""
    fits = table.ndim == 2 and table.dtype == torch.float32 and table.is_contiguous() and table.shape[1] <= 4096
    return table.device.type == "cuda" and fits and triton_available()


def coalesced(gradient: Tensor) -> Tensor:
    """Return a sparse gradient with each row once: itself, without sorting, if its rows ascend (nets/sparse_ops.py).

    Autograd drops the mark that a gradient is coalesced. On CUDA checking would wait for the device.
    """
    rows = gradient._indices()[0]
    if not rows.is_cuda and not gradient.is_coalesced() and bool((rows[1:] > rows[:-1]).all()):
        gradient._coalesced_(True)
    return gradient.coalesce()


@torch.no_grad()
def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float) -> float:
    """Scale all gradients, sparse ones too, so that their joint norm is at most `max_norm`; return it as it was."""
    values = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.layout == torch.sparse_coo:
            parameter.grad = coalesced(parameter.grad)
            values.append(parameter.grad.values())
        else:
            values.append(parameter.grad)
    norm = float(torch.stack([v.norm() for v in values]).norm()) if values else 0.0
    if norm > max_norm:
        for parameter in parameters:
            if parameter.grad is not None:  # not in place: the gradients of two parameters may be one tensor
                parameter.grad = parameter.grad * (max_norm / norm)
    return norm
