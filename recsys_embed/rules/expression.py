"""The rule language: parses text into a tree of conditions. Nothing in it is ever executed.

condition   = conjunction ("or" conjunction)*       conjunction = negation ("and" negation)*
negation    = "not"* comparison                     comparison  = operand (operator operand)*
operator    = "==" "!=" "<" "<=" ">" ">=" "in" "not in" "is" "is not"
operand     = column | value | "[" values "]" | "(" values ")" | "(" condition ")"
column      = name | "`" any name "`"
value       = number | -number | quoted text | True | False | None | today | now

Why not an existing language: SQL has no `'Comedy' in genres` for lists and gives NULL a third truth value, and Python's
own parser may crash the interpreter on hostile text (see the `ast` docs). This one is bounded and locates every error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from recsys_embed.errors import SettingError
from recsys_embed.rules.hints import hint

# Bounds of a request: no expression costs more than a few passes over the items.
MAX_LENGTH, _MAX_DEPTH, _MAX_COMPARISONS = 2_000, 40, 64

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
_KEYWORDS = ("and", "or", "not", "in", "is", "True", "False", "None")
_CLOCK = ("today", "now")
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


@dataclass(frozen=True)
class Clock:
    """The word `today` or `now`. moment: in seconds since 1970; None until `walk.at_moment` sets it."""

    word: str
    moment: float | None = None


Scalar = bool | int | float | str | Clock | None


@dataclass(frozen=True)
class ColumnRef:
    """A column of the item table, by name. position: the index of its first character in the text."""

    name: str
    position: int


@dataclass(frozen=True)
class Value:
    """A literal value."""

    value: Scalar
    position: int


@dataclass(frozen=True)
class ValueList:
    """A list of literal values."""

    values: tuple[Scalar, ...]
    position: int


@dataclass(frozen=True)
class Comparison:
    """left operator right. At least one side is a column; the right side of `in` is a column or a list of values."""

    left: Operand
    operator: str
    right: Operand
    position: int


@dataclass(frozen=True)
class BooleanOp:
    """Conditions joined by "and" (conjunction) or by "or"."""

    conjunction: bool
    operands: tuple[Condition, ...]


@dataclass(frozen=True)
class Not:
    """Holds exactly where its operand does not."""

    operand: Condition


Operand = ColumnRef | Value | ValueList
Condition = Comparison | BooleanOp | Not | ColumnRef | Value


@dataclass(frozen=True)
class SourceText:
    """The text of an expression, and the setting it was given for."""

    setting: str
    text: str

    def error(self, position: int, message: str) -> SettingError:
        """Return the error that says what is wrong, and where in the text."""
        start, end = max(0, position - 20), position + 30
        excerpt = "…" * (start > 0) + self.text[start:end] + "…" * (end < len(self.text))
        return SettingError(f"{self.setting}: {message}, at character {position + 1} of {excerpt!r}")


@dataclass(frozen=True)
class Token:
    """kind: number, text, column, clock, keyword, sign or end."""

    kind: str
    text: str
    position: int


class Parser:
    """Parses a text from left to right. Raises SettingError for anything that is not in the language."""

    def __init__(self, setting: str, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise SettingError(f"{setting} has {len(text):,} characters; {MAX_LENGTH:,} are the most")
        self.source = SourceText(setting, text)
        if (surrogate := re.search("[\ud800-\udfff]", text)) is not None:
            raise self.source.error(surrogate.start(), "a surrogate, half a character, is not text")
        self.tokens = _tokenize(self.source)
        self.index = self.depth = self.comparisons = 0

    @property
    def current(self) -> Token:
        """The next token to read."""
        return self.tokens[self.index]

    @property
    def at_end(self) -> bool:
        """Whether everything has been read."""
        return self.current.kind == "end"

    def accept(self, *texts: str) -> str | None:
        """Read the current token if it is one of these signs or keywords; return it, or None."""
        token = self.current
        if token.kind not in ("sign", "keyword") or token.text not in texts:
            return None
        self.index += 1
        return token.text

    def expect(self, *texts: str) -> None:
        """Read one of these signs or keywords. Raises SettingError if something else comes next."""
        if self.accept(*texts) is None:
            raise self.unexpected(" or ".join(repr(text) for text in texts))

    def column(self) -> ColumnRef:
        """Read a column name."""
        token = self.current
        if token.kind != "column":
            raise self.unexpected("the name of a column")
        self.index += 1
        return ColumnRef(token.text, token.position)

    def number(self) -> tuple[float, int]:
        """Read a number; return it and its position."""
        position = self.current.position
        value = self._value()
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.source.error(position, "a number is needed")
        return value, position

    def condition(self) -> Condition:
        """Read a condition, as far as it goes."""
        return self._require_condition(self._disjunction())

    def _disjunction(self) -> Condition | ValueList:
        first = self._conjunction()
        if self.current.text != "or" or self.current.kind != "keyword":
            return first
        operands = [self._require_condition(first)]
        while self.accept("or"):
            operands.append(self._require_condition(self._conjunction()))
        return BooleanOp(False, tuple(operands))

    def _conjunction(self) -> Condition | ValueList:
        first = self._negation()
        if self.current.text != "and" or self.current.kind != "keyword":
            return first
        operands = [self._require_condition(first)]
        while self.accept("and"):
            operands.append(self._require_condition(self._negation()))
        return BooleanOp(True, tuple(operands))

    def _negation(self) -> Condition | ValueList:
        count = 0
        while self.accept("not"):
            count += 1
        operand = self._comparison()
        if not count:
            return operand
        operand = self._require_condition(operand)
        return Not(operand) if count % 2 else operand

    def _comparison(self) -> Condition | ValueList:
        """Read a comparison or a chain of comparisons, or a lone operand."""
        left, comparisons, position = self._operand(), [], self.current.position
        while operator := self._operator():
            right = self._operand()
            comparisons.append(self._checked(left, operator, right, position))
            left, position = right, self.current.position
        if not comparisons:
            return left
        return comparisons[0] if len(comparisons) == 1 else BooleanOp(True, tuple(comparisons))

    def _operator(self) -> str | None:
        operator = self.accept(*_OPERATORS)
        if operator == "is" and self.accept("not"):
            return "is not"
        if operator is None and self.accept("not"):
            self.expect("in")
            return "not in"
        return operator

    def _checked(
        self, left: Condition | ValueList, operator: str, right: Condition | ValueList, position: int
    ) -> Comparison:
        """Return the comparison if it makes sense whatever the table holds; raise SettingError otherwise."""
        self.comparisons += 1
        sides = [side for side in (left, right) if isinstance(side, ColumnRef | Value | ValueList)]
        has_none = any(isinstance(side, Value) and side.value is None for side in sides)
        if self.comparisons > _MAX_COMPARISONS:
            message = f"this is comparison {_MAX_COMPARISONS + 1}; {_MAX_COMPARISONS} are the most"
        elif len(sides) < 2:
            message = "a comparison stands between a column and a value, not beside another condition"
        elif not any(isinstance(side, ColumnRef) for side in sides):
            message = "this compares no column: names of columns have no quotes, or backticks"
        elif operator.startswith("is") and not (isinstance(left, ColumnRef) and isinstance(right, Value) and has_none):
            message = "'is' goes with None, after a column; == compares"
        elif has_none and not operator.startswith("is"):
            message = "write 'is None' or 'is not None'"
        elif operator in ("in", "not in") and not (isinstance(right, ValueList) or isinstance(left, Value)):
            message = "'in' stands after a value and before a column, or after a column and before [values]"
        elif operator in ("in", "not in") and isinstance(right, Value):
            message = "'in' needs a column or [values] after it"
        elif operator not in ("in", "not in") and any(isinstance(side, ValueList) for side in sides):
            message = "[values] go with 'in'"
        else:
            return Comparison(sides[0], operator, sides[1], position)
        raise self.source.error(position, message)

    def _require_condition(self, node: Condition | ValueList) -> Condition:
        if isinstance(node, ValueList) or (isinstance(node, Value) and not isinstance(node.value, bool)):
            raise self.source.error(node.position, "a value alone is not a condition")
        return node

    def _operand(self) -> Condition | ValueList:
        token = self.current
        if token.kind == "column":
            return self.column()
        if self.accept("["):
            return self._values([], "]", token.position)
        if not self.accept("("):
            return Value(self._value(), token.position)
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.source.error(token.position, f"parentheses may be nested {_MAX_DEPTH} deep at most")
        inner = self._disjunction()
        self.depth -= 1
        if isinstance(inner, Value) and self.accept(","):
            return self._values([inner.value], ")", token.position)
        self.expect(")")
        return inner

    def _values(self, values: list[Scalar], end: str, position: int) -> ValueList:
        """Read the remaining values of a list, and the sign that closes it."""
        while not self.accept(end):
            values.append(self._value())
            if not self.accept(","):
                self.expect(end)
                break
        if None in values:
            raise self.source.error(position, "None cannot be looked for; write 'is None'")
        return ValueList(tuple(values), position)

    def _value(self) -> Scalar:
        minus, token = self.accept("-"), self.current
        if token.kind == "number":
            self.index += 1
            number = _number(token.text)
            return -number if minus else number
        if token.kind == "text" and not minus:
            self.index += 1
            return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
        if token.kind == "clock" and not minus:
            self.index += 1
            return Clock(token.text)
        keyword = None if minus else self.accept("True", "False", "None")
        if keyword is None:
            raise self.unexpected("a number" if minus else "a column or a value")
        return {"True": True, "False": False, "None": None}[keyword]

    def unexpected(self, expected: str) -> SettingError:
        """Return the error for a token that is not what was expected here."""
        token = self.current
        if token.kind == "end":
            return self.source.error(token.position, f"it ends where {expected} is needed")
        if token.kind == "column" and token.text.lower() in _KEYWORDS:
            return self.source.error(token.position, f"write {token.text.lower()!r}, in lower case")
        around = [(token.kind, token.text) for token in self.tokens[max(0, self.index - 1) : self.index + 2]]
        return self.source.error(token.position, f"{expected} is needed, not {token.text[:40]!r}{hint(around)}")


def _number(text: str) -> float:
    """Return a whole number of up to 64 bits as an int, any other number as a float, which may be infinite."""
    if text.isdecimal() and len(text) < 20 and int(text) < 2**63:
        return int(text)
    return float(text)


def _tokenize(source: SourceText) -> list[Token]:
    tokens, position = [], 0
    while True:
        match = _TOKEN.match(source.text, position)
        if match is None or match.lastgroup is None:
            position += len(source.text[position:]) - len(source.text[position:].lstrip())
            sign = source.text[position]
            default = "does not begin a number" if sign.isdecimal() else "is not part of a condition"
            raise source.error(position, _HINTS.get(sign, f"{sign!r} {default}"))
        kind, start = match.lastgroup, match.start(match.lastgroup)
        text = match[kind]
        if kind == "name":
            kind = "keyword" if text in _KEYWORDS else "clock" if text in _CLOCK else "column"
        tokens.append(Token("column" if kind == "quoted" else kind, text, start))
        if kind == "end":
            return tokens
        position = match.end()


@lru_cache(256)
def parse_where(text: str) -> tuple[Condition, SourceText]:
    """Parse a condition, e.g. "year >= 1990 and 'Comedy' in genres"."""
    parser = Parser("where", text)
    condition = parser.condition()
    if not parser.at_end:
        raise parser.unexpected("'and' or 'or'")
    return condition, parser.source


@lru_cache(256)
def parse_boost(text: str) -> tuple[tuple[tuple[Condition, float], ...], SourceText]:
    """Parse conditions and the amount that each adds to a score, e.g. "'Comedy' in genres: 0.7; year < 1980: -1"."""
    parser, terms = Parser("boost", text), []
    while not parser.at_end:
        condition = parser.condition()
        parser.expect(":")
        amount, position = parser.number()
        # A score is a 32-bit float: next to a large amount, the scores themselves would be lost.
        if not abs(amount) <= 1000:
            raise parser.source.error(position, "an amount lies between -1000 and 1000")
        terms.append((condition, float(amount)))
        if not parser.at_end:
            parser.expect(";")
    if not terms:
        raise SettingError("boost is empty: write EXPRESSION: AMOUNT")
    return tuple(terms), parser.source


@lru_cache(256)
def parse_per_group(text: str) -> tuple[tuple[tuple[ColumnRef, int], ...], SourceText]:
    """Parse columns and how many items of a group a list may hold, e.g. "genres: 2; year: 3"."""
    parser, limits = Parser("per-group", text), []
    while not parser.at_end:
        column = parser.column()
        parser.expect(":")
        limit, position = parser.number()
        if not isinstance(limit, int) or limit < 1:
            raise parser.source.error(position, "a whole number, at least 1, is needed")
        limits.append((column, limit))
        if not parser.at_end:
            parser.expect(";")
    if not limits:
        raise SettingError("per-group is empty: write COLUMN: NUMBER")
    return tuple(limits), parser.source
