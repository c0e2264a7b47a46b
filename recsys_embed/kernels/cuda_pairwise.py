"""CUDA kernels, in Triton, for pairwise losses: drawing negatives, and a whole step of BPR or of the logistic loss.

They give the same results as the kernels in pairwise.py, to rounding; uniform negatives are the same for equal seeds.
"""
# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import triton
import triton.language as tl

from recsys_embed.kernels import cuda_tiles
from recsys_embed.kernels.cuda_adam import (
    AdamConstants,
    Table,
    adam_step_biases,
    adam_step_rows,
    adam_summed_rows,
    has_half_moments,
)
from recsys_embed.kernels.cuda_tiles import Sorted, add_later_pieces, first_entries, hash64, same_group, tile_options

if TYPE_CHECKING:
    from torch import Tensor

_TRIES = tl.constexpr(16)


class DrawnItems(NamedTuple):
    """The items of ratings and their negatives, int32 [B, 1 + K] each.

    coded: -1 - row for a negative that is a known positive of the user. row: the plain rows.
    """

    coded: Tensor
    row: Tensor


class StepWorkspace(NamedTuple):
    """Scratch memory for a step on B ratings with K negatives each.

    score_grad: float32 [B, 1 + K], the derivative of the loss by each score. terms: float32 [B], each rating's term of
    the loss. old: float32 [B, d], users' vectors before the step; slot: int32 [B], the row of `old` for each rating.
    partial: float32 [P, d] and partial_bias: [P], sums of pieces, where P is B * (1 + K) / PIECE.
    """

    score_grad: Tensor
    terms: Tensor
    old: Tensor
    slot: Tensor
    partial: Tensor
    partial_bias: Tensor


@triton.jit(do_not_specialize=["n", "choices", "seed"])
def _draw_negatives(
    coded, rows_out, user, item, candidates, choices, cdf, indptr, known, n, seed,
    WIDE: tl.constexpr, DEPTH: tl.constexpr, UNIFORM: tl.constexpr, CHOICE_STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = e < n * WIDE
    b = e // WIDE
    drawn = valid & (e % WIDE > 0)
    row = tl.load(item + b, mask=valid, other=0).to(tl.int64)
    u = tl.load(user + b, mask=drawn, other=0).to(tl.int64)
    low = tl.load(indptr + u, mask=drawn, other=0).to(tl.int64)
    high = tl.load(indptr + u + 1, mask=drawn, other=0).to(tl.int64)
    again = drawn
    tries = 0
    while (tries < _TRIES) & (tl.max(again.to(tl.int32), 0) > 0):
        x = hash64(seed, e * _TRIES + tries)
        if UNIFORM:
            choice = (((x >> 32) * choices.to(tl.uint64)) >> 32).to(tl.int64)
        else:
            point = (x >> 11).to(tl.int64).to(tl.float64) * (1.0 / 9007199254740992.0)
            choice = tl.zeros([BLOCK], tl.int64)
            end = tl.zeros([BLOCK], tl.int64) + choices
            for _ in range(CHOICE_STEPS):  # bisect for the first value of the cdf above the point
                middle = (choice + end) // 2
                below = tl.load(cdf + middle, mask=choice < end, other=0.0) <= point
                open_ = choice < end
                choice, end = tl.where(open_ & below, middle + 1, choice), tl.where(open_ & ~below, middle, end)
            choice = tl.minimum(choice, choices - 1)
        chosen = tl.load(candidates + choice, mask=again, other=0).to(tl.int64)
        row = tl.where(again, chosen, row)
        a, z = low, high
        for _ in range(DEPTH):
            middle = (a + z) // 2
            less = tl.load(known + middle, mask=again & (a < z), other=0).to(tl.int64) < row
            a, z = tl.where((a < z) & less, middle + 1, a), tl.where((a < z) & ~less, middle, z)
        again = again & (a < high) & (tl.load(known + a, mask=again & (a < high), other=-1).to(tl.int64) == row)
        tries += 1
    tl.store(coded + e, tl.where(again, -1 - row, row), mask=valid)
    tl.store(rows_out + e, row, mask=valid)


@triton.jit
def _softplus(x):
    """Return log(1 + exp(x)) and its derivative, without overflow."""
    e = tl.exp(-tl.abs(x))
    # log(1 + e) loses its digits where e is small: there it is e - e^2 / 2 + e^3 / 3
    log = tl.where(e > 0.01, tl.log(1 + e), e * (1 - e * (0.5 - e / 3)))
    return tl.maximum(x, 0.0) + log, tl.where(x > 0, 1.0, e) / (1 + e)


@triton.jit
def _score_gradients(
    u, user_bias, v, item_bias, coded, weight, offset, score_grad, terms, b, valid, inside, batch, d, cols,
    WIDE: tl.constexpr, LOGISTIC: tl.constexpr, BIASES: tl.constexpr,
):  # fmt: skip
    """Score ratings b [R] of users u [R, D] and their negatives; write each score's derivative and the loss's terms.

    Return the gradient of u and that of the users' biases. The losses are those of nets/losses.py.
    """
    scale = tl.load(weight + b, mask=valid, other=0.0) / batch
    share = 1.0 / (WIDE - 1 if WIDE > 1 else 1)
    valid_2d = valid[:, None] & inside
    entry = b * WIDE
    row = tl.load(coded + entry, mask=valid, other=0).to(tl.int64)
    v0 = tl.load(v + row[:, None] * d + cols[None, :], mask=valid_2d, other=0.0)
    positive = tl.sum(u * v0, 1)
    if BIASES:
        positive += user_bias + tl.load(item_bias + row, mask=valid, other=0.0)
    total = tl.zeros_like(positive)
    bias_grad = tl.zeros_like(positive)
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
        code = tl.load(coded + entry + k, mask=valid, other=-1).to(tl.int64)
        counts = code >= 0  # -1 - row: a known positive of the user, so it is no negative
        row = tl.where(counts, code, 0)
        vk = tl.load(v + row[:, None] * d + cols[None, :], mask=valid_2d & counts[:, None], other=0.0)
        x = tl.sum(u * vk, 1)
        if BIASES:
            x += user_bias + tl.load(item_bias + row, mask=valid & counts, other=0.0)
        if LOGISTIC:
            x += tl.load(offset)
        else:
            x -= positive
        term, slope = _softplus(x)
        slope = tl.where(counts, scale * factor * slope, 0.0)
        total += tl.where(counts, factor * term, 0.0)
        bias_grad += slope
        g += slope[:, None] * vk
        tl.store(score_grad + entry + k, slope, mask=valid)
    if LOGISTIC:
        bias_grad += first
    else:
        g -= bias_grad[:, None] * v0
        first = -bias_grad
    tl.store(score_grad + entry, first, mask=valid)
    tl.store(terms + b, scale * total, mask=valid)
    return g, bias_grad


@triton.jit(do_not_specialize=["n", "batch"])
def _update_users(
    keys, order, n, u_weight, u_mean, u_square, u_steps, u_log_decay, u_lr, u_high, u_low,
    b_weight, b_mean, b_square, b_steps, b_log_decay, b_lr, b_high, b_low,
    v, item_bias, coded, weight, offset, score_grad, terms, old, slot, partial, partial_bias, batch,
    beta1, beta2, eps, log1, log2, LATER_PIECES: tl.constexpr, LOGISTIC: tl.constexpr, BIASES: tl.constexpr,
    DECAYS: tl.constexpr, BIAS_DECAYS: tl.constexpr, HALF: tl.constexpr, BIAS_HALF: tl.constexpr, WIDE: tl.constexpr,
    d: tl.constexpr, D: tl.constexpr, R: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    first, valid, key, stop = first_entries(keys, n, LATER_PIECES, R, PIECE)
    row = tl.where(valid, key, 0).to(tl.int64)
    cols = tl.arange(0, D)
    inside = (cols < d)[None, :]
    valid_2d = valid[:, None] & inside
    u = tl.load(u_weight + row[:, None] * d + cols[None, :], mask=valid_2d, other=0.0)
    user_bias = tl.zeros([R], tl.float32)
    if LOGISTIC and BIASES:  # BPR compares scores of one user, whose bias cancels out
        user_bias = tl.load(b_weight + row, mask=valid, other=0.0)
    g, bias = tl.zeros([R, D], tl.float32), tl.zeros([R], tl.float32)
    entry, active = first, valid
    while tl.max(active.to(tl.int32), 0) > 0:
        b = tl.load(order + entry, mask=active, other=0).to(tl.int64)
        more, more_bias = _score_gradients(
            u, user_bias, v, item_bias, coded, weight, offset, score_grad, terms, b, active, inside, batch, d, cols,
            WIDE, LOGISTIC, BIASES,
        )  # fmt: skip
        g += tl.where(active[:, None], more, 0.0)
        bias += tl.where(active, more_bias, 0.0)
        tl.store(slot + b, first, mask=active)
        entry += 1
        active = same_group(keys, entry, key, stop, active)
    tl.store(old + first[:, None] * d + cols[None, :], u, mask=valid_2d)
    if LATER_PIECES:
        piece = first // PIECE
        tl.store(partial + piece[:, None] * d + cols[None, :], g, mask=valid_2d)
        tl.store(partial_bias + piece, bias, mask=valid)
    else:
        g, bias = add_later_pieces(keys, n, first, key, valid, g, bias, partial, partial_bias, d, cols, inside, PIECE)
        adam_step_rows(
            u_weight, u_mean, u_square, u_steps, u_log_decay, u_lr, u_high, u_low, row, valid, u, g, valid_2d, d, cols,
            beta1, beta2, eps, log1, log2, DECAYS, HALF,
        )  # fmt: skip
        if LOGISTIC and BIASES:
            adam_step_biases(
                b_weight, b_mean, b_square, b_steps, b_log_decay, b_lr, b_high, b_low, row, valid, user_bias, bias,
                beta1, beta2, eps, log1, log2, BIAS_DECAYS, BIAS_HALF,
            )  # fmt: skip


def draw_negatives(
    out: DrawnItems,
    user: Tensor,
    item: Tensor,
    candidates: Tensor,
    cdf: Tensor | None,
    known: tuple[Tensor, Tensor],
    depth: int,
    seed: int,
) -> None:
    """Fill `out` for ratings [B] with draws among the rows `candidates`; uniform ones equal pairwise.draw_negatives.

    cdf: float64, the cumulative probabilities of the candidates; None for uniform draws. known: indptr and indices of
    `UserItems`; depth: the bits of the length of the longest list in it. seed: at least 2^32, so that a kernel need not
    be compiled for shorter numbers too.
    """
    n, wide = out.coded.shape
    options: dict[str, Any] = {
        "WIDE": wide,
        "DEPTH": depth,
        "UNIFORM": cdf is None,
        "CHOICE_STEPS": len(candidates).bit_length(),
        "BLOCK": 256,
        "num_warps": 4,
    }
    _draw_negatives[(triton.cdiv(n * wide, 256),)](
        *out, user, item, candidates, len(candidates), candidates if cdf is None else cdf, *known, n, seed, **options
    )


def pairwise_step(
    users: Table,
    items: Table,
    biases: tuple[Table | None, Table | None],
    by_user: Sorted,
    by_item: Sorted,
    coded: Tensor,
    weight: Tensor,
    offset: Tensor,
    workspace: StepWorkspace,
    constants: AdamConstants,
    logistic: bool,
) -> None:
    """Take a whole step of BPR or of the logistic loss: scores, gradient, sums and Adam; no gradient is written.

    by_user: the users [B] of the ratings; by_item: the rows of their items and negatives, of the flattened [B, 1 + K].

    Users come first: the program that finds a user's first rating reads the user once and each of their items, scores
    them, sums the gradient, and updates the user. No item has been updated yet, so items are as they were. Then items
    are updated, using the users as they were, which the first pass left in `old`: one more row to write, none to read.
    With K = 1, all rows distinct and r = 4 d bytes a row, a rating costs: users 9 r (the user and two moments read and
    written, two items read, `old` written), items twice 7 r (an old user read, the item and two moments read and
    written): 23 r, which is 5.9 kB for d = 64, where 18 r (4.6 kB) must move. In addition, each row's steps, decay and
    bias with its own state are in 32 bytes each, read and written: 1 kB; and sorting moves .3 kB.
    """
    n, wide = coded.shape
    user_bias, item_bias = biases
    tile = tile_options(users.weight.shape[1])
    grid = triton.cdiv(n, tile["R"]), triton.cdiv(n * wide, tile["R"])
    piece_grid = tuple(triton.cdiv(-(-entries // cuda_tiles.PIECE), tile["R"]) for entries in (n, n * wide))
    options: dict[str, Any] = {"WIDE": wide, "BIASES": item_bias is not None, "PIECE": cuda_tiles.PIECE, **tile}
    bias = (user_bias if logistic else None) or users
    for later_pieces in (True, False):
        _update_users[(piece_grid[0] if later_pieces else grid[0],)](
            *by_user, n, *users.arguments(), *bias.arguments(),
            items.weight, (item_bias or items).weight, coded, weight, offset, *workspace, n, *constants.arguments(),
            LATER_PIECES=later_pieces, LOGISTIC=logistic, DECAYS=users.log_decay_now != 0,
            BIAS_DECAYS=bias.log_decay_now != 0, HALF=has_half_moments(users), BIAS_HALF=has_half_moments(bias),
            **options,
        )  # fmt: skip
    bias = item_bias or items
    for later_pieces in (True, False):
        adam_summed_rows[(piece_grid[1] if later_pieces else grid[1],)](
            *by_item, n * wide, *items.arguments(), *bias.arguments(),
            workspace.score_grad, *workspace[2:], *constants.arguments(),
            LATER_PIECES=later_pieces, GIVEN=False, DECAYS=items.log_decay_now != 0,
            BIAS_DECAYS=bias.log_decay_now != 0, HALF=has_half_moments(items), BIAS_HALF=has_half_moments(bias),
            **options,
        )  # fmt: skip
