"""Lists under rules equal a naive choice, item by item, for one person and for many, known and not."""

import json
import re
import threading
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from recsys_embed.answering.recommend import compile_rules, recommend
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.cli.main import app
from recsys_embed.config.answers import Rules
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.user_items import UserItems
from recsys_embed.errors import RecsysError, SettingError, UnknownId
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.recommender import Recommender
from recsys_embed.rules.evaluate import ItemColumns
from recsys_embed.rules.expression import parse_boost, parse_per_group, parse_where
from recsys_embed.state.fitted import FittedState

USERS, ITEMS, DIM = 9, 60, 5


def made(items=ITEMS, levels=None, seed=0):
    """A recommender of random vectors; with few `levels` its vectors are coarse, so that scores and cosines tie."""
    random = np.random.default_rng(seed)

    def floats(*shape):
        values = random.normal(size=shape)
        return (values if levels is None else np.round(values * levels) / levels).astype(np.float32)

    pairs = np.unique(np.concatenate((random.integers(0, USERS * items, 150), np.arange(items) + 3 * items)))
    ratings = Ratings.from_frame(pl.DataFrame({"user": pairs // items, "item": pairs % items}))
    ratings = ratings.take(ratings.user < USERS).with_items(pl.Series(range(items)))
    counts = random.integers(0, 6, items)
    n = len(ratings.users)
    model = EmbeddingModel(floats(n, DIM), floats(items, DIM), floats(n), floats(items), 0.25)
    genres = [[g for g in "ABCD" if random.random() < 0.4] for _ in range(items)]
    table = pl.DataFrame(
        {
            "item_id": ratings.items.series,
            "title": [f"Film {n}; take 1:{n % 7}" for n in range(items)],
            "year": [None if n % 5 == 0 else 1980 + n % 11 for n in range(items)],
            "genres": ["|".join(g) or None for g in genres],
            "names": genres,
        }
    )
    nothing = UserItems.empty(len(ratings.users))
    state = FittedState(ratings.users, ratings.items, model, ratings.seen(), nothing, table, counts)
    return Recommender.of(state)


WORLD, TIES = made(), made(levels=1, seed=1)


def naive(recommender, scores, k, rules, hidden=(), candidates=None, exclude=()):
    """Return the rows of a list, chosen one by one from Python lists."""
    counts, table = recommender.item_counts, recommender.table.to_dicts()
    prepared = recommender.rules
    holds = np.ones(len(table), bool) if rules.where is None else prepared.columns.where(*parse_where(rules.where))
    scores = scores.astype(np.float32).copy()
    if rules.boost:
        parts, source = parse_boost(rules.boost)
        for condition, amount in parts:
            scores[prepared.columns.where(condition, source)] += np.float32(amount)
    limits = [(c.name, most) for c, most in parse_per_group(rules.per_group)[0]] if rules.per_group else []

    def groups(row, name):
        value = {"ratings": counts[row]}.get(name, table[row].get(name))
        value = value.split("|") if name == "genres" and value else value
        return set(value) if isinstance(value, list) else set() if value is None else {value}

    left = [i for i in range(len(table)) if holds[i] and counts[i] >= rules.min_support
            and (rules.max_support is None or counts[i] <= rules.max_support) and i not in hidden
            and (candidates is None or i in candidates) and i not in exclude]  # fmt: skip
    left.sort(key=lambda i: (-scores[i], i))
    vectors = recommender.model.items.astype(float)
    length = np.linalg.norm(vectors, axis=1)
    chosen, pool, edge = [], [], [0.0, 0.0]

    while len(chosen) < k:

        def fits(i):
            return all(
                sum(g in groups(j, name) for j in chosen) < most for name, most in limits for g in groups(i, name)
            )

        pool = [i for i in pool if i not in chosen and fits(i)]
        if not pool:  # the best of those that may still come
            pool = [i for i in left if i not in chosen and fits(i)][: max(100, 4 * k)]
            if not pool:
                break
            edge[:] = float(scores[pool[0]]), float(scores[pool[-1]])
        if not rules.diversity:
            chosen.append(pool[0])
            continue

        def worth(i):
            near = [vectors[i] @ vectors[j] / max(length[i] * length[j], 1e-9) for j in chosen]
            relevance = (float(scores[i]) - edge[1]) / ((edge[0] - edge[1]) or 1)
            return (1 - rules.diversity) * relevance - rules.diversity * max(near, default=0)

        best = max(map(worth, pool))
        chosen.append(next(i for i in pool if worth(i) >= best - 1e-6))
    return chosen


def scores_of(recommender, user):
    plain = recommender.model
    return plain.items @ plain.users[user] + plain.item_bias + plain.user_bias[user] + np.float32(plain.offset)


RULES = st.builds(
    Rules,
    where=st.sampled_from([None, "year >= 1984", "'A' in genres or year is None", "ratings > 9", "'B' in names"]),
    boost=st.sampled_from([None, "'1:3' in title: 2; year < 1985: -1.5", "'A' in genres: 0.5; True: 3"]),
    per_group=st.sampled_from([None, "genres: 1", "names: 2; year: 1", "year: 3", "ratings: 2", "title: 1"]),
    diversity=st.sampled_from([0.0, 0.0, 0.3, 0.7, 1.0]),
    min_support=st.integers(0, 2),
    max_support=st.sampled_from([None, 4]),
)


@settings(max_examples=60, deadline=None)
@given(RULES, st.sampled_from([1, 3, 10, 99]), st.integers(0, USERS - 1), st.booleans())
def test_a_list_is_the_naive_choice_for_one_and_in_a_block(rules, k, user, some):
    among, exclude = (range(0, 60, 2), [4, 8]) if some else (None, ())
    block = WORLD.recommend(k=k, rules=rules, candidates=among, exclude=exclude)
    hidden = WORLD.seen[user].tolist()
    want = naive(WORLD, scores_of(WORLD, user), k, rules, hidden, among, exclude)
    id_ = WORLD.users.ids([user])[0]
    one = recommend(WORLD.state, RecommendRequest(id_, k=k, rules=rules, candidates=among, exclude=exclude))
    assert one.rows.tolist() == want
    mine = block.filter(user_id=id_)
    assert mine["item_id"].to_list() == want and mine["rank"].to_list() == list(range(1, len(want) + 1))
    np.testing.assert_allclose(mine["score"], one.scores, rtol=1e-5, atol=1e-6)
    boost = compile_rules(WORLD, rules, None, ()).boost
    plain = scores_of(WORLD, user) + (0 if boost is None else boost.amounts)
    np.testing.assert_allclose(one.scores, plain[want], atol=1e-5, err_msg="a score is the score, whatever the place")
    assert (one.shortfall is None) == (len(want) == k)


@settings(max_examples=40, deadline=None)
@given(RULES, st.sampled_from([1, 5, 99]))
def test_of_whom_nothing_is_known_the_rules_hold_too(rules, k):
    found = recommend(WORLD.state, RecommendRequest(k=k, rules=rules))
    assert found.rows.tolist() == naive(WORLD, np.log1p(WORLD.item_counts), k, rules)
    liked = recommend(WORLD.state, RecommendRequest(likes=[3, 7], k=k, rules=rules))
    vector = WORLD.user_vector(WORLD.items.ids([3, 7]))
    scores = WORLD.model.items @ vector + WORLD.model.item_bias + np.float32(0.25)
    assert liked.rows.tolist() == naive(WORLD, scores, k, rules, [3, 7])


@settings(max_examples=40, deadline=None)
@given(RULES, st.integers(0, USERS - 1))
def test_where_scores_tie_lower_rows_come_first(rules, user):
    rules = replace(rules, diversity=0.0)  # cosines tie up to rounding only
    found = recommend(TIES.state, RecommendRequest(TIES.users.ids([user])[0], k=20, rules=rules, include_seen=True))
    assert found.rows.tolist() == naive(TIES, scores_of(TIES, user), 20, rules)


def test_no_diversity_is_the_plain_order_and_a_little_changes_nothing():
    plain = recommend(WORLD.state, RecommendRequest(4, k=30))
    for rules in (
        Rules(),
        Rules(diversity=0.0),
        Rules(diversity=1e-9),
        Rules(per_group="title: 1"),
        Rules(where="True"),
    ):
        np.testing.assert_array_equal(recommend(WORLD.state, RecommendRequest(4, k=30, rules=rules)).rows, plain.rows)
    much = recommend(WORLD.state, RecommendRequest(4, k=30, rules=Rules(diversity=0.9))).rows
    assert much[0] == plain.rows[0] and much.tolist() != plain.rows.tolist()


def test_a_boost_is_a_ranking_with_other_biases():
    rules = Rules(boost="'A' in genres: 0.7; year is None: -2")
    amounts = compile_rules(WORLD, rules, None, ()).boost.amounts
    assert set(np.unique(amounts)) == set(np.float32([-2, -1.3, 0, 0.7]))
    other = made()
    biased = replace(WORLD.model, item_bias=WORLD.model.item_bias + amounts)
    other.state = other.state.replace(model=biased)
    assert other.recommend(k=7).equals(WORLD.recommend(k=7, rules=rules))
    popular = recommend(WORLD.state, RecommendRequest(k=60, rules=rules))
    np.testing.assert_allclose(popular.scores, (np.log1p(WORLD.item_counts) + amounts)[popular.rows], atol=1e-6)


def test_where_many_are_barred_a_list_is_filled_from_further_down():
    """The best 900 of 2,000 items are of one group."""
    recommender = made(2000)
    score = scores_of(recommender, 2)
    best = np.argsort(-score, kind="stable")
    kind = np.full(2000, "common", object)
    kind[best[900:]] = [f"rare {n % 40}" for n in range(1100)]
    recommender.state = recommender.state.replace(table=recommender.table.with_columns(kind=pl.Series(kind.tolist())))
    known = np.sort(best[900:930])  # the best of what is rare is theirs already
    of_other = np.sort(best[930:990])
    start = np.array([0, 0, 60, *[90] * (len(recommender.users) - 2)])
    recommender.state = recommender.state.replace(seen=UserItems(start, np.concatenate((of_other, known))))
    for diversity, where in ((0.0, None), (0.4, None), (0.0, "ratings >= 2"), (0.4, "ratings >= 2")):
        rules = Rules(where=where, per_group="kind: 1", diversity=diversity)
        found = recommend(recommender.state, RecommendRequest(2, k=30, rules=rules))
        assert len(set(kind[found.rows])) == len(found.rows) == 30 and found.shortfall is None
        assert found.rows.tolist() == naive(recommender, score, 30, rules, known)
        assert (
            recommender.recommend([1, 2], 30, rules=rules).filter(user_id=2)["item_id"].to_list() == found.rows.tolist()
        )
    found = recommend(recommender.state, RecommendRequest(2, k=50, rules=Rules(per_group="kind: 1"), include_seen=True))
    assert found.shortfall == "41 of 50: the model has 2,000 items, 1,959 have no place in their groups (kind: 1)"


def test_it_is_said_why_a_list_is_short():
    def short(**given):
        rules = Rules(**{name: given.pop(name) for name in list(given) if name in Rules.__dataclass_fields__})
        return recommend(WORLD.state, RecommendRequest(4, rules=rules, **given)).shortfall

    seen = len(WORLD.seen[4])
    assert short(k=60 - seen) is None
    assert short(k=99) == f"{60 - seen} of 99: the model has 60 items, {seen} of them are theirs already"
    assert short(k=99, include_seen=True) == "60 of 99: the model has 60 items"
    assert short(k=3, where="ratings > 9") == "0 of 3: 0 of 60 items may be shown"
    own = int(WORLD.seen[4][0])
    assert short(k=3, candidates=[own]) == "0 of 3: 1 of 60 items may be shown, 1 of them is theirs already"
    left = int((WORLD.rules.columns.where(*parse_where("year is not None"))).sum())
    assert short(k=20, where="year is not None", per_group="year: 1", include_seen=True) == (
        f"11 of 20: {left} of 60 items may be shown, {left - 11} have no place in their groups (year: 1)"
    )


def test_what_was_asked_before_is_ready_and_what_changed_is_not():
    recommender = made()
    rules = Rules(where="year >= 1984", boost="year < 1985: 1", per_group="year: 1")
    first, again = (compile_rules(recommender.state, replace(rules), None, ()) for _ in range(2))
    assert first.allowed is again.allowed and first.boost is again.boost and first.limits is again.limits
    assert compile_rules(recommender.state, replace(rules, diversity=0.5), None, ()).allowed is first.allowed
    assert (
        compile_rules(recommender.state, Rules(where="True"), [3], [3]).allowed.sum() == 0 and first.allowed.sum() > 0
    )
    for n in range(100):
        compile_rules(
            recommender.state, Rules(where=f"year > {n}", boost=f"True: {n}", per_group=f"year: {n + 1}"), None, ()
        )
    for kept, most in (("_masks", 32), ("_boosts", 4), ("_limits", 8)):
        assert len(getattr(recommender.rules, kept).items()) == most
    recommender.state = recommender.state.replace(table=recommender.table.with_columns(year=pl.lit(1990)))

    assert compile_rules(recommender.state, rules, None, ()).allowed.all()


def test_threads_that_ask_at_once_get_what_one_gets():
    recommender, asks = (
        made(),
        [RecommendRequest(u, rules=Rules(where=f"year >= {1980 + u}", diversity=0.2)) for u in range(8)],
    )
    alone = [recommend(made().state, ask).rows.tolist() for ask in asks]
    found = [None] * 32
    start = threading.Barrier(8)

    def work(at):
        start.wait()
        for n in range(at, 32, 8):
            found[n] = recommend(recommender.state, asks[n % 8]).rows.tolist()

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone * 4


def test_what_is_wrong_is_refused():
    for rules, message in [
        (Rules(where="yeer > 3"), "where: there is no column 'yeer'"),
        (Rules(boost="year > 3: 1; yeer > 3: 1"), "boost: there is no column 'yeer'"),
        (Rules(per_group="yeer: 3"), "per-group: there is no column 'yeer'"),
    ]:
        with pytest.raises(SettingError, match=message):
            WORLD.recommend(4, rules=rules)
    with pytest.raises(UnknownId, match="item 999 is not known"):
        WORLD.recommend(4, exclude=[999])
    for wrong in (
        {"diversity": 1.1},
        {"diversity": float("nan")},
        {"min_support": -1},
        {"max_support": -1},
        {"where": 3},
    ):
        with pytest.raises(SettingError, match=next(iter(wrong)).replace("_", "-")):
            Rules(**wrong)


def test_the_examples_of_the_docs_are_read():
    page = (Path(__file__).parents[1] / "docs" / "rules.md").read_text()
    table = WORLD.table.with_columns(pl.lit(None).alias("release date"), adult=pl.lit(False), country=pl.lit("US"))
    dates = {name: pl.lit(date(2026, 12, 24)) for name in ("released", "offered_until", "at")}
    items = ItemColumns(table.with_columns(**dates), WORLD.item_counts)
    blocks, (shell,) = (re.findall(rf"```{name}\n(.*?)```", page, re.DOTALL) for name in ("where", "sh"))
    assert len(blocks) == 2
    for line in "".join(blocks).strip().splitlines():
        items.where(*parse_where(line.split("   ")[0]))
    options = {name: re.findall(rf'--{name} "([^"]+)"', shell) for name in ("where", "boost", "per-group")}
    assert all(options.values())
    for text in options["where"]:
        items.where(*parse_where(text))
    for text in options["boost"]:
        for condition, _ in parse_boost(text)[0]:
            items.where(condition, parse_boost(text)[1])
    for text in options["per-group"]:
        for column, _ in parse_per_group(text)[0]:
            items.column(column, parse_per_group(text)[1])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = made()
    model.state = model.state.replace(metadata={"settings": {}, "metrics": {}, "epochs": 1})
    model.state = model.state.replace(
        table=model.table.with_columns(title=pl.when(item_id=5).then(pl.lit("a; b = c")).otherwise("title"))
    )
    return model, str(model.save(tmp_path_factory.mktemp("models") / "one"))


def said(saved, *args):
    """Run `recsys recommend` in this process; return what it printed."""
    done = CliRunner().invoke(app, ["recommend", "--model", saved[1], *args])
    if isinstance(done.exception, RecsysError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_line_asks_as_the_library_does(saved, tmp_path):
    model, _ = saved
    rules = Rules("'A' in genres", "'B' in genres: 2", "genres: 9", 0.2, 1, 40)
    options = ["--where", rules.where, "--boost", rules.boost, "--per-group", rules.per_group, "--diversity", "0.2"]
    options += ["--min-support", "1", "--max-support", "40", "--exclude", r"7; film 12\; take 1:5", "--k", "4"]

    def asked(**whom):
        return recommend(
            model.state, RecommendRequest(k=4, rules=rules, exclude=[7, 12], explain=True, **whom)
        ).entries()

    for whom, known in [
        (["--user", "4"], {"user": 4}),
        (["--likes", r"a\; b = c;9"], {"likes": [5, 9]}),
        (["--ratings", r"a\; b = c=4.5; 9=2"], {"ratings": {5: 4.5, 9: 2.0}}),
        (["--dislikes", "9", "--likes", "5"], {"likes": [5], "dislikes": [9]}),
        (["--anonymous"], {}),
    ]:
        found = json.loads(said(saved, *whom, *options, "--json"))
        assert found["items"] == json.loads(json.dumps(asked(**known))) and found["short"] is None
        assert {name: found[name] for name in found if name not in ("items", "short", "from", "model")} == (
            json.loads(json.dumps({"likes": []} | known if known.keys() - {"user"} else {"user": known.get("user")}))
        )
    out = tmp_path / "lists.csv"
    said(saved, "--all-users", *options, "--out", str(out))
    table = pl.read_csv(out)
    assert table.filter(user_id=4)["item_id"].to_list() == [entry["item"] for entry in asked(user=4)]
    assert table.height == 4 * (len(model.users) - 1)  # user 3 has seen all


def test_the_command_line_says_why_a_list_is_short(saved):
    printed = said(saved, "--anonymous", "--candidates", "3;4", "--where", "item_id == 3").splitlines()
    assert printed[0].startswith("Top 1 for an anonymous user") and printed[-1] == (
        "1 of 10: 1 of 60 items may be shown"
    )
    assert json.loads(said(saved, "--anonymous", "--where", "False", "--json"))["short"] == (
        "0 of 10: 0 of 60 items may be shown"
    )
    assert said(saved, "--user", "3", "--where", "False").splitlines()[-1] == "0 of 10: 0 of 60 items may be shown"
    assert "rated: " in said(saved, "--ratings", "3=4.5", "--k", "1") and "dislikes: " in said(saved, "--dislikes", "3")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--user", "3", "--where", "year = 3"], "where: write == to compare, at character 6"),
        (["--user", "3", "--diversity", "2"], "diversity must be from 0 to 1, got 2.0"),
        (["--all-users", "--dislikes", "3"], "say whom to recommend to"),
        (["--user", "3", "--likes", "3", "--out", "a.csv"], "--likes is for a user outside the model"),
        (["--anonymous", "--likes", "3"], "say whom to recommend to"),
        (["--anonymous", "--hide-test"], "--anonymous is for a user outside the model"),
        (["--ratings", "3=good"], "'3=good' is not a rating: write ITEM=NUMBER"),
        (["--ratings", "3"], "is not a rating"),
        (["--user", "3", "--candidates", ";"], "--candidates ';' names no item"),
        (["--user", "3", "--exclude", "unheard of"], "no item has the id or the title"),
    ],
)
def test_what_the_command_line_refuses(saved, args, message):
    with pytest.raises(RecsysError, match=message):
        said(saved, *args)
