"""The model folders of a workspace: the newest one, all of them, and a new one that is claimed."""

from __future__ import annotations

import json
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

from recsys_embed.errors import BundleError
from recsys_embed.storage.bundle import MANIFEST, _beside, _manifest

log = logging.getLogger("recsys_embed")


def check_writable(folder: Path) -> None:
    """Raise BundleError where no model could be written to `folder`; asked before hours of training, not after."""
    with _beside(Path(folder)):
        pass


def claim(folder: Path) -> Path:
    """Make an empty folder of this name, or with -2, -3, … behind it, that nobody else was given."""
    n = 1
    while True:
        named = folder if n == 1 else folder.with_name(f"{folder.name}-{n}")
        try:
            named.mkdir(parents=True)
            return named
        except FileExistsError:
            n += 1
        except OSError as error:
            raise BundleError(f"the model could not be written to {named}: {error.strerror}") from None


def facts_of(folder: Path) -> dict[str, Any]:
    """Read model.json of a model folder, without the rest; for lists of models."""
    _manifest(folder)
    try:
        facts: dict[str, Any] = json.loads((folder / "model.json").read_text())
        return facts
    except (OSError, ValueError):
        raise BundleError(f"{folder}: model.json cannot be read") from None


def newest(models: Path = Path("models")) -> Path:
    """Return the newest model folder in `models`; raise BundleError where there is none."""
    found = listed(models)
    if not found:
        raise BundleError(f"there is no model in {models}/: train one with `recsys train`, or name it with --model")
    return found[0][0]


def listed(models: Path = Path("models")) -> list[tuple[Path, dict[str, Any]]]:
    """Return the model folders in `models` with their facts, the newest first; broken ones are left out and named."""
    found = []
    for manifest in models.glob(f"[!.]*/{MANIFEST}"):
        try:
            found.append((manifest.parent, facts_of(manifest.parent)))
        except BundleError as error:
            _left_out(str(error))
    return sorted(found, key=lambda pair: (_time_of(pair[1]), pair[0].name), reverse=True)


@lru_cache(maxsize=1000)
def _left_out(reason: str) -> None:
    """Say why a folder is no model, once: a service looks every two seconds."""
    log.warning("left out: %s", reason)


def _time_of(facts: dict[str, Any]) -> str:
    """Return when a model was trained, or updated since."""
    updated = facts.get("updated")
    return max(str(facts.get("created")), str(updated.get("time", "")) if isinstance(updated, dict) else "")
