"""map.html: points, titles and vectors in a single file that loads nothing else."""

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
from recsys_embed.maps.columns import OTHER, PALETTE, SCALE, MapColumn
from recsys_embed.models.fold_in.softmax import SoftmaxFoldIn

_SCRIPTS = ("vectors.js", "plot.js", "page.js")


def write_page(data: dict[str, Any]) -> str:
    """Return the page for the data that `draw_map` collected.

    Its content security policy allows only its own script and style, by their digests, and no network access. Data
    cannot close their script element, since every `<` in them is escaped.
    """
    web = files("recsys_embed.maps") / "web"
    script = "\n".join((web / name).read_text("utf-8") for name in _SCRIPTS)
    style = (web / "map.css").read_text("utf-8")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    values = {
        "policy": policy,
        "title": html.escape(_printable(data["title"])),
        "style": style,
        "script": script,
        "data": script_json(data),
    }
    # Replaced in a single pass, so that the values are not searched for placeholders.
    page, *rest = (web / "map.html").read_text("utf-8").split("{{")
    for piece in rest:
        name, _, after = piece.partition("}}")
        page += values[name] + after
    return page


def script_json(data: Any) -> str:
    """Return JSON that is safe inside a script element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return _printable(text)


def _printable(text: str) -> str:
    """Return text without lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()


def vectors_data(items: Floats, bias: Floats, fold_in: SoftmaxFoldIn | None) -> dict[str, Any]:
    """Return vectors [n, d] for the page, quantized to int8 with a scale per row: a quarter of their size.

    fold_in: for recommendations to the page's user; None if the model has no dot product.
    """
    scale = np.abs(items).max(axis=1, initial=0) / 127
    rounded = np.rint(items / np.where(scale > 0, scale, 1)[:, None])
    data = {"dim": items.shape[1], "bytes": _base64(rounded, np.int8), "scale": _base64(scale, np.float32)}
    if fold_in is None:
        return {**data, "fold": None}
    arrays: dict[str, NDArray[Any]] = {"bias": bias, "mean": fold_in.mean, "spread": fold_in.covariance}
    encoded = {name: _base64(values, np.float32) for name, values in arrays.items()}
    return {**data, "fold": {**encoded, "noise": fold_in.noise, "prior": fold_in.prior}}


def column_data(column: MapColumn) -> dict[str, Any]:
    """Return a column for the page."""
    data: dict[str, Any] = {"name": column.name, "kind": column.kind}
    if column.kind == "tags":
        return {**data, "names": column.names, "members": column.members}
    if column.kind == "text":
        return {**data, "texts": column.texts}
    known = column.values[np.isfinite(column.values)]
    return {
        **data,
        "values": [None if np.isnan(v) else int(v) if v == int(v) else float(f"{v:.6g}") for v in column.values],
        "shares": [None if np.isnan(rank) else round(1000 * rank) for rank in column.ranks()],
        "ends": [float(known.min()), float(known.max())],
    }


def points_data(points: Floats) -> str:
    """Return points [n, 2] from -1 to 1 for the page, with 16 bits per number."""
    return _base64(np.rint((np.clip(points, -1, 1) + 1) * 32767.5), np.uint16)


PALETTES = {"tags": list(PALETTE), "other": OTHER, "scale": list(SCALE)}


def _base64(values: NDArray[Any], dtype: type) -> str:
    # Little-endian, like the machines that browsers run on.
    return base64.b64encode(np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<")).tobytes()).decode()


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
