"""The language of rules: text -> a tree of conditions. It is read by this parser alone, and nothing in it is executed.

condition   = all ("or" all)*                       all = negated ("and" negated)*
negated     = "not"* compared                       compared = operand (operator operand)*
operator    = "==" "!=" "<" "<=" ">" ">=" "in" "not in" "is" "is not"
operand     = column | value | "[" values "]" | "(" values ")" | "(" condition ")"
column      = name | "`" any name "`"               value = number | -number | text in quotes | True | False | None
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from recsys_embed.errors import SettingError

# Bounds of what somebody may ask for: no expression costs more than a few passes over the items.
LONGEST, _DEEPEST, _MOST = 2_000, 40, 64

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![\w.])
    | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | `(?P<quoted>[^`]+)`
    | (?P<name>[^\W\d]\w*)
    | (?P<sign>==|!=|<=|>=|[-<>()\[\],:;])
    | (?P<end>\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = ("and", "or", "not", "in", "is", "True", "False", "None")
_OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "in", "not in", "is", "is not")
_HINTS = {
    "=": "write == to compare",
    "&": "write 'and'",
    "|": "write 'or'",
    "!": "write 'not', or !=",
    "'": "this quote is never closed",
    '"': "this quote is never closed",
    "`": "this quote is never closed",
}

Scalar = bool | int | float | str | None


@dataclass(frozen=True)
class Column:
    """A column of the item table, by its name. at: the character where it stands, from 0."""

    name: str
    at: int


@dataclass(frozen=True)
class Value:
    """A value that was written down."""

    value: Scalar
    at: int


@dataclass(frozen=True)
class Values:
    """Several values."""

    values: tuple[Scalar, ...]
    at: int


@dataclass(frozen=True)
class Compared:
    """left operator right; one of both is a column, and `in` has it on the right or values there."""

    left: Operand
    operator: str
    right: Operand
    at: int


@dataclass(frozen=True)
class Joined:
    """All of the conditions, or any."""

    every: bool
    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Negated:
    """Exactly where a condition does not hold."""

    part: Condition


Operand = Column | Value | Values
Condition = Compared | Joined | Negated | Column | Value


@dataclass(frozen=True)
class Expression:
    """What was given, and of which setting."""

    setting: str
    text: str

    def wrong(self, at: int, message: str) -> SettingError:
        """Return the error that says what is wrong, and where."""
        start, end = max(0, at - 20), at + 30
        near = "…" * (start > 0) + self.text[start:end] + "…" * (end < len(self.text))
        return SettingError(f"{self.setting}: {message}, at character {at + 1} of {near!r}")


@dataclass(frozen=True)
class Token:
    """kind: number, text, column, word (of the language), sign or end."""

    kind: str
    text: str
    at: int


class Reader:
    """Reads a text from left to right. Raises SettingError for whatever is not of the language."""

    def __init__(self, setting: str, text: str) -> None:
        if len(text) > LONGEST:
            raise SettingError(f"{setting} has {len(text):,} characters; {LONGEST:,} are the most")
        self.source = Expression(setting, text)
        if (half := re.search("[\ud800-\udfff]", text)) is not None:
            raise self.source.wrong(half.start(), "half a character, a surrogate, is no text")
        self.tokens = _tokens(self.source)
        self.place = self.depth = self.comparisons = 0

    @property
    def next(self) -> Token:
        """The token that comes next."""
        return self.tokens[self.place]

    @property
    def ended(self) -> bool:
        """Whether all was read."""
        return self.next.kind == "end"

    def take(self, *texts: str) -> str | None:
        """Read on over a sign or a word of the language where it comes next; return which, or None."""
        token = self.next
        if token.kind not in ("sign", "word") or token.text not in texts:
            return None
        self.place += 1
        return token.text

    def need(self, *texts: str) -> None:
        """Read on over a sign that must come next."""
        if self.take(*texts) is None:
            raise self.unexpected(" or ".join(repr(text) for text in texts))

    def column(self) -> Column:
        """Read the name of a column."""
        token = self.next
        if token.kind != "column":
            raise self.unexpected("the name of a column")
        self.place += 1
        return Column(token.text, token.at)

    def number(self) -> tuple[float, int]:
        """Read a number; return it, and the character where it stands."""
        at = self.next.at
        value = self._value()
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.source.wrong(at, "a number is needed")
        return value, at

    def condition(self) -> Condition:
        """Read a condition, up to what is no part of it."""
        return self._truth(self._any())

    def _any(self) -> Condition | Values:
        first = self._all()
        if self.next.text != "or" or self.next.kind != "word":
            return first
        parts = [self._truth(first)]
        while self.take("or"):
            parts.append(self._truth(self._all()))
        return Joined(False, tuple(parts))

    def _all(self) -> Condition | Values:
        first = self._negated()
        if self.next.text != "and" or self.next.kind != "word":
            return first
        parts = [self._truth(first)]
        while self.take("and"):
            parts.append(self._truth(self._negated()))
        return Joined(True, tuple(parts))

    def _negated(self) -> Condition | Values:
        count = 0
        while self.take("not"):
            count += 1
        part = self._compared()
        if not count:
            return part
        part = self._truth(part)
        return Negated(part) if count % 2 else part

    def _compared(self) -> Condition | Values:
        """Read a comparison or a chain of them, or an operand alone."""
        left, parts, at = self._operand(), [], self.next.at
        while operator := self._operator():
            right = self._operand()
            parts.append(self._checked(left, operator, right, at))
            left, at = right, self.next.at
        if not parts:
            return left
        return parts[0] if len(parts) == 1 else Joined(True, tuple(parts))

    def _operator(self) -> str | None:
        operator = self.take(*_OPERATORS)
        if operator == "is" and self.take("not"):
            return "is not"
        if operator is None and self.take("not"):
            self.need("in")
            return "not in"
        return operator

    def _checked(self, left: Condition | Values, operator: str, right: Condition | Values, at: int) -> Compared:
        """Return the comparison if it is one that can be made of any table."""
        self.comparisons += 1
        sides = [side for side in (left, right) if isinstance(side, Column | Value | Values)]
        nothing = any(isinstance(side, Value) and side.value is None for side in sides)
        if self.comparisons > _MOST:
            message = f"this is comparison {_MOST + 1}; {_MOST} are the most"
        elif len(sides) < 2:
            message = "a comparison stands between a column and a value, not beside another condition"
        elif not any(isinstance(side, Column) for side in sides):
            message = "this compares no column"
        elif operator.startswith("is") and not (isinstance(left, Column) and isinstance(right, Value) and nothing):
            message = "'is' goes with None, after a column; == compares"
        elif nothing and not operator.startswith("is"):
            message = "write 'is None' or 'is not None'"
        elif operator in ("in", "not in") and not (isinstance(right, Values) or isinstance(left, Value)):
            message = "'in' stands after a value and before a column, or after a column and before [values]"
        elif operator in ("in", "not in") and isinstance(right, Value):
            message = "'in' needs a column or [values] after it"
        elif operator not in ("in", "not in") and any(isinstance(side, Values) for side in sides):
            message = "[values] go with 'in'"
        else:
            return Compared(sides[0], operator, sides[1], at)
        raise self.source.wrong(at, message)

    def _truth(self, part: Condition | Values) -> Condition:
        if isinstance(part, Values) or (isinstance(part, Value) and not isinstance(part.value, bool)):
            raise self.source.wrong(part.at, "a value alone is no condition")
        return part

    def _operand(self) -> Condition | Values:
        token = self.next
        if token.kind == "column":
            return self.column()
        if self.take("["):
            return self._values([], "]", token.at)
        if not self.take("("):
            return Value(self._value(), token.at)
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.source.wrong(token.at, f"parentheses stand {_DEEPEST} deep at most")
        inner = self._any()
        self.depth -= 1
        if isinstance(inner, Value) and self.take(","):
            return self._values([inner.value], ")", token.at)
        self.need(")")
        return inner

    def _values(self, values: list[Scalar], end: str, at: int) -> Values:
        """Read the rest of several values, up to the sign that ends them."""
        while not self.take(end):
            values.append(self._value())
            if not self.take(","):
                self.need(end)
                break
        if None in values:
            raise self.source.wrong(at, "None is no value to look for; write 'is None'")
        return Values(tuple(values), at)

    def _value(self) -> Scalar:
        minus, token = self.take("-"), self.next
        if token.kind == "number":
            self.place += 1
            number = _number(token.text)
            return -number if minus else number
        if token.kind == "text" and not minus:
            self.place += 1
            return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
        word = None if minus else self.take("True", "False", "None")
        if word is None:
            raise self.unexpected("a number" if minus else "a column or a value")
        return {"True": True, "False": False, "None": None}[word]

    def unexpected(self, wanted: str) -> SettingError:
        """Return the error that says what is needed where something else comes next."""
        token = self.next
        if token.kind == "end":
            return self.source.wrong(token.at, f"it ends where {wanted} is needed")
        if token.kind == "column" and token.text.lower() in _WORDS:
            return self.source.wrong(token.at, f"write {token.text.lower()!r}, in small letters")
        return self.source.wrong(token.at, f"{wanted} is needed, not {token.text[:40]!r}")


def _number(text: str) -> float:
    """Return a whole number as one where it fits 64 bits, and else as a float, which may be infinite."""
    if text.isdecimal() and len(text) < 20 and int(text) < 2**63:
        return int(text)
    return float(text)


def _tokens(source: Expression) -> list[Token]:
    tokens, at = [], 0
    while True:
        found = _TOKEN.match(source.text, at)
        if found is None or found.lastgroup is None:
            at += len(source.text[at:]) - len(source.text[at:].lstrip())
            sign = source.text[at]
            usual = f"{sign!r} begins no number" if sign.isdecimal() else f"{sign!r} is no part of a condition"
            raise source.wrong(at, _HINTS.get(sign, usual))
        kind, start = found.lastgroup, found.start(found.lastgroup)
        text = found[kind]
        if kind == "name":
            kind = "word" if text in _WORDS else "column"
        tokens.append(Token("column" if kind == "quoted" else kind, text, start))
        if kind == "end":
            return tokens
        at = found.end()


@lru_cache(256)
def parse_where(text: str) -> tuple[Condition, Expression]:
    """Read one condition: "year >= 1990 and 'Comedy' in genres"."""
    reader = Reader("where", text)
    condition = reader.condition()
    if not reader.ended:
        raise reader.unexpected("'and' or 'or'")
    return condition, reader.source


@lru_cache(256)
def parse_boost(text: str) -> tuple[tuple[tuple[Condition, float], ...], Expression]:
    """Read conditions with what each adds to a score: "'Comedy' in genres: 0.7; year < 1980: -1"."""
    reader, parts = Reader("boost", text), []
    while not reader.ended:
        condition = reader.condition()
        reader.need(":")
        amount, at = reader.number()
        # A score is a 32-bit number: beside a large amount the scores themselves would be lost.
        if not abs(amount) <= 1000:
            raise reader.source.wrong(at, "an amount lies between -1000 and 1000")
        parts.append((condition, float(amount)))
        if not reader.ended:
            reader.need(";")
    if not parts:
        raise SettingError("boost is empty: write EXPRESSION: AMOUNT")
    return tuple(parts), reader.source


@lru_cache(256)
def parse_per_group(text: str) -> tuple[tuple[tuple[Column, int], ...], Expression]:
    """Read columns with how many items of a group there may be: "genres: 2; year: 3"."""
    reader, parts = Reader("per-group", text), []
    while not reader.ended:
        column = reader.column()
        reader.need(":")
        most, at = reader.number()
        if not isinstance(most, int) or most < 1:
            raise reader.source.wrong(at, "a whole number, at least 1, is needed")
        parts.append((column, most))
        if not reader.ended:
            reader.need(";")
    if not parts:
        raise SettingError("per-group is empty: write COLUMN: NUMBER")
    return tuple(parts), reader.source
