"""Which family, penalty, power and share a training with item neighbours chooses, and what it refuses."""

import numpy as np
import pytest
from worlds import tastes

from recsys_embed import Recommender, split_random
from recsys_embed.config.settings import DataConfig, ModelConfig, RunConfig, TrainConfig
from recsys_embed.errors import SettingError
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.experiment.run import run_experiment
from recsys_embed.models.local_ridge import LocalRidge, Penalty
from recsys_embed.models.ranker import Ranker
from recsys_embed.training import hybrid
from recsys_embed.training.hybrid import BESIDE, PENALTIES, POWERS, SHARES

RATINGS, TABLE, _ = tastes()
TRAIN, VALID, TEST = split_random(RATINGS, 0.1, 0.2)


def fit(family, **model):
    return Recommender(ModelConfig(model_family=family, dim=8, **model), TrainConfig(epochs=3)).fit(
        TRAIN, TABLE, held_out=TEST
    )


def test_auto_keeps_what_is_best_on_validation_data():
    seen, values = TRAIN.excluded(), {}

    def validate(model):
        return rank_metrics(Ranker.of(model), VALID, seen, TRAIN.item_counts).metrics

    for family in ("auto", "embeddings", "neighbours"):
        given = ModelConfig(family, dim=8, popularity_power=0.1), TrainConfig(epochs=3)
        values[family] = validate(Recommender(*given).fit(TRAIN, validate=validate).model)["ndcg_at_10"]
    assert values["embeddings"] != values["neighbours"]
    assert values["auto"] >= 0.995 * max(values.values())  # the middle of the shares within half a percent of the best


def test_settings_that_are_given_are_kept():
    model = fit("both", l2=7.0, l2_share=0.5, popularity_power=0.3, blend=0.25, neighbours=5)
    kept = model.metadata["settings"]
    assert [kept[n] for n in ("l2", "l2_share", "popularity_power", "blend", "neighbours")] == [7.0, 0.5, 0.3, 0.25, 5]
    assert np.diff(model.model.neighbours.weights.with_items(60).indptr).sum() <= 5 * 60


def test_penalties_beside_the_best_are_tried_until_the_work_is_done(monkeypatch):
    tried = []
    original = hybrid.LocalRidge.fit
    monkeypatch.setattr(hybrid.LocalRidge, "fit", lambda self, p, *rest: tried.append(p) or original(self, p, *rest))
    found = {}

    def validate(model):
        in_turn = [penalty for penalties in tried for penalty in penalties]
        penalty = in_turn[min(len(found), len(in_turn) - 1)]
        value = float(penalty == Penalty(20, 0.25)) + 2 * float(penalty == Penalty(5, 0.25))
        return {"ndcg_at_10": found.setdefault(len(found), value)}

    settings = ModelConfig("neighbours", embeddings=False, popularity_power=0.0)
    model = Recommender(settings, TrainConfig()).fit(TRAIN, validate=validate)
    assert tried == [list(PENALTIES), list(BESIDE[Penalty(20, 0.25)])]
    assert [model.metadata["settings"][name] for name in ("l2", "l2_share")] == [5, 0.25]
    tried.clear(), found.clear()
    monkeypatch.setattr(hybrid, "_MAX_WORK", 2 * LocalRidge(TRAIN, 59).work)
    Recommender(settings, TrainConfig()).fit(TRAIN, validate=validate)
    assert tried == [list(PENALTIES[:2])]


def test_a_metric_that_is_no_number_is_refused():
    settings = ModelConfig("neighbours", embeddings=False), TrainConfig()
    with pytest.raises(SettingError, match="is there validation data"):
        Recommender(*settings).fit(TRAIN, validate=lambda _: {"ndcg_at_10": float("nan")})


def test_a_run_chooses_once_and_fits_again_with_that(tmp_path):
    run = RunConfig(track=False, out=str(tmp_path / "m"), resamples=0)
    data = DataConfig("synthetic:users=90,items=60,ratings=2400")
    recommender, report = run_experiment(data, ModelConfig("both"), TrainConfig(epochs=3), run=run)
    settings = report["settings"]
    assert settings["model_family"] == recommender.model.family == "both"
    assert (settings["l2"], settings["l2_share"]) in {*PENALTIES}.union(*BESIDE.values())
    assert settings["popularity_power"] in POWERS
    assert recommender.model.share == settings["blend"] in SHARES
    assert len(recommender.model.histories.item) == len(recommender.seen)
    assert Recommender.load(tmp_path / "m").recommend(k=3).equals(recommender.recommend(k=3))


@pytest.mark.parametrize("loss", ["mse", "logistic"])
def test_other_kinds_of_score_are_refused_and_auto_keeps_embeddings(loss):
    with pytest.raises(SettingError, match=f"does not go with --loss {loss}"):
        Recommender(ModelConfig(model_family="both"), TrainConfig(loss=loss)).fit(TRAIN)
    model = Recommender(ModelConfig(model_family="auto"), TrainConfig(loss=loss, epochs=1)).fit(TRAIN)
    assert model.model.family == "embeddings"


def test_a_penalty_of_nothing_is_one_line():
    with pytest.raises(SettingError, match="EASE has no solution with --l2 0"):
        fit("ease", l2=0.0)


def test_an_interrupt_keeps_the_embeddings(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("recsys_embed.training.hybrid._Candidates.choose", interrupt)
    model = fit("both")
    assert model.training.stopped == "interrupted" and model.model.family == "embeddings"


def test_only_embeddings_are_tuned():
    from recsys_embed.config.tuning import TuneConfig
    from recsys_embed.tuning.search import tune

    with pytest.raises(SettingError, match="recsys tune tunes embeddings"):
        tune(DataConfig("synthetic:users=60,items=40,ratings=1200"), ModelConfig("both"), config=TuneConfig(trials=1))


def test_names_of_families_from_before_are_read():
    from recsys_embed.config.renamed import with_current_names

    assert with_current_names({"settings": {"family": "embedding"}})["settings"] == {"model_family": "embeddings"}
