"""Which of several models answers a user: always the same one, by a hash of the user's id."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recsys_embed.answering.request import Recommendations
from recsys_embed.config.answers import ServeConfig
from recsys_embed.data.ids import Id
from recsys_embed.errors import UnknownId
from recsys_embed.serving.event_store import EventStore
from recsys_embed.serving.model_slot import ModelSlot
from recsys_embed.serving.outcome_store import GivenList, Outcomes
from recsys_embed.serving.outcome_tables import successes_for
from recsys_embed.serving.served_model import ServedModel


def assign(ab_test: str, user: str, shares: Mapping[str, float]) -> str:
    """Return the variant of a user. user: the id as text; shares: of the variants, by name.

    It depends on nothing else: not on the process, the machine, or the order of the variants. This is rendezvous
    hashing with weights (Schindelhauer and Schomaker, Weighted distributed hash tables, SPAA 2005): every variant draws
    a number for the user, and the smallest one wins. So users move to a variant only if its share has grown against
    that of theirs, and a new variant takes users without any moving between the others.
    """

    def draw(name: str) -> float:
        digest = hashlib.blake2b(f"{ab_test}\0{name}\0{user}".encode(errors="surrogatepass"), digest_size=8).digest()
        uniform = (int.from_bytes(digest) + 1) / (2**64 + 1)
        return -math.log(uniform) / shares[name] if shares[name] else math.inf

    return min(sorted(shares), key=draw)


@dataclass(frozen=True)
class Chosen:
    """The model that answers a request. variant: its name, if there are several. user: whom the list counts for, if it
    does."""

    model: ServedModel
    variant: str | None = None
    user: str | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What an answer says of the model."""
        return {"model": self.model.name} | ({} if self.variant is None else {"variant": self.variant})

    def given(self, answer: Recommendations) -> GivenList | None:
        """Return what is to be counted of a list once it is sent, or None for one that does not count."""
        if self.user is None or self.variant is None:
            return None
        ids = self.model.state.item_ids
        return GivenList(self.user, self.variant, [str(ids[row]) for row in answer.rows.tolist()])


class Variants:
    """The variants of a service, and what came of their lists. Raises SettingError if `--target` has changed."""

    def __init__(self, config: ServeConfig, slots: Sequence[ModelSlot], events: EventStore) -> None:
        self.ab_test = config.ab_test
        self.shares = {variant.name: variant.share for variant in config.variants}
        self.slots = dict(zip(self.shares, slots, strict=True))
        self.first = config.variants[0].name
        successes = successes_for(config.target, slots[0].served.state)
        # Another process may have an event while the list before it still waits in this one.
        lag = 0.0 if config.workers == 1 else None
        self.outcomes = Outcomes(events, config.ab_test, config.variants, successes, config.target is not None, lag)

    def choose(self, user: Id | None, session: Id | None, variant: str | None, follow: bool = True) -> Chosen:
        """Return the model for a user, or else a session, or the first one for a request with neither.

        variant: the one that the request names; its lists do not count. follow: see `ModelSlot.model`. Raises UnknownId
        if there is no such variant.
        """
        if variant is not None and variant not in self.slots:
            raise UnknownId(f"variant {variant} is not known; there are {', '.join(self.slots)}")
        key = session if user is None else user
        counts = variant is None and key is not None
        name = variant or (self.first if key is None else assign(self.ab_test, str(key), self.shares))
        slot = self.slots[name]
        model = slot.model if follow else slot.served
        return Chosen(model, name, str(key)) if counts else Chosen(model, name)

    def status(self) -> list[dict[str, Any]]:
        """Return which models answer."""
        return [
            {
                "variant": name,
                "model": slot.served.name,
                "version": slot.served.version,
                "users": len(slot.served.state.users),
                "items": len(slot.served.state.items),
            }
            for name, slot in self.slots.items()
        ]
