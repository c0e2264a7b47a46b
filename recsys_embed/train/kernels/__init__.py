"""The optimizer's step in machine code, where the plain one in torch reads the same rows again and again."""

from __future__ import annotations

import logging
from functools import cache


@cache
def available() -> bool:
    """Return whether kernels can run here; where they cannot, say so, once. The plain steps do the same, slowly."""
    try:
        import numba  # noqa: F401
    except Exception as error:
        logging.getLogger("recsys_embed").warning(
            "Numba cannot be loaded (%s): training takes the plain steps, which are several times slower", error
        )
        return False
    return True
