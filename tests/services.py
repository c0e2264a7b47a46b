"""A service that runs for a test, in a thread of this process, and a client that asks it as other programs do."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from pathlib import Path

import polars as pl
import pytest

from recsys_embed.config.answers import ServeConfig
from recsys_embed.data.ratings import Ratings
from recsys_embed.recommender import Recommender


class Client:
    """Asks a service at a port of this machine."""

    def __init__(self, port: int, headers: dict[str, str] | None = None):
        self.port, self.headers, self.url = port, headers or {}, f"http://127.0.0.1:{port}"

    def raw(self, method: str, path: str, body: bytes | None = None, **headers: str):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, {**self.headers, **headers})
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())

    def get(self, path: str):
        status, body, _ = self.raw("GET", path)
        return status, json.loads(body)

    def post(self, path: str, body: object):
        status, said, _ = self.raw("POST", path, json.dumps(body).encode(), **{"content-type": "application/json"})
        return status, json.loads(said)


@contextlib.contextmanager
def serving(model: Path | None, events: Path, **settings):
    """Serve a model folder at a free port; give (client, service)."""
    import uvicorn

    from recsys_embed.serving.app import create_app
    from recsys_embed.serving.connections import BoundedProtocol
    from recsys_embed.serving.service import Service

    config = ServeConfig(model=model and str(model), events=str(events), port=0, **{"reload_interval": 0.0, **settings})
    service = Service(config)
    server = uvicorn.Server(
        uvicorn.Config(create_app(service), log_level="warning", access_log=False, http=BoundedProtocol)
    )
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        token = {"authorization": f"Bearer {config.secret}"} if config.secret else {}
        yield Client(listening.getsockname()[1], token), service
    finally:
        server.should_exit = True
        thread.join()


def until(true, seconds: float = 30.0):
    """Wait until something is true, and return what it gave."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.01)
    raise AssertionError("it did not become true")


ODD = ["plain", "a/b", 'say "hi"', "it's", "50%", "a b+c&d=e", "émile", "🎬", "../../etc", "<b>x</b>", "tab\tid"]
ODD.append("x" * 300)


def odd_model(folder: Path) -> Recommender:
    """A small model whose ids are of every kind that text can be."""
    pairs = [(f"user {u}/é", ODD[i]) for u in range(9) for i in range(len(ODD)) if (u + i) % 3]
    frame = pl.DataFrame({"user_id": [u for u, _ in pairs], "item_id": [i for _, i in pairs]})
    items = pl.DataFrame(
        {
            "item_id": ODD,
            "title": [f"The {i} film" for i in ODD],
            "year": [1990 + n for n in range(len(ODD))],
            "genres": [["Comedy", "Drama"] if n % 2 else ["Action"] for n in range(len(ODD))],
        }
    )
    from worlds import small

    recommender = Recommender(*small("softmax", epochs=5)).fit(Ratings.from_frame(frame), items)
    recommender.save(folder)
    return recommender


def listed(answer):
    """Return (item, score, rank) of a list, to be compared."""
    return [(e["item"], pytest.approx(e["score"], rel=1e-5), e["rank"]) for e in answer["items"]]


def counts_of(client):
    """What a service has counted of its variants, by name."""
    return {entry["name"]: entry for entry in client.get("/variants")[1]["variants"]}
