"""Finding an item by what people call it: its id, or its title without regard to case, year and leading article."""

from __future__ import annotations

import difflib
import re

import polars as pl

from recsys_embed.data.ids import Rows
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import SettingError, UnknownId

_YEAR = re.compile(r"\s*\((\d{4})\)\s*$")
_ARTICLE = re.compile(r"^(.*), (the|a|an)$")


def canonical(title: str) -> tuple[str, str]:
    """Return (name, year or ""): "Matrix, The (1999)" and "the matrix (1999)" are both ("the matrix", "1999")."""
    year = _YEAR.search(title)
    name = " ".join(_YEAR.sub("", title).casefold().split())
    moved = _ARTICLE.match(name)
    return (f"{moved[2]} {moved[1]}" if moved else name), (year[1] if year else "")


def split_names(text: str) -> list[str]:
    """Return the ids or titles that a text parts by ";"; one within a title is written "\\;"."""
    parts = (part.replace("\\;", ";").strip() for part in re.split(r"(?<!\\);", text))
    return [part for part in parts if part]


def split_ratings(text: str) -> dict[str, float]:
    """Return the ratings of items by id or title: "Toy Story=5;Heat=2". Raises SettingError."""
    found = {}
    for part in split_names(text):
        name, _, value = part.rpartition("=")
        if not name or not re.fullmatch(r"\s*-?(\d+\.?\d*|\.\d+)\s*", value):
            raise SettingError(f"{part!r} is no rating: write ITEM=NUMBER")
        found[name.strip()] = float(value)
    return found


def find_item(text: str, vocab: Vocab, titles: pl.Series) -> int:
    """Return the row of the item with this id, else with this title.

    Raises UnknownId: with the candidates where several items bear the title, with similar ones where none does.
    """
    if text in vocab:
        return int(vocab.rows([text])[0])
    name, year = canonical(text)
    known = [canonical(t) for t in titles.to_list()]
    same = [row for row, (n, y) in enumerate(known) if n == name and (not year or y == year)]
    if len(same) == 1:
        return same[0]
    if same:
        raise UnknownId(
            f"{len(same)} items are called {text!r}: {_named(same, vocab, titles)}; give the id, or the year"
        )
    near = [row for row, (n, _) in enumerate(known) if name and name in n][:5]
    if not near:
        by_name = {n: row for row, (n, _) in enumerate(known)}
        near = [by_name[n] for n in difflib.get_close_matches(name, by_name, n=3, cutoff=0.6)]
    known_ids = f"; {len(vocab):,} items are known, e.g. {', '.join(map(str, vocab.nearest(text)))}"
    hint = f"; did you mean {_named(near, vocab, titles)}?" if near else known_ids
    raise UnknownId(f"no item has the id or the title {text!r}{hint}")


def _named(rows: list[int], vocab: Vocab, titles: pl.Series) -> str:
    return ", ".join(f"{vocab.ids([row])[0]} {titles[row]}" for row in rows[:8])


class TitleSearch:
    """Finds items by a part of their title, without regard to case and accents.

    titles: one an item. counts [I]: the items' numbers of ratings.
    """

    def __init__(self, titles: pl.Series, counts: Rows) -> None:
        plain = _plain(titles).rename("title")
        self._known = pl.DataFrame({"title": plain, "ratings": counts}).with_row_index("row")

    def find(self, query: str, k: int) -> Rows:
        """Return the rows of at most k items whose titles hold every word of a text; of nothing, of any.

        Titles that begin with the text come first, then those in which a word does; else the most rated ones.
        """
        text = " ".join(_plain(pl.Series([query]))[0].split())
        title = pl.col("title")
        found = self._known
        for word in text.split():
            found = found.filter(title.str.contains(word, literal=True))
        starts = title.str.starts_with(text)
        within = title.str.contains(" " + text, literal=True) | title.str.contains("(" + text, literal=True)
        best = found.sort(starts, within, "ratings", descending=True, maintain_order=True).head(k)
        return best["row"].cast(pl.Int64).to_numpy()


def _plain(titles: pl.Series) -> pl.Series:
    """Return texts in small letters and without accents."""
    return titles.cast(pl.String).str.normalize("NFKD").str.replace_all(r"\p{Mn}", "").str.to_lowercase()
