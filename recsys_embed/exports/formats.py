"""The forms of an export: what stands in which file, and how other programs want it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.errors import SettingError
from recsys_embed.exports.folder import Content
from recsys_embed.projection import project
from recsys_embed.retrieval.exact import CosineIndex

log = logging.getLogger("recsys_embed")

# Characters of a title in an .npz, where every title takes the room of the longest one, four bytes a character.
_LONGEST = 1_000


@dataclass(frozen=True)
class Part:
    """The items, the users, or words. vectors: float32 [n, d], without biases. bias: float32 [n], or None for words.

    name: "items", "users" or "words". table: n rows, their ids (integers or text) in the first column.
    """

    name: str
    table: pl.DataFrame
    vectors: Floats
    bias: Floats | None = None

    @property
    def ids(self) -> pl.Series:
        """The ids, integers or text."""
        return self.table.to_series(0)


class Layout(NamedTuple):
    """What a Parquet export computes: neighbours of each row (0: none), and its place in a picture; see `project`."""

    neighbours: int = 10
    method: str = "auto"
    seed: int = 0


class Form(NamedTuple):
    """A form of export: what files it consists of, and what opens them, for people.

    In `opens` stand {out}, the folder; {first} and {last}, files in it; {text} and {near}, the options that name the
    columns of titles and of neighbours.
    """

    files: Callable[[Sequence[Part], Layout], dict[str, Content]]
    opens: str


def _projector(parts: Sequence[Part], layout: Layout) -> dict[str, Content]:
    """Vectors and metadata as TSV, and what TensorBoard (.pbtxt) and the projector's own page (.json) read first."""
    if parts[0].vectors.shape[1] < 2:
        raise SettingError("the projector shows vectors of two numbers or more, and these have one")
    files, entries, text = {}, [], ""
    for part in parts:
        before = "" if part is parts[0] else f"{part.name}-"
        vectors, metadata = f"{before}vectors.tsv", f"{before}metadata.tsv"
        files[vectors] = Content(_rows(pl.DataFrame(part.vectors), "\t"), len(part.vectors))
        table = _cells(part.table)
        # One column has no header, more have one: the projector tells the two apart by the tab in the first line.
        header = table.width > 1
        if not header:  # and it skips lines of nothing but blanks, which would move all names below by one
            column = table.to_series()
            table = column.set(column.str.contains(r"^[\s\x{feff}]*$"), "(blank)").to_frame()
        files[metadata] = Content(_rows(table, "\t", header), table.height + header)
        shape = list(part.vectors.shape)
        entries.append({"tensorName": part.name, "tensorShape": shape, "tensorPath": vectors, "metadataPath": metadata})
        text += f'embeddings {{\n  tensor_name: "{part.name}"\n'
        text += "".join(f"  tensor_shape: {size}\n" for size in shape)
        text += f'  tensor_path: "{vectors}"\n  metadata_path: "{metadata}"\n}}\n'
    files["projector_config.json"] = _bytes(lambda: json.dumps({"embeddings": entries}).encode())
    files["projector_config.pbtxt"] = _bytes(text.encode)
    return files


def _cells(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table of text without tabs and ends of lines, the title first: the projector shows the first text."""
    columns: dict[str, pl.Series] = {}
    for name in sorted(table.columns, key=lambda name: name != "title"):
        column = table[name]
        try:
            if isinstance(column.dtype, pl.List | pl.Array):
                cells = column.cast(pl.List(pl.String)).list.join("|")
            else:
                cells = column.cast(pl.String)
        except pl.exceptions.PolarsError:
            log.info("the column %s (%s) is left out: it cannot be written as text", name, column.dtype)
            continue
        columns[name] = _tame(cells)
    names = _distinct(_tame(pl.Series(list(columns), dtype=pl.String)).to_list(), list(columns))
    return pl.DataFrame([column.alias(name) for name, column in zip(names, columns.values(), strict=True)])


def _tame(text: pl.Series, blanks: bool = True, by: str = " ") -> pl.Series:
    """Return text with control characters and ends of lines replaced; without `blanks` all white space is."""
    return text.str.replace_all(r"[\p{Cc}\x{2028}\x{2029}]" if blanks else r"[\p{Cc}\s]", by)


def _distinct(names: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return names of which those that differ from what was given got a number, where another has that name."""
    taken = {name for name, was in zip(names, given, strict=True) if name == was}
    found = []
    for name, was in zip(names, given, strict=True):
        own, n = name, 1
        while name != was and own in taken:
            n += 1
            own = f"{name}_{n}"
        taken.add(own)
        found.append(own)
    return found


def _word2vec(parts: Sequence[Part], layout: Layout) -> dict[str, Content]:
    """word2vec's text form: a line with the counts, then a key and its numbers a line."""
    files = {}
    for part in parts:
        ids = part.ids.cast(pl.String)
        keys = _tame(ids, blanks=False, by="_")
        keys = keys.set(keys == "", "_")
        changed = keys != ids
        if changed.any():
            log.info("%d keys were changed, since a key has no blanks: e.g. %r", changed.sum(), ids.filter(changed)[0])
            keys = pl.Series(_distinct(keys.to_list(), ids.to_list()), dtype=pl.String)
        frame = pl.DataFrame(part.vectors).insert_column(0, keys.alias("key"))
        head = f"{part.vectors.shape[0]} {part.vectors.shape[1]}\n".encode()
        files[f"{part.name}.txt"] = Content(_rows(frame, " ", head=head), len(keys) + 1)
    return files


def _rows(frame: pl.DataFrame, separator: str, header: bool = False, head: bytes = b"") -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        file.write(head)
        # polars writes the fewest digits that give the same float32 back.
        frame.write_csv(file, include_header=header, separator=separator, quote_style="never")

    return write


def _bytes(make: Callable[[], bytes]) -> Content:
    def write(file: BinaryIO) -> None:
        file.write(make())

    return Content(write)


def _parquet(parts: Sequence[Part], layout: Layout) -> dict[str, Content]:
    """One table a part: what is known, vector, x, y and neighbors, in the form that Embedding Atlas asks for."""

    def write(part: Part) -> Callable[[BinaryIO], None]:
        return lambda file: _placed(part, layout).write_parquet(file)

    return {f"{part.name}.parquet": Content(write(part)) for part in parts}


def _placed(part: Part, layout: Layout) -> pl.DataFrame:
    picture = project(part.vectors, layout.method, layout.seed)
    log.info("x and y of the %s: %s; trustworthiness %.3f", part.name, picture.name, picture.trust)
    added = [
        # Lists, not arrays of one length: some readers know lists alone.
        pl.Series("vector", part.vectors).cast(pl.List(pl.Float32)),
        pl.Series("x", picture.points[:, 0]),
        pl.Series("y", picture.points[:, 1]),
    ]
    k = min(layout.neighbours, len(part.vectors) - 1)
    if k > 0:
        cosines, rows = CosineIndex(part.vectors).neighbours(np.arange(len(part.vectors)), k)
        near = {"ids": rows.astype(np.int32), "distances": np.maximum(1 - cosines, 0)}
        lists = pl.DataFrame({name: pl.Series(name, values).arr.to_list() for name, values in near.items()})
        added.append(lists.to_struct("neighbors"))
    return part.table.with_columns(added)


def _safetensors(parts: Sequence[Part], layout: Layout) -> dict[str, Content]:
    """All tensors in one file, and what is known of their rows in Parquet files beside it, which its header names."""
    from safetensors.numpy import save

    tensors: dict[str, NDArray[Any]] = {}
    files, beside = {}, {}
    for part in parts:
        # Words are named as `WordVectors.load` wants them.
        name = part.name if part.bias is not None else "vectors"
        tensors[name] = np.ascontiguousarray(part.vectors)
        if part.bias is not None:
            tensors[f"{name.removesuffix('s')}_bias"] = np.ascontiguousarray(part.bias)
        beside[name] = "vectors.parquet" if part is parts[0] else f"vectors-{part.name}.parquet"
        files[beside[name]] = Content(part.table.write_parquet)
    files["vectors.safetensors"] = _bytes(lambda: save(tensors, beside))
    return files


def _npz(parts: Sequence[Part], layout: Layout) -> dict[str, Content]:
    """One archive a part, without pickled objects: ids, vectors and, where there are such, titles, bias, ratings."""

    def write(part: Part) -> Callable[[BinaryIO], None]:
        arrays: dict[str, Any] = {"ids": _array(part.ids), "vectors": part.vectors}
        if "title" in part.table.columns:
            arrays["titles"] = _array(part.table["title"].str.slice(0, _LONGEST))
        if part.bias is not None:
            arrays |= {"bias": part.bias, "ratings": part.table["ratings"].to_numpy()}
        return lambda file: np.savez(file, **arrays)

    return {f"{part.name}.npz": Content(write(part)) for part in parts}


def _array(column: pl.Series) -> NDArray[Any]:
    """Return integers as they are and text as numpy's own, never as objects."""
    return np.array(column.to_list(), np.str_) if column.dtype == pl.String else column.to_numpy()


EXPORTS: dict[str, Form] = {
    "projector": Form(
        _projector, "tensorboard --logdir {out}   (or load the two .tsv files at projector.tensorflow.org)"
    ),
    "parquet": Form(_parquet, "embedding-atlas {first}{text} --x x --y y{near}   (or pandas, polars, DuckDB)"),
    "safetensors": Form(_safetensors, 'safetensors.numpy.load_file("{last}")'),
    "word2vec": Form(_word2vec, 'gensim.models.KeyedVectors.load_word2vec_format("{first}")'),
    "npz": Form(_npz, 'numpy.load("{first}")'),
}
