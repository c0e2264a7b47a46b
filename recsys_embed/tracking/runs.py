"""Read runs back from MLflow: find a run by its id, and download its artifacts."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from recsys_embed.errors import DataError, RecsysError, UnknownId
from recsys_embed.tracking.store import local_files, open_store, reason, resolve_tracking_uri, sqlite_file

_ID = re.compile(r"[0-9a-f]{6,32}")


def is_run_id(text: str) -> bool:
    """Return whether a text can be a run id or a prefix of one: 6 to 32 hex digits."""
    return _ID.fullmatch(text) is not None


def read_run(id_prefix: str, names: Collection[str], uri: str | None = None) -> tuple[str, dict[str, bytes]]:
    """Return the full id of the run with this id prefix, and those of the named artifacts that it has.

    uri: tracking URI; see `resolve_tracking_uri`. Raises UnknownId if no run or several runs match, and DataError if
    the store cannot be read.
    """
    with client_of(resolve_tracking_uri(uri)) as client:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(experiments, f"attributes.run_id LIKE '{id_prefix}%'", max_results=5)
        ids = [run.info.run_id for run in runs]
        if not ids:
            raise UnknownId(f"no run's id begins with {id_prefix} in {resolve_tracking_uri(uri)}")
        if len(ids) > 1:
            raise UnknownId(f"several runs' ids begin with {id_prefix}: {', '.join(sorted(ids))}; give more digits")
        folder = local_files(runs[0].info.artifact_uri, resolve_tracking_uri(uri))
        if folder is not None:
            return ids[0], {n: (folder / n).read_bytes() for n in names if (folder / n).is_file()}
        available = {artifact.path for artifact in client.list_artifacts(ids[0])}
        with tempfile.TemporaryDirectory() as scratch:
            files = {
                n: Path(client.download_artifacts(ids[0], n, scratch)).read_bytes() for n in names if n in available
            }
    return ids[0], files


def newest_experiment(uri: str | None = None) -> str | None:
    """Return the id of the experiment with the newest run, or None if a store has no run, or cannot be read."""
    with contextlib.suppress(DataError), client_of(resolve_tracking_uri(uri)) as client:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=1)
        return str(runs[0].info.experiment_id) if runs else None
    return None


@contextlib.contextmanager
def client_of(store: str) -> Iterator[Any]:
    """Open a client for an existing store; any failure within becomes a DataError."""
    file = sqlite_file(store)
    if file is not None and not file.is_file():  # reading must not create an empty store
        raise DataError(f"there is no MLflow store {file}: name one with --tracking-uri, or a model folder")
    try:
        yield open_store(store)
    except RecsysError:
        raise
    except Exception as error:  # any failure of the store, its driver or its server
        raise DataError(f"MLflow failed ({reason(error)})") from None
