"""Read and write word vectors: GloVe and word2vec text, word2vec binary, fastText .vec and .bin, .npy, .safetensors.

Text and word2vec's binary form may be gzipped. Every reader returns a `Read`, and none executes anything in a file.
Known flaws of published files are skipped or repaired, and counted in the notes; anything else raises a DataError that
names the line:

* "duplicate words": the first one is used;
* "words with blanks": a line with more fields than a word and its numbers, as in GloVe's 840B (". . . 0.1 …"); the
  word is all that comes before the numbers, which one or more blanks or tabs separate;
* "lines without a word": a vector whose word is blank, as in some fastText files; the line is skipped.
"""

from __future__ import annotations

import codecs
import gzip
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import polars as pl

from recsys_embed.arrays import Floats
from recsys_embed.errors import DataError, SettingError
from recsys_embed.storage.atomic import atomic_write, wrap_read_errors
from recsys_embed.storage.json import parse_json
from recsys_embed.storage.parquet_reader import read_parquet
from recsys_embed.words.subwords import Subwords

log = logging.getLogger("recsys_embed")


class Read(NamedTuple):
    """What a file holds. vectors: float32 [n, dim]; notes: the flaws that were skipped, and how often.

    is_whole: whether the last line of a text file has an end.
    """

    words: pl.Series
    vectors: Floats
    notes: dict[str, int]
    subwords: Subwords | None = None
    is_whole: bool = True


_CHUNK = 1 << 24  # bytes that are read and parsed at a time
_MAX_WORD_BYTES = 10_000  # more than any word of any language has
_CONTROLS = bytes(byte for byte in range(32) if byte not in b"\t\n\r")
_FASTTEXT_MAGIC = (793_712_314).to_bytes(4, "little")


def read_vectors(path: Path) -> Read:
    """Read a file of word vectors in any of the formats.

    All but .safetensors are recognised by their content, not by their name. Raises DataError.
    """
    with wrap_read_errors(path):
        with path.open("rb") as file:
            magic = file.read(8)
        if magic[:6] == b"\x93NUMPY":
            found = _read_npy(path)
        elif path.suffix == ".safetensors":
            found = _read_safetensors(path)
        elif magic[:4] == _FASTTEXT_MAGIC:
            found = _read_fasttext(path)
        else:
            with _open(path, magic) as stream:
                found = _read_stream(stream, path)
    return _drop_duplicates(found)


def _drop_duplicates(found: Read) -> Read:
    first = found.words.is_first_distinct().to_numpy()
    if first.all():
        return found
    notes = {**found.notes, "duplicate words": int((~first).sum())}
    return Read(found.words.filter(pl.Series(first)), found.vectors[first], notes, found.subwords)


@contextmanager
def _open(path: Path, magic: bytes) -> Iterator[IO[bytes]]:
    opener: Any = gzip.open if magic[:2] == b"\x1f\x8b" else open
    with opener(path, "rb") as stream:
        yield stream


def _read_stream(stream: IO[bytes], path: Path) -> Read:
    """Read text with or without word2vec's header line, or word2vec's binary form."""
    head = stream.read(1 << 16)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path} is UTF-16 text: save it as UTF-8")
    head = head.removeprefix(codecs.BOM_UTF8)
    if not head.strip():
        raise DataError(f"{path} is empty")
    line, _, rest = head.partition(b"\n")
    fields = line.split()
    if len(fields) == 2 and all(f.isdigit() and len(f) <= 12 for f in fields):
        count, dim = int(fields[0]), int(fields[1])
        if not 1 <= dim <= 65_536:
            raise DataError(f"{path}: the first line says {dim} numbers per word; from 1 to 65536 are expected")
        if _is_text(rest, dim):
            found = _read_text(stream, rest, path, dim, first_line=2)
            n_lines = len(found.words) + found.notes.get("lines without a word", 0)
            if n_lines != count and not found.is_whole:
                raise DataError(f"{path} should have {count:,} words but has {n_lines:,}: it was cut short")
            if n_lines != count:  # as in files that fastText offers
                log.warning("%s: its first line says %s words, and there are %s", path, f"{count:,}", f"{n_lines:,}")
            return found
        return _read_binary(stream, rest, path, count, dim)
    return _read_text(stream, head, path, None, first_line=1)


def _is_text(rest: bytes, dim: int) -> bool:
    """Return whether numbers are written as text, rather than as word2vec's binary numbers. rest: what follows the
    header, as far as it was read."""
    fields = rest.lstrip(b"\n").split(b"\n", 1)[0].split()
    if len(fields) > dim and _parse_numbers(fields[-dim:]):
        return True
    # A word may have blanks, and numbers may be written in some other way; but of binary ones many bytes are controls.
    return len(rest) - len(rest.translate(None, _CONTROLS)) <= len(rest) / 100


def _read_text(stream: IO[bytes], head: bytes, path: Path, dim: int | None, first_line: int) -> Read:
    """Read lines of a word and its numbers.

    head: what was read from the stream already. dim: the numbers per word; None to take it from the first line.
    first_line: the number of the line that head begins with.
    """
    words: list[pl.Series] = []
    vectors: list[Floats] = []
    notes: dict[str, int] = {}
    line_number, unread, end = first_line, head, head[-1:]
    while True:
        data = stream.read(_CHUNK)
        end = data[-1:] or end
        block = unread + data
        cut = block.rfind(b"\n") + 1 if data else len(block)
        block, unread = block[:cut], block[cut:]
        if len(unread) > 4 * max(_CHUNK, 1 << 20):
            raise DataError(f"{path} is not a text file of word vectors: a line does not end")
        if block:
            dim = dim or _dim_of(block, path)
            block_words, block_vectors = _parse(block, dim, path, line_number, notes)
            words.append(block_words)
            vectors.append(block_vectors)
            line_number += block.count(b"\n")
        if not data:
            break
    if not sum(map(len, words)):
        raise DataError(f"{path} has no word")
    return Read(pl.concat(words), np.concatenate(vectors), notes, is_whole=end == b"\n")


def _dim_of(block: bytes, path: Path) -> int:
    """Return how many numbers follow the word in the first line, which may have blanks, or be blank.

    Raises DataError if there are none.
    """
    line = block.split(b"\n", 1)[0]
    fields = ([b""] if line[:1] in (b" ", b"\t") else []) + line.split()
    if len(fields) > 1 and _parse_numbers(fields[1:]):
        return len(fields) - 1
    dim = next((n for n, field in enumerate(reversed(fields)) if not _parse_numbers([field])), 0)
    if dim < 2:  # a line of text may end with a number
        start = line[:60].decode("latin-1")
        raise DataError(f"{path} is not a file of word vectors: line 1 is not a word and its numbers, but {start!r}")
    return dim


def _parse(block: bytes, dim: int, path: Path, line_number: int, notes: dict[str, int]) -> tuple[pl.Series, Floats]:
    """Parse lines with polars if all are regular, else one by one. line_number: that of the first line in the file."""
    block = block.replace(b"\r\n", b"\n").replace(b"\t", b" ")
    if b"\r" not in block:
        columns = {"word": pl.String, **{str(k): pl.Float32 for k in range(dim)}}
        line = block.split(b"\n", 1)[0]
        if line.endswith(b" "):  # word2vec and fastText end every line with a space
            columns["end"] = pl.String
        try:
            frame = pl.read_csv(
                block, separator=" ", has_header=False, quote_char=None, schema=columns, raise_if_empty=False
            )
        except pl.exceptions.PolarsError:
            pass
        else:
            regular = (
                frame["word"].null_count() == 0
                and not (frame["word"] == "").any()
                and frame.height == block.count(b"\n") + (not block.endswith(b"\n"))
                and (
                    "end" not in columns or frame["end"].null_count() + int((frame["end"] == "").sum()) == frame.height
                )
            )
            vectors = frame.select(pl.exclude("word", "end")).to_numpy().astype(np.float32, copy=False)
            if regular and np.isfinite(vectors).all():
                return frame["word"], np.ascontiguousarray(vectors)
    return _parse_lines(block, dim, path, line_number, notes)


def _parse_lines(
    block: bytes, dim: int, path: Path, line_number: int, notes: dict[str, int]
) -> tuple[pl.Series, Floats]:
    """Parse lines one by one, and count in the notes those that are skipped or repaired."""
    words, vectors = [], []
    for number, line in enumerate(block.split(b"\n"), line_number):
        fields = line.split()
        if not fields:
            continue
        word, numbers = b" ".join(fields[:-dim]), fields[-dim:]
        if len(fields) == dim and line[:1] == b" " and _parse_numbers(numbers):
            notes["lines without a word"] = notes.get("lines without a word", 0) + 1
            continue
        values = _parse_numbers(numbers) if len(fields) > dim else None
        if values is None:
            raise DataError(
                f"{path}: line {number} is not a word and {dim} numbers: {line[:60].decode('utf-8', 'replace')!r}"
                + (f" ({len(fields) - 1} numbers)" if len(fields) <= dim else "")
            )
        if len(fields) > dim + 1:
            notes["words with blanks"] = notes.get("words with blanks", 0) + 1
        words.append(word.decode("utf-8", "replace"))
        vectors.append(values)
    return pl.Series("word", words, pl.String), np.array(vectors, np.float32).reshape(len(words), dim)


def _parse_numbers(fields: list[bytes]) -> list[float] | None:
    """Return the fields as numbers, or None if one is not a number or does not fit into 32 bits."""
    if any(b"_" in f for f in fields):  # which Python reads in numbers, and no file has
        return None
    try:
        values = [float(f) for f in fields]
    except ValueError:
        return None
    return values if all(abs(v) < 3.4e38 for v in values) else None


def _read_binary(stream: IO[bytes], unread: bytes, path: Path, count: int, dim: int) -> Read:
    """Read word2vec's binary form: for each word its text, a space, its numbers as float32, and perhaps a newline.

    unread: what was read from the stream already, after the header. count, dim: the header.
    """
    size = 4 * dim
    words: list[str] = []
    chunks: list[bytes] = []
    at = 0
    for n in range(count):
        while True:
            if unread[at : at + 1] == b"\n":
                at += 1
            space = unread.find(b" ", at, at + _MAX_WORD_BYTES)
            if space >= 0 and len(unread) >= space + 1 + size:
                break
            data = stream.read(_CHUNK)
            if not data:
                raise DataError(f"{path} should have {count:,} words but ends in word {n + 1:,}: it was cut short")
            if space < 0 and len(unread) - at > _MAX_WORD_BYTES:
                raise DataError(
                    f"{path}: word {n + 1:,} does not end: this is not a file of word vectors of {dim} numbers"
                )
            unread, at = unread[at:] + data, 0
        words.append(unread[at:space].decode("utf-8", "replace"))
        at = space + 1 + size
        chunks.append(unread[space + 1 : at])
    if (unread[at:] + stream.read(16)).strip():
        raise DataError(f"{path} goes on after its {count:,} words: its first line is wrong")
    if not words:
        raise DataError(f"{path} has no word")
    vectors = np.frombuffer(b"".join(chunks), "<f4").reshape(count, dim)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise DataError(f"{path}: the vector of word {bad[0] + 1:,} ({words[bad[0]]!r}) is not finite")
    return Read(pl.Series("word", words, pl.String), vectors, {})


def _read_fasttext(path: Path) -> Read:
    """Read a fastText .bin with gensim. Raises DataError if gensim is not installed."""
    try:
        from gensim.models.fasttext import load_facebook_vectors
    except ImportError:
        raise DataError(
            f"{path} is a fastText .bin, which needs gensim: pip install 'recsys-embed[text]', or use the .vec file"
        ) from None
    try:
        loaded = load_facebook_vectors(str(path))
        words, vectors = pl.Series("word", loaded.index_to_key, pl.String), np.array(loaded.vectors, np.float32)
        ngrams = np.asarray(loaded.vectors_ngrams, np.float32)
        subwords = Subwords(np.arange(len(ngrams)), ngrams, len(ngrams), loaded.min_n, loaded.max_n)
    except Exception as error:  # gensim trusts the file, so a broken one can raise anything
        raise DataError(f"{path} is not a complete fastText file: {type(error).__name__}: {str(error)[:100]}") from None
    return Read(words, vectors, {}, subwords if len(ngrams) else None)


def _read_words_of(path: Path) -> pl.Series:
    """Read the words of a file that holds vectors alone, from the .parquet file of the same name beside it."""
    words_path = path.with_suffix(".parquet")
    if not words_path.is_file():
        raise DataError(f"{path} holds vectors alone; its words are expected in {words_path.name} beside it")
    frame = read_parquet(words_path, words_path)
    column = next((frame[c] for c in ("word", "index") if c in frame.columns), frame.to_series(0))
    if column.dtype != pl.String or column.null_count():
        raise DataError(f"{words_path}: its column {column.name!r} must hold a word in every row")
    return column.alias("word")


def _with_words(path: Path, vectors: Floats) -> Read:
    """Return vectors that were read from `path` with their words. Raises DataError if they do not fit together."""
    words = _read_words_of(path)
    if vectors.ndim != 2 or len(vectors) != len(words):
        raise DataError(f"{path} has vectors of the shape {vectors.shape} for {len(words):,} words")
    if not vectors.size:
        raise DataError(f"{path} is empty")
    if not all(np.isfinite(vectors[start : start + 65_536]).all() for start in range(0, len(vectors), 65_536)):
        raise DataError(f"{path} holds numbers that are not finite")
    return Read(words, vectors, {})


def _read_npy(path: Path) -> Read:
    """Memory-map a .npy file, and read its words beside it. Arrays of objects, which are pickles, are refused."""
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is not a complete .npy file of numbers: {str(error)[:100]}") from None
    if vectors.dtype != np.float32:
        if vectors.dtype.kind != "f":
            raise DataError(f"{path} holds {vectors.dtype}; floating-point numbers are needed")
        vectors = vectors.astype(np.float32)
    return _with_words(path, vectors)


def _read_safetensors(path: Path) -> Read:
    """Memory-map the tensor "vectors" of a .safetensors file, and those of n-grams; read its words beside it."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(os.path.getsize(path), 1 << 20):
                raise ValueError("the length of its header is wrong")
            header = parse_json(file.read(length))
        vectors = _map_tensor(path, header["vectors"], 8 + length, "F32", 2)
        subwords = None
        if "ngrams" in header:
            rows, ngrams = (
                _map_tensor(path, header[name], 8 + length, kind, axes)
                for name, kind, axes in (("ngram_rows", "I64", 1), ("ngrams", "F32", 2))
            )
            facts = {name: int(header["__metadata__"][name]) for name in ("buckets", "min_n", "max_n")}
            if len(rows) != len(ngrams) or ngrams.shape[1] != vectors.shape[1] or facts["buckets"] < 1:
                raise ValueError("its n-grams do not fit together")
            subwords = Subwords(np.asarray(rows), ngrams, **facts)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise DataError(f'{path} is not a complete safetensors file with a tensor "vectors": {error}') from None
    return _with_words(path, vectors)._replace(subwords=subwords)


def _map_tensor(path: Path, entry: Any, start: int, kind: str, axes: int) -> Any:
    """Memory-map a tensor that a header describes. start: of the data in the file. Raises ValueError."""
    first, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    size = {"F32": 4, "I64": 8}[kind]
    if entry["dtype"] != kind or len(shape) != axes or end - first != size * math.prod(shape):
        raise ValueError(f"its tensor is not {kind} of the shape that it says")
    if start + end > os.path.getsize(path):
        raise ValueError("it is cut short")
    if not math.prod(shape):
        return np.zeros(shape, "<f4" if kind == "F32" else "<i8")
    return np.memmap(path, "<f4" if kind == "F32" else "<i8", "r", start + first, shape)


def write_vectors(path: Path, words: pl.Series, vectors: Floats, subwords: Subwords | None = None) -> Path:
    """Write NAME.safetensors, and the words to NAME.parquet beside it, each atomically; return the first path."""
    from safetensors.numpy import save

    if path.suffix != ".safetensors":
        raise SettingError(f"{path} must end in .safetensors")
    tensors: dict[str, Any] = {"vectors": np.ascontiguousarray(vectors, np.float32)}
    facts = None
    if subwords is not None:
        tensors["ngrams"] = np.ascontiguousarray(subwords.vectors, np.float32)
        tensors["ngram_rows"] = np.ascontiguousarray(subwords.rows, np.int64)
        facts = {name: str(getattr(subwords, name)) for name in ("buckets", "min_n", "max_n")}
    with atomic_write(path.with_suffix(".parquet")) as file:
        words.alias("word").to_frame().write_parquet(file)
    with atomic_write(path) as file:
        file.write(save(tensors, facts))
    return path
