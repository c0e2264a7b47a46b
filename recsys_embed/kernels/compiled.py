"""Compiling kernels with Numba, running them on all cores, and what all kernels share.

Numba compiles each kernel at its first import and keeps the result in its cache; no C compiler is needed. A kernel
processes a range of rows without holding Python's lock, and `parallel_for` splits a range among threads. No two threads
write to the same place, so equal seeds give equal bits whatever the number of threads.
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

# LLVM may fuse multiplications with additions and reorder sums; nan and infinity keep their meaning.
_FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
# Rows of a table lie anywhere in memory, so each is prefetched this many rows ahead. Without it, the processor waits
# for memory most of the time (300 ns for a row of 64 numbers and its two moments, of which 40 ns are work).
PREFETCH_AHEAD = 4
# Rows below which a second thread does not pay off.
_MIN_ROWS_PER_THREAD = 1024


@cache
def _source_digest() -> str:
    """Return a digest of the source of all kernels, since a kernel may inline functions of another file."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def compiled(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that compiles a function for these argument types at once, or reads it from Numba's cache."""

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        options: dict[str, Any] = {"nogil": True, "fastmath": _FASTMATH, "error_model": "numpy"}
        kernel = numba.njit(**options)(function)
        try:
            kernel.enable_caching()
            # Numba itself would only look at the modification time of the function's own file.
            kernel._cache._cache_file._source_stamp = _source_digest()
            kernel.compile(signature)
        except (RuntimeError, OSError):  # no folder for the cache, or a full one: every process compiles it again
            kernel = numba.njit(signature, **options)(function)
        kernel.disable_compile()
        return kernel

    return compile_


def inlined(function: Callable[..., Any]) -> Any:
    """Inline a function into every kernel that calls it."""
    return numba.njit(inline="always", fastmath=_FASTMATH, error_model="numpy")(function)


def called(function: Callable[..., Any]) -> Any:
    """Compile a function that kernels call, with the options of kernels."""
    return numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy")(function)


def num_threads() -> int:
    """Return how many threads kernels use: as many as torch where it is loaded, else one for each core."""
    torch = sys.modules.get("torch")
    if torch:
        return int(torch.get_num_threads())
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, "kernel")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked child has no threads to do the work


def parallel_for(rows: int, kernel: Callable[..., None], *arguments: Any, min_rows: int = _MIN_ROWS_PER_THREAD) -> None:
    """Run kernel(start, stop, *arguments) on chunks of range(rows) on all threads, each of at least `min_rows` rows."""
    threads = num_threads()
    chunks = min(threads, -(-rows // min_rows))
    if chunks <= 1:
        kernel(0, rows, *arguments)
        return
    edges = np.linspace(0, rows, chunks + 1).astype(int).tolist()
    futures: list[Future[None]] = []
    try:
        for start, stop in pairwise(edges[1:]):
            futures.append(_pool(threads).submit(kernel, start, stop, *arguments))
        kernel(0, edges[1], *arguments)
    finally:
        _wait_for_all(futures)
    for future in futures:
        future.result()


def _wait_for_all(futures: list[Future[None]]) -> None:
    """Wait until all futures are done, even after Ctrl-C: nobody may read tables that threads still write to."""
    interrupt = None
    while not all(future.done() for future in futures):
        try:
            wait(futures)
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt:
        raise interrupt


def _prefetch(typing: Any, table: Any, row: Any) -> Any:
    """Prefetch row `row` of a C-contiguous float32 matrix; it returns nothing and cannot fail."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        matrix = context.make_array(signature.args[0])(context, builder, arguments[0])
        columns = cgutils.unpack_tuple(builder, matrix.shape)[1]
        byte, number, whole = ir.IntType(8).as_pointer(), ir.IntType(32), columns.type
        size = builder.mul(columns, whole(4))
        index = context.cast(builder, arguments[1], signature.args[1], numba.types.intp)
        address = builder.gep(builder.bitcast(matrix.data, byte), [builder.mul(index, size)])
        shape = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        intrinsic_ = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0")
        with cgutils.for_range_slice(builder, whole(0), size, whole(64), inc=True) as (line, _):
            # the flags: for writing, in the nearest cache, data
            builder.call(intrinsic_, [builder.gep(address, [line]), number(1), number(3), number(1)])
        return context.get_dummy_value()

    return numba.types.void(table, row), generate


prefetch: Any = intrinsic(_prefetch)


@inlined
def hash64(seed, index):  # type: ignore[no-untyped-def]
    """Hash a seed and an index to 64 bits (SplitMix64: Steele et al., OOPSLA 2014).

    Random numbers made this way do not depend on how many threads there are, or on what other threads drew.
    """
    x = seed + np.uint64(index) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
