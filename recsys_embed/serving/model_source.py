"""Where the model comes from, and how to tell that it is another one now."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from recsys_embed.errors import BundleError
from recsys_embed.storage.bundle import MANIFEST
from recsys_embed.storage.model_folders import listed, newest
from recsys_embed.tracking import model_registry as registry


class FoundModel(NamedTuple):
    """A model: its name for people, its folder, and a text that changes with its content."""

    name: str
    folder: Path
    version: str


class ModelSource:
    """A model folder, the newest of `models/` (None), or an alias in MLflow's registry."""

    def __init__(self, named: str | None, tracking_uri: str | None = None) -> None:
        self.named, self.tracking_uri = named, tracking_uri

    def version(self) -> str:
        """Return a text that changes with the model that is meant. Cheap: a manifest is read, or the registry asked.

        Raises BundleError where there is none, UnknownId and DataError for one of MLflow.
        """
        if self.registered:
            return registry.version_of(str(self.named), self.tracking_uri)
        return self._of_folder().version

    def find(self) -> FoundModel:
        """Return the model that is meant now, fetched where it is elsewhere. Raises what `version` does."""
        if self.registered:
            return FoundModel(str(self.named), *registry.model_folder(str(self.named), self.tracking_uri))
        return self._of_folder()

    @property
    def registered(self) -> bool:
        """Whether MLflow has it."""
        return self.named is not None and registry.is_model_uri(self.named)

    def others(self) -> list[FoundModel]:
        """Return older models, the newest first, that may answer where the newest is broken."""
        return [] if self.named is not None else [_found(folder) for folder, _ in listed()[1:]]

    def _of_folder(self) -> FoundModel:
        return _found(newest() if self.named is None else Path(self.named))


def _found(named: Path) -> FoundModel:
    folder = named.resolve()  # a link may point elsewhere while the files behind it are read
    try:
        return FoundModel(str(named), folder, hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:16])
    except OSError:
        raise BundleError(f"{named} is no model folder: it has no {MANIFEST}") from None
