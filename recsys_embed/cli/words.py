"""recsys words: similar, analogy, plot, evaluate, info, export, train, classify."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from recsys_embed.cli.export import METHOD, NEIGHBOURS, SEED, TO, say_export
from recsys_embed.cli.options import JSON, K, with_settings
from recsys_embed.cli.output import say, say_json, say_table
from recsys_embed.config.settings import WordsConfig
from recsys_embed.errors import SettingError

if TYPE_CHECKING:
    import polars as pl

    from recsys_embed.words.vectors import WordVectors

app = typer.Typer(no_args_is_help=True, help="Word vectors: look at them, test them, train them, use them.")

_TEXT = Annotated[Path, typer.Option("--text", help="Table with one text a row: CSV, TSV, ::, Parquet, .gz.")]
_COLUMN = Annotated[str, typer.Option("--column", help="Its column of texts.")]
_COLUMNS = Annotated[str | None, typer.Option("--columns", help="Names of the columns of a file without a header.")]


def _load(source: WordsConfig) -> WordVectors:
    from recsys_embed.words.vectors import WordVectors

    return WordVectors.load(source.vectors, source.data_dir, source.offline)


def _say_words(found: list[tuple[str, float]], json: bool) -> None:
    if json:
        return say_json({"words": [{"word": word, "score": score} for word, score in found]})
    return say_table(["word", "cosine"], [[word, f"{score:.3f}"] for word, score in found], "cosine")


@app.command()
@with_settings(source=WordsConfig)
def similar(
    source: WordsConfig,
    word: Annotated[str, typer.Argument(help="A word.")],
    k: K = 10,
    json: JSON = False,
) -> None:
    """Show the words nearest to a word. Example: recsys words similar king"""
    _check(k)
    _say_words(_load(source).similar(word, k), json)


@app.command()
@with_settings(source=WordsConfig)
def analogy(
    source: WordsConfig,
    a: Annotated[str, typer.Argument(help="This word is to …")],
    b: Annotated[str, typer.Argument(help="… this one as …")],
    c: Annotated[str, typer.Argument(help="… this one is to the answer.")],
    k: K = 5,
    json: JSON = False,
) -> None:
    """Answer "a is to b as c is to …". Example: recsys words analogy man king woman"""
    _check(k)
    _say_words(_load(source).analogy(a, b, c, k), json)


@app.command()
@with_settings(source=WordsConfig)
def plot(
    source: WordsConfig,
    words: Annotated[list[str], typer.Argument(help="Three words or more.")],
    out: Annotated[Path, typer.Option(help="Picture: .png, .svg or .pdf.")] = Path("words.png"),
    neighbours: Annotated[int, typer.Option(help="Nearest words of each, drawn in grey.", min=0, max=50)] = 5,
    json: JSON = False,
) -> None:
    """Draw words in two dimensions, by PCA and t-SNE.

    Example: recsys words plot king queen man woman boy girl --out words.png
    """
    from recsys_embed.plots.words import plot_words

    path = plot_words(_load(source), words, out, neighbours)
    return say_json({"out": str(path)}) if json else say(f"{path} written")


@app.command()
@with_settings(source=WordsConfig)
def evaluate(
    source: WordsConfig,
    file: Annotated[Path, typer.Argument(help="Pairs with people's scores (WordSim, SimLex), or analogies.")],
    json: JSON = False,
) -> None:
    """Compare vectors with people: Spearman's correlation for word pairs, accuracy for analogies."""
    from recsys_embed.words.vectors import read_test

    pairs, questions = read_test(file)
    loaded = _load(source)
    result = loaded.agreement(pairs) if pairs else loaded.accuracy(questions)
    if json:
        return say_json(result)
    names = {"spearman": "Spearman's correlation", "left_out": "left out, since a word is not known"}
    return say_table(
        ["", "value"], [[names.get(n, n), f"{v:.4f}" if isinstance(v, float) else v] for n, v in result.items()]
    )


@app.command()
@with_settings(source=WordsConfig)
def info(source: WordsConfig, json: JSON = False) -> None:
    """Say how many words there are, their dimension, and what reading the file had to mend."""
    loaded = _load(source)
    facts = {"vectors": loaded.name, "words": len(loaded), "dim": loaded.dim, "notes": loaded.notes}
    if json:
        return say_json({**facts, "first": loaded.words.series.head(10).to_list()})
    say_table(
        ["fact", "value"], [[n, f"{v:,}" if isinstance(v, int) else v] for n, v in facts.items() if v or n != "notes"]
    )
    return say(f"first words: {' '.join(loaded.words.series.head(10).to_list())}")


@app.command()
@with_settings(source=WordsConfig)
def export(
    source: WordsConfig,
    to: TO = "projector",
    out: Annotated[Path, typer.Option(help="Folder; only files of an earlier export in it are replaced.")] = Path(
        "words-export"
    ),
    limit: Annotated[int, typer.Option(help="Words at most, the first ones of the file.", min=1)] = 10_000,
    neighbours: NEIGHBOURS = 10,
    method: METHOD = "auto",
    seed: SEED = 0,
    json: JSON = False,
) -> None:
    """Write words and their vectors for TensorBoard, Embedding Atlas, gensim, numpy, ….

    Example: recsys words export --to projector --limit 5000
    """
    from recsys_embed.exports.write import export_words

    loaded = _load(source)
    export_words(loaded, to, out, limit, neighbours=neighbours, method=method, seed=seed)
    say_export(out, to, {"words": min(limit, len(loaded)), "dim": loaded.dim, "vectors": loaded.name}, neighbours, json)


@app.command()
def train(
    text: _TEXT,
    column: _COLUMN,
    out: Annotated[Path, typer.Option(help="Where the vectors go: NAME.safetensors.")] = Path("words.safetensors"),
    method: Annotated[Literal["word2vec", "fasttext"], typer.Option(help="How they are trained.")] = "word2vec",
    dim: Annotated[int, typer.Option(help="Width of the vectors.", min=1, max=4096)] = 100,
    epochs: Annotated[int, typer.Option(help="Passes over the texts.", min=1)] = 20,
    least: Annotated[int, typer.Option(help="Places that a word must stand in.", min=1)] = 3,
    columns: _COLUMNS = None,
    seed: Annotated[int, typer.Option(help="Seed.", min=0)] = 0,
    json: JSON = False,
) -> None:
    """Train word vectors on your own texts (needs gensim).

    Example: recsys words train --text items.csv --column plot
    """
    from recsys_embed.words.training import train_words

    if out.suffix != ".safetensors":  # before the training, not after
        raise SettingError(f"--out {out} must end in .safetensors")
    vectors = train_words(_texts(text, column, columns)[column], method, dim, epochs, least, seed)
    vectors.save(out)
    if json:
        return say_json({"out": str(out), "words": len(vectors), "dim": vectors.dim})
    return say(f"{len(vectors):,} words of {vectors.dim} numbers in {out}; use them with --vectors {out}")


@app.command()
def classify(
    text: _TEXT,
    column: _COLUMN,
    labels: Annotated[str, typer.Option(help="Column of labels, parted by | , or ;")] = "genres",
    label: Annotated[str | None, typer.Option(help="Learn this label alone. (default: all, each by itself)")] = None,
    vectors: Annotated[str | None, typer.Option(help="Word vectors to begin with: a name or a file.")] = None,
    words: Annotated[int, typer.Option(help="Most frequent words that are known, at most.", min=2)] = 10_000,
    dim: Annotated[int, typer.Option(help="Width of an embedding from scratch.", min=1, max=4096)] = 128,
    length: Annotated[int, typer.Option(help="Words of a text that count.", min=1)] = 100,
    epochs: Annotated[int, typer.Option(help="Passes at most; the best one on held-out texts is kept.", min=1)] = 20,
    test_share: Annotated[
        float, typer.Option(help="Share of the texts that it is measured on.", min=0.01, max=0.9)
    ] = 0.2,
    columns: _COLUMNS = None,
    seed: Annotated[int, typer.Option(help="Seed.", min=0)] = 0,
    data_dir: Annotated[str | None, typer.Option(help="Folder of downloads.")] = None,
    json: JSON = False,
) -> None:
    """Learn to tell labels from texts, by word embeddings, and measure it on texts held out.

    Example: recsys words classify --text items.csv --column plot --label Drama
    """
    import numpy as np
    import polars as pl

    from recsys_embed.errors import DataError
    from recsys_embed.tracking.progress import BarTracker
    from recsys_embed.training.text_classifier import TextClassifier
    from recsys_embed.words.tokens import tags

    table = _texts(text, column, columns, labels)
    table = table.filter(pl.col(column).is_not_null() & pl.col(labels).is_not_null())
    had = tags(table[labels]).to_list()
    counts = Counter(name for own in had for name in own)
    names = [name for name, _ in counts.most_common()]
    if label is not None and label.lower() not in names:
        raise DataError(f"no text has the label {label!r}; the labels are {', '.join(names[:20])}")
    rare = [n for n in names if counts[n] < 10]
    chosen = [label.lower()] if label is not None else [n for n in names if n not in rare]
    if not chosen:
        raise DataError(f"no label of {labels!r} has 10 texts, so there is nothing to learn from")
    order = np.random.default_rng(seed).permutation(table.height)
    test, kept = order[: (n := round(table.height * test_share))], order[n:]
    loaded = _load(WordsConfig(vectors, data_dir)) if vectors else None
    classifier = TextClassifier(words, dim, length, epochs=epochs, seed=seed, vectors=loaded, labels=chosen)
    texts = table[column].cast(pl.String)
    with BarTracker() as bar:
        classifier.fit(texts.gather(kept), [had[at] for at in kept], progress=bar.progress)
    result = classifier.measure(texts.gather(test), [had[at] for at in test])
    summary = classifier.net.summary()
    if json:
        return say_json({**result, "epochs": len(classifier.history), "summary": summary.to_dicts()})
    say_table(["layer", "output", "parameters"], [[a, b, f"{c:,}"] for a, b, c in summary.rows()], "parameters")
    say()
    say(f"{result['texts']:,} texts held out: accuracy {result['accuracy']:.3f} (always the same answer: "
        f"{result['always']:.3f}), AUC {result['auc']:.3f} (chance: .5)")  # fmt: skip
    if len(chosen) > 1:
        say_table(["label", "AUC"], [[name, f"{area:.3f}"] for name, area in result["labels"].items()], "AUC")
        if rare:
            say(f"left out, with fewer than 10 texts: {', '.join(rare[:12])}")
    return None


def _texts(path: Path, column: str, columns: str | None, *others: str) -> pl.DataFrame:
    from recsys_embed.errors import DataError
    from recsys_embed.sources.delimited import read_table

    frame: Any = read_table(path, columns, (column, *others)).frame
    for name in (column, *others):
        if name not in frame.columns:
            raise DataError(f"{path} has no column {name!r}; it has {', '.join(frame.columns)[:200]}")
    return frame


def _check(k: int) -> None:
    if k < 1:
        raise SettingError(f"--k must be at least 1, got {k}")
