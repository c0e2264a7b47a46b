"""What runs in machine code, on plain arrays, where the plain form reads the same rows again and again."""

from __future__ import annotations

import logging
from functools import cache


@cache
def available() -> bool:
    """Return whether kernels can run here, compiled by now; where they cannot, say so, once.

    The plain steps do the same, slowly.
    """
    try:
        import numba

        if vars(numba.config).get("DISABLE_JIT"):
            raise ImportError("NUMBA_DISABLE_JIT is set")
        from recsys_embed.kernels import adam, pairs, softmax  # noqa: F401
    except Exception as error:
        logging.getLogger("recsys_embed").warning(
            "Numba cannot be used (%s): training takes the plain steps, which are several times slower", error
        )
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
