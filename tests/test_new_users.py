"""Somebody the model does not know, from items that they like."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from worlds import recsys, small, tastes

from recsys_embed.config import ContentConfig
from recsys_embed.errors import SettingError, UnknownId
from recsys_embed.recommend.fold_in import FoldIn, Told
from recsys_embed.recommend.person import somebody
from recsys_embed.recommend.recommender import Recommender

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
        np.testing.assert_allclose(model.vector_of(items[::-1]), model.plain.users[user], atol=1e-6)
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
    fold = FoldIn.of(own.plain, own.counts)
    np.testing.assert_array_equal(own.vector_of(likes), fold.new(Told.liked(np.array([3, 17, 40])))[0])
    table = history.plain.history
    np.testing.assert_allclose(history.vector_of(likes), table[[3, 17, 40]].sum(axis=0) / 3**0.5, rtol=1e-5)
    both = fit(user_tower="both", batch_users=16)
    np.testing.assert_allclose(both.vector_of(likes), both.plain.history[[3, 17, 40]].sum(axis=0) / 3**0.5, rtol=1e-5)
    assert own.plain.history is None


def test_a_new_users_score_is_that_of_a_user_with_their_vector_and_bias():
    model = fit(loss="mse", epochs=5)
    assert model.plain.offset > 1
    table, person = model.recommend_for([3, 17], k=99), somebody(model, likes=[3, 17])
    np.testing.assert_array_equal(model.vector_of([3, 17]), person.vector)
    rows = model.items.rows(table["item_id"])
    want = model.plain.items[rows] @ person.vector + model.plain.item_bias[rows] + model.plain.offset + person.bias
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
        assert model.recommend_for(likes, 2, among=left[3:7])["item_id"].to_list() == left[3:5]
        assert model.recommend_for(likes, 2, exclude=left[:3])["item_id"].to_list() == left[3:5]
        assert model.recommend_for(likes, among=likes).height == 0
        for near in model.reasons_for(likes, left[:3]):
            assert len(near) == 2 and set(near) <= set(likes)


def test_a_saved_model_answers_alike_and_its_table_is_in_the_folder(history, own, tmp_path):
    for model, name in ((history, "history"), (own, "own")):
        loaded = Recommender.load(model.save(tmp_path / name))
        assert loaded.recommend_for([4, 9]).equals(model.recommend_for([4, 9]))
        if model is own:
            assert loaded.plain.history is None
        else:
            np.testing.assert_array_equal(loaded.plain.history, model.plain.history)


def test_unknown_items_and_bad_lengths_are_refused(history):
    with pytest.raises(UnknownId, match="item 4242 is not known; 60 items are"):
        history.recommend_for([3, 4242])
    with pytest.raises(UnknownId, match="item 4242 is not known"):
        history.vector_of(4242)
    with pytest.raises(SettingError, match="k must be a whole number"):
        history.recommend_for([3], k=0)


def test_an_item_without_ratings_says_nothing_and_does_not_count():
    more = RATED.with_items(pl.Series([900]))
    for content in (None, ContentConfig(text="kind")):
        model = fit(content, more, user_tower="history", batch_users=16, epochs=3)
        np.testing.assert_array_equal(model.vector_of([3, 7, 900]), model.vector_of([3, 7]))
        assert not model.vector_of([900]).any()
    model.add_items(pl.DataFrame({"item_id": [901], "title": ["new"], "kind": ["red|round"]}))
    np.testing.assert_array_equal(model.vector_of([3, 7, 901]), model.vector_of([3, 7]))
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
        counts = model.counts[model.items.rows(table["item_id"])]
        assert table.height == 60 and (np.diff(counts) <= 0).all()
        np.testing.assert_allclose(table["score"], np.log1p(counts), rtol=1e-6)
        assert not model.vector_of([]).any()
        assert model.reasons_for([], [3, 4]) == [[], []]
        assert model.recommend_for([], k=1, exclude=table["item_id"][:2].to_list())["item_id"][0] == table["item_id"][2]


def test_the_command_line(history, tmp_path):
    history.save(tmp_path / "models" / "one")
    title = TABLE["title"][40]
    done = recsys("recommend", "--likes", f"5;{title}; 5", "--k", "3", "--json", cwd=tmp_path)
    found, table = json.loads(done.stdout), history.recommend_for([5, 40], 3)
    assert found["likes"] == [5, 40]
    assert [entry["item"] for entry in found["items"]] == table["item_id"].to_list()
    assert list(found["items"][0]) == ["item", "title", "score", "rank", "why"]
    assert {near["item"] for entry in found["items"] for near in entry["why"]} == {5, 40}
    printed = recsys("recommend", "--likes", f"5;{title}", cwd=tmp_path).stdout
    assert "near to what they like" in printed and f"likes: {TABLE['title'][5]}, {title}" in printed
    assert "no item has the id or the title" in recsys("recommend", "--likes", "5;nothing", cwd=tmp_path, code=4).stderr
    for wrong in (["--user", "1"], ["--out", "a.csv"]):
        assert "--likes" in recsys("recommend", "--likes", "5", *wrong, cwd=tmp_path, code=2).stderr
    assert "names no item" in recsys("recommend", "--likes", " ; ", cwd=tmp_path, code=2).stderr


class TestClosedForm:
    @pytest.fixture(scope="class")
    def cosine(self):
        return fit(cosine=True, temperature=0.2, epochs=40, batch_users=16)

    @pytest.mark.parametrize("kind", ["own", "cosine"])
    def test_it_is_a_newton_step_of_the_likelihood(self, kind, request):
        model = request.getfixturevalue(kind)
        counts = np.where(np.arange(60) % 9 == 0, 0, model.counts)
        taken, v, bias = np.array([3, 9, 17, 40]), model.plain.items.astype(float), model.plain.item_bias.astype(float)
        fold = FoldIn.of(model.plain, counts)
        assert fold.noise > 0 and fold.prior > 0
        ridge = fold.noise + fold.prior / 4

        def gradient(user):
            chance = np.exp(v @ user + bias) * (counts > 0)
            return v[taken].mean(axis=0) - chance @ v / chance.sum() - ridge * user

        step = 1e-4
        hessian = np.stack([(gradient(at) - gradient(-at)) / (2 * step) for at in step * np.eye(8)])
        np.testing.assert_allclose(fold.vector(taken), np.linalg.solve(-hessian, gradient(np.zeros(8))), rtol=1e-4)

    def test_neither_a_turn_nor_the_scale_of_the_vectors_nor_a_constant_of_the_biases_changes_a_score(self, own):
        plain, taken = own.plain, np.array([3, 17, 40])
        turn = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0].astype(np.float32)
        changed = replace(plain, items=7 * plain.items @ turn, item_bias=plain.item_bias + 3)
        wide = replace(plain, items=np.pad(plain.items, ((0, 0), (0, 5))))
        scores = [of.items @ FoldIn.of(of, own.counts).vector(taken) for of in (plain, changed, wide)]
        np.testing.assert_allclose(scores[1:], [scores[0]] * 2, atol=1e-4)

    def test_more_items_of_one_kind_say_more(self, own):
        fold = FoldIn.of(own.plain, own.counts)
        lengths = [np.linalg.norm(fold.vector(np.full(n, 5))) for n in (1, 2, 5, 50, 500)]
        assert (np.diff(lengths) > 0).all()
        # … but what is noise in the vectors remains.
        there_is = np.linalg.norm(np.linalg.solve(fold.spread, own.plain.items[5] - fold.mean))
        assert lengths[-2] < lengths[-1] < min(1.5 * lengths[-2], 0.8 * there_is)

    def test_what_somebody_took_tells_what_else_they_took(self, own, cosine):
        for model in (own, cosine):
            plain, fold, places = model.plain, FoldIn.of(model.plain, model.counts), []
            for user in range(len(model.users)):
                liked = np.random.default_rng(user).permutation(LIKED[user])
                shown, hidden = np.array_split(liked, 2)
                scores = np.stack((plain.items @ fold.new(Told.liked(shown))[0], np.zeros(60))) + plain.item_bias
                scores[:, shown] = -np.inf
                places.append(np.argsort(np.argsort(-scores))[:, hidden].mean(axis=1))
            made, popular = np.mean(places, axis=0)
            assert made < 0.5 * popular

    def test_where_there_is_nothing_to_know(self, own):
        fold = FoldIn.of(own.plain, own.counts)
        assert not fold.vector(np.zeros(0, np.int64)).any()
        for counts in (0 * own.counts, 1 * (np.arange(60) == 7)):
            assert np.isfinite(FoldIn.of(own.plain, counts).vector(np.array([7, 8]))).all()
        alone = FoldIn.of(own.plain, 1 * (np.arange(60) == 7))
        assert not alone.vector(np.array([7])).any(), "the only item there is tells nobody apart"
