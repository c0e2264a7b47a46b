"""The service where its file of events goes wrong: /ready says so, others are answered, nothing taken is lost."""

import json
import socket
import sqlite3
import tempfile
import threading

import pytest
from services import serving, until

from recsys_embed.config.answers import ServeConfig
from recsys_embed.errors import DataError
from recsys_embed.serving import connections
from recsys_embed.serving.event_store import Event, EventStore
from recsys_embed.serving.server import serve


@pytest.fixture
def served(model, tmp_path):
    with serving(model[1], tmp_path / "events.db") as (client, service):
        yield client, service, tmp_path / "events.db"


def send(client, user="a", item="plain"):
    return client.post("/events", {"events": [{"user": user, "item": item}]})


def kept(file):
    with sqlite3.connect(file) as connection:
        return connection.execute("SELECT count(*) FROM events").fetchone()[0]


@pytest.mark.parametrize("replaced", [False, True])
def test_no_event_is_taken_for_a_file_that_is_gone(served, replaced):
    client, _, file = served
    assert send(client)[0] == 200
    away = file.with_suffix(".away")
    file.rename(away)
    if replaced:
        EventStore(file).close()
    for status, answer in (send(client, "b"), client.get("/ready")):
        assert status == 503 and "was removed or replaced: put it back" in answer["error"]
    change = b'{"items": [{"item": "plain", "set": {"title": "x"}}]}'
    status, answer, _ = client.raw("PATCH", "/items", change, **{"content-type": "application/json"})
    assert status == 503 and b"was removed or replaced" in answer
    assert client.raw("DELETE", "/events?user=a")[0] == 503
    assert client.post("/recommend", {"likes": ["plain"]})[0] == 200
    if replaced:
        assert kept(file) == 0
    else:
        assert not file.exists()
        away.rename(file)
        assert client.get("/ready")[0] == 200 and send(client, "b")[0] == 200 and kept(file) == 2


def test_a_file_that_cannot_be_read_is_said_and_others_are_answered(served):
    client, service, file = served
    for n in range(200):
        service.events.append([Event(f"user{n}", "plain")]).result()
    service.events.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = file.stat().st_size
    with file.open("r+b") as damaged:  # all but the header
        damaged.seek(100)
        damaged.write(b"\xff" * (size - 100))
    assert client.get("/ready")[0] == 503
    status, answer = client.post("/recommend", {"user": "user7", "on_unknown": "skip"})
    assert (status, "cannot be read" in answer["error"]) == (503, True)
    assert client.post("/recommend", {"likes": ["plain"]})[0] == 200 and client.get("/health")[0] == 200
    status, answer = client.get("/ready")
    assert status == 503 and str(file) in answer["error"]
    assert send(client)[0] == 503


def test_a_lock_of_somebody_else_is_said(served, monkeypatch):
    client, service, file = served
    assert send(client)[0] == 200
    monkeypatch.setattr("recsys_embed.serving.event_store._BUSY_TIMEOUT_S", 0.1)
    service.events._local = threading.local()  # connections with the new time-out
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        status, answer, _ = client.raw("DELETE", "/events?user=a")
        assert status == 503 and b"locked" in answer
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert client.raw("DELETE", "/events?user=a")[0] == 200


def test_a_user_with_many_events_does_not_hold_up_others(served, monkeypatch):
    """While one user's events are read, which this test draws out, others are answered."""
    client, service, _ = served
    monkeypatch.setattr("recsys_embed.serving.event_store._MANY_EVENTS", 3)
    service.events.append([Event("many", "plain", id=str(n)) for n in range(5)]).result()
    reading, go_on, read = threading.Event(), threading.Event(), EventStore.by_item

    def slow(self, user):
        if user == "many":
            reading.set()
            assert go_on.wait(30)
        return read(self, user)

    monkeypatch.setattr(EventStore, "by_item", slow)
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(client.post("/recommend", {"user": "many", "on_unknown": "skip"})[0])
    )
    asking.start()
    try:
        until(reading.is_set)
        assert client.get("/health")[0] == 200 and client.post("/recommend", {"likes": ["plain"]})[0] == 200
    finally:
        go_on.set()
        asking.join()
    assert answers == [200]


def half_open(client, n, sent=b"GET /health HTTP/1.1\r\nhost: local"):
    opened = [socket.create_connection(("127.0.0.1", client.port), 30) for _ in range(n)]
    for one in opened:
        one.sendall(sent)
    return opened


def is_closed(connection):
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_half_requests_do_not_keep_others_out(served, monkeypatch):
    client, *_ = served
    monkeypatch.setattr(connections, "most_connections", lambda: 12)
    opened = half_open(client, 40)
    try:
        assert client.get("/health")[0] == 200 and send(client)[0] == 200
        until(lambda: sum(map(is_closed, opened)) >= 28)
        assert not all(map(is_closed, opened))
    finally:
        for one in opened:
            one.close()


def test_a_connection_without_a_request_ends_in_time(served, monkeypatch):
    client, *_ = served
    monkeypatch.setattr(connections, "HEADER_TIMEOUT_S", 0.2)
    for sent in (b"", b"GET /health HTTP/1.1\r\n", b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nGET /hea"):
        (one,) = half_open(client, 1, sent)
        if sent.endswith(b"/hea"):
            assert one.recv(12) == b"HTTP/1.1 200"

        def has_ended(one=one):
            one.setblocking(False)
            try:
                while one.recv(4096):
                    pass
                return True
            except BlockingIOError:
                return False

        until(has_ended)
        one.close()


def test_a_slow_answer_is_no_connection_that_waits(served, monkeypatch):
    client, *_ = served
    monkeypatch.setattr(connections, "HEADER_TIMEOUT_S", 0.05)
    read = EventStore.by_item
    monkeypatch.setattr("recsys_embed.serving.event_store._MANY_EVENTS", 0)
    assert send(client)[0] == 200

    def slow(self, user):
        opened = half_open(client, 1)  # when this one has ended, the time is over
        until(lambda: is_closed(opened[0]))
        return read(self, user)

    monkeypatch.setattr(EventStore, "by_item", slow)
    assert client.get("/events?user=a")[0] == 200


def test_head_is_get_without_a_body(served):
    client, *_ = served
    for path in ("/health", "/ready", "/docs"):
        status, body, _ = client.raw("HEAD", path)
        assert status == client.raw("GET", path)[0] == 200 and body == b""
    assert client.raw("HEAD", "/nothing")[0] == 404


def test_a_new_column_may_begin_with_nulls(served):
    client = served[0]

    def set_to(value):
        body = json.dumps({"items": [{"item": "plain", "set": {"new": value}}]}).encode()
        return client.raw("PATCH", "/items", body, **{"content-type": "application/json"})[0]

    assert set_to(None) == 200
    assert client.post("/recommend", {"where": "new is None", "k": 3})[1]["items"]
    assert set_to(5) == 200 and set_to(None) == 200 and set_to(7) == 200
    (found,) = client.post("/recommend", {"where": "new == 7"})[1]["items"]
    assert found["item"] == "plain" and set_to("text") == 400


def test_a_bug_is_one_line_of_json(served, monkeypatch):
    def broken(*_):
        raise ArithmeticError("no word of this")

    monkeypatch.setattr(EventStore, "by_item", broken)
    status, answer = served[0].get("/events?user=a")
    assert status == 500 and answer == {"error": "internal error; the service's log has the details"}


@pytest.mark.parametrize("values", [{"a\ud802": None}, {"title": "\udad9"}, {"tags": ["ok", "\ud802"]}])
def test_half_a_character_is_refused(served, values):
    body = json.dumps({"items": [{"item": "plain", "set": values}]}).encode()
    status, answer, _ = served[0].raw("PATCH", "/items", body, **{"content-type": "application/json"})
    assert status == 422 and "not valid Unicode" in json.loads(answer)["error"]


def test_a_user_whose_items_are_unknown_gets_the_same_answer_whoever_asked_before(models, tmp_path):
    with serving(models / "one", tmp_path / "events.db") as (client, _):
        client.post("/events", {"events": [{"user": "ghost", "item": "no such item"}]})
        for on_unknown, status in (("error", 404), ("skip", 200), ("error", 404)):
            assert client.post("/recommend", {"user": "ghost", "on_unknown": on_unknown})[0] == status


def test_a_start_that_fails_for_its_items_leaves_no_folder_behind(models, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "items.csv").write_text("stock\n1\n")
    settings = {
        "model": str(models / "one"),
        "events": str(tmp_path / "e.db"),
        "items": str(tmp_path / "items.csv"),
        "port": 0,
    }
    with pytest.raises(DataError):
        serve(ServeConfig(**settings), print)
    assert not list(tmp_path.glob("recsys-map-*"))
