"""A family of models is one file and one line in the registry: `cooccurrence.py` answers as embeddings do."""

import numpy as np
import polars as pl
import pytest
from worlds import tastes

from recsys_embed import Recommender, Rules, evaluate, split_random
from recsys_embed.config.settings import DataConfig, ModelConfig, RunConfig
from recsys_embed.errors import BundleError, SettingError
from recsys_embed.experiment.run import run_experiment
from recsys_embed.models import registry

RATINGS, TABLE, _ = tastes()
TRAIN, _, TEST = split_random(RATINGS, 0.0, 0.2)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(registry.FAMILIES, "cooccurrence", "cooccurrence:FAMILY")


@pytest.fixture
def model():
    return Recommender(ModelConfig(model_family="cooccurrence")).fit(TRAIN, TABLE, held_out=TEST)


def naive(model, history):
    scores = sum(model.model.weights[item] for item in history)
    scores[list(history)] = -np.inf
    return model.items.ids(np.argsort(-scores, kind="stable")[:5]).to_list()


def test_lists_of_known_and_new_users(model):
    assert model.recommend(7, k=5)["item_id"].to_list() == naive(model, model.seen[7])
    assert model.recommend_for([3, 17], k=5)["item_id"].to_list() == naive(model, (3, 17))
    assert evaluate(model, TEST, resamples=0).metrics["ndcg_at_10"] > 0.3


def test_rules_and_neighbours(model):
    rules = Rules(where="'red' in kind", boost="item_id == 1: 900", diversity=0.2)
    found = model.recommend(2, k=60, rules=rules)["item_id"].to_list()
    assert found[0] == 1 or 1 in model.seen[2]
    assert set(found) <= set(TABLE.filter(pl.col("kind").str.contains("red"))["item_id"])
    assert model.similar(3, 4).height == 4


def test_explanations_add_up(model):
    for found in (model.explain(7, 33, 99), model.explain(None, 33, 99, likes=[3, 17])):
        assert sum(found.components.values()) == pytest.approx(found.score)
        assert sum(own["value"] for own in found.evidence) == pytest.approx(found.components["collaborative"])


def test_new_ratings(model):
    liked = [item for item in range(60) if item not in model.seen[7]][:2]
    model.update(pl.DataFrame({"user": [7, 7, 900, 900], "item": [*liked, 3, 17]}))
    assert model.recommend(7, k=5)["item_id"].to_list() == naive(model, model.seen[7])
    assert model.recommend(900, k=5)["item_id"].to_list() == naive(model, (3, 17))


def test_a_folder_says_of_which_family_it_is(model, tmp_path, monkeypatch):
    loaded = Recommender.load(model.save(tmp_path / "m"))
    assert loaded.recommend(k=5).equals(model.recommend(k=5)) and loaded.metadata == model.metadata
    monkeypatch.delitem(registry.FAMILIES, "cooccurrence")
    with pytest.raises(BundleError, match="family 'cooccurrence'"):
        Recommender.load(tmp_path / "m")


def test_what_needs_embeddings_says_so(model):
    with pytest.raises(SettingError, match="this needs embeddings"):
        model.use_index("approximate")


def test_a_whole_run_of_another_family(tmp_path):
    run = RunConfig(track=False, out=str(tmp_path / "m"), resamples=0)
    data = DataConfig("synthetic:users=60,items=40,ratings=1200")
    recommender, report = run_experiment(data, ModelConfig(model_family="cooccurrence"), run=run)
    assert report["metrics"]["test"]["ndcg_at_10"] > report["metrics"]["baselines"]["popularity"]["ndcg_at_10"] * 0.9
    assert Recommender.load(tmp_path / "m").recommend(k=3).equals(recommender.recommend(k=3))
    with pytest.raises(
        SettingError,
        match="model-family must be one of auto, embeddings, neighbours, ease, both, cooccurrence, got 'none'",
    ):
        run_experiment(data, ModelConfig(model_family="none"), run=run)
