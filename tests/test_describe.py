"""Descriptions: what is a word, what columns hold, and from descriptions to vectors."""

import logging

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_embed.errors import DataError
from recsys_embed.features import ridge
from recsys_embed.features.encoder import WEIGHTS, FeatureEncoder, Features
from recsys_embed.features.ridge import Ridge
from recsys_embed.words import tokens as text
from recsys_embed.words.vectors import WordVectors

TABLE = pl.DataFrame(
    {
        "item_id": np.arange(8),
        "title": ["Red River", "River of no Return", "The Red Shoes", "Blue Velvet", "Blue Red Green", None, "", "Río"],
        "genres": ["Western", "Western|Drama", "Drama", "Drama|Crime", "Drama", "Crime", None, "N/A"],
        "year": ["1948", "1954", "1948", "1986", "", None, "1990", "1948"],
        "plot": ["a long tale of cattle"] * 4 + ["a short tale of men and women in Paris"] * 4,
    }
)
NAMES = ["title", "genres", "year", "plot"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Schindler's List (1993)", ["schindler", "list", "1993"]),
        ("Don’t Look Now", ["don", "look", "now"]),
        ("O'Brien & Rock'n'Roll", ["o", "brien", "rock", "n", "roll"]),
        ("Ａmélie—ＣＡＦÉ_2", ["amélie", "café", "2"]),
        ("हिन्दी фильм 日本映画", ["हिन्दी", "фильм", "日本映画"]),
        ("e\u0301te\u0301", ["été"]),
        (None, []),
        ("…!?", []),
    ],
)
def test_words(given, expected):
    assert text.split_words(pl.Series("t", [given], pl.String))[0].to_list() == expected


@given(st.text(max_size=60))
def test_words_of_words_are_themselves(given):
    once = text.split_words(pl.Series("t", [given]))[0].to_list()
    assert text.split_words(pl.Series("t", [" ".join(once)]))[0].to_list() == once


def test_tags():
    column = pl.Series("t", ["Animation|Children's", "Joel Cohen (screenplay by), Tom  Hanks; joel cohen", "N/A", None])
    assert text.split_tags(column).to_list() == [["animation", "children's"], ["joel cohen", "tom  hanks"], [], []]
    assert text.split_tags(pl.Series("t", [["A", "b"], []])).to_list() == [["a", "b"], []]


def test_kinds_of_columns():
    assert {n: text.infer_kind(TABLE[n]) for n in NAMES} == {
        "title": "words", "genres": "tags", "year": "number", "plot": "words",
    }  # fmt: skip
    assert text.infer_kind(pl.Series([1990, 1991, None])) == "number"
    assert text.infer_kind(pl.Series([None, ""], dtype=pl.String)) == "words"


class TestDescriber:
    encoder = FeatureEncoder.fit(TABLE, NAMES)

    def test_a_block_has_the_length_of_its_kind(self):
        bag, start = self.encoder.transform(TABLE).bag, 0
        for column in self.encoder.columns:
            block = bag[:, start : start + column.size]
            start += column.size
            length = np.asarray(block.multiply(block).sum(axis=1)).ravel()
            assert set(np.round(length, 4)) <= {0.0, round(WEIGHTS[column.kind], 4)} and length.any()

    def test_what_stands_in_one_item_alone_is_no_feature(self):
        tokens = self.encoder.labels().filter(pl.col("column") == "title")["token"].to_list()
        assert tokens == ["blue", "red", "river"]

    def test_near_numbers_are_alike(self):
        alike = [self.years(a) @ self.years("1950").T for a in ("1951", "1960", "1990")]
        assert alike[0].sum() > 0.8 > alike[1].sum() > alike[2].sum()

    def years(self, value):
        return self.encoder.transform(pl.DataFrame({"year": [value]})).bag

    def test_a_number_beyond_the_range_counts_as_its_end(self):
        assert np.array_equal(self.years("2030").toarray(), self.years("1990").toarray())

    def test_types_of_columns(self):
        lists = pl.Series("t", [["Smith, John", "b"], None])
        assert text.split_tags(lists).to_list() == [["smith, john", "b"], []]
        assert text.split_words(lists).to_list() == [["smith", "john", "b"], []]
        assert text.split_tags(pl.Series("t", ["a|b"], pl.Categorical)).to_list() == [["a", "b"]]
        with pytest.raises(DataError, match="item column 't' holds Binary"):
            text.infer_kind(pl.Series("t", [b"x"]))
        named = FeatureEncoder.fit(TABLE.rename({"genres": "count"}), ["count"])
        assert "drama" in named.columns[0].entries

    def test_words_that_nobody_uses_are_refused(self):
        with pytest.raises(DataError, match="has a vector for none of the words of title"):
            words = WordVectors.of(pl.Series(["zzz", "yyy"]), np.eye(2, dtype=np.float32), "mine")
            FeatureEncoder.fit(TABLE.select("item_id", "title"), ["title"], words=words)

    def test_what_is_not_known_is_zero(self):
        assert self.encoder.transform(pl.DataFrame({"other": ["x"]})).bag.nnz == 0
        assert self.encoder.transform(pl.DataFrame({"title": ["unheard of"], "year": ["soon"]})).bag.nnz == 0

    def test_coverage(self):
        share = self.encoder.coverage(
            pl.DataFrame({"title": ["Red Nothing", "River", None], "plot": [None, "a", None]})
        )
        assert share.to_list() == [0.5, 1.0, None]

    def test_it_is_restored_to_the_bit(self):
        words = WordVectors.of(pl.Series(["red", "tale", "sea"]), np.eye(3, dtype=np.float32))
        vectors = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
        for encoder in (
            FeatureEncoder.fit(TABLE, NAMES, words=words, vectors=vectors),
            FeatureEncoder.fit(TABLE, ["plot"], words=words).with_trained_words(np.full((3, 3), 0.5, np.float32)),
        ):
            arrays, frames, facts = encoder.serialize()
            again = FeatureEncoder.deserialize(arrays, frames, facts)
            given = vectors if len(encoder.vector_centre) else None
            one, other = (d.transform(TABLE, given) for d in (encoder, again))
            assert (one.bag != other.bag).nnz == 0 and np.array_equal(one.dense, other.dense)

    def test_ready_made_words_are_weighted_means(self):
        words = WordVectors.of(pl.Series(["red", "river"]), np.array([[1, 0], [0, 1]], np.float32))
        encoder = FeatureEncoder.fit(TABLE.select("item_id", "title"), ["title"], words=words)
        bag = encoder.word_bag(pl.DataFrame({"title": ["red red river", "nothing"]})).toarray()
        counts = {"red": 3, "river": 2}
        weight = {w: np.log(1 + 8 / n) for w, n in counts.items()}
        expected = np.array([(1 + np.log(2)) * weight["red"], weight["river"]])
        np.testing.assert_allclose(bag[0], expected / expected.sum(), rtol=1e-5)
        assert not bag[1].any() and not encoder.transform(pl.DataFrame({"title": ["nothing"]})).dense.any()

    def test_errors(self):
        with pytest.raises(DataError, match="no column 'plott'; it has item_id, title"):
            FeatureEncoder.fit(TABLE, ["plott"])
        with pytest.raises(DataError, match="nothing to describe"):
            FeatureEncoder.fit(TABLE, [])

    def test_a_query_names_tags_and_weighs_rare_words(self):
        bag = self.encoder.encode_text("a drama about a red river").bag.toarray()[0]
        found = {token: value for token, value in zip(self.encoder.labels()["token"], bag, strict=True) if value}
        assert {"drama", "red", "river"} <= set(found) and found["river"] > found.get("a", 0)


def world(n=30, f=6, d=4, seed=0):
    from scipy import sparse

    random = np.random.default_rng(seed)
    bag = sparse.random(n, f, 0.5, "csr", random_state=1, dtype=np.float32)
    dense = random.normal(size=(n, 3)).astype(np.float32)
    counts = random.integers(0, 6, n)
    counts[:4] = 0
    return Features(bag, dense), counts, random.normal(size=(n, d)).astype(np.float32)


class TestRidge:
    def plain(self, features, counts, targets, lambda_, left_out=None):
        """Weighted ridge regression by its normal equations, on the features themselves."""
        rows = np.flatnonzero(counts)
        x = np.column_stack((features.bag.toarray(), features.dense)).astype(float)
        weight = (counts / counts[rows].mean()) ** 0.5
        centre = np.average(targets[rows], axis=0, weights=weight[rows])
        scale = (x[rows] ** 2).sum(axis=1).mean()
        kept = rows[rows != left_out]
        gram = (x[kept] * weight[kept, None]).T @ x[kept] + lambda_ * scale * np.eye(x.shape[1])
        return x @ np.linalg.solve(gram, (x[kept] * weight[kept, None]).T @ (targets[kept] - centre)) + centre

    @pytest.mark.parametrize("exact", [True, False])
    def test_it_is_weighted_ridge_regression(self, monkeypatch, exact):
        monkeypatch.setattr(ridge, "LAMBDAS", np.array([0.3]))
        if not exact:  # nine features have nine directions, so twelve random ones find them all
            monkeypatch.setattr(ridge, "_MAX_EXACT", 0)
            monkeypatch.setattr(ridge, "_RANK", 12)
        features, counts, targets = world()
        found = Ridge(features, counts).fit(targets)
        np.testing.assert_allclose(found(features), self.plain(features, counts, targets, 0.3), atol=2e-5)

    def test_lambda_has_the_least_leave_one_out_error(self, monkeypatch):
        features, counts, targets = world()
        targets += 3 * features.bag[:, :4].toarray()
        errors = {}
        for lambda_ in ridge.LAMBDAS:
            errors[lambda_] = 0.0
            for row in np.flatnonzero(counts):
                own = self.plain(features, counts, targets, lambda_, left_out=row)[row, :-1] - targets[row, :-1]
                errors[lambda_] += counts[row] ** 0.5 * float((own**2).sum())
        best = min(errors, key=errors.get)
        found = Ridge(features, counts).fit(targets)(features)[:, :-1]
        np.testing.assert_allclose(found, self.plain(features, counts, targets, best)[:, :-1], atol=2e-5)

    def test_of_many_items_those_with_the_most_ratings_teach(self, monkeypatch):
        features, counts, targets = world()
        monkeypatch.setattr(ridge, "_MAX_ITEMS", 9)
        least = np.sort(counts)[-9]
        chosen = np.argsort(-counts, kind="stable")[:9]
        fewer = np.where(np.isin(np.arange(len(counts)), chosen), counts, 0)
        assert fewer.sum() and (counts[chosen] >= least).all()
        one, two = (Ridge(features, c).fit(targets) for c in (counts, fewer))
        assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(one, two, strict=True))

    def test_vectors_and_biases_have_each_their_own_lambda(self):
        features, counts, targets = world()
        x = np.column_stack((features.bag.toarray(), features.dense))
        sure = x @ np.random.default_rng(2).normal(size=(x.shape[1], 1))
        found = [
            Ridge(features, counts).fit(np.column_stack((targets[:, :3], last)).astype(np.float32))(features)
            for last in (100 * sure, targets[:, 3:])
        ]
        assert np.array_equal(found[0][:, :3], found[1][:, :3])
        noise = np.column_stack((1000 * targets[:, :3], targets[:, 3:])).astype(np.float32)
        assert np.array_equal(found[1][:, 3], Ridge(features, counts).fit(noise)(features)[:, 3])

    def test_the_first_directions_come_near(self, monkeypatch):
        features, counts, targets = world(f=12)
        exact = Ridge(features, counts).fit(targets)(features)
        monkeypatch.setattr(ridge, "_MAX_EXACT", 0)
        monkeypatch.setattr(ridge, "_RANK", 13)
        assert np.abs(Ridge(features, counts).fit(targets)(features) - exact).mean() < 0.05

    def test_items_without_ratings_teach_nothing(self):
        features, counts, targets = world()
        other = np.where((counts > 0)[:, None], targets, 99).astype(np.float32)
        one, two = (Ridge(features, counts).fit(t) for t in (targets, other))
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_the_kinds_found_are_told(caplog):
    with caplog.at_level(logging.INFO, "recsys_embed"):
        FeatureEncoder.fit(TABLE, ["genres"], {"genres": "words"})
    assert "genres as words" in caplog.text
