"""Corpus: texts as words in a temporary file, so that a training can pass over more text than fits into memory."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import polars as pl

from recsys_embed.errors import DataError
from recsys_embed.sources.texts import Progress, read_texts
from recsys_embed.words.tokens import split_words

Texts = pl.Series | Iterable[str] | str | Path

_IN_MEMORY = 1 << 26  # bytes of words that are kept in memory; more go to a file in the temporary folder
_BATCH = 10_000  # texts that are split into words at a time
_LONGEST = 10_000  # words; gensim ignores what follows in a sentence
_MAX_COUNTED = 10_000_000  # distinct words; about 1 GB


class Corpus:
    """The words of texts, to be passed over several times.

    texts, tokens: how many there are. counts: how often each word occurs; while more than ten million distinct words
    are counted, the rarest are dropped.
    """

    def __init__(self, texts: Texts, progress: Progress | None = None) -> None:
        """Read texts: a column, an iterable of strings, or a path (or "-") of plain text with one text a line.

        progress: called while files are read. Raises DataError.
        """
        self.texts = self.tokens = 0
        self.counts: Counter[str] = Counter()
        self._rarest = 1
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, "w+b")
        for batch in _batches(texts, progress):  # errors of a caller's own texts are the caller's
            self._add(batch)
        with _says_where():
            self._file.flush()

    def __iter__(self) -> Iterator[list[str]]:
        """Yield the words of each text; those of a very long one in pieces."""
        self._file.seek(0)
        for line in self._file:
            words = line.decode().split()
            for start in range(0, len(words), _LONGEST):
                yield words[start : start + _LONGEST]

    def _add(self, batch: pl.Series) -> None:
        words = split_words(batch)
        words = words.filter(words.list.len() > 0)
        self.texts += len(words)
        counted = words.explode().value_counts(name="n")
        self.tokens += int(counted["n"].sum())
        self.counts.update(dict(counted.iter_rows()))
        while len(self.counts) > _MAX_COUNTED:
            self.counts = Counter({word: n for word, n in self.counts.items() if n > self._rarest})
            self._rarest += 1
        lines = "".join(f"{line}\n" for line in words.list.join(" ")).encode()
        with _says_where():
            self._file.write(lines)


@contextmanager
def _says_where() -> Iterator[None]:
    """Raise DataError where words cannot be written to the temporary folder."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the words cannot be kept in {tempfile.gettempdir()}: {error.strerror}; TMPDIR names another folder"
        ) from None


def _batches(texts: Texts, progress: Progress | None) -> Iterator[pl.Series]:
    if isinstance(texts, pl.Series):
        for start in range(0, len(texts), _BATCH):
            yield texts[start : start + _BATCH].alias("text")
    elif isinstance(texts, str | Path):
        for lines in read_texts(texts, progress):
            yield pl.Series("text", lines, pl.String)
    else:
        rest = iter(texts)
        while lines := list(islice(rest, _BATCH)):
            yield _as_column(lines)


def _as_column(lines: list[str]) -> pl.Series:
    try:
        return pl.Series("text", lines, pl.String)
    except TypeError:
        wrong = next(line for line in lines if line is not None and not isinstance(line, str))
        raise DataError(f"texts must be strings, one a text, got {type(wrong).__name__}: {str(wrong)[:60]}") from None
