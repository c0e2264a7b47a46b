"""Numbers as a reader who knows no statistics has them: "86 of 100 lists", "between 23 and 29"."""

from __future__ import annotations

from typing import Any, NamedTuple

from recsys_embed.config.fields import short_name
from recsys_embed.state.fitted import FittedState
from recsys_embed.state.verdict import counted

BASELINES = {
    "popularity": "the same list for everybody: the items with most ratings (“bestsellers”), less what the user has",
    "recent_popularity": "the same list for everybody: the items with most ratings lately, less what the user has",
    "ease": "a simple formula that learns which items go together, without embeddings; hard to beat",
}
SPLITS = {
    "random": "Some ratings of each user, drawn at random, were kept back. Since others of the same time were not, "
    "this is easier than real life",
    "time": "The newest ratings were kept back, so that the model had to tell what came next, as in real life",
    "leave-last": "The last rating of each user was kept back",
    "cold-items": "All ratings of some items were kept back, as if these items were new",
}


class Terms(NamedTuple):
    """What users, items and ratings are called: in a graph they are nodes and links."""

    user: str
    item: str
    rating: str

    @classmethod
    def of(cls, state: FittedState) -> Terms:
        """Return the words for a model."""
        return cls("node", "node", "link") if state.is_graph else cls("user", "item", "rating")


def of_100(share: float) -> str:
    """Return a share as a number of 100, with a decimal where it would be 0 or 100 otherwise: "86", "0.4"."""
    value = 100 * share
    return f"{value:.0f}" if 0.95 <= value < 99.5 or value in (0, 100) else f"{value:.1f}"


def per_100(share: float) -> str:
    """Return a difference of shares as a number of 100, with its sign: "+26.4"."""
    return f"{100 * share:+.1f}"


def between(low: float, high: float) -> str:
    """Return an interval of a difference of shares: "between 23.4 and 29.3 more of 100"."""
    low, high = 100 * low, 100 * high
    if low >= 0:
        return f"between {low:.1f} and {high:.1f} more of 100"
    if high <= 0:
        return f"between {-high:.1f} and {-low:.1f} fewer of 100"
    return f"between {-low:.1f} fewer and {high:.1f} more of 100"


def one_hit(n_hits: float, n_users: int) -> str:
    """Return how many lists of some users have a hit: "807 of 943"."""
    return f"{round(n_hits * n_users):,} of {n_users:,}"


def dataset_name(metadata: dict[str, Any]) -> str:
    """Return the name of the data for a title."""
    return short_name(str(metadata.get("dataset") or "ratings"))


def method_text(state: FittedState) -> str:
    """Return in a sentence what the model goes by."""
    kind = state.model.family
    texts = {
        "embeddings": "learns some numbers for every user and item (an “embedding”), such that those of a user and of "
        "what they have are alike",
        "neighbours": "learns which items the same users have, and suggests what goes with a user's own",
        "ease": "learns in one formula which items the same users have, and suggests what goes with a user's own",
        "both": "learns some numbers for every user and item (an “embedding”) and which items the same users have, and "
        "adds up both",
    }
    what = texts.get(kind, f"is of the family “{kind}”")
    stars = " It predicts how many stars a user would give, and lists come from the highest predictions."
    return f"The model {what}.{stars if state.model.output == 'stars' else ''}"


def sizes_text(state: FittedState, terms: Terms) -> str:
    """Return the sizes of what the model learned from."""
    if state.is_graph:
        return f"{counted(len(state.users), terms.user)} and {counted(len(state.seen) // 2, terms.rating)} between them"
    sizes = (len(state.users), terms.user), (len(state.items), terms.item), (len(state.seen), terms.rating)
    return "{}, {} and {}".format(*(counted(number, what) for number, what in sizes))
