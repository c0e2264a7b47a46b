"""A made-up world of films with a known taste behind it: for tests, demonstrations and machines without data."""

from __future__ import annotations

import numpy as np
import polars as pl

from recsys_embed.errors import SettingError

_GENRES = ("Comedy", "Drama", "Horror", "Romance", "Sci-Fi", "Thriller", "War", "Western")
_FIRST = ("Quiet", "Last", "Golden", "Broken", "Silent", "Distant", "Crimson", "Lost", "Secret", "Burning", "Winter")
_SECOND = ("River", "Summer", "Machine", "Letter", "Garden", "Signal", "Island", "Promise", "Harbour", "Stranger")


def make(
    users: int = 600, items: int = 300, ratings: int = 20_000, seed: int = 0, dim: int = 6
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return (ratings, items) of a world whose users and films have a genre-shaped taste in `dim` dimensions.

    Popular films are rated more often, liked films too, and stars (1 to 5) follow the taste. The same numbers
    give the same world on every machine. Raises SettingError where the ratings do not fit into the world.
    """
    if users < 2 or items < 2 or not 1 <= ratings <= users * items // 2:
        raise SettingError(
            f"a synthetic world of {users:,} users and {items:,} items holds from 1 to {users * items // 2:,} ratings, "
            f"not {ratings:,}; it needs at least two users and two items"
        )
    random = np.random.default_rng(seed)
    genre = random.integers(0, len(_GENRES), items)
    centre = random.normal(size=(len(_GENRES), dim))
    taste_items = centre[genre] + 0.5 * random.normal(size=(items, dim))
    taste_users = centre[random.integers(0, len(_GENRES), users)] + 0.5 * random.normal(size=(users, dim))
    popularity = 1.0 / (1 + random.permutation(items)) ** 0.5
    per_user = _spread(random.pareto(2.0, users) + 0.5, ratings, items // 2 + items % 2)
    rows = []
    for user in range(users):
        affinity = taste_items @ taste_users[user] / dim**0.5
        # Gumbel noise on log weights draws without replacement, in proportion to the weights.
        key = np.log(popularity) + 1.2 * affinity + random.gumbel(size=items)
        chosen = np.argpartition(-key, per_user[user] - 1)[: per_user[user]]
        stars = np.clip(np.rint(3.2 + 0.6 * affinity[chosen] + 0.5 * random.normal(size=len(chosen))), 1, 5)
        rows.append((np.full(len(chosen), user + 1), chosen + 1, stars))
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


def _spread(weight: np.ndarray, total: int, most: int) -> np.ndarray:
    """Share `total` ratings out over the users by weight: at least 1 and at most `most` each, exact in sum."""
    share = np.clip(np.floor(weight / weight.sum() * total), 1, most).astype(int)
    for _ in range(total):
        missing = total - share.sum()
        if missing == 0:
            break
        free = np.flatnonzero(share < most) if missing > 0 else np.flatnonzero(share > 1)
        if not len(free):  # fewer ratings than users: the last ones have none to give
            break
        chosen = free[: abs(missing)]
        share[chosen] += np.sign(missing)
    return share
