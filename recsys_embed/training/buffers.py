"""Arrays that are reused from step to step."""

from __future__ import annotations

from typing import Any

import numpy as np


class BufferPool:
    """Arrays that a step writes to, by name; they are reused, since allocating new memory is slow."""

    def __init__(self) -> None:
        self.arrays: dict[str, Any] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: type = np.float32) -> Any:
        """Return an array of this shape, uninitialized: it holds whatever was left there."""
        array = self.arrays.get(name)
        if array is None or len(array) < shape[0] or array.shape[1:] != shape[1:] or array.dtype != dtype:
            array = self.arrays[name] = np.empty(shape, dtype)
        return array[: shape[0]]
