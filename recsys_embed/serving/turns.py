"""Turns of batches, whose lists take seconds, so that they hold up neither each other nor single questions."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from itertools import count

# Seconds that a batch works before another one may have its turn.
_TURN_S = 0.01
# Bytes from which chunks are sent.
_GROUP_BYTES = 1 << 17


class Turns:
    """One thread's time for all batches: several threads would starve the event loop, which needs Python's lock too.

    The batch with the fewest lists left goes first: small ones are soon done, and large ones one after the other rather
    than all at the end.
    """

    def __init__(self, threads: Executor) -> None:
        self._threads, self._is_taken = threads, False
        # A heap of lists left, a number that keeps the order of equals, and whom it wakes.
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = count()

    async def run(self, works: Sequence[Callable[[], bytes]]) -> list[bytes]:
        """Return what each work returns. One that raises, or a cancelled request, ends the batch."""
        results: list[bytes] = []

        def work() -> None:
            end = time.monotonic() + _TURN_S
            for next_work in works[len(results) :]:
                results.append(next_work())
                if time.monotonic() >= end:
                    return

        turn = self._request_turn(len(works))
        try:
            while True:
                await turn
                await asyncio.get_running_loop().run_in_executor(self._threads, work)
                if len(results) == len(works):
                    return results
                turn = self._request_turn(len(works) - len(results))
                self._pass_on()
        finally:
            if turn.done() and not turn.cancelled():
                self._pass_on()

    def _request_turn(self, left: int) -> asyncio.Future[None]:
        turn = asyncio.get_running_loop().create_future()
        if self._is_taken:
            heapq.heappush(self._waiting, (left, next(self._number), turn))
        else:
            self._is_taken = True
            turn.set_result(None)
        return turn

    def _pass_on(self) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._is_taken = False


async def grouped(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    """Yield the chunks of a long answer, several small ones at once: sent as a whole, it would hold up others."""
    waiting: list[bytes] = []
    size = 0
    for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= _GROUP_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)
