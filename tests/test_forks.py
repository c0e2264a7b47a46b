"""Processes that are forked off a parent with a model: a question is answered, or refused in one sentence."""

import os
import sys
import time

import polars as pl
import pytest

from recsys_embed.config.answers import Rules
from recsys_embed.errors import ForkedProcess
from recsys_embed.recommender import Recommender
from recsys_embed.sources.load import load_dataset

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there processes are forked by default")

RATINGS = load_dataset("synthetic:users=9,items=9,ratings=20").ratings
ANSWERED = {
    "recommend": lambda r, u, i: r.recommend(u),
    "a new user": lambda r, u, i: r.recommend_for([i]),
    "similar": lambda r, u, i: r.similar(i),
    "predict": lambda r, u, i: r.predict(u, i),
    "exclude": lambda r, u, i: r.recommend(u, exclude=[i]),
    "diversity": lambda r, u, i: r.recommend(u, rules=Rules(diversity=0.3)),
}
REFUSED = {
    "where": lambda r, u, i: r.recommend(u, rules=Rules(where="ratings > 1")),
    "boost": lambda r, u, i: r.recommend(u, rules=Rules(boost="ratings > 1: 2")),
    "per_group": lambda r, u, i: r.recommend(u, rules=Rules(per_group="ratings: 1")),
    "explain": lambda r, u, i: r.explain(u, i),
    "update": lambda r, u, i: r.update(pl.DataFrame({"user_id": [u], "item_id": [i]})),
    "load": lambda r, u, i: Recommender.load("nowhere"),
    "save": lambda r, u, i: r.save("nowhere"),
    "audience": lambda r, u, i: r.audience(i),
    "a title": lambda r, u, i: r.find_item("a title"),
    "train": lambda r, u, i: Recommender().fit(RATINGS),
    "data": lambda r, u, i: load_dataset("synthetic:users=9,items=9,ratings=20"),
    "lists": lambda r, u, i: r.write_recommendations("lists.csv", [u]),
}


def in_a_fork(work):
    """Do some work in a forked process; return 0 if it answered, 1 if it was refused, 2 for another error, or None if
    it waits."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except ForkedProcess as error:
            os._exit(1 if "spawn" in str(error) else 2)
        except BaseException:
            os._exit(2)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return None


@pytest.fixture
def parent(model):
    """A model whose process has used polars' threads."""
    recommender, _ = model
    pl.DataFrame({"a": list(range(1000))}).sort("a", descending=True)
    user, item = recommender.users.ids([0])[0], recommender.items.ids([0])[0]
    recommender.recommend(user)
    return recommender, user, item


@pytest.mark.parametrize("name", ANSWERED)
def test_a_question_is_answered(parent, name):
    assert in_a_fork(lambda: ANSWERED[name](*parent)) == 0


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_wait_for_ever_is_refused(parent, name):
    assert in_a_fork(lambda: REFUSED[name](*parent)) == 1


def test_the_parent_goes_on_and_a_fork_of_a_fork_is_refused_too(parent):
    recommender, user, _ = parent
    assert in_a_fork(lambda: os._exit(in_a_fork(lambda: REFUSED["where"](*parent)))) == 1
    assert recommender.recommend(user, rules=Rules(where="ratings >= 0")).height


def test_a_process_that_is_spawned_does_everything(tmp_path):
    """As is one that was forked off before polars had threads."""
    import subprocess

    code = (
        "import os, recsys_embed.forks as f\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    import polars as pl\n"
        "    ok = not f._Fork.lost_threads and pl.DataFrame({'a': [2, 1]}).sort('a')['a'][0] == 1\n"
        "    os._exit(0 if ok else 3)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
