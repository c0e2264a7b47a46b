"""Read a file of users whom lists are for."""

from __future__ import annotations

from pathlib import Path

from recsys_embed.data.columns import COLUMN_NAMES
from recsys_embed.data.users_table import UsersTable, users_table
from recsys_embed.sources.read import read_table

_HEADER_NAMES = (*COLUMN_NAMES["user"], "id", "node", "where", "k")


def read_users(location: str | Path, user_col: str | None = None) -> UsersTable:
    """Read users from whatever `read_table` reads, or from a file with an id on each line; see `users_table`.

    user_col: the column of the ids, if its name is unusual. Raises DataError.
    """
    names = (*_HEADER_NAMES, user_col) if user_col else _HEADER_NAMES
    table = read_table(location, known=names, only="user")
    return users_table(table.frame, user_col, table.is_text, table.row_label)
