"""Publish a training to MLflow: metrics, data, the model, a description, pictures and a map."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import math
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from recsys_embed.config.fields import short_name
from recsys_embed.config.settings import DataConfig, RunConfig
from recsys_embed.config.tuning import TuneConfig
from recsys_embed.data.splits import Split
from recsys_embed.evaluation.training_report import TrainingReport
from recsys_embed.experiment import mlflow_model
from recsys_embed.recommender import Recommender
from recsys_embed.state.folder import PER_USER
from recsys_embed.state.verdict import verdict
from recsys_embed.tracking.mlflow_tracker import MLflowTracker, lease_tag
from recsys_embed.tracking.tracker import Tracker
from recsys_embed.version import __version__

log = logging.getLogger("recsys_embed")

# Most items for which a map is drawn by default: it takes a few seconds.
_MAX_MAP_ITEMS = 2_000


def tracker_of(
    folder: Path,
    lease: Path | None,
    run: RunConfig | TuneConfig,
    facts: dict[str, Any],
    device: str,
    run_id: str | None = None,
) -> Tracker:
    """Return the tracker that the settings ask for; its run is named like the model's (or study's) folder.

    lease: the file of the lease that this process holds meanwhile, or None. run_id: of an existing run to continue.
    """
    if not run.track:
        return Tracker()
    tags = {
        "dataset": facts["dataset"],
        "dataset_digest": facts["digest"],
        "device": device,
        "seed": str(facts["settings"]["seed"]),
        "recsys_embed": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "numpy", "polars")},
    }
    if "command" in facts:
        tags["mlflow.source.name"] = facts["command"]
    commit = _git("rev-parse", "HEAD")
    if commit:
        tags["mlflow.source.git.commit"] = commit
    if lease is not None:
        tags |= lease_tag(lease)
    default = short_name(facts["dataset"])
    return MLflowTracker(run.tracking_uri, run.experiment, tags, folder.name, run_id, default)


# What of each part of the metrics a run shows; the table has the rest.
_HEADLINE_TEST = ("ndcg_at_10", "recall_at_10", "hit_at_10", "mrr_at_10", "coverage_at_10", "users", "rmse", "mae")
_HEADLINE_COLD = ("ndcg_at_10", "recall_at_20", "auc")


def log_metrics(tracker: Tracker, metadata: dict[str, Any]) -> None:
    """Log the verdict as a tag, some 25 metrics that tell the story, and all of them as a table, metrics.json.

    metadata: of the model, with its metrics, seconds and epochs.
    """
    metrics = metadata["metrics"]
    found = verdict(metrics)
    if found is not None:
        tracker.tag("verdict", found.sentence)
    selected = headline_metrics(metrics) | {f"seconds_{name}": value for name, value in metadata["seconds"].items()}
    tracker.metrics(selected | {"epochs": metadata["epochs"]})
    tracker.table(metrics_table(metrics), "metrics")


def headline_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the metrics that tell the story of a training, by the names that MLflow shows: "test/ndcg_at_10".

    Those of lists of 10 on validation, test, liked and cold items, of every baseline and of known and new users the
    NDCG@10, and the difference to the best baseline.
    """
    selected: dict[str, float] = {}
    names = {"valid": ("ndcg_at_10", "rmse"), "test": _HEADLINE_TEST, "liked": ("ndcg_at_10",), "cold": _HEADLINE_COLD}
    for part, wanted in names.items():
        values = metrics.get(part) or {}
        selected |= {f"{part}/{name}": float(values[name]) for name in wanted if name in values}
    for name, values in (metrics.get("baselines") or {}).items():
        selected[f"baselines/{name}/ndcg_at_10"] = values["ndcg_at_10"]
    for name in ("known_users", "new_users"):
        if name in metrics:
            selected[f"{name}/ndcg_at_10"] = metrics[name]["ndcg_at_10"]["this model"]
    windows = metrics.get("windows")
    if windows:
        selected["windows/ndcg_at_10"] = windows["mean"]["this model"]
    found = verdict(metrics)
    if found is not None:
        selected |= {f"difference/{name}": getattr(found, name) for name in ("mean", "low", "high", "p")}
    return selected


def metrics_table(metrics: dict[str, Any]) -> pl.DataFrame:
    """Return all metrics as a table: metric ("baselines/ease/ndcg_at_10"), value, and low and high, the ends of its
    95 % interval, if there is one."""
    rows: list[tuple[str, float, float | None, float | None]] = []

    def walk(prefix: str, values: dict[str, Any]) -> None:
        intervals = values.get("intervals", {})
        for name, value in values.items():
            if isinstance(value, dict):
                if name != "intervals":
                    walk(f"{prefix}{name}/", value)
            elif isinstance(value, int | float) and math.isfinite(value):
                low, high = intervals.get(name, (None, None))
                rows.append((prefix + name, float(value), low, high))

    walk("", metrics)
    kinds = {"metric": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    return pl.DataFrame(rows, kinds, orient="row")


def log_model_artifacts(
    tracker: Tracker, recommender: Recommender, folder: Path, split: Split, data: DataConfig
) -> None:
    """Log what a finished training leaves: the data, the model, its card and its facts."""
    frames = {name: part.frame() for name, part in zip(("training", "validation", "test"), split, strict=True)}
    tracker.inputs(frames, short_name(data.dataset), data.dataset)
    # Without the title: MLflow shows the run's name above it.
    tracker.describe(recommender.card().partition("\n\n")[2])
    for name in ("README.md", "model.json", *([PER_USER] if recommender.per_user is not None else [])):
        tracker.artifact(folder / name)
    example = pl.DataFrame({"user_id": [str(recommender.users.ids([0])[0])], "k": pl.Series([5], dtype=pl.Int64)})
    requirements = [f"recsys-embed=={__version__}", *(f"{n}=={_version(n)}" for n in ("numpy", "polars", "pandas"))]
    code = Path(mlflow_model.__file__).with_name("mlflow_entry.py")
    tracker.model(folder, code, example, mlflow_model.signature, requirements)


def draw(tracker: Tracker, recommender: Recommender, folder: Path, measured: TrainingReport, run: RunConfig) -> None:
    """Log pictures of the training. They are an extra: an error here is only a warning."""
    if tracker.run_id is None:
        if run.map:
            log.warning("no map was drawn: --map needs an MLflow run; `recsys map` draws one without")
        return
    try:
        from recsys_embed.exports.write import export
        from recsys_embed.maps.draw import draw_map
        from recsys_embed.plots.training import draw_training

        with tempfile.TemporaryDirectory() as scratch:
            for picture in draw_training(recommender, measured, Path(scratch)):
                tracker.artifact(picture, "pictures")
            small = len(recommender.items) <= _MAX_MAP_ITEMS and recommender.model.dim > 0
            if run.map or (run.map is None and small):
                for file in draw_map(recommender, Path(scratch) / "map", title=folder.name).files:
                    tracker.artifact(file, "map")
                if recommender.model.dim > 1:  # the projector needs two dimensions or more
                    for file in sorted(export(recommender, "projector", Path(scratch) / "projector").iterdir()):
                        tracker.artifact(file, "projector")
    except Exception as error:
        log.warning("the training is saved, but pictures of it could not be drawn (%s)", error)


def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _git(*args: str) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        result = subprocess.run(["git", *args], capture_output=True, text=True, timeout=5, check=False)
        return result.stdout.strip() if result.returncode == 0 else ""
    return ""
