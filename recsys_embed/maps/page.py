"""map.html: points, titles and vectors in one file that asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.maps.columns import OTHER, PALETTE, SCALE, Column
from recsys_embed.models.fold_in.softmax import SoftmaxFoldIn

_SCRIPTS = ("vectors.js", "plot.js", "page.js")


def write_page(data: dict[str, Any]) -> str:
    """Return the page for the data that `draw_map` collected.

    The policy in its head lets no other script or style run than its own two, known by their digests, and lets it
    reach no address at all. Data cannot end its element, since no `<` of it is left.
    """
    web = files("recsys_embed.maps") / "web"
    script = "\n".join((web / name).read_text("utf-8") for name in _SCRIPTS)
    style = (web / "map.css").read_text("utf-8")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": policy,
        "title": html.escape(_printable(data["title"])),
        "style": style,
        "script": script,
        "data": embedded(data),
    }
    # One pass from marker to marker, so that no part is searched for the markers of others.
    page, *rest = (web / "map.html").read_text("utf-8").split("{{")
    for piece in rest:
        name, _, after = piece.partition("}}")
        page += parts[name] + after
    return page


def embedded(data: Any) -> str:
    """Return JSON that may stand inside a script element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return _printable(text)


def _printable(text: str) -> str:
    """Return text without halves of surrogate pairs, which no file can hold."""
    return text.encode("utf-8", "replace").decode()


def vectors_data(items: Floats, bias: Floats, fold: SoftmaxFoldIn | None) -> dict[str, Any]:
    """Return vectors [n, d] at a quarter of their size: int8, with a scale for each row.

    fold: what makes recommendations for a visitor; None where the model has no dot product.
    """
    scale = np.abs(items).max(axis=1, initial=0) / 127
    rounded = np.rint(items / np.where(scale > 0, scale, 1)[:, None])
    packed = {"dim": items.shape[1], "bytes": _packed(rounded, np.int8), "scale": _packed(scale, np.float32)}
    if fold is None:
        return {**packed, "fold": None}
    arrays: dict[str, NDArray[Any]] = {"bias": bias, "mean": fold.mean, "spread": fold.covariance}
    known = {name: _packed(values, np.float32) for name, values in arrays.items()}
    return {**packed, "fold": {**known, "noise": fold.noise, "prior": fold.prior}}


def column_data(column: Column) -> dict[str, Any]:
    """Return a column for the page."""
    own: dict[str, Any] = {"name": column.name, "kind": column.kind}
    if column.kind == "tags":
        return {**own, "names": column.names, "members": column.members}
    if column.kind == "text":
        return {**own, "texts": column.texts}
    known = column.values[np.isfinite(column.values)]
    return {
        **own,
        "values": [None if np.isnan(v) else int(v) if v == int(v) else float(f"{v:.6g}") for v in column.values],
        "shares": [None if np.isnan(s) else round(1000 * s) for s in column.shares()],
        "ends": [float(known.min()), float(known.max())],
    }


def points_data(points: Floats) -> str:
    """Return points [n, 2] from -1 to 1 as 16 bits a number."""
    return _packed(np.rint((np.clip(points, -1, 1) + 1) * 32767.5), np.uint16)


PALETTES = {"tags": list(PALETTE), "other": OTHER, "scale": list(SCALE)}


def _packed(values: NDArray[Any], kind: type) -> str:
    # Browsers read little-endian numbers, as all machines that run them write.
    return base64.b64encode(np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<")).tobytes()).decode()


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
