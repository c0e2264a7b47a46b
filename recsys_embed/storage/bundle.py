"""The folder on disk: written whole or not at all, checked when it is read, and nothing in it is executed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.errors import BundleError
from recsys_embed.storage.safetensors_reader import arrays

MANIFEST = "manifest.json"


FORMAT = 1


@dataclass
class Bundle:
    """What a model folder holds, by file name: arrays (.safetensors), frames (.parquet), facts (.json), pages (.md)."""

    arrays: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)
    frames: dict[str, pl.DataFrame] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write everything into a temporary folder beside `folder`, then rename it.

        A model that stands there is replaced; anything else that stands there is refused.
        """
        folder = Path(folder)
        with _beside(folder) as fresh:
            self._fill(fresh)
            _swap(fresh, folder)

    def _fill(self, folder: Path) -> None:
        from safetensors.numpy import save

        for name, named in self.arrays.items():
            _put(folder / name, save({k: np.ascontiguousarray(a) for k, a in named.items()}))
        for name, frame in self.frames.items():
            frame.write_parquet(folder / name)
            _sync(folder / name)
        for name, facts in self.facts.items():
            _put(folder / name, (json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
        for name, page in self.pages.items():
            _put(folder / name, page.encode())
        files = {f.name: {"size": f.stat().st_size, "sha256": _digest(f)} for f in sorted(folder.iterdir())}
        _put(folder / MANIFEST, json.dumps({"format": FORMAT, "files": files}, indent=1).encode() + b"\n")
        _sync(folder)

    @classmethod
    def read(
        cls, folder: Path, only: Collection[str] | None = None, without: Collection[str] = (), *, mapped: bool = False
    ) -> Bundle:
        """Read a folder, or only some of its files, and compare each with the manifest. Raises BundleError.

        mapped: arrays stay in their files, which processes share, once every byte has been compared. A file that is
        replaced stays as it was for whoever has it; one that is written into does not.
        """
        folder = Path(folder)
        manifest = _manifest(folder)
        bundle = cls()
        for name, entry in manifest["files"].items():
            if Path(name).name != name:
                raise BundleError(f"{folder}: the manifest names {name!r}, which is no file of this folder")
            if name in without or (only is not None and name not in only):
                continue
            data = _same(folder, name, entry, mapped and name.endswith(".safetensors"))
            if name.endswith(".safetensors"):
                try:
                    bundle.arrays[name] = arrays(data)
                except ValueError as error:
                    raise BundleError(f"{folder}: {name} is broken: {error}") from None
            elif name.endswith(".parquet"):
                bundle.frames[name] = pl.read_parquet(bytes(data))
            elif name.endswith(".json"):
                bundle.facts[name] = json.loads(bytes(data))
            else:
                bundle.pages[name] = bytes(data).decode()
        return bundle


def _same(folder: Path, name: str, entry: Mapping[str, Any], mapped: bool) -> bytes | mmap.mmap:
    """Return what is in a file of the manifest, read or mapped, if it is the same as when it was written."""
    try:
        with (folder / name).open("rb") as file:
            # Of one open file, so that what is mapped is what was compared, whatever bears its name by then.
            digest = hashlib.file_digest(file, "sha256").hexdigest() if mapped else ""
            if mapped:
                data: bytes | mmap.mmap = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.tell() else b""
            else:
                data = file.read()
                digest = hashlib.sha256(data).hexdigest()
    except OSError as error:
        raise BundleError(f"{folder}: {name} cannot be read ({error.strerror}); the model is incomplete") from None
    if len(data) != entry["size"] or digest != entry["sha256"]:
        raise BundleError(f"{folder}: {name} was changed after it was written; train again or restore the folder")
    return data


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside `folder`; what is left of it afterwards is removed."""
    if folder.exists() and not _is_replaceable(folder):
        raise BundleError(f"{folder} is there already and is no model: choose another --out")
    fresh: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        fresh.chmod(0o755)
        yield fresh
    except OSError as error:
        raise BundleError(f"the model could not be written to {folder}: {error.strerror or error}") from None
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


def _manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise BundleError(f"there is no model folder {folder}")
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        version, files = manifest["format"], manifest["files"]
        good = all(isinstance(e["size"], int) and isinstance(e["sha256"], str) for e in files.values())
    except OSError:
        raise BundleError(f"{folder} is no model folder: it has no {MANIFEST}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BundleError(f"{folder}: {MANIFEST} is broken") from None
    if version != FORMAT or not good:
        raise BundleError(f"{folder} has format {version}; this version of recsys-embed reads format {FORMAT}")
    return manifest


def _is_replaceable(folder: Path) -> bool:
    """Tell whether nothing but a model of ours stands there: a manifest of ours, and no file that it does not name."""
    if not folder.is_dir():
        return False
    found = {entry.name for entry in folder.iterdir()}
    try:
        return not found or found <= {MANIFEST, *_manifest(folder)["files"]}
    except BundleError:
        return False


def _swap(fresh: Path, folder: Path) -> None:
    """Put `fresh` where `folder` is, or leave the old one there."""
    if not folder.exists():
        fresh.rename(folder)
    else:
        # A folder cannot replace a full one in one step: the old one steps aside, and back if the new one cannot come.
        aside = folder.with_name(f".{folder.name}-old-{os.getpid()}")
        folder.rename(aside)
        try:
            fresh.rename(folder)
        except OSError:
            aside.rename(folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    _sync(folder.parent)


def _put(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    # Folders cannot be opened on every system; there the rename is all there is.
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
