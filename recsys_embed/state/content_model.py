"""ContentModel: computes vectors of items, texts and images that were not in training, from their content."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.arrays import Floats, normalize
from recsys_embed.errors import BundleError, DataError, SettingError, UnknownId
from recsys_embed.features.encoder import FeatureEncoder, Features
from recsys_embed.features.item_features import ItemFeatures
from recsys_embed.features.ridge import FeatureMap
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.retrieval.exact import ExactIndex
from recsys_embed.storage.bundle import Bundle

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Arrays of a sparse matrix.
_CSR_ARRAYS = ("data", "indices", "indptr")
# The share of the items from which on a token is as good as everywhere.
_COMMON = 0.9
# Files of a model folder that only `ContentModel` reads, when it is needed.
FILES = ("content.safetensors", "tokens.parquet", "words.parquet")


@dataclass(frozen=True)
class ContentModel:
    """The content part of a trained model.

    encoder: item tables -> features. feature_map: features -> vectors and biases. bag: tokens of the items, sparse
    [items, T]. net: weights of the image net, or empty; image_size: its input is image_size x image_size pixels.
    content_vectors [items, d]: the part of the item vectors that comes from their descriptions; None for an MLP scorer,
    and for a model folder that lacks it.
    """

    encoder: FeatureEncoder
    feature_map: FeatureMap
    bag: csr_matrix
    net: dict[str, NDArray[Any]]
    image_size: int
    content_vectors: Floats | None = None

    @classmethod
    def of(cls, item_features: ItemFeatures, model: EmbeddingModel, image_size: int) -> ContentModel:
        """Collect the content part of a model that was trained on these item features."""
        assert model.feature_map is not None
        encoder, net = item_features.encoder, dict(model.content_weights)
        if "words" in net:
            encoder = encoder.with_trained_words(net.pop("words"))
        return cls(encoder, model.feature_map, item_features.features.bag, net, image_size, model.content_vectors)

    def encode_items(
        self, table: pl.DataFrame, vectors: Floats | None = None, images: dict[int, Path] | None = None
    ) -> Features:
        """Encode items: their table, optional item vectors [n, f], and image files by row."""
        return self._with_images(self.encoder.transform(table, vectors), images or {})

    def encode_text(self, query: str) -> Features:
        """Encode a text query."""
        return self._with_images(self.encoder.encode_text(query), {})

    def encode_image(self, file: Path) -> Features:
        """Encode an image query."""
        return self._with_images(self.encoder.transform(pl.DataFrame({"item_id": [0]})), {0: file})

    def _with_images(self, features: Features, images: dict[int, Path]) -> Features:
        """Append the output of the image net; zeros for items without an image."""
        if not self.net:
            if images:
                raise SettingError("this model was trained without pictures: train one with --images FOLDER")
            return features
        width = self.feature_map.dense.shape[0] - features.dense.shape[1]
        image_features = np.zeros((features.bag.shape[0], width), np.float32)
        if images:
            from recsys_embed.features.images import decode_image
            from recsys_embed.nets.content_tower import encode_pictures

            decoded = {row: decode_image(file, self.image_size) for row, file in images.items()}
            broken = [images[row].name for row, pixels in decoded.items() if pixels is None]
            if broken:
                raise DataError(f"{broken[0]} cannot be decoded as a picture")
            pixels = np.stack([p for p in decoded.values() if p is not None])
            image_features[list(decoded)] = encode_pictures(self.net, pixels)
        return Features(features.bag, np.concatenate((features.dense, image_features), axis=1))

    def has_features(self, features: Features) -> NDArray[np.bool_]:
        """Return which items have any feature, bool [n]."""
        return (np.diff(features.bag.indptr) > 0) | (features.dense != 0).any(axis=1)

    def similarity(self, query: str | None, image: Path | None, items: Floats) -> Floats:
        """Return the similarity of every item to a text, to an image, or to both, [items], at most 1.

        items: item vectors [items, d]. A text counts by its words (the cosine of token weights, weight 2/3) and by its
        meaning (the cosine with the item vectors, weight 1/3); an image by the latter alone. The mean of all items is
        subtracted first. Raises UnknownId if nothing in the query is known.
        """
        if query:
            self._require_text()
        encoded = [self.encode_text(query)] if query else []
        query_bag = encoded[0].bag if encoded else None
        if image is not None:
            encoded.append(self.encode_image(image))
        encoded = [features for features in encoded if self.has_features(features)[0]]
        if not encoded:
            raise UnknownId(f"this model knows no word of {query!r}: none occurs in the descriptions of two items")
        query_vector = sum(self.feature_map(features)[0] - self.feature_map.centre for features in encoded)
        by_meaning = normalize(items - self.feature_map.centre[:-1]) @ normalize(query_vector[None, :-1])[0]
        if query_bag is None or not query_bag.nnz:
            return by_meaning
        is_token = np.repeat([c.kind != "number" for c in self.encoder.columns], [c.size for c in self.encoder.columns])
        item_bags = self.bag.multiply(is_token.astype(np.float32)).tocsr()
        length = np.sqrt(np.asarray(item_bags.multiply(item_bags).sum(axis=1)).ravel())
        by_words = np.asarray((item_bags @ query_bag.T).todense()).ravel() / np.where(length > 0, length, 1)
        return np.asarray((by_meaning + 2 * by_words) / 3, np.float32)

    def _require_text(self) -> None:
        if self.encoder.words is None and not any(c.kind != "number" for c in self.encoder.columns):
            raise SettingError("this model's descriptions have no words: train one with columns of words in --text")

    @cached_property
    def _telling(self) -> NDArray[np.bool_] | None:
        """Which tokens not nearly all items have, bool [T]; None if there are none."""
        telling: NDArray[np.bool_] = self.bag.getnnz(axis=0) <= _COMMON * self.bag.shape[0]
        return telling if telling.any() else None

    def nearest_tokens(self, vector: Floats, k: int) -> pl.DataFrame:
        """Return the k words and tags nearest to an item vector [d]: column, token, score (the cosine), rank.

        Those of nearly all items say nothing of one, and are left out.
        """
        self._require_text()
        scores, rows = ExactIndex(normalize(self.feature_map.tokens[:, :-1])).search(
            normalize((vector - self.feature_map.centre[:-1])[None]), k, self._telling
        )
        scores, rows = scores[:, rows[0] >= 0], rows[:, rows[0] >= 0]
        labels = self.encoder.labels()[rows[0]]
        return labels.select("column", "token", score=pl.Series(scores[0]), rank=np.arange(1, len(rows[0]) + 1))

    def with_items(self, features: Features, vectors: Floats) -> ContentModel:
        """Return this with more items, whose vectors [n, d] come from their descriptions alone."""
        from scipy.sparse import vstack

        content_vectors = None if self.content_vectors is None else np.concatenate((self.content_vectors, vectors))
        return replace(self, bag=vstack((self.bag, features.bag), format="csr"), content_vectors=content_vectors)

    def save(self, bundle: Bundle) -> None:
        """Add the files of the content model to a model folder."""
        arrays, frames, metadata = self.encoder.serialize()
        arrays |= {f"map.{name}": getattr(self.feature_map, name) for name in FeatureMap._fields}
        arrays |= {f"net.{name}": weight for name, weight in self.net.items()}
        arrays |= {f"bag.{name}": getattr(self.bag, name) for name in _CSR_ARRAYS}
        arrays |= {} if self.content_vectors is None else {"said": self.content_vectors}
        bundle.arrays["content.safetensors"] = arrays
        bundle.frames |= {f"{name}.parquet": frame for name, frame in frames.items()}
        bundle.metadata["model.json"]["content"] = {**metadata, "image_size": self.image_size}

    @classmethod
    def load(cls, folder: Path) -> ContentModel:
        """Read the content model of a model folder. Raises BundleError."""
        from scipy.sparse import csr_matrix

        bundle = Bundle.read(folder, only=(*FILES, "model.json"))
        try:
            metadata, arrays = bundle.metadata["model.json"]["content"], bundle.arrays["content.safetensors"]
            frames = {name.removesuffix(".parquet"): frame for name, frame in bundle.frames.items()}
            net = {name.removeprefix("net."): a for name, a in arrays.items() if name.startswith("net.")}
            feature_map = FeatureMap(*(arrays[f"map.{name}"] for name in FeatureMap._fields))
            indptr = arrays["bag.indptr"]
            shape = (len(indptr) - 1, len(feature_map.tokens))
            bag = csr_matrix((arrays["bag.data"], arrays["bag.indices"], indptr), shape=shape)
            bag.check_format(full_check=True)
            encoder = FeatureEncoder.deserialize(arrays, frames, metadata)
            return cls(encoder, feature_map, bag, net, metadata["image_size"], arrays.get("said"))
        except KeyError as missing:
            raise BundleError(f"{folder} lacks {missing}: it is not a model of this version") from None
        except (ValueError, IndexError, TypeError, pl.exceptions.PolarsError) as error:
            raise BundleError(f"{folder}: its descriptions are broken ({error})") from None
