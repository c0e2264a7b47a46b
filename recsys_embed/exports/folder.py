"""Write an export's files into a folder that may hold other files too: all or none, and never touch the others."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from recsys_embed.errors import DataError
from recsys_embed.storage.atomic import atomic_write
from recsys_embed.storage.json import parse_json

# The record in the folder: names the files that exports wrote, each with its export format.
RECORD = "export.json"
_PACKAGE = "recsys-embed"
# The file names that exports use. A record may come from anywhere, so it is trusted only if it names no other files.
_NAMES = re.compile(
    r"(items|users|words|(users-)?(vectors|metadata)|vectors-users|projector_config)"
    r"\.(tsv|json|pbtxt|txt|parquet|safetensors|npz)"
)


class Content(NamedTuple):
    """How to write a file. lines: the number of lines it must have in the end, None for a file that is not text."""

    write: Callable[[BinaryIO], None]
    lines: int | None = None


def write_files(folder: Path, files: Mapping[str, Content], kind: str) -> None:
    """Write files into a folder, all of them or none, and delete those of an earlier export of the same kind.

    A new folder is renamed into place. In an existing one, only files that its record names are replaced, each
    atomically. Raises DataError, before anything is computed, if another file has one of the names.
    """
    recorded = _check_names(folder, files)
    parent = folder if folder.exists() else folder.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        # Inside the folder if it exists: a rename from its parent might cross to another disk.
        with tempfile.TemporaryDirectory(prefix=".export-", dir=parent) as scratch:
            new = Path(scratch) / "export"
            new.mkdir()
            for name, content in files.items():
                with atomic_write(new / name) as file:
                    content.write(file)
                if content.lines is not None and (n_lines := _count_lines(new / name)) != content.lines:
                    raise DataError(f"{name} came out with {n_lines:,} lines instead of {content.lines:,}")
            others = {name: its_kind for name, its_kind in recorded.items() if its_kind != kind}
            with atomic_write(new / RECORD) as file:
                record = {"package": _PACKAGE, "files": {**others, **dict.fromkeys(files, kind)}}
                file.write(json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
            if not folder.exists():
                new.rename(folder)
                return
            for name in recorded.keys() - others.keys() - files.keys():
                (folder / name).unlink(missing_ok=True)
            # The record first: if this is interrupted, it names all files that are in the folder.
            for name in (RECORD, *files):
                (new / name).replace(folder / name)
    except OSError as error:
        raise DataError(f"the export could not be written to {folder}: {error.strerror or error}") from None


def exported_files(folder: Path, kind: str) -> list[Path]:
    """Return the files in a folder that exports of this kind wrote."""
    return [folder / name for name, its_kind in _read_record(folder).items() if its_kind == kind]


def _check_names(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the record of a folder. Raises DataError if a file of one of the names is not from an export."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise DataError(f"{folder} is a file; an export is a folder: choose another --out")
    recorded = _read_record(folder)
    for name in names:
        if name not in recorded and os.path.lexists(folder / name):
            raise DataError(f"{folder / name} exists and is not from an export: choose another --out")
    return recorded


def _read_record(folder: Path) -> dict[str, str]:
    """Return the kind of export of each file that the folder's record names, {} without a record."""
    try:
        record = parse_json((folder / RECORD).read_text("utf-8"))
        valid = record["package"] == _PACKAGE
        files = {str(name): str(kind) for name, kind in record["files"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise DataError(f"{folder / RECORD} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        valid = False
    if not valid or not all(_NAMES.fullmatch(name) for name in files):
        raise DataError(f"{folder / RECORD} is not from an export: choose another --out")
    return files


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 24), b""))
