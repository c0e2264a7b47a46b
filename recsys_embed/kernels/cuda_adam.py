"""CUDA kernels, in Triton, for row-lazy Adam: all rows by a dense gradient, or some by the sum of their entries.

They give the same results as `RowLazyAdam` and as the kernels in adam.py, to rounding.
"""
# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import triton
import triton.language as tl

from recsys_embed.kernels import cuda_tiles
from recsys_embed.kernels.cuda_tiles import Sorted, add_later_pieces, first_entries, hash64, same_group, tile_options

if TYPE_CHECKING:
    from torch import Tensor


class Table(NamedTuple):
    """A table [R, d], its Adam state, and how it moves in this step.

    weight: float32. mean, square: float32, or bfloat16, which is rounded up or down at random, since rounding to the
    nearest would never let a square fall. steps: float32 [R], the steps of each row. log_decay: float64 [R], the log of
    the weight decay applied to each row so far; log_decay_now: what that is after this step. All are contiguous.
    """

    weight: Tensor
    mean: Tensor
    square: Tensor
    steps: Tensor
    log_decay: Tensor
    lr: float
    log_decay_now: float

    def arguments(self) -> tuple[Any, ...]:
        """Return the kernel arguments; `log_decay_now` is split in two, since scalars are float32."""
        high = _float32(self.log_decay_now)
        return *self[:5], self.lr, high, self.log_decay_now - high


class AdamConstants(NamedTuple):
    """Adam's betas and eps."""

    beta1: float
    beta2: float
    eps: float

    def arguments(self) -> tuple[float, ...]:
        """Return the kernel arguments: the constants and the logarithms of the betas."""
        logs = (math.log(beta) if beta else -math.inf for beta in self[:2])
        return *self, *logs


def _float32(number: float) -> float:
    """Round to float32: a mantissa of 24 bits (its range is wider than any logarithm here)."""
    mantissa, exponent = math.frexp(number)
    return math.ldexp(round(mantissa * (1 << 24)), exponent - 24)


def has_half_moments(table: Table) -> bool:
    """Return whether the moments of a table are kept in 16 bits."""
    return table.mean.element_size() == 2


@triton.jit
def _one_minus_exp(x):
    """Return 1 - exp(x) for x <= 0 without cancellation near zero, which is where Adam's first steps are."""
    series = x / 5 * (1 + x / 6 * (1 + x / 7 * (1 + x / 8)))
    series = -x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + series))))
    return tl.where(x > -0.5, series, 1 - tl.exp(x))


@triton.jit
def _stochastic_round(x, noise):
    """Round float32 to bfloat16 up or down by 16 bits of noise, right on average; nan and infinity stay."""
    bits = x.to(tl.uint32, bitcast=True)
    bits = tl.where(x == x, bits + (noise & 0xFFFF).to(tl.uint32), bits)
    return (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@triton.jit
def _count_step(steps_of, log_decay, row, valid, lr, high, low, log1, log2, DECAYS: tl.constexpr):
    """Count a step of rows [R]; return each one's decay, step size, second moment's bias correction, and steps."""
    steps = tl.load(steps_of + row, mask=valid, other=0.0) + 1.0
    decay = tl.full(steps.shape, 1.0, tl.float32)
    if DECAYS:
        now = tl.full(steps.shape, 0.0, tl.float64) + high + low
        then = tl.load(log_decay + row, mask=valid, other=0.0)
        decay = tl.exp((now - then).to(tl.float32))
        # Threads of several warps read the same numbers: all must have done so before one of them writes.
        tl.debug_barrier()
        tl.store(log_decay + row, now, mask=valid)
    else:
        tl.debug_barrier()
    tl.store(steps_of + row, steps, mask=valid)
    return decay, lr / _one_minus_exp(steps * log1), 1.0 / _one_minus_exp(steps * log2), steps


@triton.jit
def _adam_step(
    weight, mean, square, index, valid, old, g, decay, step_size, correction, steps, beta1, beta2, eps,
    HALF: tl.constexpr,
):  # fmt: skip
    """Update the numbers at `index` from `old` by their gradient; all arrays have one shape."""
    m = beta1 * tl.load(mean + index, mask=valid, other=0.0).to(tl.float32) + (1 - beta1) * g
    s = beta2 * tl.load(square + index, mask=valid, other=0.0).to(tl.float32) + (1 - beta2) * g * g
    tl.debug_barrier()
    if HALF:
        noise = hash64(steps.to(tl.int64), index)
        tl.store(mean + index, _stochastic_round(m, noise), mask=valid)
        tl.store(square + index, _stochastic_round(s, noise >> 16), mask=valid)
    else:
        tl.store(mean + index, m, mask=valid)
        tl.store(square + index, s, mask=valid)
    tl.store(weight + index, decay * old - step_size * m / (tl.sqrt(s * correction) + eps), mask=valid)


@triton.jit
def adam_step_rows(
    weight, mean, square, steps_of, log_decay, lr, high, low, row, valid, old, g, valid_2d, d, cols, beta1, beta2, eps,
    log1, log2, DECAYS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """Update rows [R] of a matrix from `old` by their gradient g, both [R, D]."""
    decay, step_size, correction, steps = _count_step(
        steps_of, log_decay, row, valid, lr, high, low, log1, log2, DECAYS
    )
    index = row[:, None] * d + cols[None, :]
    wide_steps = tl.zeros(index.shape, tl.float32) + steps[:, None]
    _adam_step(
        weight, mean, square, index, valid_2d, old, g, decay[:, None], step_size[:, None], correction[:, None],
        wide_steps, beta1, beta2, eps, HALF,
    )  # fmt: skip


@triton.jit
def adam_step_biases(
    weight, mean, square, steps_of, log_decay, lr, high, low, row, valid, old, g, beta1, beta2, eps, log1, log2,
    DECAYS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """Update rows [R] of a table of one column from `old` by their gradient g, both [R]."""
    decay, step_size, correction, steps = _count_step(
        steps_of, log_decay, row, valid, lr, high, low, log1, log2, DECAYS
    )
    _adam_step(weight, mean, square, row, valid, old, g, decay, step_size, correction, steps, beta1, beta2, eps, HALF)


@triton.jit(do_not_specialize=["n"])
def _adam_all_rows(
    weight, mean, square, steps_of, log_decay, lr, high, low, gradient, n, beta1, beta2, eps, log1, log2,
    DECAYS: tl.constexpr, HALF: tl.constexpr, d: tl.constexpr, D: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Update all rows [n] of a matrix by a gradient of its shape."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    valid = row < n
    cols = tl.arange(0, D)
    valid_2d = valid[:, None] & (cols < d)[None, :]
    index = row[:, None] * d + cols[None, :]
    g = tl.load(gradient + index, mask=valid_2d, other=0.0)
    old = tl.load(weight + index, mask=valid_2d, other=0.0)
    adam_step_rows(
        weight, mean, square, steps_of, log_decay, lr, high, low, row, valid, old, g, valid_2d, d, cols, beta1, beta2,
        eps, log1, log2, DECAYS, HALF,
    )  # fmt: skip


@triton.jit(do_not_specialize=["n"])
def adam_summed_rows(
    keys, order, n, v_weight, v_mean, v_square, v_steps, v_log_decay, v_lr, v_high, v_low,
    b_weight, b_mean, b_square, b_steps, b_log_decay, b_lr, b_high, b_low,
    score_grad, old, slot, partial, partial_bias,
    beta1, beta2, eps, log1, log2, LATER_PIECES: tl.constexpr, GIVEN: tl.constexpr, BIASES: tl.constexpr,
    DECAYS: tl.constexpr, BIAS_DECAYS: tl.constexpr, HALF: tl.constexpr, BIAS_HALF: tl.constexpr, WIDE: tl.constexpr,
    d: tl.constexpr, D: tl.constexpr, R: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """Update rows by the sum of score_grad[e] x old[slot[e // WIDE]] over their entries e; or of old[e] if GIVEN."""
    first, valid, key, stop = first_entries(keys, n, LATER_PIECES, R, PIECE)
    cols = tl.arange(0, D)
    inside = (cols < d)[None, :]
    valid_2d = valid[:, None] & inside
    g, bias = tl.zeros([R, D], tl.float32), tl.zeros([R], tl.float32)
    entry, active = first, valid
    while tl.max(active.to(tl.int32), 0) > 0:
        e = tl.load(order + entry, mask=active, other=0).to(tl.int64)
        if GIVEN:
            g += tl.load(old + e[:, None] * d + cols[None, :], mask=active[:, None] & inside, other=0.0)
        else:
            c = tl.load(score_grad + e, mask=active, other=0.0)
            source = tl.load(slot + e // WIDE, mask=active, other=0).to(tl.int64)
            vector = tl.load(old + source[:, None] * d + cols[None, :], mask=active[:, None] & inside, other=0.0)
            g += c[:, None] * vector
            bias += c
        entry += 1
        active = same_group(keys, entry, key, stop, active)
    if LATER_PIECES:
        piece = first // PIECE
        tl.store(partial + piece[:, None] * d + cols[None, :], g, mask=valid_2d)
        tl.store(partial_bias + piece, bias, mask=valid)
    else:
        g, bias = add_later_pieces(keys, n, first, key, valid, g, bias, partial, partial_bias, d, cols, inside, PIECE)
        row = tl.where(valid, key, 0).to(tl.int64)
        weight = tl.load(v_weight + row[:, None] * d + cols[None, :], mask=valid_2d, other=0.0)
        adam_step_rows(
            v_weight, v_mean, v_square, v_steps, v_log_decay, v_lr, v_high, v_low, row, valid, weight, g, valid_2d, d,
            cols, beta1, beta2, eps, log1, log2, DECAYS, HALF,
        )  # fmt: skip
        if BIASES:
            old_bias = tl.load(b_weight + row, mask=valid, other=0.0)
            adam_step_biases(
                b_weight, b_mean, b_square, b_steps, b_log_decay, b_lr, b_high, b_low, row, valid, old_bias, bias,
                beta1, beta2, eps, log1, log2, BIAS_DECAYS, BIAS_HALF,
            )  # fmt: skip


def adam(table: Table, rows: Sorted | None, gradient: Tensor, constants: AdamConstants) -> None:
    """Update rows [n] of a table by their gradient [n, d]; all rows in order if `rows` is None.

    rows: ascending, with their positions in the gradient; entries of one row are summed first, in that order. With
    r = 4 d bytes it moves the gradient, and weights and two moments, read and written: 7 r for each distinct row.
    """
    n, tile = len(gradient), tile_options(table.weight.shape[1])
    options: dict[str, Any] = {"DECAYS": table.log_decay_now != 0, "HALF": has_half_moments(table), **tile}
    if not n:
        return
    if rows is None:
        grid = (triton.cdiv(n, tile["R"]),)
        _adam_all_rows[grid](*table.arguments(), gradient, n, *constants.arguments(), **options)
        return
    pieces = -(-n // cuda_tiles.PIECE)
    partial, partial_bias = gradient.new_empty(pieces, tile["d"]), gradient.new_empty(pieces)
    for later_pieces in (True, False):
        adam_summed_rows[(triton.cdiv(pieces if later_pieces else n, tile["R"]),)](
            *rows, n, *table.arguments(), *table.arguments(), gradient, gradient, rows.order, partial, partial_bias,
            *constants.arguments(), WIDE=1, LATER_PIECES=later_pieces, GIVEN=True, BIASES=False, BIAS_DECAYS=False,
            BIAS_HALF=False, PIECE=cuda_tiles.PIECE, **options,
        )  # fmt: skip
