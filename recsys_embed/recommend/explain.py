"""Why an item stands in somebody's list: the parts of its score, and what of theirs speaks for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.content import text
from recsys_embed.model.plain import Link
from recsys_embed.ratings.vocab import Id, Rows
from recsys_embed.recommend.fold_in import Told
from recsys_embed.recommend.lists import scores_of

if TYPE_CHECKING:
    from recsys_embed.recommend.person import Person
    from recsys_embed.recommend.recommender import Recommender

# How far what somebody's items add may be from their vector, as a share of its length: what float32 loses in a sum.
_EXACT = 1e-3


@dataclass(frozen=True)
class Explanation:
    """Why an item for somebody.

    user: an id, or None of somebody the model does not know. score: as a list has it; it is the sum of `parts`:
        offset, user_bias and item_bias, then collaborative and, of a model with descriptions, text; or mlp, which has
        no parts; or popularity alone, for nobody in particular. value: what `predict` says, in `unit`.
    own: {"item", "title", "kind", "value"}, the items of theirs that speak most for it. Of the kind "contribution", a
        value is what the item adds to the score; with `rest` ("items" and "value" of those not listed, "vector" of a
        vector of the user's own) they are collaborative and text together. Of the kind "nearest", it is the cosine.
    shared: {"column", "token", "items"}, what is said of the item and of so many of theirs.
    seen: whether the item is theirs already.
    """

    user: Id | None
    item: Id
    title: str
    score: float
    unit: Link
    value: float
    parts: dict[str, float]
    own: list[dict[str, Any]]
    rest: dict[str, float] | None
    shared: list[dict[str, Any]]
    seen: bool

    def summary(self) -> dict[str, Any]:
        """Return it as `recsys explain --json` and the service have it, without the model's name."""
        return asdict(self)


def explain_for(recommender: Recommender, person: Person, row: int, n: int = 5) -> Explanation:
    """Say why the item of a row is for somebody. n: items of theirs that are named, and twice as many tokens."""
    plain = recommender.plain
    score, parts = _parts(recommender, person, row)
    own, rest = _own(recommender, person, row, n)
    others = person.own[person.own != row]
    return Explanation(
        user=recommender.users.ids(np.array([person.user]))[0] if person.user >= 0 else None,
        item=recommender.item_ids[row],
        title=recommender.titles[row],
        score=score,
        unit="score" if person.vector is None else plain.link,
        value=score if person.vector is None else float(plain.meant(np.array([score], np.float32))[0]),
        parts=parts,
        own=own,
        rest=rest,
        shared=recommender.tokens.shared(row, others, 2 * n),
        seen=len(others) < len(person.own),
    )


def _parts(recommender: Recommender, person: Person, row: int) -> tuple[float, dict[str, float]]:
    """Return a score, as lists have it, and the parts that add up to it."""
    plain = recommender.plain
    score = float(scores_of(recommender, person, np.array([row]))[0])
    if person.vector is None:
        return score, {"popularity": score}
    parts = {"offset": plain.offset, "user_bias": person.bias, "item_bias": float(plain.item_bias[row])}
    match = score - sum(parts.values())
    if plain.layers:
        return score, parts | {"mlp": match}
    if recommender.described is None:
        return score, parts | {"collaborative": match}
    said = recommender.described.said
    if not recommender.counts[row]:  # nothing else is known of it
        return score, parts | {"collaborative": 0.0, "text": match}
    if said is None:
        return score, parts | {"collaborative": match}
    spoken = float(person.vector.astype(np.float64) @ said[row])
    return score, parts | {"collaborative": match - spoken, "text": spoken}


def _own(
    recommender: Recommender, person: Person, row: int, n: int
) -> tuple[list[dict[str, Any]], dict[str, float] | None]:
    """Return the n items of somebody's that speak most for an item; and what the others add, where they add up."""
    plain, ids, titles = recommender.plain, recommender.item_ids, recommender.titles
    added = None if person.vector is None or plain.layers else contributions(recommender, person, row)
    if added is None:
        others = person.own[person.own != row]
        cosines, places = nearest_own(plain.items, others, np.array([row]), n)
        rows, values, kind = others[places[0]], cosines[0], "nearest"
        rest = None
    else:
        order = np.argsort(-added.values, kind="stable")
        left = added.values[order[n:]]
        rest = {"items": len(left), "value": float(left.sum())}
        rest |= {} if added.besides is None else {"vector": added.besides}
        rows, values, kind = added.rows[order[:n]], added.values[order[:n]], "contribution"
    named = [
        {"item": ids[at], "title": titles[at], "kind": kind, "value": value}
        for at, value in zip(rows.tolist(), values.tolist(), strict=True)
    ]
    return named, rest


class Contributions(NamedTuple):
    """What each of somebody's items adds to a score: item rows [n] and values [n].

    besides: what is added by none of them: a vector of the user's own, or the mean user that a new one begins from.
    """

    rows: Rows
    values: NDArray[np.float64]
    besides: float | None = None


def contributions(recommender: Recommender, person: Person, row: int) -> Contributions | None:
    """Return what each of somebody's items adds to their score with the item of a row, or None where it is no sum.

    It is one where users are made of what they rated, and of whoever was folded in. A vector that training gave to a
    user is none, nor is the cosine's sum of a history and such a vector, of which only the direction is kept.
    """
    assert person.vector is not None
    plain, fold, vector = recommender.plain, recommender.fold, person.vector.astype(np.float64)
    item = plain.items[row].astype(np.float64)
    told, of_both = person.told, False
    if plain.history is not None and person.user >= 0:
        old = recommender.history_of(person.user)
        told = Told.liked(old) if told is None else told.after(old)
        of_both = not plain.unit and recommender.facts["settings"].get("user_tower") == "both"
    elif told is None or person.user >= 0:
        told = Told.liked(person.own)
    made = fold.new(told)[0].astype(np.float64)
    alone = _same(made, vector)
    added = fold.added(told, made, item) if alone or of_both else None
    if added is None:
        return None
    return Contributions(told.rows, added.values, added.besides if alone else float((vector - made) @ item))


def _same(one: NDArray[np.floating], other: NDArray[np.floating]) -> bool:
    return bool(np.abs(one - other).max(initial=0) <= _EXACT * np.abs(other).max(initial=0))


def nearest_own(items: Floats, own: Rows, rows: Rows, n: int) -> tuple[Floats, Rows]:
    """Return, for each of some rows of items [I, d], the nearest of `own` rows: cosines and places in own, [b, n'].

    n' is min(n, own); of equal ones the first of own comes first. A vector of zeros is as far as one at right angles.
    """
    theirs, these = items[own], items[rows]
    table = these @ theirs.T
    table /= _lengths(theirs)
    table /= _lengths(these)[:, None]
    n, line = min(n, len(own)), np.arange(len(rows))
    cosines, places = np.empty((len(rows), n), np.float32), np.empty((len(rows), n), np.int64)
    for at in range(n):
        best = places[:, at] = table.argmax(axis=1)
        cosines[:, at] = table[line, best]
        table[line, best] = -np.inf
    return cosines, places


def _lengths(vectors: Floats) -> Floats:
    """Return the lengths of vectors [n, d], [n]; 1 for one of zeros."""
    square = np.einsum("nd,nd->n", vectors, vectors)
    square[square == 0] = 1
    return np.sqrt(square)


@dataclass(frozen=True)
class Tokens:
    """Tags and words of the items: those of row i are token[start[i]:start[i + 1]].

    names: (column, kind, token) of each; share [T]: the share of the items that have it.
    """

    names: list[tuple[str, str, str]]
    start: Rows
    token: Rows
    share: NDArray[np.float64]

    @classmethod
    def of(cls, recommender: Recommender) -> Tokens:
        """Take the columns of tags of the item table, and what the model was trained on of words."""
        described = recommender.described
        kinds = {} if described is None else {c.name: c.kind for c in described.describer.columns}
        table, n = recommender.table, len(recommender.items)
        parts = [pl.DataFrame(schema={"row": pl.UInt32, "column": pl.String, "kind": pl.String, "token": pl.String})]
        for column in table.iter_columns():
            kind = kinds.get(column.name) or (text.kind_of(column) if _is_text(column) else "number")
            if kind == "number" or (kind == "words" and column.name not in kinds):
                continue
            lists = (text.tags if kind == "tags" else text.words)(column).list.unique(maintain_order=True)
            frame = lists.alias("token").to_frame().with_row_index("row").explode("token").drop_nulls()
            parts.append(frame.select("row", pl.lit(column.name).alias("column"), pl.lit(kind).alias("kind"), "token"))
        found = pl.concat(parts)
        key = ["column", "kind", "token"]
        names = found.select(key).unique(maintain_order=True).with_row_index("at")
        found = found.join(names, on=key, maintain_order="left").sort("row", maintain_order=True)
        token = found["at"].to_numpy().astype(np.int64)
        start = np.concatenate(([0], np.bincount(found["row"].to_numpy(), minlength=n).cumsum()))
        share = np.bincount(token, minlength=names.height) / max(1, n)
        return cls(names.select(key).rows(), start, token, share)

    def shared(self, row: int, own: Rows, n: int) -> list[dict[str, Any]]:
        """Return at most n tokens that an item has in common with `own` items: column, token, how many of them.

        First comes what those have more often than other items: p log(p / q) of the shares p of theirs and q of all
        items, the token's part of the Kullback-Leibler divergence. A word that they do not have more often says
        nothing, and is left out.
        """
        mine = self.token[self.start[row] : self.start[row + 1]]
        if not len(own) or not len(mine):
            return []
        theirs = np.concatenate([self.token[self.start[at] : self.start[at + 1]] for at in own])
        count = (theirs[:, None] == mine).sum(axis=0)
        mine, count = mine[count > 0], count[count > 0]
        p = count / len(own)
        told = p * np.log(p / self.share[mine])
        order = np.argsort(-told, kind="stable")
        found = []
        for at in order:
            column, kind, token = self.names[mine[at]]
            if kind == "tags" or told[at] > 0:
                found.append({"column": column, "token": token, "items": int(count[at])})
        return found[:n]


def _is_text(column: pl.Series) -> bool:
    return column.dtype in (pl.String, pl.List(pl.String)) and column.name not in ("item_id", "title")
