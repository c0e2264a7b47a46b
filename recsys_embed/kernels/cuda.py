"""Kernels for CUDA, in Triton: Adam of the touched rows; negatives; losses on pairs, with their sums and Adam in one.

They say the same as `RowLazyAdam` and as adam.py and pairs.py beside this, to rounding. A program works on a tile of
rows: threads lie along a row's numbers, so a row of 64 is read in 16 pieces of 16 bytes. Sums go in one fixed order and
nothing is added with atomics: equal seeds give equal bits.

This file needs Triton, which comes with torch for CUDA; `triton_available` says whether it is here.
"""
# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

# Numbers of a tile, and warps that share it: with 4 warps, eight numbers a thread of each array.
TILE, WARPS = 1024, 4
# A row that stands in a batch more often than this is summed in pieces, by several programs.
PIECE = 16
_TRIES = tl.constexpr(16)


class Table(NamedTuple):
    """A table [R, d], what Adam remembers of it, and how it moves in this step.

    weight: float32. mean, square: float32, or bfloat16, which is rounded up or down by chance, since to the nearest a
    square would never fall. steps: float32 [R], those of each row. shrunk: float64 [R], the logarithm of its
    shrinkage so far; now: what that is after this step. All are contiguous.
    """

    weight: Tensor
    mean: Tensor
    square: Tensor
    steps: Tensor
    shrunk: Tensor
    lr: float
    now: float

    def arguments(self) -> tuple[Any, ...]:
        """Return these as a kernel takes them: it has no float64 for numbers, so `now` goes in two parts."""
        high = _float32(self.now)
        return *self[:5], self.lr, high, self.now - high


def _float32(number: float) -> float:
    """Round to float32: 24 bits of the mantissa (its range is wider than any logarithm here)."""
    mantissa, exponent = math.frexp(number)
    return math.ldexp(round(mantissa * (1 << 24)), exponent - 24)


@triton.jit
def _hashed(seed, place):
    """compiled.hashed: 64 bits that a seed and a place give."""
    x = seed.to(tl.uint64) + place.to(tl.uint64) * 0x9E3779B97F4A7C15
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit
def _to_one(x):
    """1 - exp(x) for x <= 0, without the loss of digits near zero, where Adam's first steps are."""
    near = x / 5 * (1 + x / 6 * (1 + x / 7 * (1 + x / 8)))
    near = -x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + near))))
    return tl.where(x > -0.5, near, 1 - tl.exp(x))


@triton.jit
def _rounded(x, noise):
    """float32 -> bfloat16, up or down by 16 bits of noise, right on average; nan and infinity stay."""
    bits = x.to(tl.uint32, bitcast=True)
    bits = tl.where(x == x, bits + (noise & 0xFFFF).to(tl.uint32), bits)
    return (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@triton.jit
def _paces(count, shrunk, row, on, lr, high, low, log1, log2, DECAYS: tl.constexpr):
    """Count a step of rows [R]; return what is kept of their weights, and the factors of the bias corrections."""
    steps = tl.load(count + row, mask=on, other=0.0) + 1.0
    keep = tl.full(steps.shape, 1.0, tl.float32)
    if DECAYS:
        now = tl.full(steps.shape, 0.0, tl.float64) + high + low
        then = tl.load(shrunk + row, mask=on, other=0.0)
        keep = tl.exp((now - then).to(tl.float32))
        # Threads of several warps read the same numbers: all must have done so before one of them writes.
        tl.debug_barrier()
        tl.store(shrunk + row, now, mask=on)
    else:
        tl.debug_barrier()
    tl.store(count + row, steps, mask=on)
    return keep, lr / _to_one(steps * log1), 1.0 / _to_one(steps * log2), steps


@triton.jit
def _move(weight, mean, square, place, on, old, g, keep, pace, scale, steps, beta1, beta2, eps, HALF: tl.constexpr):
    """Move numbers at `place` from `old` by their gradient; everything here is of one shape."""
    m = beta1 * tl.load(mean + place, mask=on, other=0.0).to(tl.float32) + (1 - beta1) * g
    s = beta2 * tl.load(square + place, mask=on, other=0.0).to(tl.float32) + (1 - beta2) * g * g
    tl.debug_barrier()
    if HALF:
        noise = _hashed(steps.to(tl.int64), place)
        tl.store(mean + place, _rounded(m, noise), mask=on)
        tl.store(square + place, _rounded(s, noise >> 16), mask=on)
    else:
        tl.store(mean + place, m, mask=on)
        tl.store(square + place, s, mask=on)
    tl.store(weight + place, keep * old - pace * m / (tl.sqrt(s * scale) + eps), mask=on)


@triton.jit
def _move_rows(
    weight, mean, square, count, shrunk, lr, high, low, row, on, old, g, wide_on, d, cols, beta1, beta2, eps, log1,
    log2, DECAYS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """Move rows [R] of a matrix from `old` by their gradient g, [R, D] both."""
    keep, pace, scale, steps = _paces(count, shrunk, row, on, lr, high, low, log1, log2, DECAYS)
    place = row[:, None] * d + cols[None, :]
    each = tl.zeros(place.shape, tl.float32) + steps[:, None]
    _move(
        weight, mean, square, place, wide_on, old, g, keep[:, None], pace[:, None], scale[:, None], each, beta1, beta2,
        eps, HALF,
    )  # fmt: skip


@triton.jit
def _move_biases(
    weight, mean, square, count, shrunk, lr, high, low, row, on, old, g, beta1, beta2, eps, log1, log2,
    DECAYS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """The same for a table of one column."""
    keep, pace, scale, steps = _paces(count, shrunk, row, on, lr, high, low, log1, log2, DECAYS)
    _move(weight, mean, square, row, on, old, g, keep, pace, scale, steps, beta1, beta2, eps, HALF)


@triton.jit(do_not_specialize=["n"])
def _every(
    weight, mean, square, count, shrunk, lr, high, low, gradient, n, beta1, beta2, eps, log1, log2,
    DECAYS: tl.constexpr, HALF: tl.constexpr, d: tl.constexpr, D: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Move all rows [n] of a matrix by a gradient of its shape."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    on = row < n
    cols = tl.arange(0, D)
    wide_on = on[:, None] & (cols < d)[None, :]
    place = row[:, None] * d + cols[None, :]
    g = tl.load(gradient + place, mask=wide_on, other=0.0)
    old = tl.load(weight + place, mask=wide_on, other=0.0)
    _move_rows(
        weight, mean, square, count, shrunk, lr, high, low, row, on, old, g, wide_on, d, cols, beta1, beta2, eps, log1,
        log2, DECAYS, HALF,
    )  # fmt: skip


@triton.jit(do_not_specialize=["n", "choices", "seed"])
def _draw(
    compared, key, user, item, rated, choices, edges, first, known, n, seed,
    WIDE: tl.constexpr, DEPTH: tl.constexpr, EVEN: tl.constexpr, CHOICE_STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    on = e < n * WIDE
    b = e // WIDE
    drawn = on & (e % WIDE > 0)
    row = tl.load(item + b, mask=on, other=0).to(tl.int64)
    who = tl.load(user + b, mask=drawn, other=0).to(tl.int64)
    low = tl.load(first + who, mask=drawn, other=0).to(tl.int64)
    high = tl.load(first + who + 1, mask=drawn, other=0).to(tl.int64)
    again = drawn
    tries = 0
    while (tries < _TRIES) & (tl.max(again.to(tl.int32), 0) > 0):
        x = _hashed(seed, e * _TRIES + tries)
        if EVEN:
            at = (((x >> 32) * choices.to(tl.uint64)) >> 32).to(tl.int64)
        else:
            point = (x >> 11).to(tl.int64).to(tl.float64) * (1.0 / 9007199254740992.0)
            at = tl.zeros([BLOCK], tl.int64)
            end = tl.zeros([BLOCK], tl.int64) + choices
            for _ in range(CHOICE_STEPS):  # the first edge beyond the point
                middle = (at + end) // 2
                below = tl.load(edges + middle, mask=at < end, other=0.0) <= point
                at, end = tl.where((at < end) & below, middle + 1, at), tl.where((at < end) & ~below, middle, end)
            at = tl.minimum(at, choices - 1)
        chosen = tl.load(rated + at, mask=again, other=0).to(tl.int64)
        row = tl.where(again, chosen, row)
        a, z = low, high
        for _ in range(DEPTH):
            middle = (a + z) // 2
            less = tl.load(known + middle, mask=again & (a < z), other=0).to(tl.int64) < row
            a, z = tl.where((a < z) & less, middle + 1, a), tl.where((a < z) & ~less, middle, z)
        again = again & (a < high) & (tl.load(known + a, mask=again & (a < high), other=-1).to(tl.int64) == row)
        tries += 1
    tl.store(compared + e, tl.where(again, -1 - row, row), mask=on)
    tl.store(key + e, row, mask=on)


@triton.jit
def _group(keys, at, key, stop, on):
    """Return whether entries `at`, where their piece has not ended, still are of the row `key`."""
    on = on & (at < stop)
    return on & (tl.load(keys + at, mask=on, other=-1) == key)


@triton.jit
def _begin(keys, n, LEAD: tl.constexpr, R: tl.constexpr, PIECE: tl.constexpr):
    """Return the first entries of this program's groups, where there are any, and their rows, [R] each.

    Entries are sorted by row, and cut into pieces of PIECE. A group is summed by who finds its first entry; what of it
    lies in later pieces was summed before, for each piece (LEAD).
    """
    at = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    if LEAD:
        at = at * PIECE
    on = at < n
    key = tl.load(keys + at, mask=on, other=-1)
    before = tl.load(keys + at - 1, mask=on & (at > 0), other=-2)
    if LEAD:
        on = on & (key == before)
    else:
        on = on & (key != before)
    stop = tl.minimum((at // PIECE + 1) * PIECE, n)
    return at, on, key, stop


@triton.jit
def _rest(keys, n, at, key, on, g, bias, part, part_bias, d, cols, wide_on, PIECE: tl.constexpr):
    """Add to g [R, D] and bias [R] what was summed of the groups' later pieces."""
    piece = at // PIECE + 1
    more = _group(keys, piece * PIECE, key, n, on)
    while tl.max(more.to(tl.int32), 0) > 0:
        place = piece[:, None] * d + cols[None, :]
        g += tl.load(part + place, mask=more[:, None] & wide_on, other=0.0)
        bias += tl.load(part_bias + piece, mask=more, other=0.0)
        piece += 1
        more = _group(keys, piece * PIECE, key, n, more)
    return g, bias


@triton.jit
def _softplus(x):
    """Return log(1 + exp(x)) and its slope, without overflow."""
    e = tl.exp(-tl.abs(x))
    # log(1 + e) loses its digits where e is small: there it is e - e^2 / 2 + e^3 / 3
    log = tl.where(e > 0.01, tl.log(1 + e), e * (1 - e * (0.5 - e / 3)))
    return tl.maximum(x, 0.0) + log, tl.where(x > 0, 1.0, e) / (1 + e)


@triton.jit
def _slopes(
    u, own_bias, v, item_bias, compared, weight, offset, coefficient, terms, b, on, wide_on, batch, d, cols,
    WIDE: tl.constexpr, LOGISTIC: tl.constexpr, BIASES: tl.constexpr,
):  # fmt: skip
    """Score ratings b [R] of users u [R, D] and their negatives; write each score's slope and the loss's terms.

    Return the gradient of u, and that of the users' biases. Losses as in model/losses.py.
    """
    scale = tl.load(weight + b, mask=on, other=0.0) / batch
    share = 1.0 / (WIDE - 1 if WIDE > 1 else 1)
    each = on[:, None] & wide_on
    entry = b * WIDE
    row = tl.load(compared + entry, mask=on, other=0).to(tl.int64)
    v0 = tl.load(v + row[:, None] * d + cols[None, :], mask=each, other=0.0)
    positive = tl.sum(u * v0, 1)
    if BIASES:
        positive += own_bias + tl.load(item_bias + row, mask=on, other=0.0)
    total = tl.zeros_like(positive)
    pushed = tl.zeros_like(positive)
    if LOGISTIC:
        positive += tl.load(offset)
        total, slope = _softplus(-positive)
        first = -scale * slope
        factor = 4.0 * share
    else:
        first = total
        factor = share
    g = first[:, None] * v0
    for k in range(1, WIDE):
        coded = tl.load(compared + entry + k, mask=on, other=-1).to(tl.int64)
        counts = coded >= 0  # -1 - row: the user knows it, so it is no negative
        row = tl.where(counts, coded, 0)
        vk = tl.load(v + row[:, None] * d + cols[None, :], mask=each & counts[:, None], other=0.0)
        x = tl.sum(u * vk, 1)
        if BIASES:
            x += own_bias + tl.load(item_bias + row, mask=on & counts, other=0.0)
        if LOGISTIC:
            x += tl.load(offset)
        else:
            x -= positive
        term, slope = _softplus(x)
        slope = tl.where(counts, scale * factor * slope, 0.0)
        total += tl.where(counts, factor * term, 0.0)
        pushed += slope
        g += slope[:, None] * vk
        tl.store(coefficient + entry + k, slope, mask=on)
    if LOGISTIC:
        pushed += first
    else:
        g -= pushed[:, None] * v0
        first = -pushed
    tl.store(coefficient + entry, first, mask=on)
    tl.store(terms + b, scale * total, mask=on)
    return g, pushed


@triton.jit(do_not_specialize=["n", "batch"])
def _users(
    keys, order, n, u_weight, u_mean, u_square, u_count, u_shrunk, u_lr, u_high, u_low,
    b_weight, b_mean, b_square, b_count, b_shrunk, b_lr, b_high, b_low,
    v, item_bias, compared, weight, offset, coefficient, terms, old, slot, part, part_bias, batch,
    beta1, beta2, eps, log1, log2, LEAD: tl.constexpr, LOGISTIC: tl.constexpr, BIASES: tl.constexpr,
    DECAYS: tl.constexpr, BIAS_DECAYS: tl.constexpr, HALF: tl.constexpr, BIAS_HALF: tl.constexpr, WIDE: tl.constexpr,
    d: tl.constexpr, D: tl.constexpr, R: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    at, on, key, stop = _begin(keys, n, LEAD, R, PIECE)
    row = tl.where(on, key, 0).to(tl.int64)
    cols = tl.arange(0, D)
    inside = (cols < d)[None, :]
    wide_on = on[:, None] & inside
    mine = tl.load(u_weight + row[:, None] * d + cols[None, :], mask=wide_on, other=0.0)
    own_bias = tl.zeros([R], tl.float32)
    if LOGISTIC and BIASES:  # BPR compares scores of one user: their bias is in both
        own_bias = tl.load(b_weight + row, mask=on, other=0.0)
    g, bias = tl.zeros([R, D], tl.float32), tl.zeros([R], tl.float32)
    entry, active = at, on
    while tl.max(active.to(tl.int32), 0) > 0:
        b = tl.load(order + entry, mask=active, other=0).to(tl.int64)
        more, more_bias = _slopes(
            mine, own_bias, v, item_bias, compared, weight, offset, coefficient, terms, b, active, inside, batch, d,
            cols, WIDE, LOGISTIC, BIASES,
        )  # fmt: skip
        g += tl.where(active[:, None], more, 0.0)
        bias += tl.where(active, more_bias, 0.0)
        tl.store(slot + b, at, mask=active)
        entry += 1
        active = _group(keys, entry, key, stop, active)
    tl.store(old + at[:, None] * d + cols[None, :], mine, mask=wide_on)
    if LEAD:
        piece = at // PIECE
        tl.store(part + piece[:, None] * d + cols[None, :], g, mask=wide_on)
        tl.store(part_bias + piece, bias, mask=on)
    else:
        g, bias = _rest(keys, n, at, key, on, g, bias, part, part_bias, d, cols, inside, PIECE)
        _move_rows(
            u_weight, u_mean, u_square, u_count, u_shrunk, u_lr, u_high, u_low, row, on, mine, g, wide_on, d, cols,
            beta1, beta2, eps, log1, log2, DECAYS, HALF,
        )  # fmt: skip
        if LOGISTIC and BIASES:
            _move_biases(
                b_weight, b_mean, b_square, b_count, b_shrunk, b_lr, b_high, b_low, row, on, own_bias, bias,
                beta1, beta2, eps, log1, log2, BIAS_DECAYS, BIAS_HALF,
            )  # fmt: skip


@triton.jit(do_not_specialize=["n"])
def _sums(
    keys, order, n, v_weight, v_mean, v_square, v_count, v_shrunk, v_lr, v_high, v_low,
    b_weight, b_mean, b_square, b_count, b_shrunk, b_lr, b_high, b_low,
    coefficient, old, slot, part, part_bias,
    beta1, beta2, eps, log1, log2, LEAD: tl.constexpr, GIVEN: tl.constexpr, BIASES: tl.constexpr,
    DECAYS: tl.constexpr, BIAS_DECAYS: tl.constexpr, HALF: tl.constexpr, BIAS_HALF: tl.constexpr, WIDE: tl.constexpr,
    d: tl.constexpr, D: tl.constexpr, R: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """Move rows by the sum over their entries e of coefficient[e] x old[slot[e // WIDE]]; or of old[e] (GIVEN)."""
    at, on, key, stop = _begin(keys, n, LEAD, R, PIECE)
    cols = tl.arange(0, D)
    inside = (cols < d)[None, :]
    wide_on = on[:, None] & inside
    g, bias = tl.zeros([R, D], tl.float32), tl.zeros([R], tl.float32)
    entry, active = at, on
    while tl.max(active.to(tl.int32), 0) > 0:
        e = tl.load(order + entry, mask=active, other=0).to(tl.int64)
        if GIVEN:
            g += tl.load(old + e[:, None] * d + cols[None, :], mask=active[:, None] & inside, other=0.0)
        else:
            c = tl.load(coefficient + e, mask=active, other=0.0)
            place = tl.load(slot + e // WIDE, mask=active, other=0).to(tl.int64)
            from_ = tl.load(old + place[:, None] * d + cols[None, :], mask=active[:, None] & inside, other=0.0)
            g += c[:, None] * from_
            bias += c
        entry += 1
        active = _group(keys, entry, key, stop, active)
    if LEAD:
        piece = at // PIECE
        tl.store(part + piece[:, None] * d + cols[None, :], g, mask=wide_on)
        tl.store(part_bias + piece, bias, mask=on)
    else:
        g, bias = _rest(keys, n, at, key, on, g, bias, part, part_bias, d, cols, inside, PIECE)
        row = tl.where(on, key, 0).to(tl.int64)
        mine = tl.load(v_weight + row[:, None] * d + cols[None, :], mask=wide_on, other=0.0)
        _move_rows(
            v_weight, v_mean, v_square, v_count, v_shrunk, v_lr, v_high, v_low, row, on, mine, g, wide_on, d, cols,
            beta1, beta2, eps, log1, log2, DECAYS, HALF,
        )  # fmt: skip
        if BIASES:
            own_bias = tl.load(b_weight + row, mask=on, other=0.0)
            _move_biases(
                b_weight, b_mean, b_square, b_count, b_shrunk, b_lr, b_high, b_low, row, on, own_bias, bias,
                beta1, beta2, eps, log1, log2, BIAS_DECAYS, BIAS_HALF,
            )  # fmt: skip


class Rates(NamedTuple):
    """Adam's constants."""

    beta1: float
    beta2: float
    eps: float

    def arguments(self) -> tuple[float, ...]:
        """Return these as a kernel takes them, with the logarithms of the betas."""
        logs = (math.log(beta) if beta else -math.inf for beta in self[:2])
        return *self, *logs


def _tile(dim: int) -> dict[str, int]:
    wide = triton.next_power_of_2(dim)
    return {"d": dim, "D": wide, "R": max(1, min(128, TILE // wide)), "num_warps": WARPS}


def _half(table: Table) -> bool:
    return table.mean.element_size() == 2


def adam(table: Table, rows: Sorted | None, gradient: Tensor, rates: Rates) -> None:
    """Move rows [n] of a table by their gradient [n, d]; None for rows: all, in order.

    rows: ascending, with the order in which they stand in the gradient; those that are there twice are summed first, in
    that order. r = 4 d bytes each: the gradient, and weights and two moments, read and written; 7 r a distinct row.
    """
    n, tile = len(gradient), _tile(table.weight.shape[1])
    options: dict[str, Any] = {"DECAYS": table.now != 0, "HALF": _half(table), **tile}
    if not n:
        return
    if rows is None:
        _every[(triton.cdiv(n, tile["R"]),)](*table.arguments(), gradient, n, *rates.arguments(), **options)
        return
    pieces = -(-n // PIECE)
    part, part_bias = gradient.new_empty(pieces, tile["d"]), gradient.new_empty(pieces)
    for lead in (True, False):
        _sums[(triton.cdiv(pieces if lead else n, tile["R"]),)](
            *rows, n, *table.arguments(), *table.arguments(), gradient, gradient, rows.order, part, part_bias,
            *rates.arguments(), WIDE=1, LEAD=lead, GIVEN=True, BIASES=False, BIAS_DECAYS=False, BIAS_HALF=False,
            PIECE=PIECE, **options,
        )  # fmt: skip


class Drawn(NamedTuple):
    """Ratings' items and their negatives, int32 [B, 1 + K] each.

    compared: -1 - row for a negative that the user knows. row: without that.
    """

    compared: Tensor
    row: Tensor


def draw(
    out: Drawn,
    user: Tensor,
    item: Tensor,
    rated: Tensor,
    edges: Tensor | None,
    known: tuple[Tensor, Tensor],
    depth: int,
    seed: int,
) -> None:
    """Fill `out` for ratings [B] with uniform draws among `rated`, as pairs.draw does: with the same, for equal seeds.

    edges: float64, the cumulated chances of `rated`, where they differ. known: start and item of `UserItems`; depth:
    the bits of the longest list there. seed: from 2^32 on, so that a kernel need not be compiled for shorter numbers too.
    """
    n, wide = out.compared.shape
    steps = len(rated).bit_length()
    options: dict[str, Any] = {
        "WIDE": wide,
        "DEPTH": depth,
        "EVEN": edges is None,
        "CHOICE_STEPS": steps,
        "BLOCK": 256,
        "num_warps": 4,
    }
    _draw[(triton.cdiv(n * wide, 256),)](
        *out, user, item, rated, len(rated), rated if edges is None else edges, *known, n, seed, **options
    )


class Workspace(NamedTuple):
    """Memory of a step on B ratings with K negatives each.

    coefficient: float32 [B, 1 + K], the slope of the loss by each score. terms: float32 [B], what each rating adds to
    the loss. old: float32 [B, d], users' vectors as they were; slot: int32 [B], where each rating's stands there.
    part: float32 [P, d] and part_bias: [P], sums of pieces, P of B * (1 + K) / PIECE.
    """

    coefficient: Tensor
    terms: Tensor
    old: Tensor
    slot: Tensor
    part: Tensor
    part_bias: Tensor


class Sorted(NamedTuple):
    """Rows [n], ascending, and where each stood before."""

    rows: Tensor
    order: Tensor


def pairs(
    users: Table,
    items: Table,
    biases: tuple[Table | None, Table | None],
    by_user: Sorted,
    by_item: Sorted,
    compared: Tensor,
    weight: Tensor,
    offset: Tensor,
    room: Workspace,
    rates: Rates,
    logistic: bool,
) -> None:
    """Take a whole step of BPR or of the logistic loss: scores, gradient, sums and Adam; no gradient is written.

    by_user: the ratings' users [B]; by_item: rows of their items and negatives, of the flattened [B, 1 + K].

    First the users: who finds a user's first rating reads the user once, and each of their items; scores them, sums
    the gradient, and moves the user. Items still are as they were, since nothing has moved them. Then the items, with
    users as they were, which the first pass has left in `old`: one row more to write, and none to read. With K = 1, all
    rows distinct and r = 4 d bytes a row a rating costs: users 9 r (itself and two moments read and written, two items
    read, `old` written), items twice 7 r (an old user read, itself and two moments read and written): 23 r, which is
    5.9 kB for d = 64 where 18 r (4.6 kB) must move. Beside that each row's count, shrinkage and bias with its own
    state lie in 32 bytes each, read and written: 1 kB; and sorting moves .3 kB.
    """
    n, wide = compared.shape
    own, their = biases
    logistic_bias = own if logistic else None
    tile = _tile(users.weight.shape[1])
    grid = triton.cdiv(n, tile["R"]), triton.cdiv(n * wide, tile["R"])
    leads = tuple(triton.cdiv(-(-entries // PIECE), tile["R"]) for entries in (n, n * wide))
    options: dict[str, Any] = {"WIDE": wide, "BIASES": their is not None, "PIECE": PIECE, **tile}
    for lead in (True, False):
        bias = logistic_bias or users
        _users[(leads[0] if lead else grid[0],)](
            *by_user, n, *users.arguments(), *bias.arguments(),
            items.weight, (their or items).weight, compared, weight, offset, *room, n, *rates.arguments(),
            LEAD=lead, LOGISTIC=logistic, DECAYS=users.now != 0, BIAS_DECAYS=bias.now != 0, HALF=_half(users),
            BIAS_HALF=_half(bias), **options,
        )  # fmt: skip
    for lead in (True, False):
        bias = their or items
        _sums[(leads[1] if lead else grid[1],)](
            *by_item, n * wide, *items.arguments(), *bias.arguments(),
            room.coefficient, *room[2:], *rates.arguments(),
            LEAD=lead, GIVEN=False, DECAYS=items.now != 0, BIAS_DECAYS=bias.now != 0, HALF=_half(items),
            BIAS_HALF=_half(bias), **options,
        )  # fmt: skip
