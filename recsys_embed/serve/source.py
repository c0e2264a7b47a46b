"""Where the model comes from, and how to tell that it is another one now."""

from __future__ import annotations

import hashlib
from pathlib import Path

from recsys_embed.errors import BundleError
from recsys_embed.recommend.bundle import MANIFEST, newest
from recsys_embed.recommend.recommender import Recommender


class Source:
    """A model folder, the newest of `models/` (None), or an alias in MLflow's registry."""

    def __init__(self, named: str | None, tracking_uri: str | None = None) -> None:
        self.named, self.tracking_uri = named, tracking_uri

    def version(self) -> tuple[str, str]:
        """Return the name of the model that is meant now, and a text that changes with its content.

        Cheap: nothing of the model is read but its manifest. Raises BundleError where there is none.
        """
        folder = newest() if self.named is None else Path(self.named)
        try:
            return str(folder), hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:16]
        except OSError:
            raise BundleError(f"{folder} is no model folder: it has no {MANIFEST}") from None

    def folder(self, name: str) -> Path:
        """Return the folder of the model of this name."""
        return Path(name)

    def load(self) -> tuple[Recommender, str, str]:
        """Read the model that is meant now, and return it with its name and version. Raises BundleError."""
        name, version = self.version()
        return Recommender.load(Path(name)), name, version
