"""Products with sparse interaction matrices: faster than products of full matrices, most of which are zeros."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from recsys_embed.kernels.compiled import compiled

# Columns of a table summed at a time: 2 KB a row, so that those columns of all items stay in a cache.
_COLUMNS = 512


@compiled("(i8,i8,f4[:,::1],i4[::1],i4[::1],i4[::1],i4[::1])")
def cooccurrences(start, stop, out, user_indptr, user, item_indptr, item):
    """Write the number of users who interacted with both of two items to out [items, items].

    The users of item i are user[user_indptr[i]:user_indptr[i + 1]], and the items of user u are
    item[item_indptr[u]:item_indptr[u + 1]].
    """
    for i in range(start, stop):
        line = out[i]
        line[:] = np.float32(0)
        for u in user[user_indptr[i] : user_indptr[i + 1]]:
            for j in item[item_indptr[u] : item_indptr[u + 1]]:
                line[j] += np.float32(1)


@compiled("(i8,i8,f4[:,::1],i4[::1],i4[::1],f4[:,::1])")
def sum_rows(start, stop, out, indptr, item, table):
    """Write the sum of rows item[indptr[x]:indptr[x + 1]] of a table [items, d] to out[x], for each x."""
    for first in range(0, table.shape[1], _COLUMNS):
        columns = slice(first, first + _COLUMNS)
        for x in range(start, stop):
            line, rows = out[x, columns], item[indptr[x] : indptr[x + 1]]
            line[:] = np.float32(0)
            for y in range(0, len(rows) - 3, 4):  # four rows at a time: the sum is read and written a quarter as often
                a, b, c, d = table[rows[y]], table[rows[y + 1]], table[rows[y + 2]], table[rows[y + 3]]
                a, b, c, d = a[columns], b[columns], c[columns], d[columns]
                for j in range(len(line)):
                    line[j] += a[j] + b[j] + c[j] + d[j]
            for y in range(len(rows) - len(rows) % 4, len(rows)):
                a = table[rows[y]][columns]
                for j in range(len(line)):
                    line[j] += a[j]
