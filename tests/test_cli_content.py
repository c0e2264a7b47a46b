"""Words and descriptions on the command line, run as a user runs it."""

import json

import numpy as np
import polars as pl
import pytest
from worlds import recsys_here

from recsys_embed.errors import DataError, SettingError
from recsys_embed.sources import synthetic
from recsys_embed.words.vectors import WordVectors

WORDS = ["king", "queen", "man", "woman", "comedy", "war"]
VECTORS = np.array([[1, 1, 0], [1, -1, 0], [0.2, 1, 0.1], [0.2, -1, 0.1], [0, 0, 1], [0.1, 0, -1]], np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with word vectors, a world of films one of which nobody has rated, and a model of both."""
    folder = tmp_path_factory.mktemp("content")
    WordVectors.of(pl.Series(WORDS), VECTORS).save(folder / "words.safetensors")
    ratings, films = synthetic.generate(80, 60, 1500)
    ratings.write_csv(folder / "ratings.csv")
    new = pl.DataFrame({"item_id": [900], "title": ["A War Nobody Saw (1990)"], "year": [1990], "genres": ["War"]})
    pl.concat([films, new], how="vertical_relaxed").write_csv(folder / "films.csv")
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    options = ["--dataset", "ratings.csv", "--items", "films.csv", "--text", "title,genres,year"]
    options += ["--vectors", "words.safetensors", "--split", "cold-items", "--epochs", "4", "--dim", "8"]
    done = recsys_here("train", *options, "--no-track", "--resamples", "50", "--json", cwd=folder)
    return json.loads(done.stdout), done.stderr


def test_a_training_says_what_it_read_and_how_cold_items_fare(trained):
    report, notes = trained
    assert "items: genres as tags" in notes and "of the words of an item" in notes
    cold = report["metrics"]["cold"]
    assert {"ndcg_at_10", "recall_at_20", "auc", "all", "baselines"} <= set(cold)
    assert set(cold["baselines"]) == {"random", "content_mean", "word_neighbours", "content_ridge"}
    assert report["settings"]["text"] == "title,genres,year"


def test_an_evaluation_measures_cold_items_again(folder, trained):
    report = json.loads(recsys_here("evaluate", "--json", cwd=folder).stdout)
    cold = trained[0]["metrics"]["cold"]
    assert report["metrics"]["cold"]["auc"] == pytest.approx(cold["auc"], abs=1e-6)
    assert report["metrics"]["ndcg_at_10"] == pytest.approx(trained[0]["metrics"]["test"]["ndcg_at_10"], abs=1e-6)


def test_an_unrated_row_of_the_item_table_is_recommendable(folder, trained):
    found = json.loads(recsys_here("recommend", "--user", "1", "--k", "61", "--json", cwd=folder).stdout)["items"]
    assert 900 in [entry["item"] for entry in found]
    near = json.loads(recsys_here("similar", "--item", "a war nobody saw", "--k", "3", "--json", cwd=folder).stdout)[
        "items"
    ]
    assert len(near) == 3


def test_search_and_its_errors(folder, trained):
    found = json.loads(recsys_here("search", "a film about war", "--k", "4", "--json", cwd=folder).stdout)
    genres = dict(pl.read_csv(folder / "films.csv").select("item_id", "genres").rows())
    assert len(found["items"]) == 4 and all(genres[i["item"]] == "War" for i in found["items"])
    words = json.loads(recsys_here("search", "--item", "900", "--k", "3", "--json", cwd=folder).stdout)["words"]
    assert {"column", "token", "score", "rank"} == set(words[0])
    assert "Nearest to 'war'" in recsys_here("search", "war", cwd=folder).stdout
    assert "say what to look for" in recsys_here("search", cwd=folder, code=2).stderr
    assert "knows no word of 'qqq'" in recsys_here("search", "qqq", cwd=folder, code=4).stderr
    assert "--images FOLDER" in recsys_here("search", "--image", "films.csv", cwd=folder, code=2).stderr


def test_descriptions_that_are_not_there(folder):
    train = ("train", "--dataset", "ratings.csv", "--no-track")
    assert "give its file with --items" in recsys_here(*train, "--text", "title", cwd=folder, code=3).stderr
    unknown = recsys_here(*train, "--items", "films.csv", "--text", "plot", cwd=folder, code=3).stderr
    assert "no column 'plot'; it has item_id, title, year, genres" in unknown


def inside(*args):
    """Run a command in this process, which is quicker, and return its JSON."""
    from typer.testing import CliRunner

    from recsys_embed.cli.main import app

    done = CliRunner().invoke(app, [*map(str, args), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_words(folder):
    own = ("--vectors", folder / "words.safetensors")
    near = inside("words", "similar", "king", *own, "--k", 2)
    assert near["words"][0] == {"word": "man", "score": pytest.approx(0.828, abs=0.01)}
    assert inside("words", "analogy", "man", "king", "woman", *own)["words"][0]["word"] == "queen"
    assert inside("words", "info", *own)["dim"] == 3
    (folder / "pairs.txt").write_text("king man 9\nking queen 3\nking war 1\n")
    (folder / "questions.txt").write_text(": family\nman king woman queen\n")
    pairs = inside("words", "evaluate", folder / "pairs.txt", *own)
    assert pairs["pairs"] == 3 and -1 <= pairs["spearman"] <= 1
    questions = inside("words", "evaluate", folder / "questions.txt", *own)
    assert questions == {"accuracy": 1.0, "questions": 1, "left_out": 0}


def test_errors_of_words_are_one_line(folder):
    own = ("--vectors", "words.safetensors")
    assert (
        "word kng is not known; 6 words are" in recsys_here("words", "similar", "kng", *own, cwd=folder, code=4).stderr
    )
    assert "no word vectors 'golve'" in recsys_here("words", "info", "--vectors", "golve", cwd=folder, code=3).stderr
    with pytest.raises(SettingError, match=r"must end in .png"):
        inside("words", "plot", *WORDS, "--vectors", folder / "words.safetensors", "--out", "w.txt")


def test_words_are_trained_and_texts_classified(folder):
    given = ("--text", folder / "films.csv", "--column", "title")
    assert inside("words", "train", *given, "--dim", 5, "--out", folder / "own.safetensors")["dim"] == 5
    assert WordVectors.load(folder / "own.safetensors").dim == 5
    report = inside("words", "classify", *given, "--label", "War", "--epochs", 2)
    assert report["summary"][0]["output"] == "(None, 100, 128)" and report["summary"][0]["parameters"] == 1_280_000
    with pytest.raises(DataError, match="no text has the label 'Nothing'"):
        inside("words", "classify", *given, "--label", "Nothing")
