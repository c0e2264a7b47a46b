"""Write what can be read of a data set as one clean file, and say what was changed."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from recsys_embed.config.settings import DataConfig
from recsys_embed.data.sorting import pair_keys
from recsys_embed.doctor.check import Examination
from recsys_embed.doctor.codes import plural
from recsys_embed.doctor.rows import columns_of_copies, shared_pairs
from recsys_embed.errors import DataError, SettingError
from recsys_embed.storage.table_files import FORMATS, write_table

_FLOAT_END = r"^(-?[0-9]+)\.0+$"


def check_output(out: Path, config: DataConfig) -> None:
    """Raise SettingError for a file that is one of the inputs, or whose suffix says no format."""
    if out.suffix not in FORMATS:
        raise SettingError(f"{out} must end in one of {', '.join(FORMATS)}")
    for name in ("dataset", "valid", "test", "items", "extra_ratings"):
        given = getattr(config, name)
        if given and out.exists() and os.path.exists(given) and os.path.samefile(out, given):
            raise SettingError(f"--fix {out} is the file of --{name.replace('_', '-')}: name another one")


def repaired(result: Examination, read: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Return the table of the ratings without what `--fix` repairs, and what was changed.

    read: the table as it was read. Columns that no option names stay as they are.
    """
    frame, changes = result.frame, []
    if frame is None or result.dataset is None:
        raise DataError("nothing can be made of the rows that can be read, so there is nothing to write")
    if frame.height < read.height:
        changes.append(f"left out {plural(read.height - frame.height, 'row')} that cannot be read")
    gone = [name for name in read.columns if name not in frame.columns]
    if gone:
        changes.append(f"left out column {', '.join(gone)}, which cannot be read")
    ids = [result.columns["user"], result.columns["item"]]
    if any(f.code == "D109" for f in result.findings):
        changes.append("wrote float ids as integers or text")
    if any(f.code == "D304" for f in result.findings):
        changes.append("wrote all times in seconds")
    # Rows of the test file go first: they are found by ids as they were read.
    frame, n_leaked = _without_test(result, frame)
    if n_leaked:
        changes.append(f"left out {plural(n_leaked, 'row')} that {'is' if n_leaked == 1 else 'are'} held out")
    for name in ids:
        if frame[name].dtype.is_integer():
            continue
        old = frame[name].cast(pl.String)
        new = old.str.strip_chars().str.normalize("NFC").str.replace(_FLOAT_END, "$1")
        n_changed = int((old != new).sum())
        if n_changed:
            frame = frame.with_columns(new.alias(name))
            changes.append(f"rewrote {plural(n_changed, 'id')} in column {name}: no blanks, NFC, no .0")
    if any(f.code == "D101" for f in result.findings) or changes:
        equal = columns_of_copies(frame, result.columns, result.dataset)
        unique = frame if equal is None else frame.unique(list(equal.values()), keep="first", maintain_order=True)
        if unique.height < frame.height:
            changes.append(f"left out {plural(frame.height - unique.height, 'copy').replace('copys', 'copies')}")
            frame = unique
    return frame, changes


def _without_test(result: Examination, frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Return the rows whose user and item are in no file of held-out ratings."""
    dataset = result.dataset
    assert dataset is not None
    ratings = dataset.ratings
    shared = [shared_pairs(ratings, part) for part in (dataset.valid, dataset.test) if part is not None]
    if not any(len(keys) for keys in shared):
        return frame, 0
    user, item = (
        vocab.rows(frame[result.columns[side]]) for vocab, side in ((ratings.users, "user"), (ratings.items, "item"))
    )
    left_out = pl.Series(pair_keys(user, item, len(ratings.items))).is_in(
        pl.concat([pl.Series(k) for k in shared]).implode()
    )
    return frame.filter(~left_out), int(left_out.sum())


def write_repaired(result: Examination, read: pl.DataFrame, out: Path) -> list[str]:
    """Write the repaired table, see `repaired`, whole or not at all; return what was changed."""
    frame, changes = repaired(result, read)
    write_table(frame, out)
    return changes
