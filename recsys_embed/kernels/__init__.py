"""What runs in machine code, on plain arrays, where the plain form reads the same rows again and again."""

from __future__ import annotations

import logging
import sys
from functools import cache
from importlib import import_module

# Numbers to be worked on that are worth the half second that it takes to load Numba.
MANY = 1 << 24


def worth(kernel: str, numbers: int) -> bool:
    """Return whether to take a kernel for so much work: where it can run, and Numba is loaded or worth loading."""
    return ("numba" in sys.modules or numbers >= MANY) and available(kernel)


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
def triton_available() -> bool:
    """Return whether kernels for CUDA can run here; where they cannot, say so, once.

    Triton comes with torch for CUDA, and nothing but kernels for CUDA needs it: ask only where tables lie there.
    """
    try:
        from recsys_embed.kernels import cuda  # noqa: F401
    except Exception as error:
        logging.getLogger("recsys_embed").warning(
            "Triton cannot be used (%s): training on CUDA takes the plain steps, which are slower", error
        )
        return False
    return True


@cache
def _say(why: str) -> None:
    """Warn; once for each reason, whichever kernels it keeps away."""
    logging.getLogger("recsys_embed").warning(
        "Numba cannot be used (%s): training and ranking take their plain forms, which are several times slower", why
    )
