"""Arrays of a .safetensors file where they lie: in bytes that were read, or in a file that is mapped into memory."""

from __future__ import annotations

import json
import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The number types of the format that NumPy has, least byte first (https://github.com/huggingface/safetensors#format).
_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
# The format allows no longer header.
_HEADER = 100_000_000


def arrays(data: bytes | mmap.mmap) -> dict[str, NDArray[Any]]:
    """Return the arrays of a .safetensors file by name; they can only be read, and nothing is copied.

    Raises ValueError where the header is broken, or points outside the file.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(_HEADER, len(data) - 8):
        raise ValueError(f"its header of {size:,} bytes is longer than the file")
    try:
        header = json.loads(data[8 : 8 + size])
        header.pop("__metadata__", None)
        return {name: _array(data, 8 + size, **entry) for name, entry in header.items()}
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise ValueError(f"its header is broken ({error})") from None


def _array(data: bytes | mmap.mmap, begin: int, dtype: str, shape: list[int], data_offsets: list[int]) -> NDArray[Any]:
    start, stop = data_offsets
    kind, count = np.dtype(_TYPES[dtype]), math.prod(shape)
    whole = all(type(number) is int and number >= 0 for number in (*shape, start, stop))
    if not whole or stop - start != count * kind.itemsize or begin + stop > len(data):
        raise ValueError(f"an array of shape {shape} does not lie at {start} to {stop}")
    found = np.frombuffer(data, kind, count, begin + start) if count else np.empty(0, kind)
    found = found if found.flags.aligned else found.copy()
    found.flags.writeable = False
    return found.reshape(shape)
