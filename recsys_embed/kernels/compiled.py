"""How a kernel is compiled, and run on all cores; and what kernels share.

Numba compiles each at its first import and keeps it in its cache; no compiler is needed. A kernel works on a range of
rows, without Python's lock, and `over` shares a range out among threads. No two threads write the same place, so equal
seeds give equal bits whatever their number.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

# Products and sums may be joined to one operation, and sums reordered; nan and infinity stay what they are.
_MATHS = {"contract", "reassoc", "nsz", "arcp"}
# Rows of a table lie anywhere in memory: each is asked for so many rows before it is worked on. Without it, a processor
# waits for memory most of the time (300 ns a row of 64 numbers and its two moments where 40 ns are work).
AHEAD = 4
# Fewer rows than this are not worth a second thread.
_ROWS = 1024


@cache
def _sources() -> str:
    """Return a digest of all kernels: what is part of one may stand in the file of another."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def compiled(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what compiles a function for arguments of these types, now, or reads it from Numba's cache."""

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        options: dict[str, Any] = {"nogil": True, "fastmath": _MATHS, "error_model": "numpy"}
        kernel = numba.njit(**options)(function)
        try:
            kernel.enable_caching()
            # Numba itself would look at the date of the function's own file alone.
            kernel._cache._cache_file._source_stamp = _sources()
            kernel.compile(signature)
        except (RuntimeError, OSError):  # no folder to keep it in, or a full one: each process compiles it again
            kernel = numba.njit(signature, **options)(function)
        kernel.disable_compile()
        return kernel

    return compile_


def inlined(function: Callable[..., Any]) -> Any:
    """Make a function part of each kernel that calls it."""
    return numba.njit(inline="always", fastmath=_MATHS, error_model="numpy")(function)


def threads() -> int:
    """Return how many threads kernels take: as many as torch does, where it is loaded, else one a core."""
    torch = sys.modules.get("torch")
    if torch:
        return int(torch.get_num_threads())
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, "kernel")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # the threads stay behind, and nobody would do the work


def over(rows: int, kernel: Callable[..., None], *arguments: Any, least: int = _ROWS) -> None:
    """Run kernel(start, stop, *arguments) on parts of range(rows), on all threads; at least `least` rows on each."""
    most = threads()
    parts = min(most, -(-rows // least))
    if parts <= 1:
        kernel(0, rows, *arguments)
        return
    edges = np.linspace(0, rows, parts + 1).astype(int).tolist()
    rest: list[Future[None]] = []
    try:
        for a, b in pairwise(edges[1:]):
            rest.append(_pool(most).submit(kernel, a, b, *arguments))
        kernel(0, edges[1], *arguments)
    finally:
        _end(rest)
    for part in rest:
        part.result()


def _end(parts: list[Future[None]]) -> None:
    """Wait until all have ended; an interrupt waits too: it must not find them at work on tables that are read."""
    interrupt = None
    while not all(part.done() for part in parts):
        try:
            wait(parts)
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt:
        raise interrupt


def _prefetch(typing: Any, table: Any, row: Any) -> Any:
    """Ask for the memory of row `row` of a matrix of float32 in C order; it says nothing and cannot fail."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        matrix = context.make_array(signature.args[0])(context, builder, arguments[0])
        columns = cgutils.unpack_tuple(builder, matrix.shape)[1]
        byte, number, whole = ir.IntType(8).as_pointer(), ir.IntType(32), columns.type
        size = builder.mul(columns, whole(4))
        at = context.cast(builder, arguments[1], signature.args[1], numba.types.intp)
        begin = builder.gep(builder.bitcast(matrix.data, byte), [builder.mul(at, size)])
        shape = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        ask = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0")
        with cgutils.for_range_slice(builder, whole(0), size, whole(64), inc=True) as (line, _):
            # to be written too, to be kept in the nearest cache, and it is data
            builder.call(ask, [builder.gep(begin, [line]), number(1), number(3), number(1)])
        return context.get_dummy_value()

    return numba.types.void(table, row), generate


prefetch: Any = intrinsic(_prefetch)


@inlined
def hashed(seed, place):  # type: ignore[no-untyped-def]
    """Return 64 bits that a seed and a place give (SplitMix64: Steele et al., OOPSLA 2014).

    So no thread has to know what another one drew, and draws do not depend on how many there are.
    """
    x = seed + np.uint64(place) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
