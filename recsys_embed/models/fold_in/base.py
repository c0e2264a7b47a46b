"""Fold-in: compute the vector of a user who was not in training from their feedback, or update a trained user's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows

# What a model holds of a user besides a bias: for embeddings an array [d]. Only the model and its fold-in look inside.
UserVector = Any


@dataclass(frozen=True)
class Feedback:
    """A user's feedback on n items.

    rows [n]: distinct item rows, ascending. weight [n]: 1 for a like, below 0 for a dislike. ratings [n]: NaN where
    there is none; only models of "stars" use them.
    """

    rows: Rows
    weight: Floats
    ratings: Floats

    @classmethod
    def from_likes(cls, rows: Rows) -> Feedback:
        """Return the feedback of a user who likes these item rows [n], in any order; duplicates count once."""
        rows = np.unique(rows)
        return cls(rows, np.ones(len(rows), np.float32), np.full(len(rows), np.nan, np.float32))

    def merged_with(self, history: Rows) -> Feedback:
        """Return this feedback on top of likes for the items of a history [m].

        Liking an item of the history again changes nothing; disliking one replaces its like.
        """
        liked = np.setdiff1d(history, self.rows[self.weight <= 0], assume_unique=True)
        new = ~np.isin(self.rows, liked)
        likes = Feedback.from_likes(liked)
        rows = np.concatenate((liked, self.rows[new]))
        order = np.argsort(rows)
        weight = np.concatenate((likes.weight, self.weight[new]))[order]
        ratings = np.concatenate((likes.ratings, self.ratings[new]))[order]
        return Feedback(rows[order], weight, ratings)


class ItemContributions(NamedTuple):
    """What each of n items adds to a score, and the remainder that no item adds, if any."""

    values: NDArray[np.float64]
    remainder: float | None = None


class FoldIn(Protocol):
    """Computes vectors [d] and biases of users from their feedback, for one model."""

    def fit_user(self, feedback: Feedback) -> tuple[UserVector, float]:
        """Return the vector and bias of a new user; zeros without feedback."""
        ...

    def update_user(
        self, user: int, history: Rows, vector: UserVector, bias: float, feedback: Feedback
    ) -> tuple[UserVector, float]:
        """Return the vector and bias of a trained user after more feedback.

        user: their row. history: the item rows they were trained on, ascending. vector, bias: the current ones; they
        are returned unchanged if the feedback adds nothing new.
        """
        ...

    def contributions(self, feedback: Feedback, vector: UserVector, row: int) -> ItemContributions | None:
        """Return what each item of the feedback adds to the score of an item row.

        vector [d]: what `fit_user` returned for the feedback. Returns None if the vector is not a sum over items.
        """
        ...


class RankingFoldIn(ABC):
    """Base of the fold-ins for ranking models: they share the update of trained users."""

    @abstractmethod
    def fit_user(self, feedback: Feedback) -> tuple[Floats, float]:
        """See `FoldIn`."""

    def _without(self, user: int) -> RankingFoldIn:
        """Return a fold-in that ignores this user."""
        return self

    def update_user(
        self, user: int, history: Rows, vector: Floats, bias: float, feedback: Feedback
    ) -> tuple[Floats, float]:
        """See `FoldIn`: fold in everything, and keep what training learnt beyond the fold-in, by the history's share.

        x = f(all) + (vector - f(history)) x |history| / |all|, where f is `fit_user`. Updating step by step equals
        updating at once: the kept difference ends up multiplied by |history| / |all| either way.
        """
        merged = feedback.merged_with(history)
        if np.array_equal(merged.rows, history) and (merged.weight == 1).all():
            return vector, bias
        share, fold_in = np.float32(len(history) / len(merged.rows)), self._without(user)
        all_vector, all_bias = fold_in.fit_user(merged)
        old_vector, old_bias = fold_in.fit_user(Feedback.from_likes(history))
        return all_vector + share * (vector - old_vector), float(all_bias + share * (bias - old_bias))
