"""Middleware for every request: authorization, limits, the fast path, metrics and the request log."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from recsys_embed.config.answers import ServeConfig
from recsys_embed.serving.metrics import Metrics

log = logging.getLogger("recsys_embed")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
Route = tuple[str, str]
Headers = Sequence[tuple[bytes, bytes]]
FastPath = Callable[[bytes], Awaitable[bytes | None]]

# Paths that need no token: the probes, the API's documentation, and the page, which asks for the token.
OPEN_PATHS = ("/", "/health", "/ready", "/docs", "/openapi.json", "/favicon.ico")
# What pages elsewhere may do, once --cors names them; a browser may remember it for ten minutes.
_PREFLIGHT = (
    (b"access-control-allow-methods", b"GET, POST, PATCH, DELETE"),
    (b"access-control-allow-headers", b"authorization, content-type"),
    (b"access-control-max-age", b"600"),
)
# The key of a scope that says so where GET stands for HEAD.
_IS_HEAD = "recsys_embed.is_head"
_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]", "::1")


class _TooLarge(Exception):
    pass


class RequestMiddleware:
    """An ASGI application around another. paths: those with metrics of their own; all others are counted as "other".

    fast_paths: (method, path) -> a function from a JSON body to a JSON answer, or None if the body is invalid. It
    bypasses the application, whose overhead exceeds the time of an answer; invalid requests go through the
    application, which says what is wrong.
    """

    def __init__(
        self,
        app: App,
        config: ServeConfig,
        metrics: Metrics,
        paths: frozenset[str],
        fast_paths: Mapping[Route, FastPath],
    ) -> None:
        self.app, self.config, self.metrics, self.paths, self.fast_paths = app, config, metrics, paths, fast_paths
        self.origins = frozenset(origin.encode() for origin in config.origins)
        self.token = None if config.secret is None else config.secret.encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or reject it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        origin = _header(scope, b"origin") if self.origins else b""
        cors = _cors_headers(origin, origin in self.origins) if origin else []
        start, exchange = time.perf_counter(), _Exchange(receive, send, self.config.max_body, cors)
        if cors and scope["method"] == "OPTIONS" and _header(scope, b"access-control-request-method"):
            error = await self._answer_preflight(scope, exchange, origin)
        else:
            error = self._rejection(scope) or await self._answer(scope, exchange)
        if error and not exchange.status:
            await _send_error(exchange.send, *error)
        seconds = time.perf_counter() - start
        path = scope["path"] if scope["path"] in self.paths else "other"
        self.metrics.count_request(path, exchange.status, seconds)
        if self.config.log_requests:
            _log(scope["method"], path, exchange.status, seconds)
        return None

    async def _answer_preflight(self, scope: Message, exchange: _Exchange, origin: bytes) -> tuple[int, str] | None:
        """Tell a browser whether a page elsewhere may send the request that it is about to send; it has no token."""
        error = self._wrong_host(scope)
        if error is None and origin not in self.origins:
            error = 403, "pages of this origin may not ask here (--cors)"
        if error is None:
            exchange.cors = [*exchange.cors, *_PREFLIGHT]
            await _send(exchange.send, 204, b"")
        return error

    async def _answer(self, scope: Message, exchange: _Exchange) -> tuple[int, str] | None:
        """Let the application answer; return a status and a reason where it could not."""
        if scope["method"] == "HEAD":  # as GET, whose body the server leaves out
            scope = {**scope, "method": "GET", _IS_HEAD: True}
        try:
            async with asyncio.timeout(self.config.timeout) as exchange.limit:
                fast_path = self.fast_paths.get((scope["method"], scope["path"]))
                if fast_path is not None and (b"content-type", b"application/json") in scope["headers"]:
                    answer = await fast_path(await exchange.read_body())
                    if answer is not None:
                        await _send(exchange.send, 200, answer)
                        return None
                await self.app(scope, exchange.receive, exchange.send)
        except TimeoutError:
            return 503, f"the request took longer than {self.config.timeout:g} seconds"
        except _TooLarge:
            return 413, self._too_large
        except Exception:
            log.exception("a request for %s failed", scope["path"])
            return 500, "internal error; the service's log has the details"
        finally:
            exchange.limit = None
        return None

    @property
    def _too_large(self) -> str:
        return f"the body is larger than {self.config.max_body:,} bytes (--max-body)"

    def _rejection(self, scope: Message) -> tuple[int, str] | None:
        """Return a status and a reason for requests that are rejected by their headers alone."""
        headers = {}
        for name, value in scope["headers"]:
            if name in (b"authorization", b"content-length", b"content-type"):
                headers[name] = value
        if self.token is not None:
            is_open = scope["path"] in OPEN_PATHS or scope["path"].startswith("/page/")
            if not is_open and not hmac.compare_digest(_token(headers.get(b"authorization", b"")), self.token):
                return 401, "this service needs a token: send it as Authorization: Bearer TOKEN"
        elif (wrong := self._wrong_host(scope)) is not None:
            return wrong
        if scope["method"] in ("POST", "PATCH") and not headers.get(b"content-type", b"").lower().startswith(
            b"application/json"
        ):
            return 415, "send the body as content-type: application/json"  # pages of other sites may not send this type
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.config.max_body:
            return 413, self._too_large
        return None

    def _wrong_host(self, scope: Message) -> tuple[int, str] | None:
        if self.token is None and _host_name(_header(scope, b"host")) not in _LOCAL_NAMES:
            # DNS rebinding: a page whose host name was pointed at this machine must not read answers.
            return 421, "this service answers under the names 127.0.0.1 and localhost only"
        return None


class _Exchange:
    """One request and its response. status: of the response, 0 until it starts. max_body: most bytes of the body.
    cors: headers that are added to the response. limit: of the time until the response starts; how long sending takes
    depends on who reads it."""

    def __init__(self, receive: Receive, send: Send, max_body: int, cors: Headers = ()) -> None:
        self._receive, self._send, self._bytes_left, self.status = receive, send, max_body, 0
        self.cors = cors
        self.limit: asyncio.Timeout | None = None
        self._body: bytes | None = None

    async def read_body(self) -> bytes:
        """Return the whole body; `receive` delivers it once more afterwards."""
        chunks, more = [], True
        while more:
            message = await self.receive()
            chunks.append(message.get("body", b""))
            more = message.get("more_body", False)
        self._body = b"".join(chunks)
        return self._body

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self._receive()
        self._bytes_left -= len(message.get("body", b""))
        if self._bytes_left < 0:
            raise _TooLarge
        return message

    async def send(self, message: Message) -> None:
        if not self.status:
            if self._bytes_left < 0 and message["status"] != 413:
                raise _TooLarge  # FastAPI turns whatever is raised while it reads into an invalid body
            self.status = message["status"]
            if self.limit is not None and not self.limit.expired():
                self.limit.reschedule(None)
            if self.cors:
                message = {**message, "headers": [*message.get("headers", ()), *self.cors]}
        await self._send(message)


def is_head(scope: Message) -> bool:
    """Return whether nobody sees the answer to a request but its headers."""
    return _IS_HEAD in scope


def _header(scope: Message, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


def _cors_headers(origin: bytes, allowed: bool) -> Headers:
    """Return what lets the page of an origin read an answer. An answer for one page is not to be cached for another."""
    vary = (b"vary", b"origin")
    return [vary, (b"access-control-allow-origin", origin)] if allowed else [vary]


def _token(authorization: bytes) -> bytes:
    kind, _, token = authorization.partition(b" ")
    return token if kind.lower() == b"bearer" else b""


def _host_name(host: bytes) -> str:
    """Return the name in a Host header, without the port."""
    text = host.decode("latin-1").lower()
    return text.partition("]")[0] + "]" if text.startswith("[") else text.partition(":")[0]


async def _send_error(send: Send, status: int, error: str) -> None:
    headers = [(b"www-authenticate", b"Bearer")] if status == 401 else []
    await _send(send, status, json.dumps({"error": error}).encode(), *headers)


async def _send(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    all_headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})


def _log(method: str, path: str, status: int, seconds: float) -> None:
    """Log a request as a line of JSON, without ids and addresses."""
    line = {"time": round(time.time(), 3), "method": method, "path": path, "status": status}
    line["ms"] = round(1e3 * seconds, 2)
    log.info(json.dumps(line))
