"""How large map.html is, and how smoothly it moves: python experiments/benchmarks/map_page.py ITEMS [METHOD]

A made-up model of ITEMS items x 64 with fifty clusters. Needs Playwright and a Chromium (`CHROMIUM`, else the one on
the path); frames are painted in software where there is no GPU, which is the hard case.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from playwright.sync_api import sync_playwright

from recsys_embed import Recommender, Vocab
from recsys_embed.config.answers import MapConfig
from recsys_embed.data.user_items import UserItems
from recsys_embed.maps.draw import draw_map
from recsys_embed.models.embedding import EmbeddingModel

WORDS = "silent river garden winter machine harbour secret letter island promise burning signal golden distant".split()


def world(n: int, dim: int = 64) -> Recommender:
    random = np.random.default_rng(0)
    kind = random.integers(0, 50, n)
    items = (random.normal(size=(50, dim))[kind] + 0.7 * random.normal(size=(n, dim))).astype(np.float32)
    users = random.normal(size=(1000, dim)).astype(np.float32)
    made = Recommender()
    made.model = EmbeddingModel(users, items, np.zeros(1000, np.float32), np.zeros(n, np.float32))
    made.users, made.items = Vocab(np.arange(1000), "user"), Vocab(np.arange(n), "item")
    made.item_counts = (1 + 5000 / (1 + random.permutation(n)) ** 0.7).astype(np.int64)
    made.seen = UserItems.of(np.repeat(np.arange(1000), 20), random.integers(0, n, 20_000), 1000)
    made.held_out = UserItems.empty(1000)
    titles = [f"The {WORDS[a]} {WORDS[b]} {i}" for i, (a, b) in enumerate(random.integers(0, len(WORDS), (n, 2)))]
    made.table = pl.DataFrame(
        {
            "item_id": np.arange(n),
            "title": titles,
            "year": random.integers(1950, 2026, n),
            "genres": [WORDS[k % 14] for k in kind],
        }
    )
    made.metadata = {"dataset": f"made up, {n:,}"}
    return made


# Moves the pointer from frame to frame and notes when frames come.
PAN = """() => new Promise((done) => {
  const times = []; let n = 0;
  const step = (now) => {
    times.push(now);
    plot.pan(6 * Math.cos(n / 9), 4 * Math.sin(n / 9));
    if (n % 10 === 0) plot.zoomAt(600, 400, n % 20 ? 1.1 : 1 / 1.1);
    if (++n < 121) requestAnimationFrame(step); else done(times);
  };
  requestAnimationFrame(step);
})"""


def main() -> None:
    n, method = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "pca"
    made = world(n)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        page, _ = draw_map(made, folder, MapConfig(method=method)).files
        took, size = time.perf_counter() - begin, page.stat().st_size / 1e6
        print(f"{n:,} items, {method}: written in {took:.1f} s, {size:.2f} MB", flush=True)
        browse(page)


def browse(page: Path) -> None:
    with sync_playwright() as playwright:
        chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        begin = time.perf_counter()
        tab.goto(page.as_uri())
        tab.wait_for_function("plot.pixels && plot.labels.length")
        print(f"opened in {time.perf_counter() - begin:.1f} s")
        for name in ("whole", "near"):
            times = np.diff(tab.evaluate(PAN))
            print(f"{name}: {1000 / times.mean():.0f} frames/s on average, slowest {times.max():.0f} ms")
            tab.evaluate("plot.zoomAt(640, 400, 6)")
        begin = time.perf_counter()
        tab.evaluate("select(5, true)")
        print(f"neighbours of an item: {1000 * (time.perf_counter() - begin):.0f} ms")
        begin = time.perf_counter()
        tab.evaluate("pick(5)")
        print(f"recommendations: {1000 * (time.perf_counter() - begin):.0f} ms")
        browser.close()


if __name__ == "__main__":
    main()
