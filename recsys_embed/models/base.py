"""The interface of a family of scoring models; answers depend on nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.data.user_items import UserItems
from recsys_embed.models.fold_in.base import FoldIn, UserVector

OutputKind = Literal["score", "stars", "chance"]

Arrays = dict[str, NDArray[Any]]


class ScoringModel(Protocol):
    """A trained model of one family as plain arrays.

    A user is a `UserVector` and a bias: an embedding, or a history with weights, as the family needs.
    Queries [b, q] are users prepared for scoring; only the model itself interprets them.
    """

    @property
    def family(self) -> str:
        """The name of the family in the registry and in the model folder."""
        ...

    @property
    def output(self) -> OutputKind:
        """What a score is: a unitless "score", "stars" (a predicted rating), or "chance" (log-odds of a positive)."""
        ...

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest training rating; only a model of "stars" uses them."""
        ...

    @property
    def offset(self) -> float:
        """A constant that is part of every score: the mean rating for a model of "stars"."""
        ...

    @property
    def dim(self) -> int:
        """Width of the item vectors and of the part of a user that is multiplied with them."""
        ...

    @property
    def item_vectors(self) -> Floats:
        """Item vectors [I, e] without biases, for neighbours, diversity and maps."""
        ...

    @property
    def has_history_users(self) -> bool:
        """Whether a trained user is computed from the items they rated, so that each item has a contribution."""
        ...

    @property
    def scoring_cost(self) -> int:
        """Roughly the multiplications that scoring one user takes; an expensive model runs off the event loop."""
        ...

    def user(self, row: int) -> tuple[UserVector, float]:
        """Return the vector and the bias of a trained user."""
        ...

    def queries(self, users: Rows) -> Any:
        """Return trained users, by row, as queries [b, q]."""
        ...

    def query(self, vector: UserVector, bias: float = 0.0) -> Any:
        """Return a user given by their vector and bias as a query [1, q]."""
        ...

    def score(self, queries: Any, rows: Rows | None = None) -> Floats:
        """Return the scores of queries for all items [b, I], or for some item rows, as a new array."""
        ...

    def score_components(self, vector: UserVector, bias: float, item: int, score: float) -> dict[str, float]:
        """Return named terms that add up to the score of an item for a user."""
        ...

    def support(self, history: Rows, rows: Rows) -> Floats:
        """Return how much each item of a history [n] speaks for each item row [b, n], on any scale."""
        ...

    def predict(self, users: Rows, items: Rows) -> Floats:
        """Return predictions [n] for (user, item) pairs, in the unit of `output`."""
        ...

    def to_prediction(self, score: Floats) -> Floats:
        """Convert scores to predictions in the unit of `output`."""
        ...

    def boosted(self, amounts: Floats) -> Self:
        """Return the model with amounts [I] added to the scores of the items."""
        ...

    def with_users(self, count: int, changed: Mapping[int, tuple[UserVector, float]]) -> Self:
        """Return the model with `count` users, where those in `changed` (by row) have these vectors and biases.

        New users come after the existing ones; a new user who is not in `changed` gets a zero vector and bias.
        """
        ...

    def save(self) -> tuple[Arrays, dict[str, Any]]:
        """Return everything that `Family.load` needs: arrays by name, and JSON-serializable metadata."""
        ...


@dataclass(frozen=True)
class Family:
    """How the models of a family are made; `registry.FAMILIES` lists the families.

    fit: (a `training.interface.FitRequest`) -> a `training.interface.TrainingResult` with the model.
    load: (arrays and metadata from `save`) -> the model; raises KeyError if something is missing.
    fold_in: (model, ratings per item [I], items of each user) -> the fold-in that computes new users.
    """

    fit: Callable[[Any], Any]
    load: Callable[[Arrays, Mapping[str, Any]], ScoringModel]
    fold_in: Callable[[Any, Rows, UserItems], FoldIn]
