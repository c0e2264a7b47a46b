"""How kernels are kept and shared among threads."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from recsys_embed.kernels import compiled

KERNELS = Path(compiled.__file__).parents[1]


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr(compiled, "num_threads", lambda: 2)


def fill(start, stop, out):
    out[start:stop] += 1


def test_every_row_is_worked_on_once(monkeypatch):
    for threads in (1, 2, 5):
        monkeypatch.setattr(compiled, "num_threads", lambda threads=threads: threads)
        for rows in (0, 1, 3, 11):
            out = np.zeros(rows, int)
            compiled.parallel_for(rows, fill, out, min_rows=1)
            assert (out == 1).all()


def test_what_a_part_raises_is_raised(two_threads):
    def fail(start, stop):
        if start:
            raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        compiled.parallel_for(8, fail, min_rows=1)


def test_an_interrupt_waits_for_the_others(two_threads):
    ended, started = [], threading.Event()

    def work(start, stop):
        if start:
            started.set()
            time.sleep(0.2)
            ended.append(start)
        else:
            started.wait()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compiled.parallel_for(8, work, min_rows=1)
    assert ended


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_threads_of_its_own():
    code = """
import os, numpy as np
from recsys_embed.kernels import compiled
compiled.num_threads = lambda: 2
def fill(start, stop, out):
    out[start:stop] += 1
def whole():
    out = np.zeros(8, int)
    compiled.parallel_for(8, fill, out, min_rows=1)
    return (out == 1).all()
assert whole()
child = os.fork()
if not child:
    os._exit(0 if whole() else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_change_of_a_part_changes_the_kernels_of_other_files(tmp_path):
    """Numba's cache looks at the date of a function's own file alone, and its parts may stand elsewhere."""
    kernels = tmp_path / "recsys_embed" / "kernels"
    kernels.mkdir(parents=True)
    (kernels.parent / "__init__.py").touch()
    for name in ("__init__.py", "compiled.py"):
        shutil.copy(KERNELS / "kernels" / name, kernels)
    part = "from recsys_embed.kernels.compiled import inlined\n@inlined\ndef step(x):\n    return x + {}\n"
    (kernels / "whole.py").write_text(
        "from recsys_embed.kernels.compiled import compiled\nfrom recsys_embed.kernels.part import step\n"
        "@compiled('i8(i8)')\ndef whole(x):\n    return step(x)\n"
    )
    found = []
    for change in (1, 1, 2):
        (kernels / "part.py").write_text(part.format(change))
        code = "from recsys_embed.kernels.whole import whole; print(whole(40), sum(whole.stats.cache_hits.values()))"
        command = [sys.executable, "-c", code]
        found.append(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split())
    assert found == [["41", "0"], ["41", "1"], ["42", "0"]]  # the second time it was read from the cache
