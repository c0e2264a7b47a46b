"""Python, the command line, the service and MLflow give the same answers: items, and scores as far as float32 goes.

A surface is a function of (world, Ask) that returns [(item id, score)]; another one is one more entry of SURFACES.
"""

import json
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from services import Client, serving
from typer.testing import CliRunner
from worlds import small, tastes

from recsys_embed.answering.recommend import recommend
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.cli.main import app
from recsys_embed.config.answers import NO_RULES, Rules
from recsys_embed.config.fields import flag
from recsys_embed.errors import SettingError
from recsys_embed.experiment import mlflow_model
from recsys_embed.recommender import Recommender

WORLD, TABLE, _ = tastes()
WORLD = replace(WORLD, time=np.random.default_rng(0).integers(0, 100 * 86_400, len(WORLD)))
TABLE = TABLE.with_columns(year=pl.Series(1990 + np.arange(60) % 20))


@dataclass(frozen=True)
class World:
    """A model, the folder that it lies in, and who asks the service of it."""

    model: Recommender
    folder: Path
    client: Client


KINDS = {
    "id": {},
    "history": {"user_tower": "history"},
    "neighbours": {"model_family": "neighbours"},
    "ease": {"model_family": "ease"},
    "both": {"model_family": "both", "half_life": 5.0},
}


@pytest.fixture(scope="module", params=KINDS)
def world(request, tmp_path_factory):
    settings = small("softmax", epochs=10, dim=8, batch_users=16, **KINDS[request.param])
    held = WORLD.take(np.arange(len(WORLD)) % 5 == 0)
    model = Recommender(*settings).fit(WORLD.take(np.arange(len(WORLD)) % 5 > 0), TABLE, held_out=held)
    folder = model.save(tmp_path_factory.mktemp("same") / "one")
    with serving(folder, folder.parent / "events.db") as (client, _):
        yield World(Recommender.load(folder), folder, client)


def of_answer(world, ask):
    return [(entry["item"], entry["score"]) for entry in recommend(world.model.state, ask).entries()]


def of_python(world, ask):
    model, given = world.model, {"candidates": ask.candidates, "exclude": ask.exclude, "rules": ask.rules}
    if ask.user is None:
        table = model.recommend_for(ask.likes, ask.k, **given)
    else:
        table = model.recommend(ask.user, ask.k, include_seen=ask.include_seen, hide_test=ask.hide_test, **given)
    return list(table.select("item_id", "score").rows())


def of_command_line(world, ask):
    words = ["recommend", "--model", str(world.folder), "--k", str(ask.k), "--json"]
    if ask.user is not None:
        words += ["--user", str(ask.user)]
    elif not ask.likes:
        words += ["--anonymous"]
    for option, name in {
        "likes": "likes",
        "dislikes": "dislikes",
        "exclude": "exclude",
        "candidates": "candidates",
    }.items():
        if getattr(ask, name):
            words += [f"--{option}", ";".join(map(str, getattr(ask, name)))]
    words += ["--include-seen"] * ask.include_seen + ["--hide-test"] * ask.hide_test
    for field in fields(Rules):
        if (value := getattr(ask.rules, field.name)) != field.default:
            words += [flag(field.name), str(value)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.exception
    return [(entry["item"], entry["score"]) for entry in json.loads(done.stdout)["items"]]


def of_mlflow(world, ask):
    row = {"user_id": None if ask.user is None else str(ask.user), "k": ask.k}
    row |= {name: ";".join(map(str, getattr(ask, name))) for name in ("likes", "dislikes") if getattr(ask, name)}
    params = {field.name: getattr(ask.rules, field.name) for field in fields(Rules)}
    named = {"candidates": ask.candidates, "exclude": ask.exclude}
    params |= {name: ";".join(map(str, ids or ())) or None for name, ids in named.items()}
    params |= {"include_seen": ask.include_seen, "hide_test": ask.hide_test}
    # Beside others, who are searched for together with it.
    asked = [{"user_id": "3", "k": ask.k}, row, {"user_id": "5", "k": 2}, {"user_id": "4", "k": ask.k}]
    together = mlflow_model.answer(world.model, asked, params)
    alone = mlflow_model.answer(world.model, [row], params)
    lists = together.with_columns(at=(pl.col("rank") == 1).cum_sum())
    assert lists.filter(at=2).select(alone.columns)["item_id"].equals(alone["item_id"])
    return [(world.model.find_item(item), score) for item, score in alone.select("item_id", "score").rows()]


def of_service(world, ask):
    body = {**asdict(ask), **asdict(ask.rules)}
    body |= {"why": body.pop("explain")}
    status, answer = world.client.post(
        "/recommend", {k: v for k, v in body.items() if k not in ("rules", "exploration")}
    )
    assert status == 200, answer
    return [(entry["item"], entry["score"]) for entry in answer["items"]]


SURFACES = {"python": of_python, "command line": of_command_line, "mlflow": of_mlflow, "service": of_service}

PEOPLE = {"known": {"user": 7}, "new": {"likes": (3, 17, 40)}, "anonymous": {}}
RULES = {
    "all": {},
    "longer than the list": {"k": 99},
    "some": {"rules": Rules(min_support=8, max_support=14)},
    "where": {"rules": Rules(where="year >= 1995 and 'red' in kind")},
    "boost": {"rules": Rules(boost="'blue' in kind: 3; year > 2005: -1"), "k": 99},
    "groups": {"rules": Rules(per_group="kind: 2")},
    "diverse": {"rules": Rules(diversity=0.5)},
    "all together": {"rules": Rules(where="year > 1991", boost="'red' in kind: 1", diversity=0.3), "exclude": (9,)},
    "among": {"candidates": tuple(range(0, 60, 3)), "exclude": (6, 9)},
    "theirs too": {"include_seen": True},
    "held out": {"hide_test": True, "k": 99},
}
OF_USERS = ("theirs too", "held out")


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(
    ("whom", "rules"), [(w, r) for w in PEOPLE for r in RULES if w == "known" or r not in OF_USERS]
)
def test_answers_are_the_same(world, whom, rules, surface):
    ask = RecommendRequest(**PEOPLE[whom], **RULES[rules])
    want, found = of_answer(world, ask), SURFACES[surface](world, ask)
    assert len(want) >= 3 and [item for item, _ in found] == [item for item, _ in want]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in want], atol=1e-5)


def test_the_cases_are_no_case_of_each_other(world):
    """Every rule changes the list of a known user."""
    plain = of_answer(world, RecommendRequest(user=7, k=99))
    for name, given in RULES.items():
        if name not in ("all", "longer than the list"):
            assert of_answer(world, RecommendRequest(**{"user": 7, "k": 99, **given})) != plain, name
    assert NO_RULES == Rules()


def test_mlflows_rows_keep_their_order_and_a_user_may_come_twice(world):
    asked = [
        {"user_id": "7", "k": 3}, {"likes": "3; 17", "k": 2}, {"user_id": "9", "k": 2}, {"user_id": "7", "k": 3},
        {"user_id": float("nan"), "likes": ["3", 17], "k": 2},
    ]  # fmt: skip
    table = mlflow_model.answer(world.model, asked)
    assert table["user_id"].to_list() == ["7"] * 3 + [None] * 2 + ["9"] * 2 + ["7"] * 3 + [None] * 2
    assert table["rank"].to_list() == [1, 2, 3, 1, 2, 1, 2, 1, 2, 3, 1, 2]
    assert table[:3].equals(table[7:10]) and table[3:5].equals(table[10:12])
    assert mlflow_model.answer(world.model, []).columns == [
        "user_id", "item_id", "title", "score", "rank", "from"
    ]  # fmt: skip
    assert mlflow_model.answer(world.model, [{"user_id": "7"}]).height == 10


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"user_id": "4242"}, "user 4242 is not known; 45 users are"),
        ({"likes": "3;nothing"}, "no item has the id or the title 'nothing'"),
        ({"user": "7"}, "the columns of the input are user_id, k, likes, dislikes, ratings"),
        ({}, "at least one must say for whom"),
        ({"k": 3}, "at least one must say for whom"),
    ],
)
def test_mlflows_mistakes_are_clear(world, row, message):
    with pytest.raises((LookupError, ValueError), match=message):
        mlflow_model.answer(world.model, [row], {"on_unknown": "error"})


@pytest.mark.parametrize("as_sent", [
    {"user_id": [7, 9], "k": [3, 2]},
    {"user_id": ["7", "9"], "k": [3.0, 2.0]},
    {"user_id": [7.0, 9.0], "k": [3, 2], "likes": [None, None], "ratings": [float("nan")] * 2},
])  # fmt: skip
def test_numbers_and_nulls_are_what_json_and_pandas_make_of_them(world, as_sent):
    """Through MLflow's schema, as its server and `pyfunc.predict` do."""
    from mlflow.models.utils import _enforce_schema

    frame = _enforce_schema(pd.DataFrame(as_sent), mlflow_model.signature().inputs)
    expected = mlflow_model.answer(world.model, [{"user_id": "7", "k": 3}, {"user_id": "9", "k": 2}])
    assert mlflow_model.answer(world.model, frame.to_dict("records")).equals(expected)


@pytest.mark.parametrize("half_life", [0.0, 5.0])
def test_a_user_without_a_rating_gets_what_is_popular(half_life):
    train = WORLD.take(WORLD.user != 3)
    model = Recommender(*small("softmax", epochs=1, half_life=half_life)).fit(train)
    table = mlflow_model.answer(model, [{"user_id": user, "k": 1} for user in (3, 4)])
    expected = [recommend(model.state, RecommendRequest(user=user)).origin for user in (3, 4)]
    assert table["from"].to_list() == expected == ["recent" if half_life else "popular", "personal"]


def test_one_unknown_user_does_not_fail_the_others(world):
    rows = [{"user_id": 7, "k": 2}, {"user_id": "nobody"}, {"user_id": float("nan"), "likes": 3.0, "k": float("nan")}]
    table = mlflow_model.answer(world.model, rows, {"k": 3})
    assert table["user_id"].to_list() == ["7"] * 2 + ["nobody"] * 3 + [None] * 3
    assert (
        table["from"].to_list()
        == ["personal"] * 2 + ["popular" if world.model.state.trend is None else "recent"] * 3 + ["session"] * 3
    )
    popular = world.model.recommend_for([], 3)["item_id"]
    assert table["item_id"].to_list()[2:5] == [str(item) for item in popular]
    assert mlflow_model.answer(world.model, [{"likes": "3;nothing"}]).equals(
        mlflow_model.answer(world.model, [{"likes": "3"}])
    )


@pytest.mark.parametrize(
    ("row", "params", "message"),
    [
        ({"user_id": 2.0**54}, {}, "send ids as text"),
        ({"user_id": 7, "k": 2.5}, {}, "k must be a whole number"),
        ({"user_id": 7, "k": "many"}, {}, "k must be a whole number"),
        ({"user_id": 7, "k": [1]}, {}, "k must be a whole number"),
        ({"user_id": 7, "k": True}, {}, "k must be a whole number"),
        ({"user_id": 7, "k": float("inf")}, {}, "k must be a whole number"),
        ({"user_id": True}, {}, "user_id must be a text or a whole number, got True"),
        ({"user_id": [7]}, {}, r"user_id must be a text or a whole number, got \[7\]"),
        ({"user_id": {"a": 7}}, {}, "user_id must be a text or a whole number"),
        ({"user_id": date(2020, 1, 1)}, {}, "user_id must be a text or a whole number"),
        ({"user_id": b"7"}, {}, "user_id must be a text or a whole number"),
        ({"likes": {"3": 1}}, {}, "likes must be items"),
        ({"likes": [[3]]}, {}, "likes must be items"),
        ({"ratings": {"3": 5}}, {}, 'ratings must be a text "ITEM=NUMBER'),
        ({"user_id": 7}, {"on_unknown": "guess"}, "on_unknown must be one of error, skip"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_mlflows_model(world, row, params, message):
    with pytest.raises(SettingError, match=message):
        mlflow_model.answer(world.model, [row], params)


@pytest.mark.parametrize(
    "missing", [None, float("nan"), np.float32("nan"), pd.NaT, pd.NA, np.datetime64("NaT")], ids=str
)
def test_a_missing_user_is_an_anonymous_one_in_mlflows_model(world, missing):
    anonymous = mlflow_model.answer(world.model, [{"user_id": None}])
    assert anonymous["user_id"].null_count() == anonymous.height == 10
    assert mlflow_model.answer(world.model, [{"user_id": missing, "likes": missing, "k": missing}]).equals(anonymous)


def test_items_may_come_as_an_array_of_a_column_of_lists(world):
    want = mlflow_model.answer(world.model, [{"likes": "3;17"}])
    assert mlflow_model.answer(world.model, [{"likes": np.array([3, 17])}]).equals(want)


@pytest.mark.parametrize("given", [np.array([[7]]), 7, "7", [7], np.zeros((1, 1, 1)), {"user_id": [1, 2], "k": [1]}])
def test_what_is_no_table_is_refused_by_mlflows_model(world, given):
    with pytest.raises(SettingError, match="user_id, k, likes, dislikes, ratings"):
        mlflow_model.answer(world.model, mlflow_model._rows(given))


def test_mlflows_old_names_mean_the_new_ones(world):
    row, params = {"ratings": "3=5;17=1", "k": 5}, {"candidates": "9;3;12;40;21", "min_support": 6, "max_support": 15}
    want = mlflow_model.answer(world.model, [row], params)
    old_row, old = (
        {"rated": row["ratings"], "k": 5},
        {"among": params["candidates"], "min_ratings": 6, "max_ratings": 15},
    )
    defaults = {"candidates": None, "min_support": 0, "max_support": None}  # MLflow fills them in
    assert want.height and mlflow_model.answer(world.model, [old_row], {**defaults, **old}).equals(want)
    signature = mlflow_model.signature()
    assert set(old_row) | set(row) <= set(signature.inputs.input_names())
    assert set(old) | set(params) <= {param.name for param in signature.params.params}
    for rows, both in (([{**row, **old_row}], {}), ([row], {**params, "among": "9"})):
        with pytest.raises(SettingError, match=r"(rated|among) is the old name of \w+: give one of them"):
            mlflow_model.answer(world.model, rows, both)
