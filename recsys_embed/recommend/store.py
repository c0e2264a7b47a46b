"""A Recommender and its folder: what of it stands in which file, and the card for people."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys_embed.config import short_name
from recsys_embed.errors import BundleError
from recsys_embed.model.plain import PlainModel
from recsys_embed.ratings.table import Seen
from recsys_embed.ratings.vocab import Vocab
from recsys_embed.recommend.bundle import Bundle, jsonable
from recsys_embed.recommend.described import FILES

if TYPE_CHECKING:
    from recsys_embed.recommend.recommender import Recommender

PER_USER = "per_user.parquet"

_MEANINGS = {
    "score": "higher is better, for one user at a time; it has no unit",
    "stars": "the predicted rating",
    "chance": "log-odds that the user takes the item",
}


def write(recommender: Recommender, folder: Path) -> Path:
    """Write a recommender to a folder, whole or not at all, and return the folder."""
    plain = recommender.plain
    vectors = {
        "users": plain.users,
        "items": plain.items,
        "user_bias": plain.user_bias,
        "item_bias": plain.item_bias,
    }
    if plain.history is not None:
        vectors["history"] = plain.history
    for at, (weight, bias) in enumerate(plain.layers):
        vectors |= {f"layer.{at}.weight": weight, f"layer.{at}.bias": bias}
    seen = {
        f"{name}.{part}": getattr(rows, part)
        for name, rows in (("seen", recommender.seen), ("held", recommender.held), ("made_of", recommender.made_of))
        for part in ("start", "item")
        if rows is not None
    }
    from recsys_embed import __version__

    recommender.facts.setdefault("created", datetime.datetime.now(datetime.UTC).isoformat())
    own = {"offset": plain.offset, "link": plain.link, "scale": list(plain.scale), "unit": plain.unit}
    own["shared"] = recommender.shared
    facts = {"package": __version__, **own}
    bundle = Bundle(
        arrays={"vectors.safetensors": vectors, "seen.safetensors": seen},
        frames={
            "users.parquet": pl.DataFrame({"user_id": recommender.users.series}),
            "items.parquet": recommender.table.with_columns(ratings=recommender.counts),
        },
        facts={"model.json": jsonable({**facts, **recommender.facts})},
        pages={"README.md": card(recommender)},
    )
    if recommender.per_user is not None:
        bundle.frames[PER_USER] = recommender.per_user
    if recommender.described is not None:
        recommender.described.put(bundle)
    bundle.write(folder)
    return folder


def read(loaded: Recommender, folder: Path, mapped: bool) -> Recommender:
    """Fill a new recommender from a folder, and return it. Raises BundleError."""
    bundle = Bundle.read(folder, without=FILES, mapped=mapped)
    try:
        facts = bundle.facts["model.json"]
        arrays, seen = bundle.arrays["vectors.safetensors"], bundle.arrays["seen.safetensors"]
        depth = sum(name.endswith(".weight") for name in arrays)
        loaded.plain = PlainModel(
            users=arrays["users"],
            items=arrays["items"],
            user_bias=arrays["user_bias"],
            item_bias=arrays["item_bias"],
            offset=facts["offset"],
            link=facts["link"],
            scale=(facts["scale"][0], facts["scale"][1]),
            layers=[(arrays[f"layer.{at}.weight"], arrays[f"layer.{at}.bias"]) for at in range(depth)],
            unit=facts["unit"],
            history=arrays.get("history"),
        )
        loaded._described, loaded._folder = None, folder if "content" in facts else None
        loaded.seen, loaded.held = (Seen(seen[f"{n}.start"], seen[f"{n}.item"]) for n in ("seen", "held"))
        if "made_of.start" in seen:
            loaded.made_of = Seen(seen["made_of.start"], seen["made_of.item"])
        table = bundle.frames["items.parquet"]
        loaded.users = Vocab(bundle.frames["users.parquet"]["user_id"], "user")
        loaded.items = Vocab(table["item_id"], "item")
        if facts.get("shared"):
            if loaded.users != loaded.items:
                raise BundleError(f"{folder} says that users and items are the same nodes, but their ids differ")
            loaded.users = loaded.items = Vocab(table["item_id"], "node")
    except KeyError as missing:
        raise BundleError(f"{folder} lacks {missing}: it is no model of this version") from None
    own = ("offset", "link", "scale", "unit", "shared")
    loaded.per_user = bundle.frames.get(PER_USER)  # only a training with a test has it
    loaded.table, loaded.counts = table.drop("ratings"), table["ratings"].to_numpy()
    loaded.facts = {k: v for k, v in facts.items() if k not in (*own, "package", "content")}
    return loaded


def card(recommender: Recommender) -> str:
    """Return the model card, in Markdown."""
    chosen, metrics = recommender.facts.get("settings", {}), recommender.facts.get("metrics", {})
    lines = [
        f"# Recommendations from {short_name(recommender.facts.get('dataset', 'ratings'))}",
        *_summary(metrics),
        "",
        f"{_sizes(recommender)}; "
        f"vectors of {recommender.plain.dim} numbers; loss {chosen.get('loss')}, scorer {chosen.get('scorer')}, "
        f"{recommender.facts.get('epochs')} epochs, seed {chosen.get('seed')}.",
        *_before(recommender.facts),
        "",
        f"A score means: {_MEANINGS[recommender.plain.link]}.",
    ]
    lines += _quality(metrics)
    if recommender.facts.get("command"):
        lines += ["", "The same training again:", "", "```sh", recommender.facts["command"], "```"]
    lines += [
        "",
        "Read it with `recsys_embed.Recommender.load(folder)` or `recsys recommend --model FOLDER`. The vectors",
        "stand in `vectors.safetensors`, the ids in `users.parquet` and `items.parquet`; reading executes nothing.",
    ]
    if recommender.facts.get("terms"):
        lines += ["", f"Data: {recommender.facts['terms']}"]
    return "\n".join(lines) + "\n"


def _sizes(recommender: Recommender) -> str:
    if recommender.shared:
        return f"{len(recommender.users):,} nodes, {len(recommender.seen) // 2:,} edges"
    return f"{len(recommender.users):,} users, {len(recommender.items):,} items, {len(recommender.seen):,} ratings"


def _before(facts: dict[str, Any]) -> list[str]:
    """Return what the training went on from, and what came after it without training."""
    lines = []
    if went := facts.get("continued"):
        of = f"the model {went['model']}" if "model" in went else "a model"
        more = f"{went['new_users']:,} users and {went['new_items']:,} items were new"
        lines += ["", f"The training went on from {of} of {str(went.get('created', 'unknown date'))[:10]}; {more}."]
    if later := facts.get("updated"):
        more = f"{later['ratings']:,} ratings, {later['new_users']:,} new users"
        lines += ["", f"After the training, without another one: {more}; the metrics are from before."]
    return lines


def _summary(metrics: dict[str, Any]) -> list[str]:
    """Return how good the model is in a sentence, beside its baselines; it comes first, and lists show no more."""
    test, baselines = metrics.get("test"), metrics.get("baselines", {})
    if not test or not test["users"]:
        return []
    against = [
        f"{test['ndcg_at_10'] / baselines[name]['ndcg_at_10']:{form}} x {said} ({baselines[name]['ndcg_at_10']:.4f})"
        for name, said, form in (("popularity", "popularity", ".1f"), ("ease", "EASE", ".2f"))
        if baselines.get(name, {}).get("ndcg_at_10")
    ]
    stars = f"RMSE {test['rmse']:.4f}; " if "rmse" in test else ""
    beside = f": {', '.join(against)}" if against else ""
    return ["", f"**{stars}NDCG@10 {test['ndcg_at_10']:.4f}{beside}**"]


def _quality(metrics: dict[str, Any]) -> list[str]:
    """Return how good the model is as a table, beside its baselines, and how sure the difference is."""
    test, baselines = metrics.get("test"), metrics.get("baselines", {})
    if not test or not test["users"]:
        return []
    lines = [
        "",
        f"On held-out test ratings of {test['users']:,} users (all items ranked, those fitted on left out):",
        "",
    ]
    names = [n for n in ("ndcg_at_10", "recall_at_10", "hit_at_10", "coverage_at_10", "rmse") if n in test]
    lines += ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row, values in {"this model": test, **baselines}.items():
        cells = [f"{values[n]:.4f}" if n in values else "" for n in names]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    for name, values in baselines.items():
        if found := values.get("difference"):
            span = f"{found['mean']:+.4f}, 95 % interval {found['low']:+.4f} to {found['high']:+.4f}"
            lines += [*([""] if name == next(iter(baselines)) else []), f"- {found['metric']} against {name}: {span}"]
    if metrics.get("cold"):
        sides = {"this model": metrics["cold"], **metrics["cold"]["baselines"]}
        found = ", ".join(f"{row} {values['ndcg_at_10']:.4f}" for row, values in sides.items())
        lines += ["", f"Items without a training rating, ranked among themselves, NDCG@10: {found}."]
    return lines
