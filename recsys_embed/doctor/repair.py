"""Write what can be read of a data set as one clean file, and say what was changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

from recsys_embed.config.addresses import several_locations
from recsys_embed.config.settings import DataConfig
from recsys_embed.data.sorting import pair_keys
from recsys_embed.doctor.check import Examination
from recsys_embed.doctor.codes import Finding, plural
from recsys_embed.doctor.rows import columns_of_copies, shared_pairs
from recsys_embed.errors import DataError, SettingError
from recsys_embed.sources import movielens
from recsys_embed.sources.download import data_dir
from recsys_embed.sources.locations import is_path
from recsys_embed.sources.read import files_of
from recsys_embed.sources.table import Table
from recsys_embed.storage.table_files import FORMATS, write_table

_FLOAT_END = r"^(-?[0-9]+)\.0+$"


def check_output(out: Path, config: DataConfig) -> None:
    """Raise SettingError for a file that is one of those that are read, however it is spelled, or whose suffix says no
    format."""
    if out.suffix not in FORMATS:
        raise SettingError(f"{out} must end in one of {', '.join(FORMATS)}")
    if not out.exists():
        return
    for option, file in _files_read(config):
        if file.exists() and os.path.samefile(out, file):
            raise SettingError(f"--fix {out} is {_spelling(out, file)}which --{option} reads: name another file")


def _spelling(out: Path, file: Path) -> str:
    return "the file " if os.path.normpath(out) == os.path.normpath(file) else f"the file {file}, "


def _files_read(config: DataConfig) -> Iterator[tuple[str, Path]]:
    """Yield the files of this machine that are read, each with the option that names it."""
    if config.dataset in movielens.SOURCES or config.dataset == "movielens":
        name = "movielens-100k" if config.dataset == "movielens" else config.dataset
        folder = movielens.find_local(name, data_dir(config.data_dir))
        yield from (("dataset", file) for file in (() if folder is None else folder.iterdir()))
    elif is_path(config.dataset):
        yield from (("dataset", file) for file in files_of(config.dataset))
    for option in ("valid", "test", "items"):
        location = getattr(config, option)
        yield from ((option, file) for file in (files_of(location) if location else ()))
    for location in several_locations(config.extra_ratings or ""):
        yield from (("extra-ratings", file) for file in files_of(location))


def repaired(result: Examination, table: Table) -> tuple[pl.DataFrame, list[str]]:
    """Return the table of the ratings without what `--fix` repairs, and what was changed.

    table: as it was read. Columns that no option names stay as they are.
    """
    if result.frame is None or result.dataset is None:
        raise DataError("nothing can be made of the rows that can be read, so there is nothing to write")
    codes = {f.code for f in result.findings}
    longer = sum(line.is_longer for line in table.odd_lines)
    changes = [f"left out {plural(longer, 'line')} with too many fields"] if longer else []
    frame = result.frame
    changes += _left_out(result, table.frame, frame, "row", " that cannot be read")
    gone = [name for name in table.frame.columns if name not in frame.columns]
    if gone:
        changes.append(f"left out column {', '.join(gone)}, which cannot be read")
    changes += [text for code, text in _REWRITTEN.items() if code in codes]
    # Rows of the test file go first: they are found by ids as they were read.
    before, frame = frame, _without_test(result, frame)
    be = "is" if before.height - frame.height == 1 else "are"
    changes += _left_out(result, before, frame, "row", f" that {be} held out")
    frame, rewritten = _with_plain_ids(frame, [result.columns["user"], result.columns["item"]])
    changes += rewritten
    if "D101" in codes or changes:
        equal = columns_of_copies(frame, result.columns, result.dataset)
        unique = frame if equal is None else frame.unique(list(equal.values()), keep="first", maintain_order=True)
        changes += _left_out(result, frame, unique, "copy", "")
        frame = unique
    return frame, changes


# What is done to all cells of a column, by the code of the finding.
_REWRITTEN = {"D109": "wrote float ids as integers or text", "D304": "wrote all times in seconds"}


def _left_out(result: Examination, before: pl.DataFrame, after: pl.DataFrame, word: str, why: str) -> list[str]:
    """Return what to say of rows that are left out, and how many of them lists are measured by."""
    count = before.height - after.height
    if not count:
        return []
    text = f"left out {plural(count, word).replace('copys', 'copies')}{why}"
    log = None if result.dataset is None else result.dataset.log
    targets = [] if log is None else [t.name for t in log.types if t.is_target]
    if log is not None and any(t.weight > 0 and not t.is_target for t in log.types):
        is_target = pl.col(result.columns["event"]).cast(pl.String).str.strip_chars().is_in(targets)
        lost = before.select(is_target.sum()).item() - after.select(is_target.sum()).item()
        text += f" ({lost:,} of them {' or '.join(targets)})"
    return [text]


def _with_plain_ids(frame: pl.DataFrame, columns: list[str]) -> tuple[pl.DataFrame, list[str]]:
    """Return a table with text ids without blanks around them, in NFC and without .0, and what was changed."""
    changes = []
    for name in columns:
        if frame[name].dtype.is_integer():
            continue
        old = frame[name].cast(pl.String)
        new = old.str.strip_chars().str.normalize("NFC").str.replace(_FLOAT_END, "$1")
        n_changed = int((old != new).sum())
        if n_changed:
            frame = frame.with_columns(new.alias(name))
            changes.append(f"rewrote {plural(n_changed, 'id')} in column {name}: no blanks, NFC, no .0")
    return frame, changes


def _without_test(result: Examination, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose user and item are in no file of held-out ratings."""
    dataset = result.dataset
    assert dataset is not None
    ratings = dataset.ratings
    shared = [shared_pairs(ratings, part) for part in (dataset.valid, dataset.test) if part is not None]
    if not any(len(keys) for keys in shared):
        return frame
    user, item = (
        vocab.rows(frame[result.columns[side]]) for vocab, side in ((ratings.users, "user"), (ratings.items, "item"))
    )
    left_out = pl.Series(pair_keys(user, item, len(ratings.items))).is_in(
        pl.concat([pl.Series(k) for k in shared]).implode()
    )
    return frame.filter(~left_out)


def remaining_errors(found: Iterable[Finding], left: Iterable[Finding]) -> list[Finding]:
    """Return the errors that a repair leaves. found: what was found before it. left: in the file that was written."""
    remaining = [f for f in found if f.severity == "error" and not f.is_fixed]
    codes = {f.code for f in remaining}
    return remaining + [f for f in left if f.severity == "error" and f.code not in codes]


def write_repaired(result: Examination, table: Table, out: Path) -> list[str]:
    """Write the repaired table, see `repaired`, whole or not at all; return what was changed."""
    frame, changes = repaired(result, table)
    write_table(frame, out)
    return changes
