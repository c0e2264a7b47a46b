"""HTML by functions: text is escaped unless it is markup already."""

from __future__ import annotations

import html
from collections.abc import Iterable

_VOID = ("img", "meta", "br", "hr")


class Markup(str):
    """HTML that may stand in a page as it is."""


def element(name: str, *children: str | Iterable[str], **attributes: object) -> Markup:
    """Return an element. children: markup, or text, which is escaped. attributes: `class_` is class, `aria_label` is
    aria-label; those that are None or False are left out."""
    written = [name]
    for key, value in attributes.items():
        if value is not None and value is not False:
            text = "" if value is True else f'="{html.escape(_printable(str(value)))}"'
            written.append(key.rstrip("_").replace("_", "-") + text)
    opening = f"<{' '.join(written)}>"
    return Markup(opening if name in _VOID else f"{opening}{join(*children)}</{name}>")


def join(*children: str | Iterable[str]) -> Markup:
    """Return markup and escaped text, one after the other."""
    flat = (part for child in children for part in ([child] if isinstance(child, str) else child))
    return Markup("".join(part if isinstance(part, Markup) else html.escape(_printable(part)) for part in flat))


def table(caption: str, names: Iterable[str], rows: Iterable[Iterable[str]], numeric: Iterable[int] = ()) -> Markup:
    """Return a table whose first column names the rows. numeric: the columns that are set to the right."""
    right = set(numeric)

    def cell(kind: str, n: int, value: str, **given: object) -> Markup:
        return element(kind, value, class_="number" if n in right else None, **given)

    head = element("tr", (cell("th", n, name, scope="col") for n, name in enumerate(names)))
    body = (
        element("tr", (cell("td", n, v) if n else cell("th", n, v, scope="row") for n, v in enumerate(row)))
        for row in rows
    )
    inner = element("table", element("caption", caption), element("thead", head), element("tbody", body))
    return element("div", inner, class_="wide", tabindex="0", role="group", aria_label=caption)


def _printable(text: str) -> str:
    """Return text without lone surrogates, which UTF-8 cannot encode, and without control characters."""
    text = text.encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() or c == " " else " " for c in text)
