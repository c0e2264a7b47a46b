"""Pictures of items: find the files by item id, decode them, and resize them to one size."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError, SettingError

log = logging.getLogger("recsys_embed")

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
# Larger pictures are not decoded: a small file can claim to be a picture of terabytes.
_MAX_PIXELS = 50_000_000
_MAX_BYTES = 8_000_000_000  # memory for the pictures of all items


def find_images(folder: Path, items: Vocab) -> dict[int, Path]:
    """Return {item row: file} for the items that have a picture. Raises DataError if the folder does not exist."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder} of pictures")
    files = {f.stem: f for f in sorted(folder.iterdir(), reverse=True) if f.suffix.lower() in SUFFIXES}
    ids = enumerate(items.series.to_list())
    return {row: files[str(id_)] for row, id_ in ids if str(id_) in files}


def read_images(folder: Path, items: Vocab, size: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read the picture `<item id>.jpg` (or .png, .webp, …) of each item.

    Return pixels, uint8 [items, 3, size, size], and a mask [items] of the items with a picture; the others are zeros.
    Broken files are logged and skipped. Raises DataError if no item has a picture, SettingError if the pixels of all
    items would not fit into memory.
    """
    if len(items) * 3 * size**2 > _MAX_BYTES:
        raise SettingError(f"pictures of {len(items):,} items need a smaller --image-size than {size}")
    pixels = np.zeros((len(items), 3, size, size), np.uint8)
    has_picture = np.zeros(len(items), bool)
    broken = []
    for row, file in find_images(folder, items).items():
        picture = decode_image(file, size)
        if picture is None:
            broken.append(file.name)
        else:
            pixels[row], has_picture[row] = picture, True
    if broken:
        log.warning("skipped %d pictures that cannot be decoded, e.g. %s", len(broken), broken[0])
    if not has_picture.any():
        raise DataError(f"{folder} has no picture of an item of this data; they are named ID.jpg, ID.png, …")
    log.info("%s of the items have a picture", f"{int(has_picture.sum()):,}")
    return pixels, has_picture


def decode_image(file: Path | BinaryIO, size: int) -> NDArray[np.uint8] | None:
    """Decode a picture of any mode and format to RGB, uint8 [3, size, size]; None if it is broken or too large.

    The whole picture is scaled to a square, whatever its proportions. Transparent parts become white.
    """
    from PIL import Image

    try:
        with Image.open(file) as opened:
            if opened.width * opened.height > _MAX_PIXELS:
                return None
            opened.draft("RGB", (2 * size, 2 * size))  # decode a JPEG at about the size that is needed
            image: Image.Image = opened
            if image.mode in ("I;16", "I", "F"):
                values = np.asarray(image, np.float64)
                low, high = values.min(), values.max()
                image = Image.fromarray(((values - low) / (high - low or 1) * 255).astype(np.uint8))
            if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
            return np.asarray(resized, np.uint8).transpose(2, 0, 1)
    except Exception as error:  # decoders trust the file, so a broken one can raise anything
        log.debug("%s: %s", file, error)
        return None
