"""What MLflow gets of a training: a run with a name, numbers, data, the model, a description, pictures and a map."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from recsys_embed import __version__
from recsys_embed.config.fields import short_name
from recsys_embed.config.settings import DataConfig, RunConfig, TuneConfig
from recsys_embed.data.splits import Split
from recsys_embed.evaluation.training_report import TrainingReport
from recsys_embed.experiment import mlflow_model as pyfunc
from recsys_embed.recommender import Recommender
from recsys_embed.state.folder import PER_USER
from recsys_embed.tracking.mlflow_tracker import MLflowTracker
from recsys_embed.tracking.tracker import Tracker

log = logging.getLogger("recsys_embed")

# Items of which a map is drawn without being asked for: it takes a few seconds.
_MAPPED = 2_000


def tracker_of(
    folder: Path, run: RunConfig | TuneConfig, facts: dict[str, Any], device: str, run_id: str | None = None
) -> Tracker:
    """Return the tracker that the settings ask for; its run bears the name of the model's (or study's) folder.

    run_id: of a run that goes on.
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
    experiment = run.experiment or short_name(facts["dataset"])
    return MLflowTracker(run.tracking_uri, experiment, tags, folder.name, run_id)


def flatten_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the metrics of all parts as one level: "test/ndcg_at_10", "baselines/ease/ndcg_at_10"."""
    found: dict[str, float] = {}

    def walk(prefix: str, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                if name != "intervals":
                    walk(f"{prefix}{name}/", value)
            elif isinstance(value, int | float):
                found[prefix + name] = float(value)

    walk("", metrics)
    return found


def log_model_artifacts(
    tracker: Tracker, recommender: Recommender, folder: Path, split: Split, data: DataConfig, run: RunConfig
) -> None:
    """Give the tracker what a finished training leaves: the data, the model, its card and its facts."""
    parts = dict(zip(("training", "validation", "test"), split, strict=True))
    tracker.inputs({part: rows.frame() for part, rows in parts.items()}, short_name(data.dataset), data.dataset)
    # Without the title: the run's name stands over it.
    tracker.describe(recommender.card().partition("\n\n")[2])
    for name in ("README.md", "model.json", *([PER_USER] if recommender.per_user is not None else [])):
        tracker.artifact(folder / name)
    asked = pl.DataFrame({"user_id": [str(recommender.users.ids([0])[0])], "k": pl.Series([5], dtype=pl.Int64)})
    requirements = [f"recsys-embed=={__version__}", *(f"{n}=={_version(n)}" for n in ("numpy", "polars", "pandas"))]
    tracker.model(folder, Path(pyfunc.__file__), asked, pyfunc.signature, requirements)
    if run.register:
        tracker.register(run.register)


def draw(tracker: Tracker, recommender: Recommender, folder: Path, measured: TrainingReport, run: RunConfig) -> None:
    """Give the tracker pictures of the training. They are an extra: what fails here fails alone."""
    if tracker.run_id is None:
        if run.map:
            log.warning("no map was drawn: it goes to MLflow, which this run has not; `recsys map` draws one")
        return
    try:
        from recsys_embed.exports.write import export
        from recsys_embed.maps.draw import draw_map
        from recsys_embed.plots.training import draw_training

        with tempfile.TemporaryDirectory() as scratch:
            for picture in draw_training(recommender, measured, Path(scratch)):
                tracker.artifact(picture, "pictures")
            if run.map or (run.map is None and len(recommender.items) <= _MAPPED):
                for file in draw_map(recommender, Path(scratch) / "map", title=folder.name).files:
                    tracker.artifact(file, "map")
                if recommender.model.dim > 1:  # the projector shows no vectors of one number
                    for file in sorted(export(recommender, "projector", Path(scratch) / "projector").iterdir()):
                        tracker.artifact(file, "projector")
    except Exception as error:
        log.warning("the training is kept, but pictures of it could not be drawn (%s)", error)


def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _git(*words: str) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=5, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""
