"""What is counted of variants where something goes wrong, comes late, or is not for a user's eyes."""

import sqlite3
import threading
import time
from types import SimpleNamespace

import pytest
from services import counts_of, serving
from worlds import recsys_here

from recsys_embed.config.variants import parse_variants
from recsys_embed.data.event_types import EventType, EventTypes, saved
from recsys_embed.errors import DataError
from recsys_embed.recommender import Recommender
from recsys_embed.serving import outcome_cleaning, outcome_store
from recsys_embed.serving.event_store import Event, EventStore
from recsys_embed.serving.outcome_cleaning import cleaning
from recsys_embed.serving.outcome_store import Outcomes, delete_outcomes
from recsys_embed.serving.outcome_tables import Successes, successes_for
from recsys_embed.serving.served_model import ServedModel

TWO = parse_variants(["a=x", "b=y"])


@pytest.fixture(autouse=True)
def thread_waits(monkeypatch):
    """The thread of outcomes writes when it has to, and never by itself."""
    monkeypatch.setattr(outcome_store, "_PAUSE_S", 3600)


@pytest.fixture
def store(tmp_path):
    store = EventStore(tmp_path / "events.db")
    yield store
    store.close()


@pytest.fixture
def start(store):
    """Starts outcomes of a test in the store, which end with the test."""
    begun = []

    def start(name="t", successes=Successes(), fixed=False, lag=0.0):  # noqa: B008
        begun.append(Outcomes(store, name, TWO, successes, fixed, lag))
        return begun[-1]

    yield start
    for outcomes in begun:
        outcomes.close()


def send(store, *events):
    store.append([Event(*event) for event in events]).result()


def rows_of(store, table):
    return store.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


# What comes while something else is done


def test_an_event_after_a_list_that_is_given_during_a_write_is_not_lost(store, start, monkeypatch):
    outcomes, real = start(), outcome_store._store_lists

    def store_lists(*given):
        real(*given)
        monkeypatch.setattr(outcome_store, "_store_lists", real)
        outcomes.count("late", "a", ["x"])
        send(store, ("late", "x"))

    monkeypatch.setattr(outcome_store, "_store_lists", store_lists)
    outcomes.flush()
    assert outcomes.counts()["a"] == (1, 1, 1, 1, 1)


def test_what_waits_is_bounded_while_nothing_can_be_stored(start, monkeypatch):
    monkeypatch.setattr(outcome_store, "_MAX_WAITING", 4)
    outcomes = start()

    def fail(*_):
        outcomes.count_all(("v", "a", [f"{n}"]) for n in range(3))
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(outcome_store, "_store_lists", fail)
        outcomes.count_all(("u", "a", [f"{n}"]) for n in range(3))
        with pytest.raises(DataError, match="disk I/O"):
            outcomes.counts()
    assert [(given.user, given.items) for given in outcomes._waiting] == [
        ("u", ["2"]), ("v", ["0"]), ("v", ["1"]), ("v", ["2"]),
    ]  # fmt: skip
    assert outcomes.counts()["a"].lists == 4


def test_transactions_are_short_and_count_all(store, start, monkeypatch):
    monkeypatch.setattr(outcome_store, "_STEP", 3)
    outcomes, transactions = start(), []
    outcomes.count_all((f"u{n}", "a", ["x"]) for n in range(10))
    store.connection.set_trace_callback(lambda text: transactions.append(text == "COMMIT"))
    outcomes.flush()
    send(store, *((f"u{n}", "x") for n in range(10)))
    assert outcomes.counts()["a"] == (10, 10, 10, 10, 10)
    assert sum(transactions) == 4 + 4


def test_old_lists_of_all_tests_and_users_are_deleted_in_small_steps(store, start, monkeypatch):
    monkeypatch.setattr(outcome_cleaning, "_STEP_ROWS", 3)
    for name in ("old", "new"):
        outcomes = start(name)
        outcomes.count_all((f"u{n}", "a", ["x"]) for n in range(5))
        outcomes.flush()
    store.connection.execute("UPDATE ab_lists SET time = time - 1000 WHERE number <= 8")
    store.connection.execute("UPDATE ab_users SET last = 0 WHERE user IN ('u0', 'u4')")
    assert len(list(cleaning(store.connection, 500, 100))) == 3 + 4
    assert [rows_of(store, table) for table in ("ab_lists", "ab_users")] == [2, 6]
    list(cleaning(store.connection, 5000, 1))
    assert rows_of(store, "ab_lists") == 1


def test_who_looks_waits_in_no_pool_for_a_locked_file(start, store):
    outcomes = start()
    with outcomes._writing:
        waiting = [outcomes.flush_soon() for _ in range(3)]
        assert not any(future.done() for future in waiting) and outcomes.counts(flush=False)["a"].lists == 0
    outcomes.count("u", "a", ["x"])
    assert [future.result(30) for future in waiting] == [None] * 3
    assert outcomes.flush_soon().result(30) is None and outcomes.counts(flush=False)["a"].lists == 1


# What counts


def test_the_order_of_targets_plays_no_part(start):
    start(successes=Successes(("view", "purchase")), fixed=True)
    start(successes=Successes(("purchase", "view")), fixed=True)


def test_the_ratings_that_count_are_those_of_the_model():
    types = EventTypes({t.name: t for t in (EventType("view", 1, False, False), EventType("purchase", 10))})
    state = SimpleNamespace(event_types=types, positive_threshold=4.0)
    for target in (None, "purchase"):
        found = successes_for(target, state)
        assert found.include("purchase", 4.0) and not found.include("purchase", 3.5) and not found.include("view", None)


def test_a_service_counts_its_targets_and_waits_if_it_has_several_processes(both, tmp_path, monkeypatch):
    monkeypatch.setattr(outcome_store, "LAG_S", 1e6)
    for workers, n in ((1, 1), (2, 0)):
        settings = {"variant": both, "target": "purchase", "workers": workers}
        with serving(None, tmp_path / f"{workers}.db", **settings) as (client, _):
            name = client.post("/recommend", {"session": "s"})[1]["variant"]
            events = [{"user": "s", "item": "plain", "event": event} for event in ("view", "purchase")]
            client.post("/events", {"events": events})
            assert counts_of(client)[name]["events"] == n


def test_a_model_with_types_names_the_targets_unless_the_service_does(models, tmp_path):
    recommender = Recommender.load(models / "one")
    types = (EventType("view", 1, False, False), EventType("purchase", 10))
    recommender.metadata["events"] = saved(types)
    folder = recommender.save(tmp_path / "typed")
    for target, n in ((None, 2), ("view", 1)):
        settings = {"variant": [f"a={folder}", f"b={folder}"], "target": target}
        with serving(None, tmp_path / f"{target}.db", **settings) as (client, _):
            name = client.post("/recommend", {"session": "s"})[1]["variant"]
            events = [{"user": "s", "item": "plain", "event": event} for event in ("view", "purchase")]
            client.post("/events", {"events": [*events, {"user": "s", "item": "plain"}]})
            assert counts_of(client)[name]["events"] == n


def test_a_list_from_after_the_event_makes_no_hit_and_the_last_lists_do(store, start):
    outcomes, now = start(), time.time()
    outcomes.count("u", "a", ["x"])
    outcomes.flush()
    store.connection.execute("UPDATE ab_users SET first = first - 5000")
    send(store, ("u", "x", None, int(now) - 1000))
    assert outcomes.counts()["a"] == (1, 1, 1, 1, 0)
    for n in range(outcome_store.HIT_LISTS):
        outcomes.count("u", "a", [f"i{n}"])
    outcomes.flush()
    send(store, ("u", "x"))
    assert outcomes.counts()["a"].hits == 0, "the first of 21"
    send(store, ("u", "i19"))
    assert outcomes.counts()["a"].hits == 1


def test_a_test_that_is_over_counts_no_more_until_it_is_served_again(store, start, tmp_path):
    for name in ("old", "new"):
        outcomes = start(name)
        outcomes.count("u", "a", ["x"])
        outcomes.flush()
    send(store, ("u", "x"))
    store.connection.execute("UPDATE events SET received = received - 10")
    store.connection.execute("UPDATE ab_users SET first = first - 20")
    said = [recsys_here("variants", *option, cwd=tmp_path).stdout for option in ((), ("--ab-test", "old"))]
    assert "A/B test new" in said[0] and "100.00 %" in said[0] and "100.00 %" not in said[1].split("0.00 to")[0]
    assert outcomes.counts()["a"].events == 1
    again = start("old")
    send(store, ("u", "x"))
    assert again.counts()["a"].events == 1, "the new one's do not count, those from now on do"
    assert outcomes.counts()["a"].events == 1
    assert "A/B test old" in recsys_here("variants", cwd=tmp_path).stdout


def test_only_lists_that_are_seen_count(both, tmp_path, monkeypatch):
    real, slow = ServedModel.recommend, threading.Event()

    def recommend(self, request):
        if request.user == "slow":
            slow.wait(30)
        return real(self, request)

    monkeypatch.setattr(ServedModel, "recommend", recommend)
    with serving(None, tmp_path / "events.db", variant=both, timeout=0.3) as (client, service):
        fails = {"requests": [{"user": "user 1/é"}, {"user": "nobody"}]}
        assert client.post("/recommend/batch", fails)[0] == 404
        body = {"user": "slow", "on_unknown": "skip", "where": "year > 1900"}
        assert client.post("/recommend", body)[0] == client.post("/recommend/batch", {"requests": [body]})[0] == 503
        slow.set()
        assert client.raw("HEAD", "/recommend?session=s")[0] == 200
        assert client.post("/recommend", {"session": "s", "count": False})[0] == 200
        assert client.get("/recommend?session=s&count=false")[0] == 200
        service._threads.submit(lambda: None).result()
        service._threads.shutdown()
        assert sum(found["lists"] for found in counts_of(client).values()) == 0
    with serving(None, tmp_path / "events.db", variant=both) as (client, _):
        client.post("/recommend", {"session": "s"})
        client.get("/recommend?session=s")
        client.post("/recommend/batch", {"requests": [{"session": "s"}] * 2})
        assert sum(found["lists"] for found in counts_of(client).values()) == 4


def test_a_slow_model_among_the_variants_holds_up_nobody(both, tmp_path, monkeypatch):
    with serving(None, tmp_path / "events.db", variant=both) as (client, service):
        names, real = [], ServedModel.recommend

        def recommend(self, request):
            names.append(threading.current_thread().name)
            return real(self, request)

        monkeypatch.setattr(ServedModel, "recommend", recommend)
        client.post("/recommend", {"session": "s"})
        slow = SimpleNamespace(model=SimpleNamespace(scoring_cost=1e12))
        fitted = service.slots[1].served.fitted
        service.slots[1].served.fitted = slow
        client.post("/recommend", {"session": "s"})
        service.slots[1].served.fitted = fitted
        assert [name.startswith("answers") for name in names] == [False, True]


# Files


def test_metrics_do_without_the_variants_of_a_file_that_is_gone(both, tmp_path, caplog):
    with serving(None, tmp_path / "events.db", variant=both) as (client, _):
        (tmp_path / "events.db").rename(tmp_path / "gone.db")
        for _ in range(2):
            status, text, _ = client.raw("GET", "/metrics")
            assert status == 200 and b"recsys_request_seconds" in text and b"variant" not in text
        assert caplog.text.count("leaves the variants out") == 1
        (tmp_path / "gone.db").rename(tmp_path / "events.db")
        assert b"recsys_variant_lists" in client.raw("GET", "/metrics")[1]


def test_sums_that_cannot_be_read_are_an_error_in_a_sentence(start, store):
    outcomes = start()
    store.connection.execute("ALTER TABLE ab_counts RENAME TO others")
    with pytest.raises(DataError, match="cannot be read"):
        outcomes.counts(flush=False)
    store.connection.execute("ALTER TABLE others RENAME TO ab_counts")


@pytest.mark.parametrize("statement", ["CREATE TABLE orders (x)", "PRAGMA user_version = 1"])
def test_a_look_changes_no_file_of_others(tmp_path, statement):
    path = tmp_path / "shop #1.db"
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.close()
    before = path.read_bytes()
    said = recsys_here("variants", "--events", path.name, cwd=tmp_path, code=4).stderr
    assert path.name in said and "recsys serve --variant" in said
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


# Users who are deleted


def test_what_a_deleted_user_did_stays_in_the_sums(both, tmp_path):
    with serving(None, tmp_path / "events.db", variant=both) as (client, service):
        name = client.post("/recommend", {"session": "s"})[1]["variant"]
        client.post("/events", {"events": [{"user": "s", "item": "plain"}]})
        assert client.raw("DELETE", "/events?user=s")[0] == 200
        for _ in range(2):
            found = counts_of(client)[name]
            assert [found[field] for field in ("users", "lists", "converted", "events")] == [1, 1, 1, 1]
        for table in ("events", "ab_lists", "ab_users"):
            assert rows_of(service.events, table) == 0
        assert client.post("/recommend", {"session": "s"})[1]["variant"] == name
        assert counts_of(client)[name]["users"] == 2, "whoever returns is new"


@pytest.mark.parametrize("lag", [0.0, 1e6])
def test_no_list_of_a_deleted_user_is_stored_by_any_process(store, start, lag):
    one, two = start(lag=lag), start(lag=lag)
    one.count("u", "a", ["x"])
    one.flush()
    send(store, ("u", "x"), ("v", "x"))
    two.count("u", "a", ["x"])
    two.count("v", "a", ["x"])
    assert store.delete_of("u", delete_outcomes) == 1
    assert two.counts()["a"] == (2, 2, 1, 1, 1), "the event counts, if late, and only once"
    assert store.connection.execute("SELECT user FROM ab_lists").fetchall() == [("v",)]
    assert b"'u'" not in repr(store.connection.execute("SELECT * FROM ab_deletions").fetchall()).encode()
    two.count("u", "a", ["x"])
    assert two.counts()["a"].users == 3


def test_a_deletion_reaches_files_of_services_without_variants(store, start):
    start().count("u", "a", ["x"])
    start().flush()
    assert store.delete_of("u", delete_outcomes) == 0
    other = EventStore(store.path.with_name("plain.db"))
    send(other, ("u", "x"))
    assert other.delete_of("u", delete_outcomes) == 1
    other.close()


def test_the_thread_goes_on_after_an_error(start, monkeypatch):
    outcomes = start()
    with monkeypatch.context() as patched:
        patched.setattr(outcome_store, "follow_events", lambda *_: 1 / 0)
        with pytest.raises(DataError, match="division"):
            outcomes.flush_soon().result(30)
    outcomes.count("u", "a", ["x"])
    assert outcomes.flush_soon().result(30) is None and outcomes.counts(flush=False)["a"].lists == 1
