"""recsys evaluate --by and --probe, run as a user runs them."""

import json

import polars as pl
import pytest
from worlds import recsys_here, small

from recsys_embed.config.settings import DataConfig, RunConfig
from recsys_embed.experiment.run import run_experiment
from recsys_embed.recommender import Recommender

WORLD = "synthetic:users=60,items=60,ratings=1200"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model whose item table has two tags more."""
    folder = tmp_path_factory.mktemp("parts")
    run = RunConfig(out=str(folder / "models" / "one"), track=False, baselines=False, resamples=0)
    run_experiment(DataConfig(WORLD), *small("softmax", epochs=3), run)
    recommender = Recommender.load(folder / "models" / "one")
    halves = pl.Series(["low" if n < 30 else "high" for n in range(60)])
    recommender.state = recommender.state.replace(table=recommender.table.with_columns(half=halves))
    recommender.save(folder / "models" / "one")
    return folder


def said(folder, *options):
    return json.loads(recsys_here("evaluate", *options, "--json", cwd=folder).stdout)


@pytest.mark.slow
def test_popularity_says_the_same_to_people_and_machines(folder):
    found = said(folder, "--by", "popularity")
    part = found["by"]
    assert (part["by"], part["side"], part["k"]) == ("popularity", "items", 10)
    assert part["exposure"]["coverage"] == found["metrics"]["coverage_at_10"]
    assert part["exposure"]["gini"] == found["metrics"]["gini_at_10"]
    lines = recsys_here("evaluate", "--by", "popularity", cwd=folder).stdout.splitlines()
    assert f"Gini {part['exposure']['gini']:.3f}" in lines[2 if "left out" not in lines[1] else 3]
    for row in part["rows"]:
        (line,) = [line.split() for line in lines if line.startswith(row["name"])]
        assert line[1] == str(row["items"]) and line[2] == f"{row['train']:.1%}" and f"{row['recall']:.4f}" in line
        assert str(row["users"]) in line


def test_activity_has_a_length_of_its_own(folder):
    found = said(folder, "--by", "activity", "--k", "3")
    assert found["by"]["k"] == 3 and sum(row["users"] for row in found["by"]["rows"]) == found["metrics"]["users"]
    shown = recsys_here("evaluate", "--by", "activity", "--k", "3", cwd=folder).stdout
    assert "ndcg_at_3" in shown and all(f"{row['ndcg']:.4f}" in shown for row in found["by"]["rows"])


@pytest.mark.slow
def test_a_column_parts_and_is_probed(folder):
    names = [row["name"] for row in said(folder, "--by", "half")["by"]["rows"]]
    assert sorted(names) == ["high", "low"]
    found = said(folder, "--probe", "half")["probe"]
    assert found["of"] == "half" and [tag["items"] for tag in found["tags"]] == [30, 30]
    shown = recsys_here("evaluate", "--probe", "half", cwd=folder).stdout
    assert f"mean AUC {found['auc']:.3f}; from popularity alone {found['popularity']:.3f}" in shown


def test_links_are_probed(folder):
    found = said(folder, "--probe", "links")["probe"]
    shown = recsys_here("evaluate", "--probe", "links", cwd=folder).stdout
    for kind, title in (("uniform", "any item"), ("matched", "as popular")):
        (line,) = [line for line in shown.splitlines() if line.startswith(title)]
        for row in ("model", "vectors", "popularity"):
            assert f"{found[kind][row]:.3f}" in line
    assert f"{found['rows']:,} test ratings of {found['users']} users" in shown


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (
            ("--by", "director"),
            2,
            "'director' is not a column of the item table; what can be named is popularity, ",
        ),
        (("--by", "title"), 2, "'title' is not a column of tags or numbers"),
        (("--probe", "popularity"), 2, "what can be named is links, year, genres, half"),
        (("--probe", "genres"), 3, "no part of the column 'genres' has 20 rated items"),
        (("--by", "half", "--probe", "half"), 2, "give one of them"),
        (("--by", "half", "--k", "0"), 2, "--k must be at least 1"),
    ],
)
def test_what_cannot_be_done_is_one_line(folder, options, code, message):
    done = recsys_here("evaluate", *options, cwd=folder, code=code)
    assert message in done.stderr and len(done.stderr.splitlines()) == 1 and not done.stdout
