"""What runs in machine code, on plain arrays, where the plain form reads the same rows again and again."""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module


@cache
def available(kernel: str) -> bool:
    """Return whether the kernels of this module of the room ("adam") can run here, compiled by now.

    Where they cannot, say so, once: the plain forms do the same, slowly.
    """
    try:
        import numba

        if vars(numba.config).get("DISABLE_JIT"):
            raise ImportError("NUMBA_DISABLE_JIT is set")
        import_module(f"recsys_embed.kernels.{kernel}")
    except Exception as error:
        _say(str(error))
        return False
    return True


@cache
def _say(why: str) -> None:
    """Warn; once for each reason, whichever kernels it keeps away."""
    logging.getLogger("recsys_embed").warning(
        "Numba cannot be used (%s): training and ranking take their plain forms, which are several times slower", why
    )
