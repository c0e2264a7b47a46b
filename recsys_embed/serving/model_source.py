"""Where the served model comes from, and how to tell that it has changed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from recsys_embed.errors import BundleError
from recsys_embed.storage.bundle import MANIFEST
from recsys_embed.storage.model_folders import list_model_folders, newest_model_folder
from recsys_embed.tracking import model_registry as registry


class FoundModel(NamedTuple):
    """A model: its name for display, its folder, and a version text that changes with its content."""

    name: str
    folder: Path
    version: str


class ModelSource:
    """A model folder, the newest of `models/` (None), or an alias in MLflow's registry."""

    def __init__(self, named: str | None, tracking_uri: str | None = None) -> None:
        self.named, self.tracking_uri = named, tracking_uri

    def version(self) -> str:
        """Return the version of the current model. Cheap: it reads a manifest, or queries the registry.

        Raises BundleError where there is no model, UnknownId and DataError for MLflow's.
        """
        if self.registered:
            return registry.version_of(str(self.named), self.tracking_uri)
        return self._of_folder().version

    def find(self) -> FoundModel:
        """Return the current model, downloaded if it is remote. Raises the same errors as `version`."""
        if self.registered:
            return FoundModel(str(self.named), *registry.model_folder(str(self.named), self.tracking_uri))
        return self._of_folder()

    @property
    def registered(self) -> bool:
        """Whether the model is named by its MLflow URI."""
        return self.named is not None and registry.is_model_uri(self.named)

    def older(self) -> list[FoundModel]:
        """Return the older models of `models/`, the newest first, to fall back on if the newest is broken."""
        return [] if self.named is not None else [_found(folder) for folder, _ in list_model_folders()[1:]]

    def _of_folder(self) -> FoundModel:
        return _found(newest_model_folder() if self.named is None else Path(self.named))


def _found(path: Path) -> FoundModel:
    folder = path.resolve()  # a symbolic link may be changed while the files behind it are read
    try:
        return FoundModel(str(path), folder, hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:16])
    except OSError:
        raise BundleError(f"{path} is no model folder: it has no {MANIFEST}") from None
