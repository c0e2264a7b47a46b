"""The best of each line of a table of scores."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numba
import numpy as np

from recsys_embed.kernels.compiled import compiled

# Scores that are looked at together: where none of them is good enough, none is looked at alone.
_PART = 32
_LEAST = np.float32(np.finfo(np.float32).min)


@numba.njit(inline="always")
def _ordered(bits):
    """Return the 32 bits of a float as an integer; these are in the order of the floats."""
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


# Lines are worked on by slices: an index into one is seen not to be negative, and only then do loops become vectors.
@numba.njit(inline="always")
def _enough(line, k, group, order):
    """Return a score that at least k of a line [n] reach, and not many more.

    group, order [wide]: room for as many groups, at least k, and 4 k where there are so many scores.
    """
    wide, bits = len(group), group.view(np.int32)
    group[:] = np.float32(-np.inf)
    for begin in range(0, len(line), wide):
        part = line[begin : begin + wide]
        for y in range(len(part)):
            group[y] = part[y] if part[y] > group[y] else group[y]
    # The k-th best of the groups' best, bit by bit: a branch on what the scores are would be a guess, wrong each time.
    for y in range(wide):
        order[y] = _ordered(bits[y])
    low = -(1 << 31)
    for bit in range(31, -1, -1):
        tried, count = np.int32(low + (1 << bit)), 0
        for y in range(wide):
            count += order[y] >= tried
        low += (1 << bit) * (count >= k)
    least = np.float32(np.inf)
    for y in range(wide):
        if order[y] >= low and group[y] < least:
            least = group[y]
    return max(least, _LEAST)


@numba.njit(inline="always")
def _reach(line, enough, at):
    """Write the rows of the scores that are good enough to at [n], ascending, and return how many they are."""
    found = 0
    for begin in range(0, len(line), _PART):
        part, any_ = line[begin : begin + _PART], False
        for y in range(len(part)):
            any_ |= part[y] >= enough
        if any_:
            for y in range(len(part)):
                at[found] = begin + y
                found += part[y] >= enough
    return found


@compiled("(i8,i8,f4[:,::1],i8[::1],i8[::1],i8[::1],f4[:,::1],i8[:,::1])")
def best(start, stop, table, barred, edge, hidden, scores, rows):
    """Write the k best of each line of a table [b, n], 0 < k <= n, to scores [b, k] and rows [b, k], best first.

    Equal scores go by ascending row. -inf, and what is no number, is never found: a line ends in -inf and row -1.
    barred: rows that no line may find; hidden[edge[x]:edge[x + 1]]: those that line x may not. They are -inf in the
    table afterwards.
    """
    n, k, nothing, all_bits = table.shape[1], scores.shape[1], np.float32(-np.inf), table.view(np.int32)
    wide = min(n, max(256, 4 * k))
    group, order = np.empty(wide, np.float32), np.empty(wide, np.int32)
    at, key = np.empty(n, np.int64), np.empty(n, np.int64)
    for x in range(start, stop):
        line, bits = table[x], all_bits[x]
        for row in barred:
            line[row] = nothing
        for row in hidden[edge[x] : edge[x + 1]]:
            line[row] = nothing
        found = _reach(line, _enough(line, k, group, order), at)
        for y in range(found):  # score and row in one number, the best one least; zeros are equal, whatever their sign
            score = 0 if line[at[y]] == 0 else _ordered(bits[at[y]])
            key[y] = (~np.int64(score) << 32) | at[y]
        key[:found].sort()
        for y in range(k):
            row = key[y] & 0xFFFFFFFF if y < found else -1
            rows[x, y] = row
            scores[x, y] = line[row] if y < found else nothing
