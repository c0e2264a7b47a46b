"""Small pictures of items as data, from a folder or from files that the item table names; never from elsewhere."""

from __future__ import annotations

import base64
import io
import logging
from pathlib import Path

import numpy as np

from recsys_embed.errors import DataError
from recsys_embed.features.images import decode_image, find_images
from recsys_embed.state.fitted import FittedState

log = logging.getLogger("recsys_embed")

SIZE = 72  # pixels, square
_COLUMNS = ("image", "picture", "photo", "poster", "cover", "thumbnail")
_ENDS = ("", "_path", "_file")


class Pictures:
    """Finds the picture of an item, and returns it as a small JPEG in a data address. Those found are kept."""

    def __init__(self, state: FittedState, folder: Path | None = None) -> None:
        """folder: of files named by the item's id; None: the one that the model was trained with, if it is there."""
        given = folder or state.metadata.get("settings", {}).get("images")
        self._files: dict[int, Path] = {}
        if given is not None:
            try:
                self._files = find_images(Path(given), state.items)
            except DataError as error:
                if folder is not None:
                    raise
                log.info("no pictures: %s", error)
        names = [name + end for name in _COLUMNS for end in _ENDS]
        column = next((c for c in state.table.columns if c.lower() in names), None)
        self._named = None if column is None else state.table[column]
        items = state.metadata.get("settings", {}).get("items")
        self._beside = Path(items).parent if items else Path()
        self._found: dict[int, str | None] = {}

    def of(self, row: int) -> str | None:
        """Return the picture of an item row as "data:image/jpeg;base64,…", or None."""
        if row not in self._found:
            self._found[row] = self._read(row)
        return self._found[row]

    def _read(self, row: int) -> str | None:
        file = self._files.get(row)
        named = None if self._named is None else self._named[row]
        if file is None and isinstance(named, str) and named.startswith("data:image/"):
            return _thumbnail(_decoded(named))
        if file is None and isinstance(named, str) and named and "://" not in named:
            file = next((f for f in (self._beside / named, Path(named)) if self._may_read(f)), None)
        return None if file is None else _thumbnail(file)

    def _may_read(self, path: Path) -> bool:
        """Return whether a file exists below the folder of the item table, or the current one: a table must not bring
        other files of this machine into a report that is given to others."""
        try:
            inside = any(path.resolve().is_relative_to(folder.resolve()) for folder in (self._beside, Path()))
            return inside and path.is_file()
        except (OSError, ValueError):  # a name that no file can have
            return False


def _decoded(address: str) -> io.BytesIO:
    try:
        return io.BytesIO(base64.b64decode(address.partition("base64,")[2]))
    except ValueError:
        return io.BytesIO()


def _thumbnail(file: Path | io.BytesIO) -> str | None:
    """Return a picture as a data address; None if it cannot be read. What is embedded is always a new JPEG."""
    from PIL import Image

    pixels = decode_image(file, SIZE)
    if pixels is None:
        return None
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(out, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
