"""Described: what makes vectors for items, texts and pictures that were not there in training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.content.describe import Describer, Features
from recsys_embed.content.items import Descriptions
from recsys_embed.content.ridge import Map
from recsys_embed.errors import BundleError, DataError, SettingError
from recsys_embed.model.plain import Floats, PlainModel
from recsys_embed.recommend.bundle import Bundle

# The files of a model folder that only this needs; other answers leave them unread.
FILES = ("content.safetensors", "tokens.parquet", "words.parquet")


@dataclass(frozen=True)
class Described:
    """describer: tables -> features. map: features -> vectors and biases. net: weights of the net that looks at
    pictures, or empty; image_size: the pixels of a side that it takes.
    """

    describer: Describer
    map: Map
    net: dict[str, NDArray[Any]]
    image_size: int

    @classmethod
    def of(cls, descriptions: Descriptions, plain: PlainModel, image_size: int) -> Described:
        """Take what a training came to."""
        assert plain.map is not None
        describer, net = descriptions.describer, dict(plain.trained)
        if "words" in net:
            describer = describer.with_trained(net.pop("words"))
        return cls(describer, plain.map, net, image_size)

    def features(
        self, table: pl.DataFrame, vectors: Floats | None = None, pictures: dict[int, Path] | None = None
    ) -> Features:
        """Describe items: a table, their ready-made vectors [n, f], and picture files by row."""
        return self._seeing(self.describer.features(table, vectors), pictures or {})

    def text(self, query: str) -> Features:
        """Describe a text that is no item."""
        return self._seeing(self.describer.describe_text(query), {})

    def picture(self, file: Path) -> Features:
        """Describe a picture that is no item's."""
        return self._seeing(self.describer.features(pl.DataFrame({"item_id": [0]})), {0: file})

    def _seeing(self, features: Features, pictures: dict[int, Path]) -> Features:
        """Add what the net sees, zeros where there is no picture."""
        if not self.net:
            if pictures:
                raise SettingError("this model was trained without pictures: train one with --images FOLDER")
            return features
        seen = np.zeros((features.bag.shape[0], self.map.dense.shape[0] - features.dense.shape[1]), np.float32)
        if pictures:
            from recsys_embed.content.images import decode
            from recsys_embed.model.content_tower import look_with

            decoded = {row: decode(file, self.image_size) for row, file in pictures.items()}
            broken = [pictures[row].name for row, pixels in decoded.items() if pixels is None]
            if broken:
                raise DataError(f"{broken[0]} cannot be decoded as a picture")
            seen[list(decoded)] = look_with(self.net, np.stack([p for p in decoded.values() if p is not None]))
        return Features(features.bag, np.concatenate((features.dense, seen), axis=1))

    def known(self, features: Features) -> NDArray[np.bool_]:
        """Return which of the described items anything is known of, bool [n]."""
        return (np.diff(features.bag.indptr) > 0) | (features.dense != 0).any(axis=1)

    def put(self, bundle: Bundle) -> None:
        """Add this to what a model folder holds."""
        arrays, frames, facts = self.describer.save()
        arrays |= {f"map.{name}": getattr(self.map, name) for name in Map._fields}
        arrays |= {f"net.{name}": weight for name, weight in self.net.items()}
        bundle.arrays["content.safetensors"] = arrays
        bundle.frames |= {f"{name}.parquet": frame for name, frame in frames.items()}
        bundle.facts["model.json"]["content"] = {**facts, "image_size": self.image_size}

    @classmethod
    def read(cls, folder: Path) -> Described:
        """Read this from a model folder. Raises BundleError."""
        bundle = Bundle.read(folder, only=(*FILES, "model.json"))
        try:
            facts, arrays = bundle.facts["model.json"]["content"], bundle.arrays["content.safetensors"]
            frames = {name.removesuffix(".parquet"): frame for name, frame in bundle.frames.items()}
            net = {name.removeprefix("net."): a for name, a in arrays.items() if name.startswith("net.")}
            map_ = Map(*(arrays[f"map.{name}"] for name in Map._fields))
            return cls(Describer.restore(arrays, frames, facts), map_, net, facts["image_size"])
        except KeyError as missing:
            raise BundleError(f"{folder} lacks {missing}: it is no model of this version") from None
