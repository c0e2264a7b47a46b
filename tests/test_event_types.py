"""Types of events after the training: in updates, in the service, and in the next training."""

import contextlib
import json
import sqlite3
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from services import serving
from worlds import event_log, recsys_here, small

from recsys_embed.answering.request import RecommendRequest
from recsys_embed.config.settings import DataConfig
from recsys_embed.data.event_types import EventType, EventTypes, saved
from recsys_embed.errors import DataError, SettingError
from recsys_embed.recommender import Recommender
from recsys_embed.serving.event_store import Event, EventStore
from recsys_embed.serving.trend_of_events import TrendOfEvents
from recsys_embed.sources.load import load_dataset
from recsys_embed.sources.serving_events import read_events

CONFIG = DataConfig(event_col="event", event_weights="view=1,cart=3,purchase=10", target="purchase")


def shop(seed=0, users=60, items=24):
    """Users view items and buy some of a third of them."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        for item in random.permutation(items)[:9].tolist():
            rows.append((user, item, "view", 1_600_000_000 + 1000 * len(rows)))
            if item % 3 == user % 3:
                rows.append((user, item, "purchase", 1_600_000_000 + 1000 * len(rows)))
        rows.append((user, user % items, "cart", 1_600_000_000 + 1000 * len(rows)))
    return pl.DataFrame(rows, schema=["user", "item", "event", "time"], orient="row")


@pytest.fixture(scope="module", params=["both", "embeddings"])
def model(request):
    log = event_log(shop(), CONFIG)
    configs = small("softmax", epochs=15, dim=6, batch_users=16, model_family=request.param, half_life=30.0)
    recommender = Recommender(*configs).fit(log.ratings())
    recommender.metadata["events"] = saved(log.types)
    return recommender


def copy_of(model):
    return Recommender.of(model.state.replace())


def events(*rows):
    return pl.DataFrame(rows, schema=["user", "item", "event", "time"], orient="row")


NOW = 1_700_000_000


def unseen_by(model, user, n):
    """Items that a user did nothing with, the worst of the list first."""
    listed = model.recommend(user, 99)["item_id"].to_list()
    seen = set(model.items.ids(model.seen[int(model.users.rows([user])[0])]).to_list())
    return [item for item in reversed(listed) if item not in seen][:n]


def flat(vector):
    return np.concatenate([np.ravel(part) for part in vector]) if isinstance(vector, tuple) else vector


def vector(model, user):
    return flat(model.model.user(int(model.users.rows([user])[0]))[0])


def test_what_events_say_together():
    types = EventTypes({t.name: t for t in (
        EventType("view", 1, False, False), EventType("purchase", 10), EventType("dislike", 0, False, True),
        EventType("return", 0, False, False),
    )}, 2.0)  # fmt: skip
    for names, wanted in (
        (["view"], (0.5, False)), (["view", "purchase"], (5, True)), (["purchase", "view"], (5, True)),
        ([None], (1, True)), (["unheard of"], (0, False)), (["unheard of", None], (1, True)),
        (["purchase", "dislike"], (0, True)), (["dislike", "view"], (0.5, True)), (["purchase", "return"], (5, True)),
    ):  # fmt: skip
        assert types.interaction(names)[:2] == wanted, names
    none = EventTypes()
    assert none.interaction(["anything"])[:2] == (1, True) and none.interaction(["Thumbs down"])[:2] == (0, True)
    assert none.interaction(["return"])[:2] == (0, False)


def test_a_dislike_takes_back_what_was_done_before():
    table = events(("a", 1, "purchase", 1), ("a", 1, "dislike", 2), ("a", 2, "dislike", 1), ("a", 2, "view", 2),
                   ("b", 1, "purchase", 5))  # fmt: skip
    for frame in (table, table.reverse()):
        ratings = event_log(frame, replace(CONFIG, event_weights="view=1,purchase=10")).ratings()
        rows = zip(ratings.users.ids(ratings.user), ratings.items.ids(ratings.item), strict=True)
        found = {pair: (float(w), bool(h)) for pair, w, h in zip(rows, ratings.weight, ratings.hidden, strict=True)}
        assert found == {("a", 1): (0, True), ("a", 2): (1, True), ("b", 1): (10, True)}


def test_an_update_goes_by_types(model, caplog):
    first, other, third = unseen_by(model, 5, 3)
    updated = copy_of(model).update(
        events((5, first, "view", NOW), (5, other, "purchase", NOW), (99, first, "view", NOW))
    )
    listed = updated.recommend(5, 99)["item_id"].to_list()
    assert first in listed and other not in listed, "what is only viewed may return"
    assert first in updated.recommend(99, 99)["item_id"].to_list()
    assert not np.array_equal(vector(updated, 5), vector(model, 5))
    again = Recommender.of(updated.state.replace()).update(events((5, first, "view", NOW), (5, other, "purchase", NOW)))
    np.testing.assert_array_equal(vector(again, 5), vector(updated, 5))
    np.testing.assert_array_equal(again.state.trend.recent, updated.state.trend.recent)
    np.testing.assert_array_equal(again.item_counts, updated.item_counts)
    with caplog.at_level("WARNING"):
        nothing = copy_of(model).update(events((5, third, "scroll", NOW), (5, other, "view", NOW)))
    assert "1 events 'scroll' do not count" in caplog.text
    assert third in nothing.recommend(5, 99)["item_id"].to_list()
    assert nothing.item_counts.sum() == model.item_counts.sum() + 1
    bought = copy_of(model).update(pl.DataFrame({"user": [5], "item": [first]}))
    assert first not in bought.recommend(5, 99)["item_id"].to_list(), "without a type it is a like"


@pytest.mark.parametrize("model", ["both"], indirect=True)  # embeddings know no amounts of known items
def test_a_purchase_of_what_was_viewed_counts_for_more(model):
    item = unseen_by(model, 5, 1)[0]
    viewed = copy_of(model).update(events((5, item, "view", NOW)))
    bought = Recommender.of(viewed.state.replace()).update(events((5, item, "purchase", NOW)))
    at_once = copy_of(model).update(events((5, item, "purchase", NOW)))
    row = int(model.items.rows([item])[0])

    def amount(recommender):
        user, _ = recommender.model.user(int(recommender.users.rows([5])[0]))
        return float(user.amounts[user.items == row][0])

    mean = model.metadata["mean_weight"]
    assert amount(viewed) == pytest.approx(1 / mean) and amount(bought) == amount(at_once) == pytest.approx(10 / mean)


def test_a_service_goes_by_types(model, tmp_path):
    folder = model.save(tmp_path / "m")
    first, other, third = unseen_by(model, 5, 3)
    with serving(folder, tmp_path / "events.db") as (client, service):

        def listed(user=5):
            items = client.post("/recommend", {"user": user, "k": 99})[1]["items"]
            return {entry["item"]: entry["score"] for entry in items}

        def send(*rows):
            return client.post("/events", {"events": [{"user": u, "item": i, "event": e} for u, i, e in rows]})[1]

        before = listed()
        assert send((5, first, "view"), (5, other, "purchase"), (7, first, "scroll"))["unknown_types"] == 1
        now = listed()
        assert first in now and other not in now and now[third] != before[third]
        updated = copy_of(model).update(events((5, first, "view", NOW), (5, other, "purchase", NOW)))
        own = vector(updated, 5)
        profile, rows = service.model.profile(RecommendRequest(user=5)), model.items.rows([first, other])
        assert np.isin(rows, profile.history).all() and np.isin(rows, profile.hidden).tolist() == [False, True]
        np.testing.assert_allclose(flat(profile.vector), own, atol=1e-5)
        recent = service.model.state.trend.recent
        send((7, third, "scroll"), (8, third, "dislike"))
        np.testing.assert_array_equal(service.model.state.trend.recent.argsort(), recent.argsort())
        send((5, other, "dislike"))
        assert other not in listed()
        kept = client.get("/events?user=5")[1]["events"]
        assert {entry["item"]: entry["types"] for entry in kept} == {
            str(first): ["view"], str(other): ["purchase", "dislike"],
        }  # fmt: skip
        assert client.post("/recommend", {"user": "new", "k": 99})[0] == 404
        send(("new", first, "view"))
        assert first in listed("new"), "a new user who only viewed it"


def test_events_that_say_no_are_not_in_the_trend_of_a_model_without_types(model, tmp_path):
    state = model.state.replace(metadata={k: v for k, v in model.metadata.items() if k != "events"})
    store = EventStore(tmp_path / "events.db")
    store.append([Event("a", "3", event="dislike"), Event("b", "3", event="watched")]).result()
    recent = TrendOfEvents(state, store, 0.0).state().trend.recent
    base = state.trend.recent * (recent[4] / state.trend.recent[4])
    assert recent[3] - base[3] == pytest.approx(1, rel=1e-3)
    store.close()


def test_a_file_of_events_of_an_earlier_version_goes_on(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as old:
        old.execute(
            "CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, user TEXT NOT NULL, "
            "item TEXT NOT NULL, rating REAL, timestamp INTEGER, received REAL NOT NULL) STRICT"
        )
        old.execute("INSERT INTO events (id, user, item, rating, received) VALUES ('a', 'u', 'i', 4, 1000.5)")
    assert read_events(tmp_path / "events.db").rows() == [("u", "i", 4.0, 1000)]
    for _ in range(2):
        store = EventStore(tmp_path / "events.db")
        assert store.by_item("u")[-1] == ("i", 4.0, 1000.5, (None,))
        store.append([Event("u", "k", event="view", timestamp=7, id="b")]).result()
        store.close()
    assert read_events(tmp_path / "events.db").rows() == [("u", "k", 4.0, 7, "view"), ("u", "i", 4.0, 1000, None)]


def test_the_next_training_reads_the_events_of_a_service(tmp_path):
    first = shop().rename({"user": "customer", "item": "sku", "time": "when"})
    iso = first.with_columns(pl.from_epoch("when").dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    iso.write_csv(tmp_path / "log.csv")
    store = EventStore(tmp_path / "events.db")
    store.append(
        [Event("5", "3", event="view", timestamp=NOW), Event("77", "4", event="purchase", timestamp=NOW),
         Event("78", "5", timestamp=NOW), Event("79", "6", event="scroll", timestamp=NOW)]
    ).result()  # fmt: skip
    store.close()
    names = {"user_col": "customer", "item_col": "sku", "time_col": "when"}
    given = {**names, "event_col": "event", "event_weights": CONFIG.event_weights, "target": "purchase"}
    path = str(tmp_path / "log.csv")
    plain = load_dataset(path, DataConfig(dataset=path, **given)).log
    log = load_dataset(path, DataConfig(dataset=path, extra_ratings=str(tmp_path / "events.db"), **given)).log
    names_of = {t.name: n for t, n in zip(log.types, log.counts.tolist(), strict=True)}
    before = {t.name: n for t, n in zip(plain.types, plain.counts.tolist(), strict=True)}
    assert names_of == {**before, "view": before["view"] + 1, "purchase": before["purchase"] + 2, "scroll": 1}
    assert log.time.max() == NOW and log.time.min() == plain.time.min() == shop()["time"].min()
    assert log.users.series.dtype == plain.users.series.dtype == pl.Int64 and 77 in log.users
    # A second file of the shop, with the columns of the first, and one with the usual ones.
    more = iso.tail(50).with_columns(customer=pl.lit(123), when=pl.lit("2024-01-01"))
    more.write_csv(tmp_path / "more.csv")
    usual = more.rename({"customer": "user_id", "sku": "item_id", "when": "timestamp"})
    usual.write_csv(tmp_path / "usual.csv")
    for name in ("more.csv", "usual.csv"):
        log = load_dataset(path, DataConfig(dataset=path, extra_ratings=str(tmp_path / name), **given)).log
        assert len(log) == len(plain) + 50 and 123 in log.users and log.time.max() == 1_704_067_200
    # Without types all events are likes, but those that say no.
    ratings = (
        iso.filter(pl.col("event") == "purchase").drop("event").with_columns(stars=pl.Series("stars", [3, 5]).first())
    )
    ratings.write_csv(tmp_path / "ratings.csv")
    store = EventStore(tmp_path / "events.db")
    store.append([Event("80", "3", event="dislike", timestamp=NOW)]).result()
    store.close()
    config = DataConfig(dataset="x", extra_ratings=str(tmp_path / "events.db"), rating_col="stars", **names)
    data = load_dataset(str(tmp_path / "ratings.csv"), config).ratings
    assert 79 in data.users and 80 not in data.users and data.time.max() == NOW


def test_a_log_is_trained_on_and_on(tmp_path):
    log = shop(users=90)
    log.write_csv(tmp_path / "log.csv")
    log.head(len(log) // 2).write_csv(tmp_path / "first.csv")
    options = ["--event-weights", "view=1,purchase=10", "--target", "purchase", "--split", "time", "--dim", "4"]
    options += ["--no-track", "--epochs", "3", "--no-baselines", "--json"]
    recsys_here("train", "--dataset", "first.csv", "--out", "one", *options, cwd=tmp_path)
    known = json.loads((tmp_path / "one" / "model.json").read_text())
    assert known["events"]["purchase"] == {"weight": 10.0, "is_target": True, "hides": True}
    options.remove("--dim"), options.remove("4")
    recsys_here("train", "--dataset", "log.csv", "--warm-start", "one", "--out", "two", *options, cwd=tmp_path)
    model = Recommender.load(tmp_path / "two")
    assert model.metadata["continued"]["new_users"] > 20 and model.metadata["metrics"]["test"]["users"] > 3
    assert model.state.event_types.types["view"].weight == 1


def test_what_was_added_to_the_training_is_not_added_to_a_test(tmp_path):
    ratings = shop().filter(pl.col("event") == "view").drop("event").unique(["user", "item"], maintain_order=True)
    ratings[:-60].write_csv(tmp_path / "first.csv")
    ratings[-60:-40].write_csv(tmp_path / "more.csv")
    ratings[-40:].write_csv(tmp_path / "held.csv")
    options = ["--extra-ratings", "more.csv", "--no-track", "--epochs", "2", "--dim", "4", "--no-baselines", "--json"]
    recsys_here("train", "--dataset", "first.csv", "--out", "m", *options, cwd=tmp_path)
    measured = recsys_here("evaluate", "--model", "m", "--test", "held.csv", "--json", cwd=tmp_path).stdout
    metrics = json.loads(measured)["metrics"]
    assert metrics["rows"] + metrics["left_out"] == 40


def test_each_type_of_the_test_is_measured(tmp_path):
    shop(users=90).write_csv(tmp_path / "log.csv")
    options = ["--event-weights", "view=1,purchase=10", "--target", "purchase", "--split", "time", "--dim", "4"]
    done = recsys_here("train", "--dataset", "log.csv", "--no-track", "--epochs", "3", *options, cwd=tmp_path)
    assert "users with 'view' events in the test: ndcg_at_10" in done.stdout and "'cart'" not in done.stdout
    config = DataConfig(event_col="event", event_weights="view=1,purchase=10", target="purchase", split="time")
    log = event_log(shop(users=90), config)
    parts, (_, valid, test) = log.tested_by_type(config), log.split(config)[0]
    cut = test.time.min()
    assert list(parts) == ["view", "purchase"] and len(parts["view"]) > len(parts["purchase"]) >= len(test)
    for part in parts.values():
        assert (
            part.time.min() >= cut - 10_000
            and not log.take(log.time < valid.time.min()).ratings().excluded().contains(part.user, part.item).any()
        )
    folder = next((tmp_path / "models").iterdir())
    events = json.loads((folder / "model.json").read_text())["metrics"]["events"]
    assert events["purchase"]["users"] >= 3 and set(events["view"]["ndcg_at_10"]) >= {
        "this model",
        "popularity",
        "ease",
    }
    assert log.tested_by_type(replace(config, split="random")) == {}


@pytest.mark.parametrize("written", ["seconds", "milliseconds", "text"])
def test_what_is_too_old_is_left_out(written, tmp_path):
    log = shop()
    frame = {
        "seconds": log, "milliseconds": log.with_columns(pl.col("time") * 1000),
        "text": log.with_columns(pl.from_epoch("time").dt.strftime("%Y-%m-%d %H:%M:%S")),
    }[written]  # fmt: skip
    frame.write_csv(tmp_path / "log.csv")
    path, kept = str(tmp_path / "log.csv"), log.filter(pl.col("time") >= log["time"].max() - 3600 * 48)
    for given in ({"event_col": "event"}, {"duplicates": "first"}):
        data = load_dataset(path, DataConfig(dataset=path, max_age="48h", **given))
        assert (
            0 < kept.height < log.height
            and data.ratings.users.series.to_list() == kept["user"].unique().sort().to_list()
        )
        assert data.log is None or len(data.log) == kept.height
    with pytest.raises(SettingError, match="max-age must be a number with h, d or w"):
        DataConfig(max_age="soon")
    log.drop("time").write_csv(tmp_path / "log.csv")
    with pytest.raises(DataError, match="--max-age needs times"):
        load_dataset(path, DataConfig(dataset=path, max_age="2d"))
