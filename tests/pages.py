"""Read the pages of the documentation: code blocks, command lines, transcripts, and names."""

import ast
import contextlib
import importlib
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

import recsys_embed

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^>]*?) -->\n)?^```(?P<kind>[\w-]*)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")


class Block(NamedTuple):
    """A fenced block: its language, its text, its first line, and the reason why it is not run, or None."""

    kind: str
    code: str
    line: int
    reason: str | None


def blocks(text, *kinds):
    found = [
        Block(m["kind"], m["code"], text.count("\n", 0, m.start("code")) + 1, m["reason"])
        for m in _BLOCK.finditer(text)
    ]
    return [block for block in found if block.kind in kinds] if kinds else found


def read(page):
    return page.read_text(encoding="utf-8")


def prose(page):
    """Return the text of a page without its blocks."""
    return _BLOCK.sub("", read(page))


def name_of(value):
    return value.name if isinstance(value, Path) else str(value)


def docstrings():
    """Yield (where, docstring) of every module, class and function of the package."""
    for path in sorted((ROOT / "recsys_embed").rglob("*.py")):
        for node in ast.walk(ast.parse(read(path))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text:
                    yield f"{path.relative_to(ROOT)}, {getattr(node, 'name', 'module')}", text


# Commands


def commands():
    """Return every command by its name, with its group: "data list"."""
    import typer

    from recsys_embed.cli.main import app

    found = {}

    def add(command, name):
        found[name] = command
        for child, sub in getattr(command, "commands", {}).items():
            add(sub, f"{name} {child}".strip())

    add(typer.main.get_command(app), "")
    return found


COMMANDS = commands()


def options_of(command):
    return {name for p in command.params for name in (*p.opts, *p.secondary_opts)}


EVERY_OPTION = set().union(*map(options_of, COMMANDS.values()))
# Old names still work, but pages use the current ones.
OLD = {n for c in COMMANDS.values() for p in c.params if p.name.startswith("old_") for n in p.opts} - {
    n for c in COMMANDS.values() for p in c.params if not p.name.startswith("old_") for n in p.opts
}


def calls(text):
    """Yield the arguments of every call of recsys in shell commands."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        call = None
        for word in [*words, "&&"]:
            if word in ("&&", "||", "|", ";", "&"):
                if call is not None:
                    yield call
                call = None
            elif call is not None:
                call.append(word)
            elif word == "recsys":
                call = []


def command_of(words):
    """Return (name, command, arguments) of a call. Raises KeyError for an unknown command."""
    name, rest = "", list(words)
    while hasattr(COMMANDS[name], "commands") and rest and not rest[0].startswith("-"):
        name = f"{name} {rest.pop(0)}".strip()
    return name, COMMANDS[name], rest


def shell_lines():
    """Yield the arguments of every call of recsys in shell blocks and transcripts, as test parameters."""
    for page in PAGES:
        for block in blocks(read(page), "sh", ""):
            prompts = "\n".join(line for line in block.code.splitlines() if line.startswith("$ "))
            for call in calls(block.code if block.kind == "sh" else prompts):
                yield pytest.param(call, id=f"{page.name} {block.line}: {' '.join(call)[:60]}")


def spans():
    """Yield (page, text) of every `code` span outside of blocks."""
    for page in PAGES:
        for match in SPAN.finditer(prose(page)):
            yield page.name, match[1].replace("\\|", "|")


# Calls in transcripts that are not repeated: a search of five minutes, and runs that no longer exist.
NOT_REPEATED = ("tune", "compare")


def transcripts():
    """Yield (page, call, printed lines) of every transcript, in order."""
    for page in PAGES:
        for block in blocks(read(page), ""):
            for shown in re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:]:
                line, _, printed = shown.partition("\n")
                for call in calls(line):
                    if command_of(call)[0] not in NOT_REPEATED:
                        yield page.name, call, [text for text in printed.splitlines() if text.strip() not in ("", "…")]


def shape(line):
    """Return a line with its numbers and the names of models and runs replaced, and blanks collapsed."""
    line = re.sub(r"models/[\w./-]+|\b[0-9a-f]{8,}\b", "NAME", line)
    line = re.sub(r"[-+]?\d[\d,]*(?:\.\d+)?%?", "#", line)
    return " ".join(line.split())


# Names


def resolves(path):
    """Return whether a dotted path below recsys_embed exists: modules first, then attributes or fields."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            found = importlib.import_module(".".join(["recsys_embed", *parts[:cut]]))
            break
    else:
        return False
    return has(found, parts[cut:])


def has(obj, parts):
    for part in parts:
        fields = {**getattr(obj, "__annotations__", {}), **getattr(obj, "__dataclass_fields__", {})}
        if not hasattr(obj, part) and part not in fields:
            return part in instance_names(obj)
        obj = getattr(obj, part, None)
    return True


def instance_names(obj):
    """Return the names that instances have beyond their class: a Recommender has the fields of its state."""
    from recsys_embed.state.fitted import FittedState

    return set(FittedState.__dataclass_fields__) | set(vars(FittedState)) if obj is recsys_embed.Recommender else set()


def known_classes():
    """Return the classes that pages may name without a module: public ones, and "module:name" of others."""
    found = {name: getattr(recsys_embed, name) for name in recsys_embed.__all__}
    for path in (ROOT / "recsys_embed").rglob("*.py"):
        module = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        for node in ast.parse(read(path)).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, f"{module}:{node.name}")
    return found
