"""Where the model comes from, and how to tell that it is another one now."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from recsys_embed.errors import BundleError
from recsys_embed.recommend.bundle import MANIFEST, newest


class Found(NamedTuple):
    """A model: its name for people, its folder, and a text that changes with its content."""

    name: str
    folder: Path
    version: str


class Source:
    """A model folder, the newest of `models/` (None), or an alias in MLflow's registry."""

    def __init__(self, named: str | None, tracking_uri: str | None = None) -> None:
        self.named, self.tracking_uri = named, tracking_uri

    def find(self) -> Found:
        """Return the model that is meant now. Cheap: its manifest alone is read. Raises BundleError without one."""
        named = newest() if self.named is None else Path(self.named)
        folder = named.resolve()  # a link may point elsewhere while the files behind it are read
        try:
            return Found(str(named), folder, hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:16])
        except OSError:
            raise BundleError(f"{named} is no model folder: it has no {MANIFEST}") from None
