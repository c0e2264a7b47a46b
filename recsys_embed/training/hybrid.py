"""The families with item neighbours: fit them beside embeddings, and choose on validation data how much each counts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.config.fields import updated
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import SettingError
from recsys_embed.models.base import Family
from recsys_embed.models.ease import EASE_MAX_ITEMS, Ease
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.fold_in.hybrid import HybridFoldIn
from recsys_embed.models.hybrid import HybridModel, describe_share
from recsys_embed.models.item_weights import Histories, ItemWeights
from recsys_embed.models.local_ridge import LocalRidge, Penalty
from recsys_embed.training.embedding import fit_embedding
from recsys_embed.training.interface import TrainingResult

if TYPE_CHECKING:
    from recsys_embed.training.interface import FitRequest

log = logging.getLogger("recsys_embed")

# What is tried on validation data, and what is taken without any (experiments/LOG.md).
PENALTIES = (
    Penalty(80, 1.0), Penalty(20, 0.25), Penalty(300, 1.0), Penalty(80, 0.25), Penalty(5, 0.25),
)  # fmt: skip
POWERS = (0.1, 0.05, 0.0)
SHARES = (0.45, 0.1, 0.2, 0.3, 0.6, 0.8)
_EASE_L2 = 300.0
# Shares whose validation metrics differ by no more than this part of the best are as good.
_TOLERANCE = 0.005
# Neighbours of an item, and the number of items from which there are fewer.
_NEIGHBOURS, _FEWER_NEIGHBOURS, _MANY_ITEMS = 200, 100, 50_000
# Another recipe of the cosine with a sampled softmax, for many items with few ratings each (experiments/LOG.md).
_RECIPE = {"temperature": 0.15, "user_decay": 2.0, "item_decay": 2.0}
_SPARSE = {"temperature": 0.1, "user_decay": 0.5, "item_decay": 0.5}
# Multiplications in all regressions together from which fewer penalties are tried.
_MAX_WORK = 1e12
# Users on whom the spread of scores is measured.
_SAMPLE = 500


def fit_hybrid(family: str, request: FitRequest) -> TrainingResult:
    """Fit item neighbours (or EASE) beside embeddings; `family` "auto" keeps what is best on validation data."""
    reason = unsupported_reason(request)
    if reason and family != "auto":
        raise SettingError(f"--model-family {family} ranks by items that were rated together, which {reason} does not")
    with_embeddings = request.model.embeddings or family in ("auto", "both")
    result = _embeddings(family, request) if with_embeddings else TrainingResult(_no_embedding(request.positives))
    if reason or result.stopped == "interrupted":
        return replace(result, chosen={**result.chosen, "model_family": "embeddings"})
    model, chosen = _Candidates(family, request, result.model).choose()
    return replace(result, model=model, chosen={**result.chosen, **chosen})


def _embeddings(family: str, request: FitRequest) -> TrainingResult:
    """Train embeddings; for "auto" and a sampled softmax by two recipes, and keep the better on validation."""
    result, given = fit_embedding(request), {**vars(request.model), **vars(request.train)}
    is_default = given["loss"] == "sampled-softmax" and all(given[name] == value for name, value in _RECIPE.items())
    if family != "auto" or not (request.validate and given["cosine"] and is_default) or request.warm_start is not None:
        return result
    name, sign = request.monitor
    model, train = updated(request.model, _SPARSE), updated(request.train, _SPARSE)
    other = fit_embedding(replace(request, model=model, train=train))
    values = [sign * tried.history[tried.epochs - 1][name] for tried in (result, other)]
    log.info("validation %s %.4f, and %.4f with less decay and temperature", name, *values)
    if other.stopped == "interrupted" or values[0] >= values[1]:
        return result
    return replace(other, chosen=dict(_SPARSE))


def unsupported_reason(request: FitRequest) -> str:
    """Return why item neighbours cannot score beside these embeddings, or nothing where they can."""
    if request.train.loss in ("mse", "logistic"):
        return f"--loss {request.train.loss}"
    return "a graph" if request.ratings.is_graph else ""


def _no_embedding(positives: Ratings) -> EmbeddingModel:
    """Return embeddings of width 0, for item neighbours alone."""
    sizes = len(positives.users), len(positives.items)
    users, items = (np.zeros((n, 0), np.float32) for n in sizes)
    user_bias, item_bias = (np.zeros(n, np.float32) for n in sizes)
    return EmbeddingModel(users, items, user_bias, item_bias)


@dataclass
class _Candidates:
    """What a training with neighbours chooses from: penalties, powers of popularity, and shares."""

    family: str
    request: FitRequest
    embedding: Any

    def choose(self) -> tuple[Any, dict[str, Any]]:
        """Return the best model on validation data, or that of the default settings without any, and its settings."""
        given, positives = self.request.model, self.request.positives
        self.histories = Histories.of(positives.matrix(self._amounts()))
        self.counts = np.maximum(positives.item_counts, 1).astype(np.float32)
        self.users = np.flatnonzero(np.bincount(positives.user, minlength=len(positives.users)))
        powers = POWERS if given.popularity_power is None else (given.popularity_power,)
        if self.family == "ease":
            penalties, all_weights = self._ease()
            powers = (given.popularity_power or 0.0,)
        else:
            penalties, all_weights = self._ridge()
        tried = [
            self._neighbours_only(weights.scaled(self.counts ** np.float32(-powers[0]))) for weights in all_weights
        ]
        best = self._best(tried)
        scaled = [all_weights[best].scaled(self.counts ** np.float32(-power)) for power in powers]
        share = 1.0 if self.family in ("neighbours", "ease") else self._share(scaled[0])
        if share == 0:
            return self.embedding, {"model_family": "embeddings"}
        models = [self._mixed(weights, share) for weights in scaled]
        at = self._best(models)
        chosen = {"model_family": models[at].family, "blend": share, "popularity_power": powers[at]}
        chosen |= {"l2": penalties[best].l2, "l2_share": penalties[best].share}
        return models[at], chosen | ({} if self.family == "ease" else {"neighbours": self.neighbours})

    @property
    def neighbours(self) -> int:
        """The number of neighbours of an item."""
        few = len(self.request.positives.items) > _MANY_ITEMS
        return self.request.model.neighbours or (_FEWER_NEIGHBOURS if few else _NEIGHBOURS)

    def _amounts(self) -> Floats | None:
        """Return how much each rating counts, 1 on average; None for 1 each."""
        positives = self.request.positives
        if self.request.train.sample_weight != "rating":
            return None
        value = np.maximum(positives.value, 1e-3 * positives.value.max())
        return np.asarray(value / value.mean(), np.float32)

    def _ridge(self) -> tuple[list[Penalty], list[ItemWeights]]:
        given, positives, tracker = self.request.model, self.request.positives, self.request.tracker
        penalties = [
            Penalty(p.l2 if given.l2 is None else given.l2, p.share if given.l2_share is None else given.l2_share)
            for p in PENALTIES
        ]
        work = len(positives.items) * self.neighbours**3 / 3
        n = max(1, int(_MAX_WORK / max(work, 1.0))) if self.request.validate else 1
        penalties = list(dict.fromkeys(penalties))[:n]
        ridge = LocalRidge(positives, self.neighbours, self._amounts())
        progress = None if tracker is None else partial(tracker.progress, note="item neighbours")
        return penalties, ridge.fit(penalties, progress)

    def _ease(self) -> tuple[list[Penalty], list[ItemWeights]]:
        given, positives = self.request.model, self.request.positives
        if len(positives.items) > EASE_MAX_ITEMS:
            raise SettingError(
                f"--model-family ease inverts a matrix of items x items: {len(positives.items):,} items are too many; "
                "neighbours and both take any number"
            )
        ease, l2 = Ease(positives), given.l2
        if l2 is None:
            l2 = _EASE_L2
            if self.request.validate:
                l2 = ease.tune(lambda matrix: self._value(self._neighbours_only(ItemWeights.of_matrix(matrix))))
        return [Penalty(l2, 0.0)], [ItemWeights.of_matrix(ease.weights(l2))]

    def _neighbours_only(self, weights: ItemWeights) -> HybridModel:
        family = "ease" if self.family == "ease" else "neighbours"
        return HybridModel(family, self.embedding, weights, self.histories, 0.0, 1.0)

    def _share(self, weights: ItemWeights) -> float:
        """Return the best share of the neighbours; for "auto" they may be alone, or absent."""
        shares: Sequence[float] = sorted(SHARES)
        if self.request.model.blend is not None:
            shares = (self.request.model.blend,)
        elif not self.request.validate:
            shares = SHARES[:1]
        elif self.family == "auto":
            shares = (0.0, *shares, 1.0)
        if len(shares) == 1:
            return shares[0]
        values = [self._value(self._mixed(weights, share)) for share in shares]
        # The middle of the shares that are as good as the best, which stands out by chance.
        good = np.flatnonzero(np.array(values) >= max(values) - _TOLERANCE * abs(max(values)))
        best = int(good[len(good) // 2])
        name = self.request.monitor[0]
        log.info(
            "kept: %s (validation %s %.4f; embeddings alone %.4f, neighbours alone %.4f)",
            describe_share(shares[best]), name, values[best], values[0], values[-1],
        )  # fmt: skip
        return shares[best]

    def _mixed(self, weights: ItemWeights, share: float) -> Any:
        """Return the model in which the neighbours have this share of the score's spread."""
        if share == 0:
            return self.embedding
        model = self._neighbours_only(weights)
        if share == 1:
            return model
        users = np.random.default_rng(0).permutation(self.users)[:_SAMPLE]
        spread = float(self.embedding.score(self.embedding.queries(users)).std())
        own = float(weights.scores(self.histories[users].normalized()).std())
        factor = share / (1 - share) * spread / (own or 1.0)
        scaled = weights.scaled(np.full(len(weights), factor, np.float32))
        return replace(model, family="both", weights=scaled, embedding_scale=1.0, share=share)

    def _best(self, models: Sequence[Any]) -> int:
        """Return which of some models is best on validation data, or the first without any."""
        if len(models) == 1 or not self.request.validate:
            return 0
        return int(np.argmax([self._value(model) for model in models]))

    def _value(self, model: Any) -> float:
        """Return a model's validation metric, so that more is better."""
        validate: Callable[[Any], dict[str, float]] | None = self.request.validate
        assert validate is not None
        name, sign = self.request.monitor
        return sign * validate(model)[name]


def _family(name: str) -> Family:
    return Family(partial(fit_hybrid, name), HybridModel.load, HybridFoldIn)


AUTO, NEIGHBOURS, EASE, BOTH = (_family(name) for name in ("auto", "neighbours", "ease", "both"))
