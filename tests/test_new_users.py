"""Somebody the model does not know, from items that they like."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from worlds import recsys_here, small, tastes

from recsys_embed.answering import profile as people
from recsys_embed.answering.profile import UserProfile, profile_of, to_feedback, with_feedback
from recsys_embed.answering.recommend import recommend
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.config.settings import ContentConfig
from recsys_embed.errors import SettingError, UnknownId
from recsys_embed.models.fold_in import softmax as fold_in
from recsys_embed.models.fold_in.base import Feedback
from recsys_embed.models.fold_in.neighbours import NeighbourFoldIn
from recsys_embed.models.fold_in.ratings import RatingFoldIn
from recsys_embed.models.fold_in.softmax import SoftmaxFoldIn
from recsys_embed.recommender import Recommender

WORLD, TABLE, COLOUR = tastes()
# One rating in seven is no positive: it is hidden, and no part of the history.
RATED = replace(WORLD, value=np.where(np.arange(len(WORLD)) % 7 == 0, 1.0, 5.0).astype(np.float32))
LIKED = RATED.positives(3.0).seen()


def fit(content=None, ratings=RATED, loss="softmax", scorer="dot", **given):
    settings = {"dim": 8, "epochs": 10, **given}
    return Recommender(*small(loss, scorer, **settings), content).fit(ratings, TABLE, min_rating=3.0)


@pytest.fixture(scope="module")
def history():
    return fit(user_tower="history", batch_users=16)


@pytest.fixture(scope="module")
def own():
    return fit()


def colours(table):
    """The share of a list that is of each colour."""
    return np.bincount(COLOUR[table["item_id"].to_numpy()], minlength=3) / table.height


@pytest.mark.parametrize("given", [{}, {"cosine": True, "temperature": 0.2}, {"temperature": 0.5}, {"biases": False}])
def test_a_user_made_of_a_history_and_a_new_one_with_the_same_items_are_one(given):
    model = fit(user_tower="history", batch_users=16, **given)
    for user in (0, 7, 44):
        items = model.items.ids(LIKED[user]).to_list()
        np.testing.assert_allclose(model.user_vector(items[::-1]), model.model.users[user], atol=1e-6)
        rest = model.items.ids(np.setdiff1d(model.seen[user], LIKED[user])).to_list()
        known, new = model.recommend(int(model.users.ids([user])[0]), 99), model.recommend_for(items, 99, exclude=rest)
        assert new["item_id"].to_list() == known["item_id"].to_list()
        np.testing.assert_allclose(new["score"], known["score"], atol=1e-5)
        assert new["title"].equals(known["title"]) and new["rank"].equals(known["rank"])


@pytest.mark.parametrize("kind", ["history", "both", "id", "cosine", "cosine history", "bpr", "mlp"])
def test_a_new_user_is_recommended_what_is_of_their_taste(kind):
    tower = kind.split()[-1]
    given = {"user_tower": tower, "batch_users": 16} if tower in ("history", "both") else {}
    given |= {"cosine": True, "temperature": 0.2} if "cosine" in kind else {}
    given |= {"scorer": "mlp"} if kind == "mlp" else {}
    model = fit(loss={"bpr": "bpr", "mlp": "logistic"}.get(kind, "softmax"), epochs=40, **given)
    for colour in range(3):
        of_it = np.flatnonzero(colour == COLOUR)
        for likes, share in ((of_it[:4], 0.8), (of_it[-1:], 0.6)):
            assert colours(model.recommend_for(likes, k=10))[colour] >= share


def test_a_model_with_a_history_table_sums_and_others_go_by_the_likelihood(history, own):
    likes = own.items.ids([3, 17, 40])
    fold = SoftmaxFoldIn.of(own.model, own.item_counts)
    np.testing.assert_array_equal(own.user_vector(likes), fold.fit_user(Feedback.from_likes(np.array([3, 17, 40])))[0])
    table = history.model.history_vectors
    np.testing.assert_allclose(history.user_vector(likes), table[[3, 17, 40]].sum(axis=0) / 3**0.5, rtol=1e-5)
    both = fit(user_tower="both", batch_users=16)
    np.testing.assert_allclose(
        both.user_vector(likes), both.model.history_vectors[[3, 17, 40]].sum(axis=0) / 3**0.5, rtol=1e-5
    )
    assert own.model.history_vectors is None


def test_a_new_users_score_is_that_of_a_user_with_their_vector_and_bias():
    model = fit(loss="mse", epochs=5)
    assert model.model.offset > 1
    table, person = model.recommend_for([3, 17], k=99), profile_of(model.state, likes=[3, 17])
    np.testing.assert_array_equal(model.user_vector([3, 17]), person.vector)
    rows = model.items.rows(table["item_id"])
    want = model.model.items[rows] @ person.vector + model.model.item_bias[rows] + model.model.offset + person.bias
    np.testing.assert_allclose(table["score"], want, atol=1e-5)


def test_what_is_given_is_not_recommended_and_its_order_and_repetition_do_not_matter(history, own):
    for model in (history, own):
        likes = [5, 59, 0, 31]
        table = model.recommend_for(likes, k=99)
        assert table.columns == ["item_id", "title", "score", "rank"]
        assert set(table["item_id"]) == set(range(60)) - set(likes)
        assert (np.diff(table["score"]) <= 0).all() and table["rank"].to_list() == list(range(1, 57))
        assert model.recommend_for([31, 5, 5, 0, 59, 31], k=99).equals(table)
        assert model.recommend_for("31").equals(model.recommend_for(31)), "an id is read by the vocabulary"
        left = table["item_id"].to_list()
        assert model.recommend_for(likes, 2, candidates=left[3:7])["item_id"].to_list() == left[3:5]
        assert model.recommend_for(likes, 2, exclude=left[:3])["item_id"].to_list() == left[3:5]
        assert model.recommend_for(likes, candidates=likes).height == 0
        for near in model.reasons_for(likes, left[:3]):
            assert len(near) == 2 and set(near) <= set(likes)


def test_a_saved_model_answers_alike_and_its_table_is_in_the_folder(history, own, tmp_path):
    for model, name in ((history, "history"), (own, "own")):
        loaded = Recommender.load(model.save(tmp_path / name))
        assert loaded.recommend_for([4, 9]).equals(model.recommend_for([4, 9]))
        if model is own:
            assert loaded.model.history_vectors is None
        else:
            np.testing.assert_array_equal(loaded.model.history_vectors, model.model.history_vectors)


def test_unknown_items_and_bad_lengths_are_refused(history):
    with pytest.raises(UnknownId, match="item 4242 is not known; 60 items are"):
        history.recommend_for([3, 4242])
    with pytest.raises(UnknownId, match="item 4242 is not known"):
        history.user_vector(4242)
    with pytest.raises(SettingError, match="k must be a whole number"):
        history.recommend_for([3], k=0)


def test_an_item_without_ratings_says_nothing_and_does_not_count():
    more = RATED.with_items(pl.Series([900]))
    for content in (None, ContentConfig(text="kind")):
        model = fit(content, more, user_tower="history", batch_users=16, epochs=3)
        np.testing.assert_array_equal(model.user_vector([3, 7, 900]), model.user_vector([3, 7]))
        assert not model.user_vector([900]).any()
    model.add_items(pl.DataFrame({"item_id": [901], "title": ["new"], "kind": ["red|round"]}))
    np.testing.assert_array_equal(model.user_vector([3, 7, 901]), model.user_vector([3, 7]))
    assert 901 not in model.recommend_for([3, 901], k=99)["item_id"]


def test_items_that_came_later_are_liked_in_closed_form():
    model = fit(ContentConfig(text="kind"))
    before = model.recommend_for([3, 7])
    model.add_items(pl.DataFrame({"item_id": [901], "title": ["new"], "kind": ["red|round"]}))
    assert_frame_equal(model.recommend_for([3, 7]).filter(pl.col("item_id") != 901), before.head(10), check_exact=False)
    assert colours(model.recommend_for([901], k=10))[0] >= 0.8


def test_of_whom_nothing_is_known_gets_what_is_popular(history, own):
    for model in (history, own):
        table = model.recommend_for([], k=99)
        counts = model.item_counts[model.items.rows(table["item_id"])]
        assert table.height == 60 and (np.diff(counts) <= 0).all()
        np.testing.assert_allclose(table["score"], np.log1p(counts), rtol=1e-6)
        assert not model.user_vector([]).any()
        assert model.reasons_for([], [3, 4]) == [[], []]
        assert model.recommend_for([], k=1, exclude=table["item_id"][:2].to_list())["item_id"][0] == table["item_id"][2]


@pytest.mark.slow
def test_the_command_line(history, tmp_path):
    history.save(tmp_path / "models" / "one")
    title = TABLE["title"][40]
    done = recsys_here("recommend", "--likes", f"5;{title}; 5", "--k", "3", "--json", cwd=tmp_path)
    found, table = json.loads(done.stdout), history.recommend_for([5, 40], 3)
    assert found["likes"] == [5, 40]
    assert [entry["item"] for entry in found["items"]] == table["item_id"].to_list()
    assert list(found["items"][0]) == ["item", "title", "score", "rank", "why"]
    assert {near["item"] for entry in found["items"] for near in entry["why"]} == {5, 40}
    printed = recsys_here("recommend", "--likes", f"5;{title}", cwd=tmp_path).stdout
    assert "similar to what they like" in printed and f"likes: {TABLE['title'][5]}, {title}" in printed
    assert (
        "no item has the id or the title"
        in recsys_here("recommend", "--likes", "5;nothing", cwd=tmp_path, code=4).stderr
    )
    assert "--likes" in recsys_here("recommend", "--likes", "5", "--out", "a.csv", cwd=tmp_path, code=2).stderr
    both = json.loads(recsys_here("recommend", "--user", "1", "--likes", "5", "--json", cwd=tmp_path).stdout)
    assert both["user"] == 1 and both["likes"] == [5] and 5 not in [entry["item"] for entry in both["items"]]
    assert "names no item" in recsys_here("recommend", "--likes", " ; ", cwd=tmp_path, code=2).stderr


class TestClosedForm:
    @pytest.fixture(scope="class")
    def cosine(self):
        return fit(cosine=True, temperature=0.2, epochs=40, batch_users=16)

    @pytest.mark.parametrize("kind", ["own", "cosine"])
    def test_it_is_a_newton_step_of_the_likelihood(self, kind, request):
        model = request.getfixturevalue(kind)
        counts = np.where(np.arange(60) % 9 == 0, 0, model.item_counts)
        taken, v, bias = np.array([3, 9, 17, 40]), model.model.items.astype(float), model.model.item_bias.astype(float)
        fold = SoftmaxFoldIn.of(model.model, counts)
        assert fold.noise > 0 and fold.prior > 0
        ridge = fold.noise + fold.prior / 4

        def gradient(user):
            chance = np.exp(v @ user + bias) * (counts > 0)
            return v[taken].mean(axis=0) - chance @ v / chance.sum() - ridge * user

        step = 1e-4
        hessian = np.stack([(gradient(at) - gradient(-at)) / (2 * step) for at in step * np.eye(8)])
        np.testing.assert_allclose(fold.closed_form(taken), np.linalg.solve(-hessian, gradient(np.zeros(8))), rtol=1e-4)

    def test_neither_a_turn_nor_the_scale_of_the_vectors_nor_a_constant_of_the_biases_changes_a_score(self, own):
        plain, taken = own.model, np.array([3, 17, 40])
        turn = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0].astype(np.float32)
        changed = replace(plain, items=7 * plain.items @ turn, item_bias=plain.item_bias + 3)
        wide = replace(plain, items=np.pad(plain.items, ((0, 0), (0, 5))))
        scores = [of.items @ SoftmaxFoldIn.of(of, own.item_counts).closed_form(taken) for of in (plain, changed, wide)]
        np.testing.assert_allclose(scores[1:], [scores[0]] * 2, atol=1e-4)

    def test_more_items_of_one_kind_say_more(self, own):
        fold = SoftmaxFoldIn.of(own.model, own.item_counts)
        lengths = [np.linalg.norm(fold.closed_form(np.full(n, 5))) for n in (1, 2, 5, 50, 500)]
        assert (np.diff(lengths) > 0).all()
        # … but what is noise in the vectors remains.
        there_is = np.linalg.norm(np.linalg.solve(fold.covariance, own.model.items[5] - fold.mean))
        assert lengths[-2] < lengths[-1] < min(1.5 * lengths[-2], 0.8 * there_is)

    def test_what_somebody_took_tells_what_else_they_took(self, own, cosine):
        for model in (own, cosine):
            plain, fold, places = model.model, SoftmaxFoldIn.of(model.model, model.item_counts), []
            for user in range(len(model.users)):
                liked = np.random.default_rng(user).permutation(LIKED[user])
                shown, hidden = np.array_split(liked, 2)
                scores = (
                    np.stack((plain.items @ fold.fit_user(Feedback.from_likes(shown))[0], np.zeros(60)))
                    + plain.item_bias
                )
                scores[:, shown] = -np.inf
                places.append(np.argsort(np.argsort(-scores))[:, hidden].mean(axis=1))
            made, popular = np.mean(places, axis=0)
            assert made < 0.5 * popular

    def test_where_there_is_nothing_to_know(self, own):
        fold = SoftmaxFoldIn.of(own.model, own.item_counts)
        assert not fold.closed_form(np.zeros(0, np.int64)).any()
        for counts in (0 * own.item_counts, 1 * (np.arange(60) == 7)):
            assert np.isfinite(SoftmaxFoldIn.of(own.model, counts).closed_form(np.array([7, 8]))).all()
        alone = SoftmaxFoldIn.of(own.model, 1 * (np.arange(60) == 7))
        assert not alone.closed_form(np.array([7])).any(), "the only item there is tells nobody apart"


NOTHING = np.zeros(0, np.int64)


class TestLikelihood:
    """What a fold-in is, beside the closed form that it begins with."""

    def test_it_is_where_the_likelihood_that_it_states_has_its_top(self, own):
        fold = SoftmaxFoldIn.of(own.model, own.item_counts)
        rows, weight = np.array([3, 9, 17, 40, 41]), np.array([1, 0.5, 1, 1, -0.1], np.float32)
        x = fold.fit_user(Feedback(rows, weight, weight))[0].astype(float)
        v, bias = own.model.items.astype(float), own.model.item_bias.astype(float)
        others = (own.item_counts > 0) & ~np.isin(np.arange(60), rows[weight > 0])
        n, ridge = np.abs(weight).sum(), fold.noise + fold.prior / np.abs(weight).sum()
        at = lambda x: (  # noqa: E731
            weight @ (v[rows] @ x) / n
            - weight.sum() / n * np.log(np.exp(v[others] @ x + bias[others]).sum())
            - ridge * x @ x / 2
        )
        step = 1e-4
        slope = [(at(x + d) - at(x - d)) / (2 * step) for d in step * np.eye(8)]
        begin = [(at(d) - at(-d)) / (2 * step) for d in step * np.eye(8)]
        assert np.linalg.norm(slope) < 0.02 * np.linalg.norm(begin)
        assert at(x) > at(fold.closed_form(rows[:4]).astype(float))

    def test_where_there_are_many_items_the_unlikely_ones_stay_as_they_are(self, own, monkeypatch):
        fold, told = SoftmaxFoldIn.of(own.model, own.item_counts), Feedback.from_likes(np.array([3, 9, 17, 40]))
        whole = fold.fit_user(told)[0]
        monkeypatch.setattr(fold_in, "_CANDIDATES", 30)
        some = fold.fit_user(told)[0]
        assert 0 < np.abs(some - whole).max() < 0.1 * np.abs(whole).max()

    def test_who_took_everything_and_who_likes_nothing_have_a_vector(self, own):
        fold, rows = SoftmaxFoldIn.of(own.model, own.item_counts), np.arange(60)
        assert np.isfinite(fold.fit_user(Feedback.from_likes(rows))[0]).all()
        assert not fold.fit_user(Feedback.from_likes(NOTHING))[0].any()
        away, like = (fold.fit_user(Feedback(rows[:1], np.float32([w]), np.float32([1])))[0] for w in (-0.1, 1))
        assert away @ like < 0


@pytest.mark.parametrize("kind", ["own", "history", "mlp"])
def test_dislikes_push_what_is_near_down_and_are_hidden_but_not_spoken_of(kind, request):
    model = odd(kind) if kind == "mlp" else request.getfixturevalue(kind)
    colour = [np.flatnonzero(COLOUR == c) for c in range(3)]
    likes = [*colour[0][:4], *colour[1][:4]]

    def share(person):
        query = model.model.queries_from_vectors(person.vector[None], person.bias)
        scores = model.model.score(query)[0]
        rest = [np.setdiff1d(of, [*likes, *disliked]) for of in colour]
        return scores[rest[1]].mean() - scores[rest[0]].mean()

    disliked = colour[1][4:8].tolist()
    without, person = profile_of(model.state, likes=likes), profile_of(model.state, likes=likes, dislikes=disliked)
    assert share(person) < share(without)
    np.testing.assert_array_equal(person.history, np.sort(likes))
    np.testing.assert_array_equal(person.disliked, np.sort(disliked))
    found = recommend(model.state, RecommendRequest(likes=likes, dislikes=disliked, k=60, explain=True))
    assert not np.isin(found.rows, likes + disliked).any() and len(found.rows) == 60 - 12
    assert not np.isin(np.concatenate(found.nearest), disliked).any()


_ODD = {}


def odd(kind):
    """A model of stars or with an MLP."""
    if kind not in _ODD:
        stars = replace(WORLD, value=(1 + np.arange(len(WORLD)) % 5).astype(np.float32))
        given = {"scorer": "mlp", "loss": "logistic", "epochs": 30} if kind == "mlp" else {"loss": "mse"}
        _ODD[kind] = fit(ratings=stars, **given)
    return _ODD[kind]


def test_order_and_repetition_of_what_is_said_do_not_matter(own):
    likes, ratings = [3, 17, 40], {7: 5.0, 9: 1.0}
    one = profile_of(own.state, likes=likes, dislikes=[20, 8], ratings=ratings)
    two = profile_of(own.state, likes=[40, 3, 17, 3], dislikes=[8, 20, 8], ratings={"9": 1.0, "7": 5.0})
    np.testing.assert_array_equal(one.vector, two.vector)
    np.testing.assert_array_equal(one.disliked, two.disliked)
    assert profile_of(own.state).vector is None and profile_of(own.state, ratings={}).vector is None
    with pytest.raises(SettingError, match="a rating must be a number"):
        profile_of(own.state, ratings={3: float("nan")})


def test_what_a_rating_weighs_follows_from_the_training(own):
    told, against = to_feedback(own.state, NOTHING, NOTHING, {3: 5.0, 4: 2.0, 5: 3.0})  # with a --min-rating of 3
    np.testing.assert_array_equal(told.weight, [1, 0, 1])
    np.testing.assert_array_equal(against, [4])
    settings = {"settings": {"min_rating": None}}
    free = Recommender.of(own.state.replace(metadata=settings, model=replace(own.model, scale=(1.0, 5.0))))
    told, against = to_feedback(free.state, np.array([3]), np.array([4]), {5: 1.0, 6: 3.0, 7: 5.0, 8: 9.0, 3: 2.0})
    np.testing.assert_allclose(
        told.weight, [0.175, people._LOWEST_WEIGHT, people._LOWEST_WEIGHT, 0.45, 1, 1], rtol=1e-6
    )
    np.testing.assert_array_equal(against, [3, 4, 5])
    free = Recommender.of(free.state.replace(model=replace(own.model, scale=(1.0, 5000.0))))
    assert to_feedback(free.state, NOTHING, NOTHING, {5: 1.0, 6: 70.0})[0].weight.tolist() == [1, 1], "numbers of plays"


def test_a_user_of_the_model_with_something_said_is_that_user_moved(own):
    user, colour = 4, COLOUR == 2
    plain = profile_of(own.state, user)
    likes = np.flatnonzero(colour)[:6]
    person = profile_of(own.state, user, likes=likes)
    lift = own.model.items @ (person.vector - plain.vector)
    assert person.user == plain.user == int(own.users.rows([user])[0])
    assert lift[colour].mean() > lift[~colour].mean()
    np.testing.assert_array_equal(person.history, np.union1d(plain.history, likes))
    seen = own.items.ids(plain.history).to_list()
    same = profile_of(own.state, user, likes=seen)
    np.testing.assert_array_equal(same.vector, plain.vector)
    less = profile_of(own.state, user, dislikes=seen[:1])
    assert own.model.items[plain.history[0]] @ (less.vector - plain.vector) < 0
    assert plain.history[0] in less.disliked and plain.history[0] not in less.history


class TestStars:
    def test_it_is_the_ridge_regression_of_all_ratings_at_once(self):
        model = odd("mse")
        plain, fold = model.model, model.fold_in
        assert isinstance(fold, RatingFoldIn)
        rows, stars = np.array([2, 5, 11, 30]), np.array([5.0, 1.0, 3.0, 4.0])
        person = with_feedback(
            model.state, UserProfile(None), NOTHING, NOTHING, dict(zip(rows.tolist(), stars, strict=True))
        )
        users = np.column_stack((plain.users, plain.user_bias)).astype(float)
        keys = np.column_stack((plain.items[rows], np.ones(4))).astype(float)
        inverse, error = np.linalg.inv(np.cov(users.T)), (0.15 * 4) ** 2
        left = stars - plain.offset - plain.item_bias[rows] - keys @ users.mean(axis=0)
        want = users.mean(axis=0) + np.linalg.solve(inverse + keys.T @ keys / error, keys.T @ left / error)
        np.testing.assert_allclose(np.append(person.vector, person.bias), want, atol=1e-3)

    def test_a_like_is_more_than_a_dislike_and_less_than_the_highest_rating(self):
        model, key = odd("mse"), odd("mse").model.items[9]
        said = [{"dislikes": [9]}, {"likes": [9]}, {"ratings": {9: 5.0}}, {"ratings": {9: 1.0}}]
        people = [
            profile_of(model.state, likes=[3], **more) if "likes" not in more else profile_of(model.state, likes=[3, 9])
            for more in said
        ]
        scores = [person.vector @ key + person.bias for person in people]
        assert scores[3] < scores[0] < scores[1] < scores[2]
        assert people[0].disliked.tolist() == people[3].disliked.tolist() == [9]

    def test_what_comes_later_comes_to_the_same(self):
        model = odd("mse")
        rows, stars = np.array([2, 5, 11, 30]), np.array([5.0, 1.0, 3.0, 4.0], np.float32)
        told = lambda part: Feedback(rows[part], stars[part], stars[part])  # noqa: E731
        vector, bias = model.fold_in.fit_user(told(slice(0, 2)))
        vector, bias = model.fold_in.update_user(-1, rows[:2], vector, bias, told(slice(2, 4)))
        want = model.fold_in.fit_user(told(slice(0, 4)))
        np.testing.assert_allclose(vector, want[0], atol=1e-4)
        assert abs(bias - want[1]) < 1e-4


def test_an_mlps_new_user_is_the_mean_of_those_most_alike():
    model = odd("mlp")
    assert isinstance(model.fold_in, NeighbourFoldIn)
    taken = np.array([3, 9, 17, 40])
    alike = np.array([len(np.intersect1d(model.seen[u], taken)) / len(model.seen[u]) ** 0.5 for u in range(45)])
    best = np.argsort(-alike, kind="stable")[:20]
    want = alike[best] ** 3 @ model.model.users[best] / (alike[best] ** 3).sum()
    np.testing.assert_allclose(model.fold_in.fit_user(Feedback.from_likes(taken))[0], want, rtol=1e-4, atol=1e-6)
