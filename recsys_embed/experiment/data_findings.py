"""What the doctor says of data before a training, in at most three lines."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from recsys_embed.config.settings import DataConfig
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.splits import Split
from recsys_embed.doctor.check import check
from recsys_embed.doctor.codes import Finding

log = logging.getLogger("recsys_embed")

_LINES = 3
# Ratings that are examined of those on disk.
_SAMPLE = 2_000_000
# The notes that a training shows: what was done with its rows, and what its numbers are worth. (Types of events that
# say no are logged when they are read.)
_LOGGED_NOTES = ("D103", "D703")


def log_findings(dataset: Dataset, data: DataConfig, split: Split, loss: str | None) -> dict[str, int]:
    """Log the most severe findings, and return the counts of all by code.

    loss: of the training; one that learns values learns those of 0 and below too.
    """
    if dataset.ratings.disk is not None:
        dataset, split = _sampled(dataset, split)
    findings = [f for f in check(dataset, data, split) if not (f.code == "D202" and loss == "mse")]
    logged = [f for f in findings if f.severity != "note" or f.code in _LOGGED_NOTES]
    n_lines = len(logged) if len(logged) == len(findings) <= _LINES else min(len(logged), _LINES - 1)
    for found in logged[:n_lines]:
        _log(found)
    others = [f for f in findings if f not in logged[:n_lines]]
    if any(f in logged for f in others):
        log.warning("%s more: recsys data check shows all", ", ".join(f.code for f in others))
    return {f.code: f.count for f in findings}


def _sampled(dataset: Dataset, split: Split) -> tuple[Dataset, Split]:
    """Return what some of the users have."""
    ratings = dataset.ratings
    most = max(1, round(_SAMPLE * len(ratings.users) / len(ratings)))
    drawn = ratings.of_random_users(most)
    if len(drawn) == len(ratings):
        return dataset, split
    log.info("%s ratings of %s users, drawn at random, are examined", f"{len(drawn):,}", f"{most:,}")
    users = np.bincount(drawn.user, minlength=len(ratings.users)) > 0
    sampled = Split(*(part.where(lambda rows: users[rows.user]) for part in split))
    return dataset._replace(ratings=replace(drawn, n_duplicates=ratings.n_duplicates)), sampled


def _log(found: Finding) -> None:
    level = logging.INFO if found.severity == "note" else logging.WARNING
    log.log(level, "%s: %s; %s", found.code, found.describe(), found.remedy)
