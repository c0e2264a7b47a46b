"""Draw words: their vectors in two dimensions, by PCA and t-SNE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recsys_embed.errors import SettingError
from recsys_embed.plots.style import Label, check_suffix, new_figure, place_labels, save_figure
from recsys_embed.projection import project
from recsys_embed.words.vectors import WordVectors


def plot_words(vectors: WordVectors, words: Sequence[str], out: str | Path, neighbours: int = 5, seed: int = 0) -> Path:
    """Draw words and, in grey, the nearest words of each, to a .png, .svg or .pdf file. Raises UnknownId."""
    out = Path(out)
    check_suffix(out)
    named = list(dict.fromkeys(words))
    if len(named) < 3:
        raise SettingError(f"a picture needs three or more words, got {len(named)}")
    for word in named:
        vectors.row(word)
    nearest = [w for word in named for w, _ in vectors.similar(word, neighbours)] if neighbours else []
    all_words = [*named, *(w for w in dict.fromkeys(nearest) if w not in named)]
    rows = vectors.rows(all_words)
    projections = [project(vectors.vectors[rows], method, seed) for method in ("pca", "tsne")]
    figure = new_figure(13, 6.5)
    axes = figure.subplots(1, 2)
    for axis, projection in zip(axes, projections, strict=True):
        is_named = np.arange(len(all_words)) < len(named)
        axis.scatter(*projection.points[~is_named].T, s=10, color="#b8bcc4", zorder=1)
        axis.scatter(*projection.points[is_named].T, s=42, color="#1f5fbf", zorder=2)
        axis.set_title(projection.name, fontsize=12)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.margins(0.12)
        axis.set_aspect("equal", adjustable="datalim")  # distances are comparable in all directions
        for side in axis.spines.values():
            side.set_color("#d4d7dc")
    figure.suptitle(f"{len(named)} words{f' and their {neighbours} nearest' if neighbours else ''}   {vectors.name}")
    figure.canvas.draw()  # labels are placed on the final axes
    labels = [Label(word, size=11, weight="bold", required=True) for word in named]
    labels += [Label(word, size=8, colour="#666") for word in all_words[len(named) :]]
    for axis, projection in zip(axes, projections, strict=True):
        place_labels(axis, projection.points, labels, len(labels), clear=True)
    return save_figure(figure, out)
