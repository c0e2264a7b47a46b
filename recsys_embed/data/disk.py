"""Columns on disk: for tables of ratings that are longer than memory."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from recsys_embed.errors import DataError

Column = NDArray[Any]

# Memory of the process with its libraries, before any data.
PROGRAM_BYTES = 600_000_000

_MOUNTS = Path("/proc/mounts")
# Memory for each row of a block at work, and the most and the fewest rows of one.
_BYTES_A_BLOCK_ROW, _MOST_ROWS, _FEWEST_ROWS = 1_000, 1 << 22, 1 << 16


class Disk:
    """A folder for columns, and how much of them is in memory at a time.

    The files have no names: they are gone when nothing uses them any more, or when the process ends, however it ends.
    Reading a column maps its file into memory, where the system keeps what there is room for.
    """

    def __init__(self, folder: Path, memory: int, block: int | None = None) -> None:
        """folder: where the files are. memory: bytes that a training may take. block: rows that are worked on at a
        time, by default as many as memory allows."""
        self.folder, self.memory = folder, memory
        self.block = block or min(_MOST_ROWS, max(_FEWEST_ROWS, memory // _BYTES_A_BLOCK_ROW))

    def file(self) -> IO[bytes]:
        """Return a new file without a name. Raises DataError where the folder takes none."""
        try:
            return tempfile.TemporaryFile(dir=self.folder, buffering=0)
        except OSError as error:
            raise self.problem(error) from None

    def stored(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array on disk."""
        columns = Columns(self)
        columns.append({"": array})
        found = columns.finish()[""]
        assert found is not None
        return found

    def problem(self, error: OSError) -> DataError:
        """Return the error for a folder that takes no file, or not all of it."""
        return DataError(f"the ratings cannot be put on disk in {self.folder}: {error.strerror}; TMPDIR names another")


def scratch_folder() -> Path:
    """Return the folder for files that are longer than memory: $TMPDIR or the system's, or this one if that is in
    memory itself."""
    folder = Path(tempfile.gettempdir())
    if os.environ.get("TMPDIR") or not _MOUNTS.exists():
        return folder
    kinds = {Path(fields[1]): fields[2] for fields in map(str.split, _MOUNTS.read_text().splitlines())}
    kind = next((kinds[parent] for parent in (folder, *folder.parents) if parent in kinds), "")
    return Path.cwd() if kind in ("tmpfs", "ramfs") else folder


class Columns:
    """Columns of equal length that are written from the first row to the last; None stands for one that is absent."""

    def __init__(self, disk: Disk) -> None:
        self.disk, self.rows = disk, 0
        self._files: dict[str, tuple[IO[bytes], np.dtype[Any], tuple[int, ...]] | None] = {}  # with what a row is

    def append(self, columns: Mapping[str, Column | None]) -> None:
        """Write more rows: the same columns each time. Raises DataError for a full disk."""
        if not self._files:
            self._files = {
                name: None if column is None else (self.disk.file(), column.dtype, column.shape[1:])
                for name, column in columns.items()
            }
        for name, column in columns.items():
            found = self._files[name]
            if column is not None and found is not None:
                data = np.ascontiguousarray(column, found[1]).reshape(-1).view(np.uint8).data
                try:
                    while len(data):
                        data = data[found[0].write(data) :]
                except OSError as error:
                    raise self.disk.problem(error) from None
        self.rows += next(len(column) for column in columns.values() if column is not None)

    def finish(self) -> dict[str, Column | None]:
        """Return the columns, mapped into memory. Nobody's changes reach the files."""
        found = {name: None if file is None else self._mapped(*file) for name, file in self._files.items()}
        self._files = {}
        return found

    def _mapped(self, file: IO[bytes], dtype: np.dtype[Any], width: tuple[int, ...]) -> Column:
        with file:
            if not self.rows:
                return np.zeros((0, *width), dtype)
            return np.asarray(np.memmap(file, dtype, "c", shape=(self.rows, *width)))


def release(*columns: Column | None) -> None:
    """Let the system take back the memory that reading columns filled; it does so in need by itself."""
    for column in columns:
        base: Any = column
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            with suppress(ValueError, OSError):
                base.madvise(mmap.MADV_DONTNEED)
