"""Find items by id or title, ignoring case, year and the position of a leading article."""

from __future__ import annotations

import difflib
import math
import re

import polars as pl

from recsys_embed.data.ids import Rows
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import SettingError, UnknownId
from recsys_embed.forks import needs_threads

_YEAR = re.compile(r"\s*\((\d{4})\)\s*$")
_ARTICLE = re.compile(r"^(.*), (the|a|an)$")


def canonical(title: str) -> tuple[str, str]:
    """Split a title into (name, year or ""): "Matrix, The (1999)" becomes ("the matrix", "1999")."""
    year = _YEAR.search(title)
    name = " ".join(_YEAR.sub("", title).casefold().split())
    inverted = _ARTICLE.match(name)
    return (f"{inverted[2]} {inverted[1]}" if inverted else name), (year[1] if year else "")


def split_names(text: str) -> list[str]:
    """Return the ids or titles in a text, separated by ";"; "\\;" is a semicolon within a title."""
    names = (name.replace("\\;", ";").strip() for name in re.split(r"(?<!\\);", text))
    return [name for name in names if name]


def split_ratings(text: str) -> dict[str, float]:
    """Return ratings by item id or title from a text like "Toy Story=5;Heat=2". Raises SettingError."""
    ratings = {}
    for entry in split_names(text):
        name, _, value = entry.rpartition("=")
        value = value.strip()
        if not name or not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)", value) or not math.isfinite(float(value)):
            raise SettingError(f"{entry!r} is not a rating: write ITEM=NUMBER")
        ratings[name.strip()] = float(value)
    return ratings


@needs_threads("looking for a title")
def find_item(text: str, vocab: Vocab, titles: pl.Series) -> int:
    """Return the row of the item with this id, or else with this title.

    Raises UnknownId: it lists the candidates if several items have the title, and similar titles if none has.
    """
    if text in vocab:
        return int(vocab.rows([text])[0])
    name, year = canonical(text)
    known = [canonical(t) for t in titles.to_list()]
    matches = [row for row, (n, y) in enumerate(known) if n == name and (not year or y == year)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UnknownId(
            f"{len(matches)} items are called {text!r}: {_listing(matches, vocab, titles)}; give the id, or the year"
        )
    similar = vocab.rows(vocab.alike(text)).tolist()
    similar = similar or [row for row, (n, _) in enumerate(known) if name and name in n][:5]
    if not similar:
        by_name = {n: row for row, (n, _) in enumerate(known)}
        similar = [by_name[n] for n in difflib.get_close_matches(name, by_name, n=3, cutoff=0.6)]
    known_ids = f"; {len(vocab):,} items are known, e.g. {', '.join(map(str, vocab.nearest(text)))}"
    hint = f"; did you mean {_listing(similar, vocab, titles)}?" if similar else known_ids
    raise UnknownId(f"no item has the id or the title {text!r}{hint}")


def _listing(rows: list[int], vocab: Vocab, titles: pl.Series) -> str:
    return ", ".join(f"{vocab.ids([row])[0]} {titles[row]}" for row in rows[:8])


class TitleSearch:
    """Finds items by words of their titles, ignoring case and accents.

    titles: one per item. counts [I]: ratings per item.
    """

    def __init__(self, titles: pl.Series, counts: Rows) -> None:
        folded = _fold(titles).rename("title")
        self._items = pl.DataFrame({"title": folded, "ratings": counts}).with_row_index("row")

    @needs_threads("looking for a title")
    def find(self, query: str, k: int) -> Rows:
        """Return the rows of at most k items whose titles contain every word of a query; an empty query matches all.

        Titles that start with the query come first, then those where it starts a word; within each, the most rated.
        """
        text = " ".join(_fold(pl.Series([query]))[0].split())
        title = pl.col("title")
        matches = self._items
        for word in text.split():
            matches = matches.filter(title.str.contains(word, literal=True))
        starts_title = title.str.starts_with(text)
        starts_word = title.str.contains(" " + text, literal=True) | title.str.contains("(" + text, literal=True)
        best = matches.sort(starts_title, starts_word, "ratings", descending=True, maintain_order=True).head(k)
        return best["row"].cast(pl.Int64).to_numpy()


def _fold(titles: pl.Series) -> pl.Series:
    """Return texts in lower case, without accents."""
    return titles.cast(pl.String).str.normalize("NFKD").str.replace_all(r"\p{Mn}", "").str.to_lowercase()
