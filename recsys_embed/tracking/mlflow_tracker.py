"""MLflowTracker: a training as an MLflow run. Whatever MLflow does, the training goes on."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec

import polars as pl

from recsys_embed.tracking.tracker import Stop, Tracker

log = logging.getLogger("recsys_embed")

DEFAULT_STORE = "sqlite:///mlflow.db"
_BATCH = 1000  # metrics that MLflow takes in one call
_EVERY = 5.0  # seconds between two deliveries, so that a long run can be watched
_LONGEST = 6000  # characters of a parameter's value

P = ParamSpec("P")


def resolve_tracking_uri(uri: str | None) -> str:
    """Return the store that is meant: the named one, $MLFLOW_TRACKING_URI, or mlflow.db in the current folder.

    The path of a SQLite file is made absolute: MLflow keeps a connection for each name, and would go on with the old
    file where the current folder changes.
    """
    named = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE
    scheme, slashes, path = named.partition(":///")
    return f"{scheme}{slashes}{Path(path).absolute().as_posix()}" if scheme == "sqlite" and path else named


def quiet_mlflow() -> Any:
    """Import MLflow so that it neither chatters nor waits for minutes, and return it."""
    # A server that is down must cost seconds, not MLflow's default of minutes; a setting of the user's stands.
    for name, value in (("HTTP_REQUEST_MAX_RETRIES", "2"), ("HTTP_REQUEST_TIMEOUT", "10")):
        os.environ.setdefault(f"MLFLOW_{name}", value)
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    # Results alone go to stdout; with a server MLflow would print links there.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return mlflow


def reason(error: Exception) -> str:
    """Return the first line of what MLflow, its driver or its server says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _safely(method: Callable[Concatenate[MLflowTracker, P], None]) -> Callable[Concatenate[MLflowTracker, P], None]:
    """Let a method fail once, with one warning, and do nothing from then on."""

    @wraps(method)
    def safe(self: MLflowTracker, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.alive:
            try:
                method(self, *args, **kwargs)
            except Exception as error:  # any failure of the store, its driver or its server
                self.alive = False
                log.warning("MLflow failed (%s): this training goes on untracked from here", reason(error))

    return safe  # type: ignore[return-value]


class MLflowTracker(Tracker):
    """Records one training as one run. Nothing happens before `with`.

    uri: of the store; by default $MLFLOW_TRACKING_URI, else mlflow.db in the current folder.
    experiment: its name. tags: of the run. run_id: of a run that goes on, if the store has it.
    """

    def __init__(
        self,
        uri: str | None,
        experiment: str,
        tags: Mapping[str, str],
        name: str | None = None,
        run_id: str | None = None,
    ) -> None:
        self._goes_on = run_id
        self.uri = resolve_tracking_uri(uri)
        self.experiment, self.tags, self.name = experiment, dict(tags), name
        self.alive = True
        self.logged: str | None = None
        self.waiting: list[Any] = []
        self.delivered = time.monotonic()

    def __enter__(self) -> MLflowTracker:
        self._start()
        return self

    @_safely
    def _start(self) -> None:
        self.mlflow = mlflow = quiet_mlflow()
        self.client = mlflow.MlflowClient(self.uri)
        if self._goes_on:
            with contextlib.suppress(mlflow.MlflowException):
                self.experiment_id = self.client.get_run(self._goes_on).info.experiment_id
                self.client.update_run(self._goes_on, status="RUNNING")
                self.run_id = self._goes_on
                return
        known = self.client.get_experiment_by_name(self.experiment)
        self.experiment_id = known.experiment_id if known else self.client.create_experiment(self.experiment)
        self.run_id = self.client.create_run(self.experiment_id, tags=self.tags, run_name=self.name).info.run_id

    @_safely
    def params(self, values: Mapping[str, Any]) -> None:
        """Record the settings."""
        from mlflow.entities import Param

        params = [Param(name, str(value)[:_LONGEST]) for name, value in values.items()]
        for start in range(0, len(params), 100):
            self.client.log_batch(self.run_id, params=params[start : start + 100])

    @_safely
    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers, a batch at a time; those that are not finite would break MLflow and are left out."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.waiting += [Metric(n, float(v), now, step or 0) for n, v in values.items() if math.isfinite(v)]
        if time.monotonic() - self.delivered > _EVERY or len(self.waiting) >= _BATCH:
            self._deliver()

    def _deliver(self) -> None:
        waiting, self.waiting = self.waiting, []
        for start in range(0, len(waiting), _BATCH):
            self.client.log_batch(self.run_id, metrics=waiting[start : start + _BATCH])
        self.delivered = time.monotonic()

    @_safely
    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Upload a file, into a folder of the run's artifacts or beside all."""
        self.client.log_artifact(self.run_id, str(path), folder)

    @_safely
    def describe(self, text: str) -> None:
        """Set the run's description, in Markdown."""
        self.client.set_tag(self.run_id, "mlflow.note.content", text)

    @_safely
    def inputs(self, frames: Mapping[str, pl.DataFrame], name: str, source: str) -> None:
        """Record the data: one frame for each of "training", "validation", "test"."""
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.polars_dataset import PolarsDataset
        from mlflow.entities import DatasetInput, InputTag

        origin = CodeDatasetSource({"recsys_embed.dataset": source})
        found = [
            DatasetInput(
                PolarsDataset(frame, origin, name=name)._to_mlflow_entity(), [InputTag("mlflow.data.context", part)]
            )
            for part, frame in frames.items()
            if not frame.is_empty()
        ]
        self.client.log_inputs(self.run_id, datasets=found)

    @_safely
    def model(
        self, bundle: Path, code: Path, example: pl.DataFrame, signature: Callable[[], Any], requirements: list[str]
    ) -> None:
        """Log a bundle as a model that `mlflow.pyfunc.load_model` and `mlflow models serve` answer with.

        code: the models-from-code file around the bundle. example: an input. signature: makes MLflow's signature.
        """
        with self._meant(), warnings.catch_warnings():
            # Its advice is for integers that may be missing.
            warnings.simplefilter("ignore")
            with self.mlflow.start_run(run_id=self.run_id, log_system_metrics=False):
                logged = self.mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(code),
                    artifacts={"bundle": str(bundle)},
                    signature=signature(),
                    input_example=example.to_pandas(),
                    pip_requirements=requirements,
                )
        self.logged = logged.model_id

    @contextlib.contextmanager
    def _meant(self) -> Iterator[None]:
        """Make MLflow's functions mean our store; not all that they do goes by a client."""
        before = self.mlflow.get_tracking_uri() if self.mlflow.is_tracking_uri_set() else None
        self.mlflow.set_tracking_uri(self.uri)
        try:
            yield
        finally:
            self.mlflow.set_tracking_uri(before)

    def register(self, wanted: str) -> None:
        """Register the logged model under NAME, and give it the alias of NAME@ALIAS; what fails fails alone."""
        name, _, alias = wanted.partition("@")
        if self.logged is None:
            return log.warning("the model was not registered as %s: MLflow has not got it", wanted)
        try:
            with contextlib.suppress(self.mlflow.MlflowException):  # it is there already, or the next line says why not
                self.client.create_registered_model(name)
            source = f"models:/{self.logged}"
            with self._meant():
                version = self.client.create_model_version(name, source, self.run_id, model_id=self.logged).version
            if alias:
                self.client.set_registered_model_alias(name, alias, version)
        except Exception as error:  # any failure of the store, its driver or its server
            return log.warning("the model was not registered as %s: MLflow failed (%s)", wanted, reason(error))
        return log.info("registered as models:/%s/%s%s", name, version, f", models:/{name}@{alias}" if alias else "")

    def child(self, name: str, tags: Mapping[str, str]) -> Tracker:
        """Return the tracker of a run that MLflow shows below this one, not begun; of nothing where MLflow failed."""
        if not self.alive or self.run_id is None:
            return Tracker()
        own = {n: t for n, t in self.tags.items() if n != "mlflow.source.name"}
        return MLflowTracker(self.uri, self.experiment, {**own, **tags, "mlflow.parentRunId": self.run_id}, name)

    def mark_killed(self, run_id: str) -> None:
        """Mark a run as killed that was left open by a program that is no more, if this store has it."""
        if self.alive:
            with contextlib.suppress(Exception):
                self.client.set_terminated(run_id, "KILLED")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.run_id is None:
            return
        # Whatever failed before, what is still waiting is delivered if it can be, and the run is ended.
        with contextlib.suppress(Exception):
            self._deliver()
        with contextlib.suppress(Exception):
            status = "FINISHED" if kind is None else "KILLED" if kind in (KeyboardInterrupt, Stop) else "FAILED"
            self.client.set_terminated(self.run_id, status)
