"""What a family of scoring models offers, whatever it learns: the one interface that answers depend on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self

from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.data.user_items import UserItems
from recsys_embed.models.fold_in.base import FoldIn

OutputKind = Literal["score", "stars", "chance"]

Arrays = dict[str, NDArray[Any]]


class ScoringModel(Protocol):
    """A trained model of one family as plain arrays.

    A user is a vector [d] and a bias, whatever a family means by them: an embedding, or the weights of a history.
    Queries [b, q] are users made ready to be scored; only the model itself looks into them.

    family: its name in the registry, and in the model folder. output: what a score means. scale, offset: the lowest and
    highest rating of the training and their mean; only a model of "stars" looks at them.
    """

    family: ClassVar[str]

    @property
    def output(self) -> OutputKind:
        """A "score" without a unit, "stars" (the predicted rating), or the log-odds of a "chance"."""
        ...

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest rating of the training."""
        ...

    @property
    def offset(self) -> float:
        """What every score begins from: for a model of stars the mean rating."""
        ...

    @property
    def dim(self) -> int:
        """Length of a user's vector."""
        ...

    @property
    def item_vectors(self) -> Floats:
        """The items in a space of which neighbours, diversity and maps speak, [I, e]; biases take no part."""
        ...

    @property
    def users_are_histories(self) -> bool:
        """Whether a user of the training is made of what they rated, so that each item has its contribution."""
        ...

    @property
    def cost(self) -> int:
        """About how many multiplications the scores of one user take; the service asks, to spare its event loop."""
        ...

    def user(self, row: int) -> tuple[Floats, float]:
        """Return the vector [d] and the bias of a user of the training."""
        ...

    def queries(self, users: Rows) -> Any:
        """Return users of the training, by row, as queries [b, q]."""
        ...

    def augment(self, vectors: Floats, bias: Floats | float = 0.0) -> Any:
        """Return users by their vectors [b, d] and biases as queries [b, q]."""
        ...

    def score(self, queries: Any, rows: Rows | None = None) -> Floats:
        """Return the scores of queries with all items, [b, I], or with some item rows: a new array."""
        ...

    def score_parts(self, bias: float, item: int, score: float) -> dict[str, float]:
        """Return the parts that add up to a user's score of an item, by name."""
        ...

    def predict(self, users: Rows, items: Rows) -> Floats:
        """Return what is expected of (user, item) pairs, [n], in the unit of `output`."""
        ...

    def to_prediction(self, score: Floats) -> Floats:
        """Return scores in the unit of `output`."""
        ...

    def boosted(self, amounts: Floats) -> Self:
        """Return the model with amounts [I] added to the scores of its items."""
        ...

    def with_users(self, count: int, changed: Mapping[int, tuple[Floats, float]]) -> Self:
        """Return the model with so many users: those of `changed`, by row, have these vectors and biases.

        Users are only added at the end; one that is new and not in `changed` has a vector and a bias of zero.
        """
        ...

    def save(self) -> tuple[Arrays, dict[str, Any]]:
        """Return everything that `Family.load` needs: arrays by name, and facts that JSON can hold."""
        ...


@dataclass(frozen=True)
class Family:
    """How a family of models comes to be; `registry.FAMILIES` names one in one line.

    fit: (a `training.fit.FitRequest`) -> a `training.result.TrainingResult` with the model.
    load: (arrays, facts, as `save` gave them) -> the model; raises KeyError for what is missing.
    fold_in: (model, ratings of each item [I], items of each user) -> what makes users who were not in training.
    """

    fit: Callable[[Any], Any]
    load: Callable[[Arrays, Mapping[str, Any]], ScoringModel]
    fold_in: Callable[[Any, Rows, UserItems], FoldIn]
