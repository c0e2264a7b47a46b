"""Runs of MLflow, read back: which one is meant, and the files that it keeps."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from recsys_embed.errors import DataError, RecsysError, UnknownId
from recsys_embed.tracking.mlflow_tracker import quiet_mlflow, reason, resolve_tracking_uri

_ID = re.compile(r"[0-9a-f]{6,32}")


def is_run_id(text: str) -> bool:
    """Tell whether a text can be a run's id, or the beginning of one: from 6 hex digits on."""
    return _ID.fullmatch(text) is not None


def read_run(begin: str, names: Collection[str], uri: str | None = None) -> tuple[str, dict[str, bytes]]:
    """Return the full id of the run whose id begins so, and those of the named artifacts that it has.

    uri: of the store; by default as in a training. Raises UnknownId where no run's id begins so, or several do, and
    DataError where the store cannot be read.
    """
    with client_of(resolve_tracking_uri(uri)) as client:
        everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
        found = client.search_runs(everywhere, f"attributes.run_id LIKE '{begin}%'", max_results=5)
        ids = [run.info.run_id for run in found]
        if not ids:
            raise UnknownId(f"no run's id begins with {begin} in {resolve_tracking_uri(uri)}")
        if len(ids) > 1:
            raise UnknownId(f"several runs' ids begin with {begin}: {', '.join(sorted(ids))}; say more of it")
        there = {artifact.path for artifact in client.list_artifacts(ids[0])}
        with tempfile.TemporaryDirectory() as scratch:
            kept = {n: Path(client.download_artifacts(ids[0], n, scratch)).read_bytes() for n in names if n in there}
    return ids[0], kept


@contextlib.contextmanager
def client_of(store: str) -> Iterator[Any]:
    """Give a client of a store that is there already; whatever it fails with becomes a DataError."""
    kind, _, local = store.partition("?")[0].partition(":///")
    if kind == "sqlite" and not Path(local).is_file():  # reading must not make an empty one
        raise DataError(f"there is no MLflow store {local}: name one with --tracking-uri, or a model folder")
    mlflow = quiet_mlflow()
    try:
        yield mlflow.MlflowClient(store)
    except RecsysError:
        raise
    except Exception as error:  # any failure of the store, its driver or its server
        raise DataError(f"MLflow failed ({reason(error)})") from None
