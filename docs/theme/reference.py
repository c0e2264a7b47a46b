"""The pages of reference, written from the package: commands, settings, and the public names of Python.

Commands come from the typer app, settings from the config classes, and public names from `recsys_embed._HOMES`.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer

import recsys_embed
from recsys_embed import errors
from recsys_embed.cli.main import app
from recsys_embed.cli.options import PANELS
from recsys_embed.config import answers, settings
from recsys_embed.config.fields import flag, options
from recsys_embed.config.recipes import RECIPES, Size, resolve_settings
from recsys_embed.config.settings import ModelConfig, TrainConfig

PYTHON = "reference/python"
# The size of data for which the page of settings shows what the recipes give.
_MOVIELENS_100K = Size(users=943, items=1682, ratings=80_000)
# Options that only show help.
_HELP = ("help", "help_all")


def pages() -> dict[str, str]:
    """Return the pages of reference by their paths in the site."""
    return {
        "reference/commands.md": commands_page(),
        "reference/settings.md": settings_page(),
        f"{PYTHON}/index.md": python_index(),
        f"{PYTHON}/errors.md": errors_page(),
        **{f"{PYTHON}/{room}.md": python_page(room, names) for room, names in rooms().items()},
    }


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: object) -> str:
    """Return text as code."""
    return f"`{text}`"


def sentence(text: str) -> str:
    """Return help for a table: one line, without tags, and options as code."""
    text = " ".join(text.split()).replace("<", "&lt;")
    return re.sub(r"(?<![\w`-])--[a-z][a-z-]*\w", lambda option: code(option[0]), text)


def first_line(obj: Any) -> str:
    """Return the first line of a docstring, for a table."""
    return sentence((inspect.getdoc(obj) or "").partition("\n")[0])


# Commands


def commands() -> Iterator[tuple[str, Any, Any]]:
    """Yield (name with its group, command, context) of every command."""

    def below(command: Any, name: str, parent: Any) -> Iterator[tuple[str, Any, Any]]:
        context = command.context_class(command, parent=parent, info_name=name.split()[-1])
        yield name, command, context
        for child, sub in getattr(command, "commands", {}).items():
            yield from below(sub, f"{name} {child}", context)

    yield from below(typer.main.get_command(app), "recsys", None)


def commands_page() -> str:
    """Return the page of all commands."""
    return "\n\n".join(
        [
            "# Commands",
            "Every command with all of its options, as `--help` (for long commands `--help-all`) shows them. Most "
            "options are [settings](settings.md), with the same names in Python and in presets.",
            *(_command(*found) for found in commands()),
            "## Old names { #old-names }",
            renamed_options(),
        ]
    )


def renamed_options() -> str:
    """Return a table of the options that have another name now, and of the commands that have them."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, command, _ in commands():
        for parameter in command.params:
            if parameter.name.startswith("old_"):
                now = re.findall(r"--[\w-]+", parameter.help)[-1]
                found.setdefault((parameter.opts[0], now), []).append(name.removeprefix("recsys "))
    rows = ([code(old), code(now), ", ".join(map(code, names))] for (old, now), names in sorted(found.items()))
    return table(["old option", "now", "commands"], rows)


def _command(name: str, command: Any, context: Any) -> str:
    help_text = inspect.cleandoc(command.help or "")
    help_text = re.sub(r"^Example: (.*)$", r"```sh\n\1\n```", help_text, flags=re.MULTILINE)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [f"{'##' if name.count(' ') < 2 else '###'} {name} {{ #{_anchor(name)} }}", help_text, code(usage)]
    if hasattr(command, "commands"):
        rows = [
            [
                f"[`{name} {child}`](#{_anchor(f'{name} {child}')})",
                sentence((sub.help or "").strip().partition("\n")[0]),
            ]
            for child, sub in command.commands.items()
        ]
        parts.append(table(["command", "what it does"], rows))
    for heading, parameters in _grouped(command).items():
        rows = [_row(parameter, context) for parameter in parameters]
        parts += [f"**{heading}**", table(["name", "value", "default", "what it does"], rows)]
    return "\n\n".join(part for part in parts if part)


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _grouped(command: Any) -> dict[str, list[Any]]:
    """Return the parameters of a command under the headings of its help; old names are left out."""
    headings = _headings(command)
    groups: dict[str, list[Any]] = {"Arguments": []}
    for parameter in command.params:
        if parameter.name.startswith("old_") or parameter.name in _HELP:
            continue
        is_argument = parameter.param_type_name == "argument"
        heading = "Arguments" if is_argument else headings.get(parameter.name, "Options")
        groups.setdefault(heading, []).append(parameter)
    return {heading: parameters for heading, parameters in groups.items() if parameters}


def _headings(command: Any) -> dict[str, str]:
    """Return the heading of each option of a command that is a setting."""
    written = inspect.signature(inspect.unwrap(command.callback), eval_str=True) if command.callback else None
    kinds = [p.annotation for p in written.parameters.values() if is_dataclass(p.annotation)] if written else []
    return {field.name: PANELS[kind.__name__] for kind in kinds for field, _, _ in options(kind)}


def _row(parameter: Any, context: Any) -> list[str]:
    is_argument = parameter.param_type_name == "argument"
    names = [parameter.name.upper()] if is_argument else [*parameter.opts, *parameter.secondary_opts]
    default = parameter.default if getattr(parameter, "show_default", True) else None
    default = parameter.opts[0] if default is True else default
    shown = "" if default in (None, False, (), []) or callable(default) else code(default)
    return ["<br>".join(map(code, names)), _value(parameter, context), shown, sentence(parameter.help or "")]


def _value(parameter: Any, context: Any) -> str:
    """Return what an option or argument takes, in words."""
    visible = copy.copy(parameter)
    visible.hidden = False  # there is no record of a hidden one
    text = visible.get_help_record(context)[0].split(" / ")[0]
    text = re.sub(r"^((-\S+|,|\w+(?= [<\[])) ?)+", "", text).strip("<>[] ")
    words = {"str": "text", "text": "text", "int": "whole number", "integer": "whole number", "float": "number"}
    return ", ".join(map(code, text.split("|"))) if "|" in text else words.get(text.lower(), text.lower())


# Settings


def config_classes() -> list[type]:
    """Return the classes of settings, in the order in which they are written."""
    modules = settings, answers
    found = [(kind, module) for module in modules for kind in vars(module).values() if isinstance(kind, type)]
    return [kind for kind, module in found if is_dataclass(kind) and kind.__module__ == module.__name__]


def settings_page() -> str:
    """Return the page of all settings."""
    return "\n\n".join(
        [
            "# Settings",
            "Every setting is a field of a dataclass in `recsys_embed/config/`. The same field is an option "
            "of the commands, a key of `[settings]` in a [preset](../tuning.md#presets), and a parameter of the run in "
            "MLflow. Where no default is shown it is None: nothing, or what the [recipe](#recipes) of the loss says.",
            *map(_settings, config_classes()),
            "## What the recipes say { #recipes }",
            "A setting of `ModelConfig` or `TrainConfig` that is not given comes from the recipe for the loss and the "
            "scorer (`recsys_embed/config/recipes.py`), which validation data chose. Some depend on the size of the "
            f"data; these are for MovieLens-100K ({_MOVIELENS_100K.users:,} users, {_MOVIELENS_100K.items:,} items, "
            f"{_MOVIELENS_100K.ratings:,} training ratings).",
            _recipes(),
        ]
    )


def _settings(kind: type) -> str:
    rows = [
        [
            f"{code(field.name)}<br>{code(flag(field.name))}",
            _kind(type_),
            "" if field.default is None else code(field.default),
            sentence(text),
        ]
        for field, type_, text in options(kind)
    ]
    head = f"## {kind.__name__} {{ #{kind.__name__} }}"
    return "\n\n".join([head, first_line(kind), table(["setting", "value", "default", "what it is"], rows)])


def _kind(kind: Any) -> str:
    """Return the type of a setting in words."""
    if get_origin(kind) is Literal:
        return ", ".join(code(choice) for choice in get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return ", ".join(_kind(part) for part in get_args(kind) if part is not NoneType)
    return {str: "text", int: "whole number", float: "number", bool: "true, false"}.get(kind) or code(kind)


def _recipes() -> str:
    """Return a table of what the recipe of each loss and scorer gives."""
    columns: dict[str, dict[str, Any]] = {}
    for loss, scorer in RECIPES:
        filled = resolve_settings(ModelConfig(scorer=scorer), TrainConfig(loss=loss), _MOVIELENS_100K)  # type: ignore[arg-type]
        columns[code(loss) + (f"<br>{code(scorer)}" if scorer != "dot" else "")] = {
            field.name: getattr(config, field.name)
            for config in filled
            for field, _, _ in options(type(config))
            if field.default is None and field.name != "loss"
        }
    names = [n for n in next(iter(columns.values())) if any(found[n] is not None for found in columns.values())]
    rows = [[code(name), *(_short(found[name]) for found in columns.values())] for name in names]
    return table(["setting", *columns], rows)


def _short(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


# Python


def rooms() -> dict[str, list[str]]:
    """Return the public names of each room: the recommender first, then the other rooms by name."""
    found: dict[str, list[str]] = {}
    for name in recsys_embed.__all__:
        if name in recsys_embed._HOMES:
            found.setdefault(recsys_embed._HOMES[name].partition(".")[0], []).append(name)
    return dict(sorted(found.items(), key=lambda room: (room[0] != "recommender", room[0])))


def python_nav() -> dict[str, str]:
    """Return the pages of the Python reference: title -> path."""
    pages = {"Overview": "index", **{_title(room): room for room in rooms()}, "Errors": "errors"}
    return {title: f"{PYTHON}/{name}.md" for title, name in pages.items()}


def _title(room: str) -> str:
    return {"config": "Settings"}.get(room, room.capitalize())


def _path(name: str) -> str:
    """Return where a public name is defined."""
    return f"recsys_embed.{recsys_embed._HOMES[name]}.{name}"


def python_index() -> str:
    """Return the page that lists the public names."""
    parts = [
        "# Python",
        "The public names of the package, as in `from recsys_embed import Recommender`. They are loaded on first use: "
        "`import recsys_embed` alone loads neither NumPy nor torch. What goes wrong through bad input is one of the "
        "[errors](errors.md).",
    ]
    for room, names in rooms().items():
        rows = [[f"[`{name}`]({room}.md#{_path(name)})", first_line(getattr(recsys_embed, name))] for name in names]
        parts += [f"## {_title(room)}", table(["name", "what it is"], rows)]
    return "\n\n".join(parts)


def python_page(room: str, names: Iterable[str]) -> str:
    """Return the page of the public names of a room."""
    names = list(names)
    about = "" if room == "recommender" else inspect.getdoc(importlib.import_module(f"recsys_embed.{room}")) or ""
    parts = [f"# {_title(room)}", about]
    for name in names:
        parts.append(f"::: {_path(name)}")
        if getattr(recsys_embed, name) in config_classes():
            parts[-1] += "\n    options:\n      members: false"
            parts.append(f"What each field means, and its option: [Settings](../settings.md#{name}).")
    if others := _returned(names):
        parts.append("## What these return { #returns }")
        parts += [f"::: {path}\n    options:\n      heading_level: 3" for path in others]
    return "\n\n".join(part for part in parts if part)


def _returned(names: Iterable[str]) -> list[str]:
    """Return the paths of the classes that public functions and methods return, and that are not public themselves."""
    public = {getattr(recsys_embed, name) for name in recsys_embed._HOMES}
    found: dict[str, None] = {}
    for name in names:
        for function in _functions(getattr(recsys_embed, name)):
            known = vars(inspect.getmodule(function))
            for word in re.findall(r"\w+", str(inspect.signature(function).return_annotation)):
                kind = known.get(word)
                ours = inspect.isclass(kind) and kind.__module__.startswith("recsys_embed.") and kind not in public
                if ours and not kind.__name__.startswith("_") and not issubclass(kind, Exception):
                    found[f"{kind.__module__}.{kind.__name__}"] = None
    return list(found)


def _functions(obj: Any) -> Iterator[Any]:
    members = [obj] if inspect.isfunction(obj) else [member for n, member in vars(obj).items() if not n.startswith("_")]
    for member in members:
        function = getattr(member, "__func__", getattr(member, "fget", member))
        if inspect.isfunction(function):
            yield function


def errors_page() -> str:
    """Return the page of the errors."""
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind) and kind.__module__ == errors.__name__]
    rows = [[code(kind.__name__), str(kind.exit_code), sentence(inspect.getdoc(kind) or "")] for kind in kinds]
    return "\n\n".join(
        [
            "# Errors",
            f"All of them are in `{errors.__name__}`, and each is a `RecsysError`. The command line prints the message "
            "as one line and exits with the code.",
            table(["error", "exit code", "when"], rows),
        ]
    )
