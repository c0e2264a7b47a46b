"""Item pictures: files named by item id, decoded, brought to one size."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError, SettingError

log = logging.getLogger("recsys_embed")

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
# Pixels of a file that is decoded at most: a small file can say that it is a picture of terabytes.
_MOST = 50_000_000
_MOST_BYTES = 8_000_000_000  # of all pictures together, in memory


def find_images(folder: Path, items: Vocab) -> dict[int, Path]:
    """Return the picture file of each item that has one, by the item's row. Raises DataError for a missing folder."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder} of pictures")
    files = {f.stem: f for f in sorted(folder.iterdir(), reverse=True) if f.suffix.lower() in SUFFIXES}
    ids = enumerate(items.series.to_list())
    return {row: files[str(id_)] for row, id_ in ids if str(id_) in files}


def read_images(folder: Path, items: Vocab, size: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read `<item id>.jpg` (or .png, .webp, …) of every item: pixels [items, 3, size, size] and which have one.

    Missing and broken files are counted, and leave zeros. Raises DataError where no item has a picture.
    """
    if len(items) * 3 * size**2 > _MOST_BYTES:
        raise SettingError(f"pictures of {len(items):,} items need a smaller --image-size than {size}")
    pixels = np.zeros((len(items), 3, size, size), np.uint8)
    found = np.zeros(len(items), bool)
    broken = []
    for row, file in find_images(folder, items).items():
        picture = decode(file, size)
        if picture is None:
            broken.append(file.name)
        else:
            pixels[row], found[row] = picture, True
    if broken:
        log.warning("%d pictures cannot be decoded and are left out, e.g. %s", len(broken), broken[0])
    if not found.any():
        raise DataError(f"{folder} has no picture of an item of this data; they are named ID.jpg, ID.png, …")
    log.info("%s of the items have a picture", f"{int(found.sum()):,}")
    return pixels, found


def decode(file: Path, size: int) -> NDArray[np.uint8] | None:
    """Decode a picture of any mode and format to RGB, uint8 [3, size, size]; None where it is broken or too large.

    The whole picture is shown: it is scaled without regard to its proportions. What is transparent becomes white.
    """
    from PIL import Image

    try:
        with Image.open(file) as opened:
            if opened.width * opened.height > _MOST:
                return None
            opened.draft("RGB", (2 * size, 2 * size))  # a JPEG is decoded at about the size that is needed
            image: Image.Image = opened
            if image.mode in ("I;16", "I", "F"):
                values = np.asarray(image, np.float64)
                low, high = values.min(), values.max()
                image = Image.fromarray(((values - low) / (high - low or 1) * 255).astype(np.uint8))
            if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
            return np.asarray(small, np.uint8).transpose(2, 0, 1)
    except Exception as error:  # decoders trust a file: a broken one ends in whatever its bytes lead to
        log.debug("%s: %s", file, error)
        return None
