"""What the CUDA kernels share: tiles, sorted rows cut into pieces, hashes.

A program works on a tile of rows: its threads lie along the numbers of a row, so a row of 64 is read in 16 pieces of 16
bytes. Sums are taken in one fixed order and without atomics, so equal seeds give equal bits.

This file needs Triton, which comes with torch for CUDA; `triton_available` says whether it is installed.
"""
# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

# Numbers in a tile, and warps that share it: with 4 warps, each thread has eight numbers of each array.
TILE, WARPS = 1024, 4
# A row that occurs in a batch more often than this is summed in pieces, by several programs.
PIECE = 16


class Sorted(NamedTuple):
    """Rows [n], ascending, and the position where each was before sorting."""

    rows: Tensor
    order: Tensor


def tile_options(dim: int) -> dict[str, int]:
    """Return the launch options of a kernel on rows of `dim` numbers: d, D (padded), R (rows in a tile), num_warps."""
    wide = triton.next_power_of_2(dim)
    return {"d": dim, "D": wide, "R": max(1, min(128, TILE // wide)), "num_warps": WARPS}


@triton.jit
def hash64(seed, index):
    """Hash a seed and an index to 64 bits, as compiled.hash64 does."""
    x = seed.to(tl.uint64) + index.to(tl.uint64) * 0x9E3779B97F4A7C15
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit
def same_group(keys, entry, key, stop, valid):
    """Return whether entries, where their piece has not ended, still belong to the row `key`."""
    valid = valid & (entry < stop)
    return valid & (tl.load(keys + entry, mask=valid, other=-1) == key)


@triton.jit
def first_entries(keys, n, LATER_PIECES: tl.constexpr, R: tl.constexpr, PIECE: tl.constexpr):
    """Return the first entry of each of this program's groups, whether there is one, its row, and its stop, [R] each.

    Entries are sorted by row and cut into pieces of PIECE. A group, which is all entries of a row, is summed by the
    program that finds its first entry; its later pieces were summed before, one by one (LATER_PIECES).
    """
    entry = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    if LATER_PIECES:
        entry = entry * PIECE
    valid = entry < n
    key = tl.load(keys + entry, mask=valid, other=-1)
    before = tl.load(keys + entry - 1, mask=valid & (entry > 0), other=-2)
    if LATER_PIECES:
        valid = valid & (key == before)
    else:
        valid = valid & (key != before)
    stop = tl.minimum((entry // PIECE + 1) * PIECE, n)
    return entry, valid, key, stop


@triton.jit
def add_later_pieces(keys, n, entry, key, valid, g, bias, partial, partial_bias, d, cols, inside, PIECE: tl.constexpr):
    """Add the sums of the groups' later pieces to g [R, D] and bias [R]."""
    piece = entry // PIECE + 1
    more = same_group(keys, piece * PIECE, key, n, valid)
    while tl.max(more.to(tl.int32), 0) > 0:
        index = piece[:, None] * d + cols[None, :]
        g += tl.load(partial + index, mask=more[:, None] & inside, other=0.0)
        bias += tl.load(partial_bias + piece, mask=more, other=0.0)
        piece += 1
        more = same_group(keys, piece * PIECE, key, n, more)
    return g, bias
