"""MLflowTracker: records a training as an MLflow run. A failure of MLflow never stops the training."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec

import polars as pl

from recsys_embed.config.addresses import without_password
from recsys_embed.errors import DataError, SettingError
from recsys_embed.storage.lease import is_held, named_place, place_of
from recsys_embed.tracking.store import open_store, quiet_mlflow, reason, resolve_tracking_uri
from recsys_embed.tracking.tracker import Stop, Tracker

log = logging.getLogger("recsys_embed")

_BATCH_SIZE = 1000  # most metrics that MLflow takes in one call
_FLUSH_INTERVAL_S = 5.0  # seconds between two uploads, so that a long run can be watched
_MAX_PARAM_LENGTH = 6000  # characters of a parameter's value

P = ParamSpec("P")


# The tags of a run that say by which file a process holds it, HOST PATH, and in which folder: `storage.lease`'s name.
_LEASE, _PLACE = "recsys_embed.lease", "recsys_embed.lease_place"


# The runs that this process has started.
_OWN: set[str] = set()


def lease_tag(path: Path) -> dict[str, str]:
    """Return the tags of a run that this process holds by a lease, see `storage.lease`.

    Without a name for its folder nobody could tell whether the process lives: then there are none.
    """
    place = named_place(path.absolute().parent)
    return {} if place is None else {_LEASE: f"{platform.node()} {path.absolute()}", _PLACE: place}


def _is_abandoned(tags: Mapping[str, str]) -> bool:
    """Return whether the process that held a run is known to have ended: on this machine, and in the same folder.

    A missing file alone says nothing: the folder may be another one, or not be mounted here.
    """
    host, _, name = tags.get(_LEASE, "").partition(" ")
    path, place = Path(name), tags.get(_PLACE)
    is_here = host == platform.node() and place is not None and place == place_of(path.parent)
    return is_here and not is_held(path)


def _safely(method: Callable[Concatenate[MLflowTracker, P], None]) -> Callable[Concatenate[MLflowTracker, P], None]:
    """Wrap a method so that its first failure logs a warning and disables the tracker."""

    @wraps(method)
    def safe(self: MLflowTracker, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.alive:
            try:
                method(self, *args, **kwargs)
            except SettingError:  # what the user asked for cannot be, and nothing is trained yet
                raise
            except Exception as error:  # any failure of the store, its driver or its server
                self.alive = False
                log.warning("MLflow failed (%s): this training goes on untracked from here", reason(error))

    return safe  # type: ignore[return-value]


class MLflowTracker(Tracker):
    """Records one training as one run. Nothing happens before `with`.

    uri: tracking URI; see `resolve_tracking_uri` for the default. experiment: name of the experiment; None: that of the
    caller's own run, if one is active in this store, or of $MLFLOW_EXPERIMENT_ID or $MLFLOW_EXPERIMENT_NAME, or
    `default`. tags: tags of the run. name: name of the run. run_id: a run to resume, if the store has it.
    Within a run of the caller's, the run is its child. `with` raises SettingError for an experiment that was deleted,
    or a store that takes no runs.
    """

    def __init__(
        self,
        uri: str | None,
        experiment: str | None,
        tags: Mapping[str, str],
        name: str | None = None,
        run_id: str | None = None,
        default: str = "Default",
    ) -> None:
        self._resumed_id, self._default = run_id, default
        self.uri = resolve_tracking_uri(uri)
        self.experiment, self.tags, self.name = experiment, dict(tags), name
        self.alive = True
        self.logged: str | None = None
        self.pending: list[Any] = []
        self.last_flush = time.monotonic()

    def __enter__(self) -> MLflowTracker:
        self._start()
        return self

    @_safely
    def _start(self) -> None:
        self.mlflow = mlflow = quiet_mlflow()
        self.client = open_store(self.uri)
        if self._resumed_id:
            with contextlib.suppress(mlflow.MlflowException):
                self.experiment_id = self.client.get_run(self._resumed_id).info.experiment_id
                self._hold_again(self._resumed_id)
                self.client.update_run(self._resumed_id, status="RUNNING")
                self.run_id = self._resumed_id
                _OWN.add(self.run_id)
                return
        outer = self._outer_run()
        if outer is not None:
            self.tags.setdefault("mlflow.parentRunId", outer.info.run_id)
        self.experiment_id = self._find_experiment(outer)
        self._end_abandoned()
        self.run_id = self.client.create_run(self.experiment_id, tags=self.tags, run_name=self.name).info.run_id
        _OWN.add(self.run_id)

    def _hold_again(self, run_id: str) -> None:
        """Replace the lease of a run that is resumed, before it runs: by the old one it would be taken for dead."""
        for name in (_LEASE, _PLACE):
            with contextlib.suppress(self.mlflow.MlflowException):  # it has none
                self.client.delete_tag(run_id, name)
        for name in (_PLACE, _LEASE):
            if name in self.tags:
                self.client.set_tag(run_id, name, self.tags[name])

    def _end_abandoned(self) -> None:
        """End the runs whose processes were killed on this machine, which would be shown as running for ever."""
        with contextlib.suppress(Exception):  # it is not what the training is about
            experiments = [e.experiment_id for e in self.client.search_experiments()]
            held = f"attributes.status = 'RUNNING' and tags.`{_LEASE}` LIKE '%'"
            for run in self.client.search_runs(experiments, held, max_results=10_000):
                # One that has ended meanwhile gave its lease back after that, so its state is read after the lease's.
                dead = _is_abandoned(run.data.tags) or self._is_of_one_before(run)
                if dead and self.client.get_run(run.info.run_id).info.status == "RUNNING":
                    self.client.set_terminated(run.info.run_id, "KILLED")
                    log.info("the run %s was left open by a process that was killed: ended", run.info.run_name)

    def _is_of_one_before(self, run: Any) -> bool:
        """Return whether a run was held by the lease that this process holds now, by a process before it."""
        held = self.tags.get(_LEASE)
        return held is not None and run.data.tags.get(_LEASE) == held and run.info.run_id not in _OWN

    def _outer_run(self) -> Any:
        """Return the run that the caller has started in this store, or None."""
        run = self.mlflow.active_run()
        return run if run is not None and resolve_tracking_uri(self.mlflow.get_tracking_uri()) == self.uri else None

    def _find_experiment(self, outer: Any) -> str:
        """Return the id of the experiment, which is made if there is none of its name."""
        if self.experiment is None:
            if outer is not None:
                return str(outer.info.experiment_id)
            if experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID"):
                return experiment_id
        name = self.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or self._default
        existing = self.client.get_experiment_by_name(name)
        if existing is None:
            return str(self.client.create_experiment(name))
        if existing.lifecycle_stage == "deleted":
            raise SettingError(
                f"the MLflow experiment {name!r} was deleted: name another with --experiment, or restore it: mlflow "
                f"experiments restore --experiment-id {existing.experiment_id}"
            )
        return str(existing.experiment_id)

    @_safely
    def params(self, values: Mapping[str, Any]) -> None:
        """Record the settings."""
        from mlflow.entities import Param

        params = [Param(name, str(value)[:_MAX_PARAM_LENGTH]) for name, value in values.items()]
        for start in range(0, len(params), 100):
            self.client.log_batch(self.run_id, params=params[start : start + 100])

    @_safely
    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record metrics in batches. Values that are not finite would break MLflow, so they are left out."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.pending += [Metric(n, float(v), now, step or 0) for n, v in values.items() if math.isfinite(v)]
        if time.monotonic() - self.last_flush > _FLUSH_INTERVAL_S or len(self.pending) >= _BATCH_SIZE:
            self._flush()

    def _flush(self) -> None:
        pending, self.pending = self.pending, []
        for start in range(0, len(pending), _BATCH_SIZE):
            self.client.log_batch(self.run_id, metrics=pending[start : start + _BATCH_SIZE])
        self.last_flush = time.monotonic()

    @_safely
    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Upload a file to the run's artifacts, into a folder or to the top level."""
        self.client.log_artifact(self.run_id, str(path), folder)

    @_safely
    def table(self, frame: pl.DataFrame, name: str) -> None:
        """Upload a table, which MLflow's pages show as one."""
        self.client.log_table(self.run_id, frame.to_dict(as_series=False), f"{name}.json")

    @_safely
    def tag(self, name: str, value: str) -> None:
        """Set a tag of the run."""
        self.client.set_tag(self.run_id, name, value)

    @_safely
    def describe(self, text: str) -> None:
        """Set the description of the run, in Markdown."""
        self.client.set_tag(self.run_id, "mlflow.note.content", text)

    @_safely
    def inputs(self, frames: Mapping[str, pl.DataFrame], name: str, source: str) -> None:
        """Record the data sets: one frame for each of "training", "validation" and "test"."""
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.polars_dataset import PolarsDataset
        from mlflow.entities import DatasetInput, InputTag

        origin = CodeDatasetSource({"recsys_embed.dataset": source})
        datasets = [
            DatasetInput(
                PolarsDataset(frame, origin, name=name)._to_mlflow_entity(), [InputTag("mlflow.data.context", split)]
            )
            for split, frame in frames.items()
            if not frame.is_empty()
        ]
        self.client.log_inputs(self.run_id, datasets=datasets)

    @_safely
    def model(
        self, bundle: Path, code: Path, example: pl.DataFrame, signature: Callable[[], Any], requirements: list[str]
    ) -> None:
        """Log a model folder as an MLflow model, for `mlflow.pyfunc.load_model` and `mlflow models serve`.

        code: the models-from-code file that wraps the folder. example: an input. signature: returns MLflow's signature.
        """
        with self._as_current_store(), warnings.catch_warnings():
            # MLflow warns about integer columns in case they have missing values; these have none.
            warnings.simplefilter("ignore")
            with self.mlflow.start_run(run_id=self.run_id, nested=True, log_system_metrics=False):
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
    def _as_current_store(self) -> Iterator[None]:
        """Set MLflow's global tracking URI to this store, since not all its functions take a client."""
        before = self.mlflow.get_tracking_uri() if self.mlflow.is_tracking_uri_set() else None
        self.mlflow.set_tracking_uri(self.uri)
        try:
            yield
        finally:
            self.mlflow.set_tracking_uri(before)

    def check_register(self) -> None:
        """See `Tracker`: the store must take registered models."""
        problem = None if self.alive else "MLflow failed"
        if self.alive:
            try:
                self.client.search_registered_models(max_results=1)
            except Exception as error:  # any failure of the store, its driver or its server
                problem = f"MLflow failed ({reason(error)})"
        if problem:
            raise DataError(
                f"no model can be registered in {without_password(self.uri)}: {problem}; nothing was trained"
            )

    def register(self, target: str) -> str | None:
        """Register the logged model as NAME or NAME@ALIAS. A failure does not disable the tracker."""
        name, _, alias = target.partition("@")
        if self.logged is None:
            return "MLflow has not got it"
        try:
            with contextlib.suppress(
                self.mlflow.MlflowException
            ):  # it exists already, or the next call fails with the reason
                self.client.create_registered_model(name)
            source = f"models:/{self.logged}"
            with self._as_current_store():
                version = self.client.create_model_version(name, source, self.run_id, model_id=self.logged).version
            if alias:
                self.client.set_registered_model_alias(name, alias, version)
        except Exception as error:  # any failure of the store, its driver or its server
            return f"MLflow failed ({reason(error)})"
        log.info("registered as models:/%s/%s%s", name, version, f", models:/{name}@{alias}" if alias else "")
        return None

    def child(self, name: str, tags: Mapping[str, str]) -> Tracker:
        """Return the tracker of a nested run, not started yet; one that does nothing if MLflow failed."""
        if not self.alive or self.run_id is None:
            return Tracker()
        inherited = {n: t for n, t in self.tags.items() if n != "mlflow.source.name"}
        all_tags = {**inherited, **tags, "mlflow.parentRunId": self.run_id}
        return MLflowTracker(self.uri, self.experiment, all_tags, name, default=self._default)

    def mark_killed(self, run_id: str) -> None:
        """Mark a run that a dead process left open as killed, if this store has it."""
        if self.alive:
            with contextlib.suppress(Exception):
                self.client.set_terminated(run_id, "KILLED")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.run_id is None:
            return
        # Even after a failure, try to upload pending metrics and to end the run.
        with contextlib.suppress(Exception):
            self._flush()
        with contextlib.suppress(Exception):
            status = "FINISHED" if kind is None else "KILLED" if kind in (KeyboardInterrupt, Stop) else "FAILED"
            self.client.set_terminated(self.run_id, status)
