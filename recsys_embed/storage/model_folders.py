"""The model folders of a workspace: list them, find the newest, create one under an unused name."""

from __future__ import annotations

import contextlib
import glob
import logging
import re
import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from recsys_embed.config.renamed import with_current_names
from recsys_embed.errors import BundleError
from recsys_embed.storage.bundle import MANIFEST, read_manifest, temporary_sibling
from recsys_embed.storage.json import parse_json
from recsys_embed.storage.lease import lease

log = logging.getLogger("recsys_embed")

_LEASE = ".lease"
# What `temporary_sibling` appends to the name of a folder.
_TEMPORARY = re.compile(r"-[a-z0-9_]{8}")


def check_writable(folder: Path) -> None:
    """Raise BundleError if no model could be written to `folder`. Call it before hours of training, not after."""
    with temporary_sibling(Path(folder)):
        pass


class Reserved(NamedTuple):
    """A folder that a model is going to be written to. lease: the file of the lease on it that is held, or None."""

    folder: Path
    lease: Path | None


@contextlib.contextmanager
def reserved_folder(folder: Path, unique: bool = False) -> Iterator[Reserved]:
    """Yield the folder that a model is going to be written to, under a lease; empty ones are removed in the end.

    unique: an empty folder is made under this name or, if it exists, with -2, -3, … appended, so that two processes
    never get the same. What processes that were killed have left beside it is removed.
    """
    remove_abandoned(folder.parent)
    while True:
        chosen = create_unique_folder(folder) if unique else folder
        with lease(lease_file(chosen)) as held:
            # Before it was held, another process may have taken the folder for an abandoned one, and a third have made
            # it again.
            if unique and (held is False or not chosen.is_dir()):
                continue
            try:
                yield Reserved(chosen, lease_file(chosen) if held else None)
            finally:
                if unique:
                    with contextlib.suppress(OSError):
                        chosen.rmdir()  # succeeds only if it is empty: nothing was saved
            return


def lease_file(folder: Path) -> Path:
    """Return the file of the lease on a folder."""
    return folder.with_name(f".{folder.name}{_LEASE}")


def remove_abandoned(parent: Path) -> None:
    """Remove the folders without a model, and the unfinished ones, that killed processes have left in a folder."""
    for file in parent.glob(f".*{_LEASE}"):
        with lease(file, patience=0) as ours:  # which deletes the file, and nobody else has it meanwhile
            if not ours:
                continue
            name = file.name[1 : -len(_LEASE)]
            with contextlib.suppress(OSError):
                (parent / name).rmdir()  # succeeds only if it is empty
            for unfinished in parent.glob(f".{glob.escape(name)}-*"):
                if _TEMPORARY.fullmatch(unfinished.name[len(name) + 1 :]):
                    shutil.rmtree(unfinished, ignore_errors=True)


def create_unique_folder(folder: Path) -> Path:
    """Create an empty folder of this name or, if it exists, with -2, -3, … appended, and return it.

    Two processes never get the same folder.
    """
    n = 1
    while True:
        numbered = folder if n == 1 else folder.with_name(f"{folder.name}-{n}")
        try:
            numbered.mkdir(parents=True)
            return numbered
        except FileExistsError:
            n += 1
        except OSError as error:
            raise BundleError(f"the model could not be written to {numbered}: {error.strerror}") from None


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read model.json of a model folder and nothing else, for lists of models. Raises BundleError."""
    read_manifest(folder)
    try:
        metadata: dict[str, Any] = parse_json((folder / "model.json").read_text())
        return with_current_names(metadata)
    except (OSError, ValueError):
        raise BundleError(f"{folder}: model.json cannot be read") from None


def newest_model_folder(models: Path = Path("models")) -> Path:
    """Return the newest model folder in `models`. Raises BundleError if there is none."""
    folders = list_model_folders(models)
    if not folders:
        raise BundleError(f"there is no model in {models}/: train one with `recsys train`, or name it with --model")
    return folders[0][0]


def list_model_folders(models: Path = Path("models")) -> list[tuple[Path, dict[str, Any]]]:
    """Return the model folders in `models` with their metadata, newest first; log and skip broken ones."""
    folders = []
    for manifest in models.glob(f"[!.]*/{MANIFEST}"):
        try:
            folders.append((manifest.parent, read_metadata(manifest.parent)))
        except BundleError as error:
            _log_skipped(str(error))
    return sorted(folders, key=lambda pair: (_last_change(pair[1]), pair[0].name), reverse=True)


@lru_cache(maxsize=1000)
def _log_skipped(reason: str) -> None:
    """Log why a folder is skipped, once per reason: the service lists the folders every two seconds."""
    log.warning("left out: %s", reason)


def _last_change(metadata: dict[str, Any]) -> str:
    """Return the time when a model was trained or last updated."""
    updated = metadata.get("updated")
    return max(str(metadata.get("created")), str(updated.get("time", "")) if isinstance(updated, dict) else "")
