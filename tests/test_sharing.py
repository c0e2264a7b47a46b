"""Several processes fill a folder: it ends as one process would leave it, whoever is killed, and says so."""

import json
import os
import re
import socket
import subprocess
import sys
import threading

import polars as pl
import pytest
from worlds import recsys_here, small

from recsys_embed.errors import SettingError
from recsys_embed.recommender import Recommender
from recsys_embed.sources.load import load_dataset
from recsys_embed.storage import part_folder
from recsys_embed.storage.part_folder import PartFolder

TOTAL, PER_PART = 10, 3
REQUEST = {"kind": "lists", "k": 3}


class Killed(BaseException):
    """Stands for whatever ends a process."""


class Thread(threading.Thread):
    """A process of a team, as a thread: the barrier breaks for all when one ends."""

    def __init__(self, rank, barrier, folder, dies_at, request=REQUEST):
        super().__init__()
        self.rank, self.size, self.barrier, self.folder, self.dies_at = rank, barrier.parties, barrier, folder, dies_at
        self.request, self.error, self.facts, self.reports = request, None, None, []

    def start_others(self):
        """See `Team.start`: threads are there already."""

    def meet(self):
        self.barrier.wait()

    def write(self, append, start, end, tick):
        if self.dies_at is not None and start >= self.dies_at:
            raise Killed
        append(pl.DataFrame({"n": list(range(start, end))}))
        tick(end - start)
        return {"rows": end - start, "lists": end - start, "without_list": []}

    def run(self):
        try:
            folder = PartFolder.open(self.folder, self.request, ".parquet", team=Member(self))
            folder.fill(TOTAL, PER_PART, self.write, lambda *at: self.reports.append(at))
            self.facts = folder.facts
        except BaseException as error:
            self.error = error
            self.barrier.abort()


class Member:
    """What a folder sees of a thread."""

    def __init__(self, thread):
        self.rank, self.size, self.start, self.meet = thread.rank, thread.size, thread.start_others, thread.meet


def together(folder, size, dies_at=None, who=1, **other):
    barrier = threading.Barrier(size)
    requests = [other.get(f"request{rank}", REQUEST) for rank in range(size)]
    threads = [Thread(n, barrier, folder, dies_at if n == who else None, requests[n]) for n in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return threads


def content(folder):
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    manifest = json.loads(files.pop("_manifest.json"))
    del manifest["started"]
    return files, manifest


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "out"
    (one,) = together(folder, 1)
    assert one.error is None and one.reports[-1] == (TOTAL, TOTAL)
    return content(folder)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_a_team_leaves_what_one_process_leaves(tmp_path, whole, size):
    threads = together(tmp_path / "out", size)
    assert content(tmp_path / "out") == whole and whole[1]["done"]
    assert all(thread.facts == threads[0].facts for thread in threads)
    assert threads[0].reports[-1] == (TOTAL, TOTAL) and threads[0].reports == sorted(threads[0].reports)


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("again", [1, 2, 3])
@pytest.mark.parametrize("dies_at", [0, 6])
def test_others_go_on_with_what_a_lost_team_has_left(tmp_path, whole, who, again, dies_at):
    threads = together(tmp_path / "out", 2, dies_at, who)
    assert isinstance(threads[who].error, Killed) and isinstance(threads[1 - who].error, threading.BrokenBarrierError)
    complete = {file.name for file in (tmp_path / "out").glob("part-*")}
    before = {name: (tmp_path / "out" / name).stat().st_ino for name in complete}
    assert not json.loads((tmp_path / "out" / "_manifest.json").read_text())["done"]
    assert all(thread.error is None for thread in together(tmp_path / "out", again))
    assert content(tmp_path / "out") == whole
    assert {name: (tmp_path / "out" / name).stat().st_ino for name in complete} == before  # not written again


def test_a_part_without_its_note_is_written_again(tmp_path, whole):
    out = tmp_path / "out"
    together(out, 2, 9)
    notes = sorted(file.name for file in out.glob("_part-*"))
    assert notes == ["_part-00001.parquet.json"]
    (out / notes[0]).write_text('{"rows": ')
    together(out, 1)
    assert content(out) == whole


def test_anew_takes_no_part_of_the_old_lists(tmp_path, whole):
    out = tmp_path / "out"
    together(out, 2, 9, request0={**REQUEST, "k": 4}, request1={**REQUEST, "k": 4})
    assert list(out.glob("_part-*"))
    for file in out.glob("part-*"):
        file.write_bytes(b"of before")
    PartFolder.open(out, REQUEST, ".parquet", overwrite=True)
    assert [file.name for file in out.iterdir()] == ["_manifest.json"]
    together(out, 2)
    assert content(out) == whole


def test_processes_with_other_lists_or_another_disk_are_refused(tmp_path):
    error = together(tmp_path / "out", 2, request1={**REQUEST, "k": 4})[1].error
    assert isinstance(error, SettingError) and "process 1 would write other lists: k is 4, there 3" in str(error)
    barrier = threading.Barrier(2)
    threads = [Thread(rank, barrier, tmp_path / str(rank), None) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert "must be on a disk that they share" in str(threads[1].error)


def test_a_part_that_never_appears_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(part_folder, "_SEEN_AFTER", 0)
    monkeypatch.setattr(part_folder, "_NOTE", re.compile("never"))
    error = together(tmp_path / "out", 2)[0].error
    assert "do not appear" in str(error) and not json.loads((tmp_path / "out" / "_manifest.json").read_text())["done"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    dataset = load_dataset("synthetic:users=50,items=30,ratings=600")
    model = Recommender(*small("softmax", items=30, epochs=1)).fit(dataset.ratings, dataset.items)
    folder = model.save(tmp_path_factory.mktemp("model") / "m")
    model.write_recommendations(f"{folder.parent}/whole/", k=3, per_part=7)
    return folder


RANK = """
import os, signal, sys
from recsys_embed import Recommender
from recsys_embed.storage import part_folder

model, out, dies = sys.argv[1:]
write_json, calls = part_folder._write_json, []

def write(path, value):
    calls.append(path)
    if dies == os.environ["RANK"] and len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    write_json(path, value)

part_folder._write_json = write
Recommender.load(model).write_recommendations(out + "/", k=3, per_part=7)
"""


def ranks(model, out, dies):
    """Two processes as torchrun starts them; return how each ends, and what it says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    program = [sys.executable, "-c", RANK, str(model), str(out), dies]
    started = [
        subprocess.Popen(program, env={**os.environ, **places, "RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    errors = [process.communicate(timeout=120)[1] for process in started]
    return [process.returncode for process in started], errors


@pytest.mark.slow
@pytest.mark.parametrize("dies", ["0", "1"])
def test_a_process_that_is_killed_ends_the_others_and_the_same_call_goes_on(model, tmp_path, dies):
    codes, errors = ranks(model, tmp_path / "out", dies)
    assert codes == ([-9, 1] if dies == "0" else [1, -9])
    if dies == "1":
        assert "another process ended" in errors[0] and "the same command goes on" in errors[0]
    assert not json.loads((tmp_path / "out" / "_manifest.json").read_text())["done"]
    Recommender.load(model).write_recommendations(f"{tmp_path}/out/", k=3, per_part=7)
    assert content(tmp_path / "out") == content(model.parent / "whole")


def test_the_command_line_shares_a_folder_among_processes(model, tmp_path):
    command = ["recommend", "--all-users", "--model", model, "--k", "3", "--per-part", "7", "--nproc", "2", "--out"]
    program = [sys.executable, "-m", "recsys_embed", *map(str, command), f"{tmp_path}/out/"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.count("in 8 parts") == 1, done.stderr
    assert content(tmp_path / "out") == content(model.parent / "whole")
    for out, message in {"lists.csv": "share a folder of parts", None: "is for a folder of parts"}.items():
        options = ["--out", out] if out else []
        who = ["--all-users"] if out else ["--user", "1"]
        refused = recsys_here("recommend", *who, *options, "--model", str(model), "--nproc", "2", cwd=tmp_path, code=2)
        assert message in refused.stderr and not (tmp_path / "lists.csv").exists()
