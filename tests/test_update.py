"""New ratings of a model that is trained: people who move, users who come, and a training that goes on."""

import json
import logging

import numpy as np
import polars as pl
import pytest
from worlds import checkerboard_stars, recsys_here, small, tastes

from recsys_embed.answering.profile import known_user, with_feedback
from recsys_embed.config.settings import ContentConfig, DataConfig, ModelConfig, RunConfig, TrainConfig
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import DataError, SettingError
from recsys_embed.experiment.run import run_experiment
from recsys_embed.models.fold_in.base import Feedback
from recsys_embed.recommender import Recommender

WORLD, TABLE, COLOUR = tastes()
# The first 40 users and 55 items are there in training; the others come later.
FIRST = WORLD.frame().filter((pl.col("user_id") < 40) & (pl.col("item_id") < 55))
LATER = WORLD.frame().filter(pl.col("item_id") < 55).join(FIRST, on=["user_id", "item_id"], how="anti")
KINDS = {
    "dot": {},
    "cosine": {"cosine": True, "temperature": 0.2, "batch_users": 16},
    "history": {"user_tower": "history", "batch_users": 16},
    "both": {"user_tower": "both", "batch_users": 16},
    "bpr": {"loss": "bpr"},
    "mlp": {"loss": "logistic", "scorer": "mlp", "epochs": 20},
    "mse": {"loss": "mse", "epochs": 20},
    "gibbs": {"loss": "mse", "method": "gibbs"},
}
NOTHING = np.zeros(0, np.int64)


FIRST_COUNTS = Ratings.from_frame(FIRST).item_counts


def fit(kind, frame=FIRST, start=None, **given):
    settings = {"dim": 8, "epochs": 12, "loss": "softmax", **KINDS[kind], **given}
    if kind in ("mse", "gibbs"):
        frame = frame.with_columns(rating=1.0 + pl.col("item_id") % 5)
    if kind == "gibbs":
        configs = ModelConfig(dim=4), TrainConfig(loss="mse", method="gibbs", epochs=10)
    else:
        configs = small(settings.pop("loss"), settings.pop("scorer", "dot"), **settings)
    return Recommender(*configs).fit(Ratings.from_frame(frame), TABLE, warm_start=start)


_MODELS = {}


@pytest.fixture(params=KINDS)
def model(request):
    """A trained model; what a test does to it is undone, since `update` leaves the arrays alone."""
    trained = _MODELS.setdefault(request.param, None) or fit(request.param)
    _MODELS[request.param] = trained
    fresh = Recommender()
    vars(fresh).update(vars(trained), facts=dict(trained.metadata))
    return fresh


def ratings_of(kind_frame, model):
    """Ratings as the model's world has them."""
    stars = model.model.output == "stars"
    return kind_frame.with_columns(rating=1.0 + pl.col("item_id") % 5) if stars else kind_frame


def of(model, user):
    row = int(model.users.rows([user])[0])
    return model.model.users[row], model.model.user_bias[row]


@pytest.fixture
def later(model):
    """Ratings of five users who are new and of four who are known, whose items are new to them."""
    more = [{"user_id": u, "item_id": i} for u in (3, 7, 11, 20) for i in range(5, 55, 7)]
    frame = pl.concat([LATER.select("user_id", "item_id"), pl.DataFrame(more)]).unique(maintain_order=True)
    frame = frame.join(FIRST, on=["user_id", "item_id"], how="anti").with_columns(rating=pl.lit(1.0))
    return ratings_of(frame, model)


def test_in_one_go_and_one_by_one_and_in_any_order_are_the_same(model, later):
    other = Recommender()
    vars(other).update(vars(model), facts=dict(model.metadata))
    model.update(later)
    shuffled = later.sample(fraction=1.0, shuffle=True, seed=1)
    for part in (shuffled[:11], shuffled[11:12], shuffled[12:]):
        other.update(part)
    for user in later["user_id"].unique().to_list():
        one, two = of(model, user), of(other, user)
        np.testing.assert_allclose(one[0], two[0], atol=2e-4)
        np.testing.assert_allclose(one[1], two[1], atol=2e-4)
    assert sorted(model.users.series.to_list()) == sorted(other.users.series.to_list())
    np.testing.assert_array_equal(model.item_counts, other.item_counts)
    for updated in (model.metadata["updated"], other.metadata["updated"]):
        assert (updated["ratings"], updated["new_users"]) == (later.height, 5) and updated["time"]


def test_nothing_new_moves_nobody(model):
    before = model.model
    model.update(ratings_of(FIRST, model))
    np.testing.assert_array_equal(model.model.users, before.users)
    np.testing.assert_array_equal(model.model.user_bias, before.user_bias)
    person = known_user(model.state, 3)
    assert with_feedback(model.state, person, NOTHING, NOTHING, {}) is person
    if model.model.output != "stars":
        again = with_feedback(model.state, person, person.history, NOTHING, {})
        np.testing.assert_array_equal(again.vector, person.vector)
        assert again.bias == person.bias


def test_who_says_more_is_moved_and_others_are_not(model, later):
    before, seen = model.model, model.seen
    model.update(later)
    assert len(model.users) == 45
    np.testing.assert_array_equal(before.users, fit_of(model).users)
    rows = model.users.rows(later["user_id"].unique().to_list())
    still = np.setdiff1d(np.arange(40), rows)
    np.testing.assert_array_equal(model.model.users[still], before.users[still])
    changed = np.abs(model.model.users[rows[rows < 40]] - before.users[rows[rows < 40]]).max(axis=1)
    assert (changed > 1e-6).all()
    assert len(model.seen) == len(seen) + later.height
    rated = np.bincount(model.items.rows(later["item_id"]), minlength=len(model.items))
    np.testing.assert_array_equal(model.item_counts, FIRST_COUNTS + rated)


def fit_of(model):
    """The arrays of the training that a model comes from, which an update must not write to."""
    return next(m.model for m in _MODELS.values() if m.model.items is model.model.items)


def test_what_is_rated_is_hidden_and_the_model_can_be_saved(model, later, tmp_path):
    model.update(later)
    loaded = Recommender.load(model.save(tmp_path / "one"))
    lists = loaded.recommend(k=99)
    assert lists.equals(model.recommend(k=99))
    rated = pl.concat([FIRST.select("user_id", "item_id"), later.select("user_id", "item_id")])
    assert not lists.join(rated, on=["user_id", "item_id"]).height
    assert lists.height == 45 * len(model.items) - rated.height
    assert loaded.metadata["updated"]["new_users"] == 5 and "5 new users" in loaded.card()


def test_a_new_user_of_the_model_is_who_somebody_with_these_likes_is():
    model = fit("dot")
    likes = LATER.filter(pl.col("user_id") == 41)["item_id"].to_list()
    want, unseen = model.recommend_for(likes, 20), [i for i in range(55) if i not in likes]
    model.update(LATER)
    got = model.recommend(41, 20, candidates=unseen)
    assert got["item_id"].to_list() == want["item_id"].to_list()
    assert np.bincount(COLOUR[got["item_id"][:8].to_numpy()], minlength=3)[41 % 3] >= 6


def test_items_that_are_not_known_are_left_out_and_counted(caplog):
    model = fit("dot")
    before = len(model.items)
    with caplog.at_level(logging.WARNING):
        model.update(pl.DataFrame({"user_id": [3, 3, 77], "item_id": [5, 999, 998]}))
    assert "2 of 3 ratings are for unknown items" in caplog.text
    assert len(model.items) == before and 77 in model.users
    assert not of(model, 77)[0].any(), "of whom nothing is known stands at nothing"


def test_what_it_cannot_take_is_refused():
    model = fit("dot")
    with pytest.raises(DataError, match="user id 'x' is not an integer"):
        model.update(pl.DataFrame({"user_id": ["x", "7"], "item_id": [5, 6]}))
    edges = pl.DataFrame({"user_id": [1, 1, 2, 3], "item_id": [2, 3, 3, 4]})
    nodes = Ratings.from_frame(edges, shared_ids=True)
    graph = Recommender(ModelConfig(dim=5), TrainConfig(epochs=2)).fit(nodes)
    with pytest.raises(SettingError, match="a model of nodes cannot be updated"):
        graph.update(edges)
    again = Recommender(*graph.warm_start_configs(epochs=1, lr=1e-9)).fit(nodes, warm_start=graph)
    np.testing.assert_allclose(again.model.items, graph.model.items, atol=1e-5)


def test_a_rating_below_the_least_of_the_training_is_hidden_and_moves_nobody():
    settings = small("softmax", dim=8, epochs=5)
    model = Recommender(*settings).fit(Ratings.from_frame(FIRST), min_rating=1.0)
    before, counts = of(model, 3), model.item_counts
    item = next(i for i in range(55) if i not in model.items.ids(model.seen[3]).to_list())
    model.update(pl.DataFrame({"user_id": [3], "item_id": [item], "rating": [0.5]}))
    np.testing.assert_array_equal(of(model, 3)[0], before[0])
    np.testing.assert_array_equal(model.item_counts, counts)
    assert item not in model.recommend(3, 99)["item_id"]


def test_held_out_ratings_that_come_later_are_held_out_no_more():
    split = Ratings.from_frame(FIRST)
    held = np.arange(len(split)) % 9 == 0
    model = Recommender(*small("softmax", dim=8, epochs=2)).fit(split.take(~held), held_out=split.take(held))
    model.update(split.take(held).frame())
    assert len(model.held_out) == 0 and len(model.seen) == len(split)
    assert model.recommend(k=99, hide_test=True).equals(model.recommend(k=99))


def test_an_event_that_comes_twice_counts_once_and_the_person_before_stays():
    model = fit("cosine")
    person, likes = known_user(model.state, 4), np.array([2, 9, 30])
    before = person.vector.copy()
    one = with_feedback(model.state, person, likes, NOTHING, {})
    two = with_feedback(model.state, person, np.array([30, 2, 9, 2, 30]), NOTHING, {})
    np.testing.assert_array_equal(one.vector, two.vector)
    np.testing.assert_array_equal(person.vector, before)
    np.testing.assert_array_equal(one.history, np.union1d(model.seen[4], likes))
    assert one.user == 4 and not np.array_equal(one.vector, before)


def test_what_training_found_beside_the_items_is_kept_by_its_share():
    model = fit("cosine")
    person, old, likes = known_user(model.state, 4), model.seen[4], np.setdiff1d(np.arange(55), model.seen[4])[:5]
    now = with_feedback(model.state, person, likes, NOTHING, {}).vector
    before, after = (model.fold_in.fit_user(Feedback.from_likes(rows))[0] for rows in (old, np.union1d(old, likes)))
    assert np.abs(person.vector - before).max() > 0.1
    np.testing.assert_allclose(now - after, (person.vector - before) * len(old) / (len(old) + 5), atol=1e-5)


def test_a_model_of_stars_moves_towards_the_stars():
    for kind in ("mse", "gibbs"):
        model = fit(kind)
        new = [i for i in (7, 12, 13, 30) if i not in model.items.ids(model.seen[3]).to_list()]
        assert new, "there must be something to say"
        before = model.predict([3] * len(new), new)
        frame = pl.DataFrame({"user_id": [3] * len(new), "item_id": new, "rating": [5.0] * len(new)})
        model.update(frame)
        after = model.predict([3] * len(new), new)
        assert (after >= before).all() and after.sum() > before.sum()
        low, high = (
            with_feedback(model.state, known_user(model.state, 5), NOTHING, NOTHING, {9: stars}).vector
            @ model.model.items[9]
            + with_feedback(model.state, known_user(model.state, 5), NOTHING, NOTHING, {9: stars}).bias
            for stars in (1.0, 5.0)
        )
        assert low < high


class TestContinue:
    def test_with_no_ratings_more_and_no_step_it_is_the_old_model(self):
        for kind in ("dot", "cosine", "history", "both", "bpr", "mlp", "mse"):
            start = fit(kind)
            again = fit(kind, start=start, epochs=1, lr=1e-9)
            users = start.model.users, start.model.user_bias, start.model.items, start.model.item_bias
            now = again.model.users, again.model.user_bias, again.model.items, again.model.item_bias
            for old, new in zip(users, now, strict=True):
                np.testing.assert_allclose(new, old, atol=1e-5)
            row, item = np.arange(40).repeat(3), np.arange(120) % 55
            np.testing.assert_allclose(
                again.model.score_pairs(row, item), start.model.score_pairs(row, item), atol=1e-4
            )
            assert again.metadata["continued"] == {"epochs": start.metadata["epochs"], "new_users": 0, "new_items": 0}

    def test_it_takes_in_new_users_and_items(self):
        start = fit("cosine")
        again = fit("cosine", WORLD.frame(), start=start, epochs=1, lr=1e-9)
        assert again.metadata["continued"]["new_users"] == 5 and again.metadata["continued"]["new_items"] == 5
        old = again.items.rows(start.items.series)
        np.testing.assert_allclose(again.model.items[old], start.model.items, atol=1e-5)
        lengths = np.linalg.norm(again.model.items, axis=1)
        np.testing.assert_allclose(lengths, 1, rtol=1e-4)
        start.update(LATER)
        for user in (3, 42):
            told, now = of(start, user)[0], of(again, user)[0]
            assert told @ now > 0.999 * np.linalg.norm(told) * np.linalg.norm(now)

    def test_it_learns_what_is_new(self):
        start = fit("dot", epochs=40)
        again = Recommender(*start.warm_start_configs()).fit(WORLD, TABLE, warm_start=start)
        assert again.metadata["settings"]["epochs"] == 10
        table = again.recommend([41, 42, 43, 44], 8, include_seen=True)
        hit = COLOUR[table["item_id"].to_numpy()] == table["user_id"].to_numpy() % 3
        assert hit.mean() > 0.8

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"dim": 5}, "it has vectors of 8, not 5"),
            ({"loss": "mse"}, "its loss mse is False, not True"),
            ({"cosine": True}, "its cosine is False, not True"),
            ({"scorer": "mlp", "loss": "softmax"}, "its scorer is dot, not mlp"),
            ({"user_tower": "history", "batch_users": 16}, "its user-tower is id, not history"),
        ],
    )
    def test_what_cannot_go_on_is_refused(self, given, said):
        start = fit("dot", epochs=1)
        with pytest.raises(SettingError, match=said):
            fit("dot", start=start, **given)

    def test_samples_and_descriptions_are_refused(self):
        with pytest.raises(SettingError, match="gibbs samples"):
            fit("gibbs", start=fit("gibbs"))
        described = Recommender(*small("softmax", dim=8, epochs=1), ContentConfig(text="kind"))
        described.fit(WORLD, TABLE)
        with pytest.raises(SettingError, match="descriptions"):
            Recommender(*described.warm_start_configs()).fit(WORLD, TABLE, warm_start=described)

    def test_a_run_goes_on_and_measures_nothing_that_the_old_model_knows(self, tmp_path, caplog):
        world = checkerboard_stars()
        data, quiet = DataConfig(dataset="board", split_seed=3), {"track": False, "baselines": False, "resamples": 0}
        dataset = Dataset(world, None)
        old, _ = run_experiment(
            data, *small("softmax", dim=4, epochs=3), RunConfig(out=str(tmp_path / "a"), **quiet), dataset=dataset
        )
        run = RunConfig(out=str(tmp_path / "b"), warm_start=str(tmp_path / "a"), **quiet)
        with caplog.at_level(logging.INFO):
            new, _ = run_experiment(
                DataConfig(dataset="board", split_seed=4), *old.warm_start_configs(epochs=2), run, dataset=dataset
            )
        assert "held-out ratings to training" in caplog.text
        knew = old.seen.pairs_of(np.arange(len(old.users)))
        held = new.held_out.pairs_of(np.arange(len(new.users)))
        assert len(held[0]) and not set(zip(*knew, strict=True)) & set(zip(*held, strict=True))
        assert new.metadata["continued"]["model"] == "a"
        assert "went on from the model a of 20" in new.card()


@pytest.mark.slow
def test_the_command_line(tmp_path):
    WORLD.frame().write_csv(tmp_path / "all.csv")
    FIRST.write_csv(tmp_path / "first.csv")
    common = ("--no-track", "--no-baselines", "--resamples", "0", "--json")
    recsys_here("train", "--dataset", "first.csv", "--dim", "6", "--epochs", "8", "--out", "old", *common, cwd=tmp_path)
    done = recsys_here(
        "train", "--warm-start", "old", "--dataset", "all.csv", "--out", "new", "--lr", "0.002", *common, cwd=tmp_path
    )
    chosen = json.loads(done.stdout)["settings"]
    assert (chosen["dim"], chosen["epochs"], chosen["lr"], chosen["warm_start"]) == (6, 2, 0.002, "old")
    model = Recommender.load(tmp_path / "new")
    assert model.metadata["continued"]["new_users"] == 5 and "--warm-start old" in model.metadata["command"]
    assert "--dim" not in model.metadata["command"], "what the model has is left to it"
    wrong = recsys_here("train", "--warm-start", "old", "--dim", "7", *common, cwd=tmp_path, code=2).stderr
    assert "it has vectors of 6, not 7" in wrong
    assert "no model folder" in recsys_here("train", "--warm-start", "none", *common, cwd=tmp_path, code=5).stderr


def test_a_training_that_would_forget_most_of_a_model_is_refused(tmp_path):
    start = fit("dot")
    start.save(tmp_path / "start")
    few = Dataset(Ratings.from_frame(WORLD.frame().filter(pl.col("user_id") < 9)), None)
    data, run = (
        DataConfig(dataset="few", valid_share=0.0, test_share=0.0),
        RunConfig(warm_start=str(tmp_path / "start")),
    )
    with pytest.raises(DataError, match="9 of the 40 users"):
        run_experiment(data, *start.warm_start_configs(epochs=1), run, dataset=few)


def test_a_history_without_the_ratings_below_the_threshold_is_what_moves():
    frame = FIRST.with_columns(rating=pl.when(pl.col("item_id") % 3 == 0).then(1.0).otherwise(5.0))
    configs = small("softmax", dim=8, epochs=5, user_tower="history", batch_users=16)
    model = Recommender(*configs).fit(Ratings.from_frame(frame), min_rating=3.0)
    user = 7
    new = sorted(set(range(55)) - set(model.items.ids(model.seen[user]).to_list()))[0]
    whole = [*model.items.ids(model.state.history(user)).to_list(), new]
    frame = pl.DataFrame({"user_id": [user, user], "item_id": [new, new + 1], "rating": [5.0, 1.0]})
    expected = model.model.user_from_history(np.sort(model.items.rows(whole)))
    person = with_feedback(model.state, known_user(model.state, user), model.items.rows([new]), NOTHING, {})
    np.testing.assert_allclose(person.vector, expected, rtol=1e-4, atol=1e-6)
    model.update(frame.filter(pl.col("item_id") == new))
    np.testing.assert_allclose(model.model.users[user], expected, rtol=1e-4, atol=1e-6)
    assert new in model.items.ids(model.state.history(user)).to_list()


def test_a_new_user_of_text_makes_all_ids_text_and_the_old_vectors_stay():
    start = fit("dot")
    new = pl.DataFrame({"user_id": ["new"] * 2, "item_id": [3, 7], "rating": [1.0] * 2})
    frame = pl.concat(
        [FIRST.select("user_id", "item_id", "rating").cast({"user_id": pl.String}), new.cast({"rating": pl.Float32})]
    )
    again = fit("dot", frame, start=start, epochs=1, lr=1e-9)
    rows = again.users.rows(start.users.series)
    np.testing.assert_allclose(again.model.users[rows], start.model.users, atol=1e-5)
    folded = again.model.users[again.users.row("new")]
    np.testing.assert_allclose(folded, start.user_vector([3, 7]), atol=1e-5)
