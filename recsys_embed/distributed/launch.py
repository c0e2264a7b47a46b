"""ranks_of: the processes of one training, for a command."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from recsys_embed.errors import SettingError


@contextlib.contextmanager
def ranks_of(engine: str, nproc: int | None) -> Iterator[bool]:
    """Yield whether this process is to run the command: alone, or as rank 0; another rank has then worked for it.

    engine, nproc: settings. Raises SettingError for an engine of one process where there are several.
    """
    several = (nproc or int(os.environ.get("WORLD_SIZE", "1"))) > 1
    if engine == "local":
        if several:
            raise SettingError("several processes share a training with --engine torchrec only")
        yield True
        return
    from recsys_embed.distributed.backend import check_torchrec

    check_torchrec()
    from recsys_embed.distributed.ranks import joined
    from recsys_embed.distributed.worker import work

    with joined(nproc) as ranks:
        if not ranks.leads:
            work(ranks)
        yield ranks.leads
