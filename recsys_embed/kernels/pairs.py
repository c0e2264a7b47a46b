"""Kernels for losses on a rating and negatives of its own: the draw, and a whole step of both tables.

A batch's ratings ascend by user, [B] each. Each row is read once for its gradient and its step of Adam: `users` goes
over the users, finds the gradient of every score, and moves them; `items` goes over the items, by the vectors that
their users had before. In between stand numbers alone: no gradient of a table is ever written.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from recsys_embed.kernels.adam import COUNTS, RATE, TABLES, ask, move
from recsys_embed.kernels.compiled import AHEAD, compiled, hashed, inlined, prefetch

_TRIES = 16


@compiled("(i8,i8,i4[::1],i4[:,::1],i8[::1],i8[::1],i8[::1])")
def gather(start, stop, user, items, rows, users, rated):
    """Write the user [B] and the item, items[:, 0], of some rows [B] of all ratings."""
    for n in range(start, stop):
        user[n], items[n, 0] = users[rows[n]], rated[rows[n]]


@compiled("(i8,i8,i4[:,::1],i4[::1],i8[::1],i8[::1],i8[::1],u8)")
def draw(start, stop, items, user, rated, first, known, seed):
    """Fill items[:, 1:] with uniform draws among the rows `rated` that the user [B] does not know.

    first [users + 1], known [n]: what each user knows, ascending, see `UserItems`. A known one is drawn again, 16 times
    at most; what is left is marked by -1 - row. The draws are hashes of the seed and the place.
    """
    wide = items.shape[1]
    for n in range(start, stop):
        own = user[n]
        for k in range(1, wide):
            for tries in range(_TRIES):
                x = hashed(seed, (n * wide + k) * _TRIES + tries)
                row = rated[np.int64(((x >> np.uint64(32)) * np.uint64(len(rated))) >> np.uint64(32))]
                low, high = first[own], first[own + 1]
                while high - low > 8:
                    middle = (low + high) >> 1
                    below = known[middle] <= row
                    low, high = (middle if below else low), (high if below else middle)
                found = False
                for x in range(low, high):
                    found |= known[x] == row
                if not found:
                    items[n, k] = row
                    break
                items[n, k] = -1 - row


@inlined
def _slope(x):
    """Return softplus(x) and its derivative, without overflow."""
    e = np.float32(math.exp(-abs(x)))
    return max(x, np.float32(0)) + np.float32(math.log1p(e)), (np.float32(1) if x > 0 else e) / (np.float32(1) + e)


@inlined
def _push(coefficient, items, scores, n, scale, logistic):
    """Write the derivatives of rating n's loss by its scores [1 + K]; return the loss. As in model/losses.py."""
    wide = len(scores)
    share = scale / np.float32(max(1, wide - 1))
    total = sum_ = np.float32(0)
    for k in range(1, wide):
        coefficient[n, k] = np.float32(0)
        if items[n, k] >= 0:
            if logistic:
                loss, slope = _slope(scores[k])
                factor = np.float32(4) * share
            else:
                loss, slope = _slope(scores[k] - scores[0])
                factor = share
            total += factor * loss
            sum_ += factor * slope
            coefficient[n, k] = factor * slope
    if logistic:
        loss, slope = _slope(-scores[0])
        coefficient[n, 0] = -scale * slope
        return total + scale * loss
    coefficient[n, 0] = -sum_
    return total


_SIDE = f"{TABLES},{COUNTS},{RATE}"


@inlined
def _score(scores, u, own, v, v_bias, items, n, shift):
    """Write the scores of rating n's items [1 + K], known ones too."""
    for k in range(len(scores)):
        row = items[n, k] if items[n, k] >= 0 else -1 - items[n, k]
        score = np.float32(0)
        for j in range(u.shape[1]):
            score += u[own, j] * v[row, j]
        scores[k] = score + v_bias[row, 0] + shift


@inlined
def _pull(gradient, one, coefficient, v, items, n):
    """Add rating n's share to the gradients of its user's vector and bias; known items are plain rows after it."""
    for k in range(items.shape[1]):
        if items[n, k] < 0:
            items[n, k] = -1 - items[n, k]
        row, c = items[n, k], coefficient[n, k]
        one[0] += c
        for j in range(len(gradient)):
            gradient[j] += c * v[row, j]


@compiled(
    f"(i8,i8,f4[:,::1],i4[::1],f4[:,::1],f4[::1],{_SIDE},{_SIDE},f4[:,::1],f4[:,::1],i8[::1],i4[::1],i4[:,::1],f4[::1],f4,b1,b1)"
)
def users(
    start, stop, before, first, coefficient, loss, tables, counts, rate, biases, bias_counts, bias_rate,
    v, v_bias, rows, user, items, weight, offset, biased, logistic,
):  # fmt: skip
    """Find the gradient of the scores of the users that begin in [start, stop), and move those users.

    rows [B]: where a rating stands among all, whose weights those are. items [B, 1 + K]: the positive first; -1 - row
    stands for a known item, which is no negative, and is turned to row. before [B, d]: gets the users' vectors as they
    were, at `first` [B], the first rating of the user. coefficient [B, 1 + K], loss [B]: get the derivatives and the
    terms. biased: whether the loss sees biases of users, and they move.
    """
    total, dim = len(user), v.shape[1]
    scores, gradient, one = np.empty(items.shape[1], np.float32), np.empty(dim, np.float32), np.empty(1, np.float32)
    n = start
    while 0 < n < stop and user[n] == user[n - 1]:
        n += 1
    while n < stop:
        own, begin = user[n], n
        gradient[:] = 0
        one[0] = 0
        while n < total and user[n] == own:
            if n + AHEAD < total:
                if user[n + AHEAD] != user[n + AHEAD - 1]:
                    ask(tables, user[n + AHEAD])
                for k in range(len(scores)):
                    row = items[n + AHEAD, k]
                    prefetch(v, row if row >= 0 else -1 - row)
            first[n] = begin
            _score(scores, tables[0], own, v, v_bias, items, n, offset + (biases[0][own, 0] if biased else offset * 0))
            loss[n] = _push(coefficient, items, scores, n, weight[rows[n]] / np.float32(total), logistic)
            _pull(gradient, one, coefficient, v, items, n)
            n += 1
        before[begin] = tables[0][own]
        move(tables, counts, rate, own, gradient)
        if biased:
            move(biases, bias_counts, bias_rate, own, one)


@compiled("(i4[::1],i8[::1],i4[::1],i8[::1])")
def part(order, edges, of, rows):
    """Order the rows of each part of a permutation: those of part p are order[edges[p]:edges[p + 1]] before.

    rows [n]: gets the same, ascending in each part. of [n]: gets the part of each row.
    """
    for p in range(len(edges) - 1):
        for n in range(edges[p], edges[p + 1]):
            of[order[n]] = p
    at = edges.copy()
    for n in range(len(order)):
        rows[at[of[n]]] = n
        at[of[n]] += 1


@inlined
def _select(rows, low, high, part, key, entry):
    """Write which entries have a row of [low, high), and what it is above low; return where they begin and end."""
    below = count = 0
    for e in range(len(rows)):
        below += rows[e] < low
        count += low <= rows[e] < high
    begin = at = below + part  # one place between parts, where the last write of each falls
    for e in range(len(rows)):
        key[at], entry[at] = rows[e] - low, e
        at += low <= rows[e] < high
    return begin, begin + count


_DIGIT = 11


@inlined
def _sort(begin, end, size, key, entry, key_too, entry_too):
    """Sort entries [begin, end) by their keys, of [0, size), and equal ones by themselves; return the two arrays."""
    count = np.zeros(1 << _DIGIT, np.int32)
    shift = 0
    while shift == 0 or (size - 1) >> shift > 0:
        count[:] = 0
        for n in range(begin, end):
            count[(key[n] >> shift) & ((1 << _DIGIT) - 1)] += 1
        at = begin
        for digit in range(1 << _DIGIT):
            count[digit], at = at, at + count[digit]
        for n in range(begin, end):
            digit = (key[n] >> shift) & ((1 << _DIGIT) - 1)
            key_too[count[digit]], entry_too[count[digit]] = key[n], entry[n]
            count[digit] += 1
        key, entry, key_too, entry_too = key_too, entry_too, key, entry
        shift += _DIGIT
    return key, entry


@compiled(f"(i8,i8,{_SIDE},{_SIDE},f4[:,::1],i4[::1],f4[:,::1],i4[:,::1],i8[::1],UniTuple(i4[::1],4),b1)")
def items(
    start, stop, tables, counts, rate, biases, bias_counts, bias_rate,
    before, first, coefficient, items, edges, room, biased,
):  # fmt: skip
    """Move the items of the parts [start, stop): part p has the rows edges[p] to edges[p + 1].

    before, first, coefficient, items: as `users` left them. room: for as many entries as items has, and one a part.
    """
    dim, wide = before.shape[1], items.shape[1]
    rows = items.reshape(items.size)
    gradient, one = np.empty(dim, np.float32), np.empty(1, np.float32)
    for part in range(start, stop):
        low, high = edges[part], edges[part + 1]
        begin, end = _select(rows, low, high, part, room[0], room[1])
        key, entry = _sort(begin, end, high - low, room[0], room[1], room[2], room[3])
        n = begin
        while n < end:
            own = key[n]
            one[0] = np.float32(0)
            for j in range(dim):
                gradient[j] = np.float32(0)
            while n < end and key[n] == own:
                if n + 2 * AHEAD < end:
                    if key[n + 2 * AHEAD] != key[n + 2 * AHEAD - 1]:
                        ask(tables, low + key[n + 2 * AHEAD])
                    prefetch(before, first[entry[n + 2 * AHEAD] // wide])
                at = entry[n] // wide
                c, row = coefficient[at, entry[n] - at * wide], first[at]
                one[0] += c
                for j in range(dim):
                    gradient[j] += c * before[row, j]
                n += 1
            move(tables, counts, rate, low + own, gradient)
            if biased:
                move(biases, bias_counts, bias_rate, low + own, one)
