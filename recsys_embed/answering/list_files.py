"""Write many lists to one file, which appears whole, or to a folder of parts, which goes on where it stopped."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from recsys_embed.config.answers import OutputConfig
from recsys_embed.config.fields import flag
from recsys_embed.data.ids import Id
from recsys_embed.errors import SettingError
from recsys_embed.storage.part_folder import ALONE, Facts, PartFolder, Team, is_part_folder
from recsys_embed.storage.table_files import FORMATS, Append, table_writer
from recsys_embed.version import __version__

# (lists that are done, all lists)
Progress = Callable[[int, int], None]
# Writes the lists from the first to before the second number, as of a moment, and tells how many are done.
WriteLists = Callable[[Append, int, int, str, Callable[[int], None]], Facts]

# Rows of a part, if all its lists are of full length.
_ROWS_PER_PART = 1_000_000


class Written(NamedTuple):
    """What a file or a folder of lists holds.

    rows: the number of rows. lists: of those that are not empty. empty: the ids of users (of audiences: items) without
    any. held_out: the number of lists with an item that was held out for test, which the user has already. files: how
    many hold them; new_files: how many of these were written now, and not by an earlier call.
    """

    rows: int
    lists: int
    empty: list[Id]
    held_out: int
    files: int = 1
    new_files: int = 1

    @classmethod
    def of(cls, facts: list[Facts], new_files: int) -> Written:
        """Sum up what files hold."""
        rows, lists, held_out = (sum(f.get(name, 0) for f in facts) for name in ("rows", "lists", "held_out"))
        return cls(rows, lists, [id_ for f in facts for id_ in f["without_list"]], held_out, len(facts), new_files)


def write_lists(
    out: str | Path,
    output: OutputConfig,
    kind: str,
    total: int,
    k: int,
    describe: Callable[[], dict[str, Any]],
    write: WriteLists,
    progress: Progress,
    team: Team = ALONE,
) -> Written:
    """Write lists to a file or to a folder of parts.

    kind: what they are. total: their number. k: the length of the longest. describe: returns all that they depend on,
    as JSON values; it is called for a folder only. team: processes that share its parts. Raises SettingError and
    DataError.
    """
    if not is_part_folder(out):
        path = Path(out)
        if path.suffix not in FORMATS:
            raise SettingError(f"{out} must end in one of {', '.join(FORMATS)}, or in / for a folder of parts")
        if team is not ALONE:
            raise SettingError(
                f"several processes share a folder of parts: end --out with a slash, {path.with_suffix('')}/"
            )
        for name in ("format", "per_part"):
            if getattr(output, name) is not None:
                raise SettingError(
                    f"{flag(name)} is for a folder of parts: end --out with a slash, {path.with_suffix('')}/"
                )
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with table_writer(path) as append:
            facts = write(append, 0, total, now, lambda done: progress(done, total))
        return Written.of([facts], 1)
    form, per_part = output.format or "parquet", output.per_part or max(1, _ROWS_PER_PART // k)
    request = {"kind": kind, **describe(), "format": form, "per_part": output.per_part, "recsys_embed": __version__}
    folder = PartFolder.open(Path(out), request, f".{form}", output.overwrite, team)
    new = folder.fill(
        total, per_part, lambda append, start, stop, tick: write(append, start, stop, folder.started, tick), progress
    )
    return Written.of(folder.facts, new)
