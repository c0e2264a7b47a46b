"""Lines of a text table that have another number of fields than its first line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from recsys_embed.data.ids import RowLabel, Rows


class OddLine(NamedTuple):
    """Lines first to last of a file, from 1, that are one row of `fields` fields, where the first row has `width`."""

    name: str
    first: int
    last: int
    fields: int
    width: int

    @property
    def is_longer(self) -> bool:
        """Whether it has too many fields, so that nothing says which belongs to which column."""
        return self.fields > self.width


def odd_lines(data: bytes, separator: str, quote: str | None, name: str, skipped: int = 0) -> list[OddLine]:
    """Return the lines of a text that have more or fewer fields than its first one; blank lines are none.

    skipped: lines that were cut off before the text.
    """
    text = data.decode("latin-1")
    if quote is not None and quote in text:
        rows = list(_quoted_rows(text, separator, quote))
    else:
        lines = pl.Series(text.split("\n"), dtype=pl.String)
        counts = lines.str.count_matches(separator, literal=True).to_list()
        blank = (lines.str.strip_chars(" \t\r") == "").to_list()
        rows = [(n, n, count + 1) for n, (count, no) in enumerate(zip(counts, blank, strict=True), 1) if not no]
    width = rows[0][2] if rows else 0
    return [
        OddLine(name, first + skipped, last + skipped, fields, width) for first, last, fields in rows if fields != width
    ]


def _quoted_rows(text: str, separator: str, quote: str) -> Iterator[tuple[int, int, int]]:
    """Yield the first and the last line of each row, and its number of fields."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quotechar=quote)
    before = 0
    try:
        for row in reader:
            if len(row) > 1 or any(field.strip() for field in row):
                yield before + 1, reader.line_num, len(row)
            before = reader.line_num
    except csv.Error:  # a field that never ends
        return


def without_lines(data: bytes, lines: Sequence[OddLine], skipped: int = 0) -> bytes:
    """Return a text without some lines. skipped: lines that were cut off before the text."""
    gone = {number - skipped for line in lines for number in range(line.first, line.last + 1)}
    return b"\n".join(line for number, line in enumerate(data.split(b"\n"), 1) if number not in gone)


def line_numbers(lines: Sequence[OddLine]) -> str:
    """Return the numbers of some lines in words: "3, 9", "1, 2, 3, …"."""
    return ", ".join(str(line.first) for line in lines[:5]) + ", …" * (len(lines) > 5)


def label_of(
    data: bytes, quote: str | None, lines: Sequence[OddLine], header: bool, skipped: int, is_blank: pl.Series
) -> RowLabel:
    """Return how messages number the rows of a text, so that an editor finds them: by the line that each begins on.

    lines: those that are left out, among others. skipped: lines that were cut off before the text. is_blank: which of
    the rows that were read are blank lines, and so none.
    """
    first = 1 + header + skipped
    kept = np.flatnonzero(~is_blank.to_numpy())
    n_lines = data.count(b"\n") + (not data.endswith(b"\n"))
    if not lines and n_lines == len(is_blank) + header and (not len(kept) or kept[-1] == len(kept) - 1):
        return RowLabel("line", first)
    starts = _first_lines(data, quote)
    gone = [line.first - skipped for line in lines if line.is_longer]
    starts = starts[~np.isin(starts, gone)][int(header) :]
    if len(starts) != len(is_blank):  # quotes that the reader takes in another way
        return RowLabel()
    return RowLabel("line", first, lines=starts[kept] + skipped)


def _first_lines(data: bytes, quote: str | None) -> Rows:
    """Return the line, from 1, on which each row of a text begins; a quoted field may have several [n]."""
    characters = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    if not data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    if quote is None:
        return np.arange(1, len(ends) + 1)
    is_end = np.searchsorted(np.flatnonzero(characters == ord(quote)), ends) % 2 == 0
    return np.append(1, np.flatnonzero(is_end)[:-1] + 2)
