"""How a service is reached: pages elsewhere that may ask, examples that run, and what an answer says it goes by."""

import json
import re
import shlex
import urllib.parse
from html import unescape

import polars as pl
import pytest
from services import ODD, serving
from worlds import small

from recsys_embed.config.answers import ServeConfig
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import SettingError
from recsys_embed.recommender import Recommender

SHOP = "https://shop.example"


def preflight(client, origin, method="PATCH", **headers):
    asked = {"origin": origin, "access-control-request-method": method}
    status, _, found = client.raw("OPTIONS", "/items", **asked, **headers)
    return status, {name.lower(): value for name, value in found.items()}


def test_pages_of_named_origins_may_ask_and_no_others(model, tmp_path):
    settings = {"cors": f"{SHOP}, http://localhost:3000/", "token": "a token for tests"}
    with serving(model[1], tmp_path / "events.db", **settings) as (client, _):
        client.headers = {}
        status, headers = preflight(client, SHOP)
        assert status == 204 and headers["access-control-allow-origin"] == SHOP
        assert "PATCH" in headers["access-control-allow-methods"] and headers["vary"] == "origin"
        assert headers["access-control-allow-headers"] == "authorization, content-type"
        assert preflight(client, "http://localhost:3000")[0] == 204
        for other in ("https://shop.example.evil", "http://shop.example", "null", f"{SHOP}:444"):
            status, headers = preflight(client, other)
            assert status == 403 and "access-control-allow-origin" not in headers
        for path, expected in (("/health", 200), ("/items", 401)):  # an error can be read too
            status, _, headers = client.raw("GET", path, origin=SHOP)
            assert status == expected and headers["access-control-allow-origin"] == SHOP
        assert "access-control-allow-origin" not in client.raw("GET", "/health", origin="https://evil.example")[2]
        assert "access-control-allow-credentials" not in headers


def test_without_cors_no_page_elsewhere_may_read(model, tmp_path):
    with serving(model[1], tmp_path / "events.db") as (client, _):
        status, headers = preflight(client, SHOP)
        assert status == 405 and "access-control-allow-origin" not in headers
        assert "access-control-allow-origin" not in client.raw("GET", "/health", origin=SHOP)[2]
    with serving(model[1], tmp_path / "events.db", cors=SHOP) as (client, _):
        assert preflight(client, SHOP, host="evil.example")[0] == 421


@pytest.mark.parametrize("cors", ["*", "shop.example", "https://shop.example/page", "https://*.example", "null"])
def test_an_origin_is_a_scheme_and_a_host(cors):
    with pytest.raises(SettingError, match="cors must be origins such as https://shop.example"):
        ServeConfig(cors=cors)


def sent(client, command):
    """Send what a curl command sends."""
    words = shlex.split(command)
    method, body = ("POST" if "-d" in words else "GET"), None
    if "-X" in words:
        method = words[words.index("-X") + 1]
    if "-d" in words:
        body = words[words.index("-d") + 1].encode()
    address = next(word for word in words[1:] if word.startswith("http"))
    headers = {"content-type": "application/json"} if body else {}
    return client.raw(method, address.removeprefix(client.url), body, **headers)[0]


@pytest.mark.parametrize("kind", ["text", "integers"])
def test_the_examples_of_the_docs_run_as_they_are(model, tmp_path, kind):
    folder = model[1]
    if kind == "integers":
        frame = pl.DataFrame({"user": [907, 907, 911, 913], "item": [801, 803, 803, 807]})
        folder = Recommender(*small("softmax", epochs=1)).fit(Ratings.from_frame(frame)).save(tmp_path / "m")
    with serving(folder, tmp_path / "events.db") as (client, service):
        page = client.raw("GET", "/docs")[1].decode()
        commands = [unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)]
        assert len(commands) >= 14 and {sent(client, command) for command in commands} == {200}
        for path, methods in client.get("/openapi.json")[1]["paths"].items():
            for method, route in methods.items():
                query = {p["name"]: p["example"] for p in route.get("parameters", ()) if "example" in p}
                required = {p["name"] for p in route.get("parameters", ()) if p.get("required")}
                assert required <= set(query)
                if method == "get":
                    assert client.raw("GET", f"{path}?{urllib.parse.urlencode(query)}")[0] == 200, path
        body = client.get("/openapi.json")[1]["components"]["schemas"]["ItemsBody"]["examples"][0]
        assert body["items"][0]["item"] in service.model.state.items


def test_who_has_no_token_reads_of_no_user(tmp_path):
    frame = pl.DataFrame({"user": [90_701, 90_701, 90_702], "item": [801, 803, 803]})
    folder = Recommender(*small("softmax", epochs=1)).fit(Ratings.from_frame(frame)).save(tmp_path / "m")
    for token, names in ((None, True), ("a long secret", False)):
        with serving(folder, tmp_path / "events.db", token=token) as (client, _):
            for path in ("/docs", "/openapi.json", "/ready", "/health", "/"):
                status, page = client.raw("GET", path)[:2]
                assert status == 200 and (b"9070" in page) == (names and path in ("/docs", "/openapi.json")), path


def test_an_answer_says_what_it_goes_by(model, tmp_path):
    user = model[0].users.series[0]
    with serving(model[1], tmp_path / "events.db") as (client, _):

        def origin(**body):
            return client.post("/recommend", body)[1]["from"]

        assert origin(user=user) == origin(user=user, likes=["plain"]) == "personal"
        assert origin(likes=["plain"]) == origin(dislikes=["plain"]) == origin(ratings={"plain": 3}) == "session"
        assert origin() == origin(user="nobody", on_unknown="skip") == "popular"
        client.post("/events", {"events": [{"user": "nobody", "item": ODD[0]}]})
        assert origin(user="nobody") == "session"
        batch = client.post("/recommend/batch", {"requests": [{}, {"user": user}]})[1]["answers"]
        assert [answer["from"] for answer in batch] == ["popular", "personal"]


def test_with_a_trend_others_get_what_is_popular_lately(tmp_path):
    frame = pl.DataFrame({"user": [0, 0, 1, 1, 2], "item": [0, 1, 1, 2, 2], "time": [1, 2, 3, 4, 5]})
    settings = small("softmax", epochs=1, half_life=10.0)
    folder = Recommender(*settings).fit(Ratings.from_frame(frame)).save(tmp_path / "m")
    with serving(folder, tmp_path / "events.db") as (client, _):
        answers = [client.post("/recommend", body)[1]["from"] for body in ({}, {"user": 0}, {"likes": [1]})]
        assert answers == ["recent", "personal", "session"] and json.dumps(answers)
