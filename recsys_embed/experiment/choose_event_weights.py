"""Choose what events of each type count in training, on validation data."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import polars as pl

from recsys_embed.config.settings import DataConfig
from recsys_embed.data.event_types import candidate_weights
from recsys_embed.data.events import EventLog
from recsys_embed.data.ratings import Ratings
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.evaluation.significance import by_user, paired
from recsys_embed.models.hybrid import HybridModel
from recsys_embed.models.item_weights import Histories
from recsys_embed.models.local_ridge import LocalRidge, Penalty
from recsys_embed.models.neighbours import Neighbours
from recsys_embed.models.ranker import Ranker
from recsys_embed.training.hybrid import PENALTIES, log_counts_of, no_embedding

log = logging.getLogger("recsys_embed")

# Lists are compared for at most this many users, by item neighbours with a penalty that is as good as any.
_USERS, _NEIGHBOURS = 5_000, 100


def choose_event_weights(events: EventLog, data: DataConfig, window: int = 0) -> dict[str, float]:
    """Return the weights of the types, by name, under which item neighbours rank validation targets best.

    window: see `Dataset.split`.
    """
    tried, measured = candidate_weights(events.types, events.counts.tolist()), []
    for weights in tried:
        (train, valid, _), _ = events.with_weights(weights).split(data, window)
        measured.append(_measure(train, valid.of_random_users(_USERS)))
    kept = best_weights(tried, measured)
    _say(tried, measured, kept)
    return tried[kept]


def best_weights(tried: Sequence[Mapping[str, float]], measured: Sequence[pl.DataFrame | None]) -> int:
    """Return which of the weights tried to keep. measured: each one's metrics per user, None if it cannot be measured.

    Weights that count fewer types must be clearly better: once the model is served, events that do not count say
    nothing about a visitor who has no others yet, and validation, which has users with a history, does not see that.
    """
    order = sorted(range(len(tried)), key=lambda n: _mean(measured[n]), reverse=True)
    counted = [sum(weight > 0 for weight in weights.values()) for weights in tried]
    best = max(order, key=lambda n: counted[n])  # the first of the most types
    for other in order:
        ours, theirs = measured[other], measured[best]
        if _mean(ours) <= _mean(theirs):
            break
        assert ours is not None
        if theirs is None or _clearly_better(ours, theirs):
            return other
    return best


def _clearly_better(ours: pl.DataFrame, theirs: pl.DataFrame) -> bool:
    values = by_user(ours, theirs, "ndcg_at_10")
    return len(values[0]) > 0 and paired(*values, resamples=1000).significant


def _mean(per_user: pl.DataFrame | None) -> float:
    return 0.0 if per_user is None else float(per_user["ndcg_at_10"].mean())  # type: ignore[arg-type]


def _say(tried: Sequence[Mapping[str, float]], measured: Sequence[pl.DataFrame | None], kept: int) -> None:
    values = [_mean(per_user) for per_user in measured]
    text = ", ".join(f"{name} {weight:g}" for name, weight in tried[kept].items())
    log.info("kept: events weigh %s (validation ndcg_at_10 %.4f; all alike %.4f)", text, values[kept], values[0])
    if max(values) > values[kept]:
        best = tried[max(range(len(tried)), key=values.__getitem__)]
        alone = " and ".join(name for name, weight in best.items() if weight > 0)
        log.info("  %s alone would have %.4f: not clearly more, so the others count too", alone, max(values))


def _measure(train: Ratings, valid: Ratings) -> pl.DataFrame | None:
    """Return the metrics of item neighbours per user of the validation ratings; None if there is nothing to measure."""
    train, excluded = train.positives(None), train.excluded()
    if not len(valid) or not len(train):
        return None
    amounts = train.amounts()
    assert amounts is not None
    amounts = (amounts / amounts.mean()).astype("float32")
    (weights,) = LocalRidge(train, _NEIGHBOURS, amounts).fit([Penalty(*PENALTIES[0])])
    neighbours = Neighbours(weights, log_counts_of(train))
    model = HybridModel("neighbours", no_embedding(train), neighbours, Histories.of(train.matrix(amounts)), 0.0, 1.0)
    report = rank_metrics(Ranker.of(model), valid, excluded, train.item_counts)
    return report.per_user if report.users else None
