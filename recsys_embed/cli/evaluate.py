"""recsys evaluate: how good a model is on held-out ratings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys_embed.cli.options import JSON, MODEL
from recsys_embed.cli.output import say, say_json, say_table
from recsys_embed.config.settings import DataConfig, RunConfig
from recsys_embed.errors import DataError, SettingError

if TYPE_CHECKING:
    from recsys_embed.data.ratings import Ratings
    from recsys_embed.recommender import Recommender
from recsys_embed.cli.train import _say_cold


def evaluate(
    dataset: Annotated[
        str | None, typer.Option(help="Data set or file. (default: what the model was trained on)")
    ] = None,
    test: Annotated[str | None, typer.Option(help="File of test ratings. (default: the model's own split)")] = None,
    ks: Annotated[str, typer.Option(help="List lengths that the metrics are taken at.")] = RunConfig.ks,
    per_user: Annotated[
        str | None, typer.Option(help="Write every user's metrics to this .parquet, .csv or .jsonl file.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Measure in parts: popularity, activity, or a column of the item table (genres, year)."),
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(help="Instead: what the vectors know: a column of the item table (genres, year), or links."),
    ] = None,
    k: Annotated[int, typer.Option("--k", help="Length of the lists of --by.")] = 10,
    model: MODEL = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    json: JSON = False,
) -> None:
    """Measure a model on held-out ratings: all items ranked, everything that it was fitted on left out.

    Without options it scores the test part of the split that the model was trained with.

    Example: recsys evaluate --by popularity
    """
    from recsys_embed.cli import evaluate_tables as parts
    from recsys_embed.cli.similar import load
    from recsys_embed.evaluation import slices
    from recsys_embed.evaluation.cold_start import evaluate_cold
    from recsys_embed.evaluation.evaluate import evaluate

    if by is not None and probe is not None:
        raise SettingError("--by and --probe ask for different tables: give one of them")
    if k < 1:
        raise SettingError(f"--k must be at least 1, got {k}")
    lengths = RunConfig(ks=ks).lengths
    recommender, folder = load(model)
    if probe is not None:
        return parts.probe(recommender, folder, probe, lambda: _test_of(recommender, dataset, test, offline)[0], json)
    if by is not None:
        slices.check_name(recommender.table, by)
    given, source = _test_of(recommender, dataset, test, offline)
    report = evaluate(recommender, given, sorted({*lengths, k}) if by else lengths)
    cold = evaluate_cold(recommender, given)
    if per_user:
        from recsys_embed.storage.table_files import write_table

        write_table(report.per_user, Path(per_user))
    part = slices.slices(recommender, given, report, by, k) if by else None
    if json:
        facts = {"model": str(folder), "dataset": source, "metrics": {**report.summary(), "cold": cold}}
        return say_json(facts | ({"by": part.summary()} if part else {}))
    say(f"model {folder}   data {source}   {report.users:,} users, {report.rows:,} test ratings")
    if report.left_out:
        say(f"left out: {report.left_out:,} test ratings of unknown users, or of items without a training rating")
    if part:
        return parts.say_slices(part, report)
    value = {n: f"{v:.4f}" for n, v in report.metrics.items()}
    rows_ = [[n, v, _span(report.low.get(n), report.high.get(n))] for n, v in value.items()]
    say_table(["metric", "value", "95 % interval"], rows_, "value")
    if cold:
        _say_cold({"cold": {**cold, "baselines": {}}})
    return None


def _test_of(recommender: Recommender, dataset: str | None, test: str | None, offline: bool) -> tuple[Ratings, str]:
    """Return the test ratings that a command names, by default those of the model's own split, and their source."""
    from recsys_embed.sources.load import load_dataset

    data = dataclasses.replace(_own_data(recommender), offline=offline)
    if "dataset" not in recommender.metadata and dataset is None and test is None:
        raise SettingError("this model does not say what it was trained on: name test ratings with --test")
    if dataset is not None:
        data = dataclasses.replace(data, dataset=dataset, valid=None, test=None)
    if test is not None:
        given = load_dataset(test, dataclasses.replace(data, dataset=test, valid=None, test=None)).ratings
    else:
        given = load_dataset(data.dataset, data).split(data).test
        if "continued" in recommender.metadata:  # what the model before it was fitted on went to its training
            given = given.take(~recommender.knows(given))
    given = given.positives(data.min_rating)
    if not len(given):
        raise DataError("the model was trained with nothing held out for test: name test ratings with --test")
    return given, test or data.dataset


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None else f"{low:.4f} to {high:.4f}"


def _own_data(recommender: Recommender) -> DataConfig:
    """Return the data settings that the model was trained with."""
    kept = recommender.metadata.get("settings", {})
    names = {f.name for f in dataclasses.fields(DataConfig)}
    return DataConfig(**{name: value for name, value in kept.items() if name in names})
