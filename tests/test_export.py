"""Exports, read back by the programs that they are for: TensorBoard, gensim, polars, pandas, safetensors, numpy."""

import json
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import recsys_here, small

from recsys_embed import Ratings, Recommender, WordVectors, export, export_words
from recsys_embed.cli.export import METHOD, TO
from recsys_embed.errors import DataError, SettingError
from recsys_embed.exports import formats
from recsys_embed.exports.folder import RECORD, Content, exported_files, write_files
from recsys_embed.projection import PROJECTIONS

HOSTILE = [
    "plain", "a\ttab", "two\nlines", "\r\nCRLF", 'a "quote" and \'one\'', "<script>alert(1)</script>", "🎬 👩‍👩‍👧",
    "", "line\u2028separator", "\u00a0", "\x00\x1b[31mred\x85", "日本, العربية",
]  # fmt: skip
IDS = [
    "a", "b b", "b_b", "b\tb", "käse", "日本", "", "c\u2028d", '"q"', "007", "x", "\ufeff",
]  # fmt: skip


def train(table):
    """A model of the items of a table, of which the last has no rating."""
    ids, random = table["item_id"], np.random.default_rng(3)
    pairs = [(u, i) for u in range(9) for i in range(len(ids) - 1) if random.random() < 0.5 or (u + i) % 7 == 0]
    user, item = np.array(pairs).T
    ratings = Ratings.from_frame(pl.DataFrame({"user": [f"u {u}" for u in user], "item": ids.gather(item)}))
    return Recommender(*small("softmax", items=len(ids), epochs=3)).fit(ratings.with_items(ids), table)


@pytest.fixture(scope="module")
def hostile():
    """Text ids and titles that break what does not expect them; columns of all kinds, some of names that we use."""
    n = len(HOSTILE)
    return train(
        pl.DataFrame(
            {
                "item_id": IDS,
                "title": HOSTILE,
                "year": [None, *range(1990, 1989 + n)],
                "tags": [["Drama", "a\tb"]] * n,
                "share": [math.nan, *np.linspace(0, 1, n - 1)],
                "poster": [b"\xff\xd8"] * n,
                "vector": ["mine"] * n,
                "a\tcolumn": [t[::-1] for t in HOSTILE],
                "a column": ["other"] * n,
            }
        )
    )


@pytest.fixture(scope="module")
def numbered():
    """Integer ids and nothing else."""
    return train(pl.DataFrame({"item_id": [40, -7, 3, 900, 11, 12, 13]}))


@pytest.fixture(params=["hostile", "numbered"])
def model(request):
    return request.getfixturevalue(request.param)


def tensorboard(folder):
    """Ask TensorBoard's projector of a log folder, over its own routes: (path, parameters) -> answer."""
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
    from werkzeug.test import Client
    from werkzeug.wrappers import Response

    runs = plugin_event_multiplexer.EventMultiplexer()
    provider = data_provider.MultiplexerDataProvider(runs, str(folder))
    plugin = ProjectorPlugin(base_plugin.TBContext(logdir=str(folder), data_provider=provider))

    def ask(path, **parameters):
        answer = Client(plugin.get_plugin_apps()[path], Response).get("/", query_string=parameters)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        return answer

    return ask


def shown(metadata):
    """Read metadata as the projector's page does: it skips blank lines, and a tab in the first line makes a header."""
    lines = [line for line in metadata.split("\n") if line.strip(" \t\r\x0b\x0c\u00a0\u2028\u2029\ufeff")]
    names = lines.pop(0).split("\t") if "\t" in lines[0] else ["label"]
    assert all(line.count("\t") == len(names) - 1 for line in lines)
    return pl.DataFrame([dict(zip(names, line.split("\t"), strict=True)) for line in lines])


def test_tensorboard_opens_items_and_users(model, tmp_path):
    ask = tensorboard(export(model, "projector", tmp_path / "out", users=True))
    assert ask("/runs").get_json() == ["."]
    told = ask("/info", run=".").get_json()["embeddings"]
    assert [e["tensorName"] for e in told] == ["items", "users"]
    for entry, vectors, vocab in zip(
        told, (model.model.items, model.model.users), (model.items, model.users), strict=True
    ):
        assert entry["tensorShape"] == list(vectors.shape)
        data = ask("/tensor", run=".", name=entry["tensorName"]).get_data()
        np.testing.assert_array_equal(np.frombuffer(data, np.float32).reshape(vectors.shape), vectors)
        table = shown(ask("/metadata", run=".", name=entry["tensorName"]).get_data(as_text=True))
        assert table.height == len(vectors)
        key = f"{vocab.name}_id"
        assert table[key].to_list() == [str(i).replace("\t", " ").replace("\u2028", " ") for i in vocab.series]
    # The page of the projector itself reads JSON, with the same entries.
    assert json.loads((tmp_path / "out" / "projector_config.json").read_text())["embeddings"] == told


def test_metadata_is_one_line_an_item_whatever_the_titles(hostile, tmp_path):
    text = (export(hostile, "projector", tmp_path / "out") / "metadata.tsv").read_bytes().decode()
    table = shown(text)
    assert table.columns[:2] == ["title", "item_id"], "the page labels points by the first column of text"
    assert not {c for c in text if ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029"} - set("\t\n")
    titles = dict(zip(table["item_id"], table["title"], strict=True))
    assert (titles["x"], titles["a"], titles["b_b"]) == ("  [31mred ", "plain", "two lines")
    assert titles["käse"] == HOSTILE[4] and titles["日本"] == "<script>alert(1)</script>"
    assert table["ratings"].cast(pl.Int64).to_list() == hostile.item_counts.tolist() and hostile.item_counts.min() == 0
    assert set(table["tags"]) == {"Drama|a b"} and "poster" not in table.columns
    assert {"item_vector", "a column", "a column_2"} <= set(table.columns)
    assert "nan" not in text.lower()


def test_one_column_has_no_header(tmp_path):
    words = ["the", "\u00a0", "käse", '"', "a\tb"]
    vectors = WordVectors.of(pl.Series(words), np.random.default_rng(0).normal(size=(5, 3)).astype("f4"))
    ask = tensorboard(export_words(vectors, "projector", tmp_path / "out", limit=4))
    assert ask("/metadata", run=".", name="words").get_data(as_text=True) == 'the\n(blank)\nkäse\n"\n'
    data = np.frombuffer(ask("/tensor", run=".", name="words").get_data(), np.float32)
    np.testing.assert_array_equal(data.reshape(4, 3), vectors.vectors[:4])


def test_parquet_holds_neighbours_as_similar_says(model, tmp_path):
    folder = export(model, "parquet", tmp_path / "out", users=True, neighbours=3)
    table = pl.read_parquet(folder / "items.parquet")
    assert table.schema["vector"] == pl.List(pl.Float32)
    assert table.schema["neighbors"] == pl.Struct({"ids": pl.List(pl.Int32), "distances": pl.List(pl.Float32)})
    np.testing.assert_array_equal(np.array(table["vector"].to_list(), np.float32), model.model.items)
    assert table["item_id"].equals(model.items.series.alias("item_id"))
    assert table["title"].equals(model.table["title"]), "Parquet keeps titles as they are"
    assert table["ratings"].to_list() == model.item_counts.tolist()
    near = model.similar(model.items.series, 3)
    ids = table["neighbors"].struct["ids"].explode()
    assert model.items.ids(ids).to_list() == near["item_id"].to_list()
    distances = table["neighbors"].struct["distances"].explode().to_numpy()
    np.testing.assert_allclose(distances, np.maximum(1 - near["score"].to_numpy(), 0), atol=1e-7)
    assert (distances >= 0).all() and table["neighbors"].struct["ids"].list.len().unique().to_list() == [3]
    one = model.similar(model.items.series[1], 3)["score"]
    np.testing.assert_allclose(1 - distances[3:6], one, atol=1e-6)
    assert np.isfinite(table.select("x", "y").to_numpy()).all()
    for column in table.select(pl.selectors.float()):
        assert not column.is_nan().any()
    users = pl.read_parquet(folder / "users.parquet")
    np.testing.assert_array_equal(np.array(users["vector"].to_list(), np.float32), model.model.users)
    assert users["user_id"].equals(model.users.series.alias("user_id"))
    assert users["ratings"].to_list() == model.seen.count.tolist()


def test_parquet_in_pandas_is_as_embedding_atlas_asks(hostile, tmp_path):
    import pandas as pd

    folder = export(hostile, "parquet", tmp_path / "out", neighbours=99, method="pca")
    row = pd.read_parquet(folder / "items.parquet").iloc[2]
    assert row["vector"].dtype == np.float32 and len(row["vector"]) == hostile.model.dim
    assert set(row["neighbors"]) == {"ids", "distances"}, "row numbers from 0, and distances, the nearest first"
    assert sorted(row["neighbors"]["ids"]) == [n for n in range(len(HOSTILE)) if n != 2]
    assert (np.diff(row["neighbors"]["distances"]) >= 0).all()
    bare = pl.read_parquet(export(hostile, "parquet", tmp_path / "bare", neighbours=0) / "items.parquet")
    assert "neighbors" not in bare.columns


def test_no_distance_is_below_zero(tmp_path):
    # Of equal directions the cosine is 1 but for rounding, which goes up as often as down.
    vectors = np.repeat(np.random.default_rng(2).normal(size=(20, 7)), 2, axis=0).astype("f4")
    words = WordVectors.of(pl.Series([f"w{n}" for n in range(40)]), vectors)
    table = pl.read_parquet(export_words(words, "parquet", tmp_path / "out", method="pca") / "words.parquet")
    distances = table["neighbors"].struct["distances"].list.first()
    assert 0 <= distances.min() and distances.max() < 1e-6


def test_a_picture_is_the_same_each_time(numbered, tmp_path):
    one, other = (export(numbered, "parquet", tmp_path / name, seed=4) / "items.parquet" for name in "ab")
    assert pl.read_parquet(one).equals(pl.read_parquet(other))


def test_gensim_opens_word2vec(model, tmp_path):
    from gensim.models import KeyedVectors

    folder = export(model, "word2vec", tmp_path / "out", users=True)
    for name, vectors in (("items", model.model.items), ("users", model.model.users)):
        loaded = KeyedVectors.load_word2vec_format(str(folder / f"{name}.txt"))
        np.testing.assert_array_equal(loaded.vectors, vectors)
        assert len(set(loaded.index_to_key)) == len(vectors)
        assert not any(" " in key or key.split() != [key] for key in loaded.index_to_key)
        own = WordVectors.load(folder / f"{name}.txt")
        assert own.words.series.to_list() == loaded.index_to_key and np.array_equal(own.vectors, vectors)
    assert loaded.index_to_key[0] == "u_0"
    near = model.similar(model.items.series[0], 3)
    loaded = KeyedVectors.load_word2vec_format(str(folder / "items.txt"))
    with np.errstate(invalid="ignore"):  # gensim divides by the length of an unrated item's vector, which is 0
        found = loaded.similar_by_key(loaded.index_to_key[0], 3)
    assert [score for _, score in found] == pytest.approx(near["score"].to_list(), abs=1e-5)


def test_keys_stay_apart_and_what_need_not_change_stays(hostile, numbered, tmp_path):
    def keys(model, name):
        lines = (export(model, "word2vec", tmp_path / name) / "items.txt").read_text("utf-8").split("\n")[1:-1]
        return dict(zip(model.items.series, (line.split(" ")[0] for line in lines), strict=True))

    found = keys(hostile, "a")
    assert found["b_b"] == "b_b" and {found["b b"], found["b\tb"]} == {"b_b_2", "b_b_3"}
    assert found[""] == "_" and found["c\u2028d"] == "c_d" and found["日本"] == "日本" and found["007"] == "007"
    assert keys(numbered, "b") == {i: str(i) for i in numbered.items.series}


def test_safetensors_and_the_ids_beside_it(model, tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file

    folder = export(model, "safetensors", tmp_path / "out", users=True)
    tensors = load_file(folder / "vectors.safetensors")
    plain = model.model
    expected = {name: getattr(plain, name) for name in ("items", "item_bias", "users", "user_bias")}
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, expected[name])
    with safe_open(folder / "vectors.safetensors", "numpy") as file:
        beside = file.metadata()
    assert pl.read_parquet(folder / beside["items"])["item_id"].to_list() == model.items.series.to_list()
    assert pl.read_parquet(folder / beside["users"])["user_id"].to_list() == model.users.series.to_list()


def test_npz_without_pickles(model, tmp_path):
    folder = export(model, "npz", tmp_path / "out", users=True)
    with np.load(folder / "items.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"ids", "titles", "vectors", "bias", "ratings"}
        assert arrays["ids"].dtype.kind == ("U" if model.items.is_text else "i")
        assert arrays["ids"].tolist() == model.items.series.to_list()
        assert arrays["titles"].tolist() == model.table["title"].to_list()
        np.testing.assert_array_equal(arrays["vectors"], model.model.items)
        np.testing.assert_array_equal(arrays["bias"], model.model.item_bias)
        assert arrays["ratings"].tolist() == model.item_counts.tolist()
    with np.load(folder / "users.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"ids", "vectors", "bias", "ratings"}
        assert arrays["ids"].tolist() == model.users.series.to_list()


@pytest.mark.parametrize("to", formats.EXPORTS)
def test_words_are_read_back(tmp_path, to):
    words = pl.Series([f"w{n}" for n in range(12)])
    vectors = WordVectors.of(words, np.random.default_rng(1).normal(size=(12, 4)).astype("f4"))
    folder = export_words(vectors, to, tmp_path / "out", limit=9)
    if to in ("word2vec", "safetensors"):
        back = WordVectors.load(folder / {"word2vec": "words.txt", "safetensors": "vectors.safetensors"}[to])
        assert back.words.series.to_list() == words.head(9).to_list()
        np.testing.assert_array_equal(back.vectors, vectors.vectors[:9])
    elif to == "parquet":
        table = pl.read_parquet(folder / "words.parquet")
        near = table["neighbors"].struct["ids"][0]
        best = [w for w, _ in vectors.take(np.arange(9)).similar("w0", 8)]
        assert table["word"].gather(near).to_list() == best
    elif to == "npz":
        with np.load(folder / "words.npz", allow_pickle=False) as arrays:
            assert set(arrays) == {"ids", "vectors"} and arrays["ids"].tolist() == words.head(9).to_list()


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=8))
def test_text_gives_the_same_float32_back(values, tmp_path_factory):
    vectors = np.array([values], np.float32)
    part = formats.EmbeddingTable("words", pl.DataFrame({"word": ["a"]}), vectors)
    for to, name in (("word2vec", "words.txt"), ("projector", "vectors.tsv")):
        folder = tmp_path_factory.mktemp("floats")
        write_files(folder, formats.EXPORTS[to].files([part], formats.ParquetOptions()), to)
        fields = (folder / name).read_text().split("\n")[-2].split()
        np.testing.assert_array_equal(np.array(fields[-len(values) :], np.float64).astype(np.float32), vectors[0])


def test_what_others_put_there_is_never_touched(numbered, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.md").write_text("mine")
    (folder / "items.npz").write_text("mine too")
    for _ in range(2):
        export(numbered, "projector", folder, users=True)
    assert {path.name for path in exported_files(folder, "projector")} >= {"vectors.tsv", "users-vectors.tsv"}
    export(numbered, "projector", folder)
    assert not (folder / "users-vectors.tsv").exists(), "a new export takes all of the older one of its kind away"
    with pytest.raises(DataError, match=r"items\.npz exists and is not from an export: choose another --out"):
        export(numbered, "npz", folder)
    export(numbered, "word2vec", folder)
    assert (folder / "notes.md").read_text() == "mine" and (folder / "items.npz").read_text() == "mine too"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["notes.md", "items.npz", "vectors.tsv", "metadata.tsv", "projector_config.json", "projector_config.pbtxt",
         "items.txt", RECORD]
    )  # fmt: skip
    for place, message in (
        ("notes.md", "is a file; an export is a folder"),
        ("notes.md/in", "could not be written to"),
    ):
        with pytest.raises(DataError, match=message):
            export(numbered, "npz", folder / place)
    (folder / RECORD).unlink()
    (folder / RECORD).mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        export(numbered, "npz", folder)


@pytest.mark.parametrize("record", ["[]", "{", "mine", '{"package": "recsys-embed", "files": {"../notes": "npz"}}'])
def test_a_record_that_is_not_ours_is_refused(numbered, tmp_path, record):
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / RECORD).write_text(record)
    with pytest.raises(DataError, match=r"export\.json is not from an export"):
        export(numbered, "npz", tmp_path / "out")
    assert (tmp_path / "notes").read_text() == "mine" and len(list((tmp_path / "out").iterdir())) == 1


def test_what_fails_leaves_nothing_behind(tmp_path):
    def fail(file):
        file.write(b"half")
        raise DataError("no more")

    def short(file):
        file.write(b"one\n")

    for content, message in ((Content(fail), "no more"), (Content(short, 2), "b came out with 1 lines instead of 2")):
        with pytest.raises(DataError, match=message):
            write_files(tmp_path / "out", {"a": Content(short, 1), "b": content}, "kind")
        assert not list(tmp_path.iterdir())


def test_settings_are_refused_in_one_line(numbered, tmp_path):
    with pytest.raises(SettingError, match="there are projector, parquet, safetensors, word2vec, npz"):
        export(numbered, "csv", tmp_path / "out")
    with pytest.raises(SettingError, match="neighbours must be 0 or more"):
        export(numbered, "parquet", tmp_path / "out", neighbours=-1)
    with pytest.raises(SettingError, match="there is no projection"):
        export(numbered, "parquet", tmp_path / "out", method="magic")
    thin = WordVectors.of(pl.Series(["a", "b"]), np.ones((2, 1), np.float32))
    with pytest.raises(SettingError, match="two dimensions or more"):
        export_words(thin, "projector", tmp_path / "out")
    with pytest.raises(SettingError, match="at least 1"):
        export_words(thin, "npz", tmp_path / "out", limit=0)
    assert not list(tmp_path.iterdir())


def test_the_command_line_knows_the_same_names():
    assert TO.__origin__.__args__ == tuple(formats.EXPORTS)
    assert METHOD.__origin__.__args__ == ("auto", *PROJECTIONS)


@pytest.mark.slow
def test_it_is_run_as_a_user_runs_it(numbered, tmp_path):
    numbered.save(tmp_path / "models" / "one")
    report = json.loads(
        recsys_here("export", "--to", "parquet", "--users", "--neighbours", "2", "--json", cwd=tmp_path).stdout
    )
    assert (report["to"], report["items"], report["users"], report["dim"]) == ("parquet", 7, 9, numbered.model.dim)
    assert report["files"].keys() == {"export/items.parquet", "export/users.parquet"} and report["out"] == "export"
    assert pl.read_parquet(tmp_path / "export" / "items.parquet")["neighbors"].struct["ids"].list.len().max() == 2
    done = recsys_here("export", "--model", "models/one", "--out", "board", cwd=tmp_path)
    assert "board/vectors.tsv" in done.stdout and "open it: tensorboard --logdir board" in done.stdout
    done = recsys_here("export", "--to", "npz", "--out", "models/one/items.parquet", cwd=tmp_path, code=3)
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: models/one/items.parquet is a file")
    done = recsys_here("export", "--to", "parquet", "--out", "models/one", cwd=tmp_path, code=3)
    assert "models/one/items.parquet exists and is not from an export" in done.stderr
    Recommender.load(tmp_path / "models" / "one")
    recsys_here("export", "--to", "excel", cwd=tmp_path, code=2)
    words = WordVectors.of(pl.Series(["a", "b", "c"]), np.eye(3, dtype=np.float32)).save(tmp_path / "w.safetensors")
    options = ["--vectors", words.name, "--to", "word2vec", "--limit", "2", "--json"]
    report = json.loads(recsys_here("words", "export", *options, cwd=tmp_path).stdout)
    assert report["words"] == 2 and list(report["files"]) == ["words-export/words.txt"]
