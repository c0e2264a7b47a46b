"""What vectors know: the probes find what was put there, and nothing where nothing is."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from worlds import COLOURS, RATINGS, TABLE, small

from recsys_embed.data.item_table import align_items
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import split_random
from recsys_embed.data.user_items import UserItems
from recsys_embed.errors import DataError, SettingError
from recsys_embed.evaluation.probes import NEGATIVES, draw_unknown, linear_probe_auc, probe_column, probe_links
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.recommender import Recommender
from recsys_embed.state.fitted import FittedState


class TestToldApart:
    random = np.random.default_rng(0)
    features = random.normal(size=(400, 6))

    def test_what_is_there_is_found_in_any_unit(self):
        mine = self.features[:, 2] > 0.5
        assert linear_probe_auc(self.features, mine) > 0.97
        assert linear_probe_auc(self.features * 1000 + 7, mine) == pytest.approx(linear_probe_auc(self.features, mine))
        assert linear_probe_auc(self.features, ~mine) == pytest.approx(linear_probe_auc(self.features, mine))

    def test_chance_is_a_half(self):
        """Of more numbers than there are items too: nothing of the fit is in what is asked."""
        wide = self.random.normal(size=(100, 200))
        found = [linear_probe_auc(wide, self.random.permutation(100) < 30) for _ in range(12)]
        assert np.mean(found) == pytest.approx(0.5, abs=0.06)


class TestColumn:
    @pytest.fixture(scope="class")
    def recommender(self):
        return Recommender(*small("softmax", epochs=30)).fit(RATINGS, TABLE)

    def test_ratings_tell_the_colour_and_not_the_shape(self, recommender):
        found = probe_column(recommender, "kind")
        by_name = {tag["name"]: tag for tag in found["tags"]}
        assert all(by_name[colour]["auc"] > 0.95 for colour in COLOURS)
        assert 0.2 < by_name["round"]["auc"] < 0.8
        assert found["auc"] == pytest.approx(np.mean([tag["auc"] for tag in found["tags"]]))
        assert all(abs(tag["popularity"] - 0.5) < 0.3 for tag in found["tags"]) and not found["told"]
        assert by_name["red"]["items"] == 20 and found["items"] == 60

    def test_the_baseline_is_popularity(self, recommender):
        """A mark that popularity decides is read in it, whether few have it or the middle."""
        often = RATINGS.item_counts
        middle = np.abs(often - np.median(often))
        marks = pl.Series(np.where(middle <= np.quantile(middle, 0.4), "middling", "far"))
        found = probe_column(_with_table(recommender, TABLE.with_columns(mark=marks)), "mark")
        assert min(tag["popularity"] for tag in found["tags"]) > 0.9

    def test_a_model_that_was_told_says_so(self, recommender):
        told = _with_table(recommender, TABLE)
        told.metadata["settings"] = {"text": "title, kind"}
        assert probe_column(told, "kind")["told"]

    def test_nothing_is_no_tag(self, recommender):
        table = TABLE.with_columns(half=pl.Series(["x", "y", None] * 20))
        found = probe_column(_with_table(recommender, table), "half")
        assert [tag["name"] for tag in found["tags"]] == ["x", "y"] and found["items"] == 60

    def test_rare_tags_are_not_judged(self, recommender):
        few = TABLE.with_columns(kind=pl.Series(["odd"] * 19 + [f"t{n % 5}" for n in range(41)]))
        with pytest.raises(DataError, match="no part of the column 'kind' has 20 rated items"):
            probe_column(_with_table(recommender, few), "kind")
        with pytest.raises(SettingError, match="what can be named is links, kind$"):
            probe_column(recommender, "colour")


def _with_table(recommender, table):
    return Recommender.of(recommender.state.replace(table=table, metadata=dict(recommender.metadata)))


def recommender_of(ratings, model, train, test):
    table = align_items(None, ratings.items)
    return Recommender.of(
        FittedState(ratings.users, ratings.items, model, train.seen(), test.seen(), table, train.item_counts)
    )


class TestDraws:
    counts = np.array([0, *range(60, 0, -1)])  # item 0 is cold; the others fall with their row

    def draw(self, test, known, matched):
        user, item = (np.array(column) for column in zip(*test, strict=True))
        seen = UserItems.of(*(np.array(column) for column in zip(*known, strict=True)), 2)
        return draw_unknown(SimpleNamespace(user=user, item=item), seen, self.counts, matched)

    @pytest.mark.parametrize("matched", [False, True])
    def test_nothing_known_or_cold_is_drawn(self, matched):
        known = [(0, i) for i in range(1, 61) if i not in (17, 44)] + [(1, 30)]
        drawn = self.draw([(0, 5), (1, 30), (0, 60)] * 20, known, matched)
        assert drawn.shape == (60, NEGATIVES)
        assert set(drawn[::3].ravel()) <= {17, 44} and not {0, 30} & set(drawn[1::3].ravel())

    def test_even_draws_reach_every_item_alike(self):
        drawn = self.draw([(1, 30)] * 600, [(1, 30)], False).ravel()
        often = np.bincount(drawn, minlength=61)[np.r_[1:30, 31:61]]
        assert often.min() > 50 and often.max() < 160  # 102 on average

    def test_matched_draws_are_as_popular(self):
        drawn = self.draw([(1, 30), (1, 1), (1, 60)] * 50, [(1, 30), (1, 1), (1, 60)], True)
        for line, (low, high) in enumerate([(20, 40), (2, 11), (50, 59)]):
            mine = set(drawn[line::3].ravel())
            assert mine <= set(range(low, high + 1)) and len(mine) > 8


class TestLinks:
    train, _, test = split_random(RATINGS, 0.0, 0.2)

    def model(self, users, items, bias=None):
        width = len(items)
        bias = np.zeros(width, np.float32) if bias is None else bias
        plain = EmbeddingModel(users, items, np.zeros(len(users), np.float32), bias)
        return recommender_of(RATINGS, plain, self.train, self.test)

    def perfect(self):
        likes = np.zeros((45, 60), np.float32)
        likes[RATINGS.user, RATINGS.item] = 1
        return self.model(likes, np.eye(60, dtype=np.float32))

    def test_who_knows_all_is_always_right(self):
        found = probe_links(self.perfect(), self.test)
        assert all(found[kind][row] == 1 for kind in ("uniform", "matched") for row in ("model", "vectors"))
        assert (found["rows"], found["users"]) == (len(self.test), 45)

    def test_what_else_was_held_out_is_no_wrong_answer(self):
        half = self.test.take(np.arange(len(self.test)) % 2 == 0)
        assert probe_links(self.perfect(), half)["uniform"]["model"] == 1

    def test_who_knows_nothing_is_right_half_the_time(self):
        same = probe_links(self.model(np.zeros((45, 3), np.float32), np.zeros((60, 3), np.float32)), self.test)
        assert same["uniform"]["model"] == same["matched"]["model"] == 0.5

    def test_popularity_alone_helps_against_any_item_and_not_against_equals(self):
        random = np.random.default_rng(0)
        weight = np.arange(1, 401) ** -0.7
        drawn = np.array([random.choice(400, 30, replace=False, p=weight / weight.sum()) for _ in range(150)])
        ratings = Ratings.from_frame(pl.DataFrame({"user": np.repeat(np.arange(150), 30), "item": drawn.ravel()}))
        train, _, test = split_random(ratings, 0.0, 0.2)
        nothing = np.zeros((150, 2), np.float32), np.zeros((len(ratings.items), 2), np.float32)
        bias = train.item_counts.astype(np.float32)
        plain = EmbeddingModel(*nothing, np.zeros(150, np.float32), bias)
        found = probe_links(recommender_of(ratings, plain, train, test), test)
        assert found["uniform"]["popularity"] > 0.7 and found["matched"]["popularity"] < 0.6
        for kind in ("uniform", "matched"):
            assert found[kind]["model"] == found[kind]["popularity"] and found[kind]["vectors"] == 0.5

    def test_users_count_once_whatever_they_rated(self):
        """One user of many test ratings, all right, and one of a single one, wrong: a half."""
        users, items = np.array([[1], [-1]] + [[0]] * 43, np.float32), np.zeros((60, 1), np.float32)
        mine = self.train.seen()
        free = [i for i in range(60) if i not in mine[0] and i not in mine[1] and self.train.item_counts[i]]
        items[free[:9]] = 1
        pairs = [(0, i) for i in free[:8]] + [(1, free[8])]
        rows = Ratings(RATINGS.users, RATINGS.items, *map(np.array, zip(*pairs, strict=True)), np.ones(9, np.float32))
        recommender = self.model(users, items)
        recommender.state = recommender.state.replace(held_out=rows.seen())
        found = probe_links(recommender, rows)["uniform"]
        per_pair = (8 * 1 + 0) / 9
        assert abs(found["model"] - 0.5) < 0.1 < abs(found["model"] - per_pair)

    def test_a_scorer_of_its_own_has_no_dot_product(self):
        recommender = self.model(*(np.random.default_rng(1).normal(size=(n, 2)).astype(np.float32) for n in (45, 60)))
        layers = [(np.ones((1, 4), np.float32), np.zeros(1, np.float32))]
        recommender.state = recommender.state.replace(model=replace(recommender.model, layers=layers))
        assert set(probe_links(recommender, self.test)["matched"]) == {"model", "interval", "popularity"}

    def test_cold_and_missing_test_ratings(self):
        recommender = self.perfect()
        counts = np.where(np.isin(np.arange(60), self.test.item), 0, recommender.item_counts)
        recommender.state = recommender.state.replace(item_counts=counts)
        with pytest.raises(DataError, match="no test rating"):
            probe_links(recommender, self.test)
