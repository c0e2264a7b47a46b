"""Hooks of MkDocs: add the pages that are written from the package, and make links work that leave docs/."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# Pages and pictures from outside docs/ that are part of the site: path in the site -> path in the repository.
COPIED = {
    "results.md": "experiments/RESULTS.md",
    "log.md": "experiments/LOG.md",
    **{f"experiments/{path.name}": f"experiments/{path.name}" for path in (ROOT / "experiments").glob("*.png")},
}
_IN_THE_SITE = {source: path for path, source in COPIED.items()}
# A page may have this line where a table is written from the package.
_RENAMED = "<!-- generated: renamed options -->"
_LINK = re.compile(r"(?P<start>!?\[(?P<label>(?:[^\[\]]|\[[^\]]*\])*)\])\((?P<target>[^)\s]+)\)")
_CODE = re.compile(r"(^```.*?^```[^\S\n]*$|(?<!\[)`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of the Python reference into the navigation."""
    config.nav = _filled(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are written from the package, and those that are copied."""
    for path, text in reference.pages().items():
        files.append(File.generated(config, path, content=text))
    for path, source in COPIED.items():
        files.append(File.generated(config, path, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in tables, and turn links to the repository into links within the site, or into the path as code."""
    markdown = markdown.replace(_RENAMED, reference.renamed_options())
    path = page.file.src_uri
    return _outside_code(markdown, lambda text: _LINK.sub(lambda link: _moved(link, path), text))


def _filled(nav: Any) -> Any:
    """Return the navigation with the pages of the Python reference where mkdocs.yml names their folder."""
    if isinstance(nav, list):
        return [_filled(entry) for entry in nav]
    if not isinstance(nav, dict):
        return nav
    pages = [{title: path} for title, path in reference.python_nav().items()]
    return {name: pages if value == reference.PYTHON else _filled(value) for name, value in nav.items()}


def _outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """Change everything but fenced blocks and `code`; `code` that is the label of a link is part of the link."""
    return "".join(part if at % 2 else change(part) for at, part in enumerate(_CODE.split(markdown)))


def _moved(link: re.Match[str], page: str) -> str:
    """Return a link of a page as it has to be in the site."""
    target, _, anchor = link["target"].partition("#")
    if not target or "://" in target or target.startswith("mailto:") or page.startswith("reference/"):
        return link[0]
    folder = posixpath.dirname(COPIED.get(page, f"docs/{page}"))  # where the page is in the repository
    path = posixpath.normpath(posixpath.join(folder, target))
    inside = _IN_THE_SITE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    if inside is None:
        return f"`{path}`" if path.endswith(link["label"].strip("`")) else f"{link['label']} (`{path}`)"
    relative = posixpath.relpath(inside, posixpath.dirname(page) or ".")
    return f"{link['start']}({relative}{'#' + anchor if anchor else ''})"
