"""Item-item weights from sparse co-occurrences: counting them, ridge regression on neighbours, and scoring by them."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from recsys_embed.kernels.compiled import called, compiled, inlined


@inlined
def _similarity(together, one, other, shrinkage):
    """Return a cosine, shrunk towards 0 where it rests on little."""
    return together / (np.float32(math.sqrt(one * other)) + shrinkage)


@called
def _largest(values, k):
    """Return the positions of the k largest values, ascending; equal values go by position."""
    threshold = np.partition(values, len(values) - k)[len(values) - k]
    kept, n_above = np.zeros(k, np.int32), 0
    for y in range(len(values)):
        n_above += values[y] > threshold
    n_equal, count = k - n_above, 0
    for y in range(len(values)):
        if values[y] > threshold or (values[y] == threshold and n_equal > 0):
            n_equal -= values[y] == threshold
            kept[count] = y
            count += 1
    return kept


@called
def _keep(kept, touched, i, sums, total, shrinkage):
    """Write the touched items other than i, or as many of the most similar as fit, to kept; return how many."""
    n_others = 0
    for y in range(len(touched)):
        if touched[y] != i:
            touched[n_others] = touched[y]
            n_others += 1
    if n_others <= len(kept):
        kept[:n_others] = touched[:n_others]
        return n_others
    if len(kept):
        similar = np.empty(n_others, np.float32)
        for y in range(n_others):
            similar[y] = _similarity(sums[touched[y]], total[i], total[touched[y]], shrinkage)
        best = _largest(similar, len(kept))
        for y in range(len(kept)):
            kept[y] = touched[best[y]]
    return len(kept)


@compiled("(i8,i8,i8[::1],i8[::1],i4[::1],i4[::1],f4[::1],i4[::1],i4[::1],f4[::1],i4[::1],i4[::1],f4[::1],f4[::1],f4)")
def cooccurrence_rows(
    start, stop, order, indptr, count, column, value, user_indptr, user, user_amount, item_indptr, item, item_amount,
    total, shrinkage
):  # fmt: skip
    """Write the co-occurrences X'X with all other items, for each item in order[start:stop].

    X is given by columns and by rows: the users of item i are user[user_indptr[i]:user_indptr[i + 1]], with amounts
    user_amount, and the items of user u are item[item_indptr[u]:item_indptr[u + 1]], with amounts item_amount, none of
    them 0. total [items]: the diagonal of X'X.
    Written for item i: the number of its entries to count[i], their items and values to column and value from
    indptr[i] on. Where there are more than fit before indptr[i + 1], the most similar are kept.
    """
    sums, touched = np.zeros(len(total), np.float32), np.empty(len(total), np.int32)
    for n in range(start, stop):
        i, found = order[n], 0
        for y in range(user_indptr[i], user_indptr[i + 1]):
            u, amount = user[y], user_amount[y]
            for x in range(item_indptr[u], item_indptr[u + 1]):
                j = item[x]
                if sums[j] == 0:
                    touched[found] = j
                    found += 1
                sums[j] += amount * item_amount[x]
        sums[i] = 0
        first, capacity = indptr[i], indptr[i + 1] - indptr[i]
        count[i] = _keep(column[first : first + capacity], touched[:found], i, sums, total, shrinkage)
        for y in range(first, first + count[i]):
            value[y] = sums[column[y]]
        for y in range(found):
            sums[touched[y]] = 0


@called
def _decompose(a, n):
    """Replace the lower triangle of a [n, n] by its Cholesky factor.

    Four columns at a time: each element of a row is read once for all of them.
    """
    for r in range(n):
        row = a[r]
        for c in range(0, r - r % 4, 4):
            one, two, three, four = a[c], a[c + 1], a[c + 2], a[c + 3]
            s1 = s2 = s3 = s4 = np.float32(0)
            for y in range(c):
                s1 += row[y] * one[y]
                s2 += row[y] * two[y]
                s3 += row[y] * three[y]
                s4 += row[y] * four[y]
            row[c] = (row[c] - s1) / one[c]
            row[c + 1] = (row[c + 1] - s2 - row[c] * two[c]) / two[c + 1]
            row[c + 2] = (row[c + 2] - s3 - row[c] * three[c] - row[c + 1] * three[c + 1]) / three[c + 2]
            last = row[c] * four[c] + row[c + 1] * four[c + 1] + row[c + 2] * four[c + 2]
            row[c + 3] = (row[c + 3] - s4 - last) / four[c + 3]
        for c in range(r - r % 4, r + 1):
            other, total = a[c], np.float32(0)
            for y in range(c):
                total += row[y] * other[y]
            if c < r:
                row[c] = (row[c] - total) / other[c]
            else:
                row[r] = np.float32(math.sqrt(max(row[r] - total, np.float32(1e-6) * row[r])))


@called
def _solve(a, b, n):
    """Solve a x = b [n] in place, given the Cholesky factor of a."""
    for r in range(n):
        row, total = a[r], np.float32(0)
        for y in range(r):
            total += row[y] * b[y]
        b[r] = (b[r] - total) / row[r]
    for r in range(n - 1, -1, -1):
        row = a[r]
        b[r] /= row[r]
        for y in range(r):
            b[y] -= row[y] * b[r]


@compiled("(i8,i8,i8[::1],i4[:,::1],f4[:,:,::1],i8[::1],i4[::1],i4[::1],f4[::1],f4[::1],f4[::1],f4[::1],f4,i4[::1])")
def local_ridge(
    start, stop, order, neighbour, weight, indptr, count, column, value, total, penalty, share, shrinkage, limit
):  # fmt: skip
    """Regress each item in order[start:stop] on its nearest neighbours, under R penalties.

    indptr, count, column, value, total: from `cooccurrence_rows`. With G the co-occurrences of the neighbours, the
    weights solve (G + penalty I + share diag(G)) w = g. penalty, share [R]. limit [items]: the most neighbours of each.
    Written for item i: its neighbours, or -1, to neighbour[i] [K]; their weights to weight[r, i] [K].
    """
    k_max, position = neighbour.shape[1], np.full(len(total), -1, np.int32)
    gram, work = np.empty((k_max, k_max), np.float32), np.empty((k_max, k_max), np.float32)
    for n in range(start, stop):
        i = order[n]
        first, size = indptr[i], count[i]
        k = min(size, k_max, limit[i])
        neighbour[i, k:], weight[:, i, k:] = -1, 0
        if not k:
            continue
        similar = np.empty(size, np.float32)
        for y in range(size):
            similar[y] = _similarity(value[first + y], total[i], total[column[first + y]], shrinkage)
        best = _largest(similar, k)
        target = np.empty(k, np.float32)
        for y in range(k):
            neighbour[i, y], target[y] = column[first + best[y]], value[first + best[y]]
            position[neighbour[i, y]] = y
        gram[:k, :k] = 0
        for y in range(k):
            j = neighbour[i, y]
            for e in range(indptr[j], indptr[j] + count[j]):
                x = position[column[e]]
                if x >= 0:  # a truncated row may lack an entry that the other item's row has
                    gram[y, x] = gram[x, y] = value[e]
            gram[y, y] = total[j]
        for r in range(len(penalty)):
            for y in range(k):
                work[y, :y] = gram[y, :y]
                work[y, y] = gram[y, y] * (1 + share[r]) + penalty[r]
                weight[r, i, y] = target[y]
            _decompose(work, k)
            _solve(work, weight[r, i], k)
        for y in range(k):
            position[neighbour[i, y]] = -1


# Arrays of a loaded model cannot be written to.
_READ = "Array({}, 1, 'C', readonly=True)"
_CSR = ",".join(_READ.format(kind) for kind in ("int64", "int32", "float32"))


@compiled(f"(i8,i8,f4[:,::1],{_CSR},{_CSR})")
def add_neighbour_scores(start, stop, scores, edges, item, amount, indptr, target, weight):
    """Add what items give to others to lines [start, stop) of scores [b, items].

    Line x has the items item[edges[x]:edges[x + 1]] with amounts; item j gives weight[e] to target[e] for e from
    indptr[j] to indptr[j + 1].
    """
    for x in range(start, stop):
        line = scores[x]
        for n in range(edges[x], edges[x + 1]):
            j = item[n]
            for e in range(indptr[j], indptr[j + 1]):
                line[target[e]] += amount[n] * weight[e]
