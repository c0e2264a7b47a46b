"""The tutorial does what it says, and no page of the documentation points at nothing."""

import re
from pathlib import Path

import pytest
from tutorial import ROOT, TUTORIAL, TUTORIALS, alike, blocks, pictures, run

TEXTS = {path: path.read_text(encoding="utf-8") for path in TUTORIALS}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MOST = 300_000  # bytes of a picture


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_every_block_of_a_page_is_found(path):
    page = TEXTS[path]
    found = blocks(page)
    assert len(found) == page.count("```python") >= 3
    assert sum(bool(block.text) for block in found) == page.count("```text")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_points_at_a_file(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text))
    for link in links:
        if not link.startswith(("https://", "http://", "#", "mailto:")):
            path = page.parent / link.partition("#")[0]
            assert path.exists(), f"{page.name} points at {link}"
            assert path.suffix not in (".png", ".jpg", ".svg") or path.stat().st_size < MOST


def test_every_picture_is_shown():
    shown = {name for page in PAGES for name in re.findall(r"pictures/([\w.-]+)", page.read_text(encoding="utf-8"))}
    assert {path.name for path in (ROOT / "docs" / "pictures").iterdir()} == shown


@pytest.mark.parametrize(
    ("said", "printed", "same"),
    [
        ("loss 0.512 of 943", "loss  0.5301 of 943", True),
        ("loss 0.512 of 943", "loss 0.612 of 943", False),
        ("loss 0.512 of 943", "loss 0.512 of 944", False),
        ("a 0.010\nb -0.010", "a -0.005\nb 0.005", True),
        ("nearest: queen 0.88", "nearest: prince 0.88", False),
        ("0.5 0.5", "0.5", False),
        ("Alien (1979)", "Alien (1978)", False),
    ],
)
def test_outputs_are_compared(said, printed, same):
    assert alike(said, printed) == same


def _page(path):
    return pytest.param(path, id=path.stem, marks=[pytest.mark.data] if path == TUTORIAL else [])


@pytest.mark.parametrize("path", map(_page, TUTORIALS))
def test_the_tutorial_prints_what_it_says(path, tmp_path):
    for block, printed in run(TEXTS[path], tmp_path):
        where = f"{path.name}, line {block.line}"
        if block.free:
            assert printed.count("\n") == block.text.count("\n"), f"{where} prints\n{printed}"
        else:
            assert alike(block.text, printed), f"{where} says\n{block.text}\nand prints\n{printed}"
    for name in pictures(TEXTS[path]):
        (drawn,) = Path(tmp_path).rglob(name)
        assert drawn.stat().st_size > 1000
