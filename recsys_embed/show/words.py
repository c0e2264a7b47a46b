"""A picture of words: their vectors in two dimensions, by PCA and by t-SNE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_embed.content.words import WordVectors
from recsys_embed.errors import SettingError
from recsys_embed.show.picture import check_ending, new_figure, write


def plot_words(vectors: WordVectors, words: Sequence[str], out: Path, neighbours: int = 5, seed: int = 0) -> Path:
    """Draw words and, in grey, the nearest words of each; write a .png, .svg or .pdf. Raises UnknownId."""
    check_ending(out)
    named = list(dict.fromkeys(words))
    if len(named) < 3:
        raise SettingError(f"a picture needs three words or more, got {len(named)}")
    for word in named:
        vectors.row(word)
    near = [w for word in named for w, _ in vectors.similar(word, neighbours)] if neighbours else []
    shown = [*named, *(w for w in dict.fromkeys(near) if w not in named)]
    rows = vectors.rows(shown)
    points = np.asarray(vectors.vectors[rows] / vectors.lengths[rows, None], np.float64)
    figure = new_figure(13, 6.5)
    axes = figure.subplots(1, 2)
    views = _flat(points, seed)
    for axis, (name, flat) in zip(axes, views.items(), strict=True):
        main = np.arange(len(shown)) < len(named)
        axis.scatter(*flat[~main].T, s=10, color="#b8bcc4", zorder=1)
        axis.scatter(*flat[main].T, s=42, color="#1f5fbf", zorder=2)
        axis.set_title(name, fontsize=12)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.margins(0.12)
        axis.set_aspect("equal", adjustable="datalim")  # a distance is one, whichever way it goes
        for side in axis.spines.values():
            side.set_color("#d4d7dc")
    figure.suptitle(f"{len(named)} words{f' and their {neighbours} nearest' if neighbours else ''}   {vectors.name}")
    figure.canvas.draw()  # the places of labels depend on the final axes
    for axis, flat in zip(axes, views.values(), strict=True):
        _label(axis, flat, shown, len(named))
    return write(figure, out)


def _flat(points: NDArray[np.float64], seed: int) -> dict[str, NDArray[np.float64]]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    pca = PCA(2, random_state=seed).fit(points)
    share = 100 * pca.explained_variance_ratio_.sum()
    perplexity = min(30.0, max(1.5, (len(points) - 1) / 3))
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(points)
    return {
        f"PCA ({share:.0f} % of the variance)": pca.transform(points),
        f"t-SNE (perplexity {perplexity:.0f})": np.asarray(tsne, np.float64),
    }


def _label(axis: Any, flat: NDArray[np.float64], words: Sequence[str], main: int) -> None:
    """Write each word beside its point where no other label and no point is; a grey one without room is left out."""
    renderer = axis.figure.canvas.get_renderer()
    pixels = axis.transData.transform(flat)
    taken: list[Any] = []
    for at, word in enumerate(words):
        bold = at < main
        style = {
            "fontsize": 11 if bold else 8,
            "color": "#111" if bold else "#666",
            "weight": "bold" if bold else "normal",
        }
        best, least = None, 1 if not bold else 10**6
        for dx, dy, side, base in ((7, 0, "left", "center"), (-7, 0, "right", "center"), (0, 7, "center", "bottom"),
                                   (0, -7, "center", "top"), (7, 8, "left", "bottom"), (7, -8, "left", "top"),
                                   (-7, 8, "right", "bottom"), (-7, -8, "right", "top")):  # fmt: skip
            text = axis.annotate(
                word, flat[at], (dx, dy), textcoords="offset points", ha=side, va=base, zorder=3, **style
            )
            box = text.get_window_extent(renderer)
            inside = axis.bbox.x0 < box.x0 and box.x1 < axis.bbox.x1 and axis.bbox.y0 < box.y0 and box.y1 < axis.bbox.y1
            clash = sum(box.overlaps(other) for other in taken) + (not inside) * 3
            clash += sum(box.contains(*pixel) for n, pixel in enumerate(pixels) if n != at)
            if clash < least:
                if best is not None:
                    best[0].remove()
                best, least = (text, box), clash
            else:
                text.remove()
            if not least:
                break
        if best is not None:
            taken.append(best[1])
