"""Choose what events of each type count in training, on validation data."""

from __future__ import annotations

import logging

from recsys_embed.config.settings import DataConfig
from recsys_embed.data.event_types import candidate_weights
from recsys_embed.data.events import EventLog
from recsys_embed.data.ratings import Ratings
from recsys_embed.evaluation.evaluate import rank_metrics
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
    tried = candidate_weights(events.types, events.counts.tolist())
    values = []
    for weights in tried:
        (train, valid, _), _ = events.with_weights(weights).split(data, window)
        values.append(
            _quality(train, valid.of_random_users(_USERS)) if len(valid) and len(train.positives(None)) else 0.0
        )
    best = tried[max(range(len(tried)), key=values.__getitem__)]
    text = ", ".join(f"{name} {weight:g}" for name, weight in best.items())
    log.info("kept: events weigh %s (validation ndcg_at_10 %.4f; all alike %.4f)", text, max(values), values[0])
    return best


def _quality(train: Ratings, valid: Ratings) -> float:
    """Return the NDCG@10 of item neighbours on validation ratings."""
    train, excluded = train.positives(None), train.excluded()
    amounts = train.amounts()
    assert amounts is not None
    amounts = (amounts / amounts.mean()).astype("float32")
    (weights,) = LocalRidge(train, _NEIGHBOURS, amounts).fit([Penalty(*PENALTIES[0])])
    neighbours = Neighbours(weights, log_counts_of(train))
    model = HybridModel("neighbours", no_embedding(train), neighbours, Histories.of(train.matrix(amounts)), 0.0, 1.0)
    return rank_metrics(Ranker.of(model), valid, excluded, train.item_counts).metrics["ndcg_at_10"]
