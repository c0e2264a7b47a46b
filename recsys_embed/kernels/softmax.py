"""CPU kernels for the softmax on tables: gathering vectors, turning scores into gradients, updating rows.

The matrix products between them are left to torch.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from recsys_embed.kernels.adam import HYPER, ROW_STATE, TABLES, adam_step_row, apply_dropout, prefetch_row
from recsys_embed.kernels.compiled import PREFETCH_AHEAD, compiled, inlined, prefetch

# Vectors shorter than this are not scaled to unit length (as in torch's normalize).
_MIN_LENGTH = np.float32(1e-12)
_MASKED = np.float32(-1e30)


def _power_of_two(typing: Any, exponent: Any) -> Any:
    """Return 2 to an integer power from -126 to 127 as float32, by writing its bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = ir.IntType(32)
        bits = builder.shl(builder.add(arguments[0], number(127)), number(23))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(types.int32), generate


_power: Any = intrinsic(_power_of_two)


@inlined
def exp(x):
    """Return exp(x) for x <= 0, within 2e-7 of it and 0 below -87: a polynomial, so that loops of it vectorize."""
    whole = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    whole = max(whole, np.float32(-126))
    # x - whole x log(2), in two parts so that the last digits stay
    r = (x - whole * np.float32(0.693359375)) + whole * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1)
    return np.float32(0) if x < np.float32(-87) else p * _power(np.int32(whole))  # nan stays nan


@compiled("(i8,i8,f4[:,::1],f4[::1],f4[:,::1],i8[::1],u8,f4,u8,b1,f4)")
def gather_rows(start, stop, out, length, table, rows, rate, scale, seed, cosine, factor):
    """Write rows [n] of a table to out [n, d], after dropout, at unit length if `cosine`, and times factor.

    length [n]: gets each vector's length after dropout, or 1. rate, scale, seed: see `apply_dropout`.
    """
    dim = table.shape[1]
    for n in range(start, stop):
        if n + PREFETCH_AHEAD < stop:
            prefetch(table, rows[n + PREFETCH_AHEAD])
        row, square = rows[n], np.float32(0)
        for j in range(dim):
            out[n, j] = table[row, j]
        if rate > 0:
            apply_dropout(out[n], row, rate, scale, seed)
        for j in range(dim):
            square += out[n, j] * out[n, j]
        length[n] = max(np.float32(math.sqrt(square)), _MIN_LENGTH) if cosine else np.float32(1)
        multiplier = factor / length[n]
        for j in range(dim):
            out[n, j] *= multiplier


@compiled(f"(i8,i8,{TABLES},{ROW_STATE},{HYPER},i8[::1],f4[:,::1],f4[:,::1],f4[::1],u8,f4,u8,b1,f4)")
def scatter_adam(
    start, stop, tables, row_state, hyper, rows, gradient, out, length, rate, scale, seed, cosine, factor
):  # fmt: skip
    """Update rows [n] by the gradients [n, d] of what `gather_rows` made of them; the gradients are overwritten."""
    dim = out.shape[1]
    for n in range(start, stop):
        if n + PREFETCH_AHEAD < stop:
            prefetch_row(tables, rows[n + PREFETCH_AHEAD])
        multiplier, radial = factor / length[n], np.float32(0)
        if cosine and length[n] > _MIN_LENGTH:  # unit vectors have no gradient along themselves
            for j in range(dim):
                radial += gradient[n, j] * out[n, j]
            radial /= factor * factor
        for j in range(dim):
            gradient[n, j] = (gradient[n, j] - radial * out[n, j]) * multiplier
        if rate > 0:
            apply_dropout(gradient[n], rows[n], rate, scale, seed)
        adam_step_row(tables, row_state, hyper, rows[n], gradient[n])


@compiled("i8(i8[::1],i4[::1],i8[::1],i4[::1],i8,i4[::1],i4[::1])")
def group_by_item(item, column, rows, item_at, count, order, edges):
    """Find the distinct items of a batch [B] and group its ratings by them; return the number of distinct items M.

    rows: the first `count` distinct item rows are there already. column [items]: the position of each item in `rows`,
    or -1; new items are added to both. Written: each rating's position in `rows` to item_at [B]; the ratings, grouped
    by position, to order [B]; where the ratings of each position start to edges [M + 1].
    """
    for n in range(len(item)):
        if column[item[n]] < 0:
            column[item[n]], rows[count] = count, item[n]
            count += 1
        item_at[n] = column[item[n]]
    edges[: count + 1] = 0
    for n in range(len(item)):
        edges[item_at[n] + 1] += 1
    for m in range(count):
        edges[m + 1] += edges[m]
    for n in range(len(item) - 1, -1, -1):
        edges[item_at[n] + 1] -= 1
        order[edges[item_at[n] + 1]] = n
    # each edge has moved down to the start of its own group, and is stored one place too far
    for m in range(count):
        edges[m] = edges[m + 1]
    edges[count] = len(item)
    return count


@compiled("(i8,i8,f4[::1],f4[:,::1],f4[:,::1],f4[::1],i8[::1],i4[::1])")
def pair_scores(start, stop, positive, u, v, bias, edges, item_at):
    """Write the scores of the ratings of users [start, stop) to positive [B]: with the vectors v[item_at] and bias."""
    for d in range(start, stop):
        for n in range(edges[d], edges[d + 1]):
            score = np.float32(0)
            for j in range(u.shape[1]):
                score += u[d, j] * v[item_at[n], j]
            positive[n] = score + bias[item_at[n]]


@compiled("(i8,i8,f4[:,::1],f4[:,::1],i8[::1],i4[::1],f4[::1])")
def add_positives_to_users(start, stop, du, v, edges, item_at, pull):
    """Subtract pull x v[item_at] of the ratings of users [start, stop) from their gradients du."""
    for d in range(start, stop):
        for n in range(edges[d], edges[d + 1]):
            for j in range(du.shape[1]):
                du[d, j] -= pull[n] * v[item_at[n], j]


@compiled("(i8,i8,f4[:,::1],f4[::1],f4[:,::1],i4[::1],i4[::1],i4[::1],f4[::1])")
def add_positives_to_items(start, stop, dv, dbias, u, edges, order, user_at, pull):
    """Subtract pull x u[user_at] of the ratings of items [start, stop) from their gradients dv, and pull from dbias."""
    for m in range(start, stop):
        for x in range(edges[m], edges[m + 1]):
            n = order[x]
            dbias[m] -= pull[n]
            for j in range(dv.shape[1]):
                dv[m, j] -= pull[n] * u[user_at[n], j]


@inlined
def _mask_known(score, known, column, columns):
    """Mask the known positives in a line of scores; return the best of the others, or `_MASKED`."""
    for x in range(len(known)):
        if 0 <= column[known[x]] < columns:
            score[column[known[x]]] = _MASKED
    top = _MASKED
    for k in range(len(score)):
        top = max(top, score[k])
    return top


@inlined
def _exponentiate(score, top):
    """Turn scores [M] into exp(score - top); return their sum."""
    z = np.float32(0)
    for k in range(len(score)):
        score[k] = exp(score[k] - top)
        z += score[k]
    return z


@compiled(
    "(i8,i8,f4[:,::1],f4[::1],i8[::1],i8[::1],i8[::1],i4[::1],i8,i8[::1],i4[::1],f4[::1],f4[::1],f4[::1],f4[::1],i8,f4,b1)"
)
def softmax_gradient(
    start, stop, score, shift, users, indptr, known, column, columns,
    edges, item_at, weight, positive, pull, loss, first_user, negative_weight, full,
):  # fmt: skip
    """Turn lines [start, stop) of scores with M items into the gradient of the loss by them, in place.

    score [b, M]: products, to which shift [M] is added; line 0 belongs to the batch's user `first_user`. users [D]:
    rows; indptr, known: each user's known positives, see `UserItems`. column [items]: the column of an item row, if it
    is from 0 to below `columns`. edges [D + 1]: where each user's ratings start among those of the batch, of weight
    [B]. positive [B]: the positives' scores; if `full`, all items have a column, so they are read from column item_at
    [B] instead, and their gradient is added there. Written: minus the gradient by the positives' scores to pull [B],
    each user's terms of the loss to loss [D]. Formulas and `negative_weight`: nets/blocked_softmax.py.
    """
    extra = negative_weight - np.float32(1)
    for x in range(start, stop):
        line, d = score[x], first_user + x
        for k in range(len(line)):
            line[k] += shift[k]
        if full:
            for n in range(edges[d], edges[d + 1]):
                positive[n] = line[item_at[n]]
        top = _mask_known(line, known[indptr[users[d]] : indptr[users[d] + 1]], column, columns)
        no_negatives = top <= _MASKED
        z = np.float32(0) if no_negatives else _exponentiate(line, top)
        log_z = _MASKED if no_negatives else np.float32(math.log(z)) + top
        total = terms = np.float32(0)
        for n in range(edges[d], edges[d + 1]):
            gap = log_z - positive[n]
            e = np.float32(math.exp(-abs(gap)))
            terms += weight[n] * (max(gap, np.float32(0)) + np.float32(math.log1p(e)))
            pull[n] = weight[n] * ((np.float32(1) if gap > 0 else e) / (np.float32(1) + e))
            total += pull[n] + extra * weight[n]
            if not no_negatives:
                terms += extra * weight[n] * log_z
        loss[d] = terms
        scale = np.float32(0) if no_negatives else total / z
        for k in range(len(line)):
            line[k] *= scale
        if full:
            for n in range(edges[d], edges[d + 1]):
                line[item_at[n]] -= pull[n]
