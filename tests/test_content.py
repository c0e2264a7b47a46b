"""Items that nobody has rated: towers, what they learn, and what becomes of new items."""

import numpy as np
import polars as pl
import pytest
import torch
from worlds import COLOUR, COLOURS, DIM, ITEMS, SPLIT, TABLE, cold_auc, fitted, small

from recsys_embed.config.settings import ContentConfig
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import BundleError, DataError, SettingError, UnknownId
from recsys_embed.features.item_features import encode_items
from recsys_embed.features.item_vectors import read_item_vectors
from recsys_embed.nets.content_tower import Bag, ContentTower
from recsys_embed.nets.towers import SumTower
from recsys_embed.nets.two_tower import build_two_tower
from recsys_embed.recommender import Recommender
from recsys_embed.words.vectors import WordVectors


@pytest.fixture(scope="module")
def told():
    return fitted(ContentConfig(text="title,kind"))


class TestTowers:
    descriptions = encode_items(TABLE.head(ITEMS), ContentConfig(text="kind"))

    def test_a_bag_is_a_product_and_its_gradient_names_its_tokens(self):
        bag = self.descriptions.features.bag
        layer = Bag(bag, torch.randn(bag.shape[1], DIM))
        rows = torch.tensor([4, 0, 7])
        expected = bag[rows.numpy()] @ layer.table.weight.detach().numpy()
        np.testing.assert_allclose(layer(rows).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
        assert layer(torch.zeros(0, dtype=torch.long)).shape == (0, DIM)
        layer(rows).sum().backward()
        touched = set(layer.table.weight.grad.coalesce().indices()[0].tolist())
        assert touched == set(bag[rows.numpy()].indices.tolist())

    def model(self, **given):
        config = ContentConfig(text="kind", content_tower=True, **given)
        return build_two_tower(small("softmax")[0], 5, ITEMS, 1, self.descriptions, config)

    def test_a_sum_is_the_sum_and_dropout_leaves_the_description_alone(self):
        tower, rows = self.model(id_dropout=0.5).items, torch.arange(ITEMS)
        assert isinstance(tower, SumTower)
        with torch.no_grad():
            tower.ids.bias.weight.normal_()
        tower.eval()
        said, ids = tower.content(rows), tower.ids(rows)
        torch.testing.assert_close(tower(rows).vectors, said[:, :-1] + ids.vectors)
        torch.testing.assert_close(tower(rows).bias, said[:, -1] + ids.bias)
        tower.train()
        drawn = tower(rows)
        alone = (drawn.vectors == said[:, :-1]).all(1)
        assert 0 < alone.sum() < ITEMS
        torch.testing.assert_close(drawn.bias, said[:, -1] + ids.bias * ~alone)

    def test_a_row_without_ratings_is_what_its_description_says(self):
        tower = self.model().items
        tower.eval()
        rated = torch.arange(ITEMS) % 2 == 0
        whole, said = tower.encode_all(rated), tower.content(torch.arange(ITEMS))
        torch.testing.assert_close(whole.vectors[1::2], said[1::2, :-1])
        torch.testing.assert_close(whole.vectors[::2], tower(torch.arange(ITEMS)).vectors[::2])

    @pytest.mark.parametrize("hidden", [0, 3])
    def test_equal_seeds_give_equal_towers(self, hidden):
        one, other = (self.model(tower_hidden=hidden) for _ in range(2))
        assert all(a.equal(b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
        assert (one.items.content.last is None) == (hidden == 0)


class TestNewItems:
    def test_cold_items_are_ranked_by_what_is_said_of_them(self, told):
        assert cold_auc(told) > 0.9
        assert 0.3 < cold_auc(Recommender(*small("softmax")).fit(SPLIT.train, TABLE)) < 0.7

    @pytest.mark.parametrize(
        "given",
        [{"loss": "bpr", "negatives": 4}, {"loss": "logistic", "negatives": 4}, {"loss": "softmax", "scorer": "mlp"},
         {"loss": "softmax", "cosine": True, "temperature": 0.2}, {"loss": "sampled-softmax", "negatives": 20}],
    )  # fmt: skip
    def test_every_loss_and_scorer_takes_descriptions(self, given):
        given = dict(given)
        model, train = small(given.pop("loss"), given.pop("scorer", "dot"), epochs=30, content_lr_scale=1.0, **given)
        assert cold_auc(Recommender(model, train, ContentConfig(text="kind")).fit(SPLIT.train, TABLE)) > 0.9

    def test_a_hidden_layer_and_trained_words_learn_too(self, tmp_path):
        words = WordVectors.of(
            pl.Series([*COLOURS, "thing"]), np.random.default_rng(0).normal(size=(4, 6)).astype("f4")
        )
        table = TABLE.with_columns(kind=pl.col("kind").str.replace(r"\|", " and "))
        path = words.save(tmp_path / "w.safetensors")
        content = ContentConfig(text="kind", words="kind", vectors=str(path), train_words=True, tower_hidden=8)
        recommender = fitted(content, table)
        assert cold_auc(recommender) > 0.9
        trained = recommender.content_model.encoder.words.vectors
        assert not np.array_equal(trained[:3], words.vectors[:3])
        new = pl.DataFrame({"item_id": [900], "kind": ["red and square"]})
        similar = recommender.add_items(new).similar(900, 5)
        assert all(COLOUR[i] == 0 for i in similar["item_id"])

    def test_a_new_item_is_recommended_to_whom_it_suits(self, told, tmp_path):
        told.save(tmp_path / "m")
        recommender = Recommender.load(tmp_path / "m")
        new = pl.DataFrame(
            {"item_id": [900, 901], "title": ["round thing", "A new one"], "kind": ["green", "blue|round"]}
        )
        assert recommender.add_items(new) is recommender
        # Of "A new one" no word stands in two of the items that were trained on.
        assert recommender.table["known_words"].to_list()[-2:] == [1.0, 0.0]
        assert recommender.table["title"].to_list()[-2:] == ["round thing", "A new one"]
        for id_, colour in ((900, 1), (901, 2)):
            near = recommender.similar(id_, 5)["item_id"].to_list()
            assert all(i >= 900 or COLOUR[i] == colour for i in near)
            scores = recommender.predict(list(range(45)), [id_] * 45)
            own = np.arange(45) % 3 == colour
            assert scores[own].min() > scores[~own].max()
        recommender.save(tmp_path / "again")
        again = Recommender.load(tmp_path / "again")
        assert again.recommend(1, 70).equals(recommender.recommend(1, 70)) and 900 in again.items
        assert again.search("green").equals(recommender.search("green"))

    def test_what_is_said_alike_is_placed_alike_saved_or_not(self, told, tmp_path):
        """A new item with the words of a cold one has its vector, from the trained model and from the saved one."""
        cold = int(np.flatnonzero(told.item_counts == 0)[0])
        row = TABLE.filter(pl.col("item_id") == cold).with_columns(item_id=pl.lit(900))
        loaded = Recommender.load(told.save(tmp_path / "m")).add_items(row)
        np.testing.assert_allclose(loaded.model.items[-1], told.model.items[cold], atol=1e-5)
        np.testing.assert_allclose(loaded.model.item_bias[-1], told.model.item_bias[cold], atol=1e-5)

    def test_bad_new_items_are_refused(self, told, tmp_path):
        loaded = Recommender.load(told.save(tmp_path / "m"))
        for table, message in (
            (pl.DataFrame({"item_id": [3, 900]}), "1 are in the model already or given twice, e.g. 3"),
            (pl.DataFrame({"item_id": [900, 900]}), "e.g. 900"),
            (pl.DataFrame({"id": [900]}), "no column item_id"),
        ):
            with pytest.raises(DataError, match=message):
                loaded.add_items(table)
        assert len(loaded.items) == 60
        plain = Recommender(*small("softmax", epochs=1)).fit(SPLIT.train, TABLE)
        for ask in (lambda: plain.add_items(TABLE), lambda: plain.search("red"), lambda: plain.nearest_tokens(1)):
            with pytest.raises(SettingError, match="trained without descriptions"):
                ask()

    def test_nothing_is_half_added_and_ids_stay_what_they_are(self, told, tmp_path):
        table = TABLE.with_columns(kind=pl.col("kind").str.split("|"))
        recommender = fitted(ContentConfig(text="kind"), table)
        for ids in (["tt1"], ["0099"], [100.7], [None]):
            with pytest.raises(DataError):
                recommender.add_items(pl.DataFrame({"item_id": ids, "kind": [["red"]]}))
        with pytest.raises(DataError, match="do not fit"):
            recommender.add_items(pl.DataFrame({"item_id": ["900"], "kind": ["red|square"]}))

        def sizes():
            kept = recommender
            return {
                len(kept.items),
                kept.table.height,
                len(kept.model.items),
                len(kept.item_counts),
                kept.content_model.bag.shape[0],
            }

        assert sizes() == {60}
        recommender.add_items(pl.DataFrame({"item_id": ["900"], "kind": [["red", "square"]]}))
        assert sizes() == {61}
        assert all(COLOUR[i] == 0 for i in recommender.similar(900, 5)["item_id"])

    def test_a_new_fit_forgets_the_old_descriptions(self, told, tmp_path):
        loaded = Recommender.load(told.save(tmp_path / "m"))
        loaded.fit(SPLIT.train, TABLE)
        assert loaded.content_model is None
        with pytest.raises(SettingError, match="trained without descriptions"):
            Recommender.load(loaded.save(tmp_path / "again")).search("red")

    def test_a_model_without_biases_has_none(self):
        recommender = fitted(ContentConfig(text="kind"), biases=False)
        assert not recommender.model.item_bias.any() and cold_auc(recommender) > 0.9

    def test_a_query_is_both_its_words_and_its_meaning(self, told):
        described = told.content_model
        own = described.similarity("round", None, told.model.items)
        flat = described.similarity("round", None, np.zeros_like(told.model.items) + described.feature_map.centre[:-1])
        round_ = np.array(["round" in k for k in TABLE["kind"]])
        assert flat[round_].min() > 0.05 > abs(flat[~round_]).max() and not np.allclose(own, flat)
        turned = described.similarity("red", None, told.model.items + 7)
        assert not np.allclose(turned, described.similarity("red", None, told.model.items))

    def test_search_of_a_model_of_numbers_alone(self):
        table = TABLE.with_columns(year=1990 + pl.Series(COLOUR))
        with pytest.raises(SettingError, match="descriptions have no words"):
            fitted(ContentConfig(text="year"), table).search("1991")

    def test_a_text_finds_items_and_an_item_its_words(self, told):
        assert all(COLOUR[i] == 2 for i in told.search("something blue", 8)["item_id"])
        nearest = told.nearest_tokens(int(np.flatnonzero(COLOUR == 1)[0]), 3)["token"].to_list()
        assert nearest[0] == "green" and not {"number", "thing"} & set(nearest)  # these are in every title
        with pytest.raises(UnknownId, match="knows no word of 'zzz'"):
            told.search("zzz")
        with pytest.raises(SettingError, match="needs a text or a picture"):
            told.search()

    def test_other_answers_read_no_description(self, told, tmp_path):
        folder = told.save(tmp_path / "m")
        loaded = Recommender.load(folder)
        (folder / "content.safetensors").write_bytes(b"damaged")
        assert loaded.recommend(0).height == 10
        with pytest.raises(BundleError, match="was changed after it was written"):
            loaded.search("red")


class TestItemVectors:
    ids = Vocab(pl.Series(["a", "b", "c"]), "item")
    wanted = np.array([[1, 2], [0, 0], [5, 6]], np.float32)

    def test_forms(self, tmp_path):
        vectors = np.array([[5, 6], [9, 9], [1, 2]], np.float32)
        ids = ["c", "unheard", "a"]
        pl.DataFrame({"item_id": ids, "vector": vectors.tolist()}).write_parquet(tmp_path / "lists.parquet")
        pl.DataFrame({"id": ids, "x": vectors[:, 0], "y": vectors[:, 1]}).write_parquet(tmp_path / "columns.parquet")
        pl.DataFrame({"id": ids, "x": vectors[:, 0], "y": vectors[:, 1]}).write_csv(tmp_path / "columns.csv")
        np.save(tmp_path / "beside.npy", vectors)
        (tmp_path / "beside.txt").write_text("\n".join(ids))
        for name in ("lists.parquet", "columns.parquet", "columns.csv", "beside.npy"):
            assert np.array_equal(read_item_vectors(tmp_path / name, self.ids), self.wanted), name
        np.save(tmp_path / "alone.npy", self.wanted)
        with pytest.raises(DataError, match="needs a file of item ids beside it: alone.parquet"):
            read_item_vectors(tmp_path / "alone.npy", self.ids)
        (tmp_path / "beside.txt").write_bytes("é".encode("latin-1"))
        with pytest.raises(DataError, match="is not UTF-8 text"):
            read_item_vectors(tmp_path / "beside.npy", self.ids)
        mixed = {"__index_level_0__": [0, 1, 2], "id": ids, "genres": [["x"]] * 3, "embedding": vectors.tolist()}
        pl.DataFrame(mixed).write_parquet(tmp_path / "mixed.parquet")
        assert np.array_equal(read_item_vectors(tmp_path / "mixed.parquet", self.ids), self.wanted)

    @pytest.mark.parametrize(
        ("frame", "message"),
        [
            ({"item_id": ["a", "a"], "vector": [[1.0], [2.0]]}, "more than one vector for item a"),
            ({"item_id": ["a", "b"], "vector": [[1.0], [2.0, 3.0]]}, "differ in length"),
            ({"item_id": ["a", "b"], "vector": [[1.0], [float("nan")]]}, "vector of item b is not finite"),
            ({"item_id": ["x"], "vector": [[1.0]]}, "no vector of an item of this data; its ids look like 'x'"),
            ({"name": ["x"], "vector": [[1.0]]}, "no column of item ids"),
            ({"item_id": ["a"], "text": ["x"]}, "has no vectors"),
        ],
    )
    def test_broken_ones(self, tmp_path, frame, message):
        pl.DataFrame(frame).write_parquet(tmp_path / "v.parquet")
        with pytest.raises(DataError, match=message):
            read_item_vectors(tmp_path / "v.parquet", self.ids)

    def test_they_place_cold_items(self, tmp_path):
        vectors = np.eye(3)[COLOUR] + 0.1 * np.random.default_rng(0).normal(size=(60, 3))
        pl.DataFrame({"item_id": np.arange(60), "vector": vectors.tolist()}).write_parquet(tmp_path / "v.parquet")
        recommender = fitted(ContentConfig(item_vectors=str(tmp_path / "v.parquet")))
        assert cold_auc(recommender) > 0.9
        pl.DataFrame({"item_id": [900], "vector": [[0.0, 1.0, 0.0]]}).write_parquet(tmp_path / "new.parquet")
        new = pl.DataFrame({"item_id": [900]})
        recommender.add_items(new, item_vectors=tmp_path / "new.parquet")
        assert all(COLOUR[i] == 1 for i in recommender.similar(900, 5)["item_id"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tags": "genres"}, "tags must be columns that --text names, got genres"),
        ({"vectors": "glove-6b-50d"}, "text must be columns"),
        ({"text": "title", "train_words": True}, "vectors must be a name or file with --train-words"),
        ({"text": "title", "id_dropout": 1.0}, "id-dropout must be from 0 to below 1"),
        ({"images": "x", "image_size": 4}, "image-size"),
    ],
)
def test_settings_that_contradict_are_refused(given, message):
    with pytest.raises(SettingError, match=message):
        ContentConfig(**given)


def test_columns_in_which_nothing_comes_again_are_refused():
    with pytest.raises(DataError, match="no two items share a word or tag in code"):
        encode_items(TABLE.with_columns(code=pl.format("c{}", "item_id")), ContentConfig(text="code", tags="code"))
    assert not ContentConfig(text=" , ").any


@pytest.mark.parametrize("given", [{"content_lr_scale": 0.1}, {"content_decay": 5.0}])
def test_settings_of_descriptions_reach_the_step(given):
    content, table = ContentConfig(text="kind", id_dropout=0.0, content_tower=True), TABLE
    settings = {"epochs": 2, "content_lr_scale": 1.0, "lr": 0.05}
    one, other = (
        Recommender(*small("softmax", **{**settings, **more}), content).fit(SPLIT.train, table) for more in ({}, given)
    )
    assert not np.array_equal(one.model.items, other.model.items)


def test_a_hidden_layer_is_what_it_says():
    descriptions = encode_items(TABLE, ContentConfig(text="kind"))
    tower, rows = ContentTower(descriptions, DIM, ContentConfig(tower_hidden=6)), torch.arange(7)
    hidden = torch.relu(tower.bag(rows))
    torch.testing.assert_close(tower(rows), hidden @ tower.last.weight.T + tower.last.bias)
    assert tower.last.weight.abs().min() > 0


def test_the_tower_shows_features_as_they_are_now():
    descriptions = encode_items(TABLE, ContentConfig(text="kind"))
    tower = ContentTower(descriptions, DIM, ContentConfig())
    assert tower.features() is descriptions.features and not tower.content_weights()


def test_a_content_model_is_read_from_its_folder_once(told, tmp_path):
    state = Recommender.load(told.save(tmp_path / "model")).state
    content = state.content_model
    assert state.replace(per_user=None).content_model is content


def test_descriptions_leave_the_vectors_of_rated_items_alone():
    plain = Recommender(*small("softmax")).fit(SPLIT.train, TABLE).model
    described = Recommender(*small("softmax"), ContentConfig(text="kind")).fit(SPLIT.train, TABLE).model
    rated = SPLIT.train.item_counts > 0
    assert not rated.all()
    for name in ("items", "item_bias"):
        assert np.array_equal(getattr(plain, name)[rated], getattr(described, name)[rated])
    assert np.array_equal(plain.users, described.users)
    assert described.items[~rated].any(axis=1).all() and not plain.items[~rated].any()
