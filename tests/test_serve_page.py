"""The page of the service as a visitor has it: in a browser, over the service itself."""

import os
import re
import shutil
import socket
import threading
import time
from contextlib import contextmanager

import polars as pl
import pytest
from worlds import small, tastes

from recsys_embed import Recommender
from recsys_embed.config import ServeConfig
from recsys_embed.ratings.table import Ratings

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

from recsys_embed.serve.app import create_app  # noqa: E402
from recsys_embed.serve.service import Service  # noqa: E402

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
# On CI a browser that is missing is a fault, and no reason to be silent.
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="no Chromium here: install one, or name it in $CHROMIUM"
)

# Ids of items are text with all that an address may stumble over; users are integers that no float holds.
IDS = [f"{n}/a,b&\"'#=%41 \N{FILM FRAMES}" for n in range(60)]
BIG = 2**62
HOSTILE = {
    3: "<img src=x onerror=\"document.title='taken'\">",
    4: "</script><script>document.title = 'taken'</script>",
    5: "\u202eright to left \u2067שלום\u2069",
    6: "long " * 60,
}
TOKEN = "a token of tests"


@pytest.fixture(scope="module")
def model():
    ratings, table, _ = tastes()
    titles = [HOSTILE.get(n, title) for n, title in enumerate(table["title"])]
    frame = pl.DataFrame({"user": ratings.user + BIG, "item": [IDS[i] for i in ratings.items.ids(ratings.item)]})
    table = table.with_columns(
        item_id=pl.Series(IDS), title=pl.Series(titles), year=pl.Series([1990 + n % 9 for n in range(60)])
    )
    return Recommender(*small("softmax", dim=8)).fit(Ratings.from_frame(frame).with_items(table["item_id"]), table)


@contextmanager
def served(model, folder, **given):
    """The service of a model, at an address of this machine, until the end of the block."""
    model.save(folder / "model")
    config = ServeConfig(model=str(folder / "model"), events=str(folder / "events.db"), watch=0, **given)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(create_app(Service(config)), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        end = time.monotonic() + 20
        while not server.started and time.monotonic() < end:
            thread.join(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def address(model, tmp_path_factory):
    with served(model, tmp_path_factory.mktemp("served")) as base:
        yield base


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@contextmanager
def opened(browser, base, **given):
    """A tab in which only the service is asked and the console stays empty; `tab.refused` may be said of answers."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **given})
    tab = context.new_page()
    tab.set_default_timeout(5000)
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda r: None if r.url.startswith((base, "data:", "blob:")) else said.append(r.url))
    yield tab
    context.close()
    # A browser logs each answer that is an error by itself; whether one was due, a test says.
    refused = [line for line in said if line.startswith("Failed to load resource")]
    assert [line for line in said if line not in refused] == []
    assert bool(refused) == bool(given.get("extra_http_headers", {}).get("x-refused")) or not refused
