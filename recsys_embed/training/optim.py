"""Row-lazy Adam for embedding tables: what it means, in plain torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from recsys_embed.kernels import available, triton_available
from recsys_embed.nets.sparse_ops import roomy

if TYPE_CHECKING:
    from recsys_embed.kernels.cuda import Table


@dataclass
class Group:
    """Parameters that share a weight decay and a pace.

    pace: their learning rate is this times the optimizer's. by_row: the second moment is one number a row, that of the
    mean square of its gradient, so that moments take half of the memory. shrunk: the sum over all steps of
    log(1 - lr * pace * weight_decay).
    """

    parameters: list[nn.Parameter]
    weight_decay: float = 0.0
    pace: float = 1.0
    by_row: bool = False
    shrunk: float = 0.0


@dataclass
class _State:
    """What is remembered of a table: two moments, and for each row its steps and its shrinkage so far."""

    mean: Tensor
    square: Tensor
    count: Tensor
    shrunk: Tensor


@dataclass
class RowLazyAdam:
    """Adam (Kingma and Ba, ICLR 2015) with decoupled weight decay (Loshchilov and Hutter, ICLR 2019), row by row.

    Only the rows of a step's gradient move, and with them their two moments:

    * the bias correction counts a row's own steps, so a rarely seen row makes a first step of lr and no more;
    * every step shrinks every row by 1 - lr * weight_decay. A row that was away for n steps is shrunk n times
      when it is next touched, or by `flush()`, which must be called before the table is read;
    * rows that stand twice in a gradient are summed first.

    With every row touched at every step it is torch.optim.AdamW to rounding, and so it serves dense weights too:
    a dense gradient touches all rows. A row is an index of the first dimension. lr may change between steps.

    fused: matrices of float32 are moved by a kernel that says the same as `_move`, to rounding, in one pass over the
    rows: on a processor (kernels/adam.py), and on CUDA (kernels/cuda.py).

    (It is no torch.optim.Optimizer: that class alone makes torch import its compiler, seconds before the first step.)
    """

    groups: list[Group]
    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    fused: bool = True
    state: dict[nn.Parameter, _State] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for group in self.groups:
            lr = self.lr * group.pace
            if not 0 <= lr * group.weight_decay < 1:
                raise ValueError(f"lr * weight_decay must be from 0 to below 1, got {lr} * {group.weight_decay}")

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    def decay(self) -> None:
        """Begin a step: every row owes its weight decay once more. `step` does it; who moves rows by kernels must."""
        for group in self.groups:
            group.shrunk += math.log1p(-self.lr * group.pace * group.weight_decay)

    @torch.no_grad()
    def step(self) -> None:
        """Move the rows that the gradients name."""
        self.decay()
        for group in self.groups:
            for table in group.parameters:
                if table.grad is None:
                    continue
                if table.grad.layout == torch.sparse_coo and self._by_cuda(table):  # it sums, and never waits
                    self._move(table, table.grad._indices()[0], table.grad._values(), group)
                elif table.grad.layout == torch.sparse_coo:
                    summed = summed_rows(table.grad)
                    self._move(table, summed.indices()[0], summed.values(), group)
                else:
                    self._move(table, slice(None), table.grad, group)

    def parts(self, table: nn.Parameter) -> tuple[Any, Any, Any]:
        """Return what kernels move a table by (kernels/adam.py): tables, counts and rate. See `takes`."""
        state, group = self._state(table), self._group(table)
        tables = tuple(t.detach().numpy() for t in (table, state.mean, state.square))
        counts = tuple(c.view(-1).numpy() for c in (state.count, state.shrunk))
        return tables, counts, (self.lr * group.pace, *self.betas, self.eps, group.shrunk)

    def _move(self, table: nn.Parameter, rows: Tensor | slice, gradient: Tensor, group: Group) -> None:
        if self.fused and takes(table) and gradient.dtype == table.dtype and available("adam"):
            from recsys_embed.kernels.adam import adam
            from recsys_embed.kernels.compiled import over

            every = torch.arange(len(table)) if isinstance(rows, slice) else rows
            over(len(every), adam, *self.parts(table), every.contiguous().numpy(), gradient.contiguous().numpy())
            return
        if self._by_cuda(table):
            from recsys_embed.kernels.cuda import Rates, Sorted, adam

            entries = None if isinstance(rows, slice) else Sorted(*rows.sort(stable=True))
            adam(self.cuda_table(table), entries, gradient.contiguous(), Rates(*self.betas, self.eps))
            return
        beta1, beta2 = self.betas
        state = self._state(table)
        mean = state.mean[rows].lerp_(gradient, 1 - beta1)
        squared = gradient.square()
        if group.by_row:
            squared = squared.flatten(1).mean(1).view(state.square[rows].shape)
        square = state.square[rows].lerp_(squared, 1 - beta2)
        count = state.count[rows] + 1
        weights = table[rows]
        if group.shrunk:
            weights = weights * torch.exp(group.shrunk - state.shrunk[rows]).to(weights.dtype)
            state.shrunk[rows] = group.shrunk
        size = (square / (1 - beta2**count)).sqrt_().add_(self.eps)
        table[rows] = weights - self.lr * group.pace * (mean / (1 - beta1**count)) / size
        state.mean[rows], state.square[rows], state.count[rows] = mean, square, count

    def _by_cuda(self, table: nn.Parameter) -> bool:
        if not self.fused or table.grad is None or table.grad.dtype != table.dtype or self._group(table).by_row:
            return False
        return takes_on_cuda(table)

    def cuda_table(self, table: nn.Parameter) -> Table:
        """The same for kernels for CUDA (kernels/cuda.py). See `takes_on_cuda`."""
        from recsys_embed.kernels.cuda import Table

        state, group = self._state(table), self._group(table)
        columns = state.count.view(-1), state.shrunk.view(-1)
        return Table(table.detach(), state.mean, state.square, *columns, self.lr * group.pace, group.shrunk)

    def _group(self, table: nn.Parameter) -> Group:
        return next(group for group in self.groups if any(one is table for one in group.parameters))

    def _state(self, table: nn.Parameter) -> _State:
        if table not in self.state:
            column = (len(table), *[1] * (table.ndim - 1))
            self.state[table] = _State(
                mean=roomy(table).zero_(),
                square=torch.zeros(column, device=table.device) if self._group(table).by_row else roomy(table).zero_(),
                count=torch.zeros(column, device=table.device),
                # Doubles: a sum of small logarithms over many steps must keep its last digits.
                shrunk=torch.zeros(column, device=table.device, dtype=torch.float64),
            )
        return self.state[table]

    @torch.no_grad()
    def flush(self) -> None:
        """Shrink every row by the weight decay that it still owes; reading a table before this reads old rows."""
        for group in self.groups:
            for table in group.parameters if group.shrunk else ():
                state = self._state(table)
                table.mul_(torch.exp(group.shrunk - state.shrunk).to(table.dtype))
                state.shrunk.fill_(group.shrunk)


def takes(table: Tensor) -> bool:
    """Return whether a kernel can work on a table where it lies: a matrix of float32 in C order on a processor."""
    return table.device.type == "cpu" and table.ndim == 2 and table.dtype == torch.float32 and table.is_contiguous()


def takes_on_cuda(table: Tensor) -> bool:
    """The same for kernels for CUDA, which hold whole rows of up to 4,096 numbers."""
    fits = table.ndim == 2 and table.dtype == torch.float32 and table.is_contiguous() and table.shape[1] <= 4096
    return table.device.type == "cuda" and fits and triton_available()


def summed_rows(gradient: Tensor) -> Tensor:
    """Return a sparse gradient with each row once: itself, without a sort, where its rows ascend (model/gather.py).

    Autograd forgets that a gradient was summed. On CUDA to ask would be to wait.
    """
    rows = gradient._indices()[0]
    if not rows.is_cuda and not gradient.is_coalesced() and bool((rows[1:] > rows[:-1]).all()):
        gradient._coalesced_(True)
    return gradient.coalesce()


@torch.no_grad()
def clip_gradients(parameters: Sequence[nn.Parameter], most: float) -> float:
    """Scale all gradients, sparse ones too, so that their joint norm is at most `most`; return the norm before."""
    values = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.layout == torch.sparse_coo:
            parameter.grad = summed_rows(parameter.grad)
            values.append(parameter.grad.values())
        else:
            values.append(parameter.grad)
    norm = float(torch.stack([v.norm() for v in values]).norm()) if values else 0.0
    if norm > most:
        for parameter in parameters:
            if parameter.grad is not None:  # not in place: the gradients of two parameters may be one tensor
                parameter.grad = parameter.grad * (most / norm)
    return norm
