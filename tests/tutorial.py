"""The tutorial, run: its code blocks in order, what they print beside what the page says, and its pictures.

    python tests/tutorial.py [docs/tutorial-words.md …]

runs the pages (default: all), writes what was printed into their text blocks, and their pictures, shrunk, into
docs/pictures/.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs" / "tutorial.md"  # needs real data
TUTORIALS = [TUTORIAL, *sorted((ROOT / "docs").glob("tutorial-*.md"))]
PICTURES = ROOT / "docs" / "pictures"
WIDEST = 1320  # pixels of a picture

_BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n?(?P<free><!-- may differ -->\n)?```text\n(?P<text>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
_NUMBER = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?")
_LAYOUT = re.compile(r"[\s\u2500-\u257f]+|-{3,}")  # blanks and lines of tables, which are as long as the numbers want


class Block(NamedTuple):
    """One block of code. text: what the page says that it prints; free: whether that may differ; line: where."""

    code: str
    text: str
    free: bool
    line: int
    span: tuple[int, int]


def blocks(page: str) -> list[Block]:
    """Return the python blocks of a page, in order."""
    return [
        Block(m["code"], m["text"] or "", bool(m["free"]), page.count("\n", 0, m.start()) + 1, m.span("text"))
        for m in _BLOCK.finditer(page)
    ]


def run(page: str, folder: Path) -> Iterator[tuple[Block, str]]:
    """Execute the blocks of a page in one namespace and in a folder; yield each with what it printed."""
    import polars as pl
    from matplotlib import pyplot as plt

    from recsys_embed.sources.download import data_dir

    names: dict[str, object] = {"__name__": "tutorial"}
    environment = {"RECSYS_DATA": str(data_dir().resolve())}
    kept = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        with pl.Config(), contextlib.chdir(folder):
            for block in blocks(page):
                printed = io.StringIO()
                # Blank lines before the code make the lines of a traceback those of the page.
                code = compile("\n" * block.line + block.code, "tutorial", "exec")
                with contextlib.redirect_stdout(printed):
                    exec(code, names)
                yield block, "".join(f"{line.rstrip()}\n" for line in printed.getvalue().splitlines())
    finally:
        plt.close("all")
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def alike(said: str, printed: str) -> bool:
    """Say whether two outputs agree: the same text, and fractions within 10 % or .02 of each other.

    Whole numbers are text: years, ids and counts do not depend on the machine.
    """
    words = [_LAYOUT.sub(" ", _NUMBER.sub(" # ", text)).strip() for text in (said, printed)]
    numbers = [[float(n) for n in _NUMBER.findall(text)] for text in (said, printed)]
    return words[0] == words[1] and all(abs(a - b) <= max(0.02, 0.1 * abs(a)) for a, b in zip(*numbers, strict=True))


def pictures(page: str) -> list[str]:
    """Return the names of the pictures that a page shows from docs/pictures/."""
    return re.findall(r"!\[[^\]]*\]\(pictures/([^)]+)\)", page)


def write(path: Path) -> None:
    """Run a page, and write what it printed and drew."""
    from PIL import Image

    page = path.read_text(encoding="utf-8")
    parts, at = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for block, printed in run(page, Path(folder)):
            start, end = block.span
            if start < 0:
                assert not printed, f"{path}:{block.line}: this block prints, and no text block follows it:\n{printed}"
                continue
            parts += [page[at:start], printed]
            at = end
        PICTURES.mkdir(exist_ok=True)
        for name in pictures(page):
            (drawn,) = Path(folder).rglob(name)
            with Image.open(drawn) as picture:
                picture.thumbnail((WIDEST, 10 * WIDEST))
                picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(PICTURES / name, optimize=True)
            print(f"{PICTURES / name}: {(PICTURES / name).stat().st_size / 1000:.0f} KB")
    path.write_text("".join(parts) + page[at:], encoding="utf-8")


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:] or TUTORIALS):
        write(path)
