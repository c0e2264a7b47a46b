"""A catalogue that moves while it is served: values of items count at once, everywhere, and none that was acknowledged
is lost."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from services import ODD, Client, serving, until
from worlds import small

from recsys_embed.config.settings import ContentConfig
from recsys_embed.data.ratings import Ratings
from recsys_embed.recommender import Recommender


def patch(client, *changes):
    """Set values of items, each (item, {column: value})."""
    body = json.dumps({"items": [{"item": item, "set": values} for item, values in changes]}).encode()
    status, answer, _ = client.raw("PATCH", "/items", body, **{"content-type": "application/json"})
    return status, json.loads(answer)


def shown(client, where, **more):
    status, answer = client.post("/recommend", {"where": where, "k": 50, **more})
    assert status == 200, answer
    return {entry["item"] for entry in answer["items"]}


def test_a_value_counts_from_the_next_answer_on_in_every_process_and_after_a_restart(model, tmp_path):
    _, folder = model
    with serving(folder, tmp_path / "events.db") as (client, _), serving(folder, tmp_path / "events.db") as (other, _):
        assert client.post("/recommend", {"where": "stock > 0"})[0] == 400, "there is no such column yet"
        stock = [(item, {"stock": n % 2, "price": 1.5 * n}) for n, item in enumerate(ODD)]
        assert patch(client, *stock) == (200, {"changed": len(ODD), "added": 0, "unknown_items": 0})
        for each in (client, other):
            assert shown(each, "stock > 0 and price < 9") == {ODD[1], ODD[3], ODD[5]}
        patch(other, (ODD[1], {"stock": 0}), (ODD[2], {"stock": 4, "year": None, "title": "New", "genres": ["Noir"]}))
        for each in (client, other):
            assert shown(each, "stock > 0 and price < 9") == {ODD[2], ODD[3], ODD[5]}
            assert shown(each, "'noir' in genres and year is None and 'new' in title") == {ODD[2]}
            assert [e["item"] for e in each.get("/items?query=new")[1]["items"]] == [ODD[2]]
            entry = each.get("/items?item=a%20b%2Bc%26d%3De")[1]["items"][0]
            assert entry["stock"] == 1 and entry["price"] == 7.5
    with serving(folder, tmp_path / "events.db") as (client, _):
        assert shown(client, "stock > 0 and price < 9") == {ODD[2], ODD[3], ODD[5]}
        assert {"stock", "price"} <= set(client.get("/ready")[1]["columns"])


def test_values_survive_another_model_that_lacks_their_column_or_has_older_ones(model, tmp_path):
    _, folder = model
    served = tmp_path / "served"
    shutil.copytree(folder, served)
    with serving(served, tmp_path / "events.db", reload_interval=0.01) as (client, service):
        patch(client, ("plain", {"stock": 7, "year": 1066}))
        later = Recommender.load(folder)
        later.metadata["note"] = "another"
        later.save(served)
        until(lambda: "note" in service.model.state.metadata)
        assert shown(client, "stock == 7 and year == 1066") == {"plain"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"year": "soon"}, "item plain: 'year' holds numbers, and 'soon' is text"),
        ({"year": True}, "'year' holds numbers, and 'True' is true or false"),
        ({"genres": 3}, "'genres' holds tags, and '3' is a number"),
        ({"genres": [1]}, "'genres' holds tags"),
        ({"title": 3}, "'title' holds text, and '3' is a number"),
        ({"title": None}, "a title cannot be empty"),
        ({"title": " "}, "a title cannot be empty"),
        ({"shelf": {"a": 1}}, "'shelf' can be a number, a text, true, false, null or a list of texts"),
        ({"item_id": "other"}, "'item_id' cannot be set"),
        ({"ratings": 3}, "'ratings' cannot be set"),
        ({" ": 3}, "a column needs a name"),
        ({"a`b": 3}, "a column needs a name"),
        ({}, "items.1.set: Dictionary should have at least 1 item"),
    ],
)
def test_a_value_that_does_not_fit_sets_none_of_its_batch(model, tmp_path, values, message):
    with serving(model[1], tmp_path / "events.db") as (client, service):
        status, answer = patch(client, ("a/b", {"stock": 1}), ("plain", values))
        assert status in (400, 422) and message in answer["error"] and service.items.last_seq() == 0
        assert "stock" not in service.model.columns


def test_the_first_value_of_a_new_column_says_what_it_holds(model, tmp_path):
    columns = {
        "price": (3, 2.5, "x"), "on": (True, False, 1), "until": ("2026-12-24", "2026-12-24T18:00", "soon"),
        "labels": (["new"], "old|red", 3), "shelf": ("A 3", "B", 4),
    }  # fmt: skip
    with serving(model[1], tmp_path / "events.db") as (client, _):
        for column, (first, other, wrong) in columns.items():
            assert patch(client, ("plain", {column: first}))[0] == 200
            assert patch(client, ("a/b", {column: other}))[0] == 200, column
            assert patch(client, ("50%", {column: wrong}))[0] == 400, column
            assert patch(client, ("50%", {column: None}))[0] == 200
        mixed = patch(client, ("plain", {"size": 3}), ("a/b", {"size": "XL"}))
        assert mixed[0] == 400 and "item a/b: 'size' holds numbers" in mixed[1]["error"]
        found = [shown(client, text) for text in ("price > 2", "on", "'red' in labels", "shelf == 'a 3'")]
        assert found == [{"plain", "a/b"}, {"plain"}, {"a/b"}, {"plain"}]
        assert shown(client, "until > now", as_of="2026-12-24T12:00") == {"a/b"}
        assert shown(client, "until >= today", as_of="2026-12-24") == {"plain", "a/b"}
        assert client.post("/recommend", {"where": "until >= 'x'"})[0] == 400


def test_unknown_items_are_kept_for_a_model_that_knows_them(model, tmp_path):
    with serving(model[1], tmp_path / "events.db") as (client, service):
        assert patch(client, ("unheard of", {"stock": 3}))[1] == {"changed": 0, "added": 0, "unknown_items": 1}
        assert len(service.items.of_items(["unheard of"])) == 1
        assert client.get("/items?item=unheard%20of")[0] == 404


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """A model of items 0 to 29, of two colours: even users like red items, odd ones blue."""
    user, item = np.divmod(np.arange(20 * 30), 30)
    kept = (user % 2 == item % 2) & (np.random.default_rng(0).random(600) < 0.7)
    items = pl.DataFrame({"item_id": range(30), "colour": [["red", "blue"][i % 2] for i in range(30)]})
    settings = *small("softmax", epochs=20), ContentConfig(text="colour")
    model = Recommender(*settings).fit(
        Ratings.from_frame(pl.DataFrame({"user": user[kept], "item": item[kept]})), items
    )
    return model.save(tmp_path_factory.mktemp("described") / "m")


def test_an_item_with_a_description_is_added_and_stays(described, tmp_path):
    path = tmp_path / "events.db"
    with serving(described, path) as (client, _), serving(described, path, reload_interval=0.01) as (other, _):
        assert patch(client, (30, {"stock": 1}))[1] == {"changed": 0, "added": 0, "unknown_items": 1}
        assert patch(client, (30, {"colour": "blue", "title": "Sea"}), (0, {"stock": 0}))[1] == (
            {"changed": 1, "added": 1, "unknown_items": 0}
        )
        assert shown(client, "stock == 1 and title == 'sea'", user=1) == {30}
        fits, misfits = (client.get(f"/predict?user={u}&item=30")[1]["value"] for u in (1, 0))
        assert fits > misfits
        until(lambda: other.get("/items?item=30")[0] == 200)
        patch(other, (30, {"stock": 2}))
        client.post("/events", {"events": [{"user": "new", "item": 30}]})
        assert client.get("/history?user=new")[1]["items"][0]["title"] == "Sea"
        assert shown(client, "stock == 2") == {30}
    with serving(described, path) as (client, service):
        assert shown(client, "stock == 2 and 'blue' in colour") == {30} and len(service.model.state.items) == 31


def write(path, frame):
    frame.write_csv(path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def test_a_file_of_items_is_followed_and_a_broken_one_changes_nothing(model, tmp_path):
    path, file = tmp_path / "events.db", tmp_path / "items.csv"
    write(file, pl.DataFrame({"id": ["plain", "a/b", "else"], "stock": [1, 0, 9], "year": [1, 2, 3]}))
    with serving(model[1], path, items=str(file), reload_interval=0.01) as (client, service):
        assert shown(client, "stock > 0") == {"plain"} and shown(client, "year < 3") == {"plain", "a/b"}
        patch(client, ("a/b", {"stock": 5, "shelf": "x"}), ("it's", {"year": 1}))
        assert shown(client, "stock > 0") == {"plain", "a/b"}, "what is set later counts"
        write(file, pl.DataFrame({"id": ["a/b"], "stock": [0]}))
        until(lambda: service.model.table.table.height == 1)
        assert shown(client, "stock == 0") == {"a/b"}, "a newer file counts more than what was set before"
        assert shown(client, "shelf == 'x'") == {"a/b"} and shown(client, "year == 1") == {"it's"}
        for broken in ("id,stock\na,b,c\n", "stock\n1\n", "id,year\nplain,soon\n", ""):
            file.write_text(broken)
            error = until(lambda: client.get("/ready")[1]["items_error"])
            assert (shown(client, "stock == 0") == {"a/b"} and str(file) in error) or "year" in error
            assert client.get("/ready")[0] == 200
            write(file, pl.DataFrame({"id": ["a/b"], "stock": [0]}))
            until(lambda: client.get("/ready")[1]["items_error"] is None)
        (failures,) = re.findall(rb"recsys_items_file_failures_total (\d+)\.0", client.raw("GET", "/metrics")[1])
        assert int(failures) >= 4, "a file that is read while it is written is one more"
        patch(client, ("a/b", {"stock": 8}))
    with serving(model[1], path, items=str(file)) as (client, _):
        assert shown(client, "stock == 8") == {"a/b"}, "the file is older still"


def test_a_file_describes_new_items(described, tmp_path):
    file = tmp_path / "items.csv"
    write(file, pl.DataFrame({"item_id": [30, 31, 3], "colour": ["red", None, "blue"], "stock": [1, 2, 3]}))
    with serving(described, tmp_path / "events.db", items=str(file)) as (client, _):
        assert shown(client, "stock > 0") == {30, 3}
        assert patch(client, (30, {"stock": 0}))[1]["changed"] == 1 and shown(client, "stock > 0") == {3}


_KILLED = """
import sys; from pathlib import Path; from services import serving; import time
with serving(Path(sys.argv[1]), Path(sys.argv[2])) as (client, _):
    print(client.port, flush=True); time.sleep(600)
"""


@pytest.mark.slow
def test_no_acknowledged_value_is_lost_when_the_process_is_killed(model, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", _KILLED, str(model[1]), str(tmp_path / "events.db")]
    acknowledged = sent = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        client = Client(int(process.stdout.readline()))
        killer = threading.Timer(0.3, process.send_signal, [signal.SIGKILL])
        killer.start()
        with contextlib.suppress(OSError, http.client.HTTPException):
            while sent < 100_000:
                sent += 1
                if patch(client, ("plain", {"stock": sent}), ("a/b", {"stock": sent}))[0] == 200:
                    acknowledged = sent
        process.wait()
    with serving(model[1], tmp_path / "events.db") as (client, _):
        stock = [entry["stock"] for entry in client.get("/items?item=plain&item=a/b")[1]["items"]]
    assert acknowledged and stock[0] == stock[1] and stock[0] in (acknowledged, acknowledged + 1)


def test_values_and_the_trend_follow_each_on_its_own(tmp_path):
    pairs = [(u, i, 1_000_000_000 + 86_400 * u) for u in range(9) for i in range(20) if (u * i) % 3]
    frame = pl.DataFrame(pairs, schema=["user", "item", "time"], orient="row")
    model = Recommender(*small("softmax", epochs=2, half_life=10.0)).fit(Ratings.from_frame(frame))
    with serving(model.save(tmp_path / "m"), tmp_path / "events.db") as (client, _):
        patch(client, (1, {"stock": 1}), (7, {"stock": 1}), (8, {"stock": 0}))
        body = [{"user": f"u{n}", "item": 7, "timestamp": 1_000_000_000 + 40 * 86_400} for n in range(30)]
        client.post("/events", {"events": body})
        answer = client.post("/recommend", {"where": "stock > 0", "k": 9})[1]
        assert [entry["item"] for entry in answer["items"]] == [7, 1] and answer["from"] == "recent"
        patch(client, (7, {"stock": 0}), (8, {"stock": 2}))
        assert shown(client, "stock > 0") == {1, 8} and shown(client, "stock == 0") == {7}
        assert client.post("/recommend", {})[1]["items"][0]["item"] == 7
        for n in range(30):  # what is taken back counts no longer, and the values stay
            client.raw("DELETE", f"/events?user=u{n}")
        assert shown(client, "stock > 0") == {1, 8}
