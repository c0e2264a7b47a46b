"""The family of embedding models: how one is fitted and loaded, and how it folds in new users."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from recsys_embed.models.base import Family
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.fold_in.choose import fold_in_for

if TYPE_CHECKING:
    from recsys_embed.training.interface import FitRequest, TrainingResult


def fit_embedding(request: FitRequest) -> TrainingResult:
    """Train towers and a scorer, or sample the posterior of a factorization; return plain arrays."""
    from recsys_embed.nets.two_tower import build_two_tower
    from recsys_embed.training.engines import engine_of
    from recsys_embed.training.gibbs import fit_gibbs
    from recsys_embed.training.trainer import choose_device, fit
    from recsys_embed.training.warm_start import shortened, warm_start_initializer
    from recsys_embed.training.warm_start_weights import copy_weights

    ratings, model, content = request.ratings, request.model, request.content
    train = replace(request.train, device=choose_device(request.train.device)[0])
    positives = request.positives
    init, initial = None, request.initial
    if initial is not None:
        train = replace(train, **shortened(train.epochs or 1, train.lr or 0.0))
        rows = np.arange(len(ratings.users)), np.arange(len(ratings.items))
        init = lambda net: copy_weights(net, initial, *rows)  # noqa: E731
    elif request.warm_start is not None:
        init = warm_start_initializer(request.warm_start, model, train, ratings, content.any)
    if train.method == "gibbs":
        result = fit_gibbs(
            positives, model.dim or 1, train, request.tracker, request.validate, request.epochs, request.checkpoints
        )
        return replace(result, device=train.device)
    history = positives.seen(), train.history_dropout
    sizes = len(ratings.users), len(ratings.items)
    net = build_two_tower(model, *sizes, train.seed, request.item_features, content, history, shared=ratings.is_graph)
    engine = engine_of(train.engine, model)
    how = request.tracker, request.validate, request.monitor, request.epochs, init, request.checkpoints, engine
    result = fit(net, positives, train, *how)
    return replace(result, device=train.device)


FAMILY = Family(fit_embedding, EmbeddingModel.load, fold_in_for)
