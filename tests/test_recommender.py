import json
import mmap
import pickle
from dataclasses import fields

import numpy as np
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from worlds import checkerboard, small

from recsys_embed.answering.batch import write_recommendations
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.answering.titles import canonical, find_item
from recsys_embed.config.answers import Rules
from recsys_embed.config.renamed import RENAMED_ATTRIBUTES
from recsys_embed.data.item_table import align_items
from recsys_embed.data.splits import split_random
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import BundleError, DataError, NotFitted, SettingError, UnknownId
from recsys_embed.recommender import Recommender
from recsys_embed.sources.load import load_dataset
from recsys_embed.storage.bundle import Bundle
from recsys_embed.storage.model_folders import create_unique_folder, list_model_folders, newest_model_folder

TITLES = ["Toy Story (1995)", "Matrix, The (1999)", "Heat (1995)", "Heat (1986)", "Été (1990)", "Star Wars (1977)"]


@pytest.fixture(scope="module", params=["dot", "mlp"])
def fitted(request):
    dataset = load_dataset("synthetic:users=50,items=30,ratings=600")
    train, _, test = split_random(dataset.ratings, 0.0, 0.2)
    model, config = small("logistic" if request.param == "mlp" else "softmax", request.param, epochs=4)
    return Recommender(model, config).fit(train, dataset.items, held_out=test)


def test_one_user_or_many_or_all_is_the_same(fitted):
    everybody = fitted.recommend(k=4)
    some = fitted.recommend([7, 3], k=4)
    # One user is a product of a vector with a matrix, many are one of matrices: their last bits differ.
    assert_frame_equal(some, pl.concat([everybody.filter(user_id=u) for u in (7, 3)]))
    assert_frame_equal(fitted.recommend(7, k=4), everybody.filter(user_id=7))
    assert fitted.recommend("7", k=4).equals(fitted.recommend(7, k=4))


def test_a_longer_list_begins_with_the_shorter_one(fitted):
    assert_frame_equal(fitted.recommend(9, k=20).head(5), fitted.recommend(9, k=5))


def test_exactly_what_is_available_comes_back(fitted):
    seen = fitted.seen.count
    table = fitted.recommend(k=999).group_by("user_id").len().sort("user_id")
    assert table["len"].to_list() == (30 - seen).tolist()
    assert fitted.recommend(k=999, include_seen=True).height == 50 * 30
    scores = fitted.recommend(5, k=999)["score"].to_numpy()
    assert (np.diff(scores) <= 0).all()


def test_nothing_that_was_rated_comes_back(fitted):
    pairs = set(fitted.recommend(k=999).select("user_id", "item_id").rows())
    users, items = fitted.seen.pairs_of(np.arange(50))
    rated = set(zip(fitted.users.ids(users).to_list(), fitted.items.ids(items).to_list(), strict=True))
    held_u, held_i = fitted.held_out.pairs_of(np.arange(50))
    held = set(zip(fitted.users.ids(held_u).to_list(), fitted.items.ids(held_i).to_list(), strict=True))
    assert not pairs & rated and held <= pairs
    assert not set(fitted.recommend(k=999, hide_test=True).select("user_id", "item_id").rows()) & (rated | held)


def test_filters_come_before_the_cut(fitted):
    left = fitted.recommend(5, k=999)["item_id"].to_list()
    assert fitted.recommend(5, k=2, candidates=left[3:7])["item_id"].to_list() == left[3:5]
    assert fitted.recommend(5, k=2, exclude=left[:3])["item_id"].to_list() == left[3:5]
    assert fitted.recommend(5, k=2, candidates=[]).height == 0


def test_scores_are_predictions_of_a_dot_model(fitted):
    table = fitted.recommend(5, k=6)
    got = fitted.model.score_pairs(np.full(6, fitted.users.rows([5])[0]), fitted.items.rows(table["item_id"]))
    np.testing.assert_allclose(got, table["score"].to_numpy(), rtol=1e-4, atol=1e-5)


def test_similar_is_the_cosine_without_biases(fitted):
    vectors = fitted.model.items
    item = fitted.items.rows([4])[0]
    cosine = vectors @ vectors[item] / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vectors[item])
    cosine[item] = -2
    expected = fitted.items.ids(np.argsort(-cosine)[:5]).to_list()
    assert fitted.similar(4, k=5)["item_id"].to_list() == expected
    assert_frame_equal(fitted.similar([4, 9], k=5).filter(of=4), fitted.similar(4, k=5))


def test_reasons_are_own_items(fitted):
    table = fitted.recommend(5, k=3)
    for near in fitted.reasons(5, table["item_id"].to_list()):
        assert len(near) == 2 and set(near) <= set(fitted.items.ids(fitted.seen[fitted.users.rows([5])[0]]).to_list())


def test_unknown_ids_and_bad_lengths_are_refused(fitted):
    with pytest.raises(UnknownId, match="user 4242 is not known; 50 users are"):
        fitted.recommend(4242)
    with pytest.raises(UnknownId, match="item 77 is not known"):
        fitted.similar(77)
    with pytest.raises(UnknownId):
        fitted.recommend(5, candidates=[77])
    with pytest.raises(SettingError, match="k must be a whole number, at least 1"):
        fitted.recommend(5, k=0)
    with pytest.raises(SettingError, match="one item per user"):
        fitted.predict([1, 2], [1])


def test_saved_and_loaded_answers_are_the_same(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    loaded = Recommender.load(tmp_path / "m")
    assert loaded.recommend(k=7).equals(fitted.recommend(k=7))
    assert loaded.similar(3).equals(fitted.similar(3))
    assert np.array_equal(loaded.predict(3, 5), fitted.predict(3, 5))
    assert loaded.recommend(k=99, hide_test=True).equals(fitted.recommend(k=99, hide_test=True))
    assert loaded.table.equals(fitted.table)
    loaded.save(tmp_path / "m")  # over itself
    assert Recommender.load(tmp_path / "m").recommend(3).equals(fitted.recommend(3))
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(
    "name", ["vectors.safetensors", "model.json", "users.parquet", "seen.safetensors", "README.md"]
)
def test_one_changed_byte_is_noticed(fitted, tmp_path, name):
    file = fitted.save(tmp_path / "m") / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    for mapped in (False, True):
        with pytest.raises(BundleError, match=f"{name} was changed"):
            Recommender.load(tmp_path / "m", mmap=mapped)
    for cut in (bytes(data[:-1]), b""):
        file.write_bytes(cut)
        with pytest.raises(BundleError, match=f"{name} was changed"):
            Recommender.load(tmp_path / "m", mmap=True)
    file.unlink()
    with pytest.raises(BundleError, match="incomplete"):
        Recommender.load(tmp_path / "m")


def test_a_mapped_model_is_the_same_and_can_only_be_read(fitted, tmp_path):
    folder = fitted.save(tmp_path / "m")
    read, mapped = Recommender.load(folder), Recommender.load(folder, mmap=True)
    assert mapped.recommend(k=7).equals(read.recommend(k=7)) and mapped.similar(3).equals(read.similar(3))
    for one, other in ((read.model, mapped.model), (read.seen, mapped.seen)):
        for name in (field.name for field in fields(one)):
            if isinstance(array := getattr(one, name), np.ndarray):
                kept = getattr(other, name)
                np.testing.assert_array_equal(kept, array)
                assert not kept.flags.writeable and kept.dtype == array.dtype
    with pytest.raises(ValueError, match="read-only"):
        mapped.model.items[0, 0] = 1
    base = mapped.model.items
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


def test_a_mapped_model_stays_as_it_was_when_its_folder_is_replaced(fitted, tmp_path):
    folder = fitted.save(tmp_path / "m")
    mapped, before = Recommender.load(folder, mmap=True), fitted.recommend(k=5)
    other = Recommender(*small("softmax", items=12, epochs=1)).fit(checkerboard())
    other.save(folder)
    assert mapped.recommend(k=5).equals(before)
    assert Recommender.load(folder, mmap=True).recommend(k=5).equals(other.recommend(k=5))
    mapped.save(folder)  # and back, from what is mapped
    assert Recommender.load(folder).recommend(k=5).equals(before)


def test_a_manifest_cannot_point_elsewhere(fitted, tmp_path):
    folder = fitted.save(tmp_path / "m")
    manifest = json.loads((folder / "manifest.json").read_text())
    (tmp_path / "secret").write_text("x")
    manifest["files"]["../secret"] = {"size": 1, "sha256": "0"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="not a file of this folder"):
        Recommender.load(folder)
    (folder / "manifest.json").write_text('{"format": 99, "files": {}}')
    with pytest.raises(BundleError, match="format 99"):
        Recommender.load(folder)
    (folder / "manifest.json").write_text("[1")
    with pytest.raises(BundleError, match="broken"):
        Recommender.load(folder)


def test_a_failed_write_leaves_the_old_model(fitted, tmp_path, monkeypatch):
    folder = fitted.save(tmp_path / "m")

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Bundle, "_fill", full)
    with pytest.raises(BundleError, match="No space left"):
        fitted.save(folder)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert Recommender.load(folder).recommend(3).equals(fitted.recommend(3))


def test_what_is_no_model_is_never_replaced(fitted, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(BundleError, match="not a model"):
        fitted.save(tmp_path / "notes")
    assert (tmp_path / "notes" / "a.txt").read_text() == "mine"
    with pytest.raises(BundleError, match="no manifest"):
        Recommender.load(tmp_path / "notes")
    with pytest.raises(BundleError, match="there is no model folder"):
        Recommender.load(tmp_path / "none")


def test_a_foreign_manifest_makes_no_model(fitted, tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest.json").write_text('{"name": "an extension"}')
    with pytest.raises(BundleError, match="not a model"):
        fitted.save(tmp_path / "web")
    folder = fitted.save(tmp_path / "m")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="not a model"):
        fitted.save(folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_second_fit_forgets_the_first():
    recommender = Recommender(*small("softmax", items=12, epochs=2))
    before = recommender.fit(checkerboard()).recommend(3), recommender.similar(3)
    after = recommender.fit(load_dataset("synthetic:users=50,items=30,ratings=600").ratings)
    fresh = Recommender(*small("softmax", items=12, epochs=2)).fit(
        load_dataset("synthetic:users=50,items=30,ratings=600").ratings
    )
    assert after.recommend(3).equals(fresh.recommend(3)) and after.similar(3).equals(fresh.similar(3))
    assert not after.recommend(3).equals(before[0])


def test_the_newest_model_is_found(fitted, tmp_path):
    with pytest.raises(BundleError, match="train one with"):
        newest_model_folder(tmp_path)
    for name, created in (("b", "2026-01-01"), ("a", "2026-01-02")):
        fitted.metadata["created"] = created
        fitted.save(tmp_path / name)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    del fitted.metadata["created"]
    assert newest_model_folder(tmp_path).name == "a" and [p.name for p, _ in list_model_folders(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_lists_for_everybody_are_written_whole(fitted, tmp_path, ending, monkeypatch):
    monkeypatch.setattr("recsys_embed.answering.batch.query_batch_size", lambda keys: 7)
    path = tmp_path / f"recs.{ending}"
    assert write_recommendations(fitted.state, path, None, RecommendRequest(k=3))[:3] == (150, 50, [])
    back = {"parquet": pl.read_parquet, "csv": pl.read_csv, "jsonl": pl.read_ndjson}[ending](path)
    expected = fitted.recommend(k=3)
    assert back.select("user_id", "item_id", "rank").rows() == expected.select("user_id", "item_id", "rank").rows()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(SettingError, match="must end in"):
        write_recommendations(fitted.state, tmp_path / "recs.xlsx", None, RecommendRequest(k=3))


def test_titles_are_matched_as_people_write_them():
    ratings = checkerboard(6)
    titles = pl.Series(TITLES)
    same = {
        "toy story": 0,
        "Toy Story (1995)": 0,
        "The Matrix": 1,
        "matrix, the": 1,
        "ÉTÉ": 4,
        "2": 2,
        "Heat (1986)": 3,
    }
    for text, row in same.items():
        assert find_item(text, ratings.items, titles) == row
    with pytest.raises(UnknownId, match=r"2 items are called 'heat': 2 Heat \(1995\), 3 Heat \(1986\)"):
        find_item("heat", ratings.items, titles)
    with pytest.raises(UnknownId, match=r"did you mean 5 Star Wars \(1977\)"):
        find_item("Star War", ratings.items, titles)
    with pytest.raises(UnknownId, match="6 items are known"):
        find_item("zzzz", ratings.items, titles)
    # An id without its zeros is no part of a title.
    zeros = Vocab(["000", "011", "022"], "item")
    with pytest.raises(UnknownId, match=r"no item has the id or the title '11'; did you mean 011 Elf\?"):
        find_item("11", zeros, pl.Series(["Zehn", "Elf", "Ocean's 11"]))
    assert canonical("A Bug's Life (1998)") == canonical("Bug's Life, A (1998)")


def test_item_tables_are_put_in_the_order_of_the_rows():
    vocab = checkerboard(4).items
    table = pl.DataFrame(
        {"item_id": ["2", "0", "9", "x", "2"], "title": ["two", None, "nine", "x", "again"], "genre": list("abcde")}
    )
    got = align_items(table, vocab)
    assert got.columns == ["item_id", "title", "genre"]
    assert got["title"].to_list() == ["0", "1", "two", "3"] and got["genre"].to_list() == ["b", None, "a", None]
    assert align_items(None, vocab)["title"].to_list() == ["0", "1", "2", "3"]


def test_nothing_is_answered_before_fit_or_from_nonsense(fitted):
    for ask in (lambda r: r.recommend(1), lambda r: r.similar(1), lambda r: r.save("x"), lambda r: r.training):
        with pytest.raises(NotFitted, match=r"call fit\(ratings\)"):
            ask(Recommender())
    assert repr(Recommender()) == "Recommender(not fitted)" and "50 users" in repr(fitted)
    for nonsense in (None, b"42", 4.0, {"a": 1}):
        with pytest.raises(UnknownId, match="names no user"):
            fitted.recommend(nonsense)
    for k in (2.5, "3", True, None):
        with pytest.raises(SettingError, match="whole number"):
            fitted.recommend(5, k=k)
    with pytest.raises(DataError, match="fit takes Ratings, not a DataFrame"):
        Recommender().fit(fitted.table)
    with pytest.raises(DataError, match="at least two of each"):
        Recommender().fit(checkerboard(4), min_rating=9.0)


def test_item_tables_come_as_pandas_too_and_strangers_are_said(caplog):
    vocab = checkerboard(4).items
    assert align_items(pd.DataFrame({"item_id": [1, 3], "title": ["a", "b"]}), vocab)["title"].to_list() == [
        "0",
        "a",
        "2",
        "b",
    ]
    assert "the item table has" not in caplog.text
    align_items(pl.DataFrame({"item_id": ["x"], "title": ["a"]}), vocab)
    assert "the item table has 0 of the 4 rated items" in caplog.text
    with pytest.raises(DataError, match="no column item_id"):
        align_items(pl.DataFrame({"id": [1]}), vocab)


def test_two_models_never_share_a_name(tmp_path):
    assert [create_unique_folder(tmp_path / "m").name for _ in range(3)] == ["m", "m-2", "m-3"]


def test_a_pickled_recommender_answers_as_before(fitted):
    """Process pools copy it so, after it has answered too."""
    before = fitted.recommend(k=3, rules=Rules(min_support=2))
    assert_frame_equal(pickle.loads(pickle.dumps(fitted)).recommend(k=3, rules=Rules(min_support=2)), before)


def test_a_changed_state_keeps_what_still_holds_and_no_more(fitted):
    state = fitted.state
    fold_in, same, other = state.fold_in, state.replace(per_user=None), state.replace(item_counts=state.item_counts + 1)
    assert same.fold_in is fold_in and other.fold_in is not fold_in
    same.metadata["note"] = "mine"
    assert "note" not in state.metadata
    assert state.with_index("exact") is state


def test_old_names_say_the_new_ones(fitted, tmp_path):
    for old, new in RENAMED_ATTRIBUTES.items():
        assert hasattr(fitted, new)
        with pytest.raises(AttributeError, match=f"'{new}'"):
            getattr(fitted, old)
    loaded = Recommender.load(fitted.save(tmp_path / "model"))
    with pytest.raises(NotFitted, match="loaded"):
        _ = loaded.training
