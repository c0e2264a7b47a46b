"""A fitted state and its folder on disk: what of it is in which file. See docs/bundle.md."""

from __future__ import annotations

import datetime
from pathlib import Path

import polars as pl

from recsys_embed.data.user_items import UserItems
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import BundleError
from recsys_embed.models.registry import FAMILIES, family
from recsys_embed.state.card import model_card
from recsys_embed.state.content_model import FILES
from recsys_embed.state.fitted import FittedState
from recsys_embed.storage.bundle import Bundle
from recsys_embed.storage.json import jsonable

PER_USER = "per_user.parquet"
# Fields of a state that are rows of items by user, and their names in seen.safetensors.
_USER_ITEMS = {"seen": "seen", "held_out": "held", "history_items": "made_of"}
# What model.json says besides the metadata.
_OWN_FACTS = ("package", "family", "shared", "content")


def save_state(state: FittedState, folder: Path) -> Path:
    """Write a state to a folder, whole or not at all, and return the folder."""
    from recsys_embed import __version__

    state.metadata.setdefault("created", datetime.datetime.now(datetime.UTC).isoformat())
    arrays, facts = state.model.save()
    rows = {
        f"{name}.{part}": getattr(getattr(state, field), part)
        for field, name in _USER_ITEMS.items()
        for part in ("start", "item")
        if getattr(state, field) is not None
    }
    own = {"package": __version__, **facts, "shared": state.shared}
    if state.model.family != "embedding":  # the family of folders that name none
        own["family"] = state.model.family
    bundle = Bundle(
        arrays={"vectors.safetensors": arrays, "seen.safetensors": rows},
        frames={
            "users.parquet": pl.DataFrame({"user_id": state.users.series}),
            "items.parquet": state.table.with_columns(ratings=state.counts),
        },
        facts={"model.json": jsonable({**own, **state.metadata})},
        pages={"README.md": model_card(state)},
    )
    if state.per_user is not None:
        bundle.frames[PER_USER] = state.per_user
    if state.content_model is not None:
        state.content_model.save(bundle)
    bundle.write(folder)
    return folder


def load_state(folder: Path, mmap: bool = False) -> FittedState:
    """Read a state from its folder; every byte is compared with the manifest. Raises BundleError."""
    bundle = Bundle.read(folder, without=FILES, mapped=mmap)
    try:
        facts, table = bundle.facts["model.json"], bundle.frames["items.parquet"]
        kind = facts.get("family", "embedding")
        if kind not in FAMILIES:
            raise BundleError(f"{folder} is a model of the family {kind!r}; this version reads {', '.join(FAMILIES)}")
        model = family(kind).load(bundle.arrays["vectors.safetensors"], facts)
        _, own = model.save()
        rows = bundle.arrays["seen.safetensors"]
        user_items = {
            field: UserItems(rows[f"{name}.start"], rows[f"{name}.item"])
            for field, name in _USER_ITEMS.items()
            if field != "history_items" or f"{name}.start" in rows
        }
        users, items = Vocab(bundle.frames["users.parquet"]["user_id"], "user"), Vocab(table["item_id"], "item")
        if facts.get("shared"):
            if users != items:
                raise BundleError(f"{folder} says that users and items are the same nodes, but their ids differ")
            users = items = Vocab(table["item_id"], "node")
        counts = table["ratings"].to_numpy()
    except KeyError as missing:
        raise BundleError(f"{folder} lacks {missing}: it is no model of this version") from None
    return FittedState(
        users=users,
        items=items,
        model=model,
        table=table.drop("ratings"),
        counts=counts,
        metadata={name: value for name, value in facts.items() if name not in (*own, *_OWN_FACTS)},
        per_user=bundle.frames.get(PER_USER),  # only a training with a test has it
        content=folder if "content" in facts else None,
        seen=user_items["seen"],
        held_out=user_items["held_out"],
        history_items=user_items.get("history_items"),
    )
