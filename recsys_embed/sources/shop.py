"""A made-up shop: products, and what customers did with them, for guides, demonstrations and tests."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.errors import SettingError

_CATEGORIES = {
    "Coffee": ("Espresso Beans", "Filter Coffee", "Coffee Grinder", "Milk Jug", "Moka Pot"),
    "Tea": ("Green Tea", "Earl Grey", "Teapot", "Tea Strainer", "Herbal Tea"),
    "Baking": ("Bread Tin", "Whisk", "Rolling Pin", "Cake Ring", "Proving Basket"),
    "Garden": ("Watering Can", "Tomato Seeds", "Hand Trowel", "Plant Pot", "Pruning Shears"),
    "Outdoor": ("Tent", "Sleeping Bag", "Head Torch", "Camping Stove", "Water Bottle"),
    "Running": ("Running Shoes", "Running Socks", "Rain Jacket", "Hydration Vest", "Cap"),
    "Home office": ("Desk Lamp", "Notebook", "Fountain Pen", "Monitor Stand", "Desk Mat"),
    "Toys": ("Wooden Train", "Puzzle", "Building Bricks", "Kite", "Card Game"),
}
_BRANDS = ("Alder", "Birch", "Cedar", "Elm", "Fir", "Hazel", "Juniper", "Larch", "Maple", "Rowan")
_DAY = 86_400
# The first day: 2025-01-06, a Monday.
_START = 1_736_121_600
_DIM = 8


class Shop(NamedTuple):
    """products: sku, title, category, brand, price, stock, added (a date). events: customer, sku, event (view, cart,
    purchase, return) and time (text, UTC), the oldest first."""

    products: pl.DataFrame
    events: pl.DataFrame


def generate(customers: int = 2_000, products: int = 500, weeks: int = 16, seed: int = 0) -> Shop:
    """Return a shop of some weeks. The same arguments give the same shop on any machine.

    Customers come back now and then, look at what is popular, in season, new, or to their taste in a category of the
    day, and put into the cart and buy what they like. A fifth of the products, and of the customers, come in later.
    Raises SettingError for a shop that is too small.
    """
    if customers < 10 or products < 16 or weeks < 2:
        raise SettingError("a shop has at least 10 customers, 16 products and 2 weeks")
    random = np.random.default_rng(seed)
    category = random.integers(0, len(_CATEGORIES), products)
    brand = random.integers(0, len(_BRANDS), products)
    centre, of_brand = random.normal(size=(len(_CATEGORIES), _DIM)), random.normal(size=(len(_BRANDS), _DIM))
    vectors = centre[category] + 0.5 * of_brand[brand] + 0.4 * random.normal(size=(products, _DIM))
    days = 7 * weeks
    added = np.where(random.random(products) < 0.2, random.integers(0, days, products), -1)
    world = _World(
        vectors, category, added, random.normal(size=products), random.uniform(0, days, len(_CATEGORIES)), days
    )
    rows: list[tuple[int, int, str, int]] = []
    for customer in range(customers):
        first = int(random.integers(0, days)) if random.random() < 0.2 else 0
        own = random.permutation(len(_CATEGORIES))[:2]
        taste = (
            centre[own].mean(axis=0) + 0.5 * of_brand[random.integers(0, len(_BRANDS))] + 0.5 * random.normal(size=_DIM)
        )
        affinity = vectors @ taste / _DIM**0.5
        for day in np.sort(random.integers(first, days, max(1, int(random.lognormal(1.6, 0.7))))).tolist():
            rows += world.visit(customer, affinity, day, random)
    frame = pl.DataFrame(rows, schema=["customer", "sku", "event", "time"], orient="row")
    frame = frame.filter(pl.col("time") < _START + days * _DAY).sort("time", maintain_order=True)
    skus = pl.Series([f"SKU-{number:05d}" for number in range(products)])
    events = frame.with_columns(
        customer=pl.format("C{}", 100_000 + pl.col("customer")),
        sku=skus.gather(frame["sku"]),
        time=pl.from_epoch("time").dt.strftime("%Y-%m-%d %H:%M:%S"),
    )
    return Shop(_products(skus, category, brand, added, random), events)


class _World(NamedTuple):
    """What products are like. season: the day on which a category is in season."""

    vectors: NDArray[np.float64]
    category: NDArray[np.int64]
    added: NDArray[np.int64]
    exposure: NDArray[np.float64]
    season: NDArray[np.float64]
    days: int

    def visit(
        self, customer: int, affinity: NDArray[np.float64], day: int, random: np.random.Generator
    ) -> list[tuple[int, int, str, int]]:
        """Return what a customer does on one visit, as (customer, product, event, time)."""
        time = _START + day * _DAY + int(random.integers(7 * 3_600, 22 * 3_600))
        age = day - self.added
        in_season = 1.5 * np.exp(-0.5 * ((day - self.season) / 10) ** 2)[self.category]
        new = np.where((self.added >= 0) & (age >= 0), 1.5 * np.exp(-age / 7), 0.0)
        focus = np.where(self.category == random.integers(0, len(self.season)), 1.0, 0.0)
        wish = self.exposure + affinity + in_season + new + focus
        viewed = np.flatnonzero(age >= 0)
        key = wish[viewed] + random.gumbel(size=len(viewed))
        rows: list[tuple[int, int, str, int]] = []
        for product in viewed[np.argsort(-key)[: 1 + random.poisson(4)]].tolist():
            time += int(random.integers(20, 300))
            rows += [(customer, product, "view", time + 5 * n) for n in range(1 + int(random.random() < 0.2))]
            if random.random() < 1 / (1 + np.exp(2.0 - 1.5 * affinity[product])):
                rows.append((customer, product, "cart", time + 15))
                if random.random() < 1 / (1 + np.exp(0.3 - affinity[product])):
                    rows.append((customer, product, "purchase", time + 400))
                    if random.random() < 0.03:
                        rows.append((customer, product, "return", time + 5 * _DAY))
        return rows


def _products(
    skus: pl.Series,
    category: NDArray[np.int64],
    brand: NDArray[np.int64],
    added: NDArray[np.int64],
    random: np.random.Generator,
) -> pl.DataFrame:
    names = list(_CATEGORIES)
    titles = [
        f"{_BRANDS[b]} {_CATEGORIES[names[c]][n % 5]} {n:03d}"
        for n, (c, b) in enumerate(zip(category.tolist(), brand.tolist(), strict=True))
    ]
    days = np.where(added < 0, -random.integers(1, 700, len(skus)), added)
    return pl.DataFrame(
        {
            "sku": skus,
            "title": titles,
            "category": [names[c] for c in category.tolist()],
            "brand": [_BRANDS[b] for b in brand.tolist()],
            "price": np.round(random.lognormal(3.0, 0.7, len(skus)), 2),
            "stock": np.where(random.random(len(skus)) < 0.1, 0, random.integers(1, 200, len(skus))),
            "added": pl.from_epoch(pl.Series(_START + days * _DAY)).dt.date().cast(pl.String),
        }
    )
