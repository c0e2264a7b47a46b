"""The model folder on disk: written completely or not at all, verified when read, and nothing in it is executed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from numpy.typing import NDArray

from recsys_embed.errors import BundleError
from recsys_embed.storage.atomic import make_hidden, sync
from recsys_embed.storage.json import parse_json
from recsys_embed.storage.parquet_reader import first_line, read_parquet
from recsys_embed.storage.safetensors_reader import read_arrays
from recsys_embed.storage.safetensors_writer import write_arrays

MANIFEST = "manifest.json"

# The version of the folder's format.
FORMAT = 1


@dataclass
class Bundle:
    """The contents of a model folder by file name.

    arrays: .safetensors. frames: .parquet. metadata: .json. texts: any other file, such as README.md.
    """

    arrays: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)
    frames: dict[str, pl.DataFrame] = field(default_factory=dict)
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write all files to a temporary folder beside `folder`, then rename it to `folder`.

        A model in `folder` is replaced; anything else is left alone, and BundleError is raised.
        """
        folder = Path(folder)
        with temporary_sibling(folder) as temporary:
            self._fill(temporary)
            _replace_folder(temporary, folder)

    def _fill(self, folder: Path) -> None:
        for name, arrays in self.arrays.items():
            with (folder / name).open("wb") as file:
                write_arrays(file, arrays)
                file.flush()
                os.fsync(file.fileno())
        for name, frame in self.frames.items():
            frame.write_parquet(folder / name)
            sync(folder / name)
        for name, values in self.metadata.items():
            text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
            _write_synced(folder / name, text.encode())
        for name, text in self.texts.items():
            _write_synced(folder / name, text.encode())
        files = files_of(folder)
        _write_synced(folder / MANIFEST, json.dumps({"format": FORMAT, "files": files}, indent=1).encode() + b"\n")
        sync(folder)

    @classmethod
    def read(
        cls, folder: Path, only: Collection[str] | None = None, without: Collection[str] = (), *, mapped: bool = False
    ) -> Bundle:
        """Read a folder, or some of its files, and verify each file against the manifest. Raises BundleError.

        only: the files to read, if not all. without: files to skip.
        mapped: memory-map the arrays after every byte has been verified, so that processes share them. If a file is
            replaced, whoever has mapped it keeps the old content; it must not be written in place.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        bundle = cls()
        for name, entry in manifest["files"].items():
            if Path(name).name != name:
                raise BundleError(f"{folder}: the manifest names {name!r}, which is not a file of this folder")
            if name in without or (only is not None and name not in only):
                continue
            data = _read_verified(folder, name, entry, mapped and name.endswith(".safetensors"))
            try:
                bundle._parse(name, data)
            except ValueError as error:
                raise BundleError(f"{folder}: {name} is broken: {first_line(error)}") from None
        return bundle

    def _parse(self, name: str, data: bytes | mmap.mmap) -> None:
        """Take in a file. Raises ValueError for a broken one: digests do not say who wrote it."""
        if name.endswith(".safetensors"):
            self.arrays[name] = read_arrays(data)
        elif name.endswith(".parquet"):
            self.frames[name] = read_parquet(bytes(data), "it")
        elif name.endswith(".json"):
            self.metadata[name] = parse_json(bytes(data))
        else:
            self.texts[name] = bytes(data).decode()


def _read_verified(folder: Path, name: str, entry: Mapping[str, Any], mapped: bool) -> bytes | mmap.mmap:
    """Return the content of a file, read or memory-mapped, if its size and digest are those of the manifest entry."""
    try:
        with (folder / name).open("rb") as file:
            # Hash and map the same open file: another file may get its name in between.
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
def temporary_sibling(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside `folder`, and remove it afterwards unless it has been renamed.

    Raises BundleError if `folder` exists and is not a model, or if nothing can be written there.
    """
    if folder.exists() and not _is_replaceable(folder):
        raise BundleError(f"{folder} exists and is not a model: choose another --out")
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = make_hidden(folder, Path.mkdir)
        yield temporary
    except OSError as error:
        raise BundleError(f"the model could not be written to {folder}: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a model folder. Raises BundleError if it is missing, broken or of another format."""
    if not folder.is_dir():
        raise BundleError(f"there is no model folder {folder}")
    try:
        manifest: dict[str, Any] = parse_json((folder / MANIFEST).read_text())
        version, files = manifest["format"], manifest["files"]
        valid = all(isinstance(e["size"], int) and isinstance(e["sha256"], str) for e in files.values())
    except OSError:
        raise BundleError(f"{folder} is not a model folder: it has no {MANIFEST}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BundleError(f"{folder}: {MANIFEST} is broken") from None
    if version != FORMAT or not valid:
        raise BundleError(f"{folder} has format {version}; this version of recsys-embed reads format {FORMAT}")
    return manifest


def _is_replaceable(folder: Path) -> bool:
    """Return whether a folder is empty or a model: it has a valid manifest and no file that this does not name."""
    if not folder.is_dir():
        return False
    names = {entry.name for entry in folder.iterdir()}
    try:
        return not names or names <= {MANIFEST, *read_manifest(folder)["files"]}
    except BundleError:
        return False


def _replace_folder(temporary: Path, folder: Path) -> None:
    """Rename `temporary` to `folder`; if that fails, the old folder stays."""
    if not folder.exists():
        temporary.rename(folder)
    else:
        # A rename cannot replace a folder that is not empty, so the old one is moved aside, and back on failure.
        old = folder.with_name(f".{folder.name}-old-{os.getpid()}")
        folder.rename(old)
        try:
            temporary.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    sync(folder.parent)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the size and the SHA-256 of each file of a folder, by name."""
    return {f.name: {"size": f.stat().st_size, "sha256": _digest(f)} for f in sorted(folder.iterdir())}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
