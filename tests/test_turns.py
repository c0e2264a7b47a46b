import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from recsys_embed.serving import turns
from recsys_embed.serving.turns import Turns, grouped


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture(autouse=True)
def one_list_at_a_turn(monkeypatch):
    monkeypatch.setattr(turns, "_TURN_S", 0)


def batch(done, name, n, at_each=lambda: None):
    """n works of a batch, each of which notes that it was done."""

    def work(i):
        at_each()
        done.append(name)
        return f"{name}{i}".encode()

    return [lambda i=i: work(i) for i in range(n)]


def test_the_batch_with_the_fewest_lists_left_goes_first_and_one_thread_works(threads):
    done, at_work, most = [], [], []

    def at_each():
        at_work.append(threading.get_ident())
        most.append(len(at_work))
        at_work.pop()

    async def run():
        turned = Turns(threads)
        return await asyncio.gather(
            *(turned.run(batch(done, *each, at_each)) for each in (("a", 5), ("b", 2), ("c", 3)))
        )

    results = asyncio.run(run())
    assert results == [[f"{name}{i}".encode() for i in range(n)] for name, n in (("a", 5), ("b", 2), ("c", 3))]
    assert "".join(done) == "a" + "bb" + "ccc" + "aaaa"  # a was there first, and waits from its second turn on
    assert set(most) == {1}


@pytest.mark.parametrize("waits", [False, True], ids=["in its turn", "while it waits"])
def test_a_cancelled_batch_passes_its_turn_on(threads, waits):
    done, started, go = [], threading.Event(), threading.Event()

    def wait():
        started.set()
        go.wait()

    async def run():
        turned = Turns(threads)
        first = asyncio.create_task(turned.run(batch(done, "a", 3, wait)))
        second = asyncio.create_task(turned.run(batch(done, "b", 2)))
        third = asyncio.create_task(turned.run(batch(done, "c", 2)))
        await asyncio.to_thread(started.wait)  # what has not begun would not be done at all
        cancelled = second if waits else first
        cancelled.cancel()
        go.set()
        answers = await asyncio.gather(first, second, third, return_exceptions=True)
        return answers, await turned.run(batch(done, "d", 1))

    answers, after = asyncio.run(run())
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [not waits, waits, False]
    assert after == [b"d0"]
    assert done.count("a") == (3 if waits else 1) and done.count("b") == (0 if waits else 2) and done.count("c") == 2


def test_a_batch_that_fails_passes_its_turn_on(threads):
    async def run():
        turned = Turns(threads)
        works = [lambda: b"1", lambda: 1 / 0, lambda: b"2"]
        return await asyncio.gather(turned.run(works), turned.run([lambda: b"3"]), return_exceptions=True)

    failed, other = asyncio.run(run())
    assert isinstance(failed, ZeroDivisionError) and other == [b"3"]


@pytest.mark.parametrize("sizes", [[1], [1, 2, 3], [70_000, 70_000, 5, 200_000, 1], [131_072]])
def test_what_is_sent_is_the_chunks_in_groups_that_are_not_long(sizes):
    chunks = [bytes([65 + i]) * size for i, size in enumerate(sizes)]

    async def collect():
        return [group async for group in grouped(chunks)]

    found = asyncio.run(collect())
    assert b"".join(found) == b"".join(chunks)
    assert max(map(len, found)) < turns._GROUP_BYTES + max(sizes)
