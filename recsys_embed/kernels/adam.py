"""CPU kernels for row-lazy Adam and for dropout masks."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from recsys_embed.kernels.compiled import PREFETCH_AHEAD, compiled, hash64, inlined, prefetch

# How kernels take a parameter, as types: `tables` are its weights [R, d] and both moments, [R, d] and [R, d] or [R, 1];
# `row_state` is each row's number of steps and its accumulated log decay, [R] each; `hyper` is lr, both betas, eps, and
# the log decay that every row has accumulated after this step.
TABLES, ROW_STATE, HYPER = "UniTuple(f4[:,::1],3)", "Tuple((f4[::1],f8[::1]))", "UniTuple(f8,5)"


@inlined
def adam_step_row(tables, row_state, hyper, row, gradient):
    """Update one row of a table by its gradient [d], as RowLazyAdam does."""
    (table, mean, square), (steps_of, log_decay_of) = tables, row_state
    lr, beta1, beta2, eps, log_decay = hyper
    old1, new1, old2, new2 = np.float32(beta1), np.float32(1 - beta1), np.float32(beta2), np.float32(1 - beta2)
    eps32 = np.float32(eps)
    steps = steps_of[row] + np.float32(1)
    steps_of[row] = steps
    decay = np.float32(math.exp(log_decay - log_decay_of[row]))
    log_decay_of[row] = log_decay
    # beta ** steps by exp: raising a float32 to a power aborts the process in some versions of Numba.
    step_size = np.float32(lr / (1 - math.exp(steps * math.log(beta1))))
    correction = np.float32(1 / (1 - math.exp(steps * math.log(beta2))))
    if square.shape[1] < table.shape[1]:
        total = np.float32(0)
        for k in range(table.shape[1]):
            total += gradient[k] * gradient[k]
        square[row, 0] = old2 * square[row, 0] + new2 * total / np.float32(table.shape[1])
        step_size /= np.sqrt(square[row, 0] * correction) + eps32
        for k in range(table.shape[1]):
            mean[row, k] = old1 * mean[row, k] + new1 * gradient[k]
            table[row, k] = decay * table[row, k] - step_size * mean[row, k]
        return
    for k in range(table.shape[1]):
        g = gradient[k]
        m = old1 * mean[row, k] + new1 * g
        s = old2 * square[row, k] + new2 * g * g
        mean[row, k] = m
        square[row, k] = s
        table[row, k] = decay * table[row, k] - step_size * m / (np.sqrt(s * correction) + eps32)


@inlined
def prefetch_row(tables, row):
    """Prefetch a row's weights and moments."""
    prefetch(tables[0], row)
    prefetch(tables[1], row)
    prefetch(tables[2], row)


@compiled(f"(i8,i8,{TABLES},{ROW_STATE},{HYPER},i8[::1],f4[:,::1])")
def adam(start, stop, tables, row_state, hyper, rows, gradient):
    """Update distinct rows [n] of a table by their gradient [n, d]."""
    for n in range(start, stop):
        if n + PREFETCH_AHEAD < stop:
            prefetch_row(tables, rows[n + PREFETCH_AHEAD])
        adam_step_row(tables, row_state, hyper, rows[n], gradient[n])


@inlined
def apply_dropout(vector, row, rate, scale, seed):
    """Zero `rate` 65,536ths of a vector [d] on average, chosen by seed and row, and multiply the rest by `scale`."""
    dim = len(vector)
    bits = np.uint64(0)
    for k in range(dim):
        if k % 4 == 0:  # sixteen bits of a hash for each number
            bits = hash64(seed, row * ((dim + 3) // 4) + k // 4)
        vector[k] *= scale if (bits & np.uint64(0xFFFF)) >= rate else np.float32(0)
        bits >>= np.uint64(16)


@compiled("(i8,i8,f4[:,::1],i8[::1],u8,f4,u8)")
def dropout_mask(start, stop, out, rows, rate, scale, seed):
    """Fill a dropout mask [n, d] for rows [n]: `rate` 65,536ths of it are zero, the rest is `scale`."""
    for n in range(start, stop):
        out[n] = 1
        apply_dropout(out[n], rows[n], rate, scale, seed)
