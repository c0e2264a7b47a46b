"""A folder of part files and a manifest: each part is written whole, and what was interrupted goes on.

Several processes may share the parts. Each notes what its own parts hold in a file beside them; the first of them,
which leads, keeps the manifest.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from recsys_embed.errors import DataError, SettingError
from recsys_embed.storage.atomic import atomic_write
from recsys_embed.storage.json import parse_json
from recsys_embed.storage.table_files import Append, table_writer

log = logging.getLogger("recsys_embed")

# Readers of folders (Spark, pyarrow, pandas) pass over names that begin with _.
MANIFEST = "_manifest.json"
_VERSION = 1
_PART = re.compile(r"part-\d{5,}\.(?:parquet|csv|jsonl)")
# Parts and manifests that a killed command had not finished.
_TEMPORARY = re.compile(r"\.(?:_?part-\d{5,}\.(?:parquet|csv|jsonl)(?:\.json)?|_manifest\.json)-\w+")
# What a part of another process holds.
_NOTE = re.compile(r"_(part-\d{5,}\.(?:parquet|csv|jsonl))\.json")
# Seconds after which a network drive shows a file that another machine has written.
_SEEN_AFTER = 90

# What a part holds: the numbers "rows" and "lists", the ids "without_list", and more.
Facts = dict[str, Any]


class Team(Protocol):
    """The processes that fill a folder. rank: this one; 0 leads. size: how many."""

    @property
    def rank(self) -> int:
        """The number of this process."""

    @property
    def size(self) -> int:
        """How many processes there are."""

    def start(self) -> None:
        """Start the others, if this process is to."""

    def meet(self) -> None:
        """Wait until all processes are here. Raises RecsysError if one has ended."""


class _Alone:
    rank, size = 0, 1

    def start(self) -> None:
        pass

    def meet(self) -> None:
        pass


ALONE: Team = _Alone()


class PartFolder:
    """A folder of files part-00000, part-00001, … and a manifest that says what they are of and which are complete."""

    def __init__(self, path: Path, manifest: dict[str, Any], suffix: str, team: Team) -> None:
        self.path, self.manifest, self.suffix, self.team = path, manifest, suffix, team

    @classmethod
    def open(
        cls, path: Path, request: Mapping[str, Any], suffix: str, overwrite: bool = False, team: Team = ALONE
    ) -> PartFolder:
        """Make a folder, or continue one of the same request.

        request: all that the content depends on, as JSON values by name, and its kind. suffix: of the parts,
        ".parquet". overwrite: start anew, whatever the parts are of. team: all of which call this. Raises SettingError
        if the folder holds something else.
        """
        if team.rank:
            return cls._opened(path, request, suffix, team)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"the folder {path} cannot be made: {error.strerror}") from None
        manifest = _read_manifest(path)
        if manifest is None or overwrite:
            _drop_notes(path)  # before there is a manifest that they could be taken into
            started = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            manifest = {"done": False, "version": _VERSION, "started": started, "request": dict(request), "parts": {}}
        elif different := _differences(manifest["request"], request):
            raise SettingError(
                f"{path} holds other {request['kind']}: {'; '.join(different)} (--overwrite starts anew; another --out "
                "keeps them)"
            )
        folder = cls(path, manifest, suffix, team)
        folder._take_notes()
        folder._drop_missing()
        folder._save()
        folder._clean()
        return folder

    @classmethod
    def _opened(cls, path: Path, request: Mapping[str, Any], suffix: str, team: Team) -> PartFolder:
        """Return the folder that the process which leads has opened."""
        team.meet()
        manifest = _read_manifest(path) if path.is_dir() else None
        if manifest is None:
            raise SettingError(
                f"{path} is not the same folder on all machines: --out must be on a disk that they share"
            )
        if different := _differences(manifest["request"], request):
            raise SettingError(f"process {team.rank} would write other {request['kind']}: {'; '.join(different)}")
        return cls(path, manifest, suffix, team)

    @property
    def started(self) -> str:
        """When the first part was begun, as an ISO text in UTC."""
        started: str = self.manifest["started"]
        return started

    @property
    def facts(self) -> list[Facts]:
        """What the complete parts hold, in their order."""
        return [self.manifest["parts"][name] for name in sorted(self.manifest["parts"])]

    def fill(
        self,
        total: int,
        per_part: int,
        write: Callable[[Append, int, int, Callable[[int], None]], Facts],
        progress: Callable[[int, int], None],
    ) -> int:
        """Write the parts that are missing, one after the other; return how many those were.

        total: how many lists there are; per_part: how many of them a part has. write: called with a function that
        appends frames, the first list, the end, and a function to call with the number of lists done; returns the facts
        of the part. progress: called with the number of lists that are done, and of all.
        """
        starts = range(0, max(1, total), per_part)
        spans = {self._name(n): (start, min(total, start + per_part)) for n, start in enumerate(starts)}
        left = [name for name in spans if name not in self.manifest["parts"]]
        leads = self.team.rank == 0
        if leads:
            self._say(len(left), len(spans))
            if len(left) > 1:
                self.team.start()
            self.team.meet()
        for name in left[self.team.rank :: self.team.size]:
            start, end = spans[name]
            before = sum(end - start for name, (start, end) in spans.items() if name in self.manifest["parts"])
            with table_writer(self.path / name) as append:
                facts = write(append, start, end, lambda done, before=before: progress(before + done, total))  # type: ignore[misc]
            facts = {**facts, "bytes": (self.path / name).stat().st_size}
            if leads:
                self.manifest["parts"][name] = facts
                self._take_notes()
                self._save()
            else:
                _write_json(self.path / f"_{name}.json", facts)
        self.team.meet()
        if leads and not self.manifest["done"]:
            self._complete(list(spans))
            if self.team.size > 1:
                progress(total, total)
        self.team.meet()
        if not leads:
            self.manifest = _read_manifest(self.path) or self.manifest
        return len(left)

    def _complete(self, names: list[str]) -> None:
        """Note in the manifest that all parts are there, once those of other machines are seen here."""
        until = time.monotonic() + _SEEN_AFTER
        self._take_notes()
        while any(name not in self.manifest["parts"] for name in names):
            if time.monotonic() > until:
                raise DataError(f"parts of other processes do not appear in {self.path}: the same command goes on")
            time.sleep(0.2)
            self._take_notes()
        self.manifest["done"] = True
        self._save()
        _drop_notes(self.path)

    def _take_notes(self) -> None:
        """Put what parts of other processes hold into the manifest."""
        for file in self.path.iterdir():
            if (found := _NOTE.fullmatch(file.name)) and found[1] not in self.manifest["parts"]:
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # the part is then written again
                    facts = parse_json(file.read_text("utf-8"))
                    _check_facts(found[1], facts)
                    self.manifest["parts"][found[1]] = facts

    def _name(self, n: int) -> str:
        return f"part-{n:05d}{self.suffix}"

    def _say(self, left: int, count: int) -> None:
        if not left:
            log.info("%s is complete already: nothing to do (--overwrite writes it again)", self.path)
        elif left < count:
            log.info("%s has %s of %s parts: going on with the others", self.path, f"{count - left:,}", f"{count:,}")

    def _drop_missing(self) -> None:
        """Forget parts whose files are gone, or are not what was written."""
        for name, facts in list(self.manifest["parts"].items()):
            file = self.path / name
            if not file.is_file() or file.stat().st_size != facts.get("bytes"):
                del self.manifest["parts"][name]
                self.manifest["done"] = False

    def _save(self) -> None:
        totals = {name: sum(facts[name] for facts in self.facts) for name in ("rows", "lists")}
        totals["without_list"] = sum(len(facts["without_list"]) for facts in self.facts)
        rest = {name: self.manifest[name] for name in ("version", "started", "request")}
        manifest = {
            "done": self.manifest["done"],
            **totals,
            **rest,
            "parts": dict(sorted(self.manifest["parts"].items())),
        }
        _write_json(self.path / MANIFEST, manifest)

    def _clean(self) -> None:
        """Remove unfinished files, parts that the manifest does not name, and notes, which are in it."""
        _drop_notes(self.path)
        for file in self.path.iterdir():
            left_over = _PART.fullmatch(file.name) and file.name not in self.manifest["parts"]
            if left_over or _TEMPORARY.fullmatch(file.name):
                file.unlink(missing_ok=True)


def is_part_folder(out: str | Path) -> bool:
    """Return whether a place for a table is a folder of parts: it is a folder, or its name ends in a slash."""
    return str(out).endswith(("/", "\\")) or Path(out).is_dir()


def _drop_notes(path: Path) -> None:
    for file in path.iterdir():
        if _NOTE.fullmatch(file.name):
            file.unlink(missing_ok=True)


def _write_json(path: Path, value: Any) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """Return the manifest of a folder, or None if the folder is empty. Raises SettingError for another folder."""
    try:
        manifest: dict[str, Any] = parse_json((path / MANIFEST).read_text("utf-8"))
        if manifest["version"] == _VERSION:
            if not isinstance(manifest["request"], dict) or not isinstance(manifest["started"], str):
                raise TypeError
            for name, facts in manifest["parts"].items():
                _check_facts(name, facts)
            manifest.setdefault("done", False)
            return manifest
        raise SettingError(f"{path / MANIFEST} is of another version of recsys-embed: choose another folder")
    except FileNotFoundError:
        if all(_TEMPORARY.fullmatch(file.name) for file in path.iterdir()):
            return None
        raise SettingError(f"{path} is not empty, and no folder of parts: choose another one") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SettingError(f"{path / MANIFEST} is broken: choose another folder, or remove this one") from None


def _check_facts(name: str, facts: Any) -> None:
    """Raise a KeyError or a TypeError for what does not say how much a part holds."""
    numbers = isinstance(facts["rows"], int) and isinstance(facts["lists"], int)
    if not numbers or not isinstance(facts["without_list"], list) or not _PART.fullmatch(name):
        raise TypeError


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say in what two requests differ."""
    if old.get("kind") != new["kind"]:
        return [f"they are {old.get('kind')}"]
    different = []
    for name in [*new, *(name for name in old if name not in new)]:
        before, now = old.get(name), new.get(name)
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict) and "sha256" in now:
            counts = before.get("count"), now.get("count")
            detail = (
                f" ({counts[0]:,} there, {counts[1]:,} now)" if None not in counts and counts[0] != counts[1] else ""
            )
            different.append(f"the {name} are others{detail}" if None not in counts else f"the {name} is another one")
        else:
            different.append(f"{name.replace('_', '-')} is {_as_text(now)}, there {_as_text(before)}")
    return different


def _as_text(value: Any) -> str:
    text = "not given" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:59] + "…"


@contextlib.contextmanager
def explain_interrupt(out: str | Path) -> Iterator[None]:
    """Say, when a command is interrupted while it fills a folder, how it goes on."""
    try:
        yield
    except KeyboardInterrupt:
        if (Path(out) / MANIFEST).exists():
            log.warning("interrupted: %s keeps its complete parts; the same command without --overwrite goes on", out)
        raise
