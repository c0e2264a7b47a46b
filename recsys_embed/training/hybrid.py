"""The families with item neighbours: fit them beside embeddings, and choose on validation data how much each counts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.config.fields import updated
from recsys_embed.config.recipes import embeddings_only
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import SettingError
from recsys_embed.models.base import Family
from recsys_embed.models.ease import EASE_MAX_ITEMS, Ease
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.fold_in.hybrid import HybridFoldIn
from recsys_embed.models.hybrid import HybridModel, describe_share
from recsys_embed.models.item_weights import Histories, ItemWeights
from recsys_embed.models.local_ridge import MAX_ENTRIES, LocalRidge, Penalty, sizes_in
from recsys_embed.models.neighbours import Neighbours
from recsys_embed.retrieval.base import Mask
from recsys_embed.retrieval.exact import BLOCK
from recsys_embed.tracking.tracker import ProgressOnly
from recsys_embed.training.checkpoints import below
from recsys_embed.training.embedding import fit_embedding
from recsys_embed.training.interface import TrainingResult, as_good, finite_metric

if TYPE_CHECKING:
    from recsys_embed.training.interface import FitRequest

log = logging.getLogger("recsys_embed")

# What is tried on validation data, in this order, and what is taken without any: the first (experiments/LOG.md).
# Penalties beside the best of the first three are tried after them.
PENALTIES = (Penalty(80, 1.0), Penalty(20, 0.25), Penalty(300, 1.0))
BESIDE = {Penalty(80, 1.0): (Penalty(80, 0.25),), Penalty(20, 0.25): (Penalty(80, 0.25), Penalty(5, 0.25))}
POWERS = (0.15, 0.3, 0.07, 0.0)
SHARES = (0.45, 0.1, 0.2, 0.3, 0.6, 0.8)
_EASE_L2 = 300.0
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
    request.positives.amounts(request.train.sample_weight == "rating")  # raises before the training
    if not request.model.embeddings:
        model, chosen = _Candidates(family, request, no_embedding(request.positives)).choose()
        return TrainingResult(model, chosen=chosen)
    result = fit_embedding(request)
    alone = embeddings_only(request.train.loss, request.ratings.is_graph)
    if not alone and result.stopped != "interrupted":
        try:
            result = _sparse_recipe(request, result) if family == "auto" else result
            model, chosen = _Candidates(family, request, result.model).choose()
            return replace(result, model=model, chosen={**result.chosen, **chosen})
        except KeyboardInterrupt:
            log.warning("interrupted after the embeddings were trained: they are kept, without item neighbours")
            result = replace(result, stopped="interrupted")
    return replace(result, chosen={**result.chosen, "model_family": "embeddings"})


def _sparse_recipe(request: FitRequest, result: TrainingResult) -> TrainingResult:
    """For a sampled softmax with the usual recipe, train by the other one too, and return the better on validation."""
    given = {**vars(request.model), **vars(request.train)}
    is_usual = given["loss"] == "sampled-softmax" and all(given[name] == value for name, value in _RECIPE.items())
    if not (request.validate and given["cosine"] and is_usual) or request.warm_start is not None:
        return result
    name, sign = request.monitor
    tracker = None if request.tracker is None else ProgressOnly(request.tracker)
    model, train = updated(request.model, _SPARSE), updated(request.train, _SPARSE)
    other = fit_embedding(replace(request, model=model, train=train, tracker=tracker))
    if other.stopped == "interrupted":
        raise KeyboardInterrupt
    values = [sign * tried.history[tried.epochs - 1][name] for tried in (result, other)]
    log.info("validation %s %.4f, and %.4f with less decay and temperature", name, *values)
    return result if values[0] >= values[1] else replace(other, chosen=dict(_SPARSE))


def _histories_on_disk(positives: Ratings, amounts: Floats | None) -> Histories:
    """Return the histories of all users, beside the ratings on disk."""
    item = positives.computed(lambda rows: rows.item.astype(np.int32))
    ones = positives.computed(lambda rows: np.ones(len(rows), np.float32)) if amounts is None else amounts
    return Histories(positives.seen().indptr, item, ones)


def no_embedding(positives: Ratings) -> EmbeddingModel:
    """Return embeddings of width 0, for item neighbours alone."""
    sizes = len(positives.users), len(positives.items)
    users, items = (np.zeros((n, 0), np.float32) for n in sizes)
    user_bias, item_bias = (np.zeros(n, np.float32) for n in sizes)
    return EmbeddingModel(users, items, user_bias, item_bias)


def log_counts_of(positives: Ratings) -> Floats:
    """Return the logarithm of the items' ratings, [items]; 0 for items without any."""
    return np.log(np.maximum(positives.item_counts, 1)).astype(np.float32)


@dataclass
class _Candidates:
    """What a training with neighbours chooses from: penalties, powers of popularity, and shares."""

    family: str
    request: FitRequest
    embedding: Any

    def choose(self) -> tuple[Any, dict[str, Any]]:
        """Return the best model on validation data, or that of the default settings without any, and its settings."""
        given, positives = self.request.model, self.request.positives
        amounts = self._amounts()
        if positives.disk is None:
            self.histories = Histories.of(positives.matrix(amounts))
        else:
            self.histories = _histories_on_disk(positives, amounts)
        self.log_counts = log_counts_of(positives)
        self.users = np.flatnonzero(np.bincount(positives.user, minlength=len(positives.users)))
        if self.family == "ease":
            powers: Sequence[float] = (given.popularity_power or 0.0,)
            penalty, weights = self._ease(powers[0])
        else:
            powers = POWERS if given.popularity_power is None else (given.popularity_power,)
            penalty, weights = self._ridge(powers[0])
        neighbours = Neighbours(weights, self.log_counts, powers[0])
        share = 1.0 if self.family in ("neighbours", "ease") else self._share(neighbours)
        if share == 0:
            return self.embedding, {"model_family": "embeddings"}
        models = [self._mixed(replace(neighbours, power=power), share) for power in powers]
        good = as_good([self._value(model) for model in models]) if self.request.validate else [0]
        best = sorted(good, key=lambda n: powers[n])[(len(good) - 1) // 2]
        chosen = {"model_family": models[best].family, "blend": share, "popularity_power": powers[best]}
        chosen |= {"l2": penalty.l2, "l2_share": penalty.share}
        return models[best], chosen | ({} if self.family == "ease" else {"neighbours": self.most_neighbours})

    @property
    def most_neighbours(self) -> int:
        """The most neighbours of an item."""
        positives = self.request.positives
        few = len(positives.items) > _MANY_ITEMS
        most = self.request.model.neighbours or (_FEWER_NEIGHBOURS if few else _NEIGHBOURS)
        return (
            most if positives.disk is None else sizes_in(positives.disk.memory, len(positives.items), most).neighbours
        )

    def _amounts(self) -> Floats | None:
        """Return how much each rating counts, 1 on average; None for 1 each."""
        positives = self.request.positives
        amounts = positives.amounts(self.request.train.sample_weight == "rating")
        if amounts is None:
            return None
        weighted, low = replace(positives, weight=amounts), 1e-3 * amounts.max()  # type: ignore[arg-type]

        def clipped(rows: Ratings) -> Any:  # 0 would be no rating at all
            return np.maximum(np.asarray(rows.weight), low)

        mean = sum(clipped(rows).sum() for rows in weighted.blocks()) / len(positives)
        return weighted.computed(lambda rows: (clipped(rows) / mean).astype(np.float32))

    def _ridge(self, power: float) -> tuple[Penalty, ItemWeights]:
        """Return the best penalty and its weights: that of the first ones, or one beside it."""
        ridge = LocalRidge(*self._learnt_from())
        most = max(1, int(_MAX_WORK / max(ridge.work, 1.0))) if self.request.validate else 1

        def best_of(penalties: Sequence[Penalty]) -> tuple[float, Penalty, ItemWeights]:
            fits = zip(penalties, self._fitted(ridge, penalties), strict=True)
            return max(((self._value_alone(w, power), p, w) for p, w in fits), key=itemgetter(0))

        first = self._with_given(PENALTIES)[:most]
        best = best_of(first)
        beside = [p for p in self._with_given(BESIDE.get(best[1], ())) if p not in first][: most - len(first)]
        if beside:
            best = max(best, best_of(beside), key=itemgetter(0))
        return best[1:]

    def _learnt_from(self) -> tuple[Ratings, int, Floats | None, int]:
        """Return the ratings that the regressions are about, the most neighbours, the amounts, and the most
        co-occurrences. Of ratings on disk they are those of as many users, drawn at random, as memory allows."""
        positives, amounts = self.request.positives, self._amounts()
        if positives.disk is None:
            return positives, self.most_neighbours, amounts, MAX_ENTRIES
        most = sizes_in(positives.disk.memory, len(positives.items), self.most_neighbours)
        users = round(most.ratings / len(positives) * len(self.users))
        weighted = positives if amounts is None else replace(positives, weight=amounts)
        drawn = weighted.of_random_users(users)
        if len(drawn) < len(positives):
            log.info("item neighbours are learnt from %s ratings of %s users", f"{len(drawn):,}", f"{users:,}")
        return drawn, most.neighbours, None if amounts is None else drawn.weight, most.entries

    def _fitted(self, ridge: LocalRidge, penalties: Sequence[Penalty]) -> list[ItemWeights]:
        """Return the weights under each penalty, from the checkpoint if there is one."""
        tracker, checkpoints = self.request.tracker, self.request.checkpoints
        progress = None if tracker is None else partial(tracker.progress, unit="neighbours of item")
        if checkpoints is None:
            return ridge.fit(penalties, progress)
        inputs = self.request.positives.digest(), repr((penalties, self.most_neighbours, self.request.train))
        stage = checkpoints.stage("the regressions of item neighbours", *inputs)
        if stage.saved is None:
            found = ridge.fit(penalties, progress)
            arrays = {f"{n}.{name}": a for n, weights in enumerate(found) for name, a in vars(weights).items()}
            stage.save(arrays, {}, done=True)
            return found
        saved = (below(stage.saved.arrays, f"{n}.") for n in range(len(penalties)))
        return [ItemWeights(a["indptr"], a["target"], a["weight"]) for a in saved]

    def _with_given(self, penalties: Sequence[Penalty]) -> list[Penalty]:
        """Return the distinct penalties with the l2 and the share that were given."""
        l2, share = self.request.model.l2, self.request.model.l2_share
        given = (Penalty(p.l2 if l2 is None else l2, p.share if share is None else share) for p in penalties)
        return list(dict.fromkeys(given))

    def _ease(self, power: float) -> tuple[Penalty, ItemWeights]:
        given, positives = self.request.model, self.request.positives
        if len(positives.items) > EASE_MAX_ITEMS:
            raise SettingError(
                f"--model-family ease inverts a matrix of items x items: {len(positives.items):,} items are too many; "
                "neighbours and both take any number"
            )
        ease, l2 = Ease(positives, self._amounts()), given.l2
        if l2 is None:
            l2 = _EASE_L2
            if self.request.validate:
                l2 = ease.tune(lambda matrix: self._value_alone(ItemWeights.of_matrix(matrix), power))
        try:
            return Penalty(l2, 0.0), ItemWeights.of_matrix(ease.weights(l2))
        except np.linalg.LinAlgError:
            raise SettingError(f"EASE has no solution with --l2 {l2:g}: give a larger one") from None

    def _neighbours_only(self, neighbours: Neighbours) -> HybridModel:
        family = "ease" if self.family == "ease" else "neighbours"
        return HybridModel(family, self.embedding, neighbours, self.histories, 0.0, 1.0)

    def _share(self, neighbours: Neighbours) -> float:
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
        values = [self._value(self._mixed(neighbours, share)) for share in shares]
        good = as_good(values)
        best = good[len(good) // 2]  # the middle: the best of them stands out by chance
        name, family = self.request.monitor[0], "both" if 0 < shares[best] < 1 else "neighbours"
        alone = (
            f"; embeddings alone {values[0]:.4f}, neighbours alone {values[-1]:.4f}" if self.family == "auto" else ""
        )
        kept = describe_share(family, shares[best])
        log.info("kept: %s (validation %s %.4f%s)", kept, name, values[best], alone)
        return shares[best]

    def _mixed(self, neighbours: Neighbours, share: float) -> Any:
        """Return the model in which the neighbours have this share of the score's spread."""
        if share == 0:
            return self.embedding
        model = self._neighbours_only(neighbours)
        if share == 1:
            return model
        own = float(neighbours.scores(self.histories[self._sample])[:, self._rated].std())
        factor = share / (1 - share) * self._spread / (own or 1.0)
        return replace(model, family="both", neighbours=neighbours.scaled(factor), embedding_scale=1.0, share=share)

    @cached_property
    def _sample(self) -> Rows:
        """Users on whom the spread of scores is measured: fewer of them if there are very many items."""
        n = max(16, min(_SAMPLE, BLOCK // len(self.log_counts)))
        return np.random.default_rng(0).permutation(self.users)[:n]

    @cached_property
    def _spread(self) -> float:
        """The standard deviation of the embeddings' scores of rated items; others may have descriptions."""
        return float(self.embedding.score(self.embedding.queries(self._sample))[:, self._rated].std())

    @cached_property
    def _rated(self) -> Mask:
        """Which items have a rating, bool [items]."""
        return self.request.positives.item_counts > 0

    def _value_alone(self, weights: ItemWeights, power: float) -> float:
        """Return the validation metric of neighbours alone."""
        return self._value(self._neighbours_only(Neighbours(weights, self.log_counts, power)))

    def _value(self, model: Any) -> float:
        """Return a model's validation metric, so that more is better; 0 without validation data."""
        if not self.request.validate:
            return 0.0
        name, sign = self.request.monitor
        return sign * finite_metric(self.request.validate(model), name)


def _family(name: str) -> Family:
    return Family(partial(fit_hybrid, name), HybridModel.load, HybridFoldIn)


AUTO, NEIGHBOURS, EASE, BOTH = (_family(name) for name in ("auto", "neighbours", "ease", "both"))
