"""Files for other programs, in a folder where people may keep theirs: ours come whole, and theirs are never touched."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from recsys_embed.errors import DataError
from recsys_embed.storage.atomic import writing_whole

# Names the files of the folder that are ours, each with the kind of export that it belongs to.
RECORD = "export.json"
_OURS = "recsys-embed"
# The names that exports have. A record may come from anywhere: nothing else is believed to be ours.
_NAMES = re.compile(
    r"(items|users|words|(users-)?(vectors|metadata)|vectors-users|projector_config)"
    r"\.(tsv|json|pbtxt|txt|parquet|safetensors|npz)"
)


class Content(NamedTuple):
    """What is written to a file. lines: how many it has to have in the end, None for what is not text."""

    write: Callable[[BinaryIO], None]
    lines: int | None = None


def fill(folder: Path, files: Mapping[str, Content], kind: str) -> None:
    """Write files into a folder, all of them or none; those of an earlier export of the same kind go.

    A new folder is renamed into place. In one that is there already only files that its record says are ours are
    replaced, each in one step. Raises DataError, before anything is computed, where a file of that name is not ours.
    """
    known = _check(folder, files)
    home = folder if folder.exists() else folder.parent
    try:
        home.mkdir(parents=True, exist_ok=True)
        # Within the folder itself where it is there: a rename from its parent might cross to another disk.
        with tempfile.TemporaryDirectory(prefix=".export-", dir=home) as name:
            fresh = Path(name) / "export"
            fresh.mkdir()
            for at, content in files.items():
                with writing_whole(fresh / at) as file:
                    content.write(file)
                if content.lines is not None and (found := _lines(fresh / at)) != content.lines:
                    raise DataError(f"{at} came out with {found:,} lines instead of {content.lines:,}")
            others = {at: its for at, its in known.items() if its != kind}
            with writing_whole(fresh / RECORD) as file:
                record = {"package": _OURS, "files": {**others, **dict.fromkeys(files, kind)}}
                file.write(json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
            if not folder.exists():
                fresh.rename(folder)
                return
            for at in known.keys() - others.keys() - files.keys():
                (folder / at).unlink(missing_ok=True)
            # The record comes first: should the rest be cut off, what is there is still known to be ours.
            for at in (RECORD, *files):
                (fresh / at).replace(folder / at)
    except OSError as error:
        raise DataError(f"the export could not be written to {folder}: {error.strerror or error}") from None


def ours(folder: Path, kind: str) -> list[Path]:
    """Return the files of a folder that an export of one kind wrote."""
    return [folder / name for name, its in _record(folder).items() if its == kind]


def _check(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the record of a folder; raise DataError where it holds a file of one of the names that is not ours."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise DataError(f"{folder} is a file; an export is a folder: choose another --out")
    known = _record(folder)
    for name in names:
        if name not in known and os.path.lexists(folder / name):
            raise DataError(f"{folder / name} is there already and is not of an export: choose another --out")
    return known


def _record(folder: Path) -> dict[str, str]:
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
        good = record["package"] == _OURS
        files = {str(name): str(kind) for name, kind in record["files"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise DataError(f"{folder / RECORD} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good or not all(_NAMES.fullmatch(name) for name in files):
        raise DataError(f"{folder / RECORD} is not of an export: choose another --out")
    return files


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(part.count(b"\n") for part in iter(lambda: file.read(1 << 24), b""))
