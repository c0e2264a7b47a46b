"""Docstrings of this package for mkdocstrings: plain paragraphs in which "name: text" tells of a parameter or field.

Such parts become items of a list, "Raises …" and "Columns: …" paragraphs of their own. The help of a setting, which
stands in its type, is taken out of the signature; a NamedTuple gets the signature of its fields.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe

_NAMES = re.compile(r"(?P<names>[A-Za-z_]\w*(?:, [A-Za-z_]\w*)*)(?P<shape> \[[^\]]*\])?: ")
# A name comes first, or after the end of a sentence.
_AFTER_SENTENCE = re.compile(r"(?:^|(?<=[.…;)`])\s)(?=[A-Za-z_])")
_OWN_PARAGRAPH = re.compile(r"(?<=[.…)`]) (?=Raises [A-Z]|Columns: |Returns )")


def as_markdown(text: str, names: set[str]) -> str:
    """Return a docstring in Markdown. names: the parameters or fields of what it is of."""
    first, *rest = re.split(r"\n\n+", inspect.cleandoc(text))
    return "\n\n".join([" ".join(first.split()), *(_paragraph(part, names) for part in rest)])


def _paragraph(text: str, names: set[str]) -> str:
    """Return a paragraph with its "name: text" parts as a list."""
    if text.lstrip().startswith(("```", ">>>", "- ", "* ", "|")):
        return text
    text = " ".join(text.split())
    starts = {0, *(m.end() for m in _OWN_PARAGRAPH.finditer(text))}
    starts |= {m.end() for m in _AFTER_SENTENCE.finditer(text) if _told(text, m.end(), names)}
    cuts = sorted(starts)
    lines = []
    for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True):
        found = _told(text, start, names)
        if found is None:
            lines.append(f"\n{text[start:end].strip()}\n")
        else:
            shape = f" `{found['shape'].strip()}`" if found["shape"] else ""
            told = ", ".join(f"`{name}`" for name in found["names"].split(", "))
            lines.append(f"- {told}{shape}: {text[found.end() : end].strip()}")
    return "\n".join(lines).strip("\n")


def _told(text: str, start: int, names: set[str]) -> re.Match[str] | None:
    """Return the match of "name, name: " at a place, where these are names of parameters or fields."""
    found = _NAMES.match(text, start)
    return found if found and names.issuperset(found["names"].split(", ")) else None


class PlainDocstrings(griffe.Extension):
    """Rewrites docstrings as Markdown, and signatures of settings and of NamedTuples as people write them."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Take Annotated[int, "help"] for int."""
        note = attr.annotation
        if isinstance(note, griffe.ExprSubscript) and str(note.left) == "Annotated":
            attr.annotation = note.slice.elements[0] if isinstance(note.slice, griffe.ExprTuple) else note.slice

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite a docstring once all members are known."""
        if isinstance(obj, griffe.Class) and any(str(base) == "NamedTuple" for base in obj.bases):
            _with_signature(obj)
        if obj.docstring is None:
            return
        names = set(obj.members)
        functions = [obj, obj.members.get("__init__")]
        names |= {p.name.lstrip("*") for f in functions if isinstance(f, griffe.Function) for p in f.parameters}
        obj.docstring.value = as_markdown(obj.docstring.value, names)


def _with_signature(kind: griffe.Class) -> None:
    fields = [m for m in kind.members.values() if isinstance(m, griffe.Attribute) and m.annotation is not None]
    plain = griffe.ParameterKind.positional_or_keyword
    of_fields = [
        griffe.Parameter(field.name, annotation=field.annotation, kind=plain, default=field.value)
        for field in fields
        if not field.has_labels("property")
    ]
    parameters = griffe.Parameters(griffe.Parameter("self", kind=plain), *of_fields)
    kind.set_member("__init__", griffe.Function("__init__", parameters=parameters))
