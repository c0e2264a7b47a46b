"""Scorers: two vectors -> one score. One broadcasting forward serves pairs, [B, K] and [U, I]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from recsys_embed.config.settings import ModelConfig


class Dot(nn.Module):
    """The dot product, or with `cosine` that of unit vectors, divided by a temperature."""

    def __init__(self, cosine: bool = False, temperature: float = 1.0) -> None:
        super().__init__()
        self.cosine, self.temperature = cosine, temperature

    def transform(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors [n, d] and [m, d] whose plain dot product is the score."""
        if self.cosine:
            u, v = nn.functional.normalize(u, dim=-1), nn.functional.normalize(v, dim=-1)
        return u / self.temperature, v

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """Score u [*b, d] with v [*b, d], broadcasting: [*b]."""
        u, v = self.transform(u, v)
        return (u * v).sum(-1)

    def matrix(self, u: Tensor, v: Tensor) -> Tensor:
        """Score every u [B, d] with every v [I, d] as one matrix product: [B, I]."""
        u, v = self.transform(u, v)
        return u @ v.T

    def to_arrays(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """Return vectors whose plain dot product is this score, and no layers. u, which is long, is overwritten."""
        u = u.detach()
        if self.cosine:
            u.div_(u.norm(dim=-1, keepdim=True).clamp_min_(1e-12))
            v = nn.functional.normalize(v, dim=-1)
        return u.div_(self.temperature), v, []


class MLP(nn.Module):
    """A multi-layer perceptron over both vectors (He et al., Neural Collaborative Filtering, WWW 2017, eq. 10).

    The first layer is linear in the two vectors, so each side is multiplied once and the halves are added: scoring
    [U, I] needs no tensor [U, I, 2d].
    """

    def __init__(self, dim: int, layers: Sequence[int]) -> None:
        super().__init__()
        self.dim = dim
        sizes = [2 * dim, *layers, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.layers[-1].weight, std=0.1)  # type: ignore[arg-type]

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """Score u [*b, d] with v [*b, d], broadcasting: [*b]."""
        first, *rest = self.layers
        weight, bias = first.weight, first.bias
        hidden = u @ weight[:, : self.dim].T + (v @ weight[:, self.dim :].T + bias)  # type: ignore[index, operator]
        for layer in rest:
            hidden = layer(torch.relu(hidden))
        return hidden.squeeze(-1)

    def matrix(self, u: Tensor, v: Tensor) -> Tensor:
        """Score every u [B, d] with every v [I, d]: [B, I]."""
        return self(u[:, None], v[None])

    def to_arrays(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """Return the vectors unchanged, and (weight, bias) of each layer."""
        return u, v, [(layer.weight, layer.bias) for layer in self.layers]  # type: ignore[misc]


SCORERS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "dot": lambda c: Dot(bool(c.cosine), c.temperature or 1.0),
    "mlp": lambda c: MLP(c.dim or 1, c.layers),
}
