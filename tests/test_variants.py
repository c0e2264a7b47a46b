"""Several models in one service: who gets which, what is counted, and what new items get."""

import collections
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from services import ODD, Client, odd_model, serving, until
from worlds import recsys_here, small

from recsys_embed.answering.recommend import recommend
from recsys_embed.answering.request import Exploration, RecommendRequest
from recsys_embed.config.answers import Rules, ServeConfig
from recsys_embed.config.variants import Variant, parse_variants
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import BundleError, DataError, SettingError
from recsys_embed.recommender import Recommender
from recsys_embed.serving.event_store import Event, EventStore
from recsys_embed.serving.outcome_store import Outcomes
from recsys_embed.serving.outcome_tables import Successes
from recsys_embed.serving.variants import assign

USERS = [f"user {n}/é" for n in range(9)]


# Options


def test_an_option_is_a_name_a_share_and_a_model_as_it_is():
    assert parse_variants(["a=models:/shop@champion", "b:20%=models/new=2:50%"]) == (
        Variant("a", "models:/shop@champion", pytest.approx(0.8)),
        Variant("b", "models/new=2:50%", pytest.approx(0.2)),
    )
    assert [v.share for v in parse_variants(["a=x", "b=y", "c:0.5=z"])] == pytest.approx([0.25, 0.25, 0.5])


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["b"], "NAME=MODEL"),
        (["models/new"], "NAME=MODEL"),
        (["=x"], "NAME=MODEL"),
        (["a b=x"], "NAME=MODEL"),
        (["a=x", "a=y"], "two variants"),
        (["a:20=x", "b=y"], "share"),
        (["a:50%=x", "b:40%=y"], "100 %"),
        (["a:60%=x", "b:60%=y"], "100 %"),
        (["a:100%=x", "b=y"], "nothing is left"),
        (["a:nan%=x", "b=y"], "share"),
    ],
)
def test_an_option_that_is_wrong_is_refused(texts, says):
    with pytest.raises(SettingError, match=says):
        ServeConfig(variant=texts)


def test_a_model_and_variants_exclude_each_other():
    with pytest.raises(SettingError, match="--variant"):
        ServeConfig(model="x", variant=["a=x"])
    for share in ("60%", "-1%", "much"):
        with pytest.raises(SettingError, match="explore-new"):
            ServeConfig(explore_new=share)


# Who gets which


def all_of(shares, test="t", n=20_000):
    return [assign(test, str(user), shares) for user in range(n)]


def test_users_are_divided_by_the_shares_and_by_nothing_else():
    shares = {"a": 0.7, "b": 0.2, "c": 0.1}
    found = all_of(shares)
    for name, share in shares.items():
        assert found.count(name) / len(found) == pytest.approx(share, abs=0.012)
    assert found == all_of(dict(reversed(shares.items()))), "the order plays no part"
    assert "".join(found[:16]) == "abaaabcbaaabaaaa", "another version must not move users"
    other = all_of(shares, "another test")
    both = collections.Counter(zip(found, other, strict=True))
    assert both["a", "b"] / found.count("a") == pytest.approx(0.2, abs=0.015), "tests are independent of each other"


def test_users_move_only_where_a_share_has_grown():
    before = all_of({"a": 0.9, "b": 0.1})
    moved = [(x, y) for x, y in zip(before, all_of({"a": 0.5, "b": 0.5}), strict=True) if x != y]
    assert set(moved) == {("a", "b")} and len(moved) / len(before) == pytest.approx(0.4, abs=0.012)
    before = all_of({"a": 0.5, "b": 0.5})
    moved = {(x, y) for x, y in zip(before, all_of({"a": 0.4, "b": 0.4, "c": 0.2}), strict=True) if x != y}
    assert moved == {("a", "c"), ("b", "c")}
    assert set(all_of({"a": 1.0, "b": 0.0})) == {"a"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models that differ."""
    folder = tmp_path_factory.mktemp("models")
    odd_model(folder / "one")
    other = odd_model(folder / "two")
    other.metadata["created"] = "another"
    other.save(folder / "two")
    return folder


@pytest.fixture
def both(models):
    return [f"a={models / 'one'}", f"b={models / 'two'}"]


def counts_of(client):
    return {entry["name"]: entry for entry in client.get("/variants")[1]["variants"]}


def test_a_user_gets_the_same_variant_through_every_door_and_after_a_restart(both, models, tmp_path):
    found = {}
    for variant in (both, both[::-1]):
        with serving(None, tmp_path / "events.db", variant=variant) as (client, _):
            for user in USERS:
                answer = client.post("/recommend", {"user": user})[1]
                name = found.setdefault(user, answer["variant"])
                assert answer["variant"] == name == client.post("/recommend", {"session": user})[1]["variant"]
                assert answer["model"] == str(models / {"a": "one", "b": "two"}[name])
                batch = client.post("/recommend/batch", {"requests": [{"user": user}, {"user": user, "variant": "b"}]})
                assert [a["variant"] for a in batch[1]["answers"]] == [name, "b"]
                assert client.post("/explain", {"user": user, "item": "plain"})[1]["variant"] == name
    assert set(found.values()) == {"a", "b"}


def test_who_is_unknown_gets_the_first_and_a_name_that_is_unknown_is_said(both, tmp_path):
    with serving(None, tmp_path / "events.db", variant=both) as (client, _):
        assert client.post("/recommend", {"likes": ["plain"]})[1]["variant"] == "a"
        assert client.get("/similar?item=plain&variant=b")[1]["variant"] == "b"
        for method, path in (("POST", "/recommend"), ("GET", "/items"), ("GET", "/similar")):
            asked = (
                client.get(f"{path}?item=plain&variant=c") if method == "GET" else client.post(path, {"variant": "c"})
            )
            status, answer = asked
            assert status == 404 and answer["error"] == "variant c is not known; there are a, b"
        assert {name: found["lists"] for name, found in counts_of(client).items()} == {"a": 0, "b": 0}


def test_without_variants_answers_are_what_they_were(models, tmp_path):
    with serving(models / "one", tmp_path / "events.db") as (client, service):
        answer = client.post("/recommend", {"user": USERS[0], "session": "s"})[1]
        assert set(answer) == {"user", "items", "short", "from", "model"}
        assert all(set(entry) == {"item", "title", "score", "rank"} for entry in answer["items"])
        assert client.post("/recommend", {"variant": "a"})[0] == 400
        assert client.get("/variants")[0] == 404 and service.variants is None
        assert b"variant" not in client.raw("GET", "/metrics")[1]
    tables = sqlite3.connect(tmp_path / "events.db").execute("SELECT name FROM sqlite_master").fetchall()
    assert not [name for (name,) in tables if name.startswith("ab_")]


def test_a_variant_without_a_model_does_not_start(both, tmp_path):
    with (
        pytest.raises(BundleError, match="variant c: .*none.* is no model folder"),
        serving(None, tmp_path / "events.db", variant=[*both, f"c={tmp_path / 'none'}"]),
    ):
        pass
    done = recsys_here("serve", "--variant", f"a={tmp_path / 'none'}", "--port", "0", cwd=tmp_path, code=5)
    assert done.stderr.count("\n") == 1 and "variant a" in done.stderr and not (tmp_path / "events.db").exists()


def test_one_variant_is_swapped_under_load_and_users_keep_theirs(models, tmp_path):
    current = tmp_path / "current"
    current.symlink_to(models / "one")
    variants = [f"a={models / 'one'}", f"b={current}"]
    with serving(None, tmp_path / "events.db", variant=variants, reload_interval=0.02) as (client, service):
        answers, done = collections.defaultdict(set), threading.Event()

        def load():
            while not done.is_set():
                for user in USERS:
                    status, answer = client.post("/recommend", {"user": user, "k": 3})
                    answers[user].add((status, answer.get("variant")))

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        first, second = (slot.served for slot in service.slots)
        (tmp_path / "next").symlink_to(models / "two")
        (tmp_path / "next").rename(current)
        until(lambda: service.slots[1].served.version != second.version)
        done.set()
        for thread in threads:
            thread.join()
        assert service.slots[0].served is first and len(answers) == len(USERS)
        assert all(len(found) == 1 and next(iter(found))[0] == 200 for found in answers.values())
        ready = client.get("/ready")[1]["variants"]
        assert [entry["variant"] for entry in ready] == ["a", "b"] and ready[0]["version"] != ready[1]["version"]


def test_events_and_values_reach_all_variants(both, tmp_path):
    with serving(None, tmp_path / "events.db", variant=both) as (client, _):
        fields = {"items": [{"item": "plain", "set": {"stock": 1}}]}
        body = json.dumps(fields).encode()
        client.raw("PATCH", "/items", body, **{"content-type": "application/json"})
        for name in "ab":
            answer = client.post("/recommend", {"where": "stock > 0", "variant": name})[1]
            assert [entry["item"] for entry in answer["items"]] == ["plain"]
        client.post("/events", {"events": [{"user": "new", "item": "plain"}]})
        for name in "ab":
            items = client.post("/recommend", {"user": "new", "variant": name, "k": 50})[1]["items"]
            assert len(items) == len(ODD) - 1


# What is counted


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
    outcomes._next_cleaning = 0.0
    outcomes.flush()
    assert outcomes.counts()["a"].lists == 8
    assert store.connection.execute("SELECT count(*) FROM ab_lists").fetchone()[0] == 5
    store.connection.execute("UPDATE ab_users SET last = 0 WHERE user = 'u19'")
    outcomes._next_cleaning = 0.0
    outcomes.flush()
    assert store.connection.execute("SELECT count(*) FROM ab_users").fetchone()[0] == 7
    assert outcomes.counts()["a"].users == 8, "the sums stay"
    outcomes.close()


def test_a_file_of_an_earlier_version_gains_the_tables_and_one_without_a_test_says_so(store, tmp_path):
    send(store, ("u", "x"))
    done = recsys_here("variants", "--events", str(store.path), cwd=tmp_path, code=4)
    assert "there is no A/B test in this file" in done.stderr
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


# New items


@pytest.fixture(scope="module")
def young():
    """A model of items 0 to 59, of which those from 40 on have one rating, and those from 50 on none."""
    random = np.random.default_rng(1)
    pairs = [(u, i) for u in range(30) for i in range(40) if random.random() < 0.4] + [(u, 40 + u) for u in range(10)]
    frame = pl.DataFrame({"user": [u for u, _ in pairs], "item": [i for _, i in pairs]})
    items = pl.DataFrame({"item_id": range(60), "year": [2000 + n % 3 for n in range(60)]})
    ratings = Ratings.from_frame(frame).with_items(items["item_id"])
    return Recommender(*small("softmax", epochs=5)).fit(ratings, items)


def explored(model, key, share=0.3, max_ratings=1, **fields):
    request = RecommendRequest(exploration=Exploration(share, max_ratings, key), **fields)
    return recommend(model.state, request)


@pytest.mark.parametrize("who", [{"user": 3}, {"likes": [1, 2]}, {}])
def test_new_items_get_their_share_of_the_places_and_the_others_keep_their_order(young, who):
    plain = recommend(young.state, RecommendRequest(**who)).rows.tolist()
    places, found, lists = collections.Counter(), collections.Counter(), 600
    for n in range(lists):
        answer = explored(young, f"{n}", share=0.05, **who)
        rows, new = answer.rows.tolist(), [answer.rows[place] for place in answer.explored]
        assert [row for n, row in enumerate(rows) if n not in answer.explored] == plain[: 10 - len(new)]
        assert len(set(rows)) == 10 and all(young.item_counts[row] <= 1 for row in new)
        places.update(answer.explored)
        found.update(int(row) for row in new)
    assert sum(places.values()) / (10 * lists) == pytest.approx(0.05, abs=0.008)
    assert set(places) == set(range(1, 10)), "never the first"
    assert sum(found[row] for row in range(50, 60)) > 0.3 * found.total(), "items without a rating too"
    assert len(found) >= 15


def test_the_same_key_makes_the_same_list_and_another_one_another(young):
    one, again = (explored(young, "u 2026-12-02", user=3) for _ in range(2))
    assert one.entries() == again.entries() and one.explored
    assert any(explored(young, f"{n}", user=3).entries() != one.entries() for n in range(5))
    entries = one.entries()
    assert [n for n, entry in enumerate(entries) if entry.get("from") == "exploration"] == list(one.explored)
    assert [entry["rank"] for entry in entries] == list(range(1, 11))


def test_no_rule_is_broken_for_a_new_item(young):
    seen = set(young.seen[3].tolist())
    for n in range(100):
        answer = explored(young, f"{n}", 0.5, user=3, rules=Rules(where="year == 2001"), exclude=[40, 49, 55])
        assert all(row % 3 == 1 for row in answer.rows.tolist())
        assert not {40, 49, 55, *seen} & set(young.items.ids(answer.rows).to_list())
        answer = explored(young, f"{n}", 0.5, user=3, rules=Rules(per_group="year: 2"), k=6)
        assert max(collections.Counter(2000 + row % 3 for row in answer.rows.tolist()).values()) <= 2
        few = explored(young, f"{n}", 0.5, user=3, candidates=[0, 1, 2, 50], include_seen=True)
        assert sorted(few.rows.tolist()) == [0, 1, 2, 50] and not few.explored
        assert not explored(young, f"{n}", 0.5, 0, user=3, exclude=range(50, 60)).explored, "no new items: the list"


def test_a_boost_counts_for_new_items_too(young):
    rules = Rules(boost="year == 2000: 100")
    for n in range(20):
        answer = explored(young, f"{n}", 0.5, user=3, rules=rules)
        assert all(
            (score > 50) == (row % 3 == 0) for row, score in zip(answer.rows.tolist(), answer.scores, strict=True)
        )


def test_a_service_explores_the_same_all_day_and_not_by_default(young, tmp_path):
    young.save(tmp_path / "m")
    with serving(tmp_path / "m", tmp_path / "e.db", explore_new="20%", new_item_ratings=1) as (client, _):
        lists = [client.post("/recommend", {"user": user})[1] for user in range(20)]
        assert lists == [client.post("/recommend", {"user": user})[1] for user in range(20)]
        new = [entry["item"] for answer in lists for entry in answer["items"] if entry.get("from") == "exploration"]
        assert len(new) == 2 * 20 and min(new) >= 40 and len(set(new)) > 8
        by_session = [client.post("/recommend", {"session": f"s{n}"})[1]["items"] for n in range(5)]
        assert len({json.dumps(items) for items in by_session}) > 1, "an anonymous visitor each"
    with serving(tmp_path / "m", tmp_path / "e.db") as (client, _):
        assert all("from" not in entry for entry in client.post("/recommend", {"user": 3})[1]["items"])
