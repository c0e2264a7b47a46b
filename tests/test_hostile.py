"""What nobody vouches for is refused in one line, whatever is wrong with it. Found by experiments/faults/fuzz.py."""

import contextlib
import hashlib
import io
import json
import shutil
import sqlite3
import zipfile

import numpy as np
import polars as pl
import pytest
from worlds import small

from recsys_embed.answering.titles import split_ratings
from recsys_embed.config.amounts import read_bytes
from recsys_embed.data.user_items import UserItems
from recsys_embed.errors import BundleError, DataError, SettingError
from recsys_embed.recommender import Recommender
from recsys_embed.sources.load import load_dataset
from recsys_embed.sources.read import read_table
from recsys_embed.storage.json import parse_json
from recsys_embed.storage.model_folders import list_model_folders
from recsys_embed.storage.parquet_reader import read_parquet
from recsys_embed.storage.part_folder import PartFolder
from recsys_embed.training.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    dataset = load_dataset("synthetic:users=20,items=12,ratings=100")
    return Recommender(*small("softmax", items=12, epochs=1)).fit(dataset.ratings, dataset.items)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    return model.save(tmp_path_factory.mktemp("model") / "m")


def sealed(saved, folder, name, data):
    """A model folder in which one file has another content, and the digest of that."""
    shutil.copytree(saved, folder)
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def text_of(error):
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("items.parquet", b"PAR1 and more"),
        ("users.parquet", b""),
        ("model.json", b'{"a": '),
        ("model.json", b"\x80"),
        ("model.json", b"[" * 100_000),
        ("model.json", b"[]"),
        ("model.json", b'{"trend": 3, "settings": []}'),
        ("README.md", b"\xff"),
        ("seen.safetensors", b"\x00" * 8),
    ],
)
def test_a_digest_does_not_make_a_file_sound(saved, tmp_path, name, data):
    with pytest.raises(BundleError) as error:
        Recommender.load(sealed(saved, tmp_path / "m", name, data))
    assert str(tmp_path / "m") in text_of(error)


def test_users_have_items_of_the_model_only(model, saved, tmp_path):
    state = model.state
    for field in ("seen", "held_out"):
        wrong = UserItems(np.append(np.zeros(20, np.int64), 1), np.array([12]))
        folder = Recommender.of(state.replace(**{field: wrong})).save(tmp_path / field)
        with pytest.raises(BundleError, match="not among the 12"):
            Recommender.load(folder)


@pytest.mark.parametrize(
    ("start", "item"),
    [([0, 1], [0]), ([0, 2, 1], [0]), ([1, 1, 1], [0]), ([0, 1, 2], [0]), ([0, 0, 1], [-1]), ([0, 0, 1], [3])],
)
def test_what_users_have_lies_one_after_the_other(start, item):
    sound = UserItems(np.array([0, 1, 2]), np.array([2, 0]))
    assert sound.checked(2, 3) is sound and len(UserItems.empty(4).checked(4, 0)) == 0
    with pytest.raises(ValueError, match="items"):
        UserItems(np.array(start), np.array(item)).checked(2, 3)


def test_an_archive_with_a_wrong_directory_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("ratings.csv", "user,item\n1,2\n")
    data = bytearray(buffer.getvalue())
    end = data.rindex(b"PK\x05\x06")
    data[end + 16 : end + 20] = (len(data)).to_bytes(4, "little")  # where the directory is said to begin
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError) as error:
        read_table(tmp_path / "a.zip")
    assert "a.zip" in text_of(error)


def test_an_archive_of_nameless_files_and_a_database_of_no_text_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "user,item\n1,2\n")
    data = (tmp_path / "a.zip").read_bytes()
    end = data.rindex(b"PK\x01\x02")
    (tmp_path / "a.zip").write_bytes(data[: end + 28] + b"\x00\x00" + data[end + 30 :])  # the length of the name
    with pytest.raises(DataError, match="zip"):
        read_table(tmp_path / "a.zip")
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("create table rating (user_id, item_id)")
        connection.commit()
    data = (tmp_path / "a.db").read_bytes()
    (tmp_path / "a.db").write_bytes(data.replace(b"(user_id, item_id)", b"(\xffser_id, item_id)"))
    with pytest.raises(DataError) as error:
        read_table(tmp_path / "a.db")
    assert "a.db" in text_of(error)


def test_a_panic_of_native_code_is_an_unreadable_file(monkeypatch):
    def panic(source):
        raise pl.exceptions.PanicException("assertion failed:\nat line 3")

    monkeypatch.setattr(pl, "read_parquet", panic)
    with pytest.raises(DataError) as error:
        read_parquet(b"", "x.parquet")
    assert text_of(error) == "x.parquet is not a readable Parquet file: assertion failed:"


@pytest.mark.parametrize("text", ["9" * 400 + " GB", "0GB", "1\nGB\n\n"])
def test_a_size_is_a_size(text):
    if text.startswith("1"):
        assert read_bytes("memory_limit", text) == 1_000_000_000
        return
    with pytest.raises(SettingError) as error:
        read_bytes("memory_limit", text)
    assert "memory-limit must be" in text_of(error)
    with pytest.raises(SettingError) as error:
        read_bytes("memory_limit", "a\nb")
    text_of(error)


@pytest.mark.parametrize(
    "change",
    [
        {"started": None},
        {"parts": []},
        {"parts": {"part-00000.parquet": 3}},
        {"parts": {"../m": {"rows": 1, "lists": 1, "without_list": []}}},
        {"parts": {"part-00000.parquet": {"rows": 1, "lists": 1}}},
        {"parts": {"part-00000.parquet": {"rows": 1, "lists": 1, "without_list": 0}}},
    ],
)
def test_a_manifest_of_parts_says_what_it_must(tmp_path, change):
    request = {"kind": "lists"}
    PartFolder.open(tmp_path / "out", request, ".parquet")
    file = tmp_path / "out" / "_manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(SettingError, match="is broken"):
        PartFolder.open(tmp_path / "out", request, ".parquet")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("text", ["a=\x1c.5", "a=5 "])
def test_a_rating_is_a_number(text):
    assert list(split_ratings(text)) == ["a"]
    for wrong in ("a=" + "9" * 400, "a=\x1cx", "a=nan"):
        with pytest.raises(SettingError, match="is not a rating"):
            split_ratings(wrong)


DEEP = "[" * 100_000


def test_lists_in_lists_without_end_are_no_manifest(saved, tmp_path):
    with pytest.raises(ValueError, match="too deeply"):
        parse_json(DEEP)
    shutil.copytree(saved, tmp_path / "m")
    (tmp_path / "m" / "manifest.json").write_text(DEEP)
    with pytest.raises(BundleError, match="is broken"):
        Recommender.load(tmp_path / "m")
    assert list_model_folders(tmp_path) == []
    (tmp_path / "states" / "001-000001").mkdir(parents=True)
    (tmp_path / "states" / "001-000001" / "manifest.json").write_text(DEEP)
    assert Checkpoints(tmp_path / "states", 60.0, resume=True).stage("fit", "x").saved is None
