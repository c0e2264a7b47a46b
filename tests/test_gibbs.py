"""Vectors as the mean of Gibbs samples: every conditional against its formula, and the whole against worlds known."""

import numpy as np
import polars as pl
import pytest
import torch
from worlds import DIM, ITEMS, USERS, checkerboard_stars, small, tastes

from recsys_embed import Recommender, split_random
from recsys_embed.config.recipes import Size, resolve_settings
from recsys_embed.config.settings import ContentConfig, ModelConfig, TrainConfig
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import SettingError
from recsys_embed.sources.load import load_dataset
from recsys_embed.tracking.tracker import MemoryTracker, Tracker
from recsys_embed.training import gibbs
from recsys_embed.training.gibbs import (
    PosteriorMean,
    _Chain,
    _history_directions,
    _normal_wishart,
    _Side,
    fit_gibbs,
    truncated_product_svd,
)

SIZE = Size(USERS, ITEMS, 31)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sides(ratings, dim=3):
    """The users and the items of a small world, and its ratings less their mean."""
    value = (ratings.value - ratings.value.mean()).astype(np.float32)
    generator = torch.Generator().manual_seed(4)
    users = _Side(ratings.user, ratings.item, value, (USERS, ITEMS), dim, generator)
    items = _Side(ratings.item, ratings.user, value, (ITEMS, USERS), dim, generator)
    items.sample[:] = normal(ITEMS, dim + 1)
    items.noise[:-1] = 0.5 + torch.rand(ITEMS, generator=generator)
    users.draw_prior()
    return users, items, torch.from_numpy(value)


def conditional(users, items, ratings, value, user, precision):
    """The mean and precision matrix of one user's vector and bias, rating by rating."""
    inverse, pull = users.precision.double().clone(), users.precision.double() @ users.prior[user].double()
    for row in np.flatnonzero(ratings.user == user):
        other = items.sample[ratings.item[row]].double()
        x = torch.cat((other[:-1], torch.ones(1)))
        weight = precision * users.noise[user] * items.noise[ratings.item[row]]
        inverse += weight * torch.outer(x, x)
        pull += weight * x * (value[row] - other[-1])
    return torch.linalg.solve(inverse, pull), inverse


def test_a_vector_is_drawn_around_the_ridge_regression_of_its_ratings(ratings):
    users, items, value = sides(ratings)
    noise = users.noise.clone()
    expected = [conditional(users, items, ratings, value, u, 1.7)[0] for u in range(USERS)]
    users.draw(items, 1.7)
    torch.testing.assert_close(users.mean, torch.stack(expected).float(), atol=1e-4, rtol=1e-4)
    assert not torch.equal(users.noise, noise) and users.noise[-1] == 0


def test_samples_have_the_mean_and_the_covariance_of_the_posterior(ratings, monkeypatch):
    monkeypatch.setattr(gibbs, "_MIN_FILL", 0.01)  # one block: it is quick
    users, items, value = sides(ratings, dim=2)
    mean, inverse = conditional(users, items, ratings, value, 2, 1.7)
    noise, drawn = users.noise.clone(), []
    for _ in range(1500):
        users.noise[:] = noise
        users.draw(items, 1.7)
        drawn.append(users.sample[2].double().clone())
    drawn = torch.stack(drawn)
    root = torch.linalg.cholesky(inverse)
    torch.testing.assert_close(((drawn - mean) @ root).mean(0), torch.zeros(3).double(), atol=0.1, rtol=0)
    torch.testing.assert_close(root.T @ drawn.T.cov() @ root, torch.eye(3).double(), atol=0.15, rtol=0)


def test_the_error_is_that_of_the_sample(ratings):
    users, items, value = sides(ratings)
    total = users.draw(items, 1.7)
    error = value - chain_scores(users, items, ratings.user, ratings.item)
    weight = 1.7 * users.noise[ratings.user] * items.noise[ratings.item]
    assert total == pytest.approx(float((weight * error**2).sum()), rel=1e-4)


def test_who_rates_at_random_counts_less():
    random = np.random.default_rng(0)
    user, item = (part.ravel() for part in np.indices((30, 40)))
    value = random.normal(size=40)[item] + random.normal(scale=np.where(user == 3, 1.5, 0.3))
    generator = torch.Generator().manual_seed(0)
    users = _Side(user, item, value.astype(np.float32), (30, 40), 2, generator)
    items = _Side(item, user, value.astype(np.float32), (40, 30), 2, generator)
    chain, mean = _Chain(users, items, generator), torch.zeros(31)
    for _ in range(30):
        chain.sweep()
        mean += users.noise / 30
    assert mean.argsort()[:2].tolist() == [30, 3], "but for the padding, nobody is as noisy"
    assert mean[3] < 0.5 * mean[:-1].median() and 0.7 < mean[:-1].median() < 1.5
    others = torch.from_numpy(user != 3)
    error = torch.from_numpy(value) - chain_scores(users, items, user, item)
    assert float((error[others] ** 2).mean()) < 1.5 * 0.3**2


def chain_scores(users, items, user, item):
    u, v = users.sample[user], items.sample[item]
    return (u[:, :-1] * v[:, :-1]).sum(1) + u[:, -1] + v[:, -1]


def test_without_ratings_there_is_the_prior(ratings):
    some = ratings.take((ratings.user != 4) & (ratings.item != 6))
    users, items, _ = sides(some)
    users.draw(items, 1.0)
    torch.testing.assert_close(users.mean[4], users.prior[4], atol=1e-5, rtol=1e-4)
    assert users.history[4].abs().max() < 1e-6 < users.history[3].abs().max(), "nor is there a history"


@pytest.mark.parametrize(("padded", "numbers"), [(0.01, 10**6), (1.0, 10**6), (0.75, 1)])
def test_how_rows_are_put_into_blocks_does_not_matter(ratings, monkeypatch, padded, numbers):
    users, items, _ = sides(ratings)
    users.draw(items, 1.0)
    expected = users.mean.clone()
    monkeypatch.setattr(gibbs, "_MIN_FILL", padded)
    monkeypatch.setattr(gibbs, "_BLOCK_NUMBERS", numbers)
    users, items, _ = sides(ratings)
    held = torch.cat([block.rows for block in users.blocks]).sort().values.tolist()
    assert held == list(range(USERS)) and sum(float(b.n_ratings.sum()) for b in users.blocks) == len(ratings)
    users.draw(items, 1.0)
    torch.testing.assert_close(users.mean, expected, atol=1e-5, rtol=1e-4)


def test_the_directions_of_the_history_are_those_of_who_rated_what(ratings):
    directions, share = _history_directions(ratings.user, ratings.item, (USERS, ITEMS))
    x = np.zeros((USERS, ITEMS), np.float32)
    x[ratings.user, ratings.item] = 1
    x /= np.sqrt(x.sum(1, keepdims=True))
    np.testing.assert_allclose((directions * share) @ directions.T, x @ x.T, atol=1e-5)


def test_what_depends_on_the_history_is_found_in_it_and_what_does_not_is_not():
    random = np.random.default_rng(0)
    pairs = random.permutation(150 * 20)[:900]
    own, other = pairs // 20, pairs % 20
    side = _Side(own, other, np.zeros(900, np.float32), (150, 20), 3, torch.Generator().manual_seed(0))
    truth = 10 * side.directions[:, :5] @ normal(5, 4)
    spread = lambda x: float(((x - x.mean(0)) ** 2).sum())  # noqa: E731
    side.sample = truth + 0.1 * normal(150, 4, seed=1)
    for _ in range(20):
        side.draw_prior()
    assert spread(side.history - truth) < 0.1 * spread(truth)
    side.sample = normal(150, 4, seed=1)
    for _ in range(20):
        side.draw_prior()
    assert spread(side.history) < 0.2 * spread(side.sample)


def test_the_prior_is_found_from_many_rows():
    root = torch.tensor([[2.0, 0.0], [1.0, 0.5]])
    rows = torch.tensor([3.0, -1.0]) + normal(20_000, 2) @ torch.linalg.inv(root)
    centre, found = _normal_wishart(rows, torch.Generator().manual_seed(0))
    torch.testing.assert_close(centre, torch.tensor([3.0, -1.0]), atol=0.1, rtol=0)
    torch.testing.assert_close(found @ found.T, root @ root.T, atol=0.15, rtol=0)


def test_the_prior_of_few_rows_is_held_back_by_its_own_prior():
    rows, generator = torch.tensor([[3.0, 0.0], [4.0, 1.0], [5.0, 0.0]]), torch.Generator().manual_seed(0)
    centred, mean = rows - rows.mean(0), rows.mean(0)
    inverse = torch.eye(2) + centred.T @ centred + 2 * 3 / (2 + 3) * torch.outer(mean, mean)
    drawn = [_normal_wishart(rows, generator) for _ in range(3000)]
    expected = (2 + 3) * torch.linalg.inv(inverse)  # the mean of a Wishart distribution
    torch.testing.assert_close(torch.stack([r @ r.T for _, r in drawn]).mean(0), expected, atol=0.1, rtol=0.05)
    torch.testing.assert_close(torch.stack([c for c, _ in drawn]).mean(0), 3 * mean / 5, atol=0.1, rtol=0)


def models(n, dim=3):
    return [(normal(USERS, dim + 1, seed=s), normal(ITEMS, dim + 1, seed=100 + s)) for s in range(n)]


def scores(u, v, a, b):
    return u @ v.T + a[:, None] + b


@pytest.mark.parametrize("calls", [1, 5])
def test_the_mean_of_models_predicts_the_mean_of_their_predictions(calls):
    members, mean = models(5), PosteriorMean(width=20)
    for at in range(0, 5, 5 // calls):
        mean.add(*members[at : at + 5 // calls])
    (u, a), (v, b) = mean.read(20)
    expected = torch.stack([scores(m[:, :-1], n[:, :-1], m[:, -1], n[:, -1]) for m, n in members]).mean(0)
    torch.testing.assert_close(scores(u, v, a, b), expected, atol=1e-5, rtol=1e-5)
    assert u.shape == (USERS, 20) and v.shape == (ITEMS, 20)


def test_the_mean_of_equal_models_is_the_model():
    (own,) = models(1)
    mean = PosteriorMean(width=12)
    for _ in range(6):
        mean.add(own, own)
    (u, a), (v, b) = mean.read(3)
    torch.testing.assert_close(u @ v.T, own[0][:, :-1] @ own[1][:, :-1].T, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(a, own[0][:, -1])
    torch.testing.assert_close(b, own[1][:, -1])


def test_what_is_kept_is_the_nearest_of_its_width():
    left, right = normal(9, 6), normal(8, 6, seed=1)
    u, v = truncated_product_svd(left, right, 2)
    size = torch.linalg.svdvals(left @ right.T)
    assert float(((left @ right.T - u @ v.T) ** 2).sum()) == pytest.approx(float((size[2:] ** 2).sum()), rel=1e-4)
    torch.testing.assert_close(u.norm(dim=0), v.norm(dim=0))
    assert u.shape == (9, 2) and u.norm(dim=0)[0] > u.norm(dim=0)[1]


def fitted(ratings, of=30, dim=DIM, **given):
    return fit_gibbs(ratings, dim, TrainConfig(epochs=of, device="cpu"), **given)


def test_the_checkerboard_is_learnt():
    rows = np.arange(12)
    predicted = fitted(checkerboard_stars(), 100).model.predict(rows, rows)
    assert (predicted > 4).all(), "like goes with like"


def test_it_predicts_better_than_biases_and_than_adam():
    ratings = load_dataset("synthetic:users=120,items=80,ratings=4000").ratings
    train, _, test = split_random(ratings, 0, 0.2)
    error = {}
    for name, config in (("gibbs", {}), ("adam", {"method": "adam"})):
        model = Recommender(train=TrainConfig(loss="mse", **config)).fit(train).model
        error[name] = float(np.mean((model.predict(test.user, test.item) - test.value) ** 2))
    assert error["gibbs"] < error["adam"] < float(test.value.var())


def test_one_seed_gives_the_same_bits_whatever_the_threads_and_a_saved_model_the_same_answers(tmp_path, ratings):
    config = TrainConfig(loss="mse", epochs=5)
    one = Recommender(train=config).fit(ratings)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    two = Recommender(train=config).fit(ratings)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(one.model.users, two.model.users)
    np.testing.assert_array_equal(one.model.item_bias, two.model.item_bias)
    other = Recommender(train=TrainConfig(loss="mse", epochs=5, seed=1)).fit(ratings)
    assert not np.array_equal(other.model.users, one.model.users)
    again = Recommender.load(one.save(tmp_path / "m"))
    user, item = ratings.users.ids(ratings.user[:9]), ratings.items.ids(ratings.item[:9])
    np.testing.assert_array_equal(again.predict(user, item), one.predict(user, item))


def test_no_held_out_pair_takes_part(ratings):
    train, _, test = split_random(ratings, 0, 0.2)
    config = TrainConfig(loss="mse", epochs=4)
    alone = Recommender(train=config).fit(train)
    beside = Recommender(train=config).fit(train, held_out=test, validate=lambda m: {"rmse": float(m.offset)})
    np.testing.assert_array_equal(alone.model.users, beside.model.users)
    np.testing.assert_array_equal(alone.model.items, beside.model.items)
    full = Recommender(train=config).fit(ratings)
    assert not np.array_equal(alone.model.users, full.model.users)


def test_stars_of_another_scale_are_predicted_on_it(ratings):
    wide = Ratings(ratings.users, ratings.items, ratings.user, ratings.item, ratings.value * 20 - 50)
    one, two = fitted(ratings, 5).model, fitted(wide, 5).model
    pairs = np.repeat(np.arange(USERS), ITEMS), np.tile(np.arange(ITEMS), USERS)
    np.testing.assert_allclose(two.score_pairs(*pairs), one.score_pairs(*pairs) * 20 - 50, rtol=1e-2, atol=0.2)
    assert two.scale == (wide.value.min(), wide.value.max())


def test_equal_ratings_are_predicted_as_such(ratings):
    flat = Ratings(ratings.users, ratings.items, ratings.user, ratings.item, np.full(len(ratings), 4, np.float32))
    assert (fitted(flat).model.predict(flat.user, flat.item) == 4).all()


def test_every_epoch_is_told_and_the_last_is_the_best(ratings):
    tracker, seen = MemoryTracker(), []

    def validate(model):
        seen.append(model)
        return {"rmse": float(len(seen))}

    done = fitted(ratings, 7, tracker=tracker, validate=validate, epochs=6)
    assert done.epochs == len(done.history) == len(seen) == 6 and done.stopped == "epochs"
    assert [facts["rmse"] for facts in done.history] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(facts["loss"]) for facts in done.history)
    np.testing.assert_array_equal(seen[-1].users, done.model.users)


def test_an_interrupt_keeps_the_mean_so_far(ratings):
    class Impatient(Tracker):
        def metrics(self, values, step=None):
            if step == 3:
                raise KeyboardInterrupt

    done = fitted(ratings, 9, tracker=Impatient())
    assert done.stopped == "interrupted" and done.epochs == 3
    np.testing.assert_array_equal(done.model.users.shape, (USERS, DIM))
    with pytest.raises(KeyboardInterrupt):
        fitted(ratings, 9, validate=lambda model: (_ for _ in ()).throw(KeyboardInterrupt))


def test_wider_than_the_world_is_no_harm(ratings):
    model = fitted(ratings, 3, dim=40).model
    assert model.users.shape == (USERS, 40) and np.isfinite(model.users).all()


def test_stars_are_sampled_unless_a_setting_is_adams():
    model, train = resolve_settings(ModelConfig(), TrainConfig(loss="mse"), SIZE)
    assert (train.method, model.dim, train.epochs, train.lr) == ("gibbs", 24, 100, None)
    assert resolve_settings(model, train, SIZE) == (model, train)
    model, train = resolve_settings(ModelConfig(dim=7), TrainConfig(loss="mse", epochs=3, seed=5, refit=False), SIZE)
    assert (train.method, model.dim, train.epochs) == ("gibbs", 7, 3)
    for given in (
        {"lr": 0.01},
        {"batch_size": 9},
        {"max_grad_norm": 1.0},
        {"sample_weight": "rating"},
        {"loss": "softmax"},
    ):
        train = resolve_settings(ModelConfig(), TrainConfig(**{"loss": "mse", **given}), SIZE)[1]
        assert train.method == "adam" and train.lr
        assert resolve_settings(ModelConfig(), train, SIZE)[1] == train
    for changed in ({"biases": False}, {"cosine": True}, {"scorer": "mlp"}, {"init_scale": 0.3}):
        assert resolve_settings(ModelConfig(**changed), TrainConfig(loss="mse"), SIZE)[1].method == "adam"
    assert resolve_settings(ModelConfig(), TrainConfig(loss="mse"), SIZE, has_content=True)[1].method == "adam"
    assert resolve_settings(ModelConfig(), TrainConfig(), SIZE)[1].method == "adam"


@pytest.mark.parametrize(
    ("model", "train", "named"),
    [
        ({}, {"lr": 0.1}, "--lr"),
        ({}, {"loss": "softmax"}, "--loss softmax"),
        ({}, {"loss": None}, "--loss softmax"),
        ({"biases": False}, {}, "--no-biases"),
        ({"cosine": True}, {}, "--cosine"),
        ({"scorer": "mlp"}, {}, "--scorer mlp"),
        ({"user_tower": "both"}, {}, "--user-tower"),
    ],
)
def test_what_gibbs_does_not_know_is_refused_by_name(model, train, named):
    with pytest.raises(SettingError, match=f"--method gibbs goes with .* not with .*{named}"):
        resolve_settings(ModelConfig(**model), TrainConfig(**{"loss": "mse", "method": "gibbs", **train}), SIZE)


def test_descriptions_are_adams():
    _, table, _ = tastes()
    rated = {"user": [0, 1, 2] * 3, "item": [0, 0, 0, 1, 1, 1, 2, 2, 2], "rating": [1.0, 2.0, 3.0] * 3}
    ratings = Ratings.from_frame(pl.DataFrame(rated))
    content = ContentConfig(text="kind")
    with pytest.raises(SettingError, match="descriptions of items"):
        Recommender(train=TrainConfig(loss="mse", method="gibbs"), content=content).fit(ratings, table)
    described = Recommender(*small("mse", epochs=2), content).fit(ratings, table)
    assert described.content_model is not None
