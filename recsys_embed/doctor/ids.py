"""Ids that are likely meant to be one: they differ by blanks, Unicode form, case or leading zeros alone."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from recsys_embed.data.ids import Rows
from recsys_embed.data.vocab import Vocab
from recsys_embed.doctor.codes import N_EXAMPLES, Finding, finding, plural

_ID = pl.col("key")
# What is made equal, one after the other: its code, words for it, and how.
_FORMS = (
    ("D401", "surrounding blanks", _ID.str.strip_chars()),
    ("D402", "Unicode form", _ID.str.normalize("NFC")),
    ("D403", "case", _ID.str.to_lowercase()),
    ("D404", "leading zeros", _ID.str.replace("^0+([0-9]+)$", "$1")),
)
# Ids by which programs say that there is none, or that it is anybody's.
_PLACEHOLDERS = (
    "-1", "nan", "null", "none", "undefined", "n/a", "<na>", "nat", "(not set)", "unknown", "anonymous", "guest",
    "gast", "unbekannt", "anonym", "invité", "inconnu", "anonyme", "invitado", "desconocido", "anónimo",
)  # fmt: skip
_FLOAT = r"^-?[0-9]+\.0+$"


def find_ids(vocab: Vocab, counts: Rows, is_fixed: bool = True) -> Iterator[Finding]:
    """Yield ids of users or items that look like others, or like none. counts: the rows of each, [n]. is_fixed: whether
    all ids are of the ratings that `--fix` writes."""
    yield from _find_placeholders(vocab, counts)
    if not vocab.is_text:
        return
    table = pl.DataFrame({"id": vocab.series, "key": vocab.series})
    floats = int(vocab.series.str.contains(_FLOAT).sum())
    if floats:
        some = vocab.series.filter(vocab.series.str.contains(_FLOAT)).head(N_EXAMPLES).to_list()
        yield finding(
            "D405",
            floats,
            f"{plural(floats, f'{vocab.name} id')} look{'s' * (floats == 1)} like floats",
            some,
            is_fixed=is_fixed,
        )
    for code, what, form in _FORMS:
        formed = table.with_columns(form)
        more = formed.height - formed["key"].n_unique()
        if more:
            groups = formed.filter(_ID.is_duplicated()).group_by("key", maintain_order=True).agg("id").head(N_EXAMPLES)
            examples = [", ".join(repr(id_) for id_ in ids[:3]) for ids in groups["id"].to_list()]
            message = f"{plural(more, f'{vocab.name} id')} differ{'s' * (more == 1)} from another by {what} alone"
            yield finding(code, more, message, examples, is_fixed=is_fixed)
        table = formed.unique("key", keep="first", maintain_order=True)


def _find_placeholders(vocab: Vocab, counts: Rows) -> Iterator[Finding]:
    texts = vocab.series.cast(pl.String).str.strip_chars().str.to_lowercase()
    rows = texts.is_in(_PLACEHOLDERS).arg_true().to_numpy()
    found = int(counts[rows].sum())
    if found:
        examples = [f"{vocab.name} {id_!r}" for id_ in vocab.ids(rows[:N_EXAMPLES])]
        yield finding(
            "D406", found, f"{plural(found, 'row')} of a {vocab.name} id that stands for no {vocab.name}", examples
        )
