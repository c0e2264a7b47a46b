"""Write arrays to a .safetensors file one after the other, where the library would hold all of them twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from recsys_embed.storage.safetensors_reader import DTYPES

_NAMES = {np.dtype(code): name for name, code in DTYPES.items()}
# The library's order: the widest numbers first, so that all are aligned.
_ORDER = ("U64", "I64", "F64", "F32", "U32", "I32", "F16", "U16", "I16", "I8", "U8", "BOOL")
# Bytes that are written at a time.
_CHUNK = 1 << 24


def write_arrays(file: BinaryIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name, little-endian: the bytes that the library's `save` returns."""
    ordered = sorted(arrays.items(), key=lambda entry: (_ORDER.index(_name(entry[1])), entry[0]))
    header, end = {}, 0
    for name, array in ordered:
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _name(array), "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for _, array in ordered:
        flat = np.ascontiguousarray(array).reshape(-1)
        step = max(1, _CHUNK // max(1, array.dtype.itemsize))
        for start in range(0, len(flat), step):
            file.write(flat[start : start + step].astype(array.dtype.newbyteorder("<"), copy=False).tobytes())


def _name(array: NDArray[Any]) -> str:
    return _NAMES[array.dtype.newbyteorder("<")]
