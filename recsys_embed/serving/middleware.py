"""What every request passes: who may ask, how much, how long; and what is counted and logged of it."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from recsys_embed.config.settings import ServeConfig
from recsys_embed.serving.metrics import Metrics

log = logging.getLogger("recsys_embed")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
Route = tuple[str, str]
FastPath = Callable[[bytes], Awaitable[bytes | None]]

# What answers without a token: whether it lives, how it is asked, and the page that asks for the token.
OPEN = ("/", "/health", "/ready", "/docs", "/openapi.json", "/favicon.ico")
_LOCAL = ("127.0.0.1", "localhost", "[::1]", "::1")


class _TooLarge(Exception):
    pass


class RequestMiddleware:
    """An ASGI application around another. routes: the paths that are counted by name; others count together.

    direct: (method, path) -> from the body of a request in JSON to its answer in JSON, or None where it has none: a way
    past the application, which takes longer than an answer, for requests that are in order. What is not goes through
    the application, which says why.
    """

    def __init__(
        self, app: App, config: ServeConfig, metrics: Metrics, routes: frozenset[str], direct: Mapping[Route, FastPath]
    ) -> None:
        self.app, self.config, self.metrics, self.routes, self.direct = app, config, metrics, routes, direct
        self.token = None if config.secret is None else config.secret.encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begin, exchange = time.perf_counter(), _Exchange(receive, send, self.config.max_body)
        refused = self._refused(scope) or await self._answered(scope, exchange)
        if refused and not exchange.status:
            await _say(exchange.send, *refused)
        took = time.perf_counter() - begin
        path = scope["path"] if scope["path"] in self.routes else "other"
        self.metrics.request(path, exchange.status, took)
        if self.config.log_requests:
            _log(scope["method"], path, exchange.status, took)
        return None

    async def _answered(self, scope: Message, exchange: _Exchange) -> tuple[int, str] | None:
        """Let the application answer; return a status and a reason where it could not."""
        try:
            async with asyncio.timeout(self.config.timeout):
                direct = self.direct.get((scope["method"], scope["path"]))
                if direct is not None and (b"content-type", b"application/json") in scope["headers"]:
                    answer = await direct(await exchange.whole())
                    if answer is not None:
                        await _send(exchange.send, 200, answer)
                        return None
                await self.app(scope, exchange.receive, exchange.send)
        except TimeoutError:
            return 503, f"this took longer than {self.config.timeout:g} seconds"
        except _TooLarge:
            return 413, self._too_large
        except Exception:
            log.exception("a request of %s failed", scope["path"])
            return 500, "this failed through no fault of the request; the log says how"
        return None

    @property
    def _too_large(self) -> str:
        return f"the body is larger than {self.config.max_body:,} bytes (--max-body)"

    def _refused(self, scope: Message) -> tuple[int, str] | None:
        """Return a status and a reason for requests that are not answered at all."""
        said = {}
        for name, value in scope["headers"]:
            if name in (b"authorization", b"content-length", b"content-type", b"host"):
                said[name] = value
        if self.token is not None:
            allowed = scope["path"] in OPEN or scope["path"].startswith("/page/")
            if not allowed and not hmac.compare_digest(_token(said.get(b"authorization", b"")), self.token):
                return 401, "this service wants a token: send it as Authorization: Bearer TOKEN"
        elif _name(said.get(b"host", b"")) not in _LOCAL:
            # A page elsewhere whose name was pointed at this machine must not read answers.
            return 421, "this service answers under the names 127.0.0.1 and localhost alone"
        if scope["method"] == "POST" and not said.get(b"content-type", b"").lower().startswith(b"application/json"):
            return 415, "a body must come as content-type: application/json"  # what no page elsewhere may send
        length = said.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.config.max_body:
            return 413, self._too_large
        return None


class _Exchange:
    """One request and its answer. status: of the answer, 0 before it begins. most: bytes that the body may have."""

    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        self._receive, self._send, self._left, self.status = receive, send, most, 0
        self._read: bytes | None = None

    async def whole(self) -> bytes:
        """Return the body, which `receive` gives once more afterwards."""
        parts, more = [], True
        while more:
            message = await self.receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        self._read = b"".join(parts)
        return self._read

    async def receive(self) -> Message:
        if self._read is not None:
            body, self._read = self._read, None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _TooLarge
        return message

    async def send(self, message: Message) -> None:
        if not self.status:
            if self._left < 0 and message["status"] != 413:
                raise _TooLarge  # FastAPI takes what is raised while it reads for a broken body
            self.status = message["status"]
        await self._send(message)


def _token(authorization: bytes) -> bytes:
    kind, _, token = authorization.partition(b" ")
    return token if kind.lower() == b"bearer" else b""


def _name(host: bytes) -> str:
    """Return the name of a Host header without its port."""
    text = host.decode("latin-1").lower()
    return text.partition("]")[0] + "]" if text.startswith("[") else text.partition(":")[0]


async def _say(send: Send, status: int, error: str) -> None:
    headers = [(b"www-authenticate", b"Bearer")] if status == 401 else []
    await _send(send, status, json.dumps({"error": error}).encode(), *headers)


async def _send(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    kind = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": kind})
    await send({"type": "http.response.body", "body": body})


def _log(method: str, path: str, status: int, took: float) -> None:
    """Log a line of JSON: neither ids nor addresses stand in it."""
    line = {"time": round(time.time(), 3), "method": method, "path": path, "status": status}
    line["ms"] = round(1e3 * took, 2)
    log.info(json.dumps(line))
