"""Describer: learns from an item table what its columns hold, and turns any such table into numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.arrays import Floats, unit
from recsys_embed.data.ids import Rows
from recsys_embed.errors import DataError
from recsys_embed.words import tokens as text
from recsys_embed.words.tokens import Kind
from recsys_embed.words.vectors import WordVectors

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

log = logging.getLogger("recsys_embed")

# Share of a column in the likeness of two items (chosen on validation data; experiments/LOG.md): two texts that have
# a word in common say less than two lists that have an entry in common.
WEIGHTS: dict[str, float] = {"words": 0.25, "tags": 1.0, "number": 1.0, "vectors": 1.0}

# Soft places along a number's range. A value lies between two of them and counts for its neighbours too.
_PLACES = 16
# An entry that stands in one item alone tells nothing of another.
_LEAST = 2
# What a tag that a query names counts, as the square of a rare word's inverse frequency.
_TAG = 9.0
# Words of ready-made vectors that are kept beside those of the descriptions, so that searches know them: the first
# ones, which are the most frequent in the usual files.
_COMMON = 30_000


@dataclass(frozen=True)
class Column:
    """What was learnt of a column. entries: its words or tags, or none for a number. weight: inverse frequencies.

    places: the centres along a number's range; width: their distance.
    """

    name: str
    kind: Kind
    entries: pl.Series
    weight: Floats
    places: Floats
    width: float = 1.0

    @property
    def size(self) -> int:
        """Features that the column has."""
        return len(self.places) if self.kind == "number" else len(self.entries)

    def labels(self) -> list[str]:
        """Return a readable name for each feature."""
        if self.kind == "number":
            return [f"{self.name} {place:g}" for place in self.places]
        return self.entries.to_list()


class Features(NamedTuple):
    """Descriptions of n items as numbers. bag: sparse [n, T], the tokens; dense: [n, f], ready-made vectors."""

    bag: csr_matrix
    dense: Floats


@dataclass(frozen=True)
class FeatureEncoder:
    """Turns item tables into Features.

    Every column gives a block in which an item with any known content has length sqrt(weight of its kind): the inner
    product of two items is a weighted mean of cosines, column by column.

    columns: words, tags and numbers. words: vectors of words, or None; `word_weight` are the inverse frequencies
    of those words, `word_centre` the mean that is taken off; where the words are trained, an item has the plain mean
    of theirs. vector_centre: the mean of the ready-made item vectors, which is taken off too; empty without such.
    """

    columns: list[Column]
    words: WordVectors | None = None
    word_weight: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    word_centre: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    vector_centre: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    trained: bool = False

    @classmethod
    def learn(
        cls,
        table: pl.DataFrame,
        names: Sequence[str],
        kinds: dict[str, Kind] | None = None,
        words: WordVectors | None = None,
        vectors: Floats | None = None,
    ) -> FeatureEncoder:
        """Learn the columns `names` of an item table, one row an item.

        kinds: what a column holds, where `text.kind_of` would say otherwise. words: ready-made vectors of words.
        vectors: [n, f], ready-made vectors of the items; rows of zeros where there is none.
        Raises DataError for a column that is not there.
        """
        missing = [n for n in names if n not in table.columns]
        if missing:
            raise DataError(f"the item table has no column {missing[0]!r}; it has {', '.join(table.columns)[:300]}")
        columns = [_learn(table[name], (kinds or {}).get(name) or text.kind_of(table[name])) for name in names]
        for column in columns:
            log.info("items: %s as %s (%s)", column.name, column.kind, f"{column.size:,}")
        encoder = cls(columns)
        if words is not None:
            encoder = encoder._with_words(table, words)
        if vectors is not None:
            known = vectors[(vectors != 0).any(axis=1)]
            centre = known.mean(axis=0) if len(known) else np.zeros(vectors.shape[1], np.float32)
            encoder = replace(encoder, vector_centre=centre.astype(np.float32))
        if not columns and vectors is None:
            raise DataError("there is nothing to describe items by: name columns with --text, or --item-vectors")
        return encoder

    def with_trained(self, vectors: Floats) -> FeatureEncoder:
        """Return the same with trained vectors of the words."""
        assert self.words is not None
        words = WordVectors.of(self.words.words.series, vectors, self.words.name)
        return replace(self, words=words, trained=True)

    def _with_words(self, table: pl.DataFrame, words: WordVectors) -> FeatureEncoder:
        tokens = self._text(table).explode().drop_nulls()
        if not len(tokens):
            raise DataError("--vectors needs a column of words among those of --text")
        used = tokens.unique(maintain_order=True)
        rows = words.rows(used)
        known = np.unique(np.concatenate((rows[rows >= 0], np.arange(min(_COMMON, len(words))))))
        kept = words.take(known)
        found = kept.rows(tokens)
        # A word that no description has is as rare as one that a single one has.
        counts = np.maximum(np.bincount(found[found >= 0], minlength=len(kept)), 1)
        weight = np.log(1 + table.height / counts).astype(np.float32)
        bare = replace(self, words=kept, word_weight=weight, word_centre=np.zeros(kept.dim, np.float32))
        means = bare._word_means(table)
        some = (means != 0).any(axis=1)
        if not some.any():
            raise DataError(f"{words.name} knows none of the words of {', '.join(c.name for c in self.columns)}")
        return replace(bare, word_centre=means[some].mean(axis=0))

    @property
    def size(self) -> tuple[int, int]:
        """Columns of a bag, and of the dense part."""
        return sum(c.size for c in self.columns), len(self.word_centre) + len(self.vector_centre)

    def labels(self) -> pl.DataFrame:
        """Return one row a token of the bag: column, kind, token."""
        parts = [
            pl.DataFrame({"column": [c.name] * c.size, "kind": [c.kind] * c.size, "token": c.labels()})
            for c in self.columns
        ]
        empty = pl.DataFrame(schema={"column": pl.String, "kind": pl.String, "token": pl.String})
        return pl.concat([empty, *parts])

    def features(self, table: pl.DataFrame, vectors: Floats | None = None) -> Features:
        """Describe the items of a table, which may lack columns: what is not known is zero."""
        from scipy import sparse

        blocks = [_block(column, table) for column in self.columns]
        n = table.height
        bag = sparse.hstack([sparse.csr_matrix((n, 0), dtype=np.float32), *blocks], format="csr")
        dense = [np.zeros((n, 0), np.float32)]
        if self.words is not None:
            means = self._word_means(table)
            dense.append(means if self.trained else _centred(means, self.word_centre, WEIGHTS["words"]))
        if len(self.vector_centre):
            given = np.zeros((n, len(self.vector_centre)), np.float32) if vectors is None else vectors
            if given.shape != (n, len(self.vector_centre)):
                raise DataError(
                    f"item vectors of the shape {given.shape} were given; ({n}, {len(self.vector_centre)}) is needed"
                )
            dense.append(_centred(given, self.vector_centre, WEIGHTS["vectors"]))
        return Features(bag.astype(np.float32), np.concatenate(dense, axis=1))

    def encode_text(self, query: str) -> Features:
        """Describe a text that is no item: as words of every column of words, and as the tags that it names.

        Common words ("with", "old") must not drown the rare ones in a query of a few words: a word's weight is
        multiplied by the square of its inverse frequency in the column in which it is most common, a tag's by that of
        a rare word.
        """
        said = text.words(pl.Series("query", [query]))[0].to_list()
        joined = f" {' '.join(said)} "
        table = {}
        for column in self.columns:
            if column.kind == "words":
                table[column.name] = query
            elif column.kind == "tags":
                plain = [" ".join(t) for t in text.words(column.entries.alias("t")).to_list()]
                named = [e for e, t in zip(column.entries.to_list(), plain, strict=True) if t and f" {t} " in joined]
                table[column.name] = "|".join(named)
        features = self.features(pl.DataFrame({"": [0]} | {name: [value] for name, value in table.items()}))
        least: dict[str, float] = {}
        for column in self.columns:
            if column.kind == "words":
                for word, weight in zip(column.entries.to_list(), column.weight.tolist(), strict=True):
                    least[word] = min(least.get(word, np.inf), weight - 1)
        kinds = [
            [least[word] ** 2 for word in c.entries.to_list()] if c.kind == "words" else [_TAG] * c.size
            for c in self.columns
        ]
        bag = features.bag.multiply(np.array([w for own in kinds for w in own], np.float32)).tocsr()
        bag.eliminate_zeros()
        length = np.sqrt(bag.multiply(bag).sum()) or 1.0
        return Features((bag / length).astype(np.float32), features.dense)

    def coverage(self, table: pl.DataFrame) -> pl.Series:
        """Return the share of each item's words that are known, null for an item without words."""
        tokens = self._text(table).alias("token")
        frame = tokens.to_frame().with_row_index().explode("token").drop_nulls()
        known = [c.entries for c in self.columns if c.kind == "words"]
        if self.words is not None:
            known.append(self.words.words.series)
        entries = pl.concat([pl.Series("token", [], pl.String), *(e.alias("token") for e in known)]).unique()
        share = frame.group_by("index").agg(pl.col("token").is_in(entries.implode()).mean().alias("known_words"))
        rows = pl.DataFrame({"index": np.arange(table.height)}).with_columns(pl.col("index").cast(pl.UInt32))
        return rows.join(share, on="index", how="left", maintain_order="left")["known_words"]

    def _text(self, table: pl.DataFrame) -> pl.Series:
        """Return the words of each item, of all its columns of words together."""
        columns = [text.words(table[c.name]) for c in self.columns if c.kind == "words" and c.name in table.columns]
        if not columns:
            return pl.Series("words", [[]] * table.height, pl.List(pl.String))
        joined = pl.DataFrame([c.alias(str(at)) for at, c in enumerate(columns)])
        return joined.select(pl.concat_list(pl.all()).alias("words")).to_series()

    def word_bag(self, table: pl.DataFrame) -> csr_matrix:
        """Return the weights [n, words] of the ready-made words in each item; a line's weights sum to one."""
        assert self.words is not None
        return _counted(self._text(table), self.words.rows, self.word_weight, "sum")

    def _word_means(self, table: pl.DataFrame) -> Floats:
        assert self.words is not None
        return np.asarray(self.word_bag(table) @ self.words.vectors, np.float32)

    def save(self) -> tuple[dict[str, NDArray[Any]], dict[str, pl.DataFrame], dict[str, Any]]:
        """Return (arrays, frames, facts) that `restore` makes the same Describer of."""
        arrays: dict[str, NDArray[Any]] = {"word_weight": self.word_weight, "word_centre": self.word_centre}
        arrays["vector_centre"] = self.vector_centre
        entries = [pl.Series("entry", [], pl.String)]
        facts = []
        for at, column in enumerate(self.columns):
            arrays |= {f"{at}.weight": column.weight, f"{at}.places": column.places}
            entries.append(column.entries.alias("entry"))
            facts.append(
                {"name": column.name, "kind": column.kind, "entries": len(column.entries), "width": column.width}
            )
        frames = {"tokens": pl.concat(entries).to_frame()}
        if self.words is not None:
            arrays["word_vectors"] = np.asarray(self.words.vectors)
            frames["words"] = self.words.words.series.alias("word").to_frame()
        return arrays, frames, {"columns": facts, "trained_words": self.trained}

    @classmethod
    def restore(
        cls, arrays: dict[str, NDArray[Any]], frames: dict[str, pl.DataFrame], facts: dict[str, Any]
    ) -> FeatureEncoder:
        """Make a Describer of what `save` returned."""
        columns, start = [], 0
        for at, fact in enumerate(facts["columns"]):
            entries = frames["tokens"]["entry"].slice(start, fact["entries"])
            start += fact["entries"]
            columns.append(
                Column(
                    fact["name"], fact["kind"], entries, arrays[f"{at}.weight"], arrays[f"{at}.places"], fact["width"]
                )
            )
        words = None
        if "words" in frames:
            words = WordVectors.of(frames["words"]["word"], arrays["word_vectors"])
        weight, *centres = (arrays[name] for name in ("word_weight", "word_centre", "vector_centre"))
        return cls(columns, words, weight, centres[0], centres[1], facts["trained_words"])


def _learn(column: pl.Series, kind: Kind) -> Column:
    nothing = np.zeros(0, np.float32)
    empty = pl.Series("entry", [], pl.String)
    if kind == "number":
        values = text.numbers(column).drop_nulls().to_numpy()
        if not len(values):
            raise DataError(f"the item column {column.name!r} has no number in it")
        low, high = np.quantile(values, (0.01, 0.99))
        if high <= low:
            low, high = low - 0.5, high + 0.5
        places = np.linspace(low, high, _PLACES, dtype=np.float32)
        return Column(column.name, kind, empty, nothing, places, float((high - low) / (_PLACES - 1)))
    lists = text.words(column) if kind == "words" else text.tags(column)
    counts = lists.alias("entry").list.unique().explode().drop_nulls().value_counts().sort("entry")
    counts = counts.filter(pl.col("count") >= _LEAST)
    weight = np.log((1 + len(column)) / (1 + counts["count"].to_numpy())) + 1
    return Column(column.name, kind, counts["entry"], weight.astype(np.float32), nothing)


def _block(column: Column, table: pl.DataFrame) -> csr_matrix:
    from scipy import sparse

    n, share = table.height, WEIGHTS[column.kind] ** 0.5
    if column.name not in table.columns:
        return sparse.csr_matrix((n, column.size), dtype=np.float32)
    if column.kind == "number":
        # Beyond the range that was learnt a value counts as its end: next year's films are most like this year's.
        values = text.numbers(table[column.name]).to_numpy().clip(column.places[0], column.places[-1])
        with np.errstate(invalid="ignore"):
            near = np.exp(-0.5 * ((values[:, None] - column.places) / column.width) ** 2)
            near[~(near > 1e-3)] = 0  # NaN too: a missing number is near nothing
        return sparse.csr_matrix(share * unit(near.astype(np.float32)))
    lists = text.words(table[column.name]) if column.kind == "words" else text.tags(table[column.name])
    place = pl.DataFrame({"token": column.entries, "row": np.arange(len(column.entries), dtype=np.int64)})

    def rows(tokens: pl.Series) -> Rows:
        joined = tokens.to_frame("token").join(place, on="token", how="left", maintain_order="left")
        return joined["row"].fill_null(-1).to_numpy()

    return _counted(lists, rows, column.weight, "length") * np.float32(share)


def _counted(lists: pl.Series, rows: Callable[[pl.Series], Rows], weight: Floats, norm: str) -> csr_matrix:
    """Count the tokens of each list: (1 + log count) x weight, each line then of sum or length one."""
    from scipy import sparse

    exploded = lists.alias("token").to_frame().with_row_index().explode("token").drop_nulls()
    token = rows(exploded["token"])
    line = exploded["index"].to_numpy().astype(np.int64)
    ones = np.ones(int((token >= 0).sum()), np.float32)
    table = sparse.csr_matrix((ones, (line[token >= 0], token[token >= 0])), shape=(len(lists), len(weight)))
    table.sum_duplicates()
    table.data = (1 + np.log(table.data)) * weight[table.indices]
    size = (
        np.asarray(table.sum(axis=1)).ravel()
        if norm == "sum"
        else np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
    )
    return sparse.csr_matrix(sparse.diags((1 / np.where(size > 0, size, 1)).astype(np.float32)) @ table)


def _centred(vectors: Floats, centre: Floats, weight: float) -> Floats:
    """Take the centre off and bring to length sqrt(weight); a vector of zeros (not known) stays zero."""
    known = (vectors != 0).any(axis=1, keepdims=True)
    return (np.float32(weight**0.5) * unit((vectors - centre) * known)).astype(np.float32)
