"""Kernels for losses on a rating and negatives of its own: the draw, the gradient of the scores, and sums of rows."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from recsys_embed.kernels.compiled import AHEAD, compiled, hashed, prefetch

_TRIES = 16


@compiled("(i8,i8,i8[:,::1],i8[::1],i8[::1],i8[::1],i8[::1],u8)")
def draw(start, stop, items, user, rated, first, item, seed):
    """Fill items[:, 1:] with uniform draws among the rows `rated` that the user does not know.

    first [users + 1], item [n]: what each user knows, ascending, as in `Seen`. A known one is drawn again, 16 times at
    most; what is left is marked by -1 - row. The draws are hashes of the seed and the place.
    """
    wide = items.shape[1]
    for n in range(start, stop):
        low, high = first[user[n]], first[user[n] + 1]
        for k in range(1, wide):
            for tries in range(_TRIES):
                x = hashed(seed, (n * wide + k) * _TRIES + tries)
                row = rated[np.int64(((x >> np.uint64(32)) * np.uint64(len(rated))) >> np.uint64(32))]
                a, b = low, high
                while a < b:
                    middle = (a + b) >> 1
                    if item[middle] < row:
                        a = middle + 1
                    else:
                        b = middle
                if a == high or item[a] != row:
                    items[n, k] = row
                    break
                items[n, k] = -1 - row


@compiled("(i8,i8,f4[:,::1],f4[::1],f4[:,::1],f4[:,::1],f4[:,::1],f4[:,::1],i8[::1],i8[:,::1],f4[::1],f4,b1)")
def push(start, stop, coefficient, loss, u, v, user_bias, item_bias, user, items, weight, offset, logistic):
    """Write the gradient of the batch's loss by each score to coefficient [B, 1 + K], and the terms to loss [B].

    items[:, 0] are the positives; -1 - row stands for a known item, which is no negative. Losses as in model/losses.py.
    """
    wide, dim, batch = items.shape[1], u.shape[1], np.float32(len(items))
    share = np.float32(1) / np.float32(max(1, wide - 1))
    for n in range(start, stop):
        if n + AHEAD < stop:
            prefetch(u, user[n + AHEAD])
            for k in range(wide):
                row = items[n + AHEAD, k]
                prefetch(v, row if row >= 0 else -1 - row)
        own, scale = user[n], weight[n] / batch
        positive = np.float32(0)
        total, sum_ = np.float32(0), np.float32(0)
        for k in range(wide):
            row = items[n, k]
            if row < 0:
                coefficient[n, k] = np.float32(0)
                items[n, k] = -1 - row
                continue
            score = np.float32(0)
            for j in range(dim):
                score += u[own, j] * v[row, j]
            score += user_bias[own, 0] + item_bias[row, 0] + offset
            if k == 0:
                positive = score
                if logistic:
                    x, factor = -score, np.float32(1)
                else:
                    continue
            elif logistic:
                x, factor = score, np.float32(4) * share
            else:
                x, factor = score - positive, share
            # softplus(x) and its slope, without overflow
            e = np.float32(math.exp(-abs(x)))
            total += factor * (max(x, np.float32(0)) + np.float32(math.log1p(e)))
            slope = scale * factor * ((np.float32(1) if x > 0 else e) / (np.float32(1) + e))
            if k == 0:
                coefficient[n, 0] = -slope
            else:
                coefficient[n, k] = slope
                sum_ += slope
        if not logistic:
            coefficient[n, 0] = -sum_
        loss[n] = scale * total


@compiled("i8(i8[::1],i8[::1],i8[::1],i8[::1],i8[::1])")
def group(rows, place, order, edge, distinct):
    """Group equal rows [n]: entry order[edge[x]:edge[x + 1]] are where distinct[x] stands. Return how many there are.

    place [R] is -1 everywhere before and after. order [n], edge [n + 1], distinct [n] are written. Groups are in the
    order of their first entry, and entries of a group in theirs.
    """
    count = 0
    for n in range(len(rows)):
        at = place[rows[n]]
        if at < 0:
            place[rows[n]] = count
            distinct[count] = rows[n]
            edge[count + 1] = 1
            count += 1
        else:
            edge[at + 1] += 1
    edge[0] = 0
    for x in range(count):
        edge[x + 1] += edge[x]
    for n in range(len(rows) - 1, -1, -1):
        at = place[rows[n]]
        edge[at + 1] -= 1
        order[edge[at + 1]] = n
    # every edge has moved to the beginning of its group: x + 1 holds what belongs to x
    for x in range(count):
        edge[x] = edge[x + 1]
        place[distinct[x]] = -1
    edge[count] = len(rows)
    return count


@compiled("(i8,i8,f4[:,::1],f4[:,::1],f4[:,::1],i8[::1],i8[::1],f4[::1],i8[::1],i8)")
def sums(start, stop, out, out_bias, table, order, edge, coefficient, rows, wide):
    """Write the sum of coefficient x table[row] over each group to out, and that of the coefficients to out_bias.

    Entry n of a group is row rows[n // wide]: for groups of items that is the user, who stands there once for 1 + K
    entries; for groups of users it is the item, and wide is 1.
    """
    dim = table.shape[1]
    for x in range(start, stop):
        bias = np.float32(0)
        for j in range(dim):
            out[x, j] = np.float32(0)
        for y in range(edge[x], edge[x + 1]):
            if y + AHEAD < len(order):
                prefetch(table, rows[order[y + AHEAD] // wide])
            n = order[y]
            c, row = coefficient[n], rows[n // wide]
            bias += c
            for j in range(dim):
                out[x, j] += c * table[row, j]
        out_bias[x, 0] = bias
