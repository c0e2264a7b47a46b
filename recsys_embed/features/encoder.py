"""FeatureEncoder: learns what the columns of an item table hold, and turns item tables into feature matrices."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.arrays import Floats, normalize
from recsys_embed.data.ids import Rows
from recsys_embed.errors import DataError
from recsys_embed.words.tokens import Kind, infer_kind, parse_numbers, split_tags, split_words
from recsys_embed.words.vectors import WordVectors

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

log = logging.getLogger("recsys_embed")

# The weight of a column in the similarity of two items, by kind (chosen on validation data; experiments/LOG.md): a
# word that two texts share says less than a tag that two lists share.
WEIGHTS: dict[str, float] = {"words": 0.25, "tags": 1.0, "number": 1.0, "vectors": 1.0}

# Centres of the radial basis functions along the range of a number, so that similar numbers have similar features.
_N_CENTRES = 16
# Items that must have a token: one that only a single item has says nothing about other items.
_MIN_ITEMS = 2
# Weight of a tag that a query names; that of a rare word is the square of its inverse document frequency.
_TAG_WEIGHT = 9.0
# Ready-made word vectors that are kept in addition to those of the descriptions, so that searches know these words:
# the first in the file, usually the most frequent ones.
_N_COMMON_WORDS = 30_000


@dataclass(frozen=True)
class EncodedColumn:
    """What was learnt about a column.

    entries: its words or tags, empty for a number. idf: their inverse document frequencies. centres: the centres of
    the radial basis functions along the range of a number. width: the distance between these.
    """

    name: str
    kind: Kind
    entries: pl.Series
    idf: Floats
    centres: Floats
    width: float = 1.0

    @property
    def size(self) -> int:
        """The number of features of the column."""
        return len(self.centres) if self.kind == "number" else len(self.entries)

    def labels(self) -> list[str]:
        """Return a readable name for each feature."""
        if self.kind == "number":
            return [f"{self.name} {centre:g}" for centre in self.centres]
        return self.entries.to_list()


class Features(NamedTuple):
    """The features of n items. bag: sparse [n, T], from the columns; dense: [n, f], from ready-made vectors."""

    bag: csr_matrix
    dense: Floats


@dataclass(frozen=True)
class FeatureEncoder:
    """Turns item tables into Features.

    Each column gives a block of features. For an item with any known content the block has length sqrt(weight of the
    column's kind), so the inner product of two items is a weighted sum of cosines, one per column.

    columns: the columns of words, tags and numbers.
    words: word vectors, or None. word_idf: the inverse document frequencies of these words. word_centre: the mean
        over the items, which is subtracted. trained: the word vectors have been trained; an item then has the weighted
        mean of those of its words, neither centred nor scaled.
    vector_centre: the mean of the ready-made item vectors, which is subtracted too; empty if there are none.
    """

    columns: list[EncodedColumn]
    words: WordVectors | None = None
    word_idf: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    word_centre: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    vector_centre: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    trained: bool = False

    @classmethod
    def fit(
        cls,
        table: pl.DataFrame,
        names: Sequence[str],
        kinds: dict[str, Kind] | None = None,
        words: WordVectors | None = None,
        vectors: Floats | None = None,
    ) -> FeatureEncoder:
        """Learn the columns `names` of an item table with one row per item.

        kinds: the kinds of some columns by name; `infer_kind` tells the others. words: ready-made word vectors.
        vectors: ready-made item vectors [n, f], with rows of zeros for items without one.
        Raises DataError for a column that does not exist, and if there is nothing to learn from.
        """
        missing = [n for n in names if n not in table.columns]
        if missing:
            raise DataError(f"the item table has no column {missing[0]!r}; it has {', '.join(table.columns)[:300]}")
        columns = [_fit_column(table[name], (kinds or {}).get(name) or infer_kind(table[name])) for name in names]
        for column in columns:
            log.info("items: %s as %s (%s)", column.name, column.kind, f"{column.size:,}")
        encoder = cls(columns)
        if words is not None:
            encoder = encoder._with_words(table, words)
        if vectors is not None:
            nonzero = vectors[(vectors != 0).any(axis=1)]
            centre = nonzero.mean(axis=0) if len(nonzero) else np.zeros(vectors.shape[1], np.float32)
            encoder = replace(encoder, vector_centre=centre.astype(np.float32))
        if not columns and vectors is None:
            raise DataError("there is nothing to describe items by: name columns with --text, or --item-vectors")
        return encoder

    def with_trained_words(self, vectors: Floats) -> FeatureEncoder:
        """Return the same with trained vectors for its words."""
        assert self.words is not None
        words = WordVectors.of(self.words.words.series, vectors, self.words.name)
        return replace(self, words=words, trained=True)

    def _with_words(self, table: pl.DataFrame, words: WordVectors) -> FeatureEncoder:
        """Return the same with word vectors: those of the words in the table, and common ones for searches."""
        tokens = self._words_of(table).explode().drop_nulls()
        if not len(tokens):
            raise DataError("--vectors needs a column of words among those of --text")
        distinct = tokens.unique(maintain_order=True)
        rows = words.rows(distinct)
        used = np.unique(np.concatenate((rows[rows >= 0], np.arange(min(_N_COMMON_WORDS, len(words))))))
        vocabulary = words.take(used)
        token_rows = vocabulary.rows(tokens)
        # A word that occurs in no description is taken to be as rare as one that occurs once.
        counts = np.maximum(np.bincount(token_rows[token_rows >= 0], minlength=len(vocabulary)), 1)
        idf = np.log(1 + table.height / counts).astype(np.float32)
        uncentred = replace(self, words=vocabulary, word_idf=idf, word_centre=np.zeros(vocabulary.dim, np.float32))
        means = uncentred._word_means(table)
        nonzero = (means != 0).any(axis=1)
        if not nonzero.any():
            names = ", ".join(c.name for c in self.columns)
            raise DataError(f"{words.name} has a vector for none of the words of {names}")
        return replace(uncentred, word_centre=means[nonzero].mean(axis=0))

    @property
    def size(self) -> tuple[int, int]:
        """The number of features in the bag, and in the dense part."""
        return sum(c.size for c in self.columns), len(self.word_centre) + len(self.vector_centre)

    def labels(self) -> pl.DataFrame:
        """Return a frame with one row per feature of the bag: column, kind, token."""
        frames = [
            pl.DataFrame({"column": [c.name] * c.size, "kind": [c.kind] * c.size, "token": c.labels()})
            for c in self.columns
        ]
        empty = pl.DataFrame(schema={"column": pl.String, "kind": pl.String, "token": pl.String})
        return pl.concat([empty, *frames])

    def transform(self, table: pl.DataFrame, vectors: Floats | None = None) -> Features:
        """Return the features of the items of a table. What the table lacks, columns or values, becomes zeros.

        vectors: the ready-made vectors [n, f] of these items, if there are any. Raises DataError for another shape.
        """
        from scipy import sparse

        blocks = [_encode_column(column, table) for column in self.columns]
        n = table.height
        bag = sparse.hstack([sparse.csr_matrix((n, 0), dtype=np.float32), *blocks], format="csr")
        dense = [np.zeros((n, 0), np.float32)]
        if self.words is not None:
            means = self._word_means(table)
            dense.append(means if self.trained else _centre_and_scale(means, self.word_centre, WEIGHTS["words"]))
        if len(self.vector_centre):
            shape = (n, len(self.vector_centre))
            vectors = np.zeros(shape, np.float32) if vectors is None else vectors
            if vectors.shape != shape:
                raise DataError(f"item vectors of the shape {vectors.shape} were given; {shape} is needed")
            dense.append(_centre_and_scale(vectors, self.vector_centre, WEIGHTS["vectors"]))
        return Features(bag.astype(np.float32), np.concatenate(dense, axis=1))

    def encode_text(self, query: str) -> Features:
        """Return the features of a text that is not an item: its words in each column of words, and tags it names.

        Common words ("with", "old") must not drown out the rare ones in a query of a few words. So the weight of a
        word is multiplied by the square of its inverse document frequency, in the column in which it is most common,
        and the weight of a tag by a constant, as if it were a rare word.
        """
        query_words = split_words(pl.Series("query", [query]))[0].to_list()
        joined = f" {' '.join(query_words)} "
        cells = {}
        for column in self.columns:
            if column.kind == "words":
                cells[column.name] = query
            elif column.kind == "tags":
                tag_words = [" ".join(words) for words in split_words(column.entries.alias("t")).to_list()]
                tags = zip(column.entries.to_list(), tag_words, strict=True)
                cells[column.name] = "|".join(tag for tag, words in tags if words and f" {words} " in joined)
        features = self.transform(pl.DataFrame({"": [0]} | {name: [value] for name, value in cells.items()}))
        min_idf: dict[str, float] = {}
        for column in self.columns:
            if column.kind == "words":
                for word, idf in zip(column.entries.to_list(), column.idf.tolist(), strict=True):
                    min_idf[word] = min(min_idf.get(word, np.inf), idf - 1)
        factors = [
            [min_idf[word] ** 2 for word in c.entries.to_list()] if c.kind == "words" else [_TAG_WEIGHT] * c.size
            for c in self.columns
        ]
        bag = features.bag.multiply(np.array([f for column_factors in factors for f in column_factors], np.float32))
        bag = bag.tocsr()
        bag.eliminate_zeros()
        length = np.sqrt(bag.multiply(bag).sum()) or 1.0
        return Features((bag / length).astype(np.float32), features.dense)

    def coverage(self, table: pl.DataFrame) -> pl.Series:
        """Return the share of each item's words that are known; null for an item without words."""
        tokens = self._words_of(table).alias("token")
        frame = tokens.to_frame().with_row_index().explode("token").drop_nulls()
        known = [c.entries for c in self.columns if c.kind == "words"]
        if self.words is not None:
            known.append(self.words.words.series)
        entries = pl.concat([pl.Series("token", [], pl.String), *(e.alias("token") for e in known)]).unique()
        share = frame.group_by("index").agg(pl.col("token").is_in(entries.implode()).mean().alias("known_words"))
        rows = pl.DataFrame({"index": np.arange(table.height)}).with_columns(pl.col("index").cast(pl.UInt32))
        return rows.join(share, on="index", how="left", maintain_order="left")["known_words"]

    def _words_of(self, table: pl.DataFrame) -> pl.Series:
        """Return the words of each item, from all its columns of words."""
        columns = [split_words(table[c.name]) for c in self.columns if c.kind == "words" and c.name in table.columns]
        if not columns:
            return pl.Series("words", [[]] * table.height, pl.List(pl.String))
        joined = pl.DataFrame([c.alias(str(at)) for at, c in enumerate(columns)])
        return joined.select(pl.concat_list(pl.all()).alias("words")).to_series()

    def word_bag(self, table: pl.DataFrame) -> csr_matrix:
        """Return the weights [n, words] of the ready-made words in each item; they sum to one for each item."""
        assert self.words is not None
        return _token_matrix(self._words_of(table), self.words.rows, self.word_idf, "sum")

    def _word_means(self, table: pl.DataFrame) -> Floats:
        assert self.words is not None
        return np.asarray(self.word_bag(table) @ self.words.vectors, np.float32)

    def serialize(self) -> tuple[dict[str, NDArray[Any]], dict[str, pl.DataFrame], dict[str, Any]]:
        """Return (arrays, frames, metadata), from which `deserialize` restores the same encoder."""
        arrays: dict[str, NDArray[Any]] = {"word_weight": self.word_idf, "word_centre": self.word_centre}
        arrays["vector_centre"] = self.vector_centre
        entries = [pl.Series("entry", [], pl.String)]
        columns = []
        for at, column in enumerate(self.columns):
            arrays |= {f"{at}.weight": column.idf, f"{at}.places": column.centres}
            entries.append(column.entries.alias("entry"))
            columns.append(
                {"name": column.name, "kind": column.kind, "entries": len(column.entries), "width": column.width}
            )
        frames = {"tokens": pl.concat(entries).to_frame()}
        if self.words is not None:
            arrays["word_vectors"] = np.asarray(self.words.vectors)
            frames["words"] = self.words.words.series.alias("word").to_frame()
        return arrays, frames, {"columns": columns, "trained_words": self.trained}

    @classmethod
    def deserialize(
        cls, arrays: dict[str, NDArray[Any]], frames: dict[str, pl.DataFrame], metadata: dict[str, Any]
    ) -> FeatureEncoder:
        """Restore an encoder from what `serialize` returned."""
        columns, start = [], 0
        for at, column in enumerate(metadata["columns"]):
            entries = frames["tokens"]["entry"].slice(start, column["entries"])
            start += column["entries"]
            idf, centres = arrays[f"{at}.weight"], arrays[f"{at}.places"]
            columns.append(EncodedColumn(column["name"], column["kind"], entries, idf, centres, column["width"]))
        words = None
        if "words" in frames:
            words = WordVectors.of(frames["words"]["word"], arrays["word_vectors"])
        word_idf, word_centre, vector_centre = (
            arrays[name] for name in ("word_weight", "word_centre", "vector_centre")
        )
        return cls(columns, words, word_idf, word_centre, vector_centre, metadata["trained_words"])


def _fit_column(column: pl.Series, kind: Kind) -> EncodedColumn:
    no_floats = np.zeros(0, np.float32)
    no_entries = pl.Series("entry", [], pl.String)
    if kind == "number":
        values = parse_numbers(column).drop_nulls().to_numpy()
        if not len(values):
            raise DataError(f"the item column {column.name!r} has no number in it")
        low, high = np.quantile(values, (0.01, 0.99))
        if high <= low:
            low, high = low - 0.5, high + 0.5
        centres = np.linspace(low, high, _N_CENTRES, dtype=np.float32)
        return EncodedColumn(column.name, kind, no_entries, no_floats, centres, float((high - low) / (_N_CENTRES - 1)))
    tokens = split_words(column) if kind == "words" else split_tags(column)
    counts = tokens.alias("entry").list.unique().explode().drop_nulls().value_counts().sort("entry")
    counts = counts.filter(pl.col("count") >= _MIN_ITEMS)
    idf = np.log((1 + len(column)) / (1 + counts["count"].to_numpy())) + 1
    return EncodedColumn(column.name, kind, counts["entry"], idf.astype(np.float32), no_floats)


def _encode_column(column: EncodedColumn, table: pl.DataFrame) -> csr_matrix:
    """Return the block of features [n, size] of a column; zeros if the table lacks the column."""
    from scipy import sparse

    n, length = table.height, WEIGHTS[column.kind] ** 0.5
    if column.name not in table.columns:
        return sparse.csr_matrix((n, column.size), dtype=np.float32)
    if column.kind == "number":
        # A value outside the learnt range counts as the end of the range: next year's films are most like this year's.
        values = parse_numbers(table[column.name]).to_numpy().clip(column.centres[0], column.centres[-1])
        with np.errstate(invalid="ignore"):
            basis = np.exp(-0.5 * ((values[:, None] - column.centres) / column.width) ** 2)
            basis[~(basis > 1e-3)] = 0  # also for NaN, a missing number
        return sparse.csr_matrix(length * normalize(basis.astype(np.float32)))
    tokens = split_words(table[column.name]) if column.kind == "words" else split_tags(table[column.name])
    feature_of = pl.DataFrame({"token": column.entries, "row": np.arange(len(column.entries), dtype=np.int64)})

    def lookup(tokens: pl.Series) -> Rows:
        joined = tokens.to_frame("token").join(feature_of, on="token", how="left", maintain_order="left")
        return joined["row"].fill_null(-1).to_numpy()

    return _token_matrix(tokens, lookup, column.idf, "length") * np.float32(length)


def _token_matrix(lists: pl.Series, lookup: Callable[[pl.Series], Rows], idf: Floats, norm: str) -> csr_matrix:
    """Count the tokens of each list, as (1 + log count) x idf, and scale each row to a sum or a length of one.

    lookup: maps tokens to columns, -1 for unknown ones. norm: "sum" or "length".
    """
    from scipy import sparse

    exploded = lists.alias("token").to_frame().with_row_index().explode("token").drop_nulls()
    token = lookup(exploded["token"])
    line = exploded["index"].to_numpy().astype(np.int64)
    ones = np.ones(int((token >= 0).sum()), np.float32)
    matrix = sparse.csr_matrix((ones, (line[token >= 0], token[token >= 0])), shape=(len(lists), len(idf)))
    matrix.sum_duplicates()
    matrix.data = (1 + np.log(matrix.data)) * idf[matrix.indices]
    size = (
        np.asarray(matrix.sum(axis=1)).ravel()
        if norm == "sum"
        else np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    )
    return sparse.csr_matrix(sparse.diags((1 / np.where(size > 0, size, 1)).astype(np.float32)) @ matrix)


def _centre_and_scale(vectors: Floats, centre: Floats, weight: float) -> Floats:
    """Subtract the centre and scale each row to length sqrt(weight); zero vectors, which mean unknown, stay zero."""
    known = (vectors != 0).any(axis=1, keepdims=True)
    return (np.float32(weight**0.5) * normalize((vectors - centre) * known)).astype(np.float32)
