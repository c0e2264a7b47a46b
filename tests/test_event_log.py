"""Event logs: what their types weigh, what is held out of them, and what lists leave out."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner
from worlds import event_log, small

from recsys_embed.cli.main import app
from recsys_embed.config.settings import ContentConfig, DataConfig, RunConfig
from recsys_embed.data.checks import check_no_leakage
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import time_cuts
from recsys_embed.errors import DataError, SettingError
from recsys_embed.evaluation.admission import compare_with_served
from recsys_embed.evaluation.evaluate import evaluate
from recsys_embed.experiment.choose_event_weights import best_weights, choose_event_weights
from recsys_embed.experiment.prepare import prepare
from recsys_embed.experiment.run import run_experiment
from recsys_embed.recommender import Recommender
from recsys_embed.sources.load import load_dataset

COLUMNS = ["user", "item", "event", "time"]


def frame(*rows):
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def log_of(table, **given):
    return event_log(table, DataConfig(event_col="event", **given))


SMALL = frame(
    ("a", 1, "view", 10), ("a", 1, "view", 12), ("a", 1, "purchase", 15), ("a", 2, "view", 20), ("b", 1, "view", 5),
    ("b", 2, "cart", 30), ("b", 2, "cart", 31), ("b", 2, "view", 29), ("c", 3, "dislike", 40), ("c", 2, "view", 3),
)  # fmt: skip
WEIGHTS = "view=1,cart=3,purchase=10"


def shop(users=150, items=40, seed=0):
    """Users view items of all colours, and put into the cart and buy those of their own."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        time = int(random.integers(0, 80)) * 1000
        for item in random.permutation(items)[:12].tolist():
            time += int(random.integers(10, 2000))
            rows.append((user, item, "view", time))
            if item % 3 == user % 3 and random.random() < 0.9:
                rows += [(user, item, "cart", time + 1), (user, item, "purchase", time + int(random.integers(2, 9000)))]
    return frame(*rows)


SHOP = shop()


def pairs(ratings):
    return list(zip(*(vocab.ids(rows).to_list() for vocab, rows in of_both_sides(ratings)), strict=True))


def of_both_sides(ratings):
    return (ratings.users, ratings.user), (ratings.items, ratings.item)


def rows_of(ratings):
    return dict(zip(pairs(ratings), zip(ratings.weight.tolist(), ratings.hidden.tolist(), strict=True), strict=True))


def test_a_pair_weighs_what_was_done_and_repeats_count_less_and_less():
    found = rows_of(log_of(SMALL, event_weights=WEIGHTS, target="purchase").ratings())
    two = 1 + np.log(2)
    wanted = {("a", 1): 10 + two, ("a", 2): 1, ("b", 1): 1, ("b", 2): 1 + 3 * two, ("c", 2): 1, ("c", 3): 0}
    assert {pair: weight for pair, (weight, _) in found.items()} == pytest.approx(wanted)
    assert [pair for pair, (_, hidden) in found.items() if hidden] == [("a", 1), ("c", 3)], "not what is viewed"
    ratings = log_of(SMALL, event_weights=WEIGHTS).ratings()
    assert all(hidden for _, hidden in rows_of(ratings).values()), "without a target, whatever counts hides"
    assert dict(zip(rows_of(ratings), ratings.time.tolist(), strict=True))["b", 2] == 31
    hide = rows_of(log_of(SMALL, event_weights=WEIGHTS, target="purchase", hide="cart,purchase").ratings())
    assert sorted(pair for pair, (_, hidden) in hide.items() if hidden) == [("a", 1), ("b", 2)]


def test_what_does_not_count_can_hide():
    found = log_of(SMALL, event_weights="view=1", target="purchase")
    assert rows_of(found.ratings())["a", 1][1], "bought, though purchases are not trained on"
    hated = log_of(SMALL, hide="dislike").ratings()
    assert rows_of(hated)["c", 3] == (0, True) and len(hated.positives(None)) == len(hated) - 1
    assert hated.hiding().seen().count.sum() == 1
    both = pl.concat([SHOP, SHOP.filter(pl.col("event") == "purchase").with_columns(time=pl.col("time") + 9_000)])
    for given in ({"event_weights": "view=1,cart=3"}, {"hide": "cart"}):
        config = DataConfig(event_col="event", target="purchase", split="time", **given)
        (_, valid, test), _ = event_log(both.sort("time"), config).split(config)
        assert len(valid) and len(test)
        check_no_leakage(valid, test, "valid", "test")


def test_events_of_one_second_keep_their_order_too():
    rows = frame(*[("a", n, "purchase", 1_700_000_000_000 + ms) for n, ms in enumerate((900, 100, 500, 300))])
    found = log_of(rows)
    assert found.items.ids(found.item).to_list() == [1, 3, 2, 0] and set(found.time) == {1_700_000_000}
    (_, _, test), _ = found.split(DataConfig(event_col="event", split="leave-last"))
    assert test.items.ids(test.item).to_list() == [0]


def test_what_only_hides_has_the_time_of_what_hid():
    hated = log_of(SMALL, hide="dislike").ratings()
    assert dict(zip(pairs(hated), hated.time.tolist(), strict=True))["c", 3] == 40


def test_a_no_is_a_no_however_it_is_spelt():
    found = log_of(frame((1, 1, "Remove-from Cart", 1), (1, 2, "view", 2)))
    assert {t.name: t.weight for t in found.types} == {"Remove-from Cart": 0, "view": 1}


def test_types_that_do_not_count_are_named(caplog):
    with caplog.at_level("WARNING"):
        found = log_of(SMALL)
    assert "1 events 'dislike' are not trained on: the name says no" in caplog.text
    assert {t.name: t.weight for t in found.types} == {"view": 1, "cart": 1, "purchase": 1, "dislike": 0}
    caplog.clear()
    with caplog.at_level("WARNING"):
        log_of(SMALL, event_weights="view=1,dislike=0")
    assert "2 events 'cart'" in caplog.text and "1 events 'purchase'" in caplog.text and "dislike" not in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING"):
        assert ("c", 3) in rows_of(log_of(SMALL, event_weights="view=1,cart=1,purchase=1,dislike=1").ratings())
    assert not caplog.text


def test_targets_are_the_last_of_their_kind():
    table = pl.concat([SMALL, frame(("a", 1, "purchase", 99), ("b", 3, "purchase", 7))])
    found = log_of(table, target="purchase").targets()
    assert sorted(zip(pairs(found), found.time.tolist(), strict=True)) == [(("a", 1), 99), (("b", 3), 7)]
    assert found.weight is None


@pytest.mark.parametrize("split", ["random", "leave-last", "time"])
def test_what_is_held_out_are_targets_and_nothing_of_them_is_learnt(split):
    config = DataConfig(event_col="event", event_weights=WEIGHTS, target="purchase", split=split, split_seed=1)
    log = event_log(SHOP, config)
    (train, valid, test), both = log.split(config)
    bought = {(u, i) for u, i, event, _ in SHOP.rows() if event == "purchase"}

    assert len(valid) > 20 < len(test)
    for part in (valid, test):
        assert set(pairs(part)) <= bought and len(set(pairs(part))) == len(part)
    for one, other in ((train, valid), (train, test), (valid, test), (both, test)):
        check_no_leakage(one, other, "one", "other")
    if split == "time":
        first, second, _ = time_cuts(log.time, 0.1, 0.1)
        assert train.time.max() < first <= valid.time.min() and both.time.max() < second <= test.time.min()
        assert valid.time.max() < second
        cut = {p: w for p, (w, _) in rows_of(train).items()}
        before = [(u, i) for u, i, _, t in SHOP.rows() if t < first]
        assert set(before) >= set(cut) and set(cut) & set(pairs(valid)), "viewed before it was bought"
        expected = rows_of(log.take(log.time < second).ratings())
        assert rows_of(both) == expected
    else:
        assert not set(pairs(train)) & (set(pairs(valid)) | set(pairs(test)))
        assert not set(pairs(both)) & set(pairs(test)) and set(pairs(both)) >= set(pairs(valid))


def test_a_split_by_time_leaves_out_what_lists_cannot_hold():
    again = pl.concat([SHOP, SHOP.filter(pl.col("event") == "purchase").with_columns(time=pl.col("time") + 200_000)])
    config = DataConfig(event_col="event", target="purchase", split="time")
    (train, valid, test), both = event_log(again.sort("time"), config).split(config)
    for part, known in ((valid, train), (test, both)):
        keys = [set(zip(r.user.tolist(), r.item.tolist(), strict=True)) for r in (part, known.hiding())]
        assert not keys[0] & keys[1]


def fitted(target="purchase", **given):
    config = DataConfig(event_col="event", event_weights=WEIGHTS, target=target, **given)
    (train, _, test), _ = event_log(SHOP, config).split(replace(config, split="time"))
    model, settings = small("softmax", epochs=10, dim=8, batch_users=32, model_family="both")
    return Recommender(model, settings).fit(train, held_out=test), train, test


def test_lists_leave_out_what_hides_and_hold_what_was_only_viewed(tmp_path):
    recommender, train, test = fitted()
    loaded = Recommender.load(recommender.save(tmp_path / "m"))
    for model in (recommender, loaded):
        user = int(np.bincount(train.hiding().user).argmax())
        user_id = model.users.ids(np.array([user]))[0]
        listed = set(model.recommend(user_id, 40)["item_id"].to_list())
        bought = set(train.items.ids(train.hiding().item[train.hiding().user == user]).to_list())
        seen = set(train.items.ids(train.item[train.user == user]).to_list())
        assert bought and bought < seen and not listed & bought and listed >= seen - bought
        batch = model.recommend([user_id], 40)["item_id"].to_list()
        assert set(batch) == listed
    assert evaluate(recommender, test).users > 10
    item = next(iter(seen - bought))
    loaded.update(pl.DataFrame({"user": [user_id, 9999], "item": [item, item]}))
    assert item in recommender.recommend(user_id, 40)["item_id"].to_list()
    for user in (user_id, 9999):
        assert item not in loaded.recommend(user, 40)["item_id"].to_list(), "what an update brings hides"


def test_a_comparison_of_models_of_a_log_says_nothing_of_what_was_viewed(caplog):
    recommender, train, test = fitted()
    with caplog.at_level("INFO"):
        same = compare_with_served(recommender.state, recommender.state, train, test.positives(None))
    assert same is not None and same.mean == 0 and "known already" not in caplog.text
    with caplog.at_level("INFO"):
        recommender.update(train)
    assert "ratings were known already" in caplog.text


def test_weights_are_chosen_by_how_well_targets_are_predicted(caplog):
    config = DataConfig(event_col="event", event_weights="auto", target="purchase", split="time")
    log = event_log(SHOP, config)
    with caplog.at_level("INFO"):
        weights = choose_event_weights(log, config)
    assert set(weights) == {"view", "cart", "purchase"} and weights["purchase"] > weights["view"]
    assert "kept: events weigh" in caplog.text
    prepared = prepare(config, 0, ContentConfig(), dataset=Dataset(log.ratings(), None, log=log))
    assert {t.name: t.weight for t in prepared.dataset.log.types} == weights
    assert prepared.refit_rows is prepared.both


def per_user(*values):
    return pl.DataFrame({"user_id": range(len(values)), "ndcg_at_10": values})


@pytest.mark.parametrize(
    "measured, kept",
    [
        ([[0.1] * 40, [0.2] * 40, [0.2, 0.3] + [0.2] * 38], 1),  # the target alone is better for one user of forty
        ([[0.1] * 40, [0.2] * 40, [0.4] * 40], 2),
        ([[0.2] * 40, [0.1] * 40, [0.19] * 40], 0),
        ([None, None, [0.2] * 40], 2),
        ([[0.0] * 40, [0.0] * 40, None], 0),
        ([None, None, None], 0),
    ],
)
def test_types_are_left_uncounted_only_where_that_is_clearly_better(measured, kept):
    tried = [{"view": 1.0, "purchase": 1.0}, {"view": 1.0, "purchase": 4.0}, {"view": 0.0, "purchase": 1.0}]
    assert best_weights(tried, [None if values is None else per_user(*values) for values in measured]) == kept


def invoke(*args):
    done = CliRunner().invoke(app, list(args))
    assert done.exit_code == 0, done.output
    return done.output


def test_a_training_from_a_file(tmp_path):
    file = tmp_path / "log.csv"
    SHOP.write_csv(file)
    args = ["train", "--dataset", str(file), "--event-col", "event", "--event-weights", WEIGHTS, "--target", "purchase"]
    args += ["--split", "time", "--no-track", "--epochs", "3", "--dim", "4", "--no-baselines"]
    args += ["--out", str(tmp_path / "m")]
    output = invoke(*args)
    assert "events: view" in output and "the target" in output
    assert "(all rated items are ranked, except the user's training items of 'purchase' events)" in output
    model = Recommender.load(tmp_path / "m")
    assert model.state.hidden_items is not None
    measured = json.loads(invoke("evaluate", "--model", str(tmp_path / "m"), "--json"))["metrics"]
    assert measured["ndcg_at_10"] == pytest.approx(model.metadata["metrics"]["test"]["ndcg_at_10"])
    assert measured["rows"] == model.metadata["metrics"]["test"]["rows"]
    later = SHOP.filter(pl.col("time") >= SHOP["time"].quantile(0.95))
    later.write_csv(tmp_path / "later.csv")
    given = "--model", str(tmp_path / "m"), "--test", str(tmp_path / "later.csv"), "--json"
    purchases = later.filter(pl.col("event") == "purchase")
    assert 0 < json.loads(invoke("evaluate", *given))["metrics"]["rows"] <= purchases.height
    purchases.write_csv(tmp_path / "later.csv")
    assert json.loads(invoke("evaluate", *given))["metrics"]["rows"] > 0, "a file without views too"
    again = SHOP.filter(pl.col("event") == "purchase")
    pl.concat([again, again, purchases]).write_csv(tmp_path / "later.csv")
    said = invoke("evaluate", *given)  # beside what it says of those it leaves out
    assert json.loads(said[said.index("{") :])["metrics"]["rows"] > 0, "most purchases of a shop may be repeats"
    columns = ["--event-col", "event", "--target", "purchase"]
    assert "purchase" in json.loads(invoke("data", "check", "--dataset", str(file), *columns, "--json"))["events"]
    named = SHOP.rename({"event": "event_type"})
    named.write_csv(file)
    config = DataConfig(dataset=str(file), target="purchase")
    assert load_dataset(str(file), config).log.types[0].name == "view", "usual names are found"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"target": "buy"}, "--target names 'buy', and there is no such event; the events are view"),
        ({"event_weights": "view=1,bought=2"}, "--event-weights names 'bought'"),
        ({"hide": "buy"}, "--hide names 'buy'"),
        ({"event_weights": "view=0,cart=0"}, "no event has a weight above 0"),
        ({"event_col": "kind"}, "there is no column 'kind' for the event"),
        ({"user_col": "who"}, "there is no column 'who'"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(given, said):
    with pytest.raises(DataError, match=said):
        event_log(SMALL, DataConfig(**{"event_col": "event", **given}))


@pytest.mark.parametrize(
    "given",
    [{"event_weights": "view"}, {"event_weights": "view=x"}, {"event_weights": "view=-1"}, {"event_weights": "=2"},
     {"event_weights": "view=1,view=2"}, {"event_weights": ""}, {"shared_ids": True}, {"rating_col": "r"}],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(given):
    with pytest.raises(SettingError):
        DataConfig(**{"event_col": "event", **given})


def test_an_event_without_a_type_is_found_by_its_row():
    with pytest.raises(DataError, match="event is missing in row 2"):
        log_of(frame((1, 1, "view", 1), (1, 2, None, 2)))
    with pytest.raises(DataError, match="--event-col"):
        event_log(SMALL.rename({"event": "x"}), DataConfig(target="purchase"))
    with pytest.raises(DataError, match="--event-col"):
        Ratings.from_frame(SMALL.rename({"event": "rating"}))
    with pytest.raises(SettingError, match="cold-items"):
        log_of(SMALL).split(DataConfig(event_col="event", split="cold-items"))


def test_ratings_of_nothing_or_less_are_pointed_out(caplog, tmp_path):
    table = pl.DataFrame({"user": [1, 1, 2, 2, 3, 3], "item": [1, 2, 1, 3, 2, 3], "rating": [1, -1, 1, 0, 1, 1]})
    model, train = small("softmax", epochs=1, dim=2, batch_users=4)
    plain, run = (
        DataConfig(valid_share=0, test_share=0),
        RunConfig(track=False, baselines=False, out=str(tmp_path / "m")),
    )
    for data, warned in ((plain, True), (replace(plain, min_rating=1), False)):
        caplog.clear()
        with caplog.at_level("WARNING"):
            run_experiment(data, model, train, run, dataset=Dataset(Ratings.from_frame(table), None))
        assert ("2 ratings are 0 or below" in caplog.text) == warned
