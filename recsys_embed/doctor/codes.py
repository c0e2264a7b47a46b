"""What the doctor may find: each code with its severity and its remedy. docs/data-check.md explains them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from recsys_embed.errors import SettingError

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

# A finding shows so many examples.
N_EXAMPLES = 3


class Code(NamedTuple):
    """remedy: what to do. fix: the rest of it, what `--fix` does, where that repairs it."""

    severity: Severity
    remedy: str
    fix: str = ""

    @property
    def is_fixed(self) -> bool:
        """Whether `--fix` repairs it in the ratings, which it writes."""
        return bool(self.fix)


# An error stops a training, or makes what it measures wrong. A warning says that something is likely not as meant. A
# note says what is good to know.
CODES: dict[str, Code] = {
    # Rows
    "D101": Code("warning", "leave one of each", ", as --fix does"),
    "D102": Code("warning", "choose which counts: --duplicates last, first, mean or sum"),
    "D103": Code("note", "--duplicates chooses the row that stays; with sum and --sample-weight rating repeats count"),
    "D104": Code("error", "fill in the ids, or leave the rows out", ", as --fix does"),
    "D105": Code("error", "correct the values, or leave the rows out", ", as --fix does"),
    "D106": Code("error", "write seconds since 1970 or dates, or leave the rows out", ", as --fix does"),
    "D107": Code("error", "weights are numbers above 0: correct them, or leave the rows out", ", as --fix does"),
    "D108": Code("error", "name the events, or leave the rows out", ", as --fix does"),
    "D109": Code("error", "write the ids as integers or text", "; --fix turns 12.0 into 12"),
    "D110": Code("error", "look at the columns and options: recsys data check --help"),
    "D111": Code("note", "they are left out: nobody is their own neighbour"),
    "D112": Code("error", "quote what holds a separator, or leave the lines out", ", as --fix does"),
    "D113": Code("warning", "complete the lines: what they lack is read as missing, in the last columns"),
    # Values
    "D201": Code("warning", "if these are codes or mistakes, leave the rows out or correct them"),
    "D202": Code("warning", "--min-rating 1 leaves out those below 1; --loss mse learns values"),
    "D203": Code("note", "lists need no values; --loss mse would have nothing to learn"),
    "D204": Code("error", "look at --user-col and --item-col, and at what was left out before"),
    "D205": Code("warning", "leave these rows out, or name the column as the rating"),
    # Times
    "D301": Code("warning", "correct the clock, the unit or --time-format: --split time tests on the newest rows"),
    "D302": Code("warning", "write seconds since 1970 or dates: half-lives and windows are in days"),
    "D303": Code("note", "nothing: they are read so"),
    "D304": Code("error", "write all times in one unit", "; --fix writes seconds"),
    "D305": Code("warning", "name another column with --time-col, or use --split random"),
    "D306": Code("note", "name it with --time-col, and lists can be measured on tomorrow by --split time"),
    "D307": Code("warning", "name the order with --time-format '%d/%m/%Y' or '%m/%d/%Y'"),
    "D308": Code("error", "write all times in one form, or leave these rows out", ", as --fix does"),
    # Ids
    "D401": Code("warning", "strip the blanks", ", as --fix does"),
    "D402": Code("warning", "write them in one Unicode form", "; --fix writes NFC"),
    "D403": Code("warning", "if case means nothing in these ids, write them in one"),
    "D404": Code("warning", "if these are numbers, write them with or without leading zeros"),
    "D405": Code("warning", "a missing value made them floats: write them as integers", ", as --fix does"),
    "D406": Code("warning", "leave these rows out: they belong to nobody, or to many"),
    # Users, items and the item table
    "D501": Code("note", "their lists come from one item; --min-support and more data help, not another model"),
    "D502": Code("note", "describe the items (--items, --text), or leave them out of lists (--min-support 2)"),
    "D503": Code("warning", "if these are programs, tests or shared accounts, leave them out"),
    "D504": Code("warning", "look at the ids of the table (--item-col), or complete it: titles and --text lack these"),
    "D505": Code("warning", "keep one row for each item: the first is used"),
    # Events
    "D601": Code("warning", "name it with --event-col, or every view trains as much as a purchase"),
    "D602": Code("note", "the options for events are not needed: all rows count alike"),
    "D603": Code("note", "they are not trained on, unless --event-weights names them"),
    "D604": Code("error", "correct --event-weights, --target or --hide"),
    # Parts of the data
    "D701": Code("error", "leave them out of one of the files", "; --fix writes the training file without them"),
    "D702": Code("warning", "hold out more (--test-share, --window), or read differences with care"),
    "D703": Code("note", "--split time measures lists of tomorrow"),
    "D704": Code("note", "nothing but popularity is known of them; the report measures them apart"),
    "D705": Code("note", "no model of ids can list these; with --items and --text they get vectors"),
    "D706": Code("error", "choose another --split, or other shares or windows"),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What is wrong, or good to know. code, severity: see `CODES`. count: of what the message counts. examples: at most
    three. remedy: what to do."""

    code: str
    severity: Severity
    count: int
    message: str
    examples: tuple[str, ...] = ()
    remedy: str = ""
    is_fixed: bool = False

    def describe(self) -> str:
        """Return the message with its examples, in one line."""
        more = ", …" if self.count > len(self.examples) == N_EXAMPLES else ""
        return self.message + (f", e.g. {'; '.join(self.examples)}{more}" if self.examples else "")


def finding(
    code: str,
    count: int,
    message: str,
    examples: Iterable[object] = (),
    remedy: str | None = None,
    severity: Severity | None = None,
    is_fixed: bool = True,
) -> Finding:
    """Return a finding with the severity and the remedy of its code, unless others are given.

    is_fixed: whether `--fix` repairs it, if it repairs those of its code at all.
    """
    texts = tuple(str(example)[:100] for _, example in zip(range(N_EXAMPLES), examples, strict=False))
    known = CODES[code]
    is_fixed = is_fixed and known.is_fixed
    remedy = remedy or known.remedy + (known.fix if is_fixed else "")
    return Finding(code, severity or known.severity, int(count), message, texts, remedy, is_fixed)


def chosen(findings: Iterable[Finding], only: Sequence[str] = (), ignore: Sequence[str] = ()) -> list[Finding]:
    """Return findings by code or its beginning, the most severe first. Raises SettingError for one that is no code."""
    for prefix in (*only, *ignore):
        if not any(code.startswith(prefix.upper()) for code in CODES):
            raise SettingError(
                f"no finding has the code {prefix!r}; codes are D101 to {max(CODES)}, and D1 is all D1xx"
            )
    kept = [
        f
        for f in findings
        if (not only or f.code.startswith(tuple(p.upper() for p in only)))
        and not f.code.startswith(tuple(p.upper() for p in ignore))
    ]
    return sorted(kept, key=lambda f: (SEVERITIES.index(f.severity), f.code))


def plural(count: int, word: str) -> str:
    """Return a number with a word: "1 row", "2,000 rows"."""
    return f"{count:,} {word}{'s' * (count != 1)}"


def share_of(part: float) -> str:
    """Return a share as text: "3 %", "0.2 %"."""
    percent = 100 * part
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.2g} %"
