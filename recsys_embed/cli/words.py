"""recsys words: word vectors, and text classification with them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from recsys_embed.cli.export import METHOD, NEIGHBOURS, SEED, TO, print_export
from recsys_embed.cli.options import JSON, K, with_settings
from recsys_embed.cli.output import echo, print_json, print_table
from recsys_embed.cli.program import Program
from recsys_embed.config.answers import WordsConfig
from recsys_embed.errors import SettingError

if TYPE_CHECKING:
    import polars as pl

    from recsys_embed.words.vectors import WordVectors

app = Program(no_args_is_help=True, help="Word vectors: explore, evaluate, train and use them.")

_TEXT = Annotated[
    str,
    typer.Option(
        "--text",
        help="Plain text, a text a line: a file (packed or not), a folder, a pattern, -. With --column, a table.",
    ),
]
_COLUMN = Annotated[
    str | None, typer.Option("--column", help="The column of a table that holds the texts. (default: plain text)")
]
_COLUMNS = Annotated[str | None, typer.Option("--columns", help="Column names of a file without a header.")]


def _load(source: WordsConfig) -> WordVectors:
    from recsys_embed.words.vectors import WordVectors

    return WordVectors.load(source.vectors, source.data_dir, source.offline)


def _print_words(words: list[tuple[str, float]], json: bool) -> None:
    if json:
        return print_json({"words": [{"word": word, "score": score} for word, score in words]})
    return print_table(["word", "cosine"], [[word, f"{score:.3f}"] for word, score in words], "cosine")


@app.command()
@with_settings(source=WordsConfig)
def similar(
    source: WordsConfig,
    word: Annotated[str, typer.Argument(help="A word.")],
    k: K = 10,
    json: JSON = False,
) -> None:
    """List the words nearest to a word. Example: recsys words similar king"""
    _check(k)
    _print_words(_load(source).similar(word, k), json)


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
    _print_words(_load(source).analogy(a, b, c, k), json)


@app.command()
@with_settings(source=WordsConfig)
def plot(
    source: WordsConfig,
    words: Annotated[list[str], typer.Argument(help="Three or more words.")],
    out: Annotated[Path, typer.Option(help="Picture: .png, .svg or .pdf.")] = Path("words.png"),
    neighbours: Annotated[int, typer.Option(help="Nearest words of each to draw in grey.", min=0, max=50)] = 5,
    json: JSON = False,
) -> None:
    """Draw words in two dimensions, by PCA and t-SNE.

    Example: recsys words plot king queen man woman boy girl --out words.png
    """
    from recsys_embed.plots.words import plot_words

    path = plot_words(_load(source), words, out, neighbours)
    return print_json({"out": str(path)}) if json else echo(f"{path} written")


@app.command()
@with_settings(source=WordsConfig)
def evaluate(
    source: WordsConfig,
    file: Annotated[Path, typer.Argument(help="Word pairs with human scores (WordSim, SimLex), or analogies.")],
    json: JSON = False,
) -> None:
    """Compare vectors with human judgements: Spearman's correlation for word pairs, accuracy for analogies."""
    from recsys_embed.words.vectors import read_word_test

    pairs, questions = read_word_test(file)
    loaded = _load(source)
    result = loaded.evaluate_word_pairs(pairs) if pairs else loaded.evaluate_word_analogies(questions)
    if json:
        return print_json(result)
    names = {"spearman": "Spearman's correlation", "left_out": "left out: a word is unknown"}
    return print_table(
        ["", "value"], [[names.get(n, n), f"{v:.4f}" if isinstance(v, float) else v] for n, v in result.items()]
    )


@app.command()
@with_settings(source=WordsConfig)
def info(source: WordsConfig, json: JSON = False) -> None:
    """Show the number of words, their dimension, and problems found in the file."""
    loaded = _load(source)
    facts = {"vectors": loaded.name, "words": len(loaded), "dim": loaded.dim, "notes": loaded.notes}
    if json:
        return print_json({**facts, "first": loaded.words.series.head(10).to_list()})
    print_table(
        ["fact", "value"], [[n, f"{v:,}" if isinstance(v, int) else v] for n, v in facts.items() if v or n != "notes"]
    )
    return echo(f"first words: {' '.join(loaded.words.series.head(10).to_list())}")


@app.command()
@with_settings(source=WordsConfig)
def export(
    source: WordsConfig,
    to: TO = "projector",
    out: Annotated[Path, typer.Option(help="Folder; replaces only files of an earlier export.")] = Path("words-export"),
    limit: Annotated[int, typer.Option(help="Most words: the first ones of the file.", min=1)] = 10_000,
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
    print_export(
        out, to, {"words": min(limit, len(loaded)), "dim": loaded.dim, "vectors": loaded.name}, neighbours, json
    )


@app.command()
@with_settings(old_names={"least": "min_count"})
def train(
    corpus: _TEXT,
    column: _COLUMN = None,
    out: Annotated[Path, typer.Option(help="Output file: NAME.safetensors.")] = Path("words.safetensors"),
    method: Annotated[Literal["word2vec", "fasttext"], typer.Option(help="How to train them.")] = "word2vec",
    dim: Annotated[int, typer.Option(help="Width of the vectors.", min=1, max=4096)] = 100,
    epochs: Annotated[int, typer.Option(help="Passes over the texts.", min=1)] = 20,
    min_count: Annotated[int, typer.Option(help="Fewest occurrences of a word.", min=1)] = 3,
    columns: _COLUMNS = None,
    seed: Annotated[int, typer.Option(help="Seed.", min=0)] = 0,
    workers: Annotated[int, typer.Option(help="Threads; more than one is not repeatable.", min=1)] = 1,
    json: JSON = False,
) -> None:
    """Train word vectors on your own texts (needs gensim).

    Example: recsys words train --text corpus.txt.gz, or --text items.csv --column plot
    """
    from recsys_embed.tracking.progress import progress_bar
    from recsys_embed.words.training import train_words

    if out.suffix != ".safetensors":  # before the training rather than after
        raise SettingError(f"--out {out} must end in .safetensors")
    texts = corpus if column is None else _texts(corpus, column, columns)[column]
    with progress_bar() as bar:
        vectors = train_words(texts, method, dim, epochs, min_count, seed, workers, bar.progress)
    vectors.save(out)
    if json:
        return print_json({"out": str(out), "words": len(vectors), "dim": vectors.dim})
    return echo(f"{len(vectors):,} words of {vectors.dim} numbers in {out}; use them with --vectors {out}")


@app.command()
def classify(
    corpus: _TEXT,
    column: _COLUMN = None,
    labels: Annotated[
        str, typer.Option(help="Column of labels, separated by | , or ; (plain text: lines have a __label__NAME).")
    ] = "genres",
    label: Annotated[str | None, typer.Option(help="Learn only this label. (default: all, each independently)")] = None,
    vectors: Annotated[str | None, typer.Option(help="Word vectors to start from: a name or a file.")] = None,
    words: Annotated[int, typer.Option(help="Size of the vocabulary: the most frequent words.", min=2)] = 10_000,
    dim: Annotated[int, typer.Option(help="Width of an embedding trained from scratch.", min=1, max=4096)] = 128,
    length: Annotated[int, typer.Option(help="Words of a text that are used.", min=1)] = 100,
    epochs: Annotated[int, typer.Option(help="Most passes; the best one on held-out texts is kept.", min=1)] = 20,
    test_share: Annotated[float, typer.Option(help="Share of the texts held out for test.", min=0.01, max=0.9)] = 0.2,
    columns: _COLUMNS = None,
    seed: Annotated[int, typer.Option(help="Seed.", min=0)] = 0,
    data_dir: Annotated[str | None, typer.Option(help="Folder of downloads.")] = None,
    json: JSON = False,
) -> None:
    """Learn to predict labels from texts with word embeddings, and measure it on held-out texts.

    Example: recsys words classify --text items.csv --column plot --label Drama
    """
    import numpy as np

    from recsys_embed.tracking.progress import BarTracker
    from recsys_embed.training.text_classifier import TextClassifier

    texts, tags = _labelled_texts(corpus, column, columns, labels)
    chosen, rare = _choose_labels(tags, label, labels)
    order = np.random.default_rng(seed).permutation(len(texts))
    n_test = round(len(texts) * test_share)
    test, train = order[:n_test], order[n_test:]
    loaded = _load(WordsConfig(vectors, data_dir)) if vectors else None
    classifier = TextClassifier(words, dim, length, epochs=epochs, seed=seed, vectors=loaded, labels=chosen)
    with BarTracker() as bar:
        classifier.fit(texts.gather(train), [tags[row] for row in train], progress=bar.progress)
    result = classifier.measure(texts.gather(test), [tags[row] for row in test])
    summary = classifier.net.summary()
    if json:
        return print_json({**result, "epochs": len(classifier.history), "summary": summary.to_dicts()})
    print_table(["layer", "output", "parameters"], [[a, b, f"{c:,}"] for a, b, c in summary.rows()], "parameters")
    echo()
    echo(f"{result['texts']:,} texts held out: accuracy {result['accuracy']:.3f} (always the same answer: "
        f"{result['always']:.3f}), AUC {result['auc']:.3f} (chance: .5)")  # fmt: skip
    if len(chosen) > 1:
        print_table(["label", "AUC"], [[name, f"{area:.3f}"] for name, area in result["labels"].items()], "AUC")
        if rare:
            echo(f"left out, with fewer than 10 texts: {', '.join(rare[:12])}")
    return None


def _labelled_texts(
    path: str, column: str | None, columns: str | None, labels: str
) -> tuple[pl.Series, list[list[str]]]:
    """Return the texts of a table that have labels, or those of plain text, and the labels of each."""
    import polars as pl

    from recsys_embed.words.tokens import split_labels, split_tags

    if column is None:
        from recsys_embed.sources.texts import read_texts

        return split_labels(pl.Series("text", [line for lines in read_texts(path) for line in lines]), path)
    table = _texts(path, column, columns, labels)
    table = table.filter(pl.col(column).is_not_null() & pl.col(labels).is_not_null())
    return table[column].cast(pl.String), split_tags(table[labels]).to_list()


def _choose_labels(tags: list[list[str]], label: str | None, column: str) -> tuple[list[str], list[str]]:
    """Return the labels to learn, and those with too few texts. label: the only one to learn; None for all."""
    from recsys_embed.errors import DataError

    counts = Counter(name for names in tags for name in names)
    names = [name for name, _ in counts.most_common()]
    if label is not None and label.lower() not in names:
        raise DataError(f"no text has the label {label!r}; the labels are {', '.join(names[:20])}")
    rare = [name for name in names if counts[name] < 10]
    chosen = [label.lower()] if label is not None else [name for name in names if name not in rare]
    if not chosen:
        raise DataError(f"no label of {column!r} has 10 texts, so there is nothing to learn from")
    return chosen, rare


def _texts(path: str, column: str, columns: str | None, *others: str) -> pl.DataFrame:
    from recsys_embed.errors import DataError
    from recsys_embed.sources.read import read_table

    frame: Any = read_table(path, columns, (column, *others)).frame
    for name in (column, *others):
        if name not in frame.columns:
            raise DataError(f"{path} has no column {name!r}; it has {', '.join(frame.columns)[:200]}")
    return frame


def _check(k: int) -> None:
    if k < 1:
        raise SettingError(f"--k must be at least 1, got {k}")
