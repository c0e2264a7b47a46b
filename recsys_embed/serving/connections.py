"""Connections that send no request: closed in time, and the first to go when there are too many."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    _Base: Any = object
else:
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _Base
    except ImportError:
        from uvicorn.protocols.http.h11_impl import H11Protocol as _Base

log = logging.getLogger("recsys_embed")

# Seconds that the headers of a request may take, from the connection or their first byte on.
HEADER_TIMEOUT_S = 10.0
# Seconds between two warnings of too many connections.
_WARN_EVERY_S = 60.0


def most_connections() -> int:
    """Return how many connections the process may have: the rest of its files is for models and events."""
    try:
        import resource
    except ImportError:  # Windows
        return 8_192
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1_000_000 if limit == resource.RLIM_INFINITY else max(8, min(int(0.8 * limit), limit - 64))


class BoundedProtocol(_Base):  # type: ignore[misc]
    """uvicorn's protocol, whose connections end unless they send a request.

    A new one beyond the limit ends the oldest of those that wait for a request, and none that is being answered.
    """

    _last_warning = float("-inf")

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._start_timer()
        if len(self.connections) > most_connections():
            self._close_oldest()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if not self._waits:
            self._stop_timer()
        elif self._timer is None:
            self._since = self.loop.time()
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_timer()
        super().connection_lost(exc)

    @property
    def _waits(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(HEADER_TIMEOUT_S, self._close_if_it_waits)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_if_it_waits(self) -> None:
        self._timer = None
        if self._waits and not self.transport.is_closing():
            self.transport.close()

    def _close_oldest(self) -> None:
        others = [c for c in self.connections if isinstance(c, BoundedProtocol) and c is not self]
        waiting = [c for c in others if c._waits and not c.transport.is_closing()]
        if waiting:
            min(waiting, key=lambda connection: connection._since).transport.close()
        now = self.loop.time()
        if now > BoundedProtocol._last_warning + _WARN_EVERY_S:
            BoundedProtocol._last_warning = now
            log.warning(
                "%s connections: the oldest without a request are closed (the limit of open files decides, ulimit -n)",
                f"{len(self.connections):,}",
            )
