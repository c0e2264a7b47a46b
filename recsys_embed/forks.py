"""Forked processes: polars' threads stay behind in the parent, and what needs them would wait for ever in the child."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from recsys_embed.errors import ForkedProcess

P = ParamSpec("P")
T = TypeVar("T")

_TASKS = Path("/proc/self/task")


class _Fork:
    """Whether polars had threads when this process was forked off."""

    had_threads = lost_threads = False


def _thread_names() -> Iterator[str]:
    for task in _TASKS.iterdir() if _TASKS.exists() else ():  # only Linux forks by default
        with suppress(OSError):  # a thread that has just ended
            yield (task / "comm").read_text()


def _before() -> None:
    names = _thread_names()
    _Fork.had_threads = _Fork.lost_threads or any(name.startswith("polars-") and name[7].isdigit() for name in names)


def _in_child() -> None:
    _Fork.lost_threads = _Fork.had_threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_in_child)


def needs_threads(what: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function raise ForkedProcess where it would wait for ever. what: it does, for the message."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            if _Fork.lost_threads:
                raise ForkedProcess(
                    f"{what} would wait for ever in a process that was forked off: start processes by spawn "
                    '(multiprocessing.get_context("spawn")), or load the model in each (gunicorn without --preload)'
                )
            return function(*args, **kwargs)

        return checked

    return decorate
