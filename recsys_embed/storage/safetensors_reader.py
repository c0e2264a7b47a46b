"""Read the arrays of a .safetensors file in place: from bytes in memory, or from a memory-mapped file."""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_embed.storage.json import parse_json

# The number types of the format that NumPy has too, little-endian (https://github.com/huggingface/safetensors#format).
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
# The format allows no longer header.
_MAX_HEADER_BYTES = 100_000_000


def read_arrays(data: bytes | mmap.mmap) -> dict[str, NDArray[Any]]:
    """Return the arrays of a .safetensors file by name, as read-only views of `data`.

    Only an array at an unaligned address is copied. Raises ValueError if the header is broken or points outside the
    file.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(_MAX_HEADER_BYTES, len(data) - 8):
        raise ValueError(f"its header of {size:,} bytes is longer than the file")
    try:
        header = parse_json(data[8 : 8 + size])
        header.pop("__metadata__", None)
        return {name: _view(data, 8 + size, **entry) for name, entry in header.items()}
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
        raise ValueError(f"its header is broken ({error})") from None


def _view(
    data: bytes | mmap.mmap, body_start: int, dtype: str, shape: list[int], data_offsets: list[int]
) -> NDArray[Any]:
    """Return one array. dtype, shape, data_offsets: its entry in the header."""
    start, stop = data_offsets
    np_dtype, count = np.dtype(DTYPES[dtype]), math.prod(shape)
    valid = all(type(number) is int and number >= 0 for number in (*shape, start, stop))
    if not valid or stop - start != count * np_dtype.itemsize or body_start + stop > len(data):
        raise ValueError(f"an array of shape {shape} does not fit into bytes {start} to {stop}")
    array = np.frombuffer(data, np_dtype, count, body_start + start) if count else np.empty(0, np_dtype)
    array = array if array.flags.aligned else array.copy()
    array.flags.writeable = False
    return array.reshape(shape)
