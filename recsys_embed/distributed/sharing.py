"""Processes that share the parts of a folder, each with a model of its own; they only wait for each other."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from recsys_embed.distributed.started import by_another, by_torchrun
from recsys_embed.errors import ProcessLost
from recsys_embed.storage.part_folder import ALONE, Team

if TYPE_CHECKING:
    from recsys_embed.distributed.ranks import Ranks


@contextlib.contextmanager
def sharing(nproc: int | None = None) -> Iterator[Team]:
    """Yield the processes that torchrun has started, or `nproc` that repeat the command of this one, or this one alone.

    Raises SettingError for `nproc` under torchrun.
    """
    if not (by_torchrun() or by_another() or (nproc or 1) > 1):
        yield ALONE
        return
    from recsys_embed.distributed import ranks

    if by_another():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that has started it says how it goes on
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        team = _Team(ranks.join_beside())
    elif by_torchrun():
        team = _Team(ranks.join_torchrun(nproc))
    else:
        team = _Team(None, nproc or 1)
    try:
        yield team
    except BaseException:
        team.give_up()
        raise
    finally:
        team.leave()


class _Team:
    """See `Team`. ranks: None until they are started."""

    def __init__(self, ranks: Ranks | None, nproc: int = 1) -> None:
        self.ranks, self.nproc = ranks, nproc

    @property
    def rank(self) -> int:
        return 0 if self.ranks is None else self.ranks.rank

    @property
    def size(self) -> int:
        return 1 if self.ranks is None else self.ranks.size

    def start(self) -> None:
        if self.ranks is None:
            from recsys_embed.distributed.ranks import start

            self.ranks = start(self.nproc, ["recsys_embed", *sys.argv[1:]])

    def meet(self) -> None:
        if self.ranks is None:
            return
        import torch

        try:
            self.ranks.total(torch.zeros(1))
        except RuntimeError as error:
            if self.rank:  # whoever ended says why
                os._exit(1)
            raise ProcessLost(
                f"another process ended ({str(error).splitlines()[0][:120]}): the same command goes on with the parts "
                "that are left"
            ) from None

    def give_up(self) -> None:
        """End the processes that this one has started."""
        for worker in self.ranks.workers if self.ranks else ():
            worker.kill()

    def leave(self) -> None:
        """Take leave of the others."""
        if self.ranks is not None:
            from recsys_embed.distributed.ranks import leave

            leave(self.ranks)
