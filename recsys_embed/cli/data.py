"""recsys data: list, fetch, check."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from recsys_embed.cli.options import JSON, with_settings
from recsys_embed.cli.output import say, say_json, say_table
from recsys_embed.config.settings import DataConfig

app = typer.Typer(no_args_is_help=True, help="List, fetch and check data sets.")
_DIR = Annotated[str | None, typer.Option("--data-dir", help="Folder of downloads.")]


@app.command("list")
def list_(data_dir: _DIR = None, json: JSON = False) -> None:
    """List the data sets that have a name, and which of them are here."""
    from recsys_embed.sources.download import data_dir as resolve
    from recsys_embed.sources.load import DATASETS
    from recsys_embed.sources.movielens import SOURCES, here

    folder = resolve(data_dir)
    rows = []
    for name in DATASETS:
        own = "movielens-100k" if name == "movielens" else name
        sources = ", then ".join(s.name for s in SOURCES.get(own, ())) or "made on the spot"
        rows.append([name, "yes" if own not in SOURCES or here(own, folder) else "no", sources])
    if json:
        return say_json(
            {"datasets": [{"name": n, "here": h == "yes", "sources": s} for n, h, s in rows], "folder": str(folder)}
        )
    say_table(["name", "here", "source"], rows)
    return say(f"downloads: {folder}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Name of a data set.")],
    data_dir: _DIR = None,
    json: JSON = False,
) -> None:
    """Bring a data set to this machine."""
    from recsys_embed.sources.load import load_dataset

    ratings = load_dataset(name, DataConfig(dataset=name, data_dir=data_dir)).ratings
    if json:
        sizes = {"users": len(ratings.users), "items": len(ratings.items), "ratings": len(ratings)}
        return say_json({"dataset": name, **sizes, "digest": ratings.digest()})
    return say(f"{name}: {ratings!r}")


@app.command()
@with_settings(data=DataConfig)
def check(data: DataConfig, json: JSON = False) -> None:
    """Say what is in a data set, and what people should know before they train on it."""
    import numpy as np

    from recsys_embed.data.checks import check_trainable
    from recsys_embed.sources.load import load_dataset

    ratings = load_dataset(data.dataset, data).ratings
    check_trainable(ratings)
    counts, per_user = ratings.counts, np.bincount(ratings.user, minlength=len(ratings.users))
    facts: dict[str, Any] = {
        "dataset": data.dataset,
        "digest": ratings.digest(),
        "users": len(ratings.users),
        "items": len(ratings.items),
        "ratings": len(ratings),
        **({"edges": len(ratings) // 2} if ratings.shared else {}),
        "density": len(ratings) / (len(ratings.users) * len(ratings.items)),
        "repeated_rows_merged": ratings.merged,
        "user_ids": "text" if ratings.users.is_text else "integers",
        "item_ids": "text" if ratings.items.is_text else "integers",
        "values": sorted({float(v) for v in np.unique(ratings.value)[:20]}),
        "ratings_a_user": {
            "min": int(per_user.min()),
            "median": float(np.median(per_user)),
            "max": int(per_user.max()),
        },
        "ratings_an_item": {"min": int(counts.min()), "median": float(np.median(counts)), "max": int(counts.max())},
        "users_below_5_ratings": int((per_user < 5).sum()),
        "items_below_5_ratings": int((counts < 5).sum()),
        "times": None if ratings.time is None else [int(ratings.time.min()), int(ratings.time.max())],
    }
    if json:
        return say_json(facts)
    return say_table(["fact", "value"], [[n.replace("_", " "), v] for n, v in facts.items()])
