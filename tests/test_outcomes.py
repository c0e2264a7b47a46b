"""What is counted of the variants of a service: lists, users, and the events that follow."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from services import ODD, Client, counts_of, serving, until
from worlds import recsys_here

from recsys_embed.config.variants import parse_variants
from recsys_embed.errors import DataError, SettingError
from recsys_embed.serving.event_store import Event, EventStore
from recsys_embed.serving.outcome_store import Outcomes
from recsys_embed.serving.outcome_tables import Successes

USERS = [f"user {n}/é" for n in range(9)]


def test_lists_users_and_what_followed_are_counted_and_survive(both, tmp_path):
    path = tmp_path / "events.db"
    with serving(None, path, variant=both, token="a token for tests") as (client, _):
        answer = client.post("/recommend", {"user": "u", "k": 2, "on_unknown": "skip"})[1]
        name = answer["variant"]
        other = "b" if name == "a" else "a"
        client.post("/recommend", {"user": "u", "k": 1, "on_unknown": "skip"})
        client.post("/recommend", {"user": "u", "variant": other, "on_unknown": "skip"})
        client.post("/recommend", {"user": "tester", "variant": name, "on_unknown": "skip"})
        listed = answer["items"][1]["item"]
        unlisted = next(item for item in ODD if item not in [entry["item"] for entry in answer["items"]])
        events = [{"user": "u", "item": listed, "id": "1"}, {"user": "u", "item": unlisted, "id": "2"}]
        events += [{"user": "stranger", "item": listed}, {"user": "u", "item": listed, "event": "dislike"}]
        for _ in range(2):  # what is sent again counts once
            client.post("/events", {"events": events[:2]})
        client.post("/events", {"events": events[2:]})
        fields = ("users", "lists", "converted", "events", "hits")
        found = counts_of(client)
        assert [found[name][field] for field in fields] == [1, 2, 1, 2, 1]
        assert [found[other][field] for field in fields] == [0] * 5
        assert found[name]["rate"] == 1 and found[other]["rate"] is None
        status, text, _ = client.raw("GET", "/metrics")
        assert status == 200 and f'recsys_variant_lists_total{{variant="{name}"}} 2.0'.encode() in text
        client.headers = {}
        assert client.get("/variants")[0] == 401
    with serving(None, path, variant=both) as (client, _):
        assert counts_of(client) == found
        client.post("/recommend", {"user": "u", "on_unknown": "skip"})
        assert counts_of(client)[name]["users"] == 1 and counts_of(client)[name]["lists"] == 3
        client.raw("DELETE", "/events?user=u")
        assert counts_of(client)[name]["lists"] == 3, "the sums stay"
    connection = sqlite3.connect(path)
    for table in ("ab_users", "ab_lists", "events"):
        assert not connection.execute(f"SELECT count(*) FROM {table} WHERE user = 'u'").fetchone()[0]
    said = json.loads(recsys_here("variants", "--events", str(path), "--json", cwd=tmp_path).stdout)
    assert {entry["name"]: entry["lists"] for entry in said["variants"]} == {name: 3, other: 0}
    assert "not clear yet" in recsys_here("variants", cwd=tmp_path).stdout


@pytest.fixture
def store(tmp_path):
    store = EventStore(tmp_path / "events.db")
    yield store
    store.close()


ANY = Successes()
TWO = parse_variants(["a=x", "b=y"])


def started(store, successes=ANY, variants=TWO, fixed=False, name="t"):
    return Outcomes(store, name, variants, successes, fixed, lag=0.0)


def send(store, *events):
    store.append([Event(*event) for event in events]).result()


def test_only_target_events_count_and_only_after_the_list(store):
    outcomes = started(store, Successes((None, "purchase"), 3.0))
    send(store, ("u", "early"))
    outcomes.count("u", "a", ["x", "y"])
    outcomes.flush()
    long_ago = int(time.time()) - 3600
    send(store, ("u", "x", None, long_ago), ("u", "x", 1.0), ("u", "x", None, None, None, "view"))
    assert outcomes.counts()["a"] == (1, 1, 0, 0, 0)
    send(store, ("u", "x", None, None, None, "purchase"), ("u", "z", 4.0), ("u", "x", 3.0, 2**62))
    assert outcomes.counts() == {"a": (1, 1, 1, 3, 2), "b": (0, 0, 0, 0, 0)}
    outcomes.close()


def test_what_counts_stays_and_another_target_is_refused(store):
    started(store, Successes(("purchase",))).close()
    again = started(store, Successes(("view",)))
    assert again.test.successes.types == ("purchase",)
    again.close()
    with pytest.raises(SettingError, match="--ab-test"):
        started(store, Successes(("view",)), fixed=True)
    other = started(store, Successes(("view",)), fixed=True, name="other")
    assert other.test.number != again.test.number
    other.close()


def test_a_lock_that_stays_loses_no_list(store, monkeypatch):
    from recsys_embed.serving import event_store

    monkeypatch.setattr(event_store, "_BUSY_TIMEOUT_S", 0.05)
    outcomes = started(store)
    store.connection.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    outcomes.count("u", "a", ["x"])
    with pytest.raises(DataError, match="could not be stored"):
        outcomes.counts()
    other.execute("ROLLBACK")
    other.close()
    assert outcomes.counts()["a"].lists == 1
    outcomes.close()


def test_the_file_remembers_whether_shares_were_always_the_same(store):
    for variants, same in ((TWO, True), (TWO[::-1], True), (parse_variants(["a=x", "b:20%=y"]), False), (TWO, False)):
        outcomes = started(store, variants=variants)
        outcomes.close()
        assert outcomes.test.same_shares == same and outcomes.test.variants == variants


def test_a_user_counts_for_the_first_variant(store):
    outcomes = started(store)
    outcomes.count("u", "a", ["x"])
    outcomes.count("u", "b", ["y"])
    outcomes.flush()
    send(store, ("u", "y"))
    assert outcomes.counts() == {"a": (1, 1, 1, 1, 0), "b": (0, 0, 0, 0, 0)}
    outcomes.close()


def test_a_hit_is_an_item_of_a_recent_list(store):
    from recsys_embed.serving import outcome_store

    outcomes = started(store)
    outcomes.count("u", "a", ["old"])
    outcomes.count("v", "a", ["old"])
    for n in range(outcome_store.HIT_LISTS):
        outcomes.count("u", "a", [f"i{n}"])
    outcomes.flush()
    send(store, ("u", "old"), ("u", "i0"), ("u", "i19"))
    assert outcomes.counts()["a"].hits == 2
    store.connection.execute("UPDATE ab_lists SET time = time - ?", (outcome_store.HIT_SECONDS + 1,))
    send(store, ("v", "old"))
    assert outcomes.counts()["a"] == (2, 22, 2, 4, 2)
    outcomes.close()


def test_events_are_counted_once_by_whichever_process(store):
    one, two = started(store), Outcomes(EventStore(store.path), "t", TWO, Successes(), lag=0.0)
    for n in range(40):
        (one, two)[n % 2].count(f"u{n}", "a" if n < 30 else "b", ["x"])
    one.flush(), two.flush()
    send(store, *((f"u{n}", "x") for n in range(0, 40, 2)))
    threads = [threading.Thread(target=outcomes.flush) for outcomes in (one, two) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one.counts() == two.counts() == {"a": (30, 30, 15, 15, 15), "b": (10, 10, 5, 5, 5)}
    one.close(), two.close(), two.events.close()


def test_events_wait_for_lists_of_other_processes(store):
    one, two = Outcomes(store, "t", TWO, Successes(), lag=100.0), started(store)
    one.count("u", "a", ["x"])
    send(store, ("u", "x"))
    two.lag = 100.0
    assert two.counts()["a"].events == 0
    one.flush()
    two.lag = 0.0
    assert two.counts()["a"] == (1, 1, 1, 1, 1)
    one.close(), two.close()


def test_what_is_kept_is_bounded(store, monkeypatch):
    from recsys_embed.serving import outcome_store

    monkeypatch.setattr(outcome_store, "_MAX_LISTS", 5)
    monkeypatch.setattr(outcome_store, "_MAX_WAITING", 8)
    outcomes = started(store)
    with outcomes._writing:  # as if the disk were full
        for n in range(20):
            outcomes.count(f"u{n}", "a", ["x"])
        assert len(outcomes._waiting) == 8
    assert outcomes.counts()["a"].lists == 8
    outcomes._next_cleaning = 0.0
    until(lambda: outcomes.flush_soon().result(30) is None and outcomes._next_cleaning > 0)
    assert store.connection.execute("SELECT count(*) FROM ab_lists").fetchone()[0] == 5
    store.connection.execute("UPDATE ab_users SET last = 0 WHERE user = 'u19'")
    outcomes._next_cleaning = 0.0
    until(lambda: outcomes.flush_soon().result(30) is None and outcomes._next_cleaning > 0)
    assert store.connection.execute("SELECT count(*) FROM ab_users").fetchone()[0] == 7
    assert outcomes.counts()["a"].users == 8, "the sums stay"
    outcomes.close()


def test_a_file_of_an_earlier_version_gains_the_tables_and_one_without_a_test_says_so(store, tmp_path):
    send(store, ("u", "x"))
    done = recsys_here("variants", "--events", str(store.path), cwd=tmp_path, code=4)
    assert "there is no A/B test in " in done.stderr and "recsys serve --variant" in done.stderr
    outcomes = started(store)
    outcomes.count("u", "a", ["x"])
    assert outcomes.counts()["a"] == (1, 1, 0, 0, 0), "events from before the test do not count"
    outcomes.close()
    assert "there is no file" in recsys_here("variants", "--events", "no.db", cwd=tmp_path, code=3).stderr


_KILLED = """
import sys
from services import serving
with serving(None, sys.argv[1], variant=sys.argv[2:]) as (client, service):
    print(client.port, flush=True)
    sys.stdin.read()
"""


def test_what_is_on_disk_when_the_process_is_killed_counts(both, tmp_path):
    path = tmp_path / "events.db"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", _KILLED, str(path), *both]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=environment
    ) as process:
        client = Client(int(process.stdout.readline()))
        for user in USERS:
            client.post("/recommend", {"user": user})
        until(lambda: b'_lists_total{variant="b"} 0' not in client.raw("GET", "/metrics")[1])
        before = {name: found["lists"] for name, found in counts_of(client).items()}
        assert sum(before.values()) == len(USERS)
        client.post("/events", {"events": [{"user": user, "item": "plain"} for user in USERS]})
        process.send_signal(signal.SIGKILL)
    with serving(None, path, variant=both) as (client, _):
        found = counts_of(client)
    assert {name: entry["lists"] for name, entry in found.items()} == before
    assert {name: entry["converted"] for name, entry in found.items()} == before, "the last events too"
