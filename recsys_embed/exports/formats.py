"""The formats of an export: which files they consist of, in the form that other programs expect."""

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

# Most characters of a title in an .npz: every title takes as much space as the longest, 4 bytes per character.
_MAX_TITLE_LENGTH = 1_000


@dataclass(frozen=True)
class EmbeddingTable:
    """The vectors of items, users or words: float32 [n, d], without biases. bias: float32 [n], or None for words.

    name: "items", "users" or "words". metadata: a table of n rows, with ids (integers or text) in the first column.
    """

    name: str
    metadata: pl.DataFrame
    vectors: Floats
    bias: Floats | None = None

    @property
    def ids(self) -> pl.Series:
        """The ids, integers or text."""
        return self.metadata.to_series(0)


class ParquetOptions(NamedTuple):
    """What a Parquet export computes: neighbours of each row (0: none), and its coordinates; see `project`."""

    neighbours: int = 10
    method: str = "auto"
    seed: int = 0


class Format(NamedTuple):
    """A format of an export: a function that returns its files by name, and a hint on how to open them.

    Placeholders in `how_to_open`: {out}, the folder; {first} and {last}, files in it; {text} and {neighbors}, the
    options that name the columns of titles and of neighbours.
    """

    files: Callable[[Sequence[EmbeddingTable], ParquetOptions], dict[str, Content]]
    how_to_open: str


def _projector(tables: Sequence[EmbeddingTable], options: ParquetOptions) -> dict[str, Content]:
    """Return vectors and metadata as TSV, and the configuration for TensorBoard (.pbtxt) and the projector (.json)."""
    if tables[0].vectors.shape[1] < 2:
        raise SettingError("the projector needs vectors of two dimensions or more, and these have one")
    files, entries, text = {}, [], ""
    for table in tables:
        prefix = "" if table is tables[0] else f"{table.name}-"
        vectors, metadata = f"{prefix}vectors.tsv", f"{prefix}metadata.tsv"
        files[vectors] = Content(_csv_writer(pl.DataFrame(table.vectors), "\t"), len(table.vectors))
        columns = _text_columns(table.metadata)
        # A single column has no header, several have one: the projector tells them apart by a tab in the first line.
        header = columns.width > 1
        if not header:  # the projector skips blank lines, which would shift all names below by one
            column = columns.to_series()
            columns = column.set(column.str.contains(r"^[\s\x{feff}]*$"), "(blank)").to_frame()
        files[metadata] = Content(_csv_writer(columns, "\t", header), columns.height + header)
        shape = list(table.vectors.shape)
        entries.append(
            {"tensorName": table.name, "tensorShape": shape, "tensorPath": vectors, "metadataPath": metadata}
        )
        text += f'embeddings {{\n  tensor_name: "{table.name}"\n'
        text += "".join(f"  tensor_shape: {size}\n" for size in shape)
        text += f'  tensor_path: "{vectors}"\n  metadata_path: "{metadata}"\n}}\n'
    files["projector_config.json"] = _bytes_writer(lambda: json.dumps({"embeddings": entries}).encode())
    files["projector_config.pbtxt"] = _bytes_writer(text.encode)
    return files


def _text_columns(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table as text without tabs and line ends, the title first: the projector shows the first text column."""
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
        columns[name] = _without_control_characters(cells)
    names = _unique_names(
        _without_control_characters(pl.Series(list(columns), dtype=pl.String)).to_list(), list(columns)
    )
    return pl.DataFrame([column.alias(name) for name, column in zip(names, columns.values(), strict=True)])


def _without_control_characters(text: pl.Series, blanks: bool = True, by: str = " ") -> pl.Series:
    """Return text with control characters and line ends replaced, and all white space unless `blanks`."""
    return text.str.replace_all(r"[\p{Cc}\x{2028}\x{2029}]" if blanks else r"[\p{Cc}\s]", by)


def _unique_names(names: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return unique names: a name that was changed from the given one gets a number if it is taken already."""
    taken = {name for name, original in zip(names, given, strict=True) if name == original}
    unique = []
    for name, original in zip(names, given, strict=True):
        candidate, n = name, 1
        while name != original and candidate in taken:
            n += 1
            candidate = f"{name}_{n}"
        taken.add(candidate)
        unique.append(candidate)
    return unique


def _word2vec(tables: Sequence[EmbeddingTable], options: ParquetOptions) -> dict[str, Content]:
    """Return word2vec's text format: a line with the counts, then one key and its numbers per line."""
    files = {}
    for table in tables:
        ids = table.ids.cast(pl.String)
        keys = _without_control_characters(ids, blanks=False, by="_")
        keys = keys.set(keys == "", "_")
        changed = keys != ids
        if changed.any():
            log.info("%d keys were changed, since keys have no blanks: e.g. %r", changed.sum(), ids.filter(changed)[0])
            keys = pl.Series(_unique_names(keys.to_list(), ids.to_list()), dtype=pl.String)
        frame = pl.DataFrame(table.vectors).insert_column(0, keys.alias("key"))
        head = f"{table.vectors.shape[0]} {table.vectors.shape[1]}\n".encode()
        files[f"{table.name}.txt"] = Content(_csv_writer(frame, " ", head=head), len(keys) + 1)
    return files


def _csv_writer(
    frame: pl.DataFrame, separator: str, header: bool = False, head: bytes = b""
) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        file.write(head)
        # polars writes the fewest digits that are read back as the same float32.
        frame.write_csv(file, include_header=header, separator=separator, quote_style="never")

    return write


def _bytes_writer(make: Callable[[], bytes]) -> Content:
    def write(file: BinaryIO) -> None:
        file.write(make())

    return Content(write)


def _parquet(tables: Sequence[EmbeddingTable], options: ParquetOptions) -> dict[str, Content]:
    """Return one file per table: metadata, vector, x, y and neighbors, as Embedding Atlas expects them."""

    def write(table: EmbeddingTable) -> Callable[[BinaryIO], None]:
        return lambda file: _with_layout(table, options).write_parquet(file)

    return {f"{table.name}.parquet": Content(write(table)) for table in tables}


def _with_layout(table: EmbeddingTable, options: ParquetOptions) -> pl.DataFrame:
    projection = project(table.vectors, options.method, options.seed)
    log.info("x and y of the %s: %s; trustworthiness %.3f", table.name, projection.name, projection.trustworthiness)
    added = [
        # Lists, not fixed-size arrays: some readers support only lists.
        pl.Series("vector", table.vectors).cast(pl.List(pl.Float32)),
        pl.Series("x", projection.points[:, 0]),
        pl.Series("y", projection.points[:, 1]),
    ]
    k = min(options.neighbours, len(table.vectors) - 1)
    if k > 0:
        cosines, rows = CosineIndex(table.vectors).neighbours(np.arange(len(table.vectors)), k)
        neighbours = {"ids": rows.astype(np.int32), "distances": np.maximum(1 - cosines, 0)}
        lists = pl.DataFrame({name: pl.Series(name, values).arr.to_list() for name, values in neighbours.items()})
        added.append(lists.to_struct("neighbors"))
    return table.metadata.with_columns(added)


def _safetensors(tables: Sequence[EmbeddingTable], options: ParquetOptions) -> dict[str, Content]:
    """Return all tensors in one file, and the metadata of their rows in Parquet files, which its header names."""
    from safetensors.numpy import save

    tensors: dict[str, NDArray[Any]] = {}
    files, metadata_files = {}, {}
    for table in tables:
        # The name that `WordVectors.load` expects of words.
        name = table.name if table.bias is not None else "vectors"
        tensors[name] = np.ascontiguousarray(table.vectors)
        if table.bias is not None:
            tensors[f"{name.removesuffix('s')}_bias"] = np.ascontiguousarray(table.bias)
        metadata_files[name] = "vectors.parquet" if table is tables[0] else f"vectors-{table.name}.parquet"
        files[metadata_files[name]] = Content(table.metadata.write_parquet)
    files["vectors.safetensors"] = _bytes_writer(lambda: save(tensors, metadata_files))
    return files


def _npz(tables: Sequence[EmbeddingTable], options: ParquetOptions) -> dict[str, Content]:
    """Return one archive per table, without pickled objects: ids, vectors and, if any, titles, bias and ratings."""

    def write(table: EmbeddingTable) -> Callable[[BinaryIO], None]:
        arrays: dict[str, Any] = {"ids": _numpy_array(table.ids), "vectors": table.vectors}
        if "title" in table.metadata.columns:
            arrays["titles"] = _numpy_array(table.metadata["title"].str.slice(0, _MAX_TITLE_LENGTH))
        if table.bias is not None:
            arrays |= {"bias": table.bias, "ratings": table.metadata["ratings"].to_numpy()}
        return lambda file: np.savez(file, **arrays)

    return {f"{table.name}.npz": Content(write(table)) for table in tables}


def _numpy_array(column: pl.Series) -> NDArray[Any]:
    """Return a column as integers or NumPy text, never as objects."""
    return np.array(column.to_list(), np.str_) if column.dtype == pl.String else column.to_numpy()


EXPORTS: dict[str, Format] = {
    "projector": Format(
        _projector, "tensorboard --logdir {out}   (or load the two .tsv files at projector.tensorflow.org)"
    ),
    "parquet": Format(_parquet, "embedding-atlas {first}{text} --x x --y y{neighbors}   (or pandas, polars, DuckDB)"),
    "safetensors": Format(_safetensors, 'safetensors.numpy.load_file("{last}")'),
    "word2vec": Format(_word2vec, 'gensim.models.KeyedVectors.load_word2vec_format("{first}")'),
    "npz": Format(_npz, 'numpy.load("{first}")'),
}
