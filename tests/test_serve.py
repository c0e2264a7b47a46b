"""The service: it answers as the model does, keeps what it was told, refuses what is wrong, and swaps models."""

import asyncio
import gc
import hashlib
import json
import shutil
import threading
import urllib.parse
import weakref
from concurrent.futures import Future

import polars as pl
import pytest
from services import ODD, Client, listed, odd_model, serving, until
from worlds import small

from recsys_embed.config.answers import ServeConfig
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import DataError, SettingError
from recsys_embed.recommender import Recommender
from recsys_embed.serving import schema
from recsys_embed.serving.metrics import Metrics
from recsys_embed.serving.middleware import RequestMiddleware


@pytest.fixture(scope="module")
def service(model, tmp_path_factory):
    with serving(model[1], tmp_path_factory.mktemp("events") / "events.db", max_k=50, max_batch=20) as (client, _):
        yield client


def of_frame(table):
    return list(table.select("item_id", "score", "rank").iter_rows())


def test_a_list_is_the_recommenders_list_whatever_the_ids_are(model, service):
    recommender, folder = model
    for user in recommender.users.series:
        status, answer = service.post("/recommend", {"user": user, "k": 5})
        assert status == 200 and answer["user"] == user and answer["model"] == str(folder)
        assert listed(answer) == of_frame(recommender.recommend(user, 5))
        query = urllib.parse.urlencode({"user": user, "k": 5})
        assert service.get(f"/recommend?{query}")[1] == answer
    for item in ODD:
        status, answer = service.post("/recommend", {"likes": [item], "k": 4, "why": True})
        assert status == 200 and listed(answer) == of_frame(recommender.recommend_for([item], 4))
        assert all([w["item"] for w in e["why"]] == [item] for e in answer["items"])
        near = service.get("/similar?" + urllib.parse.urlencode({"item": item, "k": 3}))[1]
        assert listed(near) == of_frame(recommender.similar(item, 3))


def test_nobody_in_particular_gets_what_many_rated(model, service):
    answer = service.post("/recommend", {"k": 3})[1]
    assert listed(answer) == of_frame(model[0].recommend_for([], 3)) and answer["user"] is None


def test_a_batch_is_its_requests_one_by_one(model, service):
    users = model[0].users.series.to_list()
    requests = [{"user": u, "k": 3} for u in users[:4]] + [{"likes": ODD[:2], "k": 2}, {}]
    answers = service.post("/recommend/batch", {"requests": requests})[1]["answers"]
    assert answers == [service.post("/recommend", request)[1] for request in requests]
    assert service.post("/recommend/batch", {"asks": requests})[1]["answers"] == answers, "its old name"


def test_old_names_of_fields_mean_the_new_ones(service):
    old = {"among": ODD, "min_ratings": 2, "max_ratings": 40}
    new = {"candidates": ODD, "min_support": 2, "max_support": 40}
    query = {name: urllib.parse.urlencode(fields, doseq=True) for name, fields in (("old", old), ("new", new))}
    answers = [service.post("/recommend", {"k": 50, **fields}) for fields in (new, old)]
    answers += [service.get(f"/recommend?k=50&{query[name]}") for name in ("new", "old")]
    assert answers[0][0] == 200 and all(answer == answers[0] for answer in answers)
    for name, value in old.items():
        rest = {n: v for n, v in zip(new, new.values(), strict=True) if n != schema.OLD_NAMES[name]}
        assert service.post("/recommend", {"k": 50, **rest, name: value})[1] == answers[0][1], name
        assert service.post("/recommend", {**new, name: value}) == (
            400, {"error": f"{name} is the old name of {schema.OLD_NAMES[name]}: give one of them"}
        )  # fmt: skip
    assert service.post("/recommend/batch", {"asks": [{}], "requests": [{}]})[0] == 400


def test_old_names_are_deprecated_in_the_openapi(service):
    document = service.get("/openapi.json")[1]
    parameters = {p["name"]: p for p in document["paths"]["/recommend"]["get"]["parameters"]}
    body = document["components"]["schemas"]["RecommendBody"]["properties"]
    for old, new in schema.OLD_NAMES.items():
        for field in (body[old], parameters[old]):
            assert field["deprecated"] and field["description"] == f"old name of {new}"
        assert "deprecated" not in body[new]
    batch = document["components"]["schemas"]["RecommendBatchBody"]["properties"]
    assert batch["asks"]["deprecated"] and "deprecated" not in batch["requests"]


def test_a_short_list_says_why(model, service):
    user = model[0].users.series[0]
    answer = service.post("/recommend", {"user": user, "k": 50})[1]
    assert len(answer["items"]) < 50 and answer["short"]
    assert service.post("/recommend", {"user": user, "k": 1})[1]["short"] is None


def test_items_are_found_by_a_part_of_their_title(service):
    found = service.get("/items?query=EMILE")[1]["items"]
    assert [e["item"] for e in found] == ["émile"] and found[0]["year"] == 1996 and found[0]["ratings"] > 0
    counts = [e["ratings"] for e in service.get("/items?k=50")[1]["items"]]
    assert len(counts) == len(ODD) and counts == sorted(counts, reverse=True)
    assert service.get("/items?query=film+the&k=3")[1]["items"], "the order of words does not matter"
    asked = urllib.parse.urlencode({"item": ["🎬", "a/b"]}, doseq=True)
    assert [e["title"] for e in service.get(f"/items?{asked}")[1]["items"]] == ["The 🎬 film", "The a/b film"]
    assert service.get("/items?item=none")[0] == 404
    assert service.get("/items?query=%5B.*")[1]["items"] == [], "a text is no pattern"


def test_history_and_prediction(model, service):
    recommender = model[0]
    user = recommender.users.series[2]
    answer = service.get("/history?" + urllib.parse.urlencode({"user": user}))[1]
    own = recommender.items.ids(recommender.seen[2]).to_list()
    assert {e["item"] for e in answer["items"]} == set(own) and answer["total"] == len(own)
    said = service.get("/predict?" + urllib.parse.urlencode({"user": user, "item": "🎬"}))[1]
    assert said["value"] == pytest.approx(float(recommender.predict(user, "🎬")[0]), rel=1e-5)
    assert (said["user"], said["item"], said["title"], said["unit"]) == (user, "🎬", "The 🎬 film", "score")


def test_reasons_are_those_of_the_recommender(model, service):
    recommender, folder = model
    user = recommender.users.series[1]
    known, new = recommender.explain(user, "🎬"), recommender.explain(None, "🎬", likes=ODD[:2])
    for ask, found in (({"user": user}, known), ({"likes": ODD[:2]}, new)):
        status, said = service.post("/explain", {**ask, "item": "🎬"})
        assert status == 200 and said == {**json.loads(json.dumps(found.summary())), "model": str(folder)}
    assert service.post("/explain", {"user": user, "item": "nothing"})[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("POST", "/recommend", {"user": "nobody"}, 404, "nobody is not known"),
        ("POST", "/recommend", {"likes": ["nothing"]}, 404, "nothing is not known"),
        ("POST", "/recommend", {"user": "z" * 10_000}, 404, "is not known"),
        ("POST", "/recommend", {"user": "z" * 10_001}, 422, "user"),
        ("POST", "/recommend", {"user": 10**4000}, 404, "is not known"),
        ("POST", "/recommend", {"user": True}, 422, "user"),
        ("POST", "/recommend", {"user": 4.2}, 422, "user"),
        ("POST", "/recommend", {"user": "a", "kk": 3}, 422, "kk"),
        ("POST", "/recommend", {"k": 0}, 422, "k"),
        ("POST", "/recommend", {"k": 51}, 400, "at most 50"),
        ("POST", "/recommend", {"min_support": 5, "max_support": 2}, 400, "max-support"),
        ("POST", "/recommend", {"ratings": {"plain": 1e300}}, 422, "ratings"),
        ("POST", "/recommend/batch", {"requests": [{}] * 21}, 400, "at most 20"),
        ("POST", "/recommend/batch", {"requests": []}, 422, "requests"),
        ("POST", "/recommend/batch", {}, 422, "requests"),
        ("POST", "/events", {"events": [{"user": "a", "item": "b"}] * 21}, 400, "at most 20"),
        ("POST", "/events", {"events": [{"user": "a"}]}, 422, "item"),
        ("GET", "/similar?item=nothing", None, 404, "nothing"),
        ("GET", "/similar", None, 422, "item"),
        ("GET", "/nothing", None, 404, "Not Found"),
        ("GET", "/page/..%2f..%2fapp.py", None, 404, ""),
        ("DELETE", "/recommend", None, 405, ""),
        ("PUT", "/health", None, 405, ""),
    ],
)
def test_what_is_wrong_is_said_in_one_line(service, method, path, body, status, says):
    found, answer, _ = service.raw(
        method, path, None if body is None else json.dumps(body).encode(), **{"content-type": "application/json"}
    )
    error = json.loads(answer)["error"]
    assert (found, says in error) == (status, True), error
    assert "\n" not in error and len(error) <= 300


def test_a_body_that_is_no_json_is_refused(service):
    for body in (b"", b"{", b"[1]", b'{"user": "\xff"}', b'{"user": "\\ud800"}', b'{"k": 1e999}', b"9" * 5000):
        status, answer, _ = service.raw("POST", "/recommend", body, **{"content-type": "application/json"})
        assert status in (400, 422) and json.loads(answer)["error"], body[:20]
    status, _, _ = service.raw("POST", "/events", b'{"events":[]}', **{"content-type": "text/plain"})
    assert status in (400, 415, 422), "what a page elsewhere may send without asking is no event"


def test_a_large_body_is_refused_before_it_is_read(model, tmp_path):
    with serving(model[1], tmp_path / "events.db", max_body=1000) as (client, _):
        kind = {"content-type": "application/json"}
        assert client.raw("POST", "/recommend", b'{"user": "' + b"x" * 1000 + b'"}', **kind)[0] == 413
        chunked = (b'{"likes": [' if n == 0 else b'"plain", ' for n in range(300))
        status, answer, _ = client.raw("POST", "/recommend", chunked, **kind)
        assert status == 413 and "1,000 bytes" in json.loads(answer)["error"]
        assert client.raw("POST", "/recommend", b'{"k": 2}' + b" " * 900, **kind)[0] == 200


def test_another_address_needs_a_token_and_a_token_opens(model, tmp_path, monkeypatch):
    monkeypatch.delenv("RECSYS_TOKEN", raising=False)
    with pytest.raises(SettingError, match="--token"):
        ServeConfig(host="0.0.0.0")
    with pytest.raises(SettingError, match="at least 8"):
        ServeConfig(host="0.0.0.0", token="short")
    monkeypatch.setenv("RECSYS_TOKEN", "from the environment")
    assert ServeConfig(host="0.0.0.0").secret == "from the environment"
    with serving(model[1], tmp_path / "events.db", token="a long secret") as (client, _):
        assert client.get("/recommend?k=1")[0] == 200
        for headers in ({}, {"authorization": "Bearer a long secre"}, {"authorization": "a long secret"}):
            stranger = Client(client.port, headers)
            assert stranger.get("/recommend?k=1")[0] == 401 and stranger.raw("GET", "/metrics")[0] == 401
            assert stranger.post("/events", {"events": [{"user": "a", "item": "b"}]})[0] == 401
            assert stranger.get("/health")[0] == 200 and stranger.raw("GET", "/")[0] == 200
        assert client.raw("GET", "/recommend", host="elsewhere")[0] == 200, "a token is enough under any name"


def test_a_name_that_was_pointed_here_is_refused(service):
    assert service.raw("GET", "/recommend?k=1", host="evil.example")[0] == 421
    for name in ("localhost", "127.0.0.1:80", "[::1]:8000"):
        assert service.raw("GET", "/recommend?k=1", host=name)[0] == 200


def test_too_long_is_said(model, tmp_path):
    with serving(model[1], tmp_path / "events.db", timeout=0.05) as (client, service):
        service.events.append = lambda _: Future()  # type: ignore[method-assign]
        status, answer = client.post("/events", {"events": [{"user": "a", "item": "plain"}]})
        assert status == 503 and "longer than 0.05 s" in answer["error"]
        assert client.get("/recommend?k=1")[0] == 200


def test_an_answer_that_began_in_time_is_sent_whole_to_whoever_reads_slowly():
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0.02)
        await send({"type": "http.response.body", "body": b"whole"})

    async def send(message):
        sent.append(message)

    asked = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost")]}
    config = ServeConfig(timeout=0.01)
    asyncio.run(RequestMiddleware(app, config, Metrics(), frozenset(), {})(asked, None, send))
    assert sent[-1]["body"] == b"whole"


def test_unknown_ids_are_left_out_where_that_is_asked(model, service):
    ask = {"likes": ["plain", "unheard of"], "exclude": ["it's", "nothing"], "on_unknown": "skip"}
    assert (
        service.post("/recommend", ask)[1]["items"]
        == service.post("/recommend", {"likes": ["plain"], "exclude": ["it's"]})[1]["items"]
    )
    stranger = service.post("/recommend", {"user": "stranger", "likes": ["plain"], "on_unknown": "skip"})
    assert stranger[0] == 200 and stranger[1]["items"] == service.post("/recommend", {"likes": ["plain"]})[1]["items"]
    nobody = service.post("/recommend", {"user": "stranger", "on_unknown": "skip"})[1]
    assert nobody["items"] == service.post("/recommend", {})[1]["items"] and nobody["user"] == "stranger"
    assert service.post("/recommend", {"candidates": ["nothing"], "on_unknown": "skip"})[1]["items"] == []


def test_models_are_swapped_under_load_and_back(model, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(model[1], first)
    other = odd_model(second)
    other.metadata["created"] = "another"
    other.save(second)
    current = tmp_path / "current"
    current.symlink_to(first)
    with serving(current, tmp_path / "events.db", reload_interval=0.02) as (client, service):
        statuses, done = [], threading.Event()

        def load():
            while not done.is_set():
                statuses.append(client.post("/recommend", {"user": "user 1/é", "k": 3})[0])

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        versions, replaced = [service.model.version], weakref.ref(service.model.fitted)
        for target in (second, first, second):
            (tmp_path / "next").symlink_to(target)
            (tmp_path / "next").rename(current)
            until(lambda: service.model.version != versions[-1])
            versions.append(service.model.version)
        done.set()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200} and len(statuses) > 3
        until(lambda: gc.collect() is not None and replaced() is None)  # nothing keeps it in memory
        assert versions[0] == versions[2] != versions[1] == versions[3]
        # A broken model does not answer, however it is broken: the one before goes on, and so do the looks.
        for name, spoil in BROKEN.items():
            shutil.copytree(first, tmp_path / name)
            spoil(tmp_path / name)
            (tmp_path / "next").symlink_to(tmp_path / name)
            (tmp_path / "next").rename(current)
            failures = f"recsys_model_swap_failures_total {1.0 + list(BROKEN).index(name)}".encode()
            until(lambda failures=failures: failures in client.raw("GET", "/metrics")[1])
        assert service.model.version == versions[-1] and client.get("/recommend?k=1")[0] == 200
        (tmp_path / "next").symlink_to(first)
        (tmp_path / "next").rename(current)
        until(lambda: service.model.version == versions[0])


def _cut(folder):
    (folder / "vectors.safetensors").write_bytes(b"x")
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text() + " ")


def _no_scale(folder):
    facts = (folder / "model.json").read_text().replace('"scale": [', '"scale": null, "was": [')
    (folder / "model.json").write_text(facts)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["model.json"] = {
        "size": len(facts.encode()), "sha256": hashlib.sha256(facts.encode()).hexdigest()
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))


BROKEN = {"cut": _cut, "no scale": _no_scale}


def test_the_newest_that_is_sound_begins_and_other_data_does_not_come_by_itself(model, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model[1], tmp_path / "models" / "one")
    shutil.copytree(model[1], tmp_path / "models" / "two")
    _cut(tmp_path / "models" / "two")
    with serving(None, tmp_path / "events.db", reload_interval=0.02) as (client, service):
        assert service.model.name == "models/one"
        shutil.rmtree(tmp_path / "models" / "two")
        few = pl.DataFrame({"user_id": ["user 1/é", "b"], "item_id": ["plain", "it's"]})
        Recommender(*small("softmax", epochs=1)).fit(Ratings.from_frame(few)).save("models/zz")
        until(lambda: b"recsys_model_swap_failures_total 1.0" in client.raw("GET", "/metrics")[1])
        assert service.model.name == "models/one" and "does not replace the model by itself" in caplog.text


def test_a_model_worse_than_popularity_is_not_served(model, tmp_path, caplog):
    bad = tmp_path / "bad"
    shutil.copytree(model[1], bad)
    worse = Recommender.load(bad)
    gap = {"metric": "ndcg_at_10", "mean": -0.1, "low": -0.2, "high": -0.05, "p": 0.001, "users": 9, "clear": True}
    worse.metadata["metrics"] = {"baselines": {"popularity": {"ndcg_at_10": 0.3, "difference": gap}}}
    worse.save(bad)
    with (
        pytest.raises(DataError, match="clearly worse than popularity .* --allow-worse"),
        serving(bad, tmp_path / "e.db"),
    ):
        pass
    with serving(bad, tmp_path / "e.db", allow_worse=True) as (client, _):
        assert client.get("/ready")[0] == 200
    now = tmp_path / "now"
    shutil.copytree(model[1], now)
    with serving(now, tmp_path / "e.db", reload_interval=0.02) as (client, service):
        version = service.model.version
        worse.save(now)
        until(lambda: b"recsys_model_swap_failures_total 1.0" in client.raw("GET", "/metrics")[1])
        assert service.model.version == version and "clearly worse than popularity" in caplog.text


def test_metrics_count_by_route_and_not_by_what_was_asked(service):
    service.get("/recommend?user=nobody")
    service.get("/some/secret/path")
    text = service.raw("GET", "/metrics")[1].decode()
    assert 'recsys_requests_total{path="/recommend",status="404"}' in text
    assert 'path="other"' in text and "secret" not in text and "nobody" not in text
    assert service.get("/ready")[1]["status"] == "ready"


def test_openapi_names_every_setting_of_rules(service):
    from dataclasses import fields

    from recsys_embed.config.answers import Rules

    document = service.get("/openapi.json")[1]
    body = document["components"]["schemas"]["RecommendBody"]["properties"]
    assert {f.name for f in fields(Rules)} <= set(body) and "examples" in document["components"]["schemas"][
        "RecommendBody"
    ]
    assert {"/recommend", "/similar", "/predict", "/events", "/health", "/ready"} <= set(document["paths"])


def test_a_user_of_an_integer_model_is_named_by_an_integer(tmp_path):
    frame = pl.DataFrame({"user_id": [1, 1, 2, 2, 3], "item_id": [5, 6, 6, 7, 5]})
    Recommender(*small("softmax", epochs=1)).fit(Ratings.from_frame(frame)).save(tmp_path / "model")
    with serving(tmp_path / "model", tmp_path / "events.db") as (client, _):
        assert client.get("/recommend?user=2&k=1")[1]["user"] == 2
        assert client.post("/recommend", {"user": "2", "k": 1})[1]["user"] == 2
        assert client.get("/similar?item=5&k=1")[1]["item"] == 5
        assert client.get("/recommend?user=02")[0] == 404
        client.post("/events", {"events": [{"user": 2, "item": "5"}]})
        assert client.get("/recommend?user=2")[1]["items"] == []
