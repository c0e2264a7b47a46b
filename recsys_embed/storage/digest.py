"""Digests of tables and arrays: equal content has equal digests, however it is kept in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

# Rows of a table that are written at a time, to be hashed.
_CHUNK = 1 << 20


def frame_digest(frame: pl.DataFrame) -> str:
    """Return the SHA-256 of a table: its columns, their types and values."""
    sha = hashlib.sha256()
    update_with_frame(sha, frame)
    return sha.hexdigest()


def update_with_frame(sha: Any, frame: pl.DataFrame) -> None:
    """Add a table to a digest."""
    sha.update(repr(frame.schema).encode())
    for start in range(0, frame.height, _CHUNK):
        chunk = frame.slice(start, _CHUNK).rechunk()
        sha.update(chunk.write_ipc(None, compression="uncompressed", compat_level=pl.CompatLevel.oldest()).getbuffer())


def update_with_arrays(sha: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Add arrays by name to a digest, in the order of their names."""
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f"{name} {array.dtype} {array.shape}".encode())
        sha.update(array.reshape(-1).view(np.uint8))
