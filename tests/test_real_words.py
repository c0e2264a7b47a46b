"""Real word vectors and real films: what published figures and common sense expect."""

import json
from pathlib import Path

import pytest
from worlds import recsys

from recsys_embed.words.vectors import WordVectors, read_word_test

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def glove():
    return WordVectors.load("glove-6b-50d")


def test_king_is_to_man_as_queen_to_woman(glove):
    assert len(glove) == 400_000 and glove.dim == 50
    assert glove.analogy("man", "king", "woman", 1)[0][0] == "queen"


@pytest.mark.parametrize(("name", "value"), [("wordsim353.tsv", 0.5033), ("simlex999.txt", 0.2646)])
def test_vectors_agree_with_people(glove, name, value):
    from gensim.test.utils import datapath  # gensim brings both lists of word pairs with its own tests

    pairs, _ = read_word_test(Path(datapath(name)))
    assert glove.evaluate_word_pairs(pairs)["spearman"] == pytest.approx(value, abs=0.001)


def test_films_that_nobody_has_rated_are_ranked_by_title_genres_and_year(tmp_path):
    options = ("--text", "title,genres,year", "--split", "cold-items", "--no-track", "--resamples", "0", "--json")
    cold = json.loads(recsys("train", *options, cwd=tmp_path).stdout)["metrics"]["cold"]
    assert cold["auc"] > 0.77 and cold["ndcg_at_10"] > cold["baselines"]["content_ridge"]["ndcg_at_10"]
