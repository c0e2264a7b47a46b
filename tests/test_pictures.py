"""Pictures of items: decoded, learned from, and added."""

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from worlds import COLOUR, COLOURS, DIM, TABLE, cold_auc, fitted

from recsys_embed.config.settings import ContentConfig
from recsys_embed.errors import DataError
from recsys_embed.features.images import decode_image
from recsys_embed.features.item_features import encode_items
from recsys_embed.nets.content_tower import ContentTower
from recsys_embed.recommender import Recommender


def draw(path, colour, mode="RGB", size=(40, 30), **options):
    values = {"red": (220, 30, 40), "green": (30, 200, 60), "blue": (40, 60, 230)}[colour]
    image = Image.new("RGB", size, "white")
    image.paste(values, (size[0] // 5, size[1] // 5, size[0] * 4 // 5, size[1] * 4 // 5))
    image.convert(mode).save(path, **options)


class TestPictures:
    def test_every_mode_format_and_size_is_decoded(self, tmp_path):
        forms = "RGB.jpg L.jpg CMYK.jpg P.png RGBA.png 1.png LA.png I;16.png P.gif RGB.webp RGB.bmp"
        for n, (mode, suffix) in enumerate(form.split(".") for form in forms.split()):
            for size in ((1, 1), (7, 300), (640, 480)):
                path = tmp_path / f"{n}.{suffix}"
                if mode == "I;16":
                    Image.fromarray(np.full(size, 40_000, np.uint16)).save(path)
                else:
                    draw(path, "red", mode, size)
                pixels = decode_image(path, 16)
                assert pixels is not None and pixels.shape == (3, 16, 16) and pixels.dtype == np.uint8, (
                    mode,
                    suffix,
                    size,
                )
        draw(tmp_path / "red.jpg", "red", size=(600, 400))
        middle = decode_image(tmp_path / "red.jpg", 16)[:, 8, 8]
        np.testing.assert_allclose(middle, (220, 30, 40), atol=6)
        Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tmp_path / "clear.png")
        assert decode_image(tmp_path / "clear.png", 8).min() == 255

    def test_broken_files_are_counted_and_nothing_stops(self, tmp_path, caplog):
        draw(tmp_path / "0.png", "red")
        whole = (tmp_path / "0.png").read_bytes()
        for row, data in (
            (1, b""),
            (2, b"no picture"),
            (3, whole[: len(whole) // 2]),
            (4, b"\x89PNG\r\n\x1a\n" + b"\0" * 50),
        ):
            (tmp_path / f"{row}.png").write_bytes(data)
        (tmp_path / "notes.txt").write_text("x")
        found = encode_items(TABLE, ContentConfig(images=str(tmp_path), image_size=8))
        assert found.has_picture.sum() == 1 and "skipped 4 pictures that cannot be decoded" in caplog.text
        assert found.pixels.shape == (60, 3, 8, 8) and not found.pixels[1:].any()
        with pytest.raises(DataError, match="no folder"):
            encode_items(TABLE, ContentConfig(images=str(tmp_path / "none")))
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="has no picture of an item"):
            encode_items(TABLE, ContentConfig(images=str(tmp_path / "empty")))

    def test_the_tower_learns_the_taste_of_cold_items(self, tmp_path):
        random = np.random.default_rng(3)
        for n, colour in enumerate(COLOUR):
            size = tuple(int(s) for s in random.integers(12, 90, 2))
            draw(
                tmp_path / f"{n}.{('png', 'jpg')[n % 2]}",
                COLOURS[colour],
                ("RGB", "RGBA", "P")[n % 3] if n % 2 == 0 else "RGB",
                size,
            )
        (tmp_path / "7.png").write_bytes(b"broken")
        (tmp_path / "7.jpg").unlink(missing_ok=True)
        recommender = fitted(ContentConfig(images=str(tmp_path), image_size=12), item_decay=0.0)
        assert cold_auc(recommender) > 0.9
        loaded = Recommender.load(recommender.save(tmp_path / "model"))
        (tmp_path / "new").mkdir()
        draw(tmp_path / "new" / "900.png", "blue", size=(50, 50))
        near = loaded.search(image=tmp_path / "new" / "900.png", k=5)["item_id"]
        assert all(COLOUR[i] == 2 for i in near)
        loaded.add_items(pl.DataFrame({"item_id": [900]}), images=tmp_path / "new")
        assert all(COLOUR[i] == 2 for i in loaded.similar(900, 5)["item_id"])


def test_an_item_without_a_picture_shows_nothing(tmp_path):
    draw(tmp_path / "3.png", "red")
    descriptions = encode_items(TABLE, ContentConfig(images=str(tmp_path), image_size=8))
    seen = ContentTower(descriptions, DIM, ContentConfig(images="x")).pictures(torch.arange(6))
    assert seen[3].any() and not seen[[0, 1, 2, 4, 5]].any()
