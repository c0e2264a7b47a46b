"""recsys models and recsys ui: list trained models, and open MLflow's pages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys_embed.cli.options import JSON, STORE
from recsys_embed.cli.output import echo, print_json, print_table


def list_models(
    folder: Annotated[Path, typer.Option(help="Where the models are.")] = Path("models"),
    json: JSON = False,
) -> None:
    """List the trained models of a folder, the newest first."""
    from recsys_embed.storage.model_folders import list_model_folders

    models: list[dict[str, Any]] = []
    for path, facts in list_model_folders(folder):
        settings, metrics = facts.get("settings", {}), facts.get("metrics", {})
        models.append(
            {
                "model": str(path),
                "created": facts.get("created"),
                "dataset": facts.get("dataset"),
                "loss": settings.get("loss"),
                "dim": settings.get("dim"),
                "ndcg_at_10": (metrics.get("test") or {}).get("ndcg_at_10"),
            }
        )
    if json:
        return print_json({"models": models})
    if not models:
        return echo(f"there is no model in {folder}/ yet: recsys train makes one")
    names = list(models[0])
    rows = [[f"{v:.4f}" if isinstance(v, float) else str(v or "")[:60] for v in m.values()] for m in models]
    return print_table(names, rows, "dim ndcg_at_10")


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
