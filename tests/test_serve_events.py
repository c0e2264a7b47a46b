"""What a service is told: events count at once, in their order, and none that was acknowledged is lost."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from services import ODD, Client, listed, serving, until
from worlds import small

from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import DataError
from recsys_embed.recommender import Recommender
from recsys_embed.serving.event_store import Event, EventStore
from recsys_embed.serving.trend_of_events import TrendOfEvents
from recsys_embed.sources.load import load_dataset


def kept_in(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT id FROM events").fetchall()


def test_an_event_counts_from_the_next_answer_on(model, tmp_path):
    recommender, folder = model
    user, events = recommender.users.series[0], tmp_path / "events.db"
    before = recommender.recommend(user, 50)["item_id"].to_list()
    with serving(folder, events) as (client, _):
        body = [{"user": user, "item": before[0], "id": "a"}, {"user": "new 🙂", "item": "plain", "rating": 5}]
        kept = client.post("/events", {"events": [*body, {"user": user, "item": "unheard of"}]})
        assert kept == (200, {"accepted": 3, "repeated": 0, "unknown_items": 1, "unknown_types": 0})
        again = client.post("/events", {"events": body[:1]})[1]
        assert (again["accepted"], again["repeated"], again["unknown_items"]) == (0, 1, 0)
        answers = [client.post("/recommend", {"user": u, "k": 50})[1] for u in (user, "new 🙂")]
        assert before[0] not in [e["item"] for e in answers[0]["items"]]
        assert {e["item"] for e in answers[1]["items"]} == set(ODD) - {"plain"}
        assert client.get("/history?" + urllib.parse.urlencode({"user": user}))[1]["items"][0]["item"] == before[0]
        assert listed(answers[1]) == listed(client.post("/recommend", {"ratings": {"plain": 5}, "k": 50})[1])
    with serving(folder, events) as (client, _):
        again = [client.post("/recommend", {"user": u, "k": 50})[1] for u in (user, "new 🙂")]
        assert again == answers, "they are there after a restart"


def test_blanks_around_an_id_are_no_part_of_it(model, tmp_path):
    recommender, folder = model
    user, item = recommender.users.series[0], recommender.items.series[0]
    with serving(folder, tmp_path / "events.db") as (client, _):
        body = [{"user": f" {user}\t", "item": f"{item} "}, {"user": " new\u00a0", "item": item}]
        assert client.post("/events", {"events": body})[1]["unknown_items"] == 0
        asked = [client.post("/recommend", {"user": who})[1]["user"] for who in (f" {user}", user)]
        assert asked == [user, user]
        assert client.post("/recommend", {"user": "new"})[1]["from"] == "session"
        for missing in ("", " \n"):
            status, answer = client.post("/events", {"events": [{"user": missing, "item": item}]})
            assert status == 422 and "user" in json.dumps(answer)
    kept = load_dataset(tmp_path / "events.db").ratings.users
    assert sorted(map(str, kept.series)) == sorted([str(user), "new"])


def test_the_last_word_on_an_item_counts(model, tmp_path):
    with serving(model[1], tmp_path / "events.db") as (client, _):
        for rating in (1, None, 4):
            client.post("/events", {"events": [{"user": "x", "item": "plain", "rating": rating}]})
        one = client.post("/recommend", {"user": "x", "k": 5})[1]
        assert listed(one) == listed(client.post("/recommend", {"ratings": {"plain": 4}, "k": 5})[1])


def test_a_time_that_is_no_number_is_refused_with_what_is_wanted(model, tmp_path):
    with serving(model[1], tmp_path / "events.db") as (client, _):
        for time in ("31/12/2025", "2025-12-31T14:05:00", 1.5, True):
            body = {"events": [{"user": "x", "item": "plain", "timestamp": time}]}
            status, answer = client.post("/events", body)[:2]
            assert status == 422 and "events.0.timestamp" in answer["error"]
            assert "seconds since 1970" in answer["error"] or time in (1.5, True)


def test_events_go_by_their_time_and_are_forgotten_when_that_is_asked(model, tmp_path):
    with serving(model[1], tmp_path / "events.db") as (client, _):
        for rating, time in ((5, 2000), (1, 1000)):  # a queue that is out of order
            client.post("/events", {"events": [{"user": "x/1", "item": "plain", "rating": rating, "timestamp": time}]})
        last = {"user": "x/1", "events": [{"item": "plain", "rating": 5.0, "types": [None]}]}
        assert client.get("/events?user=x%2F1") == (200, last)
        status, answer, _ = client.raw("DELETE", "/events?user=x%2F1")
        assert (status, json.loads(answer)) == (200, {"removed": 2})
        assert client.get("/events?user=x%2F1")[1]["events"] == []
        assert client.post("/recommend", {"user": "x/1"})[0] == 404
        client.post("/events", {"events": [{"user": "x/1", "item": "🎬"}]})
        again = client.post("/recommend", {"user": "x/1"})[1]
        assert listed(again) == listed(client.post("/recommend", {"likes": ["🎬"]})[1])


def test_what_a_model_was_fitted_on_does_not_count_again_and_what_is_asked_now_wins(model, tmp_path):
    recommender, folder = model
    user = recommender.users.series[3]
    own = recommender.items.ids(recommender.seen[3]).to_list()
    shutil.copytree(folder, tmp_path / "later")
    later = Recommender.load(folder)
    later.metadata["created"] = "2999-01-01T00:00:00+00:00"
    later.save(tmp_path / "later")
    with serving(tmp_path / "later", tmp_path / "events.db") as (client, _):
        before = client.post("/recommend", {"user": user})[1]
        client.post("/events", {"events": [{"user": user, "item": item, "rating": 1} for item in own]})
        assert client.post("/recommend", {"user": user})[1]["items"] == before["items"]
        client.post("/events", {"events": [{"user": "new", "item": "plain", "rating": 5}]})
        now = client.post("/recommend", {"user": "new", "dislikes": ["plain"]})[1]
        assert listed(now) == listed(client.post("/recommend", {"dislikes": ["plain"]})[1])


def test_a_lock_that_stays_is_said_and_events_go_on_after_it(model, tmp_path, monkeypatch):
    monkeypatch.setattr("recsys_embed.serving.event_store._BUSY_TIMEOUT_S", 0.2)
    with serving(model[1], tmp_path / "events.db", timeout=0.1) as (client, service):
        with contextlib.closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            body = {"events": [{"user": "a", "item": "plain", "id": "one"}]}
            assert [client.post("/events", body)[0] for _ in range(3)] == [503] * 3
            other.execute("ROLLBACK")
        until(lambda: client.post("/events", body)[0] == 200)
        assert (
            service.events.problem() is None
            and client.get("/ready")[0] == 200
            and len(kept_in(tmp_path / "events.db")) == 1
        )
        service.events.close()
        assert client.get("/ready")[0] == 503


def test_events_are_kept_all_or_none_and_once(tmp_path):
    log = EventStore(tmp_path / "events.db")
    threads = [
        threading.Thread(target=lambda: [log.append([Event("u", f"i{n}", id=f"e{n}")]).result() for n in range(40)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said.item for said in log.by_item("u")) == sorted(f"i{n}" for n in range(40))
    assert len(kept_in(tmp_path / "events.db")) == 40
    broken = [Event("v", "i1"), Event("v", "i2", rating="no number")]  # type: ignore[arg-type]
    with pytest.raises(DataError, match="could not be stored"):
        log.append(broken).result()
    assert log.by_item("v") == [] and log.append([Event("v", "i2")]).result() == (1, 0)
    log.close()
    (tmp_path / "other.db").write_text("this is no database, but a text that is long enough to be read as one" * 20)
    with pytest.raises(DataError, match="--events"):
        EventStore(tmp_path / "other.db")
    with pytest.raises(DataError, match="--events"):
        EventStore(tmp_path / "missing" / "events.db")


_KILLED = """
import sys; from pathlib import Path; from services import serving; import time
with serving(Path(sys.argv[1]), Path(sys.argv[2])) as (client, _):
    print(client.port, flush=True); time.sleep(600)
"""


def test_no_acknowledged_event_is_lost_when_the_process_is_killed(model, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", _KILLED, str(model[1]), str(tmp_path / "events.db")]
    acknowledged, sent = [], 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        client = Client(int(process.stdout.readline()))
        killer = threading.Timer(0.3, process.send_signal, [signal.SIGKILL])
        killer.start()
        try:
            while sent < 100_000:
                names = [f"e{sent + n}" for n in range(5)]
                sent += 5
                body = {"events": [{"user": "killed", "item": name, "id": name} for name in names]}
                if client.post("/events", body)[0] == 200:
                    acknowledged += names
        except (OSError, http.client.HTTPException):
            pass
        process.wait()
    log = EventStore(tmp_path / "events.db")
    kept = [said.item for said in log.by_item("killed")]
    log.close()
    assert len(kept_in(tmp_path / "events.db")) == len(kept)
    assert acknowledged and set(acknowledged) <= set(kept)
    assert len(kept) - len(acknowledged) in (0, 5), "a request is kept whole or not at all"


@pytest.fixture(scope="module")
def timed_model(tmp_path_factory):
    """A model of items 0 to 29 with a trend. User 0 rated items 0 to 4 only, on the first day."""
    user, item = np.divmod(np.arange(900), 30)
    kept = (np.random.default_rng(0).random(900) < 0.4) & (user > 0) | ((user == 0) & (item < 5))
    frame = pl.DataFrame({"user": user[kept], "item": item[kept], "time": 1_000_000_000 + 86_400 * user[kept]})
    settings = small("softmax", epochs=3, dim=4, batch_users=16, half_life=10.0)
    model = Recommender(*settings).fit(Ratings.from_frame(frame))
    return model.save(tmp_path_factory.mktemp("timed") / "m")


def first_of(client, **body):
    return client.post("/recommend", {"k": 3, **body})[1]["items"][0]["item"]


def test_an_event_counts_in_the_trend_at_once_and_after_a_restart(timed_model, tmp_path):
    def events(user, item, n):
        return {
            "events": [{"user": f"{user}{k}", "item": item, "timestamp": 1_000_000_000 + 30 * 86_400} for k in range(n)]
        }

    path = tmp_path / "events.db"
    with serving(timed_model, path) as (client, service):
        first = first_of(client)
        other = 7 if first != 7 else 8
        client.post("/events", events("a", other, 40))
        assert first_of(client) == other, "for somebody of whom nothing is known"
        before = service.model.state
        known = client.post("/explain", {"user": 0, "item": other})[1]["parts"]["trend"]
        assert known > 0.5 and service.model.state is before, "nothing new"
        client.post("/events", events("a", "unheard of", 2))
        assert first_of(client) == other
    with serving(timed_model, path) as (client, service):
        assert first_of(client) == other
        assert client.post("/explain", {"user": 0, "item": other})[1]["parts"]["trend"] == pytest.approx(known)
        recent = service.model.state.trend.recent
        np.testing.assert_allclose(recent[service.model.state.items.row(other)] > 40, True)
        for k in range(40):
            assert client.raw("DELETE", f"/events?user=a{k}")[0] == 200
        assert first_of(client) == first, "what a user takes back counts no longer"
        np.testing.assert_allclose(service.model.state.trend.recent, Recommender.load(timed_model).state.trend.recent)


def test_an_event_that_the_model_was_fitted_on_counts_once(timed_model, tmp_path):
    state = Recommender.load(timed_model).state
    store = EventStore(tmp_path / "events.db")
    body = [Event("0", "0"), Event("0", "20"), Event("new", "0"), Event("new", "0"), Event("new", "unknown")]
    store.append(body).result()
    for created, counted in ((0.0, 3), (time.time() + 60, 2)):  # (user 0, item 0) is a training rating
        trend = TrendOfEvents(state, store, created).state().trend
        at = time.time()
        base = state.trend.recent.sum() * 0.5 ** ((at - state.trend.time) / 86_400 / 10)
        assert trend.recent.sum() - base == pytest.approx(counted, rel=1e-3)
    store.close()


def test_a_wrong_clock_does_not_end_the_trend(timed_model, tmp_path):
    state, store = Recommender.load(timed_model).state, EventStore(tmp_path / "events.db")
    store.append([Event("a", "7", timestamp=int(time.time() * 1000)), Event("b", "8", timestamp=-5)]).result()
    store.append([Event("c", "9")]).result()
    trend = TrendOfEvents(state, store, 0.0).state().trend
    assert trend.time <= time.time() + 1
    assert trend.recent[state.items.row(7)] == pytest.approx(trend.recent[state.items.row(9)], rel=1e-3)
    store.close()


def test_what_one_process_deletes_no_process_counts(timed_model, tmp_path):
    state = Recommender.load(timed_model).state
    stores = [EventStore(tmp_path / "events.db") for _ in range(2)]
    counts = [TrendOfEvents(state, store, 0.0) for store in stores]
    stores[0].append([Event(f"u{n}", "7") for n in range(20)]).result()
    assert [count.state().trend.recent[state.items.row(7)] > 19 for count in counts] == [True, True]
    assert stores[0].delete_of("u3") == 1 and stores[0].delete_of("nobody") == 0
    recent = [count.state().trend.recent[state.items.row(7)] for count in counts]
    assert 18.9 < recent[0] < 19.1 and recent[0] == pytest.approx(recent[1], rel=1e-6)
    for store in stores:
        store.close()
