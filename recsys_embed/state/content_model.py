"""Described: what makes vectors for items, texts and pictures that were not there in training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.arrays import Floats, unit
from recsys_embed.errors import BundleError, DataError, SettingError, UnknownId
from recsys_embed.features.encoder import FeatureEncoder, Features
from recsys_embed.features.item_features import ItemFeatures
from recsys_embed.features.ridge import FeatureMap
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.retrieval.exact import ExactIndex
from recsys_embed.storage.bundle import Bundle

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# The files of a model folder that only this needs; other answers leave them unread.
_SPARSE = ("data", "indices", "indptr")
FILES = ("content.safetensors", "tokens.parquet", "words.parquet")


@dataclass(frozen=True)
class ContentModel:
    """describer: tables -> features. map: features -> vectors and biases. bag: tokens of the items, sparse [items, T].

    net: weights of the net that looks at pictures, or empty; image_size: the pixels of a side that it takes.
    said [items, d]: the part of the items' vectors that is their descriptions'; None of an MLP scorer, and of a model
    folder without it.
    """

    encoder: FeatureEncoder
    feature_map: FeatureMap
    bag: csr_matrix
    net: dict[str, NDArray[Any]]
    image_size: int
    content_vectors: Floats | None = None

    @classmethod
    def of(cls, item_features: ItemFeatures, plain: EmbeddingModel, image_size: int) -> ContentModel:
        """Take what a training came to."""
        assert plain.feature_map is not None
        encoder, net = item_features.encoder, dict(plain.trained)
        if "words" in net:
            encoder = encoder.with_trained(net.pop("words"))
        return cls(encoder, plain.feature_map, item_features.features.bag, net, image_size, plain.content_vectors)

    def features(
        self, table: pl.DataFrame, vectors: Floats | None = None, pictures: dict[int, Path] | None = None
    ) -> Features:
        """Describe items: a table, their ready-made vectors [n, f], and picture files by row."""
        return self._with_pictures(self.encoder.features(table, vectors), pictures or {})

    def text(self, query: str) -> Features:
        """Describe a text that is no item."""
        return self._with_pictures(self.encoder.encode_text(query), {})

    def picture(self, file: Path) -> Features:
        """Describe a picture that is no item's."""
        return self._with_pictures(self.encoder.features(pl.DataFrame({"item_id": [0]})), {0: file})

    def _with_pictures(self, features: Features, pictures: dict[int, Path]) -> Features:
        """Add what the net sees, zeros where there is no picture."""
        if not self.net:
            if pictures:
                raise SettingError("this model was trained without pictures: train one with --images FOLDER")
            return features
        seen = np.zeros((features.bag.shape[0], self.feature_map.dense.shape[0] - features.dense.shape[1]), np.float32)
        if pictures:
            from recsys_embed.features.images import decode
            from recsys_embed.nets.content_tower import look_with

            decoded = {row: decode(file, self.image_size) for row, file in pictures.items()}
            broken = [pictures[row].name for row, pixels in decoded.items() if pixels is None]
            if broken:
                raise DataError(f"{broken[0]} cannot be decoded as a picture")
            seen[list(decoded)] = look_with(self.net, np.stack([p for p in decoded.values() if p is not None]))
        return Features(features.bag, np.concatenate((features.dense, seen), axis=1))

    def known(self, features: Features) -> NDArray[np.bool_]:
        """Return which of the described items anything is known of, bool [n]."""
        return (np.diff(features.bag.indptr) > 0) | (features.dense != 0).any(axis=1)

    def similarity(self, query: str | None, image: Path | None, items: Floats) -> Floats:
        """Return how near every item is to a text, to a picture, or to both, [items], at most 1.

        A text counts twice by its words, as the cosine of token weights, and once by its meaning, as the cosine with
        items [items, d] in their space; a picture by the latter alone. What all items share is taken off first.
        Raises UnknownId where nothing is known of what is asked.
        """
        if query:
            self._require_text()
        parts = [self.text(query)] if query else []
        words = parts[0].bag if parts else None
        if image is not None:
            parts.append(self.picture(image))
        parts = [part for part in parts if self.known(part)[0]]
        if not parts:
            raise UnknownId(f"this model knows no word of {query!r}: none stands in two of its items' descriptions")
        content_vectors = sum(self.feature_map(part)[0] - self.feature_map.centre for part in parts)
        near = unit(items - self.feature_map.centre[:-1]) @ unit(content_vectors[None, :-1])[0]
        if words is None or not words.nnz:
            return near
        tags = np.repeat([c.kind != "number" for c in self.encoder.columns], [c.size for c in self.encoder.columns])
        own = self.bag.multiply(tags.astype(np.float32)).tocsr()
        length = np.sqrt(np.asarray(own.multiply(own).sum(axis=1)).ravel())
        same = np.asarray((own @ words.T).todense()).ravel() / np.where(length > 0, length, 1)
        return np.asarray((near + 2 * same) / 3, np.float32)

    def _require_text(self) -> None:
        if self.encoder.words is None and not any(c.kind != "number" for c in self.encoder.columns):
            raise SettingError("this model's descriptions have no words: train one with columns of words in --text")

    def nearest_tokens(self, vector: Floats, k: int) -> pl.DataFrame:
        """Return the k words and tags nearest to an item's vector [d]: column, token, score (the cosine), rank."""
        self._require_text()
        scores, found = ExactIndex(unit(self.feature_map.tokens[:, :-1])).search(
            unit((vector - self.feature_map.centre[:-1])[None]), k
        )
        labels = self.encoder.labels()[found[0]]
        return labels.select("column", "token", score=pl.Series(scores[0]), rank=np.arange(1, len(found[0]) + 1))

    def with_items(self, features: Features, vectors: Floats) -> ContentModel:
        """Return the same with more items; their vectors [n, d] are all that is said of them."""
        from scipy.sparse import vstack

        content_vectors = None if self.content_vectors is None else np.concatenate((self.content_vectors, vectors))
        return replace(self, bag=vstack((self.bag, features.bag), format="csr"), content_vectors=content_vectors)

    def save(self, bundle: Bundle) -> None:
        """Add this to what a model folder holds."""
        arrays, frames, facts = self.encoder.save()
        arrays |= {f"map.{name}": getattr(self.feature_map, name) for name in FeatureMap._fields}
        arrays |= {f"net.{name}": weight for name, weight in self.net.items()}
        arrays |= {f"bag.{name}": getattr(self.bag, name) for name in _SPARSE}
        arrays |= {} if self.content_vectors is None else {"said": self.content_vectors}
        bundle.arrays["content.safetensors"] = arrays
        bundle.frames |= {f"{name}.parquet": frame for name, frame in frames.items()}
        bundle.facts["model.json"]["content"] = {**facts, "image_size": self.image_size}

    @classmethod
    def load(cls, folder: Path) -> ContentModel:
        """Read this from a model folder. Raises BundleError."""
        from scipy.sparse import csr_matrix

        bundle = Bundle.read(folder, only=(*FILES, "model.json"))
        try:
            facts, arrays = bundle.facts["model.json"]["content"], bundle.arrays["content.safetensors"]
            frames = {name.removesuffix(".parquet"): frame for name, frame in bundle.frames.items()}
            net = {name.removeprefix("net."): a for name, a in arrays.items() if name.startswith("net.")}
            map_ = FeatureMap(*(arrays[f"map.{name}"] for name in FeatureMap._fields))
            start = arrays["bag.indptr"]
            shape = (len(start) - 1, len(map_.tokens))
            bag = csr_matrix((arrays["bag.data"], arrays["bag.indices"], start), shape=shape)
            bag.check_format(full_check=True)
            encoder = FeatureEncoder.restore(arrays, frames, facts)
            return cls(encoder, map_, bag, net, facts["image_size"], arrays.get("said"))
        except KeyError as missing:
            raise BundleError(f"{folder} lacks {missing}: it is no model of this version") from None
        except (ValueError, IndexError, TypeError, pl.exceptions.PolarsError) as error:
            raise BundleError(f"{folder}: its descriptions are broken ({error})") from None
