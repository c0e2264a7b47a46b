"""Ratings that are longer than memory: Parquet files are read in parts, and put on disk by user."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.config.fields import parse_names
from recsys_embed.config.settings import DuplicatesName
from recsys_embed.data.columns import from_arrow
from recsys_embed.data.disk import Columns, Disk
from recsys_embed.data.ids import RowLabel, Rows, id_column
from recsys_embed.data.merge_rows import deduplicate
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.sorting import stable_argsort
from recsys_embed.data.time_columns import with_joined_times
from recsys_embed.data.values import parse_columns
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError
from recsys_embed.sources.table import Table, join_tables, without_outer_blanks
from recsys_embed.storage.atomic import wrap_read_errors
from recsys_embed.storage.parquet_reader import first_line

log = logging.getLogger("recsys_embed")

# Rows by which the columns are found.
_HEAD = 100_000
# Distinct ids that are merged with those before at a time, at least.
_MERGED = 1 << 20


def begins_with(file: Path, magic: bytes) -> bool:
    """Return whether a file begins with these bytes. Raises DataError if it cannot be read."""
    with wrap_read_errors(file), file.open("rb") as opened:
        return opened.read(len(magic)) == magic


class LongTable(NamedTuple):
    """Parquet files with the same columns. rows: how many they have together."""

    files: Sequence[Path]
    rows: int

    @classmethod
    def of(cls, files: Sequence[Path]) -> LongTable | None:
        """Return the table, or None if a file is no Parquet. Raises DataError for files that only begin like it."""
        if not all(begins_with(file, b"PAR1") for file in files):
            return None
        return cls(files, sum(_opened(file).metadata.num_rows for file in files))

    def columns(self) -> list[str]:
        """Return the names of the columns. Raises DataError where those of the files do not go together."""
        empty = [from_arrow(_opened(file).schema_arrow.empty_table()) for file in self.files]
        joined = join_tables([Table(frame, False, RowLabel()) for frame in empty], [str(file) for file in self.files])
        return joined.frame.columns

    def head(self, time_col: str | None) -> pl.DataFrame:
        """Return the first rows, with all columns."""
        return with_joined_times(next(self._frames(None, _HEAD), pl.DataFrame()).head(_HEAD), time_col)

    def chunks(
        self, rows: int, columns: Sequence[str], time_col: str | None
    ) -> Iterator[tuple[pl.DataFrame, RowLabel]]:
        """Yield the rows in parts of about so many, with some columns, and how messages number those of each part."""
        frames: list[pl.DataFrame] = []
        first = 1
        for frame in self._frames(columns, rows):
            frames.append(frame)
            if sum(f.height for f in frames) >= rows:
                yield with_joined_times(pl.concat(frames, how="vertical_relaxed"), time_col), RowLabel(first=first)
                first += sum(f.height for f in frames)
                frames = []
        if frames:
            yield with_joined_times(pl.concat(frames, how="vertical_relaxed"), time_col), RowLabel(first=first)

    def _frames(self, columns: Sequence[str] | None, rows: int) -> Iterator[pl.DataFrame]:
        import pyarrow as pa

        for file in self.files:
            parquet = _opened(file)
            try:
                for batch in parquet.iter_batches(rows, columns=None if columns is None else list(columns)):
                    yield without_outer_blanks(from_arrow(pa.Table.from_batches([batch])))
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise DataError(f"{file} is not a readable Parquet file: {first_line(error)}") from None


def _opened(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not a readable Parquet file: {first_line(error)}") from None


class _Distinct:
    """The distinct ids of a column that comes in parts, and how often each occurs."""

    def __init__(self) -> None:
        self._found: list[pl.DataFrame] = []

    def add(self, ids: pl.Series) -> None:
        """Count more ids."""
        self._found.append(pl.DataFrame({"id": ids}).group_by("id").agg(n=pl.len().cast(pl.Int64)))
        if sum(f.height for f in self._found[1:]) > max(_MERGED, self._found[0].height):
            self._merge()

    def _merge(self) -> None:
        self._found = [pl.concat(self._found).group_by("id").agg(pl.col("n").sum())]

    def vocab(self, name: str) -> tuple[Vocab, Rows]:
        """Return the vocabulary, sorted, and the number of each id."""
        self._merge()
        found = self._found.pop().sort("id")
        return Vocab(found["id"], name), found["n"].to_numpy()


def ratings_on_disk(
    table: LongTable, names: dict[str, str], disk: Disk, duplicates: DuplicatesName, time_format: str | None
) -> Ratings:
    """Read ratings, and return them on disk. names: the column of each role. Otherwise see `Ratings.from_frame`.

    The files are read twice: for the ids, and for the rows, which go to a file for each range of users. Each of them,
    a block of the result, is then merged and ordered in memory.
    """
    log.info("%s rows are read onto disk (%s), since they are long for memory", f"{table.rows:,}", disk.folder)
    joined, there = names.get("time"), table.columns()
    columns = [c for name in names.values() for c in ([name] if name in there else parse_names(name))]
    (users, per_user), items = _vocabs(table, names, columns, disk)
    ranges = _Ranges.of(per_user, disk.block)
    record = np.dtype([("user", "i8"), ("item", "i8"), ("value", "f4"), *_optional(names)])
    with disk.file() as file:
        for frame, label in table.chunks(disk.block, columns, joined):
            rows = _records(frame, names, (users, items), record, label, time_format)
            try:
                ranges.write(file, rows)
            except OSError as error:
                raise disk.problem(error) from None
        written, n_duplicates = Columns(disk), 0
        policy: DuplicatesName = "last" if duplicates == "error" else duplicates  # rows have no numbers any more
        for rows in ranges.read(file, record):
            merged, dropped = deduplicate(pl.DataFrame(rows), policy, RowLabel())
            if dropped and duplicates == "error":
                raise _repeated(rows, users, items)
            n_duplicates += dropped
            by_pair = stable_argsort(merged["user"].to_numpy() * len(items) + merged["item"].to_numpy())
            written.append({name: merged[name].gather(by_pair).to_numpy() for name in record.names or ()})
    found = written.finish()
    return Ratings(
        users, items, found["user"], found["item"], found["value"],  # type: ignore[arg-type]
        found.get("time"), found.get("weight"), n_duplicates=n_duplicates, disk=disk,
    )  # fmt: skip


def _repeated(rows: NDArray[Any], users: Vocab, items: Vocab) -> DataError:
    """Return the error for rows of which some are of one user and item."""
    order = stable_argsort(rows["user"] * len(items) + rows["item"])
    user, item = (rows[side][order] for side in ("user", "item"))
    at = int(np.flatnonzero((user[1:] == user[:-1]) & (item[1:] == item[:-1]))[0])
    pair = f"user {users.ids(user[at : at + 1])[0]} and item {items.ids(item[at : at + 1])[0]}"
    return DataError(f"a user and item occur more than once, such as {pair}")


def _optional(names: dict[str, str]) -> list[tuple[str, str]]:
    return [(role, kind) for role, kind in (("time", "i8"), ("weight", "f4")) if role in names]


def _vocabs(
    table: LongTable, names: dict[str, str], columns: Sequence[str], disk: Disk
) -> tuple[tuple[Vocab, Rows], Vocab]:
    """Return the users, with the number of rows of each, and the items."""
    users, items = _Distinct(), _Distinct()
    ids = [name for name in columns if name in (names["user"], names["item"])]
    for frame, label in table.chunks(disk.block, ids, None):
        users.add(id_column(frame[names["user"]], "user", row_label=label))
        items.add(id_column(frame[names["item"]], "item", row_label=label))
    return users.vocab("user"), items.vocab("item")[0]


def _records(
    frame: pl.DataFrame,
    names: dict[str, str],
    vocabs: tuple[Vocab, Vocab],
    record: np.dtype[Any],
    label: RowLabel,
    time_format: str | None,
) -> NDArray[Any]:
    """Return the rows of a part as records, in the order of time where that says more than seconds do."""
    columns, order = parse_columns(frame, names, label, time_format)
    rows = np.empty(frame.height, record)
    for role, vocab in zip(("user", "item"), vocabs, strict=True):
        rows[role] = vocab.look_up(id_column(frame[names[role]], role, row_label=label))
    for role, column in columns.items():
        rows[role] = column.to_numpy()
    return rows if order is None else rows[order]


class _Ranges(NamedTuple):
    """Ranges of users of about a block of rows each, and where the rows of each are in a file of all.

    of_user: the range of each user, [users]. start: its first row in the file, [ranges + 1]. written: how many rows of
    it are there, [ranges].
    """

    of_user: Rows
    start: Rows
    written: Rows

    @classmethod
    def of(cls, per_user: Rows, block: int) -> _Ranges:
        """Divide the users, who have so many rows."""
        end = np.cumsum(per_user)
        of_user = np.unique((end - 1) // block, return_inverse=True)[1]
        start = np.concatenate(([0], np.cumsum(np.bincount(of_user, per_user).astype(np.int64))))
        return cls(of_user, start, np.zeros(len(start) - 1, np.int64))

    def write(self, file: IO[bytes], rows: NDArray[Any]) -> None:
        """Write rows of any users after those of their ranges."""
        number = self.of_user[rows["user"]]
        rows = rows[stable_argsort(number)]
        edges = np.concatenate(([0], np.cumsum(np.bincount(number, minlength=len(self.written)))))
        for n in np.flatnonzero(np.diff(edges)):
            part = rows[edges[n] : edges[n + 1]]
            file.seek(int(self.start[n] + self.written[n]) * rows.dtype.itemsize)
            data = part.view(np.uint8).data
            while len(data):
                data = data[file.write(data) :]
            self.written[n] += len(part)

    def read(self, file: IO[bytes], record: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """Yield the rows of each range."""
        for start, count in zip(self.start, self.written, strict=False):
            rows = np.empty(count, record)
            file.seek(int(start) * record.itemsize)
            data = rows.view(np.uint8).data
            while len(data):
                data = data[file.readinto(data) :]  # type: ignore[attr-defined]
            yield rows
