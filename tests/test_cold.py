"""Cold items: the split leaves them nothing, the metrics are what they say, and the baselines their formulas."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import RATINGS, SPLIT, TABLE, small

from recsys_embed.config.settings import ContentConfig, DataConfig, RunConfig
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import split_cold_items
from recsys_embed.data.user_items import UserItems
from recsys_embed.errors import SettingError
from recsys_embed.evaluation.baselines import SplitPositives, choose_content_ridge, cold_baselines
from recsys_embed.evaluation.cold_start import auc, cold_metrics
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.experiment.run import run_experiment
from recsys_embed.features.item_features import encode_items
from recsys_embed.models.content_ridge import ContentRidge, content_neighbours, random_ranker
from recsys_embed.models.ranker import Ranker
from recsys_embed.retrieval.exact import ExactIndex


@given(cold=st.floats(0.05, 0.6), valid=st.floats(0, 0.3), test=st.floats(0, 0.3), seed=st.integers(0, 5))
def test_the_split_parts_items_and_loses_nothing(cold, valid, test, seed):
    split = split_cold_items(RATINGS, cold, valid, test, seed)
    pairs = [set(zip(p.user.tolist(), p.item.tolist(), strict=True)) for p in split]
    assert sum(map(len, pairs)) == len(RATINGS) == len(set.union(*pairs))
    rated = (RATINGS.item_counts > 0).sum()
    for part, share in ((split.test, cold), (split.valid, valid)):
        whole = (part.item_counts == RATINGS.item_counts) & (RATINGS.item_counts > 0)
        assert whole.sum() >= round(rated * share) - 1


@pytest.mark.parametrize("given", [{"valid": "v.csv"}, {"test": "t.csv"}])
def test_files_and_cold_items_are_refused_together(given):
    with pytest.raises(SettingError, match="another one with files of held-out ratings"):
        DataConfig(split="cold-items", **given)


def test_shares_that_leave_no_item_are_refused():
    with pytest.raises(SettingError, match="must sum to less than 1"):
        split_cold_items(RATINGS, 0.8, 0.3)
    with pytest.raises(SettingError, match="leaves no cold item"):
        split_cold_items(RATINGS, 0.001)


def test_a_vocabulary_grows_by_unrated_items(ratings):
    more = ratings.with_items(TABLE["item_id"].cast(str).head(2))
    assert len(more.items) == len(ratings.items) + 2
    assert more.frame().drop("timestamp").equals(ratings.frame().drop("timestamp"))
    assert Dataset(ratings, None).with_unrated_items().ratings is ratings


def test_auc_is_the_share_of_pairs_in_order():
    table = np.array([[3.0, 1.0, 2.0, 2.0, -np.inf], [1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
    wanted = np.array([[0, 1, 1, 0, 0], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]], bool)
    hidden = np.array([[0, 0, 0, 0, 1], [0] * 5, [0] * 5], bool)
    # first line: of the pairs (wanted, other) = (1, 3), (1, 2), (2, 3), (2, 2) none is in order and one is a tie
    assert auc(np.where(hidden, -np.inf, table), wanted, hidden).tolist() == [0.125, 0.5, 1.0]


class Plain:
    """The same metrics, pair by pair."""

    def measure(self, scores, test, hidden, among):
        ndcg, recall, area = [], [], []
        for user in np.unique(test.user):
            wanted = set(test.item[test.user == user].tolist())
            items = [i for i in among if i not in hidden[user]]
            ranked = sorted(items, key=lambda i: (-scores[user, i], i))
            hits = [i in wanted for i in ranked]
            gain = sum(h / np.log2(r + 2) for r, h in enumerate(hits[:10]))
            ndcg.append(gain / sum(1 / np.log2(r + 2) for r in range(min(10, len(wanted)))))
            recall.append(sum(hits[:20]) / len(wanted))
            pairs = [(scores[user, i], scores[user, j]) for i in wanted for j in items if j not in wanted]
            area.append(np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]) if pairs else 1.0)
        return [float(np.mean(values)) for values in (ndcg, recall, area)]


def test_metrics_agree_with_a_naive_second_implementation():
    random = np.random.default_rng(0)
    scores = np.round(random.normal(size=(45, 60)), 1).astype(np.float32)  # rounded, so that ties occur
    ranker = Ranker(ExactIndex(np.ascontiguousarray(scores.T)), lambda users: np.eye(45, dtype=np.float32)[users])
    counts, seen = SPLIT.train.item_counts, SPLIT.train.seen()
    found = cold_metrics(ranker, SPLIT.test, seen, counts)
    cold = [i for i in range(60) if counts[i] == 0 and SPLIT.test.item_counts[i]]
    names, hidden = ("ndcg_at_10", "recall_at_20", "auc"), [set(seen[u].tolist()) for u in range(45)]
    alone = SPLIT.test.take(np.isin(SPLIT.test.item, cold))
    assert [found[n] for n in names] == pytest.approx(Plain().measure(scores, alone, [set()] * 45, cold), abs=1e-6)
    whole = [i for i in range(60) if counts[i] or SPLIT.test.item_counts[i]]
    expected = Plain().measure(scores, SPLIT.test, hidden, whole)
    assert [found["all"][n] for n in names] == pytest.approx(expected, abs=1e-6)
    more, wider = (r.with_items(pl.Series([900, 901])) for r in (SPLIT.test, SPLIT.train))  # rated by nobody at all
    high = Ranker(ExactIndex(np.concatenate((scores.T, np.full((2, 45), 9, np.float32)))), ranker.queries)
    again = cold_metrics(high, more, wider.seen(), wider.item_counts)
    assert [again["all"][n] for n in names] == pytest.approx(expected, abs=1e-6) and again["items"] == len(cold)
    assert found["items"] == len(cold) and found["rows"] == len(alone) and found["all"]["rows"] == len(SPLIT.test)


def test_the_metrics_of_known_items_do_not_see_cold_ones():
    """However high a cold item is scored, it takes no place in a list that it could only spoil."""
    scores = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    counts, seen = SPLIT.train.item_counts, SPLIT.train.seen()
    queries = np.random.default_rng(1).normal(size=(45, 4)).astype(np.float32)
    high = scores + 100 * (counts == 0)[:, None] * np.sign(queries.mean(0))
    one, other = (
        rank_metrics(Ranker(ExactIndex(s), lambda u: queries[u]), SPLIT.test, seen, counts).metrics
        for s in (scores, high.astype(np.float32))
    )
    assert one == other


class TestBaselines:
    features = encode_items(TABLE, ContentConfig(text="kind")).features

    def test_kernel_ridge_is_sklearns(self):
        from sklearn.kernel_ridge import KernelRidge

        train, x = SPLIT.train, self.features.bag.toarray()
        rated = np.flatnonzero(train.item_counts)
        ones = np.zeros((60, 45))
        ones[train.item, train.user] = 1
        scale = (x[rated] ** 2).sum(axis=1).mean()
        peer = KernelRidge(alpha=0.7 * scale).fit(x[rated], ones[rated])
        ridge = ContentRidge(self.features, train)
        found = ridge.fit(0.7).scores(np.arange(45))
        np.testing.assert_allclose(found, peer.predict(x).T, atol=1e-5)
        assert np.ptp(ridge.mean(0.7).scores(np.arange(45)), axis=0).max() == 0  # alike for everybody
        mean = ridge.mean(0.7).scores(np.arange(2))
        np.testing.assert_allclose(mean[0], peer.predict(x).mean(axis=1), atol=1e-5)

    def test_neighbours_are_sums_of_cosines(self):
        x = self.features.bag.toarray()
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        found = content_neighbours(x, SPLIT.train).scores(np.array([7]))[0]
        own = SPLIT.train.seen()[7]
        np.testing.assert_allclose(found, (unit @ unit[own].T).sum(axis=1), rtol=1e-5)

    def test_chance_is_chance(self):
        found = cold_metrics(random_ranker(60), SPLIT.test, UserItems.empty(45), SPLIT.train.item_counts)
        assert 0.4 < found["auc"] < 0.6

    def test_they_are_fitted_on_all_that_the_model_was(self):
        split = split_cold_items(RATINGS, 0.2, 0.2, 0.1)
        both = split.train.concat(split.valid)
        named = dict(cold_baselines(self.features, SplitPositives(split.train, split.valid, both)))
        chosen = choose_content_ridge(ContentRidge(self.features, split.train), split.valid, split.train.item_counts)
        expected = ContentRidge(self.features, both).fit(chosen).scores(np.arange(45))
        np.testing.assert_array_equal(named["content_ridge"].scores(np.arange(45)), expected)

    def test_its_regularization_is_chosen_on_validation(self, monkeypatch):
        split = split_cold_items(RATINGS, 0.2, 0.2, 0.1)
        ridge = ContentRidge(self.features, split.train)
        asked = []
        fit = ContentRidge.fit
        monkeypatch.setattr(ContentRidge, "fit", lambda self, r: asked.append(r) or fit(self, r))
        best = choose_content_ridge(ridge, split.valid, split.train.item_counts)
        values = {
            r: cold_metrics(fit(ridge, r), split.valid, UserItems.empty(45), split.train.item_counts)["ndcg_at_10"]
            for r in asked
        }
        assert values[best] == max(values.values()) and len(values) > 3


def test_a_run_reports_cold_items_beside_baselines(tmp_path):
    model, train = small("softmax", epochs=8, content_lr_scale=1.0)
    data = DataConfig(split="cold-items", valid_share=0.15)
    run = RunConfig(out=str(tmp_path / "m"), track=False, resamples=50)
    dataset = Dataset(RATINGS, TABLE)
    recommender, report = run_experiment(data, model, train, run, ContentConfig(text="kind"), dataset)
    cold = report["metrics"]["cold"]
    assert set(cold["baselines"]) == {"random", "content_mean", "content_ridge"}
    assert cold["auc"] > cold["baselines"]["random"]["auc"] + 0.2
    low, high = cold["intervals"]["auc"]
    assert low < cold["auc"] < high
    assert "cold_ndcg_at_10" in recommender.metadata["history"][0]
    split = dataset.split(DataConfig(split="cold-items", valid_share=0.15, split_seed=0))
    assert isinstance(split.train, Ratings) and not recommender.item_counts[split.test.item].all()
