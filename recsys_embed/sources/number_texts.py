"""Numbers as texts write them, with a decimal comma or with points or commas between thousands, as plain ones."""

from __future__ import annotations

import polars as pl

from recsys_embed.data.column_guess import is_amount, usual_columns

# Numbers with a decimal point and commas between thousands, 1,271.91, and the other way round, 1.271,91. No thousand
# begins with 0, so that 0.125 is a fraction.
_POINT = r"^\s*[+-]?(?:\d*|[1-9]\d{0,2}(?:,\d{3})+)(?:\.\d+)?\s*$"
_COMMA = r"^\s*[+-]?(?:\d*|[1-9]\d{0,2}(?:\.\d{3})+)(?:,\d+)?\s*$"
_LIKE_NUMBERS = r"^\s*[+-]?[\d.,]*\s*$"
_HEAD = 1000  # values that tell whether a column is worth a closer look


def with_plain_numbers(frame: pl.DataFrame, separator: str, has_commas: bool) -> tuple[pl.DataFrame, list[str]]:
    """Return a table of text in which numbers are written with a decimal point alone, and what to say of it.

    A column is rewritten if all of its values are numbers of one form, and one at least can be of no other. Where 1.271
    may be a thousand and more or a fraction, nothing is guessed silently: a note says how it is read. separator: of the
    text. has_commas: a field may have one.
    """
    notes = []
    for name in frame.columns:
        plain, note = _plain(frame[name], has_commas, separator == ",")
        if plain is not None:
            frame = frame.with_columns(plain)
        if note and not any(usual_columns([name], role) for role in ("user", "item")):  # 12.345 may be an article
            notes.append(note)
    return frame, notes


def _plain(values: pl.Series, may_have_commas: bool, is_comma_separated: bool) -> tuple[pl.Series | None, str | None]:
    """Return a column with plain numbers, or None if it stays as it is, and a note if nothing tells what they are."""
    head = values.drop_nulls().head(_HEAD)
    has_commas = may_have_commas and bool(values.str.contains(",", literal=True).any())
    pointed = head.filter(head.str.contains(".", literal=True))
    if not has_commas and (not len(pointed) or not pointed.str.contains(_COMMA).all()):
        return None, None
    if not head.str.contains(_LIKE_NUMBERS).all():
        return None, None
    has_points = bool(values.str.contains(".", literal=True).any())
    is_point, is_comma = (bool(values.drop_nulls().str.contains(form).all()) for form in (_POINT, _COMMA))
    if is_point and is_comma:
        return _undecided(values, has_commas and not has_points and not is_comma_separated)
    # Of one kind of separators alone, 402,873,910 may be a list, and 402.873.910 an article.
    is_clear = (has_commas and has_points) or is_amount(values.name)
    if is_point and has_commas and is_clear:
        return values.str.replace_all(",", "", literal=True), None
    if is_comma and (is_clear or not has_points):
        return values.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True), None
    return None, None


def _undecided(values: pl.Series, are_fractions: bool) -> tuple[pl.Series | None, str]:
    """Return what `_plain` does for a column of numbers such as 1.271 alone. are_fractions: its commas are decimal."""
    example = values.filter(values.str.contains("[.,]"))[0].strip()
    thousand, fraction = example.replace(",", "").replace(".", ""), example.replace(",", ".")
    read = "left as text" if "," in example and not are_fractions else f"read as {fraction}"
    question = f"has numbers such as {example} in column {values.name!r}, which may be {thousand} or {fraction}"
    plain = values.str.replace(",", ".", literal=True) if are_fractions else None
    return plain, f"{question}: {read} ({thousand} leaves no doubt)"
