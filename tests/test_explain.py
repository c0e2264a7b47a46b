"""Why an item for somebody: parts that add up, what of theirs speaks for it, what they share."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner
from worlds import small, tastes

from recsys_embed.answering.explain import explain
from recsys_embed.answering.profile import known_user, profile_of
from recsys_embed.cli.main import app
from recsys_embed.config.settings import ContentConfig, ModelConfig, TrainConfig
from recsys_embed.errors import SettingError, UnknownId
from recsys_embed.features.item_features import encode_items
from recsys_embed.models.fold_in.base import Feedback
from recsys_embed.nets.two_tower import build_two_tower
from recsys_embed.recommender import Recommender
from recsys_embed.retrieval.nearest import cosines, largest

WORLD, TABLE, _ = tastes()
# One rating in seven is no positive: it is hidden, and no part of a history. Two items have no rating at all.
RATED = replace(WORLD, value=np.where(np.arange(len(WORLD)) % 7 == 0, 1.0, 5.0).astype(np.float32))
RATED = RATED.with_items(pl.Series([900, 901]))
MORE = pl.concat([TABLE, pl.DataFrame({"item_id": [900, 901], "title": ["a", "b"], "kind": ["red|round", None]})])
TEXT = ContentConfig(text="title,kind", content_tower=True)
HISTORY = {"user_tower": "history", "batch_users": 16}
BOTH = {"user_tower": "both", "batch_users": 16}
COSINE = {"cosine": True, "temperature": 0.2}
KINDS = {
    "softmax": ("softmax", {}),
    "cosine": ("softmax", COSINE),
    "sampled": ("sampled-softmax", {}),
    "bpr": ("bpr", {"temperature": 0.5}),
    "logistic": ("logistic", {}),
    "mse": ("mse", {"method": "adam"}),
    "history": ("softmax", HISTORY),
    "cosine history": ("softmax", {**HISTORY, **COSINE}),
    "both": ("softmax", BOTH),
    "cosine both": ("softmax", {**BOTH, **COSINE}),
    "mlp": ("logistic", {"scorer": "mlp"}),
}
SUMS = {"history", "cosine history", "both"}  # whose users' vectors are sums of what they rated


def fit(kind, content=None):
    loss, given = KINDS[kind]
    settings = {"dim": 6, "epochs": 3, **given}
    return Recommender(*small(loss, **settings), content).fit(RATED, MORE, min_rating=None if loss == "mse" else 3.0)


@pytest.fixture(scope="module", params=[(k, c) for k in KINDS for c in ("ids", "text")], ids=" ".join)
def model(request):
    kind, content = request.param
    return kind, content, fit(kind, TEXT if content == "text" else None)


def people(made):
    """A user, the same one who says more, and people who are new."""
    yield known_user(made.state, 7)
    yield profile_of(made.state, made.users.ids([7])[0], likes=[33, 36], dislikes=[40])
    yield profile_of(made.state, likes=[3, 17, 40])
    yield profile_of(made.state, likes=[3, 40], dislikes=[17])
    yield profile_of(made.state, ratings={3: 5.0, 17: 1.0, 40: 3.0, 900: 4.0})
    yield profile_of(made.state, dislikes=[3, 17, 40])


def test_parts_are_what_they_say_and_add_up_to_the_score(model):
    kind, content, made = model
    plain = made.model
    for person in people(made):
        listed = dict(zip(*made_list(made, person), strict=True))
        for row in (0, 33, 60, 61):
            found = explain(made.state, person, row)
            parts = found.components
            assert sum(parts.values()) == pytest.approx(found.score, abs=1e-5)
            assert found.score == pytest.approx(listed[row], abs=1e-4)
            assert (parts["offset"], parts["user_bias"]) == (plain.offset, person.bias)
            assert parts["item_bias"] == plain.item_bias[row]
            if kind == "mlp":
                assert set(parts) == {"offset", "user_bias", "item_bias", "mlp"}
                continue
            match = float(person.vector @ plain.items[row])
            assert parts["collaborative"] + parts.get("text", 0) == pytest.approx(match, abs=1e-4)
            assert ("text" in parts) == (content == "text")
            if content == "text" and row >= 60:  # nobody rated it: all that is known of it was said
                assert parts["collaborative"] == 0


def made_list(made, person):
    """Every item's row and score in a list for a person."""
    from recsys_embed.answering.rank import rank_for
    from recsys_embed.rules.compile import CompiledRules

    return rank_for(made.state, person, 99, CompiledRules(), person.history[:0])[:2]


@pytest.mark.parametrize("cosine", [False, True])
def test_the_part_of_a_text_is_what_the_tower_says_of_it(cosine):
    settings, _ = small("softmax", cosine=cosine, temperature=0.2)
    net = build_two_tower(settings, 45, 62, 1, encode_items(MORE, TEXT), TEXT)
    rated = torch.from_numpy(RATED.item_counts)
    plain = net.to_arrays((torch.ones(45), rated))
    with torch.no_grad():
        said, whole = net.items.content(torch.arange(62))[:, :-1], net.items.encode_all(rated > 0).vectors
    length = whole.norm(dim=1, keepdim=True) if cosine else 1.0
    np.testing.assert_allclose(plain.content_vectors[:60], (said / length)[:60], atol=1e-6)
    np.testing.assert_array_equal(plain.content_vectors[60:], plain.items[60:])  # nobody rated them: they are all text
    assert np.abs(plain.items - plain.content_vectors)[:60].max() > 0.1


def test_what_each_item_adds_is_all_of_the_match(model):
    kind, _, made = model
    for person in people(made):
        summed = kind in SUMS if person.user >= 0 else kind != "mlp"
        for row in (0, 33, 60):
            found = explain(made.state, person, row, k=3)
            if not summed:
                assert {own["kind"] for own in found.evidence} <= {"nearest"} and found.remainder is None
                continue
            assert {own["kind"] for own in found.evidence} == {"contribution"} and len(found.evidence) == 3
            values = [own["value"] for own in found.evidence]
            total = sum(values) + found.remainder["value"] + found.remainder.get("vector", 0.0)
            assert total == pytest.approx(
                found.components["collaborative"] + found.components.get("text", 0.0), abs=1e-4
            )
            assert values == sorted(values, reverse=True)
            assert ("vector" in found.remainder) == (kind == "both" if person.user >= 0 else kind == "mse")
            every = explain(made.state, person, row, k=99)
            assert every.remainder["items"] == 0 and len(every.evidence) == 3 + found.remainder["items"]
            assert every.evidence[:3] == found.evidence


def test_who_says_more_is_the_sum_of_old_and_new():
    made = Recommender(*small("softmax", dim=6, epochs=3, **HISTORY)).fit(RATED, MORE)
    row = next(i for i in range(60) if i not in made.seen[7])
    person = profile_of(made.state, made.users.ids([7])[0], likes=[row])
    found = explain(made.state, person, 33, 99)
    assert {own["item"] for own in found.evidence} == {*made.seen[7].tolist(), row}
    assert {own["kind"] for own in found.evidence} == {"contribution"}
    assert sum(own["value"] for own in found.evidence) == pytest.approx(found.components["collaborative"], abs=1e-5)
    # A dislike is told of too, and what is liked stays what is named for it where it is no sum.
    other = profile_of(fit("mlp").state, likes=[3, 5], dislikes=[17])
    assert {own["item"] for own in explain(fit("mlp").state, other, 33).evidence} == {3, 5}


def test_what_an_item_adds_is_what_it_moves_in_every_step():
    """Each item takes the steps of its own share, beside the means that all of them together came by."""
    made = fit("cosine")
    fold, rows = made.fold_in, np.array([3, 33, 40])
    told = Feedback(rows, np.array([1, 1, -0.1], np.float32), np.full(3, np.nan, np.float32))
    size, items, item = 2.1, made.model.items.astype(float), made.model.items[20].astype(float)
    weight, ridge = told.weight.astype(float)[:, None] / size, fold.noise + fold.prior / size
    chance = np.where(made.item_counts > 0, np.exp(made.model.item_bias), 0)
    inverse = np.linalg.inv(fold.covariance + ridge * np.eye(6))
    parts = weight * (items[rows] - chance @ items / chance.sum()) @ inverse
    for _ in range(7):
        others = np.where(np.isin(np.arange(62), [3, 33]), 0, chance) * np.exp(items @ parts.sum(axis=0))
        parts = (
            parts + np.float32(0.7) * (weight * (items[rows] - others @ items / others.sum()) - ridge * parts) @ inverse
        )
    vector = fold.fit_user(told)[0].astype(float)
    np.testing.assert_allclose(parts.sum(axis=0), vector, rtol=1e-3, atol=1e-4)
    added = fold.contributions(told, vector, 20)
    np.testing.assert_allclose(added.values, parts @ item, rtol=1e-2, atol=1e-3)
    assert added.values.sum() == pytest.approx(vector @ item, abs=1e-6) and added.remainder is None


def test_what_an_item_adds_is_what_is_gone_without_it():
    made = fit("history")
    row, plain = 33, made.model
    taken = RATED.positives(3.0).seen()[7]
    found = {own["item"]: own["value"] for own in made.explain(made.users.ids([7])[0], 33, 99).evidence}
    assert sorted(found) == taken.tolist()  # what was hidden below the threshold is no part of it
    for at in taken:
        rest = plain.history_vectors[np.setdiff1d(taken, at)].sum(axis=0) / len(taken) ** 0.5
        assert found[at] == pytest.approx(float((plain.users[7] - rest) @ plain.items[row]), abs=1e-5)


def test_the_order_and_repetition_of_what_is_liked_do_not_matter():
    for kind in ("softmax", "history"):
        made = fit(kind)
        first = made.explain(None, 5, likes=[3, 17, 40])
        assert made.explain(None, 5, likes=[40, 3, 3, 17]) == first
        assert {own["item"] for own in first.evidence} == {3, 17, 40} and first.user is None


def test_the_nearest_of_theirs_are_called_that():
    made = fit("softmax")
    user = made.users.ids([7])[0]
    own = made.items.ids(made.seen[7]).to_list()
    row = next(i for i in range(60) if i not in own)
    found = made.explain(user, row, 4)
    assert [o["item"] for o in found.evidence] == made.reasons(user, [row], 4)[0] and not found.seen
    cosine = made.similar(row, 99).filter(pl.col("item_id").is_in(own)).head(4)
    assert [o["item"] for o in found.evidence] == cosine["item_id"].to_list()
    np.testing.assert_allclose([o["value"] for o in found.evidence], cosine["score"], atol=1e-5)
    mine = made.explain(user, own[0], 99)
    assert mine.seen and own[0] not in {o["item"] for o in mine.evidence} and len(mine.evidence) == len(own) - 1


def test_nearest_own_is_the_naive_choice_and_equal_ones_go_by_row():
    random = np.random.default_rng(0)
    items = random.normal(size=(40, 5)).astype(np.float32)
    items[[9, 20, 31]] = items[4] * np.array([[2], [1], [0.5]], np.float32)  # powers of two: the cosines are equal bits
    items[12] = 0
    own, rows = np.sort(random.permutation(40)[:25]), np.array([4, 12, 0])
    length = np.where((n := np.linalg.norm(items, axis=1)) > 0, n, 1)
    cosine = (items @ items.T) / length / length[:, None]
    for n in (1, 3, 99):
        values, places = largest(cosines(items, own, rows), n)
        assert values.shape == places.shape == (3, min(n, 25))
        for line, row in enumerate(rows):
            want = own[np.argsort(-cosine[row, own].round(5), kind="stable")][:n]
            if row != 12:  # all are as far from a vector of zeros
                np.testing.assert_array_equal(cosine[row, own[places[line]]].round(5), cosine[row, want].round(5))
            np.testing.assert_allclose(values[line], cosine[row, own[places[line]]], atol=1e-6)
            assert len(set(places[line].tolist())) == places.shape[1]
    assert largest(cosines(items, np.array([9, 20, 31]), np.array([4])), 2)[1].tolist() == [[0, 1]]
    assert largest(cosines(items, own, np.array([12])), 3)[1].tolist() == [[0, 1, 2]]
    assert largest(cosines(items, own[:0], rows), 2)[1].shape == (3, 0)


def test_what_is_shared_is_counted(model):
    _, content, made = model
    person = known_user(made.state, 7)
    tags = {row: set((MORE["kind"][row] or "").split("|")) - {""} for row in range(62)}
    for row in (0, 5, 60, 61):
        shared = explain(made.state, person, row, k=50).common_tokens
        others = [at for at in person.history if at != row]
        counted = {s["token"]: s["items"] for s in shared if s["column"] == "kind"}
        assert counted == {t: n for t in tags[row] if (n := sum(t in tags[at] for at in others))}
        words = {s["token"]: s["items"] for s in shared if s["column"] == "title"}
        have = {w: [w in MORE["title"][at].split() for at in range(62)] for w in MORE["title"][row].split()}
        more = {w: int(np.sum(h, where=np.isin(range(62), others))) for w, h in have.items()}
        more = {w: n for w, n in more.items() if n / len(others) > np.mean(have[w])}  # more often than other items
        assert words == (more if content == "text" else {})
    assert len(explain(made.state, person, 0, k=1).common_tokens) <= 2


def test_rare_tokens_come_before_common_ones():
    table = TABLE.with_columns(kind=pl.Series(["all|rare" if i % 6 == 0 else "all" for i in range(60)]))
    made = Recommender(*small("softmax", epochs=1)).fit(WORLD, table)
    found = made.explain(None, 0, likes=[6, 12, 5])
    assert found.common_tokens == [
        {"column": "kind", "token": "rare", "items": 2}, {"column": "kind", "token": "all", "items": 3}
    ]  # fmt: skip


def test_nobody_in_particular_and_nothing_known():
    made = fit("softmax")
    found = made.explain(None, 3)
    assert found.components == {"popularity": found.score} and found.score == pytest.approx(
        np.log1p(made.item_counts[3])
    )
    assert found.evidence == [] and found.common_tokens == [] and found.remainder is None and not found.seen
    for wrong in ({"user": 4242, "item": 3}, {"user": 1, "item": 4242}):
        with pytest.raises(UnknownId):
            made.explain(**wrong)
    with pytest.raises(SettingError, match="k must be"):
        made.explain(1, 3, 0)


def test_stars_are_cut_to_their_scale_and_chances_are_chances():
    made = fit("mse")
    plain = made.model
    plain.item_bias[3] += 9
    found = made.explain(1, 3)
    assert found.unit == "stars" and found.value == plain.scale[1] < found.score
    assert found.value == made.predict(1, 3)[0]
    found = fit("logistic").explain(1, 3)
    assert found.unit == "chance" and found.value == pytest.approx(1 / (1 + np.exp(-found.score)))


def test_saved_and_loaded_it_says_the_same(model, tmp_path):
    made = model[2]
    loaded = Recommender.load(made.save(tmp_path / "one"))
    for person in (7, 0):
        user = made.users.ids([person])[0]
        one, other = made.explain(user, 33).summary(), loaded.explain(user, 33).summary()
        assert one == other
    assert json.loads(json.dumps(one)) == one, "it is plain values"


def test_a_folder_without_the_texts_share_is_read(tmp_path, monkeypatch):
    from recsys_embed.state.content_model import ContentModel

    made = fit("softmax", TEXT)
    older = made.state.replace(content=replace(made.content_model, content_vectors=None))
    loaded = Recommender.load(Recommender.of(older).save(tmp_path / "old"))
    assert loaded.content_model.content_vectors is None and isinstance(loaded.content_model, ContentModel)
    assert "text" not in loaded.explain(1, 33).components
    assert loaded.explain(1, 900).components["collaborative"] == 0  # known of it is what was said, alone


def test_items_that_came_later_are_all_text():
    made = fit("cosine", TEXT)
    made.add_items(pl.DataFrame({"item_id": [950], "title": ["new"], "kind": ["red|round"]}))
    found = made.explain(1, 950)
    assert found.components["collaborative"] == 0 and found.components["text"] != 0
    np.testing.assert_array_equal(made.content_model.content_vectors[-1], made.model.items[-1])
    assert made.content_model.content_vectors.shape == made.model.items.shape
    assert sum(found.components.values()) == pytest.approx(found.score, abs=1e-5)


def test_the_gibbs_model_of_stars_is_explained_too():
    stars = replace(WORLD, value=(1 + np.arange(len(WORLD)) % 5).astype(np.float32))
    made = Recommender(ModelConfig(dim=3), TrainConfig(loss="mse", epochs=5)).fit(stars, TABLE)
    found = made.explain(1, 3)
    assert sum(found.components.values()) == pytest.approx(found.score, abs=1e-5) and found.unit == "stars"


class TestCommandLine:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory):
        return fit("both", TEXT).save(tmp_path_factory.mktemp("why") / "one")

    def run(self, folder, *args, code=0):
        done = CliRunner().invoke(app, ["explain", "--model", str(folder), *args])
        assert done.exit_code == code or isinstance(done.exception, SettingError | UnknownId), done.output
        return done

    def test_machines_get_what_python_says(self, folder):
        made = Recommender.load(folder)
        title = MORE["title"][33]
        found = json.loads(self.run(folder, "--user", "7", "--item", title, "--json").stdout)
        assert found == {**made.explain(7, 33).summary(), "model": str(folder)}
        found = json.loads(self.run(folder, "--likes", f"3;{MORE['title'][17]};3", "--item", "33", "--json").stdout)
        assert found == {"likes": [3, 17], **made.explain(None, 33, likes=[3, 17]).summary(), "model": str(folder)}

    def test_a_user_may_say_more(self, folder):
        made = Recommender.load(folder)
        found = json.loads(self.run(folder, "--user", "7", "--dislikes", "33", "--item", "36", "--json").stdout)
        assert found == {**made.explain(7, 36, dislikes=[33]).summary(), "dislikes": [33], "model": str(folder)}

    def test_people_see_the_parts(self, folder):
        text = self.run(folder, "--user", "7", "--item", "33").stdout
        for word in ("collaborative", "text", "item bias", "items that add to it", "others", "the user's own vector"):
            assert word in text
        own = str(Recommender.load(folder).seen[7][0])
        assert "the user has this item already" in self.run(folder, "--user", "7", "--item", own).stdout
        assert "nothing is known" not in text

    def test_mistakes_are_said(self, folder):
        for wrong, what in (
            (["--item", "3"], "for whom"),
            (["--item", "3", "--ratings", "3=good"], "is not a rating"),
            (["--item", "3", "--likes", " ; "], "names no item"),
            (["--item", "nothing", "--user", "1"], "no item has the id"),
            (["--item", "3", "--user", "4242"], "not known"),
        ):
            assert what in str(self.run(folder, *wrong, code=1).exception)


def test_it_needs_no_torch(tmp_path):
    folder = fit("both", TEXT).save(tmp_path / "one")
    code = f"""import sys; from recsys_embed.recommender import Recommender
made = Recommender.load({str(folder)!r}); made.explain(7, 33); made.explain(None, 33, likes=[3, 4])
print(*{{"torch", "numba", "mlflow", "pandas"}} & set(sys.modules))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
