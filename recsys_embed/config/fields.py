"""What a settings class is: fields with their types and help, from which options, JSON and checks follow."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from recsys_embed.errors import SettingError


def names_of(text: str | None) -> tuple[str, ...]:
    """Return the names of a comma-separated list."""
    return tuple(n.strip() for n in (text or "").split(",") if n.strip())


def settings(*configs: Any) -> dict[str, Any]:
    """Return the settings of several configs as one flat dict, for JSON and MLflow."""
    return {f.name: getattr(config, f.name) for config in configs for f in fields(config)}


# Settings that say where things lie, who is told of them and in which pictures: no result depends on them.
NON_RESULT_SETTINGS = ("data_dir", "offline", "out", "track", "map", "tracking_uri", "experiment", "register")


def short_name(dataset: str) -> str:
    """Return what people call a data set: its name, or that of its file, without the folders of this machine."""
    return Path(dataset.partition(":")[0]).name


def flag(name: str, on: bool = True) -> str:
    """Return the option of a setting: min_rating -> --min-rating, and --no-refit for a switch that is off."""
    name = "continue" if name == "start" else name  # no name in Python
    return f"--{'' if on else 'no-'}{name.replace('_', '-')}"


def command(*configs: Any, of: str = "train", preset: Mapping[str, Any] | None = None) -> str:
    """Return the `recsys train` of these settings, for a shell: the data set, and what is no default and no place.

    of: another command that takes them. preset: the settings of the preset that is among them by name; what is as
    it has it is left to it.
    """
    words = ["recsys", of]
    for config in configs:
        for field in fields(config):
            value = getattr(config, field.name)
            usual = (preset or {}).get(field.name, field.default)
            if field.name in NON_RESULT_SETTINGS or value is None or (value == usual and field.name != "dataset"):
                continue
            words += [flag(field.name, value)] if isinstance(value, bool) else [flag(field.name), str(value)]
    return shlex.join(words)


def options(config: type) -> Iterator[tuple[Field[Any], Any, str]]:
    """Yield (field, type, help) of every setting of a config class."""
    hints = get_type_hints(config, include_extras=True)
    for field in fields(config):
        kind, text = get_args(hints[field.name])
        yield field, kind, text


def check(good: bool, name: str, value: object, expected: str) -> None:
    """Raise SettingError, in one form for all settings, where a value is not good."""
    if not good:
        raise SettingError(f"{name.replace('_', '-')} must be {expected}, got {value}")


def _check_choices(config: Any) -> None:
    """Refuse a name that its Literal does not have."""
    for field, kind, _ in options(type(config)):
        value = getattr(config, field.name)
        choices = [c for k in (kind, *get_args(kind)) for c in get_args(k) if isinstance(c, str)]
        if choices and value is not None and value not in choices:
            raise SettingError(f"{field.name.replace('_', '-')} must be one of {', '.join(choices)}, got {value!r}")
