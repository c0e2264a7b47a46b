"""Fold-in: the vector of a user who was not there in training, from their feedback; and a known user's, updated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows


@dataclass(frozen=True)
class Feedback:
    """What a user says of n items.

    rows [n]: distinct item rows, ascending. weight [n]: how much each counts; a like weighs 1, a disliked item less
    than 0. ratings [n]: NaN where there is none; only models of stars look at them.
    """

    rows: Rows
    weight: Floats
    ratings: Floats

    @classmethod
    def from_likes(cls, rows: Rows) -> Feedback:
        """Nothing but likes: rows [n] in any order; duplicates count once."""
        rows = np.unique(rows)
        return cls(rows, np.ones(len(rows), np.float32), np.full(len(rows), np.nan, np.float32))

    def merged_with(self, history: Rows) -> Feedback:
        """Return likes of the items of a history [m], with this feedback added to them.

        An item of the history that is liked again changes nothing; one that is disliked now is a dislike.
        """
        kept = np.setdiff1d(history, self.rows[self.weight <= 0], assume_unique=True)
        new = ~np.isin(self.rows, kept)
        likes = Feedback.from_likes(kept)
        rows = np.concatenate((kept, self.rows[new]))
        order = np.argsort(rows)
        weight = np.concatenate((likes.weight, self.weight[new]))[order]
        ratings = np.concatenate((likes.ratings, self.ratings[new]))[order]
        return Feedback(rows[order], weight, ratings)


class ItemContributions(NamedTuple):
    """What each of n items adds to a score, and what is added besides them, or None."""

    values: NDArray[np.float64]
    remainder: float | None = None


class FoldIn(Protocol):
    """Makes vectors [d] and biases of users from their feedback, for one model."""

    def fit_user(self, feedback: Feedback) -> tuple[Floats, float]:
        """Return the vector and bias of a new user; zeros without feedback."""
        ...

    def update_user(
        self, user: int, history: Rows, vector: Floats, bias: float, feedback: Feedback
    ) -> tuple[Floats, float]:
        """Return the vector and bias of a user of the model after more feedback.

        user: their row. history: item rows of their training, ascending. vector, bias: what the model has for them,
        returned unchanged where the feedback says nothing new.
        """
        ...

    def contributions(self, feedback: Feedback, vector: NDArray[np.float64], row: int) -> ItemContributions | None:
        """Return what each item of the feedback adds to the score of an item row, where `fit_user` made the vector [d].

        None where the vector is no sum over items.
        """
        ...


class RankingFoldIn:
    """The update of known users that all fold-ins for ranking models share."""

    def fit_user(self, feedback: Feedback) -> tuple[Floats, float]:
        """See FoldIn."""
        raise NotImplementedError

    def _without(self, user: int) -> RankingFoldIn:
        """Return the fold-in that does not look at this user."""
        return self

    def update_user(
        self, user: int, history: Rows, vector: Floats, bias: float, feedback: Feedback
    ) -> tuple[Floats, float]:
        """See FoldIn: fold everything in, and keep what training found beyond the fold-in, by the history's share.

        x = f(all) + (vector - f(history)) x |history| / |all|, where f is `fit_user`. Updating one by one equals
        updating all at once: what is kept is multiplied by |history| / |all| in the end, whatever came between.
        """
        merged = feedback.merged_with(history)
        if np.array_equal(merged.rows, history) and (merged.weight == 1).all():
            return vector, bias
        share, fold_in = np.float32(len(history) / len(merged.rows)), self._without(user)
        all_vector, all_bias = fold_in.fit_user(merged)
        old_vector, old_bias = fold_in.fit_user(Feedback.from_likes(history))
        return all_vector + share * (vector - old_vector), float(all_bias + share * (bias - old_bias))
