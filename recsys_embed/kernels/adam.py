"""Adam of the touched rows, and dropout's mask, for processors."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from recsys_embed.kernels.compiled import AHEAD, compiled, hashed, inlined, prefetch

# What a kernel is given of a parameter: its table [R, d] and moments, [R, d] and [R, d] or [R, 1]; the rows' steps and
# shrinkage so far, [R]; and lr, both betas, eps, and the shrinkage that a row has after this step.
TABLES, COUNTS, RATE = "UniTuple(f4[:,::1],3)", "Tuple((f4[::1],f8[::1]))", "UniTuple(f8,5)"


@inlined
def move(tables, counts, rate, row, gradient):
    """Move one row of a table by its gradient [d]: RowLazyAdam's step."""
    (table, mean, square), (count, shrunk), (lr, beta1, beta2, eps, now) = tables, counts, rate
    old1, new1, old2, new2 = np.float32(beta1), np.float32(1 - beta1), np.float32(beta2), np.float32(1 - beta2)
    least = np.float32(eps)
    steps = count[row] + np.float32(1)
    count[row] = steps
    keep = np.float32(math.exp(now - shrunk[row]))
    shrunk[row] = now
    # beta ** steps by exp: a power of a float32 aborts the process in some versions of Numba.
    pace = np.float32(lr / (1 - math.exp(steps * math.log(beta1))))
    scale = np.float32(1 / (1 - math.exp(steps * math.log(beta2))))
    if square.shape[1] < table.shape[1]:
        total = np.float32(0)
        for k in range(table.shape[1]):
            total += gradient[k] * gradient[k]
        square[row, 0] = old2 * square[row, 0] + new2 * total / np.float32(table.shape[1])
        pace /= np.sqrt(square[row, 0] * scale) + least
        for k in range(table.shape[1]):
            mean[row, k] = old1 * mean[row, k] + new1 * gradient[k]
            table[row, k] = keep * table[row, k] - pace * mean[row, k]
        return
    for k in range(table.shape[1]):
        g = gradient[k]
        m = old1 * mean[row, k] + new1 * g
        s = old2 * square[row, k] + new2 * g * g
        mean[row, k] = m
        square[row, k] = s
        table[row, k] = keep * table[row, k] - pace * m / (np.sqrt(s * scale) + least)


@inlined
def ask(tables, row):
    """Ask for the memory of a row and its moments."""
    prefetch(tables[0], row)
    prefetch(tables[1], row)
    prefetch(tables[2], row)


@compiled(f"(i8,i8,{TABLES},{COUNTS},{RATE},i8[::1],f4[:,::1])")
def adam(start, stop, tables, counts, rate, rows, gradient):
    """Move distinct rows [n] of a table by their gradient [n, d]."""
    for n in range(start, stop):
        if n + AHEAD < stop:
            ask(tables, rows[n + AHEAD])
        move(tables, counts, rate, rows[n], gradient[n])


@inlined
def dropped(vector, place, share, scale, seed):
    """Set `share` 65,536ths of a vector [d] to zero and multiply the rest by `scale`, as seed and place have it."""
    dim = len(vector)
    x = np.uint64(0)
    for k in range(dim):
        if k % 4 == 0:  # sixteen bits of a hash for each number
            x = hashed(seed, place * ((dim + 3) // 4) + k // 4)
        vector[k] *= scale if (x & np.uint64(0xFFFF)) >= share else np.float32(0)
        x >>= np.uint64(16)


@compiled("(i8,i8,f4[:,::1],i8[::1],u8,f4,u8)")
def kept(start, stop, out, rows, share, scale, seed):
    """Fill a mask [n, d] for dropout of rows [n]: zero for `share` 65,536ths of it, and `scale` else."""
    for n in range(start, stop):
        out[n] = 1
        dropped(out[n], rows[n], share, scale, seed)
