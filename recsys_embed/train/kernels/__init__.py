"""The optimizer's step in machine code, where the plain one in torch reads the same rows again and again."""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor


@cache
def available() -> bool:
    """Return whether kernels can run here, compiled by now; where they cannot, say so, once.

    The plain steps do the same, slowly.
    """
    try:
        import numba

        if vars(numba.config).get("DISABLE_JIT"):
            raise ImportError("NUMBA_DISABLE_JIT is set")
        from recsys_embed.train.kernels import cpu  # noqa: F401
    except Exception as error:
        logging.getLogger("recsys_embed").warning(
            "Numba cannot be used (%s): training takes the plain steps, which are several times slower", error
        )
        return False
    return True


def takes(table: Tensor) -> bool:
    """Return whether a kernel can work on a table where it lies: a matrix of float32 in C order on a processor."""
    return table.device.type == "cpu" and table.ndim == 2 and table.dtype == torch.float32 and table.is_contiguous()
