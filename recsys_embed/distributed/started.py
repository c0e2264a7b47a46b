"""How this process was started: by torchrun, beside another process that it takes part with, or by itself."""

from __future__ import annotations

import os

# RANK SIZE PORT of a process that another one on this machine has started.
BESIDE = "RECSYS_BESIDE"
# How many threads libraries start.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


def by_torchrun() -> bool:
    """Return whether torchrun has started this process beside others."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank() -> int:
    """Return the number of this process among those of the command; 0 leads."""
    return int(os.environ.get(BESIDE, os.environ.get("RANK", "0")).split()[0])


def by_another() -> bool:
    """Return whether a process of this package has started this one."""
    return BESIDE in os.environ
