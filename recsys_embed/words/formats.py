"""Files of word vectors: GloVe and word2vec text, word2vec binary, fastText .vec and .bin, and our own; gzip too.

Every reader gives (words, vectors float32 [n, dim], notes). None executes anything that a file says. What the
formats' own files are known to hold is counted in the notes and left out or mended; anything else is a DataError that
names the line:

* "duplicate words": the first one counts;
* "words with blanks": a line of more numbers than the dimension, as GloVe's 840B has (". . . 0.1 …");
* "lines without a word": a vector whose word is blank, as some fastText files have.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl

from recsys_embed.arrays import Floats
from recsys_embed.errors import DataError, SettingError
from recsys_embed.storage.atomic import reading, writing_whole

Read = tuple[pl.Series, Floats, dict[str, int]]

# Text that is parsed at once.
_CHUNK = 1 << 24
_MOST_WORD = 10_000  # bytes; no word of any language comes near
_FASTTEXT = (793_712_314).to_bytes(4, "little")


def read_vectors(path: Path) -> Read:
    """Read a file of word vectors, whatever its form: it is told from the content, not from the name."""
    with reading(path):
        with path.open("rb") as file:
            magic = file.read(8)
        if magic[:6] == b"\x93NUMPY":
            words, vectors, notes = _read_npy(path)
        elif path.suffix == ".safetensors":
            words, vectors, notes = _read_own(path)
        elif magic[:4] == _FASTTEXT:
            words, vectors, notes = _read_fasttext(path)
        else:
            with _opened(path, magic) as stream:
                words, vectors, notes = _read_stream(stream, path)
    return _without_duplicates(words, vectors, notes)


def _without_duplicates(words: pl.Series, vectors: Floats, notes: dict[str, int]) -> Read:
    first = words.is_first_distinct().to_numpy()
    if not first.all():
        notes = {**notes, "duplicate words": int((~first).sum())}
        words, vectors = words.filter(pl.Series(first)), vectors[first]
    return words, vectors, notes


@contextmanager
def _opened(path: Path, magic: bytes) -> Iterator[IO[bytes]]:
    opener: Any = gzip.open if magic[:2] == b"\x1f\x8b" else open
    with opener(path, "rb") as stream:
        yield stream


def _read_stream(stream: IO[bytes], path: Path) -> Read:
    """Read what has words in it: text with or without word2vec's header line, or word2vec's binary form."""
    head = stream.read(1 << 16)
    if not head.strip():
        raise DataError(f"{path} is empty")
    line, _, rest = head.partition(b"\n")
    fields = line.split()
    if len(fields) == 2 and all(f.isdigit() and len(f) <= 12 for f in fields):
        count, dim = int(fields[0]), int(fields[1])
        if not 1 <= dim <= 65_536:
            raise DataError(f"{path}: the first line says {dim} numbers a word; from 1 to 65536 is expected")
        if _is_text(rest):
            words, vectors, notes = _read_text(stream, rest, path, dim, first=2)
            found = len(words) + notes.get("lines without a word", 0)
            if found != count:
                raise DataError(
                    f"{path} says that it has {count:,} words and has {found:,}: it may have been cut short"
                )
            return words, vectors, notes
        return _read_binary(stream, rest, path, count, dim)
    return _read_text(stream, head, path, None, first=1)


def _is_text(rest: bytes) -> bool:
    """Tell text from word2vec's binary form: behind the first word stand digits, or bytes that mean nothing."""
    numbers = rest.lstrip(b"\n").split(b"\n", 1)[0].partition(b" ")[2]
    return not numbers.strip(b"0123456789+-.eEinfaN \t\r")


def _read_text(stream: IO[bytes], head: bytes, path: Path, dim: int | None, first: int) -> Read:
    words: list[pl.Series] = []
    parts: list[Floats] = []
    notes: dict[str, int] = {}
    number, left = first, head
    while True:
        data = stream.read(_CHUNK)
        block = left + data
        cut = block.rfind(b"\n") + 1 if data else len(block)
        block, left = block[:cut], block[cut:]
        if len(left) > 4 * max(_CHUNK, 1 << 20):
            raise DataError(f"{path} is no text of word vectors: a line does not end")
        if block:
            dim = dim or _dim_of(block, path)
            part, vectors = _parse(block, dim, path, number, notes)
            words.append(part)
            parts.append(vectors)
            number += block.count(b"\n")
        if not data:
            break
    if not sum(map(len, words)):
        raise DataError(f"{path} has no word")
    return pl.concat(words), np.concatenate(parts), notes


def _dim_of(block: bytes, path: Path) -> int:
    """Return the numbers behind the first word: those at the end of the line that are numbers."""
    line = block.split(b"\n", 1)[0].rstrip(b"\r ")
    dim = len(line.split(b" ")) - 1
    if dim < 1 or not _numbers(line.split(b" ")[1:]):
        shown = line[:60].decode("latin-1")
        raise DataError(f"{path} is no file of word vectors: line 1 is not a word and its numbers, but {shown!r}")
    return dim


def _parse(block: bytes, dim: int, path: Path, number: int, notes: dict[str, int]) -> tuple[pl.Series, Floats]:
    """Parse lines, the first of which is line `number` of the file: fast where all are regular, else one by one."""
    block = block.replace(b"\r\n", b"\n")
    if b"\r" not in block:
        columns = {"word": pl.String, **{str(at): pl.Float32 for at in range(dim)}}
        line = block.split(b"\n", 1)[0]
        if line.endswith(b" "):  # word2vec and fastText end every line with a blank
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
    return _parse_slowly(block, dim, path, number, notes)


def _parse_slowly(block: bytes, dim: int, path: Path, number: int, notes: dict[str, int]) -> tuple[pl.Series, Floats]:
    words, vectors = [], []
    for at, line in enumerate(block.split(b"\n"), number):
        fields = line.rstrip(b"\r ").split(b" ")
        if not any(fields):
            continue
        word, numbers = b" ".join(fields[:-dim]), fields[-dim:]
        if not word.strip() and len(fields) in (dim, dim + 1) and _numbers(numbers):
            notes["lines without a word"] = notes.get("lines without a word", 0) + 1
            continue
        values = _numbers(numbers) if len(fields) > dim else None
        if values is None:
            raise DataError(
                f"{path}: line {at} is not a word and {dim} numbers: {line[:60].decode('utf-8', 'replace')!r}"
                + (f" ({len(fields) - 1} numbers)" if len(fields) <= dim else "")
            )
        if len(fields) > dim + 1:
            notes["words with blanks"] = notes.get("words with blanks", 0) + 1
        words.append(word.decode("utf-8", "replace"))
        vectors.append(values)
    return pl.Series("word", words, pl.String), np.array(vectors, np.float32).reshape(len(words), dim)


def _numbers(fields: list[bytes]) -> list[float] | None:
    """Return the fields as numbers, or None where one is none, or is too large for 32 bits."""
    try:
        values = [float(f) for f in fields]
    except ValueError:
        return None
    return values if all(abs(v) < 3.4e38 for v in values) else None


def _read_binary(stream: IO[bytes], left: bytes, path: Path, count: int, dim: int) -> Read:
    """Read word2vec's binary form: a word, a blank, its numbers as they lie in memory; perhaps a line's end between."""
    size = 4 * dim
    words: list[str] = []
    parts: list[bytes] = []
    at = 0
    for n in range(count):
        while True:
            if left[at : at + 1] == b"\n":
                at += 1
            blank = left.find(b" ", at, at + _MOST_WORD)
            if blank >= 0 and len(left) >= blank + 1 + size:
                break
            data = stream.read(_CHUNK)
            if not data:
                raise DataError(
                    f"{path} says that it has {count:,} words, and ends in word {n + 1:,}: it was cut short"
                )
            if blank < 0 and len(left) - at > _MOST_WORD:
                raise DataError(
                    f"{path}: word {n + 1:,} does not end: this is no file of word vectors of {dim} numbers"
                )
            left, at = left[at:] + data, 0
        words.append(left[at:blank].decode("utf-8", "replace"))
        at = blank + 1 + size
        parts.append(left[blank + 1 : at])
    if (left[at:] + stream.read(16)).strip():
        raise DataError(f"{path} goes on behind its {count:,} words: its first line is wrong")
    if not words:
        raise DataError(f"{path} has no word")
    vectors = np.frombuffer(b"".join(parts), "<f4").reshape(count, dim)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise DataError(f"{path}: the vector of word {bad[0] + 1:,} ({words[bad[0]]!r}) holds what is no number")
    return pl.Series("word", words, pl.String), vectors, {}


def _read_fasttext(path: Path) -> Read:
    try:
        from gensim.models.fasttext import load_facebook_vectors
    except ImportError:
        raise DataError(
            f"{path} is a fastText .bin, which gensim reads: pip install 'recsys-embed[text]', or use the .vec file"
        ) from None
    try:
        loaded = load_facebook_vectors(str(path))
        words, vectors = pl.Series("word", loaded.index_to_key, pl.String), np.array(loaded.vectors, np.float32)
    except Exception as error:  # gensim trusts the file: a broken one ends in whatever its bytes lead to
        raise DataError(f"{path} is no whole fastText file: {type(error).__name__}: {str(error)[:100]}") from None
    return words, vectors, {}


def _words_beside(path: Path) -> pl.Series:
    beside = path.with_suffix(".parquet")
    if not beside.is_file():
        raise DataError(f"{path} holds vectors alone; its words are expected in {beside.name} beside it")
    try:
        frame = pl.read_parquet(beside)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{beside} is no readable Parquet file: {str(error).splitlines()[0]}") from None
    column = next((frame[c] for c in ("word", "index") if c in frame.columns), frame.to_series(0))
    if column.dtype != pl.String or column.null_count():
        raise DataError(f"{beside}: its column {column.name!r} must hold a word in every row")
    return column.alias("word")


def _paired(path: Path, vectors: Floats) -> Read:
    words = _words_beside(path)
    if vectors.ndim != 2 or len(vectors) != len(words):
        raise DataError(f"{path} has vectors of the shape {vectors.shape} for {len(words):,} words")
    if not vectors.size:
        raise DataError(f"{path} is empty")
    if not all(np.isfinite(vectors[start : start + 65_536]).all() for start in range(0, len(vectors), 65_536)):
        raise DataError(f"{path} holds what is no number")
    return words, vectors, {}


def _read_npy(path: Path) -> Read:
    """Map a .npy file into memory; its words stand beside it. Arrays of objects (pickles) are refused."""
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is no whole .npy file of numbers: {str(error)[:100]}") from None
    if vectors.dtype != np.float32:
        if vectors.dtype.kind != "f":
            raise DataError(f"{path} holds {vectors.dtype}; numbers of floating point are needed")
        vectors = vectors.astype(np.float32)
    return _paired(path, vectors)


def _read_own(path: Path) -> Read:
    """Map the tensor "vectors" of a .safetensors file into memory."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(os.path.getsize(path), 1 << 20):
                raise ValueError("its header has no sensible length")
            entry = json.loads(file.read(length))["vectors"]
        begin, end = entry["data_offsets"]
        rows, dim = entry["shape"]
        if entry["dtype"] != "F32" or end - begin != 4 * rows * dim or 8 + length + end > os.path.getsize(path):
            raise ValueError("its tensor is not 32-bit floats, or is cut short")
        vectors = np.memmap(path, "<f4", "r", 8 + length + begin, (rows, dim))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f'{path} is no whole safetensors file with a tensor "vectors": {error}') from None
    return _paired(path, vectors)


def write_vectors(path: Path, words: pl.Series, vectors: Floats) -> Path:
    """Write vectors as NAME.safetensors with NAME.parquet of the words beside it, each whole or not at all."""
    from safetensors.numpy import save

    if path.suffix != ".safetensors":
        raise SettingError(f"{path} must end in .safetensors")
    with writing_whole(path.with_suffix(".parquet")) as file:
        words.alias("word").to_frame().write_parquet(file)
    with writing_whole(path) as file:
        file.write(save({"vectors": np.ascontiguousarray(vectors, np.float32)}))
    return path
