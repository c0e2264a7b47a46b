"""Compiled kernels on plain arrays, used where plain NumPy or torch would read the same rows again and again."""

from __future__ import annotations

import logging
import sys
from functools import cache
from importlib import import_module

# Numbers to process from which loading Numba, which takes half a second, pays off.
MIN_KERNEL_WORK = 1 << 24


def use_kernel(kernel: str, numbers: int) -> bool:
    """Return whether to process this many numbers by a kernel: it can run, and Numba is loaded or worth loading."""
    return ("numba" in sys.modules or numbers >= MIN_KERNEL_WORK) and available(kernel)


@cache
def available(kernel: str) -> bool:
    """Return whether the kernels in this module of the package ("adam") can run here; compile them if need be.

    Where they cannot, warn once: the plain code does the same, slowly.
    """
    try:
        import numba

        if vars(numba.config).get("DISABLE_JIT"):
            raise ImportError("NUMBA_DISABLE_JIT is set")
        import_module(f"recsys_embed.kernels.{kernel}")
    except Exception as error:
        _warn_once(str(error))
        return False
    return True


@cache
def triton_available() -> bool:
    """Return whether the CUDA kernels can run here; where they cannot, warn once.

    Triton comes with torch for CUDA and only the CUDA kernels need it, so call this only for tables on CUDA.
    """
    try:
        import_module("recsys_embed.kernels.cuda_adam")
        import_module("recsys_embed.kernels.cuda_pairwise")
    except Exception as error:
        logging.getLogger("recsys_embed").warning(
            "Triton cannot be used (%s): training on CUDA uses plain torch, which is slower", error
        )
        return False
    return True


@cache
def _warn_once(reason: str) -> None:
    """Warn once for each reason, however many kernels it rules out."""
    logging.getLogger("recsys_embed").warning(
        "Numba cannot be used (%s): training and ranking use plain torch and NumPy, several times slower", reason
    )
