"""Vectors in two dimensions: PCA, t-SNE and UMAP, and how far the picture can be trusted."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats, unit
from recsys_embed.errors import SettingError

log = logging.getLogger("recsys_embed")

Points = NDArray[np.floating]

# Trustworthiness compares all pairs of points, so of more points than this a sample is looked at.
_TRUST = 4_000
_NEAREST = 10
# t-SNE of more points is worth a word, and its iterations: openTSNE's own numbers.
_SLOW = 20_000
_EARLY, _LATE = 250, 500


@dataclass(frozen=True)
class Projection:
    """Points [n, 2] float32 in the square from -1 to 1, which they fill in one direction, and what is known of them.

    name: of the method, for people. trust, kept: how far the neighbours in the picture can be trusted, seen from
    `trusted` of the points; see `trustworthiness`.
    """

    points: Floats
    name: str
    trust: float
    kept: float
    trusted: int


def project(vectors: Floats, method: str = "auto", seed: int = 0, start: Floats | None = None) -> Projection:
    """Lay out vectors [n, d] in two dimensions so that those that point the same way are near each other.

    method: one of PROJECTIONS, or "auto": t-SNE. start: points [n, 2] to begin from where the method can, so that
    two pictures are alike. The same numbers, seed and machine give the same points.
    Raises SettingError for an unknown method, or one whose package is missing.
    """
    name = "tsne" if method == "auto" else method
    if name not in PROJECTIONS:
        raise SettingError(f"there is no projection {name!r}; there are auto, {', '.join(PROJECTIONS)}")
    directions = unit(vectors).astype(np.float32)
    if len(directions) < 4:
        name = "pca"  # the others need neighbours
    points, called = PROJECTIONS[name](directions, seed, start)
    points = points - (points.max(axis=0) + points.min(axis=0)) / 2
    points /= max(float(np.abs(points).max()), 1e-12)
    return Projection(points.astype(np.float32), called, *trustworthiness(directions, points, seed))


def trustworthiness(directions: Floats, points: Points, seed: int = 0) -> tuple[float, float, int]:
    """Return the trustworthiness of a picture, the share of neighbours that it keeps, and of how many points.

    Ten neighbours are looked at. Trustworthiness takes off for every false neighbour in the picture, the more the
    farther it is among the vectors: 1 is a picture without one, about .5 one of chance (Venna and Kaski, ICANN 2001).
    The share kept is stricter: how many of the nearest in the picture are among the nearest vectors.
    """
    from sklearn.manifold import trustworthiness as measured
    from sklearn.neighbors import NearestNeighbors

    n = len(points)
    nearest = min(_NEAREST, (n - 1) // 2)
    if nearest < 1:
        return 1.0, 1.0, n
    if n > _TRUST:
        chosen = np.random.default_rng(seed).choice(n, _TRUST, replace=False)
        directions, points = directions[chosen], points[chosen]
    drawn, real = (NearestNeighbors(n_neighbors=nearest).fit(x).kneighbors(return_distance=False) for x in
                   (points, directions))  # fmt: skip
    own = len(points) * np.arange(len(points))[:, None]
    kept = np.isin(drawn + own, real + own).mean()
    return float(measured(directions, points, n_neighbors=nearest)), float(kept), len(points)


def _pca(directions: Floats, seed: int, start: Floats | None) -> tuple[Points, str]:
    centred = directions.astype(np.float64) - directions.mean(axis=0, dtype=np.float64)
    values, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]
    # The sign of an axis is chance; the largest weight is made positive, so that two machines agree.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    share = values[::-1][:2].sum() / max(float(values.sum()), 1e-12)
    points = centred @ axes
    if points.shape[1] < 2:
        points = np.column_stack((points, np.zeros((len(points), 2 - points.shape[1]))))
    return points, f"PCA, {100 * share:.0f} % of the variance"


def _first(directions: Floats, start: Floats | None) -> Points:
    """Return where t-SNE begins: given points or PCA's, small, as it wants them."""
    first = np.array(_pca(directions, 0, None)[0] if start is None else start, np.float64)
    return first / max(float(first[:, 0].std()), 1e-12) * 1e-4


def _tsne(directions: Floats, seed: int, start: Floats | None) -> tuple[Points, str]:
    n = len(directions)
    perplexity = min(30.0, (n - 1) / 3)
    first = _first(directions, start)
    if n > _SLOW:
        log.info("t-SNE of %s points takes minutes; --method pca takes a second", f"{n:,}")
    try:
        from openTSNE import TSNE
    except ImportError:
        from sklearn.manifold import TSNE as Fallback

        if n > _SLOW:
            log.info("openTSNE is faster than scikit-learn's: pip install 'recsys-embed[maps]'")
        tsne = Fallback(2, perplexity=perplexity, init=first.astype(np.float32), random_state=seed)
        return tsne.fit_transform(directions), f"t-SNE, perplexity {perplexity:.3g}"
    with warnings.catch_warnings(), _bar("t-SNE", _EARLY + _LATE) as advance:
        warnings.simplefilter("ignore")
        points = TSNE(
            perplexity=perplexity, metric="euclidean", initialization=first, random_state=seed, n_jobs=-1,
            neighbors="exact" if n <= 3_000 else "auto",
            early_exaggeration_iter=_EARLY, n_iter=_LATE, callbacks=advance, callbacks_every_iters=10,
        ).fit(directions)  # fmt: skip
    return np.asarray(points), f"t-SNE, perplexity {perplexity:.3g}"


@contextlib.contextmanager
def _bar(name: str, total: int) -> Iterator[Callable[..., bool]]:
    """Show a bar on a terminal's stderr; give what is called after every ten iterations."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    shown = console.is_terminal and log.isEnabledFor(logging.INFO)
    with Progress(console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task(name, total=total)

        def advance(*_: object) -> bool:
            bar.advance(task, 10)
            return False  # it goes on

        yield advance


def _umap(directions: Floats, seed: int, start: Floats | None) -> tuple[Points, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import umap
    except ImportError:
        raise SettingError("UMAP needs its package: pip install 'recsys-embed[maps]'") from None
    n = len(directions)
    init = "spectral" if start is None else (10 * start / max(float(np.abs(start).max()), 1e-12)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that a seed means one thread
        mapper = umap.UMAP(n_neighbors=min(15, n - 1), min_dist=0.1, metric="cosine", random_state=seed, init=init)
        return mapper.fit_transform(directions), f"UMAP, {min(15, n - 1)} neighbours"


PROJECTIONS: dict[str, Callable[[Floats, int, Floats | None], tuple[Points, str]]] = {
    "pca": _pca,
    "tsne": _tsne,
    "umap": _umap,
}
