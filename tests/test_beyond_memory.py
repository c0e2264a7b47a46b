"""Ratings that are longer than memory: read, split and trained on from disk, they are the same."""

import errno
import logging
import re
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch
from worlds import recsys_here, small

from recsys_embed import DataConfig, Ratings, RunConfig
from recsys_embed.data import disk, sorting
from recsys_embed.data.checks import check_no_leakage
from recsys_embed.data.dataset import SPLITS
from recsys_embed.data.disk import Columns, Disk
from recsys_embed.data.sorting import at_ranks
from recsys_embed.errors import DataError, SettingError
from recsys_embed.experiment.run import run_experiment
from recsys_embed.models.local_ridge import Sizes, sizes_in
from recsys_embed.sources import memory
from recsys_embed.sources.load import load_dataset
from recsys_embed.sources.synthetic import generate
from recsys_embed.storage.bundle import Bundle
from recsys_embed.training import hybrid
from recsys_embed.training.batches import _GroupedBatches


def rows_of(ratings):
    """The rows with ids, in one order."""
    return ratings.frame().sort("user_id", "item_id")


@pytest.fixture
def on_disk(monkeypatch):
    """Everything is longer than memory, and blocks are of a few rows."""
    monkeypatch.setattr(memory, "BYTES_A_RATING", 10**12)
    monkeypatch.setattr(disk, "_MOST_ROWS", 700)
    monkeypatch.setattr(disk, "_FEWEST_ROWS", 700)


def frame_of(n=3000, seed=0):
    random = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "user_id": random.integers(0, 80, n) - 7,
            "item_id": random.integers(0, 60, n),
            "rating": random.integers(1, 6, n).astype(np.float32),
            "timestamp": 1_600_000_000 + 37 * random.permutation(n),
        }
    )


def write(folder, frame, files=3):
    folder.mkdir()
    edges = np.linspace(0, frame.height, files + 1).astype(int)
    for n, (start, stop) in enumerate(pairwise(edges)):
        frame[start:stop].write_parquet(folder / f"part-{n}.parquet", row_group_size=211)
    return str(folder)


def both(folder, frame, **options):
    """The ratings of a frame, from disk and in memory."""
    read = load_dataset(write(folder, frame), DataConfig(**options)).ratings
    return read, Ratings.from_frame(frame, duplicates=options.get("duplicates", "last"))


KINDS = {
    "integers": lambda f: f,
    "text": lambda f: f.with_columns(
        user_id="u" + pl.col("user_id").cast(pl.String), item_id=pl.format("{} ", "item_id")
    ),
    "dates": lambda f: f.with_columns(timestamp=pl.from_epoch("timestamp").dt.strftime("%d.%m.%Y %H:%M:%S")),
    "no values": lambda f: f.select("user_id", "item_id"),
    "milliseconds": lambda f: f.with_columns(timestamp=pl.col("timestamp") * 1000 + 7),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_onto_disk_is_what_is_read_into_memory(tmp_path, on_disk, kind):
    frame = KINDS[kind](frame_of())
    read, expected = both(tmp_path / "data", frame)
    assert read.disk is not None and len(list(read.blocks())) > 2
    expected = (
        expected if kind != "text" else Ratings.from_frame(frame.with_columns(pl.col("item_id").str.strip_chars()))
    )
    assert rows_of(read).equals(rows_of(expected))
    assert read.users == expected.users and read.items == expected.items
    assert read.n_duplicates == expected.n_duplicates > 0
    assert read.pairs_digest() == expected.pairs_digest()
    assert np.array_equal(read.seen().indptr, expected.seen().indptr)
    assert np.array_equal(read.seen().indices, expected.seen().indices)
    assert (read.matrix() != expected.matrix()).nnz == 0


@pytest.mark.parametrize("duplicates", ["last", "first", "mean", "sum"])
def test_repeated_rows_are_merged_as_in_memory(tmp_path, on_disk, duplicates):
    read, expected = both(tmp_path / "data", frame_of(), duplicates=duplicates)
    assert rows_of(read).equals(rows_of(expected))


def test_repeated_rows_are_named_where_there_may_be_none(tmp_path, on_disk):
    frame = frame_of().unique(["user_id", "item_id"], maintain_order=True)
    assert both(tmp_path / "one", frame, duplicates="error")[0].n_duplicates == 0
    again = pl.concat([frame, frame.filter((pl.col("user_id") == 41) & (pl.col("item_id") == 7)), frame[:0]])
    assert again.height == frame.height + 1
    with pytest.raises(DataError, match="occur more than once, such as user 41 and item 7$"):
        load_dataset(write(tmp_path / "two", again), DataConfig(duplicates="error"))


def test_a_date_and_a_time_of_day_are_one_time(tmp_path, on_disk):
    frame = frame_of().with_columns(moment=pl.from_epoch("timestamp"))
    apart = frame.select("user_id", "item_id", date=pl.col("moment").dt.date(), time=pl.col("moment").dt.time())
    read = load_dataset(write(tmp_path / "data", apart)).ratings
    assert np.array_equal(np.sort(read.time), np.sort(Ratings.from_frame(apart).time))


def test_what_is_last_within_a_second_is_what_stays(tmp_path, on_disk):
    times = [1_600_000_000_500, 1_600_000_000_200, 1_600_000_000_800, 1_600_000_000_100]
    frame = pl.DataFrame({"user_id": [1, 1, 2, 2], "item_id": [5, 5, 5, 5], "rating": [1, 2, 3, 4], "timestamp": times})
    frame.write_parquet(tmp_path / "r.parquet")
    assert load_dataset(str(tmp_path / "r.parquet"), DataConfig()).ratings.value.tolist() == [1, 3]


def test_weights_come_along(tmp_path, on_disk):
    frame = frame_of().unique(["user_id", "item_id"], maintain_order=True).rename({"rating": "amount"})
    read = load_dataset(write(tmp_path / "data", frame), DataConfig(weight_col="amount")).ratings
    assert rows_of(read).equals(rows_of(Ratings.from_frame(frame, weight="amount")))


@pytest.mark.parametrize("config", [
    DataConfig(), DataConfig(valid_share=0.3, test_share=0.0), DataConfig(split="leave-last"),
    DataConfig(split="time"), DataConfig(split="time", window="1h"), DataConfig(split="cold-items"),
], ids=str)  # fmt: skip
def test_a_split_on_disk_is_the_split_in_memory(tmp_path, on_disk, config):
    read, expected = both(tmp_path / "data", frame_of())
    splits = [SPLITS[config.split](ratings, config, config.test_share > 0, 0) for ratings in (read, expected)]
    for name, found, wanted in zip(splits[0]._fields, *splits, strict=True):
        assert found.disk is not None
        assert rows_of(found).equals(rows_of(wanted)), name
    train, valid, _ = splits[0]
    merged = train.concat(valid)
    assert rows_of(merged).equals(rows_of(splits[1].train.concat(splits[1].valid)))
    assert (np.diff(merged.user * len(merged.items) + merged.item) > 0).all()
    check_no_leakage(train, valid, "train", "validation")
    if len(valid):
        with pytest.raises(DataError, match="of train are in validation too"):
            check_no_leakage(merged, valid, "train", "validation")


def test_rows_are_chosen_and_widened_as_in_memory(tmp_path, on_disk):
    read, expected = both(tmp_path / "data", frame_of())
    assert rows_of(read.positives(4)).equals(rows_of(expected.positives(4)))
    assert rows_of(read.of_random_users(9)).equals(rows_of(expected.of_random_users(9)))
    last = len(read.users) - 1
    few = expected.take(np.random.default_rng(0).permutation(np.flatnonzero(np.isin(expected.user, (3, last)))))
    others = read.where(lambda rows: (rows.user != 3) & (rows.user != last))
    merged = others.concat(few)
    assert rows_of(merged).equals(rows_of(read))
    assert (np.diff(merged.user * len(merged.items) + merged.item) > 0).all()
    more = pl.Series([1000, 30, -5])
    assert rows_of(read.with_items(more)).equals(rows_of(expected.with_items(more)))
    assert read.with_items(more).items == expected.with_items(more).items


def test_the_numbers_at_ranks_are_those_of_a_sort(monkeypatch):
    monkeypatch.setattr(sorting, "_MANY", 50)
    monkeypatch.setattr(sorting, "_RANGES", 16)
    random = np.random.default_rng(0)
    for values in (random.integers(-(10**12), 10**12, 999), random.integers(0, 3, 999), np.full(120, 7), np.arange(20)):
        ranks = [0, 1, len(values) // 2, len(values) - 1, len(values) + 5]
        assert at_ranks(values, ranks) == np.sort(values)[np.minimum(ranks, len(values) - 1)].tolist()


def sorted_data(folder):
    frame = generate(users=120, items=80, ratings=4000)[0].sort("user_id", "item_id")
    return write(folder, frame)


@pytest.mark.parametrize(("split", "refit", "family"), [
    ("random", False, "auto"), ("time", False, "embeddings"), ("random", True, "embeddings"), ("time", True, "both"),
])  # fmt: skip
def test_a_training_from_disk_is_the_training_in_memory(tmp_path, monkeypatch, request, split, refit, family):
    """A file in order is learnt from in the same order, bit for bit; a refit adds up in another order."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    data = sorted_data(tmp_path / "data")
    model, train = small("sampled-softmax", epochs=3, batch_size=None, batch_users=16, refit=refit, model_family=family)
    reports = []
    for name in ("memory", "disk"):
        if name == "disk":
            request.getfixturevalue("on_disk")
        run = RunConfig(out=str(tmp_path / name), track=False, resamples=0)
        reports.append(run_experiment(DataConfig(data, split=split), model, train, run)[1])
    assert refit or reports[0]["metrics"] == reports[1]["metrics"]
    bundles = [Bundle.read(tmp_path / name) for name in ("memory", "disk")]
    for file in ("vectors.safetensors", "seen.safetensors"):
        for name, array in bundles[0].arrays[file].items():
            np.testing.assert_allclose(bundles[1].arrays[file][name], array, atol=1e-4 * refit, rtol=0, err_msg=name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "disk", "memory"]


@pytest.mark.parametrize(("loss", "given"), [
    ("bpr", {}), ("logistic", {}), ("softmax", {}), ("mse", {"method": "adam"}), ("softmax", {"user_tower": "history"}),
])  # fmt: skip
def test_every_loss_learns_from_disk_what_it_learns_in_memory(tmp_path, request, loss, given):
    """Batches are drawn otherwise, so it is the quality that is the same."""
    data = sorted_data(tmp_path / "data")
    model, train = small(loss, epochs=3 if given else 8, model_family="embeddings", refit=False, **given)
    values = []
    for name in ("memory", "disk"):
        if name == "disk":
            request.getfixturevalue("on_disk")
        run = RunConfig(out=str(tmp_path / name), track=False, resamples=0, baselines=False)
        values.append(run_experiment(DataConfig(data), model, train, run)[1]["metrics"]["test"])
    metric = "rmse" if loss == "mse" else "ndcg_at_10"
    assert values[1][metric] == pytest.approx(values[0][metric], rel=0.12)


def test_batches_from_disk_are_a_random_partition(tmp_path):
    n, steps = 5000, 40
    folder, generator = Disk(tmp_path, 10**9, 700), torch.Generator().manual_seed(0)
    epochs = [_GroupedBatches(folder, n, steps, generator) for _ in range(2)]
    assert len({len(e.rows) for e in epochs}) == 1 and len(epochs[0].rows) > 3
    first = [batch.clone() for batch in epochs[0]]
    for epoch in epochs:
        batches = [epoch[number] for number in range(len(epoch))]
        assert torch.equal(torch.cat(batches).sort().values, torch.arange(n))
        assert all((batch.diff() > 0).all() for batch in batches)
        assert abs(len(batches) - steps) <= 3 and max(map(len, batches)) < 1.3 * n / steps
    assert torch.equal(epochs[0][3], first[3]) and not torch.equal(epochs[1][3], first[3])  # again, and anew
    together = np.zeros((10, 10))  # tenths of the rows meet as often as they would by chance
    for batch in first:
        count = np.bincount(batch.numpy() * 10 // n, minlength=10)
        together += np.outer(count, count) - np.diag(count)
    expected = (n / 10) ** 2 * np.mean([len(b) for b in first]) / n
    assert abs(together / expected - 1).max() < 0.12


def test_item_neighbours_are_learnt_from_as_many_users_as_memory_allows(tmp_path, on_disk, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "recsys_embed")
    monkeypatch.setattr(hybrid, "sizes_in", lambda *given: Sizes(1000, 7, 5000))
    learnt, ridge = [], hybrid.LocalRidge
    monkeypatch.setattr(hybrid, "LocalRidge", lambda train, *how: (learnt.append(len(train)), ridge(train, *how))[1])
    model, train = small("sampled-softmax", epochs=1, batch_size=None, batch_users=16, model_family="neighbours")
    run = RunConfig(out=str(tmp_path / "m"), track=False, resamples=0)
    recommender, report = run_experiment(DataConfig(sorted_data(tmp_path / "data")), model, train, run)
    assert re.search(r"learnt from (9\d\d|1,[01]\d\d) ratings of 3\d users", caplog.text)
    assert report["settings"]["neighbours"] == 7 and all(900 < n < 1200 for n in learnt)
    assert np.bincount(recommender.model.neighbours.weights.target).max() <= 7
    assert len(recommender.model.histories.item) == len(recommender.state.seen)  # everybody's


def test_regressions_keep_to_their_memory():
    for limit in (10**9, 4 * 10**9, 10**11):
        for items in (1000, 500_000, 10**7):
            most = sizes_in(limit, items, 100)
            assert 1 <= most.neighbours <= 100
            assert most.neighbours == 1 or most.neighbours * items * 40 <= limit / 2
            if most.neighbours > 1 and most.entries > items:
                assert most.ratings * 60 + most.neighbours * items * 40 + most.entries * 8 <= limit


REFUSED = {
    "--model-family ease": "--model-family ease needs the ratings in memory",
    "--loss mse --method gibbs": "--method gibbs needs the ratings in memory",
    "--scorer mlp": "--scorer mlp needs the ratings in memory",
    "--loss bpr --sampler popularity": "--sampler popularity needs the ratings in memory",
    "--memory-limit 700MB --dim 65536": "and 700 MB may be taken: --dim 256 fits",
    "--memory-limit 1MB": "give it more (--memory-limit)",
    "--memory-limit much": "memory-limit must be a size",
    "--memory-limit 2GB --max-age 3d": "--max-age needs all rows in memory",
    "--memory-limit 2GB --target purchase": "an event log needs all rows in memory",
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_memory_alone_can_do_is_refused_before_the_work(tmp_path, on_disk, options):
    data = sorted_data(tmp_path / "data")
    done = recsys_here("train", data, "--no-track", "--out", "m", *options.split(), cwd=tmp_path, code=2)
    assert REFUSED[options] in " ".join(done.stderr.split())
    assert not (tmp_path / "m").exists()


def test_text_that_is_longer_than_memory_is_refused_with_what_it_needs(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(memory, "_BYTES_A_BYTE", 10**9)
    path = str(tmp_path / "ratings.csv")
    frame_of(50).write_csv(path)
    with pytest.raises(SettingError, match="only Parquet is read in parts"):
        load_dataset(path, DataConfig(memory_limit="2GB"))
    assert len(load_dataset(path, DataConfig()).ratings)  # a guess is no reason to refuse
    assert "only Parquet is read in parts" in caplog.text


def test_a_database_is_asked_for_what_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_BYTES_A_BYTE", 10**9)
    frame_of(50).write_database("r", f"sqlite:///{tmp_path}/shop.db", engine="sqlalchemy")
    config = DataConfig(memory_limit="2GB", query="SELECT * FROM r LIMIT 20")
    assert len(load_dataset(f"{tmp_path}/shop.db", config).ratings) <= 20


def test_files_without_a_column_of_the_first_or_broken_in_the_middle_are_named(tmp_path, on_disk):
    folder = tmp_path / "data"
    write(folder, frame_of())
    frame_of().drop("item_id").write_parquet(folder / "part-9.parquet")
    with pytest.raises(DataError, match=r"part-9.parquet has the columns user_id, rating, timestamp, but .*part-0"):
        load_dataset(str(folder), DataConfig())
    frame_of().with_columns(pl.format("u{}", "user_id").alias("user_id")).write_parquet(folder / "part-9.parquet")
    with pytest.raises(DataError, match=r"'user_id' holds numbers in .*part-\d.parquet, but text in .*part-9.parquet"):
        load_dataset(str(folder), DataConfig())
    (folder / "part-9.parquet").write_bytes(b"PAR1" + b"x" * 99)
    with pytest.raises(DataError, match=r"part-9.parquet is not a readable Parquet file"):
        load_dataset(str(folder), DataConfig())


def test_a_broken_row_is_named(tmp_path, on_disk):
    frame = frame_of().with_columns(pl.when(pl.arange(pl.len()) == 1234).then(None).otherwise("rating").alias("rating"))
    with pytest.raises(DataError, match="rating is missing in row 1235"):
        load_dataset(write(tmp_path / "data", frame), DataConfig())


def test_a_full_disk_is_an_error_that_says_where(tmp_path, monkeypatch):
    folder = Disk(tmp_path, 10**9, 10)

    class Full:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Disk, "file", lambda self: Full())
    with pytest.raises(DataError, match="No space left on device; TMPDIR names another"):
        Columns(folder).append({"user": np.arange(3)})


def test_nothing_that_a_block_changes_reaches_the_file(tmp_path):
    folder = Disk(tmp_path, 10**9, 10)
    stored = folder.stored(np.arange(6.0).reshape(3, 2))
    assert stored.tolist() == [[0, 1], [2, 3], [4, 5]] and folder.stored(np.zeros((0, 4))).shape == (0, 4)
    assert list(tmp_path.iterdir()) == []
