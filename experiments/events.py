"""Do weights of events help to predict purchases? A made-up shop: views are many and noisy, purchases few and meant.

python experiments/events.py [SEEDS] [SPLIT] prints, for each seed, the NDCG@10 of purchases where views and carts do
not count, where everything counts alike, and with chosen weights; and paired intervals of the last against the others.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from recsys_embed.config.settings import DataConfig, RunConfig, TrainConfig
from recsys_embed.evaluation.significance import paired
from recsys_embed.experiment.run import run_experiment
from recsys_embed.sources.load import load_dataset

WAYS = {"purchases alone": "purchase=1", "all alike": "view=1,cart=1,purchase=1", "auto": "auto"}


def shop(users: int = 4_000, items: int = 1_500, days: int = 120, seed: int = 0) -> pl.DataFrame:
    """Return a log of views, carts and purchases. Users view what is shown to everybody, and what they like; they put
    into the cart, and buy, what they like."""
    random = np.random.default_rng(seed)
    centre = random.normal(size=(20, 12))
    item = centre[random.integers(0, 20, items)] + 0.6 * random.normal(size=(items, 12))
    user = centre[random.integers(0, 20, users)] + 0.6 * random.normal(size=(users, 12))
    shown, rows = 1.2 * random.normal(size=items), []
    for u in range(users):
        taste = item @ user[u] / 12**0.5
        n = int(np.clip(random.lognormal(3.0, 0.8), 4, 300))
        viewed = np.argpartition(-(shown + 0.5 * taste + random.gumbel(size=items)), n)[:n]
        time = np.sort(random.integers(0, days * 86_400, n)) + 1_700_000_000
        for i, t in zip(viewed.tolist(), time.tolist(), strict=True):
            rows += [(u, i, "view", t + 60 * k) for k in range(1 + random.poisson(0.4))]
            if random.random() < 1 / (1 + np.exp(2.2 - 1.6 * taste[i])):
                rows.append((u, i, "cart", t + 600))
                if random.random() < 1 / (1 + np.exp(0.5 - 1.2 * taste[i])):
                    rows.append((u, i, "purchase", t + 1200 + random.integers(0, 5 * 86_400)))
    return pl.DataFrame(rows, schema=["user", "item", "event", "time"], orient="row").sort("time")


def main(seeds: int, split: str) -> None:
    """Run all ways for each seed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "events.parquet"
        for seed in range(seeds):
            shop(seed=seed).write_parquet(file)
            found = {}
            for way, weights in WAYS.items():
                data = DataConfig(
                    dataset=str(file), event_col="event", event_weights=weights, target="purchase", split=split
                )
                run = RunConfig(out=f"{folder}/m", track=False, baselines=False)
                model, report = run_experiment(
                    data, None, TrainConfig(seed=seed), run, dataset=load_dataset(str(file), data)
                )
                found[way] = model.state.per_user.select("user_id", "ndcg_at_10")
                settings = report["settings"]
                print(
                    f"seed {seed}, {way}: {found[way]['ndcg_at_10'].mean():.4f} of {len(found[way])} users",
                    settings["model_family"],
                    flush=True,
                )
            for way in list(WAYS)[:2]:
                both = found["auto"].join(found[way], on="user_id", suffix="_other")
                values = (both[name].to_numpy() for name in ("ndcg_at_10", "ndcg_at_10_other"))
                print(f"  auto against {way}: {paired(*values, 1000)}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, sys.argv[2] if len(sys.argv) > 2 else "time")
