"""Item neighbours beside embeddings: one contract for every family, and how the mixture is chosen."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from services import serving
from typer.testing import CliRunner
from worlds import dense, tastes

from recsys_embed import Recommender, Rules, evaluate, split_random
from recsys_embed.answering.profile import profile_of
from recsys_embed.cli.main import app
from recsys_embed.config.settings import ContentConfig, ModelConfig, TrainConfig
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import SettingError
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.models.ease import Ease
from recsys_embed.models.hybrid import HybridModel
from recsys_embed.models.item_weights import Histories
from recsys_embed.models.popularity import popularity
from recsys_embed.training.hybrid import POWERS

RATINGS, TABLE, _ = tastes()
TRAIN, VALID, TEST = split_random(RATINGS, 0.1, 0.2)
FAMILIES = ("embeddings", "neighbours", "ease", "both")


def fit(family, **model):
    return Recommender(ModelConfig(model_family=family, dim=8, **model), TrainConfig(epochs=3)).fit(
        TRAIN, TABLE, held_out=TEST
    )


@pytest.fixture(scope="module")
def models():
    return {family: fit(family) for family in FAMILIES}


# One contract for every family.


def scores_of(model, user):
    return model.model.score(model.model.queries(np.array([user])))[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_and_what_is_saved_answers_alike(family, models, tmp_path):
    model = models[family]
    assert model.model.family == family and model.metadata["settings"]["model_family"] == family
    popular = rank_metrics(popularity(TRAIN), TEST, TRAIN.excluded(), TRAIN.item_counts).metrics["ndcg_at_10"]
    assert evaluate(model, TEST, resamples=0).metrics["ndcg_at_10"] > popular
    loaded = Recommender.load(model.save(tmp_path / "m"))
    assert loaded.recommend(k=5).equals(model.recommend(k=5)) and loaded.metadata == model.metadata
    assert loaded.predict([7, 7, 3], [33, 2, 1]).tolist() == pytest.approx(
        model.predict([7, 7, 3], [33, 2, 1]).tolist()
    )
    mapped = Recommender.load(tmp_path / "m", mmap=True)
    assert mapped.recommend([7, 3], k=5).equals(model.recommend([7, 3], k=5))


@pytest.mark.parametrize("family", FAMILIES)
def test_explanations_add_up_for_everybody(family, models):
    model = models[family]
    for found in (
        model.explain(7, 33, 99),
        model.explain(7, 33, 99, likes=[3, 17], dislikes=[1]),
        model.explain(None, 33, 99, likes=[3, 17]),
        model.explain(None, 33, 2, likes=[3, 17, 20, 21], ratings={5: 1.0}),
    ):
        assert sum(found.components.values()) == pytest.approx(found.score, abs=1e-4)
        if found.remainder is not None:
            parts = sum(e["value"] for e in found.evidence) + found.remainder["value"]
            parts += found.remainder.get("vector", 0.0)
            personal = sum(found.components.get(name, 0) for name in ("collaborative", "neighbours", "text"))
            assert parts == pytest.approx(personal, abs=1e-3)
        elif family != "embeddings":
            pytest.fail("a model with neighbours says what each item adds")


def test_the_service_explains_takes_events_and_counts_neighbours(models, tmp_path):
    folder = models["both"].save(tmp_path / "m")
    best = models["both"].recommend(7, k=1)["item_id"][0]
    with serving(folder, tmp_path / "events.db") as (client, _):
        told = client.post("/explain", {"user": 7, "item": 33})[1]
        assert sum(told["parts"].values()) == pytest.approx(told["score"], abs=1e-4)
        client.post("/events", {"events": [{"user": 7, "item": int(best)}]})
        assert best not in [entry["item"] for entry in client.get("/recommend?user=7&k=60")[1]["items"]]
        similar = client.get("/similar?item=3&by=neighbours&k=4")[1]
        assert similar["by"] == "neighbours" and all(entry["together"] > 0 for entry in similar["items"])
        assert client.get("/similar?item=3&k=4")[1]["by"] == "embeddings"
    runner = CliRunner()
    listed = runner.invoke(
        app, ["similar", "--model", str(folder), "--item", "3", "--k", "4", "--by", "neighbours", "--json"]
    )
    assert json.loads(listed.stdout)["items"] == similar["items"]
    shown = runner.invoke(app, ["similar", "--model", str(folder), "--item", "3", "--by", "neighbours"])
    assert "together" in shown.stdout


@pytest.mark.parametrize("family", FAMILIES)
def test_updating_step_by_step_is_updating_at_once(family, models):
    liked = [item for item in range(60) if item not in models[family].seen[7]][:3]
    frame = pl.DataFrame({"user": [7, 7, 7, 900, 900], "item": [*liked, 3, 17]})
    once, steps = fit(family), fit(family)
    once.update(frame)
    for row in range(frame.height):
        steps.update(frame[row : row + 1])
    for user in (7, 900):
        known = once.users.row(user)
        np.testing.assert_allclose(scores_of(once, known), scores_of(steps, known), rtol=1e-3, atol=1e-4)
    if family in ("neighbours", "ease"):  # nothing is learnt beyond the history
        assert once.recommend(900, k=5)["item_id"].equals(once.recommend_for([3, 17], k=5)["item_id"])


@pytest.mark.parametrize("family", FAMILIES)
def test_rules_hold_and_boosts_count(family, models):
    rules = Rules(where="'red' in kind", boost="item_id == 1: 900", diversity=0.2)
    found = models[family].recommend(2, k=60, rules=rules)["item_id"].to_list()
    assert found[0] == 1 or 1 in models[family].seen[2]
    assert set(found) <= set(TABLE.filter(pl.col("kind").str.contains("red"))["item_id"])


@pytest.mark.parametrize("family", ["neighbours", "both"])
def test_an_approximate_index_finds_what_the_exact_one_does(family, models, monkeypatch):
    pytest.importorskip("faiss")
    from recsys_embed.retrieval import approximate

    monkeypatch.setattr(approximate, "_FEW", 1)
    model = models[family]
    exact = model.recommend(k=5)
    index = Recommender.of(model.state).use_index("approximate")
    assert index.index.measured_recall > 0.95
    shared = exact.join(index.recommend(k=5), on=["user_id", "item_id"])
    assert shared.height > 0.95 * exact.height
    assert shared["score"].to_list() == pytest.approx(shared["score_right"].to_list(), abs=1e-4)


# What is particular.


def test_neighbours_alone_score_by_the_normalized_history(models):
    model, power = models["neighbours"].model, POWERS[0]
    matrix = dense(model.neighbours.weights)
    history = models["neighbours"].seen[7]
    expected = matrix[history].sum(axis=0) / np.sqrt(len(history))
    expected /= TRAIN.item_counts.clip(1) ** (power * np.log(len(history) / 5) / np.log(10))
    np.testing.assert_allclose(scores_of(models["neighbours"], 7), expected, atol=1e-5)


def test_popular_items_are_discounted_for_long_histories_only(models):
    found, plain = models["neighbours"].model.neighbours, replace(models["neighbours"].model.neighbours, power=0.0)
    for items in (np.arange(5, dtype=np.int32), np.arange(50, dtype=np.int32)):
        amounts = np.ones(len(items), np.float32)
        amounts[2] = -1  # a dislike counts as much towards the length
        history = Histories(np.array([0, len(items)]), items, amounts)
        factor = TRAIN.item_counts.clip(1) ** -(POWERS[0] if len(items) == 50 else 0.0)
        expected = plain.scores(history)[0] * factor
        np.testing.assert_allclose(found.scores(history)[0], expected, rtol=1e-4)
        np.testing.assert_allclose(found.scores(history, np.array([9, 3]))[0], expected[[9, 3]], rtol=1e-4)
        targets, scores = found.sparse_scores(items, amounts)
        np.testing.assert_allclose(scores / np.sqrt(len(items)), expected[targets], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(found.contributions(items, amounts, 9).sum(), expected[9], rtol=1e-4)


def test_both_is_the_sum_of_its_parts(models):
    model = models["both"].model
    alone = HybridModel("neighbours", model.embedding, model.neighbours, model.histories, 0.0)
    queries = model.queries(np.arange(9))
    parts = alone.score(queries) + model.embedding.score(queries.embeddings)
    np.testing.assert_allclose(model.score(queries), parts, atol=1e-4)


def test_ease_is_the_baseline(models):
    expected = Ease(TRAIN).fit(300.0).scores(np.arange(5))
    count = np.sqrt(np.maximum(1, TRAIN.seen().count[:5]))[:, None]
    found = models["ease"].model.score(models["ease"].model.queries(np.arange(5)))
    np.testing.assert_allclose(found * count, expected, atol=1e-4)


def test_reasons_are_items_that_carry_the_score(models):
    model = models["neighbours"]
    for item in model.recommend(7, k=3)["item_id"].to_list():
        told = [entry["item"] for entry in model.explain(7, item, 2).evidence]
        assert model.reasons(7, [item], 2)[0] == told


def test_a_folder_from_before_discounts_nothing(models):
    arrays, metadata = models["neighbours"].model.save()
    del arrays["neighbours.log_counts"], metadata["neighbours"]["popularity_power"]
    old = HybridModel.load(arrays, {**metadata, "family": "neighbours"})
    assert old.neighbours.power == 0 and len(old.neighbours.log_counts) == 60
    queries = old.queries(np.arange(5))
    plain = replace(models["neighbours"].model.neighbours, power=0.0)
    np.testing.assert_array_equal(old.score(queries), plain.scores(queries.histories))


def test_without_embeddings_what_needs_them_says_so(tmp_path):
    model = fit("neighbours", embeddings=False)
    assert Recommender.load(model.save(tmp_path / "m")).recommend(7, k=3).equals(model.recommend(7, k=3))
    assert model.similar(3, 4).columns[-1] == "together"
    with pytest.raises(SettingError, match="has no embeddings"):
        model.similar(3, 4, by="embeddings")
    with pytest.raises(SettingError, match="--no-embeddings goes with"):
        fit("both", embeddings=False)


def test_similar_by_neighbours_counts_the_users_who_have_both(models):
    table = models["both"].similar(3, 60, by="neighbours")
    x = TRAIN.matrix().toarray()
    together = x.T @ x
    for row in table.to_dicts():
        both = together[3, row["item_id"]]
        assert row["together"] == both
        assert row["score"] == pytest.approx(
            both / (np.sqrt(together[3, 3] * together[row["item_id"]][row["item_id"]]) + 10), rel=1e-5
        )
    assert table["score"].is_sorted(descending=True) and 3 not in table["item_id"]
    support = models["both"].similar(3, 60, by="neighbours", min_support=30)
    assert set(support["item_id"]) == set(table.filter(TRAIN.item_counts[table["item_id"].to_numpy()] >= 30)["item_id"])
    with pytest.raises(SettingError, match="by must be one of embeddings, neighbours, together"):
        models["both"].similar(3, by="chance")


def test_described_items_join_and_a_warm_start_goes_on(tmp_path):
    content = ContentConfig(text="kind")
    model = Recommender(ModelConfig(model_family="both", dim=8), TrainConfig(epochs=2), content).fit(TRAIN, TABLE)
    before = model.recommend(7, k=5)
    model.add_items(pl.DataFrame({"item_id": [700], "title": ["new"], "kind": ["red"]}))
    assert len(model.model.neighbours) == len(model.items) == 61
    assert np.isfinite(model.predict([7], [700])).all()
    assert model.recommend(7, k=60).filter(pl.col("item_id") != 700).head(5)["item_id"].equals(before["item_id"])
    plain = fit("both")
    again = Recommender(*plain.warm_start_configs()).fit(TRAIN, warm_start=plain)
    assert again.model.family == "both" and again.model.share == plain.model.share


def test_nothing_asked_is_nothing_answered(models):
    for model in models.values():
        assert len(model.predict([], [])) == 0
        assert model.similar([], 4, by="neighbours").is_empty()


def test_predictions_of_equal_pairs_are_equal(models):
    for model in models.values():
        users, items = [7, 3, 7, 7], [5, 9, 5, 9]
        found = model.predict(users, items)
        assert found[0] == found[2]
        expected = [scores_of(model, user)[item] for user, item in zip(users, items, strict=True)]
        assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_an_mlp_beside_neighbours_explains_itself():
    model = Recommender(ModelConfig("both", dim=8, scorer="mlp"), TrainConfig(loss="softmax", epochs=1)).fit(TRAIN)
    found = model.explain(7, 33, 99)
    listed = sum(e["value"] for e in found.evidence) + found.remainder["value"] + found.remainder["vector"]
    assert listed == pytest.approx(found.components["mlp"] + found.components.get("neighbours", 0), abs=1e-4)


def test_amounts_that_are_none_are_refused_and_mixed_ones_explained():
    given = ModelConfig("neighbours", embeddings=False), TrainConfig(sample_weight="rating")
    values = np.where(TRAIN.item % 2, 5, 1).astype(np.float32)
    for wrong in (np.zeros_like(values), values - 3):
        with pytest.raises(SettingError, match="--sample-weight rating needs ratings from 0 up"):
            Recommender(*given).fit(Ratings(TRAIN.users, TRAIN.items, TRAIN.user, TRAIN.item, wrong))
    model = Recommender(*given).fit(Ratings(TRAIN.users, TRAIN.items, TRAIN.user, TRAIN.item, values))
    found = model.explain(7, 33, 99)
    assert sum(e["value"] for e in found.evidence) == pytest.approx(found.score, abs=1e-5)


def test_reasons_are_only_items_that_support(models):
    alone = fit("neighbours", embeddings=False)
    matrix = dense(alone.model.neighbours.weights)
    for item, why in zip(range(60), alone.reasons_for([1, 2], list(range(60)), 2), strict=True):
        assert set(why) == {source for source in (1, 2) if matrix[source, item] > 0}
    both = models["both"].reasons_for([2, 7], [5, 5, 5])
    assert both[0] == both[1] == both[2]
    with pytest.raises(SettingError, match="no embeddings"):
        alone.recommend(7, rules=Rules(diversity=0.5))


def test_a_dislike_of_an_item_counts_against_its_neighbours(models):
    model = models["neighbours"]
    liked = model.state.fold_in.fit_user
    from recsys_embed.models.fold_in.base import Feedback

    rows = np.array([3, 17])
    plain = Feedback.from_likes(rows)
    mixed = Feedback(rows, np.array([1, -0.1], np.float32), plain.ratings)
    scores = [model.model.score(model.model.query(*liked(f)))[0] for f in (plain, mixed)]
    given = dense(model.model.neighbours.weights)[17]
    near = np.argsort(-given)[:5]
    assert (scores[1][near] < scores[0][near]).all()


def test_ratings_can_weigh():
    values = np.where(TRAIN.item % 2, 5, 1).astype(np.float32)
    rated = Ratings(TRAIN.users, TRAIN.items, TRAIN.user, TRAIN.item, values)
    model = Recommender(ModelConfig(model_family="neighbours", dim=8), TrainConfig(epochs=1, sample_weight="rating"))
    amount = model.fit(rated).model.histories.amount
    assert amount.max() / amount.min() == pytest.approx(5) and amount.mean() == pytest.approx(1, rel=1e-4)
    items, before = model.model.histories.user(7)
    liked, disliked = items[:2].tolist()
    changed = profile_of(model.state, 7, likes=[liked], dislikes=[disliked]).vector.amounts
    assert changed[0] == before[0] and changed[1] == pytest.approx(-0.1)  # a like again changes nothing
    assert changed[2:].tolist() == before[2:].tolist()
