"""Types of events, such as view, cart and purchase: what they count in training, and what they count afterwards."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from recsys_embed.config.settings import DataConfig
from recsys_embed.errors import DataError

log = logging.getLogger("recsys_embed")

# Types that say that an item is not wanted, and other types that say no. Neither is trained on unless it is given a
# weight.
_UNWANTED = {"dislike", "downvote", "hide", "not_interested", "thumbs_down"}
_NEGATIVE = _UNWANTED | {
    "refund", "remove", "remove_from_cart", "return", "skip", "unfollow", "unlike", "erstattung", "retoure", "rückgabe",
    "storno", "remboursement", "retour", "devolucion", "devolución", "reembolso",
}  # fmt: skip
# What separates words in the name of a type.
_WORD_ENDS = re.compile(r"[\s-]+")


@dataclass(frozen=True)
class EventType:
    """A type of events. weight: of one event in training; 0: it does not count. is_target: lists are measured by it.
    hides: whether an item with such an event of a user is left out of their lists."""

    name: str
    weight: float = 1.0
    is_target: bool = True
    hides: bool = True

    @property
    def takes_back(self) -> bool:
        """Whether such an event undoes what the user did with the item before, as a dislike does."""
        return not self.weight and _plain_name(self.name) in _UNWANTED


class Interaction(NamedTuple):
    """What a user did with an item. weight: 1 for what is typical of the training, 0 if it is not to count. hides:
    whether the user's lists leave the item out. rating: if that says what it is worth, rather than the weight."""

    weight: float = 1.0
    hides: bool = True
    rating: float | None = None


@dataclass(frozen=True)
class EventTypes:
    """What events count for a model that is trained.

    types: those that it was trained on, by name; None if it knows none. mean_weight: of a user's item in training.
    """

    types: Mapping[str, EventType] | None = None
    mean_weight: float = 1.0

    @classmethod
    def load(cls, metadata: Mapping[str, Any]) -> EventTypes:
        """Return the types in the metadata of a model, see `saved`."""
        types = metadata.get("events")
        mean = metadata.get("mean_weight", 1.0)
        return cls(None if types is None else {name: EventType(name, **saved) for name, saved in types.items()}, mean)

    @property
    def hiding(self) -> list[str] | None:
        """The types that hide items where others that count do not; None where all that counts hides."""
        types = (self.types or {}).values()
        return [t.name for t in types if t.hides] if any(t.weight > 0 and not t.hides for t in types) else None

    def type_of(self, name: str) -> EventType | None:
        """Return a type by its name, or None for a model that does not know it.

        For a model without types all are alike, but those that say no.
        """
        return _unweighted_type(name) if self.types is None else self.types.get(name)

    def interaction(self, names: Iterable[str | None]) -> Interaction:
        """Return what events of a user and an item count together: the most of any after the last that takes it back.

        names: of their types, in the order of their latest events. None: an event without a type, a like. Types that
        the model does not know do not count.
        """
        weight, hides = 0.0, False
        for name in names:
            found = EventType("", self.mean_weight) if name is None else self.type_of(name)
            if found is not None:
                weight = 0.0 if found.takes_back else max(weight, found.weight / self.mean_weight)
                hides = hides or found.hides
        return Interaction(weight, hides)

    def of_found(self, found: Mapping[str, int]) -> tuple[EventType, ...]:
        """Return the types of some events for the model. found: their names, and how many events of each there are."""
        types = []
        for name, count in found.items():
            known = self.type_of(name)
            if known is None:
                log.warning("%s events %r do not count: the model was not trained on any", f"{count:,}", name)
            types.append(known or EventType(name, 0.0, False, False))
        return tuple(types)


# The weight of a type that is n times as rare as the most frequent one is n to one of these powers. (The target alone
# is tried too.)
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def candidate_weights(types: Iterable[EventType], counts: Iterable[int]) -> list[dict[str, float]]:
    """Return the weights that `--event-weights auto` chooses from, by name. counts: the events of each type."""
    types, numbers = list(types), list(counts)
    most = max((n for t, n in zip(types, numbers, strict=True) if t.weight > 0), default=1)
    tried = [
        {t.name: (most / n) ** power if t.weight > 0 else 0.0 for t, n in zip(types, numbers, strict=True)}
        for power in POWERS
    ]
    tried.append({t.name: float(t.weight > 0 and t.is_target) for t in types})
    tried = [{name: round(weight, 2) for name, weight in weights.items()} for weights in tried]
    return [weights for n, weights in enumerate(tried) if any(weights.values()) and weights not in tried[:n]]


def saved(types: Iterable[EventType]) -> dict[str, Any]:
    """Return types for the metadata of a model."""
    return {t.name: {"weight": t.weight, "is_target": t.is_target, "hides": t.hides} for t in types}


def _plain_name(name: str) -> str:
    return _WORD_ENDS.sub("_", name.lower())


def says_no(name: str) -> bool:
    """Return whether the name of a type says that an item is not wanted, or is given back."""
    return _plain_name(name) in _NEGATIVE


def _unweighted_type(name: str) -> EventType:
    """Return a type of a log without weights: it counts as the others do, unless it says no."""
    positive = not says_no(name)
    return EventType(name, float(positive), positive, positive or _plain_name(name) in _UNWANTED)


def event_types(found: Mapping[str, int], config: DataConfig) -> tuple[EventType, ...]:
    """Return the types of events as the settings say. found: their names, and how many events of each there are.

    Types without a weight do not count if others are given one, nor do those that say no; both are logged. Raises
    DataError for types that do not occur.
    """
    weights = config.weights_of_events
    targets, hiding = config.names_of(config.target), config.names_of(config.hide)
    known = ", ".join(f"{name} ({count:,})" for name, count in found.items())
    for option, names in (("--event-weights", list(weights or ())), ("--target", targets), ("--hide", hiding)):
        for name in names:
            if name not in found:
                raise DataError(f"{option} names {name!r}, and there is no such event; the events are {known}")
    types = []
    for name, count in found.items():
        weight = weights.get(name, 0.0) if weights else _unweighted_type(name).weight
        if not weight and name not in (weights or ()):
            why = (
                "--event-weights gives them no weight"
                if weights
                else "the name says no; --event-weights may count them"
            )
            log.warning("%s events %r are not trained on: %s", f"{count:,}", name, why)
        is_target = name in targets if targets else weight > 0
        hides = name in hiding if hiding else is_target or (not weight and _plain_name(name) in _UNWANTED)
        types.append(EventType(name, weight, is_target, hides))
    if not any(t.weight > 0 for t in types):
        raise DataError(f"no event has a weight above 0; the events are {known}")
    return tuple(types)
