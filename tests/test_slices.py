"""A test in parts: the parts are what they say, and together they are the whole."""

import datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from worlds import small

from recsys_embed.data.splits import split_random
from recsys_embed.errors import SettingError
from recsys_embed.evaluation import slices
from recsys_embed.evaluation.evaluate import evaluate
from recsys_embed.evaluation.slices import (
    ItemGroups,
    by_column,
    by_popularity,
    exposure_summary,
    item_group_metrics,
    user_group_metrics,
)
from recsys_embed.models.popularity import popularity
from recsys_embed.models.ranker import Ranker
from recsys_embed.recommender import Recommender
from recsys_embed.sources.load import load_dataset

CATALOG = load_dataset("synthetic:users=60,items=40,ratings=900")
TRAIN, _, TEST = split_random(CATALOG.ratings, 0.0, 0.3)
TRAIN = TRAIN.take(TRAIN.item != 7)  # one item is cold


@pytest.fixture(scope="module")
def fitted():
    recommender = Recommender(*small("softmax", epochs=3)).fit(TRAIN, CATALOG.items)
    return recommender, evaluate(recommender, TEST, (5,))


@given(arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 30)))
def test_popularity_parts_the_ratings_in_thirds(counts):
    names, members, _ = by_popularity(counts)
    assert names == ["head", "mid", "tail"]
    assert (members.sum(axis=1) == (counts > 0)).all()
    heights = [counts[mine] for mine in members.T]
    for more, fewer in ((0, 1), (0, 2), (1, 2)):
        assert heights[more].min(initial=99) >= heights[fewer].max(initial=0)
    for mine in heights:  # as near to a third as whole items allow
        assert abs(mine.sum() - counts.sum() / 3) <= counts.max()


@given(arrays(np.float64, st.integers(1, 40), elements=st.integers(0, 12)))
def test_quarters_hold_every_value_once(values):
    parts = slices._quarters(values)
    inside = [(values >= low) & (values <= high) for low, high in parts]
    assert (np.sum(inside, axis=0) == 1).all() and len(parts) <= 4
    if len(np.unique(values)) == len(values) >= 4:
        assert len(parts) == 4 and np.ptp([mine.sum() for mine in inside]) <= 1


class TestOfItems:
    ranker, seen, counts = popularity(TRAIN), TRAIN.seen(), TRAIN.item_counts

    def measure(self, groups, k=5, resamples=0):
        return item_group_metrics(self.ranker, TEST, self.seen, self.counts, groups, k, resamples)

    def test_groups_are_what_a_loop_over_users_finds(self):
        groups = ItemGroups(["a", "b"], np.random.default_rng(0).random((40, 2)) < 0.4)  # they overlap, and 7 may be in
        order = sorted(range(40), key=lambda i: (-self.counts[i], i))
        for row, mine in zip(self.measure(groups), groups.members.T, strict=True):
            recalls, shown, places, wanted_in_all = [], [], 0, 0
            for user in range(60):
                wanted = [i for i in TEST.seen()[user] if self.counts[i]]
                if not wanted:
                    continue
                ranked = [i for i in order if self.counts[i] and i not in self.seen[user]][:5]
                places += len(ranked)
                shown += [i for i in ranked if mine[i]]
                inside = [i for i in wanted if mine[i]]
                wanted_in_all += len(wanted)
                if inside:
                    recalls.append(sum(i in ranked for i in inside) / len(inside))
            assert row["recall"] == pytest.approx(np.mean(recalls)) and row["users"] == len(recalls)
            assert row["shown"] == pytest.approx(len(shown) / places)
            assert row["coverage"] == pytest.approx(len(set(shown)) / mine.sum())
            assert row["train"] == pytest.approx(self.counts[mine].sum() / self.counts.sum())
            assert row["test"] == pytest.approx(row["test_ratings"] / wanted_in_all)

    def test_a_group_of_all_is_the_whole(self, fitted):
        recommender, report = fitted
        ranker, groups = Ranker.of(recommender.model), ItemGroups(["all"], (self.counts > 0)[:, None])
        (row,) = item_group_metrics(ranker, TEST, self.seen, self.counts, groups, 5, 100)
        assert row["recall"] == pytest.approx(report.metrics["recall_at_5"]) and row["users"] == report.users
        assert row["coverage"] == pytest.approx(report.metrics["coverage_at_5"])
        assert (row["train"], row["test"], row["shown"], row["test_ratings"]) == (1, 1, 1, report.rows)
        assert row["recall_interval"][0] < row["recall"] < row["recall_interval"][1]

    def test_parts_of_popularity_add_up(self):
        rows = self.measure(by_popularity(self.counts))
        for share in ("train", "test", "shown"):
            assert sum(row[share] for row in rows) == pytest.approx(1)
        assert rows[0]["shown"] > 0.9 and rows[2]["recall"] == 0  # popularity shows what is popular

    def test_few_users_have_no_interval_and_none_no_value(self):
        nobody = np.zeros((40, 1), bool)
        (row,) = self.measure(ItemGroups(["none"], nobody), resamples=50)
        assert row["recall"] is None and row["recall_interval"] is None and row["users"] == 0
        rare = int(np.argmin(np.where((TEST.item_counts > 0) & (self.counts > 0), TEST.item_counts, 99)))
        (row,) = self.measure(ItemGroups(["rare"], (np.arange(40) == rare)[:, None]), resamples=50)
        assert 0 < row["users"] < 10 and row["recall"] is not None and row["recall_interval"] is None


class TestOfUsers:
    def test_the_parts_are_the_whole(self, fitted):
        recommender, report = fitted
        part = slices.evaluate_slices(recommender, TEST, report, "activity", 5)
        users = [row["users"] for row in part.rows]
        assert sum(users) == report.users and len(users) == 4
        for name in ("ndcg", "recall", "hit"):
            means = [row[name] for row in part.rows]
            assert np.average(means, weights=users) == pytest.approx(report.metrics[f"{name}_at_5"])
        ends = [int(n) for row in part.rows for n in row["name"].split(" to ")]
        assert ends == sorted(ends)

    def test_history_is_that_of_the_user(self, fitted):
        """Rows of per_user may stand in any order of users."""
        recommender, report = fitted
        (first, *_), history = (
            slices.evaluate_slices(recommender, TEST, report, "activity", 5).rows,
            recommender.seen.count,
        )
        low, high = map(int, first["name"].split(" to "))
        mine = [u for u in report.per_user["user_id"] if low <= history[recommender.users.rows([u])[0]] <= high]
        expected = report.per_user.filter(pl.col("user_id").is_in(mine))["ndcg_at_5"].mean()
        assert first["users"] == len(mine) and first["ndcg"] == pytest.approx(expected)

    def test_nobodys_history_is_a_part_of_its_own_and_equals_stay_together(self):
        names = [f"{n}_at_5" for n in ("ndcg", "recall", "precision", "mrr", "hit")]
        per_user = pl.DataFrame({"user_id": range(8), **dict.fromkeys(names, np.arange(8.0))})
        rows = user_group_metrics(per_user, np.array([0, 0, 3, 3, 3, 3, 3, 9]), 5)
        assert [(r["name"], r["users"], r["ndcg"]) for r in rows] == [("0", 2, 0.5), ("3", 5, 4.0), ("9", 1, 7.0)]


class TestColumns:
    table = pl.DataFrame(
        {
            "item_id": range(12),
            "title": [f"thing {n}" for n in range(12)],
            "genres": ["A|B", "a", None, "B", "", "A", "B", "C", "C", "A", "B", "C"],
            "year": [1989, 1990, 1999, 2000, None, 2001, 2001, 2001, 2001, 2001, 2001, 2001],
            "price": [1.5 * n for n in range(12)],
            "same": ["x"] * 12,
            "day": [datetime.date(1980 + 2 * n, 1, 1) for n in range(12)],
            "names": [["p", "q"], ["p"], *[["q"]] * 10],
            "plot": [f"long text number {n} of words" for n in range(12)],
        }
    )
    counts = np.array([1] * 11 + [0])

    def groups(self, name):
        names, members, _ = by_column(self.table, self.counts, name)
        return {group: np.flatnonzero(mine).tolist() for group, mine in zip(names, members.T, strict=True)}

    def test_tags_overlap_and_what_is_not_known_stands_last(self):
        found = self.groups("genres")
        assert found == {"a": [0, 1, 5, 9], "b": [0, 3, 6, 10], "c": [7, 8], "(unknown)": [2, 4]}
        assert list(found) == ["a", "b", "c", "(unknown)"]

    def test_years_are_decades_and_other_numbers_quarters(self):
        assert self.groups("year") == {"1980s": [0], "1990s": [1, 2], "2000s": [3, *range(5, 11)], "(unknown)": [4]}
        assert self.groups("day")["1990s"] == [5, 6, 7, 8, 9]
        quarters = self.groups("price")
        assert list(quarters) == ["0 to 3", "4.5 to 6", "7.5 to 10.5", "12 to 15"]
        # Each item once, and not the cold one.
        assert sorted(item for mine in quarters.values() for item in mine) == list(range(11))

    def test_lists_are_tags(self):
        assert self.groups("names") == {"q": [0, *range(2, 11)], "p": [0, 1]}

    @pytest.mark.parametrize("name", ["title", "plot", "item_id", "nothing"])
    def test_a_name_that_parts_nothing_lists_those_that_do(self, name):
        with pytest.raises(SettingError, match="popularity, activity, genres, year, price, same, day, names$"):
            slices.check_slice_name(self.table, name)
        with pytest.raises(SettingError, match="the same value in the column 'same'"):
            slices.check_slice_name(self.table, "same")

    def test_many_tags_leave_the_smallest_out(self, monkeypatch):
        monkeypatch.setattr(slices, "MAX_GROUPS", 2)
        names, members, left_out = by_column(self.table, self.counts, "genres")
        assert names == ["a", "b", "(unknown)"] and left_out == 1
        assert np.flatnonzero(members[:, 2]).tolist() == [2, 4]  # of 7 and 8 something is known, if rare

    def test_numbers_that_read_alike_are_parted_all_the_same(self):
        table = self.table.with_columns(price=pl.Series([1e9 + n for n in range(12)]))
        names, members, _ = by_column(table, np.ones(12), "price")
        assert names[0] == "1000000000 to 1000000002" and members.sum(axis=0).tolist() == [3, 3, 3, 3]

    def test_numbers_are_parted_by_the_rated_items(self):
        counts = np.where(np.arange(12) < 4, 1, 0)
        names, members, _ = by_column(self.table, counts, "price")
        assert names == ["0", "1.5", "3", "4.5"] and (members.sum(axis=0) == 1).all()


def test_exposure_counts_places():
    shown, counts = np.array([6, 0, 2, 2, 50]), np.array([1, 1, 1, 1, 0])
    found = exposure_summary(shown, counts)
    assert (found["coverage"], found["half"]) == (0.75, 1) and found["gini"] == pytest.approx(0.45)
    assert exposure_summary(np.array([4, 3, 3]), np.ones(3))["half"] == 2
    assert exposure_summary(np.zeros(3, int), np.ones(3)) == {"coverage": 0, "gini": 0, "half": 0}
