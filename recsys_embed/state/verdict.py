"""The verdict: whether a model is better than the best of the baselines that it was tested with, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Names of baselines in sentences; others are written as they are, with blanks.
_LABELS = {"ease": "EASE"}


@dataclass(frozen=True)
class Verdict:
    """The paired difference of a model to the best baseline, and what it means.

    baseline: the name of the best one; n_baselines: of how many. metric, mean, low, high, p, users, clear: of the
    difference, see `evaluation.significance.Difference`; it is positive if the model is better.
    """

    baseline: str
    n_baselines: int
    metric: str
    mean: float
    low: float
    high: float
    p: float
    users: int
    clear: bool

    @property
    def label(self) -> str:
        """The name of the baseline in a sentence."""
        return baseline_label(self.baseline)

    @property
    def is_better(self) -> bool:
        """Whether the model is clearly better."""
        return self.clear and self.mean > 0

    @property
    def is_worse(self) -> bool:
        """Whether the model is clearly worse."""
        return self.clear and self.mean < 0

    @property
    def sentence(self) -> str:
        """The verdict: the same words in `recsys train`, the model card, MLflow, the report and the service."""
        relation = "not clearly better or worse than"
        if self.clear:
            relation = "better than" if self.mean > 0 else "worse than"
        rank = "the only baseline" if self.n_baselines == 1 else "the best of these baselines"
        return f"{relation} {self.label}, {rank}"


def verdict(metrics: Mapping[str, Any] | None) -> Verdict | None:
    """Return the verdict from the metrics of a model, or None where nothing was compared: there was no test, or there
    were no baselines or no resamples."""
    baselines = (metrics or {}).get("baselines") or {}
    measured = {name: values for name, values in baselines.items() if values.get("difference")}
    if not measured:
        return None
    best = max(measured, key=lambda name: measured[name]["ndcg_at_10"])
    difference = measured[best]["difference"]
    return Verdict(best, len(measured), **{n: difference[n] for n in Verdict.__dataclass_fields__ if n in difference})


def baseline_label(name: str) -> str:
    """Return the name of a baseline in a sentence: recent_popularity -> recent popularity."""
    return _LABELS.get(name, name.replace("_", " "))


def counted(number: int, what: str) -> str:
    """Return a number with what it counts, in the singular or plural: "1 user", "2,000 users"."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
