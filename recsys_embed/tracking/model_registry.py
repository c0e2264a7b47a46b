"""Read models back from MLflow: resolve a model URI to a version, and to a folder on this machine."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from recsys_embed.errors import DataError, UnknownId
from recsys_embed.sources.download import cache_dir
from recsys_embed.tracking.runs import client_of
from recsys_embed.tracking.store import local_files, missing_files, resolve_tracking_uri, sqlite_file

_URI = re.compile(
    r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+|latest))|runs:/(?P<run>[0-9a-f]{32})/(?P<model>[^/]+)"
)
_URI_FORMS = "models:/NAME@ALIAS, models:/NAME/VERSION, models:/NAME/latest or runs:/RUN/model"


def is_model_uri(text: str) -> bool:
    """Return whether a text is an MLflow model URI, not a folder."""
    return text.startswith(("models:/", "runs:/"))


def version_of(uri: str, tracking_uri: str | None = None) -> str:
    """Return the version that a model URI refers to now: a version number of a registered model, or a model id.

    It takes one request to the store, so it is cheap enough for polling. tracking_uri: see `resolve_tracking_uri`.
    Raises UnknownId if there is no such model, DataError if the store cannot be read.
    """
    with client_of(resolve_tracking_uri(tracking_uri)) as client:
        return _resolve(client, uri)[0]


def model_folder(uri: str, tracking_uri: str | None = None) -> tuple[Path, str]:
    """Return the model folder of "models:/NAME@ALIAS", "models:/NAME/3" or "runs:/RUN/model", and its version.

    If MLflow keeps its files on this machine, the folder is MLflow's own and must not be written to. Otherwise it is
    downloaded once into the user's cache. Raises UnknownId and DataError, like `version_of`.
    """
    store = resolve_tracking_uri(tracking_uri)
    with client_of(store) as client:
        version, source = _resolve(client, uri)
        if source.startswith("models:/"):
            source = client.get_logged_model(source.removeprefix("models:/")).artifact_location
        folder = local_files(source, store) or _download(source, store)
        if not folder.is_dir():
            raise missing_files(folder, sqlite_file(store))
    folders = [manifest.parent for manifest in folder.glob("artifacts/*/manifest.json")]
    if len(folders) != 1:
        raise DataError(f"{uri} is not a model of recsys-embed: there is no model folder among its files")
    return folders[0], version


def resolve_folder(model: str, tracking_uri: str | None = None) -> Path:
    """Return the folder of a model that is named by its folder or by its URI. Raises the errors of `model_folder`."""
    return model_folder(model, tracking_uri)[0] if is_model_uri(model) else Path(model)


def registered_runs(tracking_uri: str | None = None) -> dict[str, list[str]]:
    """Return what the model of each run is registered as, by the run's id: "NAME VERSION", and "@ALIAS" for each alias.

    Raises DataError if the store cannot be read.
    """
    found: dict[str, list[str]] = {}
    with client_of(resolve_tracking_uri(tracking_uri)) as client:
        for model in _all_pages(client.search_registered_models):
            aliases = model.aliases or {}
            for version in _all_pages(partial(client.search_model_versions, f"name = '{model.name}'")):
                held = sorted(f"@{alias}" for alias, number in aliases.items() if str(number) == str(version.version))
                found.setdefault(version.run_id, []).append(" ".join((f"{model.name} {version.version}", *held)))
    return found


def _all_pages(search: Callable[..., Any]) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        if not (token := page.token):
            return


def set_alias(name: str, alias: str, version: str, tracking_uri: str | None = None) -> str | None:
    """Give an alias to a version of a registered model, and return the version that had it, or None.

    Raises UnknownId if there is no such version, DataError if the store cannot be read.
    """
    with client_of(resolve_tracking_uri(tracking_uri)) as client:
        _resolve(client, f"models:/{name}/{version}")
        aliases = client.get_registered_model(name).aliases or {}
        client.set_registered_model_alias(name, alias, version)
    before = aliases.get(alias)
    return None if before is None else str(before)


def _resolve(client: Any, uri: str) -> tuple[str, str]:
    """Return the version and the source of a model: "models:/ID" for a logged model, or the location of its files."""
    from mlflow.exceptions import MlflowException

    match = _URI.fullmatch(uri)
    if match is None:
        stage = uri.rpartition("/")[2].lower() in ("production", "staging", "archived", "none")
        note = " (MLflow has no stages any more: aliases do what they did)" * stage
        raise UnknownId(f"{uri!r} is not the URI of an MLflow model: write {_URI_FORMS}{note}")
    if match["run"]:
        return _resolve_run_model(client, match["run"], match["model"])
    try:
        if match["alias"]:
            version = client.get_model_version_by_alias(match["name"], match["alias"])
        elif match["version"] == "latest":
            version = _newest_version(client, match["name"])
        else:
            version = client.get_model_version(match["name"], match["version"])
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
            raise
        raise UnknownId(
            f"{uri} is not registered in MLflow: recsys train --register NAME@ALIAS registers one"
        ) from None
    return str(version.version), f"models:/{version.model_id}" if version.model_id else version.source


def _newest_version(client: Any, name: str) -> Any:
    found = client.search_model_versions(f"name = '{name}'", max_results=1, order_by=["version_number DESC"])
    if not found:
        raise UnknownId(
            f"models:/{name}/latest is not registered in MLflow: recsys train --register {name} registers one"
        )
    return found[0]


def _resolve_run_model(client: Any, run: str, name: str) -> tuple[str, str]:
    from mlflow.exceptions import MlflowException

    try:
        experiment = client.get_run(run).info.experiment_id
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UnknownId(f"there is no run {run} in MLflow") from None
    models = client.search_logged_models([experiment], f"source_run_id = '{run}'")
    ids = [model.model_id for model in models if model.name == name]  # newest first
    if not ids:
        raise UnknownId(f"the run {run} has no model {name!r}")
    return ids[0], f"models:/{ids[0]}"


def _download(source: str, store: str) -> Path:
    """Download files into the cache atomically, unless they are there, and return their folder.

    The files of a source never change, so the cache is never stale.
    """
    import mlflow

    folder = cache_dir() / "mlflow" / hashlib.sha256(source.encode()).hexdigest()[:32]
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        complete = Path(scratch) / "complete"  # the scratch folder itself is closed to others
        complete.mkdir()
        place = str(complete)
        downloaded = mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=place, tracking_uri=store)
        try:
            os.rename(downloaded, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster
                raise
    return folder
