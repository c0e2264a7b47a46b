"""Audiences: who wants an item, on one scale for all users; users alike; and items that are had together."""

import json
import math
import urllib.parse

import numpy as np
import polars as pl
import pytest
from services import serving
from worlds import recsys_here, small, tastes

from recsys_embed import ModelConfig, Ratings, Recommender, TrainConfig
from recsys_embed.answering import audience as audiences
from recsys_embed.data.user_items import UserItems
from recsys_embed.errors import SettingError, UnknownId
from recsys_embed.models import registry, user_scorer
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.trend import Trend

RATINGS, TABLE, COLOUR = tastes()
USERS, ITEMS = len(RATINGS.users), len(RATINGS.items)
KINDS = {
    "embeddings": (ModelConfig("embeddings", dim=8), TrainConfig(epochs=3)),
    "neighbours": (ModelConfig("neighbours", dim=8), TrainConfig(epochs=3)),
    "both": (ModelConfig("both", dim=8, popularity_power=0.3), TrainConfig(epochs=3)),
    "bare": (ModelConfig("neighbours", dim=8, embeddings=False), TrainConfig(epochs=3)),
    "mlp": small("softmax", "mlp", epochs=2),
    "stars": small("mse", epochs=5),
    "other": (ModelConfig("cooccurrence"), TrainConfig()),
}


@pytest.fixture(scope="module")
def models():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.FAMILIES, "cooccurrence", "cooccurrence:FAMILY")
        yield {}


@pytest.fixture(params=KINDS)
def model(request, models):
    if request.param not in models:
        model, train = KINDS[request.param]
        models[request.param] = Recommender(model, train).fit(RATINGS, TABLE)
    return models[request.param]


def z_scores(model):
    """The definition, in the plainest way: [users, items]."""
    state = model.state
    scores = state.model.score(state.model.queries(np.arange(len(state.users)))).astype(float)
    out = np.zeros_like(scores)
    for user in range(len(scores)):
        others = np.setdiff1d(np.flatnonzero(state.item_counts), state.seen[user])
        mean, deviation = (scores[user, others].mean(), scores[user, others].std()) if len(others) else (0, 0)
        out[user] = (scores[user] - mean) / deviation if deviation > 1e-6 else 0
        out[user] += math.log(max(1, state.seen.count[user]))
    return out


def alike(one, other):
    """Whether two tables are equal but for the rounding of products in blocks of another shape."""
    same = one.drop("score").equals(other.drop("score"))
    return same and one["score"].to_list() == pytest.approx(other["score"].to_list(), abs=1e-3)


def test_an_audience_is_everybody_without_the_item_by_z_and_log_n(model):
    z = z_scores(model)
    table = model.audience(model.items.series, k=USERS)
    assert table.columns == ["item_id", "title", "user_id", "score", "rank"]
    for item in range(ITEMS):
        rows = table.filter(item_id=item)
        users = model.users.rows(rows["user_id"])
        assert sorted(users) == [u for u in range(USERS) if item not in model.seen[u]]
        np.testing.assert_allclose(rows["score"], z[users, item], atol=2e-3)
        assert rows["score"].is_sorted(descending=True) and rows["rank"].to_list() == [*range(1, len(rows) + 1)]
        assert set(rows["title"]) == {TABLE["title"][item]}
    assert alike(model.audience(5, 7), table.filter(pl.col("item_id") == 5, pl.col("rank") <= 7))
    assert model.audience(5, k=USERS, include_seen=True).height == USERS


@pytest.mark.parametrize("block", [1, 7 * USERS])
def test_blocks_do_not_show(model, block, monkeypatch):
    want = model.audience([3, 9, 40], 11)
    monkeypatch.setattr(user_scorer, "_BLOCK", block)
    monkeypatch.setattr(user_scorer, "_USER_BLOCK", block)
    monkeypatch.setattr(audiences, "_BLOCK", 2)
    again = Recommender.of(model.state.replace())
    found = again.audience([3, 9, 40], 11)
    assert alike(found, want)


def vectors_of(users, items, user_bias=None):
    users, items = np.array(users, np.float32), np.array(items, np.float32)
    bias = np.zeros(len(users), np.float32) if user_bias is None else np.array(user_bias, np.float32)
    return EmbeddingModel(users, items, bias, np.zeros(len(items), np.float32))


def known(pairs, model):
    """A recommender with these pairs (user, item) as training, and this model."""
    ratings = Ratings.from_frame(pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row"))
    state = Recommender(*small("softmax", epochs=1, dim=2)).fit(ratings).state
    return Recommender.of(state.replace(model=model))


def test_neither_long_vectors_nor_users_who_like_everything_come_first():
    """Users 0 to 2 have two items each, 0 and 1; user 2 likes item 3 most of what they do not have."""
    pairs = [(u, i) for u in range(3) for i in range(2)] + [(3, i) for i in range(2, 6)]
    items = [[1, 0], [0, 1], [1, 0.2], [0, 1], [0.5, 0.1], [0.6, 0]]
    model = known(pairs, vectors_of([[9, 3], [1, 1], [0.1, 1], [1, 0]], items, [0, 100, 0, 0]))
    raw = model.model.score(model.model.queries(np.arange(3)))[:, 3]
    assert raw.argmin() == 2
    assert model.audience(3)["user_id"].to_list()[0] == 2


def test_of_two_users_alike_the_one_with_more_items_comes_first():
    pairs = [(0, 0), (1, 0), (1, 1), (1, 2), (2, 3), (2, 4), (2, 5)]
    items = [[0, 0], [0, 0], [0, 0], [1, 1], [0, 1], [-1, 0]]
    model = known(pairs, vectors_of([[1, 2], [1, 2], [1, 0]], items))
    model.state = model.state.replace(seen=model.seen)
    assert model.audience(3)["user_id"].to_list()[0] == 1


def test_who_has_no_history_comes_only_if_nobody_else_is_left():
    pairs = [(u, i) for u in range(4) for i in range(u + 2)]
    model = known(pairs, vectors_of(np.eye(4, 2), np.ones((5, 2))))
    kept = [(0, 0), (0, 1), (2, 0), (2, 2)]  # users 1 and 3 have nothing
    user, item = np.array(kept).T
    model.state = model.state.replace(seen=UserItems.of(user, item, 4))
    assert model.audience(4)["user_id"].to_list() == [0, 2] or set(model.audience(4)["user_id"]) == {0, 2}
    assert model.audience(1)["user_id"].to_list() == [2]
    assert set(model.audience(0)["user_id"]) == {1, 3}
    said = {row: audiences.audience_entries(model.state, row, 9, False, False)["short"] for row in (0, 1, 4)}
    assert "nothing is known of these users" in said[0]
    assert said[1].startswith("1 of 9: the model has 4 users, 1 of them have the item already, 2 have no history")
    assert set(model.similar_users(0)["user_id"]) == {2}


def test_a_trend_is_the_same_for_all_users():
    model = Recommender(*KINDS["both"]).fit(RATINGS, TABLE)
    want = model.audience([3, 9])
    recent = np.random.default_rng(0).random(ITEMS) * 100
    model.state = model.state.replace(trend=Trend(recent, 0.0, 7.0, 5.0, recent))
    assert model.audience([3, 9]).equals(want)
    index = model.state.user_index
    assert model.state.with_trend(Trend(recent[::-1], 0.0, 7.0, 5.0, recent)).user_index is index


def test_a_node_is_not_in_its_own_audience():
    pairs = [(a, b) for a in range(12) for b in range(a) if a % 3 == b % 3]
    frame = pl.DataFrame(pairs, schema=["source", "target"], orient="row")
    graph = Ratings.from_frame(frame, shared_ids=True)
    model = Recommender(ModelConfig(dim=4), TrainConfig(epochs=2)).fit(graph)
    for node in range(12):
        linked = {other for other in range(12) if other % 3 == node % 3}
        assert set(model.audience(node)["user_id"]) == set(range(12)) - linked
        assert set(model.audience(node, include_seen=True)["user_id"]) == set(range(12)) - {node}


def test_held_out_users_can_be_left_out():
    train, held = RATINGS.take(np.arange(len(RATINGS)) % 5 > 0), RATINGS.take(np.arange(len(RATINGS)) % 5 == 0)
    model = Recommender(*small("softmax", epochs=1)).fit(train, TABLE, held_out=held)
    for item in range(0, ITEMS, 7):
        owners = set(train.user[train.item == item])
        later = set(held.user[held.item == item])
        assert set(model.audience(item, hide_test=True)["user_id"]) == set(range(USERS)) - owners - later
        assert later <= set(model.audience(item)["user_id"])


def test_what_is_wrong_is_said(model):
    with pytest.raises(UnknownId, match="777 is not known"):
        model.audience(777)
    with pytest.raises(SettingError, match="k must be"):
        model.audience(3, 0)
    with pytest.raises(UnknownId):
        model.similar_users("nobody")
    assert model.audience([]).is_empty() and model.similar_users([]).is_empty()


def test_means_come_from_items_with_ratings_and_of_many_from_some(monkeypatch):
    model = Recommender(*KINDS["embeddings"]).fit(RATINGS, TABLE)
    counts = np.where(np.arange(ITEMS) % 3 == 0, 0, model.item_counts)
    state = model.state.replace(item_counts=counts)
    table, z = Recommender.of(state).audience(5, k=USERS), z_scores(Recommender.of(state))
    np.testing.assert_allclose(table["score"], z[state.users.rows(table["user_id"]), 5], atol=2e-3)

    class Spy:
        def __init__(self):
            self.scored = []

        def scores(self, items, users=None):
            self.scored.extend(items.tolist())
            return np.random.default_rng(0).random((len(items), USERS)).astype(np.float32)

        def scaled(self, scale, shift):
            return self

    monkeypatch.setattr(user_scorer, "_DRAWN", 17)
    spy = Spy()
    user_scorer.comparable(spy, state.users_of_items, state.seen.count, counts)
    assert len(set(spy.scored)) == len(spy.scored) == 17 and counts[spy.scored].all()


# Users alike


def test_similar_users_are_nearest_by_cosine_with_what_they_share(model):
    table = model.similar_users([4, 9], k=USERS)
    assert table.columns == ["of", "user_id", "score", "rank", "common", "items"]
    x = RATINGS.matrix().toarray() > 0
    for user in (4, 9):
        found = table.filter(of=user)
        if model.state.has_user_vectors:
            vectors = model.state.embeddings.users
            assert len(found) == USERS - 1
        else:
            vectors = x.astype(float)
            assert len(found) == sum((x[user] & x[other]).any() for other in range(USERS)) - 1
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        others = found["user_id"].to_list()
        assert user not in others and found["score"].is_sorted(descending=True)
        np.testing.assert_allclose(found["score"], units[others] @ units[user], atol=1e-5)
        assert found["common"].to_list() == [(x[user] & x[other]).sum() for other in others]
        assert found["items"].to_list() == x[others].sum(axis=1).tolist()
        assert alike(model.similar_users(user, 3), found.head(3))


# Had together


def log_likelihood_ratio(both, own, other, users):
    """2 x the sum of observed x log(observed / expected) over the four cells."""
    total = 0.0
    for a in (True, False):
        for b in (True, False):
            row, column = (own if a else users - own), (other if b else users - other)
            cell = both if a and b else own - both if a else other - both if b else users - own - other + both
            total += cell * math.log(cell * users / (row * column)) if cell else 0.0
    return 2 * total


def test_together_counts_pairs_and_is_ordered_by_how_sure_they_are(model):
    x = RATINGS.matrix().toarray() > 0
    table = model.similar(7, ITEMS, by="together")
    rows = {row["item_id"]: row for row in table.to_dicts()}
    for item in set(range(ITEMS)) - {7}:
        both, own, other = (x[:, 7] & x[:, item]).sum(), x[:, 7].sum(), x[:, item].sum()
        assert (item in rows) == bool(both * USERS > own * other)
        if item in rows:
            row = rows[item]
            assert row["together"] == both and row["confidence"] == pytest.approx(both / own)
            assert row["lift"] == pytest.approx(both * USERS / (own * other))
            assert row["score"] == pytest.approx(log_likelihood_ratio(both, own, other, USERS), rel=1e-4)
    assert 7 not in rows and table["score"].is_sorted(descending=True)
    few = model.similar(7, ITEMS, by="together", min_support=10)
    assert set(few["item_id"]) == {i for i in rows if x[:, i].sum() >= 10}


def test_a_pair_of_two_users_does_not_come_before_a_pair_of_many():
    """Of 60 users with item 0, 50 have item 1, and the two who have item 2 have it as well; lift would put 2 first."""
    pairs = [(u, 0) for u in range(60)] + [(u, 1) for u in range(50)] + [(u, 1) for u in range(60, 65)]
    pairs += [(u, 2) for u in range(2)] + [(u, 3) for u in range(60, 100)]
    ratings = Ratings.from_frame(pl.DataFrame(pairs, schema=["user", "item"], orient="row"))
    model = Recommender(*small("softmax", epochs=1)).fit(ratings)
    table = model.similar(0, by="together")
    assert table["item_id"].to_list() == [1, 2] and table["lift"][1] > table["lift"][0]


# The command line and the service


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audience")
    Recommender(*KINDS["both"]).fit(RATINGS, TABLE).save(folder / "models" / "m")
    return folder


def test_the_command_line_names_users_and_says_who_is_left_out(folder):
    model = Recommender.load(folder / "models" / "m")
    want = model.audience(5, 4)
    for name in ("5", TABLE["title"][5]):
        said = json.loads(recsys_here("audience", "--item", name, "--k", "4", "--json", cwd=folder).stdout)
        assert said["item"] == 5 and said["title"] == TABLE["title"][5] and said["short"] is None
        assert [(e["user"], e["rank"]) for e in said["users"]] == [*want.select("user_id", "rank").iter_rows()]
        assert [e["items"] for e in said["users"]] == [len(model.seen[e["user"]]) for e in said["users"]]
    lines = recsys_here("audience", "--item", "5", "--k", "99", cwd=folder).stdout.splitlines()
    owners = int(model.item_counts[5])
    assert lines[1] == f"{owners} users have it and are left out"
    assert len(lines) == 4 + USERS - owners and lines[-1].startswith(f"{USERS - owners} of 99: the model has 45 users")
    lines = recsys_here("audience", "--item", "5", "--include-seen", "--k", "45", cwd=folder).stdout.splitlines()
    assert lines[1].endswith("are listed too") and len(lines) == 3 + USERS


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_audiences_of_all_items_go_to_a_file(folder, suffix, tmp_path):
    out = tmp_path / f"audiences.{suffix}"
    done = recsys_here("audience", "--all-items", "--k", "3", "--out", str(out), cwd=folder)
    read = {"parquet": pl.read_parquet, "csv": pl.read_csv, "jsonl": pl.read_ndjson}[suffix](out)
    model = Recommender.load(folder / "models" / "m")
    want = model.audience(model.items.series, 3).drop("title")
    assert read.columns == want.columns and read.drop("score").equals(want.drop("score"))
    assert f"{len(want):,} rows written to" in done.stdout and f"items {ITEMS} of {ITEMS}" in done.stderr
    one = tmp_path / f"one.{suffix}"
    said = json.loads(
        recsys_here("audience", "--item", "5", "--k", "3", "--out", str(one), "--json", cwd=folder).stdout
    )
    assert said["rows"] == 3 and one.exists()


def test_similar_users_and_pairs_on_the_command_line(folder):
    model = Recommender.load(folder / "models" / "m")
    said = json.loads(recsys_here("similar", "--user", "4", "--k", "3", "--json", cwd=folder).stdout)
    assert said["user"] == 4 and said["by"] == "embeddings"
    assert [e["user"] for e in said["users"]] == model.similar_users(4, 3)["user_id"].to_list()
    lines = recsys_here("similar", "--user", "4", "--k", "3", cwd=folder).stdout.splitlines()
    assert lines[0].startswith("Nearest to user 4") and "common" in lines[1] and len(lines) == 5
    lines = recsys_here("similar", "--item", "7", "--by", "together", "--k", "3", cwd=folder).stdout.splitlines()
    assert {"evidence", "together", "lift", "confidence"} <= set(lines[1].split()) and len(lines) == 5
    said = json.loads(
        recsys_here("similar", "--item", "7", "--by", "together", "--k", "3", "--json", cwd=folder).stdout
    )
    assert said["items"][0]["lift"] > 1 and said["by"] == "together"


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("audience",), 2, "one of --item"),
        (("audience", "--item", "5", "--all-items", "--out", "a.csv"), 2, "one of --item"),
        (("audience", "--all-items"), 2, "name it with --out"),
        (("audience", "--item", "5", "--k", "0"), 2, "--k must be at least 1"),
        (("audience", "--item", "Unheard Of"), 4, "no item has the id or the title"),
        (("audience", "--all-items", "--out", "a.txt"), 2, "must end in one of"),
        (("similar",), 2, "one of --item"),
        (("similar", "--item", "1", "--user", "1"), 2, "one of --item"),
        (("similar", "--user", "1", "--by", "together"), 2, "they go with --item"),
        (("similar", "--user", "nobody"), 4, "nobody is not known"),
    ],
)
def test_wrong_usage_is_one_line(folder, args, code, says):
    error = recsys_here(*args, cwd=folder, code=code).stderr.splitlines()[-1]
    assert error.startswith("error: ") and says in error
    assert not (folder / "a.txt").exists()


def test_the_service_answers_alike_and_leaves_out_who_took_the_item_since(folder, tmp_path):

    model = Recommender.load(folder / "models" / "m")
    with serving(folder / "models" / "m", tmp_path / "events.db", max_k=200) as (client, _):
        said = client.get("/audience?item=5&k=4")[1]
        want = model.audience(5, 5)
        assert [e["user"] for e in said["users"]] == want["user_id"].to_list()[:4]
        assert said["title"] == TABLE["title"][5] and said["model"]
        first, events = said["users"][0]["user"], {"user": said["users"][0]["user"], "item": 5}
        assert client.post("/events", {"events": [events, {"user": "newcomer", "item": 5}]})[1]["accepted"] == 2
        said = client.get("/audience?item=5&k=4")[1]
        assert [e["user"] for e in said["users"]] == want["user_id"].to_list()[1:5]
        assert first in [e["user"] for e in client.get("/audience?item=5&k=99&include_seen=true")[1]["users"]]
        assert "already" in client.get("/audience?item=5")[1]["short"]
        said = client.get("/similar?user=4&k=3")[1]
        assert [e["user"] for e in said["users"]] == model.similar_users(4, 3)["user_id"].to_list()
        assert client.get("/similar?item=7&by=together&k=3")[1]["items"][0]["confidence"] > 0
        for query, status in (
            ("/audience", 422), ("/audience?item=nothing", 404), ("/audience?item=5&k=201", 400), ("/similar", 422),
            ("/similar?item=1&user=2", 422), ("/similar?user=2&by=together", 422), ("/similar?user=nobody", 404),
        ):  # fmt: skip
            found, answer = client.get(query)
            assert (found, "error" in answer) == (status, True), (query, answer)
        assert client.get("/audience?" + urllib.parse.urlencode({"item": "5"}))[0] == 200
