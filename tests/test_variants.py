"""Several models in one service: how they are named, and who gets which."""

import collections
import json
import sqlite3
import threading

import polars as pl
import pytest
from services import ODD, counts_of, serving, until
from worlds import recsys_here

from recsys_embed.config.answers import ServeConfig
from recsys_embed.config.variants import Variant, parse_variants
from recsys_embed.errors import BundleError, SettingError
from recsys_embed.recommender import Recommender
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


def test_two_names_of_one_model_are_said(models, tmp_path, caplog):
    other = Recommender.load(models / "one").set_items(pl.DataFrame({"item_id": [ODD[0]], "title": ["another"]}))
    other.save(tmp_path / "other")
    given = [f"a={models / 'one'}", f"b={tmp_path / 'other'}", f"c={models / 'one'}"]
    with serving(None, tmp_path / "events.db", variant=given):
        said = [line for line in caplog.messages if "same model" in line]
    assert said == ["variants a and c are the same model: no test can show a difference"]


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
