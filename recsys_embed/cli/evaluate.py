"""recsys evaluate: measure a model on held-out ratings."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys_embed.cli import evaluate_tables as tables
from recsys_embed.cli.loading import load
from recsys_embed.cli.options import JSON, MODEL
from recsys_embed.cli.output import echo, print_json, print_table
from recsys_embed.config.settings import DataConfig, RunConfig
from recsys_embed.errors import DataError, SettingError

if TYPE_CHECKING:
    from recsys_embed.data.dataset import Dataset
    from recsys_embed.data.ratings import Ratings
    from recsys_embed.evaluation.evaluate import Report
    from recsys_embed.recommender import Recommender

log = logging.getLogger("recsys_embed")

_BY = Annotated[
    str | None,
    typer.Option(help="Measure by groups: popularity, activity, or a column of the item table (genres, year)."),
]
_PROBE = Annotated[
    str | None,
    typer.Option(help="Instead: probe what the vectors contain: a column of the item table (genres, year), or links."),
]


def evaluate(
    dataset: Annotated[
        str | None, typer.Option(help="Data set or file. (default: the data the model was trained on)")
    ] = None,
    test: Annotated[str | None, typer.Option(help="File of test ratings. (default: the model's own split)")] = None,
    ks: Annotated[str, typer.Option(help="List lengths at which metrics are measured.")] = RunConfig.ks,
    per_user: Annotated[
        str | None, typer.Option(help="Write every user's metrics to this .parquet, .csv or .jsonl file.")
    ] = None,
    by: _BY = None,
    probe: _PROBE = None,
    k: Annotated[int, typer.Option("--k", help="Length of the lists of --by.")] = 10,
    model: MODEL = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    json: JSON = False,
) -> None:
    """Measure a model on held-out ratings: all items are ranked, except those it was fitted on for the user.

    Without options it measures the test part of the split that the model was trained with.

    Example: recsys evaluate --by popularity
    """
    from recsys_embed.evaluation import slices
    from recsys_embed.evaluation.cold_start import evaluate_cold
    from recsys_embed.evaluation.evaluate import evaluate
    from recsys_embed.storage.table_files import check_is_not_read, write_table

    if by is not None and probe is not None:
        raise SettingError("--by and --probe ask for different tables: give one of them")
    if k < 1:
        raise SettingError(f"--k must be at least 1, got {k}")
    lengths = RunConfig(ks=ks).lengths
    if per_user:
        check_is_not_read(per_user, **{"--test": test, "--dataset": dataset})
    recommender, folder = load(model)
    if probe is not None:
        return tables.probe(
            recommender, folder, probe, lambda: _test_ratings(recommender, dataset, test, offline)[0], json
        )
    if by is not None:
        slices.check_slice_name(recommender.table, by)
    ratings, source = _test_ratings(recommender, dataset, test, offline)
    report = evaluate(recommender, ratings, sorted({*lengths, k}) if by else lengths)
    cold = evaluate_cold(recommender, ratings)
    if per_user:
        write_table(report.per_user, Path(per_user))
    sliced = slices.evaluate_slices(recommender, ratings, report, by, k) if by else None
    if json:
        facts = {"model": str(folder), "dataset": source, "metrics": {**report.summary(), "cold": cold}}
        return print_json(facts | ({"by": sliced.summary()} if sliced else {}))
    echo(f"model {folder}   data {source}   {report.users:,} users, {report.rows:,} test ratings")
    if report.n_skipped:
        echo(f"left out: {report.n_skipped:,} test ratings of unknown users, or of items without a training rating")
    return tables.print_slices(sliced, report) if sliced else _print_report(report, cold)


def _print_report(report: Report, cold: dict[str, Any] | None) -> None:
    rows = []
    for name, value in report.metrics.items():
        low, high = report.low.get(name), report.high.get(name)
        rows.append([name, f"{value:.4f}", "" if low is None else f"{low:.4f} to {high:.4f}"])
    print_table(["metric", "value", "95 % interval"], rows, "value")
    if cold:
        tables.print_cold({**cold, "baselines": {}})


def _load_trained_on(data: DataConfig, named: bool) -> Dataset:
    """Load the data of the training, or those that an option named. Raises DataError that says what to do."""
    from recsys_embed.sources.load import load_dataset, load_further

    try:
        return (load_further if named else load_dataset)(data.dataset, data)
    except DataError as error:
        if named:
            raise
        raise DataError(
            f"{error}: the model was trained on it; name the data with --dataset where they are now, or other test "
            "ratings with --test"
        ) from None


def _test_ratings(
    recommender: Recommender, dataset: str | None, test: str | None, offline: bool
) -> tuple[Ratings, str]:
    """Return the test ratings that the options name, by default those of the model's own split, and their source."""
    from recsys_embed.evaluation.evaluate import without_hidden
    from recsys_embed.evaluation.held_out import data_config_of, held_out_test
    from recsys_embed.sources.load import load_further

    data = dataclasses.replace(data_config_of(recommender), offline=offline)
    if "dataset" not in recommender.metadata and dataset is None and test is None:
        raise SettingError("this model does not say which data it was trained on: name test ratings with --test")
    if dataset is not None:
        data = dataclasses.replace(data, dataset=dataset, valid=None, test=None)
    if test is not None:
        # The item table is in the model; its file need not be where the training had it.
        of_training = ("valid", "test", "extra_ratings", "weight_col", "event_weights", "hide", "items", "item_columns")
        plain: dict[str, Any] = dict.fromkeys(of_training)
        loaded = load_further(test, dataclasses.replace(data, dataset=test, **plain))
        ratings = (loaded.ratings if loaded.log is None else loaded.log.targets()).positives(data.min_rating)
        new = without_hidden(recommender, ratings)
        # Events repeat themselves. Of ratings, those that are mostly known are the training's own file.
        if len(new) < len(ratings) and (loaded.log is not None or len(ratings) < 2 * len(new)):
            message = "left out: %s of %s test ratings, of items that the users had in training, which lists leave out"
            log.info(message, f"{len(ratings) - len(new):,}", f"{len(ratings):,}")
            ratings = new
    else:
        ratings = held_out_test(recommender, _load_trained_on(data, named=dataset is not None), data)
    if not len(ratings):
        raise DataError("the model was trained with nothing held out for test: name test ratings with --test")
    return ratings, test or data.dataset
