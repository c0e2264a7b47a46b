"""Save a fitted state to a model folder, and load it. See docs/bundle.md."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import polars as pl
from numpy.typing import NDArray

from recsys_embed.config.renamed import with_current_names
from recsys_embed.data.user_items import UserItems
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import BundleError
from recsys_embed.forks import needs_threads
from recsys_embed.models.registry import FAMILIES, family
from recsys_embed.models.trend import Trend
from recsys_embed.state.card import model_card
from recsys_embed.state.content_model import FILES
from recsys_embed.state.fitted import FittedState
from recsys_embed.storage.bundle import Bundle
from recsys_embed.storage.json import jsonable
from recsys_embed.storage.parquet_reader import first_line

PER_USER = "per_user.parquet"
# Fields of a state that hold `UserItems`, and their names in seen.safetensors.
_USER_ITEMS = {"seen": "seen", "held_out": "held", "history_items": "made_of", "hidden_items": "hidden"}
# Array keys in seen.safetensors, and the attributes of `UserItems` that they hold.
_CSR_KEYS = {"start": "indptr", "item": "indices"}
# Keys of model.json that are not metadata of the state.
_RESERVED_KEYS = ("package", "family", "shared", "content", "trend")


@needs_threads("saving a model")
def save_state(state: FittedState, folder: Path) -> Path:
    """Write a state to a folder atomically, and return the folder."""
    from recsys_embed.version import __version__

    state.metadata.setdefault("created", datetime.datetime.now(datetime.UTC).isoformat())
    arrays, model_metadata = state.model.save()
    user_items: dict[str, NDArray[Any]] = {
        f"{name}.{key}": getattr(getattr(state, field), attribute)
        for field, name in _USER_ITEMS.items()
        for key, attribute in _CSR_KEYS.items()
        if getattr(state, field) is not None
    }
    header = {"package": __version__, **model_metadata, "shared": state.is_graph}
    if state.trend is not None:
        header["trend"] = {name: getattr(state.trend, name) for name in ("time", "half_life", "weight")}
        user_items |= {f"trend.{name}": getattr(state.trend, name) for name in ("recent", "trained")}
    if state.model.family != "embeddings":  # the default for folders without a family
        header["family"] = state.model.family
    bundle = Bundle(
        arrays={"vectors.safetensors": arrays, "seen.safetensors": user_items},
        frames={
            "users.parquet": pl.DataFrame({"user_id": state.users.series}),
            "items.parquet": state.table.with_columns(ratings=state.item_counts),
        },
        metadata={"model.json": jsonable({**header, **state.metadata})},
        texts={"README.md": model_card(state)},
    )
    if state.per_user is not None:
        bundle.frames[PER_USER] = state.per_user
    if state.content_model is not None:
        state.content_model.save(bundle)
    bundle.write(folder)
    return folder


@needs_threads("loading a model")
def load_state(folder: Path, mmap: bool = False) -> FittedState:
    """Load a state from a model folder, and verify every byte against the manifest. Raises BundleError."""
    bundle = Bundle.read(folder, without=FILES, mapped=mmap)
    try:
        metadata, table = with_current_names(bundle.metadata["model.json"]), bundle.frames["items.parquet"]
        kind = metadata.get("family", "embeddings")
        if kind not in FAMILIES:
            raise BundleError(f"{folder} is a model of the family {kind!r}; this version reads {', '.join(FAMILIES)}")
        model = family(kind).load(bundle.arrays["vectors.safetensors"], metadata)
        _, model_metadata = model.save()
        arrays, sizes = bundle.arrays["seen.safetensors"], (bundle.frames["users.parquet"].height, table.height)
        user_items = {
            field: UserItems(arrays[f"{name}.start"], arrays[f"{name}.item"]).checked(*sizes)
            for field, name in _USER_ITEMS.items()
            if field in ("seen", "held_out") or f"{name}.start" in arrays
        }
        users, items = Vocab(bundle.frames["users.parquet"]["user_id"], "user"), Vocab(table["item_id"], "item")
        if metadata.get("shared"):
            if users != items:
                raise BundleError(f"{folder} says that users and items are the same nodes, but their ids differ")
            users = items = Vocab(table["item_id"], "node")
        counts = table["ratings"].to_numpy()
        trend = None
        if "trend" in metadata:
            trend = Trend(recent=arrays["trend.recent"], trained=arrays["trend.trained"], **metadata["trend"])
    except (KeyError, pl.exceptions.ColumnNotFoundError) as missing:
        raise BundleError(f"{folder} lacks {first_line(missing)}: it is not a model of this version") from None
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise BundleError(f"{folder} is not what this version writes: {first_line(error)}") from None
    return FittedState(
        users=users,
        items=items,
        model=model,
        table=table.drop("ratings"),
        trend=trend,
        item_counts=counts,
        metadata={name: value for name, value in metadata.items() if name not in (*model_metadata, *_RESERVED_KEYS)},
        per_user=bundle.frames.get(PER_USER),  # absent without a test
        content=folder if "content" in metadata else None,
        seen=user_items["seen"],
        held_out=user_items["held_out"],
        history_items=user_items.get("history_items"),
        hidden_items=user_items.get("hidden_items"),
    )
