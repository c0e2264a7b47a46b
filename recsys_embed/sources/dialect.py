"""Find out how a text file writes a table: encoding, separator, quotes, header."""

from __future__ import annotations

import csv
import re
from typing import NamedTuple

from recsys_embed.data.columns import is_usual_name
from recsys_embed.errors import DataError

# Comment lines before a table: SNAP's and KONECT's edge lists begin with some.
_COMMENTS = re.compile(rb"(?:[#%](?:[ \t].*)?\r?\n)+")
# The line by which Excel is told the separator.
_EXCEL_SEPARATOR = re.compile(rb"\"?sep=(.)\"?\r?\n")

_SEPARATORS = ("::", "\t", ",", ";", "|")
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d+)?|\d*\.\d+)(?:[eE][+-]?\d+)?")
_DATE = re.compile(r"(?:\d{4}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.]\d{4})(?:[T ]\d\d?:\d\d.*)?")
HEAD = 65_536  # bytes that tell the dialect
_MAX_LINES = 500

# The columns that a table without a header is assumed to have.
DEFAULT_COLUMNS = ("user", "item", "rating", "timestamp")


class Dialect(NamedTuple):
    """How a text writes its rows.

    separator: between fields: a character, "::", or " " for any number of blanks and tabs. quote: the character around
    fields, or None. fields: those of the first line. rows: fields of lines after it, as many as tell the dialect.
    lines: the first lines as they are. trailing: the rows, but not the header, end with one separator more.
    """

    separator: str
    quote: str | None
    fields: list[str]
    rows: list[list[str]]
    lines: list[str]
    trailing: bool = False

    @property
    def looks_headless(self) -> bool:
        """Whether the first line holds values, as the lines below do: numbers, dates, or text that comes again."""
        if any(_NUMBER.fullmatch(field) or _DATE.fullmatch(field) for field in self.fields):
            return True
        columns = zip(*(row for row in self.rows if len(row) == len(self.fields)), strict=True)
        return any(field and field in column for field, column in zip(self.fields, columns, strict=False))

    @property
    def default_names(self) -> list[str] | None:
        """The names of the columns of a table without a header, or None if it has too few or too many."""
        width = len(self.fields) - (len(self.fields) > 1 and not self.fields[-1] and self._ends_empty)
        if not 2 <= width <= len(DEFAULT_COLUMNS):
            return None
        names = list(DEFAULT_COLUMNS[:width])
        if width > 2 and all(map(is_time_text, (row[2] for row in [self.fields, *self.rows] if len(row) > 2))):
            names[2:] = ["timestamp", "rating"][: width - 2]
        return names + [""] * (len(self.fields) - width)

    @property
    def _ends_empty(self) -> bool:
        return all(not row[-1] for row in self.rows if row)


def is_time_text(text: str) -> bool:
    """Return whether a text is a date, or a number of seconds (or milliseconds, …) of 1990 or later."""
    return bool(_DATE.fullmatch(text.strip()) or re.fullmatch(r"\d{9,19}(?:\.\d+)?", text.strip()))


def to_utf8(data: bytes, name: str) -> tuple[bytes, str | None]:
    """Return a text in an encoding that contains ASCII, without a mark of order and with usual ends of lines, and what
    to say of it. Raises DataError for what is no text."""
    note = None
    encoding = utf_16_codec(data[:4096])
    if encoding:
        try:
            data, note = data.decode(encoding).encode(), "is UTF-16"
        except UnicodeDecodeError:
            raise DataError(f"{name} is UTF-16 text that was cut or is broken: save it as UTF-8") from None
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\x00" in data[:4096]:
        raise DataError(f"{name} is not text: CSV, TSV, `::`, JSON, Parquet or SQLite, or one of them packed is needed")
    if b"\r" in data[:HEAD] and b"\n" not in data[:HEAD]:  # as Macs once wrote
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data, note


def utf_16_codec(head: bytes) -> str | None:
    """Return the codec of UTF-16 text, with or without a mark of order; None for other text."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) < len(head) / 2 * 0.8 or min(even, odd) or len(head) < 8:
        return None
    return "utf-16-le" if odd else "utf-16-be"


def strip_preamble(data: bytes) -> tuple[bytes, int, str | None]:
    """Cut off comments before a table (# or % and a blank), blank lines and Excel's sep=; return the rest, the number
    of lines cut, and the separator that Excel is told."""
    skipped, separator = 0, None
    while True:
        excel, comments = _EXCEL_SEPARATOR.match(data), _COMMENTS.match(data)
        cut = comments or excel or re.match(rb"[ \t]*\r?\n", data)
        if cut is None:
            return data, skipped, separator
        if excel and not comments:
            separator = excel[1].decode("latin-1")
        data, skipped = data[cut.end() :], skipped + cut[0].count(b"\n")


def dialect_of(data: bytes, separator: str | None = None) -> Dialect | None:
    """Return the dialect of a text, or None if it is empty. separator: if it is known."""
    text = data[:HEAD].decode("utf-8", "replace").replace("\r\n", "\n")
    lines = text.split("\n")
    lines = [line for line in (lines[:-1] if len(data) > HEAD and len(lines) > 1 else lines) if line.strip()]
    lines = lines[:_MAX_LINES]
    if not lines:
        return None
    separator = separator or _separator(lines)
    quote = _quote(lines, separator)
    rows = [_split(line, separator, quote) for line in lines]
    bodies = [line for line in lines[1:] if line.count(quote or "\0") % 2 == 0]
    longer = bool(bodies) and all(len(row) == len(rows[0]) + 1 and not row[-1] for row in rows[1:])
    return Dialect(separator, quote, [f.strip() for f in rows[0]], rows[1:], lines, longer and separator != " ")


def _separator(lines: list[str]) -> str:
    """Return the first separator that all lines have equally often, or else the first that the first line has."""
    bare = [_QUOTED.sub("", line) for line in lines]
    found = [s for s in _SEPARATORS if s in bare[0]]
    counts = {s: {line.count(s) for line in bare[1:] or bare} for s in found}
    constant = [
        s for s in found if len(counts[s]) == 1 and bare[0].count(s) in (*counts[s], *(c - 1 for c in counts[s]))
    ]
    if {",", ";"} <= set(constant) and not any("," in re.sub(r"(?<=\d),(?=\d)", "", line) for line in bare):
        constant.remove(",")  # they are decimal commas
    if not constant and found[:1] == ["\t"] and len({len(line.split()) for line in lines}) == 1:
        return " "  # tabs among blanks
    return (constant or found or [" "])[0]


def _quote(lines: list[str], separator: str) -> str | None:
    """Return the character that quotes fields.

    Files with `::`, tab or `|` seldom quote, and a title may begin with a quotation mark: so all that begin must end.
    """
    if separator in ",;":
        fields = [field.strip() for line in lines for field in line.split(separator)]
        return "'" if all(re.fullmatch(r"'[^']*'", field) for field in fields) else '"'
    opened = [f.strip() for line in lines for f in line.split(separator) if f.strip()[:1] == '"']
    return '"' if opened and all(len(f) > 1 and f[-1] == '"' for f in opened) else None


def _split(line: str, separator: str, quote: str | None) -> list[str]:
    if separator == " ":
        return line.split()
    if len(separator) == 2 or quote is None or quote not in line:
        return [field.strip().strip('"') for field in line.split(separator)]
    try:
        return next(csv.reader([line.strip("\n")], delimiter=separator, quotechar=quote, skipinitialspace=True))
    except (csv.Error, StopIteration):
        return line.split(separator)


def is_header(dialect: Dialect, known: tuple[str, ...]) -> bool:
    """Return whether the first line names columns. known: names that do."""
    return names_columns(dialect, known) or not dialect.looks_headless


def names_columns(dialect: Dialect, known: tuple[str, ...]) -> bool:
    """Return whether the first line has the name of a column, one of the known names or a usual one."""
    return any(is_usual_name(field) or field in known for field in dialect.fields)
