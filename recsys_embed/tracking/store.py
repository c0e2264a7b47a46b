"""The MLflow store that runs are in: where it is, and a client of it."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recsys_embed.errors import DataError, SettingError
from recsys_embed.storage.atomic import make_hidden, publish_new, sync

DEFAULT_STORE = "sqlite:///mlflow.db"
# MLflow makes a store by Alembic, which no two threads can use at once.
_making = threading.Lock()
# In messages of drivers: a store that is sound, and cannot be used now.
_PASSING = ("locked", "readonly", "read-only", "unable to open", "disk is full", "disk i/o")


def resolve_tracking_uri(uri: str | None) -> str:
    """Return the tracking URI to use: the given one, $MLFLOW_TRACKING_URI, or mlflow.db in the current folder.

    The path of a SQLite file is made absolute: MLflow caches a connection per URI, and would keep using the old file
    after a change of the current folder. What follows it (`?timeout=60`) is for the driver and stays.
    """
    store = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE
    path = sqlite_file(store)
    return store if path is None else f"sqlite:///{path.absolute().as_posix()}{''.join(store.partition('?')[1:])}"


def sqlite_file(store: str) -> Path | None:
    """Return the file of a store in SQLite, or None for another store."""
    scheme, _, path = store.partition("?")[0].partition(":///")
    return Path(path) if scheme == "sqlite" and path else None


def quiet_mlflow() -> Any:
    """Import MLflow with little logging and short timeouts, and return it."""
    # A server that is down should cost seconds, not MLflow's default of minutes; the user's own settings win.
    for name, value in (("HTTP_REQUEST_MAX_RETRIES", "2"), ("HTTP_REQUEST_TIMEOUT", "10")):
        os.environ.setdefault(f"MLFLOW_{name}", value)
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    # Only results go to stdout, where MLflow would print links to a server.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return mlflow


def reason(error: Exception) -> str:
    """Return the first line of an error message from MLflow, its driver or its server."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def open_store(store: str) -> Any:
    """Return MLflow's client of a store, which is made if it is a SQLite file that does not exist.

    store: as `resolve_tracking_uri` returns it. Raises DataError for a file that cannot be opened, and SettingError for
    a folder. (Other stores are first reached when the client is used.)
    """
    mlflow, file = quiet_mlflow(), sqlite_file(store)
    if file is None:
        return _client_of_other(store)
    with _making:
        if not file.exists():
            _make(file)
    try:
        client = mlflow.MlflowClient(store)
        client.search_experiments(max_results=1)
    except Exception as error:
        raise _explained(error, file) from None
    return client


def _client_of_other(store: str) -> Any:
    mlflow = quiet_mlflow()
    try:
        return mlflow.MlflowClient(store)
    except mlflow.MlflowException as error:
        if "filesystem tracking backend" not in str(error):
            raise
        raise SettingError(
            f"{store} is a folder, which MLflow takes no runs in any more: --tracking-uri sqlite:///mlflow.db (and "
            "mlflow migrate-filestore takes the old runs along)"
        ) from None


@contextlib.contextmanager
def without_autologging() -> Iterator[None]:
    """Keep `mlflow.autolog()` from recording what scikit-learn does for us as runs of their own."""
    autologging = sys.modules.get("mlflow.utils.autologging_utils")
    with contextlib.nullcontext() if autologging is None else autologging.disable_autologging():
        yield


def local_files(location: str, store: str) -> Path | None:
    """Return the folder of files that MLflow keeps on this machine, or None if it keeps them elsewhere.

    location: a path or URI. Where a SQLite store was moved with the files beside it, they are found there. The folder
    does not exist where its run recorded nothing, or its files were deleted. Raises DataError, with the path, if the
    folder of all files is not to be found.
    """
    from mlflow.utils.file_utils import local_file_uri_to_path

    scheme = location.partition(":")[0] if "://" in location or ":/" in location else ""
    if scheme not in ("", "file"):
        return None
    folder, file = Path(local_file_uri_to_path(location)), sqlite_file(store)
    if folder.is_dir():
        return folder
    root = next((parent for parent in folder.parents if parent.name in ("mlruns", "mlartifacts")), None)
    roots = [] if root is None else [root]
    if root is not None and file is not None:
        roots.insert(0, file.parent / root.name)
    for candidate in roots:
        if candidate.is_dir():
            assert root is not None
            return candidate / folder.relative_to(root)
    raise missing_files(root or folder, file)


def missing_files(folder: Path, store: Path | None) -> DataError:
    """Return the error for a folder of files that MLflow keeps, and that is not there. store: of SQLite, or None."""
    where = "" if store is None else f" (or, as mlruns, beside {store})"
    return DataError(
        f"MLflow keeps the files in {folder}, and there is no such folder: put it back there{where}, or train again"
    )


def _make(file: Path) -> None:
    """Make a store in a new SQLite file, whole or not at all.

    MLflow makes one in many steps, which two processes at once, or the end of one, leave half done for good. So it is
    made elsewhere, and takes its place in one step, unless another process was faster.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        complete = Path(scratch) / "mlflow.db"
        client = quiet_mlflow().MlflowClient(f"sqlite:///{complete.as_posix()}")
        client.search_experiments(max_results=1)
        with contextlib.suppress(AttributeError):  # Windows deletes no file that is open
            client._tracking_client.store.engine.dispose()
        copy = make_hidden(file, lambda hidden: hidden.touch(exist_ok=False))
        try:
            shutil.copyfile(complete, copy)
            sync(copy)
            publish_new(copy, file)
        finally:
            copy.unlink(missing_ok=True)


def _explained(error: Exception, file: Path) -> DataError:
    """Return what is wrong with a store in SQLite that cannot be opened, and what to do."""
    text, package = str(error), type(error).__module__.partition(".")[0]
    if "out-of-date" in text or "Can't locate revision" in text:
        return DataError(
            f"{file} was made by another version of MLflow: mlflow db upgrade sqlite:///{file.as_posix()} brings it up "
            "to date (copy it first); if a newer version made it, pip install --upgrade mlflow"
        )
    is_passing = any(word in text.lower() for word in _PASSING)
    if package in ("sqlalchemy", "alembic", "sqlite3") and not is_passing:
        return DataError(
            f"{file} is no sound MLflow store ({reason(error)}): move it away, and the next training makes a new one"
        )
    return DataError(f"the MLflow store {file} cannot be opened: {reason(error)}")
