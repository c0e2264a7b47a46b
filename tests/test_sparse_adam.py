"""Row-lazy Adam: its laws, for the plain step and for the kernel."""

import math

import pytest
import torch
from torch import nn

from recsys_embed.training.optim import Group, RowLazyAdam, clip_gradients


def sparse(rows, values, shape):
    return torch.sparse_coo_tensor(torch.tensor([rows]), values, shape)


@pytest.mark.parametrize("fused", [False, True])
class TestRowLazyAdam:
    def test_one_step_by_hand(self, fused):
        table = nn.Parameter(torch.tensor([[1.0], [2.0], [3.0]]))
        adam = RowLazyAdam([Group([table], weight_decay=0.5)], lr=0.1, eps=0.0, fused=fused)
        table.grad = sparse([2, 0], torch.tensor([[4.0], [-0.5]]), (3, 1))
        adam.step()
        # A first step is lr in the direction of the gradient, after the decay of 1 - 0.1 * 0.5.
        torch.testing.assert_close(table.data, torch.tensor([[0.95 + 0.1], [2.0], [2.85 - 0.1]]))
        adam.flush()
        assert table[1].item() == pytest.approx(1.9)

    @pytest.mark.parametrize("layout", ["sparse", "dense"])
    def test_with_every_row_touched_it_is_adamw(self, layout, fused):
        torch.manual_seed(0)
        start = torch.randn(6, 4)
        ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
        adam = RowLazyAdam([Group([ours], weight_decay=0.1)], lr=0.02, betas=(0.8, 0.95), fused=fused)
        adamw = torch.optim.AdamW([theirs], lr=0.02, betas=(0.8, 0.95), weight_decay=0.1)
        for at in range(50):
            adam.lr = adamw.param_groups[0]["lr"] = 0.02 * (1 - at / 60)
            gradient = torch.randn(6, 4)
            theirs.grad = gradient
            ours.grad = (
                gradient.clone()
                if layout == "dense"
                else sparse([3, 1, 0, 5, 4, 2], gradient[[3, 1, 0, 5, 4, 2]], (6, 4))
            )
            adam.step()
            adamw.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)

    def test_a_row_that_was_away_has_decayed_every_step_and_counts_its_own(self, fused):
        table = nn.Parameter(torch.ones(2, 1))
        adam = RowLazyAdam([Group([table], weight_decay=0.3)], lr=0.1, eps=0.0, fused=fused)
        rates = [0.1, 0.05, 0.2, 0.1]
        for at, adam.lr in enumerate(rates):
            rows = [0, 1] if at == 3 else [0]
            table.grad = sparse(rows, torch.ones(len(rows), 1), (2, 1))
            adam.step()
        expected = math.prod(1 - r * 0.3 for r in rates) - 0.1  # its first step of its own is lr
        assert table[1].item() == pytest.approx(expected, rel=1e-6)

    def test_duplicates_are_summed_first(self, fused):
        twice, once = (nn.Parameter(torch.ones(3, 2)) for _ in range(2))
        for table, rows, values in ((twice, [1, 1], [[1.0, 2.0], [3.0, -1.0]]), (once, [1], [[4.0, 1.0]])):
            adam = RowLazyAdam([Group([table])], lr=0.1, fused=fused)
            for _ in range(2):
                table.grad = sparse(rows, torch.tensor(values), (3, 2))
                adam.step()
        assert twice.equal(once)

    def test_by_row_a_table_whose_numbers_have_one_size_moves_as_by_number(self, fused):
        """Where all squares of a row are equal, so is their mean; a row of one number is always so."""
        tables = [nn.Parameter(torch.ones(3, 4)) for _ in range(2)]
        for table, rowwise in zip(tables, (True, False), strict=True):
            adam = RowLazyAdam([Group([table], 0.3, rowwise=rowwise)], lr=0.1, fused=fused)
            for size in (1.0, 0.01, 3.0):
                table.grad = sparse([0, 2], torch.tensor([[size, -size, size, size]]).repeat(2, 1), (3, 4))
                adam.step()
            assert adam.state[table].square.shape == (3, 1 if rowwise else 4)
        torch.testing.assert_close(*tables)

    def test_by_row_the_square_is_the_mean_of_the_squares(self, fused):
        table = nn.Parameter(torch.zeros(2, 2))
        adam = RowLazyAdam([Group([table], rowwise=True)], lr=0.1, fused=fused)
        table.grad = sparse([1], torch.tensor([[3.0, 1.0]]), (2, 2))
        adam.step()
        assert adam.state[table].square[1].item() == pytest.approx(0.001 * 5)
        assert table[1].tolist() == pytest.approx([-0.3 / 5**0.5, -0.1 / 5**0.5], rel=1e-4)

    def test_a_decay_that_would_flip_signs_is_refused(self, fused):
        with pytest.raises(ValueError, match="below 1"):
            RowLazyAdam([Group([], weight_decay=20.0)], lr=0.1, fused=fused)


class TestTheKernel:
    """It says the same as the plain step, to rounding, and equal bits whatever the number of threads."""

    @staticmethod
    def updated(rows, dim, fused, layout="sparse", steps=12, rowwise=False):
        torch.manual_seed(1)
        table, adam = nn.Parameter(torch.randn(rows, dim)), None
        adam = RowLazyAdam([Group([table], weight_decay=0.4, rowwise=rowwise)], lr=0.03, fused=fused)
        never = torch.randperm(rows)[: rows // 5]
        for at in range(steps):
            adam.lr = 0.03 / (1 + at)
            drawn = torch.randint(rows, (rows // 2,))  # some stand twice
            drawn = drawn[~torch.isin(drawn, never)]
            gradient = torch.randn(len(drawn), dim) * 10.0 ** torch.randint(-6, 3, (len(drawn), 1))
            table.grad = torch.sparse_coo_tensor(drawn[None], gradient, table.shape)
            if layout == "dense":
                table.grad = table.grad.to_dense()
            adam.step()
        untouched = table.detach()[never].clone()
        adam.flush()
        state = adam.state[table]
        return [table.detach(), state.mean, state.square, state.steps, state.log_decay, untouched]

    @pytest.mark.parametrize("layout", ["sparse", "dense"])
    @pytest.mark.parametrize(("rows", "dim"), [(1, 1), (7, 5), (400, 64), (5000, 3)])
    @pytest.mark.parametrize("rowwise", [False, True])
    def test_it_is_the_plain_step(self, rows, dim, layout, rowwise):
        plain, fused = (self.updated(rows, dim, way, layout, rowwise=rowwise) for way in (False, True))
        for a, b in zip(plain, fused, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-5, atol=5e-6)

    def test_threads_do_not_change_a_bit(self):
        before = torch.get_num_threads()
        try:
            found = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                found.append(self.updated(9000, 4, True))
        finally:
            torch.set_num_threads(before)
        assert all(a.equal(b) for other in found[1:] for a, b in zip(found[0], other, strict=True))

    def test_what_is_not_finite_stays_so(self):
        table = nn.Parameter(torch.zeros(3, 2))
        table.grad = sparse([1, 2], torch.tensor([[math.nan, 1.0], [math.inf, 1.0]]), (3, 2))
        RowLazyAdam([Group([table])], lr=0.1).step()
        assert table.isfinite().tolist() == [[True, True], [False, True], [False, True]]


def test_clipping_bounds_the_joint_norm_of_sparse_and_dense_gradients():
    table, dense = nn.Parameter(torch.zeros(4, 1)), nn.Parameter(torch.zeros(2))
    table.grad = sparse([1, 1], torch.tensor([[1.0], [2.0]]), (4, 1))
    dense.grad = torch.tensor([4.0, 0.0])
    assert clip_gradients([table, dense], 2.5) == pytest.approx(5.0)
    assert table.grad.to_dense()[1].item() == pytest.approx(1.5) and dense.grad[0].item() == pytest.approx(2.0)
    assert clip_gradients([table, dense], 99.0) == pytest.approx(2.5)
    assert dense.grad[0].item() == pytest.approx(2.0)
