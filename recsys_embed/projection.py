"""Projection of vectors to two dimensions by PCA, t-SNE or UMAP, and measures of its quality."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats, normalize
from recsys_embed.errors import SettingError
from recsys_embed.tracking.store import without_autologging

log = logging.getLogger("recsys_embed")

Points = NDArray[np.floating]

# Trustworthiness compares all pairs of points, so more points than this are sampled.
_MAX_TRUST_POINTS = 4_000
_NEAREST = 10
# The number of points from which t-SNE is slow enough for a note.
_SLOW = 20_000
# openTSNE's default numbers of iterations, with early exaggeration and without.
_EARLY_ITERATIONS, _ITERATIONS = 250, 500


@dataclass(frozen=True)
class Projection:
    """Points [n, 2] float32 in the square from -1 to 1, which they fill in one direction, and their quality.

    name: of the method, for display. trustworthiness, neighbours_kept: measured on `sample_size` of the points; see
    `projection_quality`.
    """

    points: Floats
    name: str
    trustworthiness: float
    neighbours_kept: float
    sample_size: int


@without_autologging()
def project(vectors: Floats, method: str = "auto", seed: int = 0, start: Floats | None = None) -> Projection:
    """Project vectors [n, d] to two dimensions so that vectors of similar directions are close to each other.

    method: one of PROJECTIONS, or "auto": t-SNE. start: initial points [n, 2] for methods that take them, so that
    two projections are alike. The same vectors, seed and machine give the same points.
    Raises SettingError for an unknown method, or one whose package is missing.
    """
    name = "tsne" if method == "auto" else method
    if name not in PROJECTIONS:
        raise SettingError(f"there is no projection {name!r}; there are auto, {', '.join(PROJECTIONS)}")
    directions = normalize(vectors).astype(np.float32)
    if len(directions) < 4:
        name = "pca"  # the others need neighbours
    points, title = PROJECTIONS[name](directions, seed, start)
    points = points - (points.max(axis=0) + points.min(axis=0)) / 2
    points /= max(float(np.abs(points).max()), 1e-12)
    return Projection(points.astype(np.float32), title, *projection_quality(directions, points, seed))


def projection_quality(directions: Floats, points: Points, seed: int = 0) -> tuple[float, float, int]:
    """Return a projection's trustworthiness, the share of neighbours it keeps, and the number of points measured.

    Both consider ten neighbours. Trustworthiness penalizes every false neighbour among the points by its rank among
    the vectors: 1 means that there is none, chance is about .5 (Venna and Kaski, ICANN 2001). The share kept is
    stricter: how many of the nearest points are among the nearest vectors.
    """
    from sklearn.manifold import trustworthiness
    from sklearn.neighbors import NearestNeighbors

    n = len(points)
    nearest = min(_NEAREST, (n - 1) // 2)
    if nearest < 1:
        return 1.0, 1.0, n
    if n > _MAX_TRUST_POINTS:
        sample = np.random.default_rng(seed).choice(n, _MAX_TRUST_POINTS, replace=False)
        directions, points = directions[sample], points[sample]
    projected, true = (NearestNeighbors(n_neighbors=nearest).fit(x).kneighbors(return_distance=False) for x in
                       (points, directions))  # fmt: skip
    offsets = len(points) * np.arange(len(points))[:, None]  # so that neighbours are compared within each row only
    kept = np.isin(projected + offsets, true + offsets).mean()
    return float(trustworthiness(directions, points, n_neighbors=nearest)), float(kept), len(points)


def _pca(directions: Floats, seed: int, start: Floats | None) -> tuple[Points, str]:
    centred = directions.astype(np.float64) - directions.mean(axis=0, dtype=np.float64)
    values, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]
    # The sign of an axis is arbitrary; the largest weight is made positive, so that two machines agree.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    share = values[::-1][:2].sum() / max(float(values.sum()), 1e-12)
    points = centred @ axes
    if points.shape[1] < 2:
        points = np.column_stack((points, np.zeros((len(points), 2 - points.shape[1]))))
    return points, f"PCA, {100 * share:.0f} % of the variance"


def _initial_points(directions: Floats, start: Floats | None) -> Points:
    """Return initial points for t-SNE: the given ones or PCA's, scaled down as t-SNE needs them."""
    first = np.array(_pca(directions, 0, None)[0] if start is None else start, np.float64)
    return first / max(float(first[:, 0].std()), 1e-12) * 1e-4


def _tsne(directions: Floats, seed: int, start: Floats | None) -> tuple[Points, str]:
    n = len(directions)
    perplexity = min(30.0, (n - 1) / 3)
    first = _initial_points(directions, start)
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
    with warnings.catch_warnings(), _progress_bar("t-SNE", _EARLY_ITERATIONS + _ITERATIONS) as advance:
        warnings.simplefilter("ignore")
        points = TSNE(
            perplexity=perplexity, metric="euclidean", initialization=first, random_state=seed, n_jobs=-1,
            neighbors="exact" if n <= 3_000 else "auto",
            early_exaggeration_iter=_EARLY_ITERATIONS, n_iter=_ITERATIONS, callbacks=advance, callbacks_every_iters=10,
        ).fit(directions)  # fmt: skip
    return np.asarray(points), f"t-SNE, perplexity {perplexity:.3g}"


@contextlib.contextmanager
def _progress_bar(name: str, total: int) -> Iterator[Callable[..., bool]]:
    """Show a progress bar if stderr is a terminal; yield the callback for every ten iterations."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    enabled = console.is_terminal and log.isEnabledFor(logging.INFO)
    with Progress(console=console, transient=True, disable=not enabled) as bar:
        task = bar.add_task(name, total=total)

        def advance(*_: object) -> bool:
            bar.advance(task, 10)
            return False  # do not stop

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
        warnings.simplefilter("ignore")  # UMAP warns that a seed means one thread
        mapper = umap.UMAP(n_neighbors=min(15, n - 1), min_dist=0.1, metric="cosine", random_state=seed, init=init)
        return mapper.fit_transform(directions), f"UMAP, {min(15, n - 1)} neighbours"


PROJECTIONS: dict[str, Callable[[Floats, int, Floats | None], tuple[Points, str]]] = {
    "pca": _pca,
    "tsne": _tsne,
    "umap": _umap,
}
