"""Models that MLflow keeps, read back: which version a name means now, and its folder on this machine."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from recsys_embed.errors import DataError, UnknownId
from recsys_embed.sources.download import cache_dir
from recsys_embed.tracking.mlflow_tracker import resolve_tracking_uri
from recsys_embed.tracking.runs import client_of

_FORM = re.compile(
    r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))|runs:/(?P<run>[0-9a-f]{32})/(?P<model>[^/]+)"
)
_FORMS = "models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN/model"


def is_model_uri(text: str) -> bool:
    """Tell whether a text names a model of MLflow, not a folder."""
    return text.startswith(("models:/", "runs:/"))


def version_of(uri: str, tracking_uri: str | None = None) -> str:
    """Return the version that is meant now: the number of a registered model's, the id of a run's model.

    It costs one question to the store, so that it can be asked again and again. tracking_uri: of the store; by default
    as in a training. Raises UnknownId where there is no such model, DataError where the store cannot be read.
    """
    with client_of(resolve_tracking_uri(tracking_uri)) as client:
        return _meant(client, uri)[0]


def model_folder(uri: str, tracking_uri: str | None = None) -> tuple[Path, str]:
    """Return the model folder that is meant by "models:/NAME@ALIAS", "models:/NAME/3" or "runs:/RUN/model", and its
    version, as `version_of` has it.

    Where MLflow keeps its files on this machine, the folder is MLflow's own and must not be written to; else it is
    fetched, once, into the user's cache. Raises UnknownId and DataError, as `version_of`.
    """
    store = resolve_tracking_uri(tracking_uri)
    with client_of(store) as client:
        version, source = _meant(client, uri)
        if source.startswith("models:/"):
            source = client.get_logged_model(source.removeprefix("models:/")).artifact_location
        folder = _local(source) or _fetched(source, store)
    found = [manifest.parent for manifest in folder.glob("artifacts/*/manifest.json")]
    if len(found) != 1:
        raise DataError(f"{uri} is no model of recsys-embed: it has no model folder among its files")
    return found[0], version


def _meant(client: Any, uri: str) -> tuple[str, str]:
    """Return the version and the source of a model: "models:/ID" of a logged model, or where its files are."""
    from mlflow.exceptions import MlflowException

    form = _FORM.fullmatch(uri)
    if form is None:
        raise UnknownId(f"{uri!r} names no model of MLflow: {_FORMS} does")
    if form["run"]:
        return _of_run(client, form["run"], form["model"])
    try:
        if form["alias"]:
            found = client.get_model_version_by_alias(form["name"], form["alias"])
        else:
            found = client.get_model_version(form["name"], form["version"])
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
            raise
        raise UnknownId(
            f"{uri} is not registered in MLflow: recsys train --register NAME@ALIAS registers one"
        ) from None
    return str(found.version), f"models:/{found.model_id}" if found.model_id else found.source


def _of_run(client: Any, run: str, name: str) -> tuple[str, str]:
    from mlflow.exceptions import MlflowException

    try:
        experiment = client.get_run(run).info.experiment_id
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UnknownId(f"there is no run {run} in MLflow") from None
    found = client.search_logged_models([experiment], f"source_run_id = '{run}'")
    ids = [model.model_id for model in found if model.name == name]  # the newest first
    if not ids:
        raise UnknownId(f"the run {run} has no model {name!r}")
    return ids[0], f"models:/{ids[0]}"


def _local(source: str) -> Path | None:
    """Return the folder of files that are on this machine, else None."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    scheme = source.partition(":")[0] if "://" in source or ":/" in source else ""
    folder = Path(local_file_uri_to_path(source)) if scheme in ("", "file") else None
    return folder if folder is not None and folder.is_dir() else None


def _fetched(source: str, store: str) -> Path:
    """Fetch files into the cache, whole or not at all, and return their folder. What bears one name never changes."""
    import mlflow

    folder = cache_dir() / "mlflow" / hashlib.sha256(source.encode()).hexdigest()[:32]
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        whole = mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=scratch, tracking_uri=store)
        try:
            os.rename(whole, folder)
        except OSError:
            if not folder.is_dir():  # else somebody was faster
                raise
    return folder
