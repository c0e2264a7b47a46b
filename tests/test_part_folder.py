"""Folders of parts: what was interrupted goes on and ends as if it had not been, and nothing else is touched."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from worlds import recsys_here, small

from recsys_embed.answering import audience as audiences
from recsys_embed.answering import batch
from recsys_embed.config.answers import OutputConfig, Rules
from recsys_embed.data.splits import split_random
from recsys_embed.errors import DataError, SettingError
from recsys_embed.recommender import Recommender
from recsys_embed.sources.load import load_dataset
from recsys_embed.sources.read import read_table
from recsys_embed.state.digest import state_digest

USERS, ITEMS, PER_PART = 50, 30, 17


class Killed(Exception):
    """Stands for whatever ends a command."""


@pytest.fixture(scope="module")
def model():
    dataset = load_dataset(f"synthetic:users={USERS},items={ITEMS},ratings=600")
    train, _, test = split_random(dataset.ratings, 0.0, 0.2)
    return Recommender(*small("softmax", items=ITEMS, epochs=2)).fit(train, dataset.items, held_out=test)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(batch, "query_batch_size", lambda keys: 7)
    monkeypatch.setattr(audiences, "_BLOCK", 4)


def write_lists(model, out, progress=lambda done, total: None, **options):
    options = {"k": 3, "per_part": PER_PART, **options}
    return model.write_recommendations(f"{out}/", progress=progress, **options)


def write_audiences(model, out, progress=lambda done, total: None, **options):
    output = OutputConfig(per_part=9, **options)
    return audiences.write_audiences(model.state, f"{out}/", 3, progress=progress, output=output)


def content(folder):
    """Every file's bytes; of the manifest, all but the time when it was begun."""
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    manifest = json.loads(files.pop("_manifest.json"))
    del manifest["started"]
    return files, manifest


def kill_at(call):
    calls = iter(range(call + 1))

    def progress(done, total):
        if next(calls) == call:
            raise Killed

    return progress


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("write", [write_lists, write_audiences])
def test_whenever_it_is_killed_it_ends_as_if_it_had_not_been(model, tmp_path, write, form):
    reports = []
    whole = write(model, tmp_path / "whole", lambda done, total: reports.append((done, total)), format=form)
    assert reports == sorted(set(reports)) and reports[-1][0] == reports[-1][1]
    for call in range(len(reports)):
        out = tmp_path / str(call)
        with pytest.raises(Killed):
            write(model, out, kill_at(call), format=form)
        complete = [name for name in json.loads((out / "_manifest.json").read_text())["parts"]]
        assert {file.name for file in out.iterdir()} == {*complete, "_manifest.json"}
        assert not json.loads((out / "_manifest.json").read_text())["done"]
        rest = []
        written = write(model, out, lambda *at, rest=rest: rest.append(at), format=form)
        assert rest == reports[-len(rest) :] and written.new_files == written.files - len(complete)
        assert content(out) == content(tmp_path / "whole") and written._replace(new_files=whole.files) == whole
    assert content(tmp_path / "whole")[1]["done"]


def test_what_is_complete_is_left_alone(model, tmp_path):
    first = write_lists(model, tmp_path / "out")
    before = {file.name: file.stat().st_ino for file in (tmp_path / "out").glob("part*")}
    again = write_lists(model, tmp_path / "out", kill_at(0))
    assert again == first._replace(new_files=0) and first.new_files == first.files == 3
    assert {file.name: file.stat().st_ino for file in (tmp_path / "out").glob("part*")} == before


def test_parts_that_are_gone_cut_or_left_over_are_made_good(model, tmp_path):
    out = tmp_path / "out"
    write_lists(model, out)
    whole = content(out)
    (out / "part-00000.parquet").unlink()
    with (out / "part-00001.parquet").open("ab") as file:
        file.write(b"more")
    for name in (".part-00001.parquet-ab12", "._manifest.json-x_1", "part-00099.parquet"):
        (out / name).write_bytes(b"half")
    assert write_lists(model, out).new_files == 2 and content(out) == whole


def test_parts_are_the_one_file_cut_up(model, tmp_path):
    write_lists(model, tmp_path / "out")
    model.write_recommendations(tmp_path / "one.parquet", k=3)
    one = pl.read_parquet(tmp_path / "one.parquet")
    assert_frame_equal(pl.read_parquet(tmp_path / "out" / "*.parquet"), one)
    assert_frame_equal(pl.from_pandas(pd.read_parquet(tmp_path / "out")), one)
    assert read_table(tmp_path / "out").frame.height == one.height
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert [part["users"] for part in manifest["parts"].values()] == [17, 17, 16]
    assert manifest["rows"] == one.height and manifest["request"]["model"]["sha256"] == state_digest(model.state)


def test_users_without_a_list_are_named_in_the_manifest(model, tmp_path):
    written = write_lists(model, tmp_path / "out", candidates=[int(model.items.series[0])])
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    owners = model.users.ids(np.flatnonzero(model.seen.contains(np.arange(USERS), np.zeros(USERS, int)))).to_list()
    assert owners and written.empty == owners and manifest["without_list"] == len(owners)
    assert [user for part in manifest["parts"].values() for user in part["without_list"]] == owners


OTHERS = {
    "k is 4, there 3": {"k": 4},
    "where is year > 1980, there not given": {"rules": Rules(where="year > 1980")},
    "hide-test is true, there false": {"hide_test": True},
    "shape is wide, there long": {"shape": "wide"},
    "format is csv, there parquet": {"format": "csv"},
    "per-part is 9, there 17": {"per_part": 9},
    r"the users are others \(50 there, 2 now\)": {"users": [3, 7]},
    "the users are others(?! .50)": {"users": list(range(USERS, 0, -1))},
    r"exclude is \[1\], there \[\]": {"exclude": [1]},
}


@pytest.mark.parametrize("message", OTHERS)
def test_other_lists_are_refused_and_overwritten_on_demand(model, tmp_path, message):
    out, other = tmp_path / "out", OTHERS[message]
    write_lists(model, out)
    before = content(out)
    with pytest.raises(SettingError, match=f"holds other lists: {message}.*--overwrite starts anew"):
        write_lists(model, out, **other)
    assert content(out) == before
    write_lists(model, out, overwrite=True, **other)
    write_lists(model, tmp_path / "fresh", **other)
    assert content(out) == content(tmp_path / "fresh")


def test_another_model_is_refused_and_the_same_one_from_its_folder_is_not(model, tmp_path):
    with pytest.raises(Killed):
        write_lists(model, tmp_path / "out", kill_at(3))
    changed = model.table.with_columns(year=pl.lit(2000))
    with pytest.raises(SettingError, match=r"other lists: the model is another one \("):
        write_lists(Recommender.of(model.state.replace(table=changed)), tmp_path / "out")
    loaded = Recommender.load(model.save(tmp_path / "model"))
    assert write_lists(loaded, tmp_path / "out").new_files == 2
    with pytest.raises(SettingError, match="holds other audiences: they are lists"):
        write_audiences(model, tmp_path / "out")


def test_the_digest_of_a_model_is_that_of_what_its_lists_come_from(model):
    state = model.state
    other = {
        "seen": state.held_out, "held_out": state.seen, "item_counts": state.item_counts + 1,
        "table": state.table.with_columns(stock=1), "hidden_items": state.held_out,
    }  # fmt: skip
    digests = [state_digest(state.replace(**{name: value})) for name, value in other.items()]
    assert len({state_digest(state), *digests}) == 1 + len(digests)
    assert state_digest(state) == state_digest(state.replace(metadata={"created": "2001-01-01"}))


def test_today_stays_the_day_on_which_it_was_begun(model, tmp_path):
    dates = ["2010-05-01", "2090-05-01"] * (ITEMS // 2)
    dated = Recommender.of(model.state.replace(table=model.table.with_columns(released=pl.Series(dates))))
    rules = Rules(where="released <= today")
    with pytest.raises(Killed):
        write_lists(dated, tmp_path / "out", kill_at(3), rules=rules)
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    manifest["started"] = "2095-01-01T00:00:00Z"
    (tmp_path / "out" / "_manifest.json").write_text(json.dumps(manifest))
    write_lists(dated, tmp_path / "out", rules=rules)
    last = pl.read_parquet(tmp_path / "out" / "part-00002.parquet")
    expected = dated.recommend(k=3).filter(pl.col("user_id").is_in(last["user_id"].implode()))
    assert last["item_id"].to_list() == expected["item_id"].to_list()  # in 2095 all items are out


def test_a_folder_of_something_else_is_never_touched(model, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "part-00000.parquet").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(SettingError, match="is not empty, and no folder of parts"):
            write_lists(model, tmp_path / "photos", overwrite=overwrite)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "_manifest.json").write_text("{")
    with pytest.raises(SettingError, match="is broken"):
        write_lists(model, tmp_path / "broken")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made"):
        write_lists(model, tmp_path / "file" / "below")
    assert (tmp_path / "photos" / "part-00000.parquet").read_text() == "mine"


def test_the_command_line_says_what_goes_on(model, tmp_path, monkeypatch):
    folder = str(model.save(tmp_path / "model"))
    options = ("--model", folder, "--k", "3", "--per-part", "17")
    seconds = iter(range(4))

    def interrupted(self, done, total, note="", unit=""):
        if next(seconds) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("recsys_embed.tracking.progress.BarTracker.progress", interrupted)
        done = recsys_here("recommend", "--all-users", "--out", "lists/", *options, cwd=tmp_path, code=130)
    assert "interrupted: lists/ keeps its complete parts; the same command without --overwrite goes on" in done.stderr
    done = recsys_here("recommend", "--all-users", "--out", "lists", *options, "--json", cwd=tmp_path)
    assert "lists has 1 of 3 parts: going on with the others" in done.stderr
    facts = json.loads(done.stdout)
    assert (facts["files"], facts["new_files"], facts["lists"], facts["rows"]) == (3, 2, 50, 150)
    done = recsys_here("recommend", "--all-users", "--out", "lists/", *options, cwd=tmp_path)
    assert "lists is complete already: nothing to do" in done.stderr
    assert "in 3 parts of lists/, 0 of them new" in done.stdout
    refused = recsys_here("recommend", "--all-users", "--out", "lists/", "--model", folder, cwd=tmp_path, code=2)
    assert "k is 10, there 3" in refused.stderr
    for out, message in {"new": "or in / for a folder of parts", "new.csv": "--per-part is for a folder"}.items():
        refused = recsys_here("recommend", "--all-users", "--out", out, *options, cwd=tmp_path, code=2)
        assert message in refused.stderr and not (tmp_path / out).exists()
    said = recsys_here("audience", "--all-items", "--out", "people/", *options, "--format", "csv", cwd=tmp_path)
    assert "in 2 parts of people/, 2 of them new" in said.stdout
    assert pl.read_csv(tmp_path / "people" / "*.csv").columns == ["item_id", "user_id", "score", "rank"]
    assert (
        "is a folder"
        in recsys_here("audience", "--item", "1", "--out", "people/", "--model", folder, cwd=tmp_path, code=2).stderr
    )
