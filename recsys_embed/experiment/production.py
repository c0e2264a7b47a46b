"""What makes a measured model the one in use: a fit on everything, and a place in the registry if it is good enough."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from recsys_embed.config.settings import RunConfig
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import RecsysError, TrainingError, UnknownId
from recsys_embed.evaluation.admission import (
    compare_as_measured,
    compare_with_served,
    worse_than_popularity,
    worse_than_served,
)
from recsys_embed.experiment.fit_and_refit import Fit
from recsys_embed.state.fitted import FittedState
from recsys_embed.state.folder import load_state
from recsys_embed.tracking.model_registry import model_folder
from recsys_embed.tracking.progress import progress_bar
from recsys_embed.tracking.tracker import ProgressOnly, Tracker

log = logging.getLogger("recsys_embed")


def fit_on_everything(fit: Fit, measured: FittedState, rows: Ratings) -> FittedState:
    """Return the model fitted on all rows as the measured one was, with its metrics; the measured one if that, or the
    fit before it, was interrupted."""
    if fit.result.stopped == "interrupted":
        log.warning("the training was interrupted: the model is not fitted on the test part")
        return measured
    log.info("fitting for production, on all %s ratings", f"{len(rows):,}")
    try:
        with progress_bar() as bar:
            state = fit.again(rows, ProgressOnly(bar))
    except (KeyboardInterrupt, TrainingError) as error:
        what = "was interrupted" if isinstance(error, KeyboardInterrupt) else f"failed ({error})"
        log.warning("the fit for production %s: the measured model is kept, which does not know the test part", what)
        return measured
    metadata = dict(measured.metadata) | {"fitted_digest": rows.pairs_digest()}
    metadata |= {name: state.metadata[name] for name in ("mean_weight", "epochs") if name in state.metadata}
    metadata["production"] = {"ratings": len(rows), "measured_on": len(fit.rows)}
    return state.replace(metadata=metadata, per_user=measured.per_user)


class Admission(NamedTuple):
    """Whether a measured model may be registered. reason: why not, in a sentence, or None. comparison: with the model
    that holds the alias, or None without one."""

    reason: str | None
    comparison: dict[str, Any] | None = None


def admission_of(run: RunConfig, state: FittedState, fit: Fit, test: Ratings) -> Admission | None:
    """Compare a measured model that is to be registered with popularity and with the model that holds the alias.

    test: held-out positives. Returns None where nothing is to be registered.
    """
    if run.register is None:
        return None
    reason = worse_than_popularity(state)
    if fit.result.stopped == "interrupted":
        reason = "its training was interrupted"
    name, _, alias = run.register.partition("@")
    uri = f"models:/{name}@{alias}"
    try:
        folder, version = model_folder(uri, run.tracking_uri) if alias else (None, "")
        served = None if folder is None else load_state(folder)
    except UnknownId:  # it is the first
        return Admission(reason)
    except RecsysError as error:
        log.warning("not compared with %s: %s", uri, error)
        return Admission(reason)
    if served is None:
        return Admission(reason)
    difference = compare_with_served(state, served, fit.rows, test) or compare_as_measured(state, served)
    if difference is None:
        log.warning("not compared with %s: too few users have test ratings that it was not fitted on", uri)
        return Admission(reason)
    log.info(
        "against %s, user by user: %+.4f [%+.4f, %+.4f] in NDCG@10 of %s users",
        uri, difference.mean, difference.low, difference.high, f"{difference.users:,}",
    )  # fmt: skip
    comparison = {"model": f"models:/{name}/{version}", **difference.summary()}
    return Admission(reason or worse_than_served(difference, uri), comparison)


def register(tracker: Tracker, run: RunConfig, admission: Admission | None) -> dict[str, Any] | None:
    """Register the recorded model if it is to be and may be; return what became of it, for the report, or None."""
    if admission is None or run.register is None:
        return None
    reason = admission.reason
    if reason and run.allow_worse:
        log.warning("registered although %s", reason)
    elif reason:
        reason = f"{reason}; --allow-worse registers it all the same"
    failure = tracker.register(run.register) if run.allow_worse or not reason else reason
    return {"target": run.register, "registered": not failure, "reason": failure, "comparison": admission.comparison}
