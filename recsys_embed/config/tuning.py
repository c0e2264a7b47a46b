"""Settings of a search for settings."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated

from recsys_embed.config.fields import check


@dataclass(frozen=True)
class TuneConfig:
    """How long to search for settings, which of them are frozen, and what is recorded."""

    minutes: Annotated[float | None, "stop after this many minutes (default: 10, or until --trials are done)"] = None
    trials: Annotated[int | None, "stop after this many trials of this call"] = None
    freeze: Annotated[str | None, "settings that are not tuned, e.g. dim,epochs"] = None
    study: Annotated[str | None, "name of the search in studies/, and of its preset (default: DATASET-LOSS)"] = None
    preset: Annotated[str | None, "start from named settings (recsys presets) or a .toml file; options win"] = None
    track: Annotated[bool, "record the search and its trials in MLflow"] = True
    tracking_uri: Annotated[str | None, "MLflow store (default: $MLFLOW_TRACKING_URI or sqlite:///mlflow.db)"] = None
    experiment: Annotated[str | None, "MLflow experiment (default: the data set's name)"] = None

    def __post_init__(self) -> None:
        check(self.minutes is None or 0 < self.minutes < math.inf, "minutes", self.minutes, "above 0")
        check(self.trials is None or self.trials >= 1, "trials", self.trials, "at least 1")
        valid = self.study is None or re.fullmatch(r"\w[\w.-]*", self.study)
        check(bool(valid), "study", self.study, "a name of letters, digits, dots and dashes")

    @property
    def seconds(self) -> float:
        """The seconds that a search may take."""
        return 60 * self.minutes if self.minutes else math.inf if self.trials else 600.0
