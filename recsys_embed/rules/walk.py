"""Walks over conditions: the columns that they name, and the words whose meaning depends on the clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from recsys_embed.rules.dates import clock_span
from recsys_embed.rules.expression import (
    BooleanOp,
    Clock,
    ColumnRef,
    Comparison,
    Condition,
    Not,
    Operand,
    Scalar,
    Value,
    ValueList,
)


def _leaves(node: Condition | Operand) -> Iterator[ColumnRef | Scalar]:
    """Yield the columns and the values in a condition."""
    if isinstance(node, Comparison):
        yield from _leaves(node.left)
        yield from _leaves(node.right)
    elif isinstance(node, BooleanOp):
        for operand in node.operands:
            yield from _leaves(operand)
    elif isinstance(node, Not):
        yield from _leaves(node.operand)
    elif isinstance(node, ValueList):
        yield from node.values
    else:
        yield node.value if isinstance(node, Value) else node


@lru_cache(256)
def named_columns(condition: Condition) -> frozenset[str]:
    """Return the names of the columns in a condition."""
    return frozenset(leaf.name for leaf in _leaves(condition) if isinstance(leaf, ColumnRef))


@lru_cache(256)
def clock_words(condition: Condition) -> frozenset[str]:
    """Return which of `today` and `now` a condition names."""
    return frozenset(leaf.word for leaf in _leaves(condition) if isinstance(leaf, Clock))


def relevant_moment(condition: Condition, moment: float) -> float | None:
    """Return the moment as far as a condition depends on it: with `today` alone, the start of the day; else None."""
    words = clock_words(condition)
    return moment if "now" in words else clock_span("today", moment).start if words else None


def at_moment(condition: Condition, moment: float | None) -> Condition:
    """Return a condition whose `today` and `now` stand for a moment, in seconds since 1970."""
    return condition if moment is None or not clock_words(condition) else _at_moment(condition, moment)


def _at_moment(node: Any, moment: float) -> Any:
    if isinstance(node, Clock):
        return replace(node, moment=moment)
    if isinstance(node, BooleanOp):
        return replace(node, operands=tuple(_at_moment(operand, moment) for operand in node.operands))
    if isinstance(node, Not):
        return replace(node, operand=_at_moment(node.operand, moment))
    if isinstance(node, Comparison):
        return replace(node, left=_at_moment(node.left, moment), right=_at_moment(node.right, moment))
    if isinstance(node, Value):
        return replace(node, value=_at_moment(node.value, moment))
    if isinstance(node, ValueList):
        return replace(node, values=tuple(_at_moment(value, moment) for value in node.values))
    return node
