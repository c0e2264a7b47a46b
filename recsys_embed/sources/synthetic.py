"""Synthetic ratings of invented films with known latent tastes, for tests, demonstrations and machines without data."""

from __future__ import annotations

import numpy as np
import polars as pl

from recsys_embed.errors import SettingError

_GENRES = ("Comedy", "Drama", "Horror", "Romance", "Sci-Fi", "Thriller", "War", "Western")
_FIRST = ("Quiet", "Last", "Golden", "Broken", "Silent", "Distant", "Crimson", "Lost", "Secret", "Burning", "Winter")
_SECOND = ("River", "Summer", "Machine", "Letter", "Garden", "Signal", "Island", "Promise", "Harbour", "Stranger")


def generate(
    users: int = 600, items: int = 300, ratings: int = 20_000, seed: int = 0, dim: int = 6
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return (ratings, items) of users and films whose latent vectors [dim] are clustered by genre.

    users, items, ratings: how many there are. Users rate popular films more often, and films that they like; the
    ratings (1 to 5) follow their taste. The same arguments give the same data on any machine. Raises SettingError if
    there are fewer than 2 users or items, no ratings, or more ratings than half of all pairs.
    """
    if users < 2 or items < 2 or not 1 <= ratings <= users * items // 2:
        raise SettingError(
            f"synthetic data of {users:,} users and {items:,} items holds from 1 to {users * items // 2:,} ratings, "
            f"not {ratings:,}; it needs at least two users and two items"
        )
    random = np.random.default_rng(seed)
    genre = random.integers(0, len(_GENRES), items)
    genre_centre = random.normal(size=(len(_GENRES), dim))
    item_vectors = genre_centre[genre] + 0.5 * random.normal(size=(items, dim))
    user_vectors = genre_centre[random.integers(0, len(_GENRES), users)] + 0.5 * random.normal(size=(users, dim))
    popularity = 1.0 / (1 + random.permutation(items)) ** 0.5
    n_ratings = _share_out(random.pareto(2.0, users) + 0.5, ratings, items // 2 + items % 2)
    rows = []
    for user in range(users):
        affinity = item_vectors @ user_vectors[user] / dim**0.5
        # The largest log weights plus Gumbel noise are a sample without replacement, in proportion to the weights.
        key = np.log(popularity) + 1.2 * affinity + random.gumbel(size=items)
        rated = np.argpartition(-key, n_ratings[user] - 1)[: n_ratings[user]]
        stars = np.clip(np.rint(3.2 + 0.6 * affinity[rated] + 0.5 * random.normal(size=len(rated))), 1, 5)
        rows.append((np.full(len(rated), user + 1), rated + 1, stars))
    user_id, item_id, value = (np.concatenate(c) for c in zip(*rows, strict=True))
    order = random.permutation(len(user_id))
    frame = pl.DataFrame(
        {
            "user_id": user_id[order],
            "item_id": item_id[order],
            "rating": value[order].astype(np.float32),
            "timestamp": 1_600_000_000 + 60 * np.arange(len(order)),
        }
    )
    year = 1950 + random.integers(0, 70, items)
    titles = [
        f"{_FIRST[i % len(_FIRST)]} {_SECOND[i // len(_FIRST) % len(_SECOND)]}"
        f"{'' if i < len(_FIRST) * len(_SECOND) else ' ' + str(i // (len(_FIRST) * len(_SECOND)) + 1)} ({year[i]})"
        for i in range(items)
    ]
    films = pl.DataFrame(
        {"item_id": np.arange(1, items + 1), "title": titles, "year": year, "genres": [_GENRES[g] for g in genre]}
    )
    return frame, films


def _share_out(weight: np.ndarray, total: int, maximum: int) -> np.ndarray:
    """Divide exactly `total` ratings among the users by their weights, from 1 to `maximum` ratings each."""
    share = np.clip(np.floor(weight / weight.sum() * total), 1, maximum).astype(int)
    for _ in range(total):
        missing = total - share.sum()
        if missing == 0:
            break
        adjustable = np.flatnonzero(share < maximum) if missing > 0 else np.flatnonzero(share > 1)
        if not len(adjustable):  # fewer ratings than users: each user still gets one
            break
        changed = adjustable[: abs(missing)]
        share[changed] += np.sign(missing)
    return share
