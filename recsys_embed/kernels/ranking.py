"""The k best scores of each line of a table."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numba
import numpy as np

from recsys_embed.kernels.compiled import compiled

# Scores compared together: where none of them reaches the threshold, none is looked at alone.
_BLOCK = 32
_LOWEST = np.float32(np.finfo(np.float32).min)


@numba.njit(inline="always")
def _ordered(bits):
    """Map the 32 bits of a float to an integer so that the integers are in the order of the floats."""
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


# Lines are processed in slices: the compiler sees that an index into one is not negative, and only then vectorizes.
@numba.njit(inline="always")
def _threshold(line, k, group, order):
    """Return a score that at least k scores of a line [n] reach, and not many more.

    group, order [wide]: scratch for as many groups, at least k of them, and 4 k where there are that many scores.
    """
    wide, bits = len(group), group.view(np.int32)
    group[:] = np.float32(-np.inf)
    for first in range(0, len(line), wide):
        block = line[first : first + wide]
        for y in range(len(block)):
            group[y] = block[y] if block[y] > group[y] else group[y]
    # The k-th best of the groups' maxima, bit by bit: a branch on the scores would be mispredicted every time.
    for y in range(wide):
        order[y] = _ordered(bits[y])
    low = -(1 << 31)
    for bit in range(31, -1, -1):
        tried, count = np.int32(low + (1 << bit)), 0
        for y in range(wide):
            count += order[y] >= tried
        low += (1 << bit) * (count >= k)
    lowest = np.float32(np.inf)
    for y in range(wide):
        if order[y] >= low and group[y] < lowest:
            lowest = group[y]
    return max(lowest, _LOWEST)


@numba.njit(inline="always")
def _select(line, threshold, selected):
    """Write the rows of scores that reach the threshold to selected [n], ascending; return how many there are."""
    count = 0
    for first in range(0, len(line), _BLOCK):
        block, any_ = line[first : first + _BLOCK], False
        for y in range(len(block)):
            any_ |= block[y] >= threshold
        if any_:
            for y in range(len(block)):
                selected[count] = first + y
                count += block[y] >= threshold
    return count


@compiled("(i8,i8,f4[:,::1],i8[::1],i8[::1],i8[::1],f4[:,::1],i8[:,::1])")
def topk(start, stop, table, blocked, edges, excluded, scores, rows):
    """Write the k best of each line of a table [b, n], 0 < k <= n, to scores [b, k] and rows [b, k], best first.

    Equal scores go by ascending row. -inf and nan are never returned: a line with too few other scores ends in -inf
    and row -1. blocked: rows that no line may return; excluded[edges[x]:edges[x + 1]]: rows that line x may not. The
    table is -inf at those rows afterwards.
    """
    n, k, nothing, all_bits = table.shape[1], scores.shape[1], np.float32(-np.inf), table.view(np.int32)
    wide = min(n, max(256, 4 * k))
    group, order = np.empty(wide, np.float32), np.empty(wide, np.int32)
    selected, key = np.empty(n, np.int64), np.empty(n, np.int64)
    for x in range(start, stop):
        line, bits = table[x], all_bits[x]
        for row in blocked:
            line[row] = nothing
        for row in excluded[edges[x] : edges[x + 1]]:
            line[row] = nothing
        count = _select(line, _threshold(line, k, group, order), selected)
        for y in range(count):  # score and row as one number, the smallest for the best; -0 and 0 are equal
            score = 0 if line[selected[y]] == 0 else _ordered(bits[selected[y]])
            key[y] = (~np.int64(score) << 32) | selected[y]
        key[:count].sort()
        for y in range(k):
            row = key[y] & 0xFFFFFFFF if y < count else -1
            rows[x, y] = row
            scores[x, y] = line[row] if y < count else nothing
