"""What a rating is: vocabularies, the table, splits and checks."""

from recsys_embed.ratings.checks import check_apart, check_trainable
from recsys_embed.ratings.splits import Split, split_cold_items, split_leave_last, split_random, split_time
from recsys_embed.ratings.table import Ratings, Seen
from recsys_embed.ratings.vocab import Vocab

__all__ = [
    "Ratings",
    "Seen",
    "Split",
    "Vocab",
    "check_apart",
    "check_trainable",
    "split_cold_items",
    "split_leave_last",
    "split_random",
    "split_time",
]
