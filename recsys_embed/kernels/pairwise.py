"""CPU kernels for pairwise losses, which compare a rating with negatives of its own: the draw and a whole step.

The ratings of a batch are ascending by user, [B] each. Each row of a table is read once, for its gradient and its Adam
step: `update_users` goes over the users, finds the gradient of every score and updates the users; `update_items` goes
over the items, using the vectors that the users had before. Only numbers pass between the two: no gradient of a table
is ever written.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from recsys_embed.kernels.adam import HYPER, ROW_STATE, TABLES, adam_step_row, prefetch_row
from recsys_embed.kernels.compiled import PREFETCH_AHEAD, compiled, hash64, inlined, prefetch

_TRIES = 16


@compiled("(i8,i8,i4[::1],i4[:,::1],i8[::1],i8[::1],i8[::1])")
def gather_batch(start, stop, user, items, rows, all_users, all_items):
    """Write the user [B] and the item, items[:, 0], of the given rows [B] of all ratings."""
    for n in range(start, stop):
        user[n], items[n, 0] = all_users[rows[n]], all_items[rows[n]]


@compiled("(i8,i8,i4[:,::1],i4[::1],i8[::1],i8[::1],i8[::1],u8)")
def draw_negatives(start, stop, items, user, candidates, indptr, known, seed):
    """Fill items[:, 1:] with uniform draws among the rows `candidates`, avoiding known positives of the user [B].

    indptr [users + 1], known [n]: each user's known positives, ascending, see `UserItems`. A known one is drawn again,
    up to 16 times; one that is left is stored as -1 - row. Draws are hashes of the seed and the position.
    """
    wide = items.shape[1]
    for n in range(start, stop):
        u = user[n]
        for k in range(1, wide):
            for tries in range(_TRIES):
                x = hash64(seed, (n * wide + k) * _TRIES + tries)
                row = candidates[np.int64(((x >> np.uint64(32)) * np.uint64(len(candidates))) >> np.uint64(32))]
                low, high = indptr[u], indptr[u + 1]
                while high - low > 8:
                    middle = (low + high) >> 1
                    below = known[middle] <= row
                    low, high = (middle if below else low), (high if below else middle)
                is_known = False
                for x in range(low, high):
                    is_known |= known[x] == row
                if not is_known:
                    items[n, k] = row
                    break
                items[n, k] = -1 - row


@inlined
def _softplus(x):
    """Return softplus(x) and its derivative, without overflow."""
    e = np.float32(math.exp(-abs(x)))
    return max(x, np.float32(0)) + np.float32(math.log1p(e)), (np.float32(1) if x > 0 else e) / (np.float32(1) + e)


@inlined
def _score_gradient(score_grad, items, scores, n, scale, logistic):
    """Write the derivatives of rating n's loss by its scores [1 + K]; return the loss, as defined in nets/losses.py."""
    wide = len(scores)
    share = scale / np.float32(max(1, wide - 1))
    total = sum_ = np.float32(0)
    for k in range(1, wide):
        score_grad[n, k] = np.float32(0)
        if items[n, k] >= 0:
            if logistic:
                loss, slope = _softplus(scores[k])
                factor = np.float32(4) * share
            else:
                loss, slope = _softplus(scores[k] - scores[0])
                factor = share
            total += factor * loss
            sum_ += factor * slope
            score_grad[n, k] = factor * slope
    if logistic:
        loss, slope = _softplus(-scores[0])
        score_grad[n, 0] = -scale * slope
        return total + scale * loss
    score_grad[n, 0] = -sum_
    return total


_PARAMETER = f"{TABLES},{ROW_STATE},{HYPER}"


@inlined
def _score(scores, u, user_row, v, v_bias, items, n, shift):
    """Write the scores of rating n's items [1 + K], known positives among the negatives included."""
    for k in range(len(scores)):
        row = items[n, k] if items[n, k] >= 0 else -1 - items[n, k]
        score = np.float32(0)
        for j in range(u.shape[1]):
            score += u[user_row, j] * v[row, j]
        scores[k] = score + v_bias[row, 0] + shift


@inlined
def _add_user_gradient(gradient, bias_grad, score_grad, v, items, n):
    """Add rating n's share to the gradients of its user's vector and bias; decode its known positives to plain rows."""
    for k in range(items.shape[1]):
        if items[n, k] < 0:
            items[n, k] = -1 - items[n, k]
        row, c = items[n, k], score_grad[n, k]
        bias_grad[0] += c
        for j in range(len(gradient)):
            gradient[j] += c * v[row, j]


@compiled(
    f"(i8,i8,f4[:,::1],i4[::1],f4[:,::1],f4[::1],{_PARAMETER},{_PARAMETER},f4[:,::1],f4[:,::1],i8[::1],i4[::1],"
    "i4[:,::1],f4[::1],f4,b1,b1)"
)
def update_users(
    start, stop, old_users, slot, score_grad, loss, tables, row_state, hyper, biases, bias_state, bias_hyper,
    v, v_bias, rows, user, items, weight, offset, with_biases, logistic,
):  # fmt: skip
    """Find the gradient of the scores of the users whose ratings begin in [start, stop), and update those users.

    rows [B]: the position of each rating among all ratings, whose weights are `weight`. items [B, 1 + K]: the positive
    first; -1 - row marks a known positive, which does not count as a negative, and is decoded to row. Written: the
    users' vectors before the update to old_users [B, d], at the user's first rating, whose position each rating gets in
    slot [B]; the derivatives to score_grad [B, 1 + K]; the terms of the loss to loss [B]. with_biases: whether the loss
    depends on the users' biases, and they are updated too.
    """
    total, dim = len(user), v.shape[1]
    scores, gradient = np.empty(items.shape[1], np.float32), np.empty(dim, np.float32)
    bias_grad = np.empty(1, np.float32)
    n = start
    while 0 < n < stop and user[n] == user[n - 1]:
        n += 1
    while n < stop:
        u, first = user[n], n
        gradient[:] = 0
        bias_grad[0] = 0
        while n < total and user[n] == u:
            if n + PREFETCH_AHEAD < total:
                if user[n + PREFETCH_AHEAD] != user[n + PREFETCH_AHEAD - 1]:
                    prefetch_row(tables, user[n + PREFETCH_AHEAD])
                for k in range(len(scores)):
                    row = items[n + PREFETCH_AHEAD, k]
                    prefetch(v, row if row >= 0 else -1 - row)
            slot[n] = first
            _score(scores, tables[0], u, v, v_bias, items, n, offset + (biases[0][u, 0] if with_biases else offset * 0))
            loss[n] = _score_gradient(score_grad, items, scores, n, weight[rows[n]] / np.float32(total), logistic)
            _add_user_gradient(gradient, bias_grad, score_grad, v, items, n)
            n += 1
        old_users[first] = tables[0][u]
        adam_step_row(tables, row_state, hyper, u, gradient)
        if with_biases:
            adam_step_row(biases, bias_state, bias_hyper, u, bias_grad)


@compiled("(i4[::1],i8[::1],i4[::1],i8[::1])")
def sort_within_batches(order, edges, batch_of, rows):
    """Sort each batch of a permutation: batch p is order[edges[p]:edges[p + 1]].

    rows [n]: gets the same batches, each ascending. batch_of [n]: gets the batch of each row.
    """
    for p in range(len(edges) - 1):
        for n in range(edges[p], edges[p + 1]):
            batch_of[order[n]] = p
    end = edges.copy()
    for n in range(len(order)):
        rows[end[batch_of[n]]] = n
        end[batch_of[n]] += 1


@inlined
def _select_entries(rows, low, high, chunk, key, entry):
    """Write the entries whose row is in [low, high), with row - low as key; return where they start and stop."""
    below = count = 0
    for e in range(len(rows)):
        below += rows[e] < low
        count += low <= rows[e] < high
    start = end = below + chunk  # chunks are one place apart, since the last write of each may go one too far
    for e in range(len(rows)):
        key[end], entry[end] = rows[e] - low, e
        end += low <= rows[e] < high
    return start, start + count


_DIGIT = 11


@inlined
def _radix_sort(start, stop, size, key, entry, spare_key, spare_entry):
    """Sort entries [start, stop) by key, from [0, size), keeping the order of equal keys; return keys and entries."""
    count = np.zeros(1 << _DIGIT, np.int32)
    shift = 0
    while shift == 0 or (size - 1) >> shift > 0:
        count[:] = 0
        for n in range(start, stop):
            count[(key[n] >> shift) & ((1 << _DIGIT) - 1)] += 1
        end = start
        for digit in range(1 << _DIGIT):
            count[digit], end = end, end + count[digit]
        for n in range(start, stop):
            digit = (key[n] >> shift) & ((1 << _DIGIT) - 1)
            spare_key[count[digit]], spare_entry[count[digit]] = key[n], entry[n]
            count[digit] += 1
        key, entry, spare_key, spare_entry = spare_key, spare_entry, key, entry
        shift += _DIGIT
    return key, entry


@compiled(f"(i8,i8,{_PARAMETER},{_PARAMETER},f4[:,::1],i4[::1],f4[:,::1],i4[:,::1],i8[::1],UniTuple(i4[::1],4),b1)")
def update_items(
    start, stop, tables, row_state, hyper, biases, bias_state, bias_hyper,
    old_users, slot, score_grad, items, edges, scratch, with_biases,
):  # fmt: skip
    """Update the items of the chunks [start, stop): chunk p has the item rows edges[p] to edges[p + 1].

    old_users, slot, score_grad, items: as `update_users` left them. scratch: four arrays, each with a place for every
    entry of items and one more for every chunk.
    """
    dim, wide = old_users.shape[1], items.shape[1]
    rows = items.reshape(items.size)
    gradient, bias_grad = np.empty(dim, np.float32), np.empty(1, np.float32)
    for chunk in range(start, stop):
        low, high = edges[chunk], edges[chunk + 1]
        first, end = _select_entries(rows, low, high, chunk, scratch[0], scratch[1])
        key, entry = _radix_sort(first, end, high - low, scratch[0], scratch[1], scratch[2], scratch[3])
        n = first
        while n < end:
            item = key[n]
            bias_grad[0] = np.float32(0)
            for j in range(dim):
                gradient[j] = np.float32(0)
            while n < end and key[n] == item:
                if n + 2 * PREFETCH_AHEAD < end:
                    if key[n + 2 * PREFETCH_AHEAD] != key[n + 2 * PREFETCH_AHEAD - 1]:
                        prefetch_row(tables, low + key[n + 2 * PREFETCH_AHEAD])
                    prefetch(old_users, slot[entry[n + 2 * PREFETCH_AHEAD] // wide])
                rating = entry[n] // wide
                c, row = score_grad[rating, entry[n] - rating * wide], slot[rating]
                bias_grad[0] += c
                for j in range(dim):
                    gradient[j] += c * old_users[row, j]
                n += 1
            adam_step_row(tables, row_state, hyper, low + item, gradient)
            if with_biases:
                adam_step_row(biases, bias_state, bias_hyper, low + item, bias_grad)
