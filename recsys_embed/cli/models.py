"""recsys models and recsys ui: list trained models, and open MLflow's pages."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys_embed.cli.options import JSON, STORE
from recsys_embed.cli.output import echo, print_json, print_table
from recsys_embed.errors import SettingError

log = logging.getLogger("recsys_embed")


def list_models(
    folder: Annotated[Path, typer.Option(help="Where the models are.")] = Path("models"),
    alias: Annotated[
        str | None, typer.Option(metavar="NAME@ALIAS=VERSION", help="Give the alias to a version, an earlier one say.")
    ] = None,
    uri: STORE = None,
    json: JSON = False,
) -> None:
    """List the trained models of a folder, the newest first, with their versions and aliases in MLflow.

    Example: recsys models --alias shop@champion=3
    """
    from recsys_embed.storage.model_folders import list_model_folders

    if alias is not None:
        return _give_alias(alias, uri, json)
    models: list[dict[str, Any]] = []
    listed = list_model_folders(folder)
    registered = _registered_as([facts for _, facts in listed], uri)
    for path, facts in listed:
        settings, metrics = facts.get("settings", {}), facts.get("metrics", {})
        models.append(
            {
                "model": str(path),
                "created": facts.get("created"),
                "dataset": facts.get("dataset"),
                "loss": settings.get("loss"),
                "dim": settings.get("dim"),
                "ndcg_at_10": (metrics.get("test") or {}).get("ndcg_at_10"),
                "production": "production" in facts,
                "registered": registered.get(facts.get("run_id") or "", []),
            }
        )
    if json:
        return print_json({"models": models})
    if not models:
        return echo(f"there is no model in {folder}/ yet: recsys train makes one")
    names = list(models[0])
    return print_table(names, [[_cell(v) for v in m.values()] for m in models], "dim ndcg_at_10")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, bool):
        return "yes" if value else ""
    return ", ".join(value) if isinstance(value, list) else str(value or "")[:60]


def _registered_as(models: list[dict[str, Any]], uri: str | None) -> dict[str, list[str]]:
    """Return what models are registered as, by the id of their run; MLflow is asked only where one was to be."""
    if not any(facts.get("settings", {}).get("register") for facts in models):
        return {}
    from recsys_embed.errors import DataError
    from recsys_embed.tracking.model_registry import registered_runs

    try:
        return registered_runs(uri)
    except DataError as error:
        log.warning("versions and aliases are left out: %s", error)
        return {}


def _give_alias(wanted: str, uri: str | None, json: bool) -> None:
    match = re.fullmatch(r"([^/:@]+)@([\w-]+)=(\d+)", wanted)
    if match is None:
        raise SettingError(f"--alias must be NAME@ALIAS=VERSION, such as shop@champion=3, got {wanted}")
    from recsys_embed.tracking.model_registry import set_alias

    name, alias, version = match.groups()
    before = set_alias(name, alias, version, uri)
    if json:
        return print_json({"name": name, "alias": alias, "version": version, "before": before})
    return echo(f"models:/{name}@{alias} is version {version}" + (f", and was {before}" if before else ""))


def ui(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65_535)] = 5000,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the runs in the browser too.")] = False,
    uri: STORE = None,
) -> None:
    """Serve MLflow's pages on this folder's runs, on 127.0.0.1 only. Ctrl-C ends them.

    The address that it prints is that of the newest run's experiment: MLflow's own start page is about something else.
    """
    import subprocess
    import sys

    from recsys_embed.tracking.runs import newest_experiment
    from recsys_embed.tracking.store import open_store, resolve_tracking_uri, sqlite_file

    store = resolve_tracking_uri(uri)
    if sqlite_file(store) is not None:
        open_store(store)  # MLflow's workers would make it all at once
    experiment = newest_experiment(store)
    address = f"http://127.0.0.1:{port}/#/experiments"
    if experiment is not None:
        address += f"/{experiment}/runs?workflowType=machine_learning"
    echo(f"{address}   store {store}" + ("" if experiment else "   (no runs yet: recsys train makes one)"))
    sys.stdout.flush()
    if open_browser:
        subprocess.Popen([sys.executable, "-m", "recsys_embed.cli.open_page", address])
    server = ["-m", "mlflow", "ui", "--backend-store-uri", store, "--host", "127.0.0.1", "--port", str(port)]
    # The server replaces this process, so that whatever ends it ends the server and its workers.
    os.execv(sys.executable, [sys.executable, *server])
