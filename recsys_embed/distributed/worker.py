"""What a rank other than 0 does: as rank 0 says. Started by --nproc."""

from __future__ import annotations

import os

from recsys_embed.distributed.ranks import Ranks, defer_to_leader, join_beside, leave


def work(ranks: Ranks) -> None:
    """Take part in trainings until rank 0 ends, or is lost: then this process ends with code 1."""
    from recsys_embed.distributed.member import Member

    defer_to_leader()
    member: Member | None = None
    try:
        while (message := ranks.hear())["op"] != "end":
            if message["op"] == "fit":
                member = None  # the tables of the fit before
                member = Member.set_up(ranks, message)
            elif member is not None:
                member.do(message)
    except RuntimeError:  # a connection was closed: whoever closed it says why
        os._exit(1)  # without waiting for the others


if __name__ == "__main__":
    ranks = join_beside()
    try:
        work(ranks)
    finally:
        leave(ranks)
