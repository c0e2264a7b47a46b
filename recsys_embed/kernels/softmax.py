"""Kernels for the softmax on tables: vectors taken with dropout and unit length, scores -> gradients, rows moved.

What stands between them is products of matrices, which are left to torch.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from recsys_embed.kernels.adam import COUNTS, RATE, TABLES, ask, dropped, move
from recsys_embed.kernels.compiled import AHEAD, compiled, inlined, prefetch

# Shorter vectors than this are not brought to unit length (as in torch's normalize).
_LEAST = np.float32(1e-12)
_NONE = np.float32(-1e30)


def _power_of_two(typing: Any, exponent: Any) -> Any:
    """Return 2 to a whole power from -126 to 127, as float32: its bits are known."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = ir.IntType(32)
        bits = builder.shl(builder.add(arguments[0], number(127)), number(23))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(types.int32), generate


_power: Any = intrinsic(_power_of_two)


@inlined
def exp(x):
    """Return exp(x) of x up to 0, within 2e-7 of it: a polynomial, so that loops of it become vectors; 0 below -87."""
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
    return np.float32(0) if x < np.float32(-87) else p * _power(np.int32(whole))  # of what is no number: no number


@compiled("(i8,i8,f4[:,::1],f4[::1],f4[:,::1],i8[::1],u8,f4,u8,b1,f4)")
def take(start, stop, out, length, table, rows, share, scale, seed, unit, factor):
    """Write rows [n] of a table, with dropout and, where `unit`, at unit length, times factor, to out [n, d].

    length [n]: gets each one's length after dropout, or 1. share, scale, seed: of the dropout, see `kept`.
    """
    dim = table.shape[1]
    for n in range(start, stop):
        if n + AHEAD < stop:
            prefetch(table, rows[n + AHEAD])
        row, square = rows[n], np.float32(0)
        for j in range(dim):
            out[n, j] = table[row, j]
        if share > 0:
            dropped(out[n], row, share, scale, seed)
        for j in range(dim):
            square += out[n, j] * out[n, j]
        length[n] = max(np.float32(math.sqrt(square)), _LEAST) if unit else np.float32(1)
        by = factor / length[n]
        for j in range(dim):
            out[n, j] *= by


@compiled(f"(i8,i8,{TABLES},{COUNTS},{RATE},i8[::1],f4[:,::1],f4[:,::1],f4[::1],u8,f4,u8,b1,f4)")
def give(start, stop, tables, counts, rate, rows, gradient, out, length, share, scale, seed, unit, factor):
    """Move rows [n] by the gradients [n, d] of what `take` made of them; those are overwritten."""
    dim = out.shape[1]
    for n in range(start, stop):
        if n + AHEAD < stop:
            ask(tables, rows[n + AHEAD])
        by, along = factor / length[n], np.float32(0)
        if unit and length[n] > _LEAST:  # what would make the vector longer does not count
            for j in range(dim):
                along += gradient[n, j] * out[n, j]
            along /= factor * factor
        for j in range(dim):
            gradient[n, j] = (gradient[n, j] - along * out[n, j]) * by
        if share > 0:
            dropped(gradient[n], rows[n], share, scale, seed)
        move(tables, counts, rate, rows[n], gradient[n])


@compiled("i8(i8[::1],i4[::1],i8[::1],i4[::1],i8,i4[::1],i4[::1])")
def group(item, place, rows, at, count, order, edge):
    """Give each item of a step [B] its place at [B] among rows [M]; return M.

    rows: the first `count` stand there already. place [items]: theirs, or -1; the new ones' are added. order [B]: gets
    the ratings by place; edge [M + 1]: where those of each place begin.
    """
    for n in range(len(item)):
        if place[item[n]] < 0:
            place[item[n]], rows[count] = count, item[n]
            count += 1
        at[n] = place[item[n]]
    edge[: count + 1] = 0
    for n in range(len(item)):
        edge[at[n] + 1] += 1
    for m in range(count):
        edge[m + 1] += edge[m]
    for n in range(len(item) - 1, -1, -1):
        edge[at[n] + 1] -= 1
        order[edge[at[n] + 1]] = n
    # each edge has moved to the beginning of its own place, one further on than it belongs
    for m in range(count):
        edge[m] = edge[m + 1]
    edge[count] = len(item)
    return count


@compiled("(i8,i8,f4[::1],f4[:,::1],f4[:,::1],f4[::1],i8[::1],i4[::1])")
def meet(start, stop, own, u, v, bias, edge, at):
    """Write the scores of the ratings of users [start, stop) to own [B]: with the vectors v[at], and their bias."""
    for d in range(start, stop):
        for n in range(edge[d], edge[d + 1]):
            score = np.float32(0)
            for j in range(u.shape[1]):
                score += u[d, j] * v[at[n], j]
            own[n] = score + bias[at[n]]


@compiled("(i8,i8,f4[:,::1],f4[:,::1],i8[::1],i4[::1],f4[::1])")
def pull_users(start, stop, du, v, edge, at, push):
    """Take push x v[at] of the ratings of users [start, stop) off du."""
    for d in range(start, stop):
        for n in range(edge[d], edge[d + 1]):
            for j in range(du.shape[1]):
                du[d, j] -= push[n] * v[at[n], j]


@compiled("(i8,i8,f4[:,::1],f4[::1],f4[:,::1],i4[::1],i4[::1],i4[::1],f4[::1])")
def pull_items(start, stop, dv, dbias, u, edge, order, user, push):
    """Take push x u of the ratings of items [start, stop) off dv, and push off dbias."""
    for m in range(start, stop):
        for x in range(edge[m], edge[m + 1]):
            n = order[x]
            dbias[m] -= push[n]
            for j in range(dv.shape[1]):
                dv[m, j] -= push[n] * u[user[n], j]


@inlined
def _hide(score, known, place, last):
    """Take the known items out of a line of scores; return the best of the others, or `_NONE`."""
    for x in range(len(known)):
        if 0 <= place[known[x]] < last:
            score[place[known[x]]] = _NONE
    top = _NONE
    for k in range(len(score)):
        top = max(top, score[k])
    return top


@inlined
def _spread(score, top):
    """Turn scores [M] into exp(score - top); return their sum."""
    z = np.float32(0)
    for k in range(len(score)):
        score[k] = exp(score[k] - top)
        z += score[k]
    return z


@compiled(
    "(i8,i8,f4[:,::1],f4[::1],i8[::1],i8[::1],i8[::1],i4[::1],i8,i8[::1],i4[::1],f4[::1],f4[::1],f4[::1],f4[::1],i8,f4,b1)"
)
def soften(
    start, stop, score, shift, users, first, known, place, last,
    edge, at, weight, own, push, loss, begin, pressure, everything,
):  # fmt: skip
    """Turn lines [start, stop) of scores with M items into the gradient of the loss by them, in place.

    score [b, M]: products, to which shift [M] is added; line 0 is that of the step's user `begin`. users [D]: rows;
    first, known: what each knows, see `UserItems`. place [items]: the column of an item row, if it is from 0 to below
    `last`. edge [D + 1]: where a user's ratings begin among all of the step, of weight [B]. own [B]: the positives'
    scores; where `everything` has a column, they are read from there, at [B], and their gradient is added there. push
    [B]: gets minus the gradient by them; loss [D]: a user's terms. Formulas and `pressure`: model/softmax.py.
    """
    more = pressure - np.float32(1)
    for which in range(start, stop):
        line, d = score[which], begin + which
        for k in range(len(line)):
            line[k] += shift[k]
        if everything:
            for n in range(edge[d], edge[d + 1]):
                own[n] = line[at[n]]
        top = _hide(line, known[first[users[d]] : first[users[d] + 1]], place, last)
        nothing = top <= _NONE
        z = np.float32(0) if nothing else _spread(line, top)
        rest = _NONE if nothing else np.float32(math.log(z)) + top
        total = terms = np.float32(0)
        for n in range(edge[d], edge[d + 1]):
            gap = rest - own[n]
            e = np.float32(math.exp(-abs(gap)))
            terms += weight[n] * (max(gap, np.float32(0)) + np.float32(math.log1p(e)))
            push[n] = weight[n] * ((np.float32(1) if gap > 0 else e) / (np.float32(1) + e))
            total += push[n] + more * weight[n]
            if not nothing:
                terms += more * weight[n] * rest
        loss[d] = terms
        scale = np.float32(0) if nothing else total / z
        for k in range(len(line)):
            line[k] *= scale
        if everything:
            for n in range(edge[d], edge[d + 1]):
                line[at[n]] -= push[n]
