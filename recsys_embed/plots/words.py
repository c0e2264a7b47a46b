"""A picture of words: their vectors in two dimensions, by PCA and by t-SNE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recsys_embed.errors import SettingError
from recsys_embed.plots.style import Label, check_ending, new_figure, write, write_labels
from recsys_embed.projection import project
from recsys_embed.words.vectors import WordVectors


def plot_words(vectors: WordVectors, words: Sequence[str], out: str | Path, neighbours: int = 5, seed: int = 0) -> Path:
    """Draw words and, in grey, the nearest words of each; write a .png, .svg or .pdf. Raises UnknownId."""
    out = Path(out)
    check_ending(out)
    named = list(dict.fromkeys(words))
    if len(named) < 3:
        raise SettingError(f"a picture needs three words or more, got {len(named)}")
    for word in named:
        vectors.row(word)
    near = [w for word in named for w, _ in vectors.similar(word, neighbours)] if neighbours else []
    shown = [*named, *(w for w in dict.fromkeys(near) if w not in named)]
    rows = vectors.rows(shown)
    views = [project(vectors.vectors[rows], method, seed) for method in ("pca", "tsne")]
    figure = new_figure(13, 6.5)
    axes = figure.subplots(1, 2)
    for axis, view in zip(axes, views, strict=True):
        main = np.arange(len(shown)) < len(named)
        axis.scatter(*view.points[~main].T, s=10, color="#b8bcc4", zorder=1)
        axis.scatter(*view.points[main].T, s=42, color="#1f5fbf", zorder=2)
        axis.set_title(view.name, fontsize=12)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.margins(0.12)
        axis.set_aspect("equal", adjustable="datalim")  # a distance is one, whichever way it goes
        for side in axis.spines.values():
            side.set_color("#d4d7dc")
    figure.suptitle(f"{len(named)} words{f' and their {neighbours} nearest' if neighbours else ''}   {vectors.name}")
    figure.canvas.draw()  # the places of labels depend on the final axes
    labels = [Label(word, size=11, weight="bold", must=True) for word in named]
    labels += [Label(word, size=8, colour="#666") for word in shown[len(named) :]]
    for axis, view in zip(axes, views, strict=True):
        write_labels(axis, view.points, labels, len(labels), clear=True)
    return write(figure, out)
