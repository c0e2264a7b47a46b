"""Kernels for processors: compiled by Numba at the first import and kept in its cache; no compiler is needed.

Each works on a range of rows, without Python's lock, and `over` shares a range out among threads. Rows are distinct, so
no two threads write the same one, and equal seeds give equal bits whatever the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

# Products and sums may be joined to one operation, and sums reordered; nan and infinity stay what they are.
_MATHS = {"contract", "reassoc", "nsz", "arcp"}
# Numba keeps a kernel by the file it stands in: who changes AHEAD, `prefetch` or `hashed` must touch pairs.py as well.
# Rows of a table lie anywhere in memory: each is asked for so many rows before it is worked on. Without it, a processor
# waits for memory most of the time (300 ns a row of 64 numbers and its two moments where 40 ns are work).
AHEAD = 4
# Fewer rows than this are not worth a second thread.
_ROWS = 1024


def compiled(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what compiles a function for arguments of these types, now, or reads it from Numba's cache."""

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        options: dict[str, Any] = {"nogil": True, "fastmath": _MATHS, "error_model": "numpy"}
        try:
            return numba.njit(signature, cache=True, **options)(function)
        except (RuntimeError, OSError):  # no folder to keep it in, or a full one: each process compiles it again
            return numba.njit(signature, **options)(function)

    return compile_


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, "kernel")


def over(rows: int, kernel: Callable[..., None], *arguments: Any) -> None:
    """Run kernel(start, stop, *arguments) on parts of range(rows), on as many threads as torch uses."""
    threads = min(torch.get_num_threads(), -(-rows // _ROWS))
    if threads <= 1:
        kernel(0, rows, *arguments)
        return
    edges = np.linspace(0, rows, threads + 1).astype(int).tolist()
    rest = [_pool(threads).submit(kernel, a, b, *arguments) for a, b in pairwise(edges[1:])]
    try:
        kernel(0, edges[1], *arguments)
    finally:
        wait(rest)  # an interrupt must not find them at work on tables that are read
    for part in rest:
        part.result()


def _prefetch(typing: Any, table: Any, row: Any) -> Any:
    """Ask for the memory of row `row` of a matrix of float32 in C order; it says nothing and cannot fail."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        matrix = context.make_array(signature.args[0])(context, builder, arguments[0])
        columns = cgutils.unpack_tuple(builder, matrix.shape)[1]
        byte, number, whole = ir.IntType(8).as_pointer(), ir.IntType(32), columns.type
        size = builder.mul(columns, whole(4))
        begin = builder.gep(builder.bitcast(matrix.data, byte), [builder.mul(arguments[1], size)])
        shape = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        ask = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0")
        with cgutils.for_range_slice(builder, whole(0), size, whole(64), inc=True) as (at, _):
            # to be written too, to be kept in the nearest cache, and it is data
            builder.call(ask, [builder.gep(begin, [at]), number(1), number(3), number(1)])
        return context.get_dummy_value()

    return numba.types.void(table, row), generate


prefetch: Any = intrinsic(_prefetch)


@numba.njit(inline="always")
def hashed(seed, place):  # type: ignore[no-untyped-def]
    """Return 64 bits that a seed and a place give (SplitMix64: Steele et al., OOPSLA 2014).

    So no thread has to know what another one drew, and draws do not depend on how many there are.
    """
    x = seed + np.uint64(place) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@compiled("(i8,i8,f4[:,::1],f4[:,::1],f4[:,::1],f4[::1],f8[::1],i8[::1],f4[:,::1],f8,f8,f8,f8,f8)")
def _adam(start, stop, table, mean, square, count, shrunk, rows, gradient, lr, beta1, beta2, eps, now):  # type: ignore[no-untyped-def]
    old1, new1, old2, new2 = np.float32(beta1), np.float32(1 - beta1), np.float32(beta2), np.float32(1 - beta2)
    least = np.float32(eps)
    log1, log2 = math.log(beta1), math.log(beta2)
    for n in range(start, stop):
        if n + AHEAD < stop:
            after = rows[n + AHEAD]
            prefetch(table, after)
            prefetch(mean, after)
            prefetch(square, after)
        row = rows[n]
        steps = count[row] + np.float32(1)
        count[row] = steps
        keep = np.float32(math.exp(now - shrunk[row]))
        shrunk[row] = now
        # beta ** steps by exp: a power of a float32 aborts the process in some versions of Numba.
        pace = np.float32(lr / (1 - math.exp(steps * log1)))
        scale = np.float32(1 / (1 - math.exp(steps * log2)))
        for k in range(table.shape[1]):
            g = gradient[n, k]
            m = old1 * mean[row, k] + new1 * g
            s = old2 * square[row, k] + new2 * g * g
            mean[row, k] = m
            square[row, k] = s
            table[row, k] = keep * table[row, k] - pace * m / (np.sqrt(s * scale) + least)


def adam(
    table: Tensor,
    moments: tuple[Tensor, Tensor],
    counts: tuple[Tensor, Tensor],
    rows: Tensor,
    gradient: Tensor,
    settings: tuple[float, float, float, float],
    shrunk: float,
) -> None:
    """Move distinct rows [n] of a table [R, d] by their gradient [n, d]: RowLazyAdam's step, in one pass.

    moments: two of the table's shape. counts: the rows' steps [R, 1] and shrinkage so far [R, 1], float64.
    settings: lr, both betas, eps. shrunk: the shrinkage that the rows have after this step.
    """
    arrays = [t.detach().numpy() for t in (table, *moments)] + [c.view(-1).numpy() for c in counts]
    over(len(rows), _adam, *arrays, rows.contiguous().numpy(), gradient.contiguous().numpy(), *settings, shrunk)


@compiled("(i8,i8,f4[:,::1],u8,f4,u8)")
def _kept(start, stop, out, share, scale, seed):  # type: ignore[no-untyped-def]
    wide = out.shape[1]
    for n in range(start, stop):
        x = np.uint64(0)
        for k in range(wide):
            if k % 4 == 0:  # sixteen bits of a hash for each number
                x = hashed(seed, n * ((wide + 3) // 4) + k // 4)
            out[n, k] = scale if (x & np.uint64(0xFFFF)) >= share else np.float32(0)
            x >>= np.uint64(16)


def kept(shape: tuple[int, int], share: float, generator: torch.Generator) -> Tensor:
    """Return a mask for dropout: zero for a share of the numbers, rounded to a 65,536th, and 1 / (1 - share) else."""
    out = np.empty(shape, np.float32)
    over(shape[0], _kept, out, np.uint64(round(share * 65_536)), np.float32(1 / (1 - share)), seed_of(generator))
    return torch.from_numpy(out)


def seed_of(generator: torch.Generator) -> np.uint64:
    """Draw a seed for hashes."""
    return np.uint64(torch.randint(2**62, (1,), generator=generator).item())
