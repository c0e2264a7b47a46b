"""Places for new items: how many, which, and that no rule is broken for them."""

import collections
import json

import numpy as np
import polars as pl
import pytest
from services import serving
from worlds import small

from recsys_embed.answering.recommend import recommend
from recsys_embed.answering.request import Exploration, RecommendRequest
from recsys_embed.config.answers import Rules
from recsys_embed.data.ratings import Ratings
from recsys_embed.recommender import Recommender


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


def test_the_only_place_of_a_list_is_its_first(young):
    assert not any(explored(young, f"{n}", share=0.5, user=3, k=1).explored for n in range(20))
    assert {place for n in range(20) for place in explored(young, f"{n}", share=0.5, user=3, k=2).explored} == {1}


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
