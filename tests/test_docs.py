"""The documentation is true: its code and commands run, its names exist, and the site builds."""

import contextlib
import importlib
import inspect
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from pages import (
    COMMANDS,
    DOCS,
    EVERY_OPTION,
    OLD,
    OPTION,
    PAGES,
    ROOT,
    SPAN,
    blocks,
    command_of,
    docstrings,
    has,
    known_classes,
    name_of,
    options_of,
    prose,
    read,
    resolves,
    shape,
    shell_lines,
    spans,
    transcripts,
)
from test_rooms import ROOMS

import recsys_embed

# Blocks that are not run, by page, with the reason that the comment before the block gives: <!-- not run: … -->.
NOT_RUN = {
    "tuning.md": ["it searches for five minutes"],
    "your-shop.md": ["it does not end", "it needs the service", "it does not end"],
}
# tests/test_tutorial.py runs these pages and compares what they print.
TUTORIALS = [DOCS / "tutorial.md", *DOCS.glob("tutorial-*.md")]
# Options of other programs that pages name.
FOREIGN = {
    "--batch",
    "--build-arg",
    "--help",
    "--dist",
    "--env-manager",
    "--find-links",
    "--index-url",
    "--logdir",
    "--max-restarts",
    "--nnodes",
    "--nproc-per-node",
    "--rdzv-backend",
    "--rdzv-endpoint",
    "--neighbors",
    "--no-index",
    "--only-binary",
    "--picture",
    "--platform",
    "--python-version",
    "--strict",
    "--wheel-dir",
    "--x",
    "--y",
}

# Python


@pytest.fixture(scope="module")
def stand_in():
    """Return a small data set with the users, films and columns of MovieLens that the pages use."""
    import numpy as np
    import polars as pl

    from recsys_embed import Ratings, load_dataset
    from recsys_embed.data.dataset import Dataset

    titles = {1: "Toy Story (1995)", 6: "Heat (1995)", 50: "Star Wars (1977)", 172: "The Empire Strikes Back (1980)"}
    titles |= {181: "Return of the Jedi (1983)", 200: "Titanic (1997)"}
    made = load_dataset("synthetic:users=80,items=240,ratings=5000")
    ratings, items = made.ratings.frame(), made.items
    assert items is not None and {42} < set(ratings["user_id"])
    ids = items["item_id"].to_list()
    assert set(titles) < set(ids)
    genres = ["Comedy|Drama", "Action|Sci-Fi", "Children's|Comedy", "Drama|Romance|War", "Horror"]
    items = items.with_columns(
        title=pl.Series([titles.get(id_, f"Film {id_} (19{60 + id_ % 40})") for id_ in ids]),
        year=pl.Series([1960 + id_ % 40 for id_ in ids]),
        genres=pl.Series([genres[id_ % len(genres)] for id_ in ids]),
    )
    rows = np.random.default_rng(0).permutation(ratings.height)
    return Dataset(Ratings.from_frame(ratings[rows]), items)


@contextlib.contextmanager
def inside(folder, stand_in, monkeypatch):
    """Work in a folder, with the stand-in as every data set."""
    monkeypatch.setattr("recsys_embed.experiment.prepare.load_dataset", lambda *_, **__: stand_in)
    monkeypatch.setattr("recsys_embed.sources.load.load_dataset", lambda *_, **__: stand_in)
    with contextlib.chdir(folder):
        yield


def run_blocks(found, names):
    for where, block in found:
        exec(compile("\n" * block.line + block.code, where, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_python_block_compiles(page):
    for block in blocks(read(page), "python"):
        compile("\n" * block.line + block.code, str(page), "exec")


@pytest.mark.parametrize("page", [p for p in PAGES if p not in TUTORIALS and blocks(read(p), "python")], ids=name_of)
def test_every_python_block_runs(page, tmp_path, stand_in, monkeypatch, capsys):
    found = [(str(page), block) for block in blocks(read(page), "python") if block.reason is None]
    with inside(tmp_path, stand_in, monkeypatch):
        run_blocks(found, {"__name__": "page"})


def test_every_block_in_a_docstring_runs(tmp_path, stand_in, monkeypatch, capsys):
    import doctest

    for where, text in docstrings():
        found = [(where, block) for block in blocks(text, "python") if block.reason is None]
        with inside(tmp_path, stand_in, monkeypatch):
            run_blocks(found, {"__name__": "docstring"})
            examples = doctest.DocTestParser().get_doctest(text, {}, where, where, 0)
            assert not doctest.DocTestRunner().run(examples).failed, where


def test_blocks_that_are_not_run_are_few_and_known():
    found = {page.name: [b.reason for b in blocks(read(page)) if b.reason] for page in PAGES}
    assert {name: reasons for name, reasons in found.items() if reasons} == NOT_RUN
    marks = sum(read(page).count("<!-- not run") for page in PAGES)
    assert marks == sum(map(len, NOT_RUN.values())), "a mark does not stand directly before its block"


# Commands


@pytest.mark.parametrize("call", shell_lines())
def test_every_command_line_is_understood(call):
    _, command, rest = command_of(call)
    if not hasattr(command, "commands") and "…" not in rest:
        command.make_context("recsys", rest)


def test_every_command_in_the_text_exists():
    for where, text in spans():
        if re.match(r"recsys [a-z]", text):
            words = text.replace("…", "").replace("'", "").split()[1:]
            first = [words[0].split("|")[0], *(word.split("|")[0] for word in words[1:])]
            _, command, rest = command_of(first)
            unknown = {word for word in OPTION.findall(" ".join(rest))} - options_of(command)
            assert not unknown, f"{where}: {text}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_option_in_a_page_exists(page):
    """Pages use current names only; the glossary of the site lists the old ones by itself."""
    text = prose(page) + "".join(block.code for block in blocks(read(page), "", "sh") if "recsys" in block.code)
    found = set(OPTION.findall(text))
    assert found <= EVERY_OPTION | FOREIGN
    assert not found & OLD


# Commands that answer at once if there is a model.
QUICK = ("recommend", "similar", "predict", "explain", "search", "presets", "models", "data list")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, stand_in):
    """A folder with a model in models/, as `recsys train` leaves one."""
    from recsys_embed import ModelConfig, Recommender, TrainConfig

    folder = tmp_path_factory.mktemp("workplace")
    model = Recommender(ModelConfig(dim=8), TrainConfig(epochs=2)).fit(stand_in.ratings, stand_in.items)
    model.save(folder / "models" / "stand-in")
    return folder


def is_quick(call):
    placeholders = any(re.fullmatch(r"[A-Z]{2,}|models:/.*", word) for word in call)
    return command_of(call)[0] in QUICK and not placeholders


@pytest.mark.parametrize("call", [p for p in shell_lines() if is_quick(p.values[0])])
def test_quick_commands_of_the_pages_run(call, workplace, capsys):
    from recsys_embed.cli.main import app

    with contextlib.chdir(workplace):
        app(call, standalone_mode=False)
    assert capsys.readouterr().out.strip()


@pytest.mark.data
def test_pages_show_what_commands_print(tmp_path):
    from recsys_embed.sources.download import data_dir

    environment = os.environ | {"RECSYS_DATA": str(data_dir().resolve())}
    shown = list(transcripts())
    for call in [["train", "--dataset", "movielens"], *(call for _, call, _ in shown)]:
        if call[0] == "train" and (tmp_path / "models").exists():
            continue  # the same training again
        command = [sys.executable, "-m", "recsys_embed", *call]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        printed = {shape(line) for line in (done.stdout + done.stderr).splitlines()}
        for page, _, lines in [entry for entry in shown if entry[1] == call]:
            for line in lines:
                # Rows of a list name items, which may be others on another machine.
                assert shape(line) in printed or re.match(r"\d", line), f"{page} shows\n{line}\nof\n{done.stdout}"


def test_extras_that_pages_install_exist():
    extras = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    for page in PAGES:
        for named in re.findall(r"pip install '(?:recsys-embed|\.)\[([\w,]+)\]'", read(page)):
            assert set(named.split(",")) <= set(extras), page.name


# Names


def test_every_name_in_the_pages_exists():
    classes = known_classes()
    for where, text in spans():
        path = text.removeprefix("recsys_embed.").partition("(")[0]
        if re.fullmatch(r"[a-z_0-9./]+\.(?:py|toml)", text):
            assert (ROOT / "recsys_embed" / text).exists() or (ROOT / text).exists(), f"{where}: {text}"
        elif not re.fullmatch(r"\w+(?:\.\w+)+", path) or path in PAST or Path(path).suffix in FILES:
            continue
        elif path.split(".")[0] in ROOMS:
            assert resolves(path), f"{where}: {text}"
        elif path.split(".")[0] in classes:
            first, *rest = path.split(".")
            kind = classes[first]
            if isinstance(kind, str):
                module, _, name = kind.partition(":")
                kind = getattr(importlib.import_module(module), name)
            assert has(kind, rest), f"{where}: {text}"


# Suffixes of files whose name may begin like a room: words.parquet.
FILES = {".csv", ".db", ".html", ".json", ".md", ".npy", ".npz", ".parquet", ".png", ".toml", ".txt"}
# Names of version 0.1, which the glossary translates.
PAST = {"Recommender.plain", "Recommender.held", "Recommender.facts", "Recommender.words_near"}


# Words in code style that are not in the package: metrics with k for the length, an example, another library.
OTHERS = {f"{name}_at_k" for name in ("ndcg", "recall", "precision", "map", "mrr", "hit")} | {"a_b_2", "cProfile"}


def test_every_word_in_code_is_in_the_package():
    """This covers fields of JSON and of files too: rename them in the pages as well."""
    sources = [path for path in (ROOT / "recsys_embed").rglob("*") if path.suffix in (".py", ".toml", ".js", ".html")]
    known = {word for path in sources for word in re.findall(r"\w+", read(path))} | OTHERS
    known |= set(tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"])
    past = {text for row in read(DOCS / "glossary.md").splitlines() for text in SPAN.findall(row.partition(" | ")[0])}
    for where, text in spans():
        if re.fullmatch(r"[A-Za-z_]\w*", text) and not (where == "glossary.md" and text in past):
            assert text in known, f"{where}: {text}"


def test_the_table_of_rooms_is_that_of_the_imports():
    page = read(DOCS / "architecture.md")
    table = page.partition("| room |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == ROOMS


# The site


@pytest.fixture(scope="module")
def theme():
    """Return a function that imports a module of docs/theme, as MkDocs does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS / "theme"))
        yield lambda name: importlib.import_module(name)
        for name in ("hooks", "reference", "docstrings"):
            sys.modules.pop(name, None)


class _Site(yaml.SafeLoader):
    """Read mkdocs.yml, and ignore its tags that name Python functions."""


_Site.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def nav_pages(nav):
    for entry in nav:
        for value in entry.values():
            yield from nav_pages(value) if isinstance(value, list) else [value]


def test_the_navigation_has_every_page(theme):
    site = yaml.load(read(ROOT / "mkdocs.yml"), _Site)
    listed = list(nav_pages(site["nav"]))
    assert len(listed) == len(set(listed))
    assert {page.name for page in DOCS.glob("*.md")} == {name for name in listed if (DOCS / name).exists()}
    for name in set(listed) - {page.name for page in DOCS.glob("*.md")}:
        assert name.startswith("reference/") or name in theme("hooks").COPIED, name


def every_setting():
    from recsys_embed.config import answers, settings
    from recsys_embed.config.fields import options

    names = vars(settings) | vars(answers)
    kinds = [k for k in names.values() if inspect.isclass(k) and hasattr(k, "__dataclass_fields__")]
    return {field.name for kind in kinds for field, _, _ in options(kind)}


def every_shown_option():
    kinds = [p for c in COMMANDS.values() for p in c.params if not p.name.startswith("old_")]
    return {name for p in kinds for name in (*p.opts, *p.secondary_opts) if name.startswith("-")} - {"--help-all"}


def test_the_reference_has_every_option_setting_and_name(theme):
    reference = theme("reference")
    commands, settings, names = reference.commands_page(), reference.settings_page(), reference.python_index()
    assert all(f"`{option}`" in commands for option in every_shown_option())
    assert all(f"## recsys {name} {{" in commands for name in COMMANDS if name)
    assert all(f"`{name}`" in settings for name in every_setting())
    assert all(f"`{name}`" in names for name in recsys_embed.__all__ if name != "__version__")


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_reads_offline(tmp_path):
    built = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(built)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(built).as_posix(): read(path) for path in built.rglob("*.html")}
    for path, text in pages.items():
        assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?(?:https?:)?//[^ >]*", text), path
    assert (built / "search" / "search_index.js").exists()
    commands, settings = pages["reference/commands.html"], pages["reference/settings.html"]
    assert all(f"<code>{option}</code>" in commands for option in every_shown_option())
    assert all(f"<code>{name}</code>" in settings for name in every_setting())
    python = "".join(text for path, text in pages.items() if path.startswith("reference/python/"))
    for name, home in recsys_embed._HOMES.items():
        assert f'id="recsys_embed.{home}.{name}"' in python, name
