from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds import BATCH, DIM, ITEMS, USERS, checkerboard, checkerboard_stars, small

from recsys_embed.config.recipes import RECIPES, Size, resolve_settings
from recsys_embed.config.settings import ModelConfig, TrainConfig
from recsys_embed.errors import SettingError, TrainingError
from recsys_embed.nets.losses import LOSSES, Scores
from recsys_embed.nets.negative_sampling import KnownPositives, draw_negatives
from recsys_embed.nets.two_tower import build_two_tower
from recsys_embed.recommender import Recommender
from recsys_embed.tracking.tracker import MemoryTracker, Tracker
from recsys_embed.training.autograd_step import AutogradStep, Batch, _partition
from recsys_embed.training.trainer import choose_device, fit, step_for


def step_of(ratings, loss, scorer="dot", **given):
    model_config, config = small(loss, scorer, **given)
    model = build_two_tower(model_config, USERS, ITEMS)
    known = KnownPositives(ratings.seen(), ITEMS, torch.device("cpu"))
    return model, AutogradStep(
        model, config, known, torch.from_numpy(ratings.item_counts), torch.Generator().manual_seed(0)
    )


def batch_of(ratings, rows):
    columns = (ratings.user, ratings.item, ratings.value, np.ones(len(ratings), np.float32))
    return Batch(*(torch.tensor(c)[rows] for c in columns))


@pytest.mark.parametrize("loss", [n for n, o in LOSSES.items() if o.negatives != "none"])
def test_an_item_without_ratings_is_nobodys_negative(ratings, loss):
    """It does not move, and its bias is the lowest: it is listed last."""
    fewer = ratings.take(ratings.item != 3)
    model_config, config = small(loss, negatives=6, epochs=5)
    net = build_two_tower(model_config, USERS, ITEMS)
    before = net.items.table.weight[3].clone()
    plain = fit(net, fewer, config).model
    assert net.items.table.weight[3].equal(before) and not plain.items[3].any()
    assert (ratings.item_counts > 0).all() and plain.item_bias[3] < plain.item_bias.max()
    assert plain.item_bias[3] == pytest.approx(np.log(1 / (fewer.item_counts + 1).mean()), abs=1e-5)


@pytest.mark.parametrize("scorer", ["dot", "mlp"])
@pytest.mark.parametrize("loss", LOSSES)
class TestStep:
    def test_its_loss_is_that_of_the_scores_of_its_pairs(self, ratings, loss, scorer):
        model, step = step_of(ratings, loss, scorer, negatives=4, dropout=0.0)
        with torch.no_grad():
            model.items.bias.weight.normal_()
        batch = batch_of(ratings, torch.arange(BATCH))
        batch = batch._replace(weight=torch.rand(BATCH))
        found = step.loss(batch)
        table = model.matrix(model.users(torch.arange(USERS)), model.items(torch.arange(ITEMS))).detach()
        kind, drawn = LOSSES[loss].negatives, torch.Generator().manual_seed(0)  # what the step drew, drawn again
        items, shift = torch.zeros(BATCH, 0, dtype=torch.long), torch.zeros(())
        if kind == "all":
            items = torch.arange(ITEMS).expand(BATCH, -1)
        elif kind == "shared":
            rows, shift = step.sampler.draw_distinct(4, drawn)
            items = rows.expand(BATCH, -1)
        elif kind == "each":
            items, _ = draw_negatives(step.sampler, step.known, torch.arange(ITEMS), batch.user, 4, drawn)
        expected = table[batch.user[:, None], items] - shift
        expected[step.known.contains(batch.user[:, None], items)] = -1e9
        s = Scores(table[batch.user, batch.item], expected, torch.arange(BATCH), batch.value, batch.weight)
        torch.testing.assert_close(found.detach(), LOSSES[loss].loss(s))

    def test_every_tower_is_asked_once_for_distinct_rows(self, ratings, loss, scorer):
        model, step = step_of(ratings, loss, scorer, negatives=3)
        asked = []
        for tower in (model.users, model.items):
            tower.register_forward_hook(lambda _m, args, _out: asked.append(args[0]))
        step(batch_of(ratings, torch.arange(BATCH)))
        assert len(asked) == 2 and all(len(rows.unique()) == len(rows) for rows in asked)

    def test_the_same_seed_gives_the_same_bits(self, ratings, loss, scorer):
        runs = []
        for _ in range(2):
            model_config, config = small(loss, scorer, epochs=3, batch_size=BATCH, dropout=0.3, negatives=3)
            runs.append(fit(build_two_tower(model_config, USERS, ITEMS), ratings, config).model)
        assert all(np.array_equal(getattr(runs[0], n), getattr(runs[1], n)) for n in ("users", "items", "item_bias"))


def test_rows_that_no_rating_names_are_left_alone_or_silenced(ratings):
    few = ratings.take((ratings.user != 2) & (ratings.item != 5))
    for loss in LOSSES:
        model_config, config = small(loss, epochs=1, negatives=2)
        plain = fit(build_two_tower(model_config, USERS, ITEMS), few, config).model
        assert not plain.users[2].any(), loss
        assert plain.users[3].any()
    assert not plain.items[5].any()  # squared error has no negatives


def test_every_parameter_has_one_place():
    model = build_two_tower(small("softmax", "mlp")[0], USERS, ITEMS)
    groups = _partition(model)
    placed = [p for group in groups.values() for p in group]
    assert len(placed) == len(list(model.parameters())) and len({id(p) for p in placed}) == len(placed)
    assert groups["user"] == [model.users.table.weight] and groups["item"] == [model.items.table.weight]


def learnt(ratings, loss, scorer, **given):
    model, train = small(loss, scorer, items=12, dim=8, **given)
    return Recommender(model, train).fit(ratings)


@pytest.mark.parametrize(("loss", "scorer"), sorted(RECIPES))
def test_the_checkerboard_is_learnt(loss, scorer):
    ratings = checkerboard_stars() if loss == "mse" else checkerboard()
    given = {"negatives": 6} | (
        {"epochs": 100, "lr": 0.02, "init_scale": 0.3, "user_decay": 2.0, "item_decay": 2.0} if scorer == "mlp" else {}
    )
    found = learnt(ratings, loss, scorer, **given).recommend(k=1)
    assert found["item_id"].to_list() == found["user_id"].to_list()
    if loss == "mse":
        recommender = learnt(ratings, loss, scorer, **given)
        assert recommender.predict([0, 1, 2], [0, 1, 3]) == pytest.approx([5.0, 5.0, 1.0], abs=0.7)
        assert recommender.model.scale == (1.0, 5.0)


CUDA_PAIRS = [("softmax", "dot"), ("sampled-softmax", "dot"), ("bpr", "dot"), ("mse", "dot")]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("loss", "scorer"), CUDA_PAIRS)
def test_the_checkerboard_is_learnt_on_cuda(loss, scorer):
    ratings = checkerboard_stars() if loss == "mse" else checkerboard()
    found = learnt(ratings, loss, scorer, negatives=6, device="cuda").recommend(k=1)
    assert found["item_id"].to_list() == found["user_id"].to_list()


@pytest.mark.parametrize(
    "given",
    [
        {"sampler": "popularity"},
        {"cosine": True},
        {"max_grad_norm": 0.5},
        {"biases": False},
        {"sample_weight": "rating"},
        {"balance": 0.5},
        {"dropout": 0.2},
    ],
)
def test_the_checkerboard_is_learnt_with_every_setting(given):
    found = learnt(checkerboard(), "sampled-softmax", "dot", negatives=6, **given).recommend(k=1)
    assert found["item_id"].to_list() == found["user_id"].to_list()


def test_ratings_and_balance_weigh_a_positive(ratings):
    from recsys_embed.training.batches import columns_of

    cpu = torch.device("cpu")
    by_rating = columns_of(ratings, small("softmax", sample_weight="rating", balance=0.0)[1], cpu).weight.numpy()
    np.testing.assert_allclose(by_rating, ratings.value / ratings.value.mean(), rtol=1e-6)
    count = np.bincount(ratings.user)[ratings.user]
    balanced = columns_of(ratings, small("softmax", balance=1.0)[1], cpu).weight.numpy()
    np.testing.assert_allclose(balanced * count, (balanced * count)[0], rtol=1e-5)
    assert balanced.mean() == pytest.approx(1.0, rel=1e-5)


class TestLoop:
    def run(self, ratings, quality, **given):
        """Train with a validation that says what it is told to."""
        model_config, config = small("softmax", **{"epochs": len(quality), **given})
        values = iter(quality)
        tracker = MemoryTracker()
        fitted = fit(
            build_two_tower(model_config, USERS, ITEMS),
            ratings,
            config,
            tracker,
            lambda _plain: {"ndcg_at_10": next(values)},
        )
        return fitted, tracker

    def test_the_best_epoch_is_kept_and_patience_ends_it(self, ratings):
        fitted, tracker = self.run(ratings, [0.1, 0.4, 0.3, 0.2, 0.9], patience=2)
        assert (fitted.epochs, fitted.stopped, len(fitted.history)) == (2, "patience", 4)
        assert [step for step, _ in tracker.steps] == [1, 2, 3, 4]
        model_config, config = small("softmax", epochs=5)
        again = fit(build_two_tower(model_config, USERS, ITEMS), ratings, config, epochs=2)
        assert np.array_equal(again.model.items, fitted.model.items)

    def test_no_patience_means_all_epochs(self, ratings):
        fitted, _ = self.run(ratings, [0.5, 0.1, 0.1, 0.1], patience=0)
        assert (fitted.epochs, fitted.stopped, len(fitted.history)) == (1, "epochs", 4)

    def test_less_is_better_for_errors(self, ratings):
        model_config, config = small("mse", epochs=3)
        values = iter([0.9, 0.7, 0.8])
        fitted = fit(
            build_two_tower(model_config, USERS, ITEMS),
            ratings,
            config,
            None,
            lambda _: {"rmse": next(values)},
            ("rmse", -1),
        )
        assert fitted.epochs == 2

    def test_ctrl_c_keeps_the_best_so_far(self, ratings):
        class Impatient(Tracker):
            def metrics(self, values, step=None):
                if step == 3:
                    raise KeyboardInterrupt

        model_config, config = small("softmax", epochs=9)
        values = iter([0.1, 0.3, 0.2])
        fitted = fit(
            build_two_tower(model_config, USERS, ITEMS),
            ratings,
            config,
            Impatient(),
            lambda _: {"ndcg_at_10": next(values)},
        )
        assert (fitted.epochs, fitted.stopped) == (2, "interrupted")

    def test_a_loss_that_is_not_finite_ends_it_with_a_hint(self, ratings):
        model_config, config = small("mse", lr=1e30, epochs=9, bias_decay=0.0)
        with pytest.raises(TrainingError, match=r"became (nan|inf) in epoch \d, batch 1: lower --lr \(now 1e\+30\)"):
            fit(build_two_tower(model_config, USERS, ITEMS), ratings, config)


def test_the_recipe_fills_what_is_not_given():
    model, train = resolve_settings(ModelConfig(), TrainConfig(lr=0.07), Size(10, 10, 100))
    assert train.loss == "softmax" and train.lr == 0.07 and None not in (train.epochs, train.batch_users, model.dim)
    assert resolve_settings(model, TrainConfig(), Size(10**6, 10**5, 10**7))[1].loss == "sampled-softmax"
    assert (
        train.batch_size is None
        and resolve_settings(model, TrainConfig(batch_users=9), Size(10, 10, 100))[1].batch_users == 9
    )
    dot = ModelConfig(cosine=False)
    assert resolve_settings(dot, TrainConfig(), Size(6_040, 3_706, 800_000))[1].batch_size == 80_000
    assert resolve_settings(dot, TrainConfig(loss="softmax"), Size(10**6, 10**6, 10**7))[1].batch_size == 64


def test_a_softmax_of_ids_takes_the_cosine_unless_told_otherwise():
    size = Size(943, 1682, 80_000)
    usual, _ = resolve_settings(ModelConfig(), TrainConfig(), size)
    assert usual.cosine and usual.user_tower == "id" and usual.temperature == 0.15
    for model, train, described in (
        (ModelConfig(cosine=False), TrainConfig(), False), (ModelConfig(user_tower="both"), TrainConfig(), False),
        (ModelConfig(scorer="mlp"), TrainConfig(), False), (ModelConfig(), TrainConfig(loss="bpr"), False),
        (ModelConfig(), TrainConfig(), True),
    ):  # fmt: skip
        found = resolve_settings(model, train, size, described)
        assert not found[0].cosine and found[0].temperature == 1
        assert resolve_settings(*found, size, described) == found, "what is filled is filled"
    # More ratings have more steps in an epoch.
    epochs = [
        resolve_settings(ModelConfig(), TrainConfig(), Size(10**4, 10**3, 10**n))[1].epochs for n in (4, 5, 6, 7, 9)
    ]
    assert epochs == sorted(epochs, reverse=True) and epochs[0] == epochs[1] == 40 and epochs[-1] == 8


def test_patience_is_the_recipes_unless_it_is_given():
    """The cosine and histories get better while the rate falls, at the end: a pause in the middle is no end."""
    size = Size(943, 1682, 80_000)
    found = [
        resolve_settings(m, TrainConfig(), size)[1].patience for m in (ModelConfig(), ModelConfig(user_tower="both"))
    ]
    assert found == [0, 0] and resolve_settings(ModelConfig(cosine=False), TrainConfig(), size)[1].patience == 8
    assert resolve_settings(ModelConfig(), TrainConfig(patience=3), size)[1].patience == 3


def test_negatives_weigh_what_the_setting_says(ratings):
    batch = batch_of(ratings, torch.arange(BATCH))
    once, twice, thrice = (
        float(step_of(ratings, "softmax", negative_weight=w, dropout=0.0)[1].loss(batch).detach())
        for w in (1.0, 2.0, 3.0)
    )
    assert twice != once and thrice - twice == pytest.approx(twice - once, rel=1e-4)


def test_a_batch_size_that_is_given_is_taken():
    train = resolve_settings(ModelConfig(), TrainConfig(batch_size=7), Size(943, 1682, 80_000))[1]
    assert (train.batch_size, train.batch_users) == (7, None)


def test_a_decay_that_would_flip_signs_is_refused_by_name():
    with pytest.raises(SettingError, match="lr x user-decay must be below 1, got 1.5"):
        resolve_settings(small("bpr")[0], TrainConfig(lr=0.5, user_decay=3.0), Size(10, 10, 100))


def test_the_device_is_chosen_with_a_reason(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == ("cpu", "no CUDA device was found")
    with pytest.raises(SettingError, match="finds no CUDA device"):
        choose_device("cuda")


class TestSettingsReachTheStep:
    """Each setting changes what it says, seen from outside."""

    def plain(self, ratings, loss="softmax", **given):
        model_config, config = small(loss, **{"epochs": 2, "batch_size": 9, **given})
        return fit(build_two_tower(model_config, USERS, ITEMS), ratings, config).model

    def test_decay_shrinks_its_own_table_and_is_paid_to_the_end(self, ratings):
        """With a vanishing gradient all that moves is the decay: every row ends at the product of all steps."""
        model_config, config = small("mse", epochs=3, batch_size=9, lr=0.05, balance=0.0, negatives=None)
        ones = torch.ones(USERS), torch.ones(ITEMS)
        start = build_two_tower(model_config, USERS, ITEMS).to_arrays(ones)
        for side, other in (("user", "item"), ("item", "user")):
            still = replace(config, **{f"{side}_decay": 4.0, f"{other}_decay": 0.0})
            net = build_two_tower(model_config, USERS, ITEMS)
            known = KnownPositives(ratings.seen(), ITEMS, torch.device("cpu"))
            step = AutogradStep(net, still, known, torch.tensor(ratings.item_counts), torch.Generator().manual_seed(0))
            step.optimizer.lr = 0.05
            for _ in range(6):
                table = getattr(net, f"{side}s").table.weight
                table.grad = torch.sparse_coo_tensor([[3]], torch.zeros(1, DIM), table.shape)
                step.optimizer.step()
            step.flush()
            expected = getattr(start, f"{side}s") * (1 - 0.05 * 4.0) ** 6
            np.testing.assert_allclose(getattr(net.to_arrays(ones), f"{side}s"), expected, rtol=1e-5)
            np.testing.assert_allclose(
                getattr(net.to_arrays(ones), f"{other}s"), getattr(start, f"{other}s"), rtol=1e-6
            )

    def test_fit_reads_no_table_before_its_decay_is_paid(self, ratings, monkeypatch):
        once = []
        monkeypatch.setattr(AutogradStep, "flush", lambda self: once.append(1) or self.optimizer.flush())
        values = iter([0.1, 0.2, 0.3])
        model_config, config = small("sampled-softmax", epochs=3, negatives=2)
        fit(build_two_tower(model_config, USERS, ITEMS), ratings, config, None, lambda _: {"ndcg_at_10": next(values)})
        assert len(once) == 3

    def test_batches_are_even(self, ratings, monkeypatch):
        sizes = []
        settings = small("softmax")
        kind = step_for(build_two_tower(settings[0], USERS, ITEMS), settings[1])
        whole = kind.step_on_rows
        monkeypatch.setattr(
            kind, "step_on_rows", lambda self, columns, rows: sizes.append(len(rows)) or whole(self, columns, rows)
        )
        self.plain(ratings, epochs=1, batch_size=len(ratings) // 4 + 2)
        assert sum(sizes) == len(ratings) and len(sizes) in (3, 4) and max(sizes) - min(sizes) <= 1

    @pytest.mark.parametrize(
        "given", [{"dropout": 0.5}, {"max_grad_norm": 1e-3}, {"balance": 1.0}, {"sampler": "popularity"}]
    )
    def test_it_makes_a_difference(self, ratings, given):
        loss = {"loss": "sampled-softmax", "negatives": 3, "balance": 0.0, "dropout": 0.0}
        assert not np.array_equal(self.plain(ratings, **loss).items, self.plain(ratings, **{**loss, **given}).items)

    def test_a_softmax_begins_at_popularity_and_stars_at_their_mean(self, ratings):
        still = {"lr": 1e-9, "epochs": 1}
        bias = self.plain(ratings, **still).item_bias
        np.testing.assert_allclose(
            bias, np.log((ratings.item_counts + 1) / (ratings.item_counts + 1).mean()), rtol=1e-4, atol=1e-5
        )
        plain = self.plain(ratings, "mse", **still)
        assert plain.offset == pytest.approx(ratings.value.mean(), rel=1e-6)

    def test_stars_stay_in_their_scale(self, ratings):
        plain = self.plain(ratings, "mse")
        for offset, end in ((99.0, 5.0), (-99.0, 1.0)):
            assert set(replace(plain, offset=offset).predict(ratings.user, ratings.item).tolist()) == {end}
