"""Convert values to what JSON can hold, and read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def jsonable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as plain Python types, with None for NaN and infinity, which JSON cannot hold."""

    def clean(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(k): clean(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [clean(v) for v in value]
        if isinstance(value, float | np.floating):
            return float(value) if np.isfinite(value) else None
        return value.item() if isinstance(value, np.generic) else value

    return {str(k): clean(v) for k, v in values.items()}


def parse_json(data: str | bytes) -> Any:
    """Return what a JSON text says. Raises ValueError, for lists in lists in lists without end too."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
