"""Find the files that a path, a folder or a pattern names."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from recsys_embed.errors import DataError

# How the names of tables end, before the ending of a compression.
_TABLE = re.compile(
    r"\.(?:csv|tsv|tab|txt|dat|data|inter|json|jsonl|ndjson|parquet|pq|db|sqlite3?)(?:\.(?:gz|bz2|xz|zst|zip))?$",
    re.IGNORECASE,
)
_NO_TABLE = re.compile(r"^(?:[._].*|(?:readme|licen[cs]e|terms|changelog|manifest|allbut|u\.info)\b.*)$", re.IGNORECASE)
_PATTERN = re.compile(r"[*?\[]")
# What a folder of a partitioned table is called: day=2024-05-01.
_PARTITION = re.compile(r"([A-Za-z_]\w*)=(.*)")


def is_path(location: str) -> bool:
    """Return whether a location looks like that of a file, rather than like a name of a data set."""
    return location == "-" or bool(re.search(r"[./\\*?\[]", location)) or Path(location).exists()


def tables_among(names: list[str]) -> list[str]:
    """Return those names of files that are tables, as far as a name says: no hidden files and no README."""
    plain = [name for name in names if not any(map(_NO_TABLE.match, re.split(r"[/\\]", name)))]
    return [name for name in plain if _TABLE.search(name)] or plain


def find_files(location: str) -> list[Path]:
    """Return the files of a path, of a folder (with those below it) or of a pattern such as 'part-*.csv', sorted.

    Hidden files, those whose name begins with _, and READMEs are left out. A path may lead into a zip archive. Raises
    DataError if there is none.
    """
    path = Path(location)
    if path.is_dir():
        names = [p.relative_to(path).as_posix() for p in sorted(path.rglob("*")) if p.is_file()]
        files = [path / name for name in tables_among(names)]
        if not files:
            raise DataError(f"the folder {path} holds no table")
        return files
    if _PATTERN.search(location) and not path.exists():
        files = [p for p in map(Path, sorted(glob.glob(location, recursive=True))) if p.is_file()]
        if not files:
            raise DataError(f"no file matches {location}")
        return files
    return [path]


def archive_of(path: Path) -> tuple[Path, str] | None:
    """Return the zip archive that a path leads into, with the name of the file inside, or None."""
    if path.exists():
        return None
    archive = next((p for p in path.parents if p.is_file() and p.suffix.lower() == ".zip"), None)
    return None if archive is None else (archive, path.relative_to(archive).as_posix())


def partition_columns(path: Path, folder: Path) -> dict[str, str]:
    """Return the columns that folders between a folder and a file are named after: {"day": "2024-05-01"}."""
    return {m[1]: m[2] for m in map(_PARTITION.fullmatch, path.relative_to(folder).parent.as_posix().split("/")) if m}
