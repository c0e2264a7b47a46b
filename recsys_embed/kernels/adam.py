"""Adam of the touched rows, and dropout's mask, for processors."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from recsys_embed.kernels.compiled import AHEAD, compiled, hashed, prefetch


@compiled("(i8,i8,f4[:,::1],f4[:,::1],f4[:,::1],f4[::1],f8[::1],i8[::1],f4[:,::1],f8,f8,f8,f8,f8)")
def adam(start, stop, table, mean, square, count, shrunk, rows, gradient, lr, beta1, beta2, eps, now):
    """Move distinct rows [n] of a table [R, d] by their gradient [n, d]: RowLazyAdam's step, in one pass.

    mean, square: the moments [R, d]. count [R]: the rows' steps. shrunk [R]: their shrinkage so far; now: what it is
    after this step.
    """
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


@compiled("(i8,i8,f4[:,::1],u8,f4,u8)")
def kept(start, stop, out, share, scale, seed):
    """Fill a mask [n, d] for dropout: zero for `share` 65,536ths of it, and `scale` else."""
    wide = out.shape[1]
    for n in range(start, stop):
        x = np.uint64(0)
        for k in range(wide):
            if k % 4 == 0:  # sixteen bits of a hash for each number
                x = hashed(seed, n * ((wide + 3) // 4) + k // 4)
            out[n, k] = scale if (x & np.uint64(0xFFFF)) >= share else np.float32(0)
            x >>= np.uint64(16)
