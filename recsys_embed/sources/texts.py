"""Read plain text of any size, a text a line, in blocks that fit into memory."""

from __future__ import annotations

import codecs
import io
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from recsys_embed.errors import DataError
from recsys_embed.sources.compressed import unpacked_stream
from recsys_embed.sources.delimited import one_byte_text
from recsys_embed.sources.dialect import utf_16_codec
from recsys_embed.sources.locations import find_files
from recsys_embed.sources.remote import is_remote
from recsys_embed.storage.atomic import wrap_read_errors

log = logging.getLogger("recsys_embed")

# Called with the bytes that were read, all bytes, a note and the unit.
Progress = Callable[[float, float, str, str], None]

_BLOCK = 1 << 22  # bytes that are read at a time; a longer line is cut at a blank
_TEXT = re.compile(r"\.(?:txt|text)(?:\.(?:gz|bz2|xz|zst))?$", re.IGNORECASE)
_TABLE = re.compile(r"\.(?:csv|tsv|json|jsonl|ndjson|parquet|pq|xlsx?|db|sqlite3?)(?:\.\w+)?$", re.IGNORECASE)
_HIDDEN = re.compile(r"(?:^|/)\.")
_NO_TEXT = ((b"%PDF", "a PDF: save its text"), (b"PAR1", "Parquet, a table: name the column of texts by --column"))


def text_files(location: str) -> list[Path]:
    """Return the file of a path, the .txt files of a folder (and below it), or the files of a pattern; sorted.

    Raises DataError if there is none, or if one is a table.
    """
    if is_remote(location):
        raise DataError(f"{location} is an address; plain text is read from files and standard input: download it")
    folder = Path(location)
    if folder.is_dir():
        paths = (path for path in sorted(folder.rglob("*")) if _TEXT.search(path.name) and path.is_file())
        files = [path for path in paths if not _HIDDEN.search(path.relative_to(folder).as_posix())]
        if not files:
            raise DataError(f"the folder {folder} holds no .txt file; a pattern names others: '{folder}/**/*.md'")
        return files
    files = find_files(location)
    if table := next((file for file in files if _TABLE.search(file.name)), None):
        raise DataError(f"{table} is a table: name the column of texts by --column (title, plot, …)")
    return files


def read_texts(location: str | Path, progress: Progress | None = None) -> Iterator[list[str]]:
    """Yield the lines of plain text in blocks of some megabytes: a file, a folder, a pattern, or "-".

    The text is UTF-8 or UTF-16, and may be packed by gzip, bzip2, xz or Zstandard; lines that are not UTF-8 are read as
    Windows-1252. Blank lines are left out, and lines of more than 4 MB are cut at a blank, or where there is none
    between two characters. Raises DataError.
    """
    location = str(location)
    if location == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise DataError("- is standard input, and nothing is piped into it: cat FILE | recsys words train --text -")
        stream: Any = sys.stdin.buffer
        stream = stream if hasattr(stream, "peek") else io.BufferedReader(stream)
        yield from _lines(stream, "standard input", None)
        return
    files = text_files(location)
    with wrap_read_errors(files[0]):
        sizes = [path.stat().st_size for path in files]
    before = 0
    for path, size in zip(files, sizes, strict=True):
        with ExitStack() as stack:
            stack.enter_context(wrap_read_errors(path))
            file = stack.enter_context(path.open("rb"))
            report = _report(file, before, sum(sizes), progress) if progress else None
            yield from _lines(file, str(path), report)
        before += size


def _report(file: IO[bytes], before: int, total: int, progress: Progress) -> Callable[[], None]:
    return lambda: progress((before + file.tell()) / 1e6, total / 1e6, "reading", "MB")


def _lines(packed: IO[bytes], name: str, report: Callable[[], None] | None) -> Iterator[list[str]]:
    """Yield the lines of a stream, block by block."""
    odd = 0
    with unpacked_stream(packed, name) as stream:
        for block in _blocks(_to_utf8(stream, name)):
            try:
                lines = block.decode().split("\n")
            except UnicodeDecodeError:
                lines, not_utf8 = _decode_lines(block)
                odd += not_utf8
            lines = [stripped for line in lines if (stripped := line.strip())]
            if lines:
                yield lines
            if report:
                report()
    if odd:
        log.info("%s: %s lines are not UTF-8; they were read as Windows-1252 (Latin-1)", name, f"{odd:,}")


def _to_utf8(stream: Any, name: str) -> Iterator[bytes]:
    """Yield the chunks of a stream as UTF-8, as far as it is text of a known encoding. Raises DataError for what is no
    text."""
    chunk = stream.read(_BLOCK)
    head = bytes(chunk[:4096])
    codec = utf_16_codec(head)
    if codec is None and (problem := next((text for magic, text in _NO_TEXT if head.startswith(magic)), None)):
        raise DataError(f"{name} is {problem}")
    if codec is None and b"\x00" in head:
        raise DataError(f"{name} is not text; plain text is needed, a text a line, or a table and --column")
    decoder = codecs.getincrementaldecoder(codec)() if codec else None
    chunk = chunk.removeprefix(codecs.BOM_UTF8)
    while chunk:
        following = stream.read(_BLOCK)
        try:
            yield decoder.decode(chunk, final=not following).encode() if decoder else chunk
        except UnicodeError:
            raise DataError(f"{name} is UTF-16 text that was cut or is broken: save it as UTF-8") from None
        chunk = following


def _blocks(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield whole lines, many at a time; one that is longer than a chunk is cut at a blank, or between characters."""
    unread = b""
    for chunk in chunks:
        block = unread + chunk.replace(b"\r", b"\n")
        cut = block.rfind(b"\n") + 1
        if not cut and len(block) > _BLOCK:
            cut = max(block.rfind(b" "), block.rfind(b"\t")) + 1 or _end_of_characters(block)
        unread = block[cut:]
        if cut:
            yield block[:cut]
    if unread:
        yield unread


def _end_of_characters(block: bytes) -> int:
    """Return where the last whole character of UTF-8 ends: some scripts have no blanks."""
    for back in range(1, min(4, len(block)) + 1):
        byte = block[-back]
        if byte & 0xC0 != 0x80:  # not within a character
            size = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(block) - back if size > back else len(block)
    return len(block)


def _decode_lines(block: bytes) -> tuple[list[str], int]:
    """Decode lines of which some are not UTF-8; return them and the number of these."""
    lines, odd = [], 0
    for line in block.split(b"\n"):
        try:
            lines.append(line.decode())
        except UnicodeDecodeError:
            lines.append(one_byte_text(line))
            odd += 1
    return lines, odd
