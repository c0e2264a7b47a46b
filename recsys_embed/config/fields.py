"""Settings classes as data: their fields with types and help texts, from which options, JSON and checks are derived."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from recsys_embed.config.addresses import is_address
from recsys_embed.errors import SettingError

C = TypeVar("C", bound=Any)


def parse_names(text: str | None) -> tuple[str, ...]:
    """Return the names in a comma-separated list."""
    return tuple(n.strip() for n in (text or "").split(",") if n.strip())


def settings(*configs: Any) -> dict[str, Any]:
    """Return the settings of several configs as one flat dict, for JSON and MLflow."""
    return {f.name: getattr(config, f.name) for config in configs for f in fields(config)}


def updated(config: C, values: Mapping[str, Any]) -> C:
    """Return a config with those of the values, by name, that are among its fields."""
    return replace(config, **{f.name: values[f.name] for f in fields(config) if f.name in values})


# Settings for locations, tracking and pictures: no result depends on them.
NON_RESULT_SETTINGS = (
    "data_dir",
    "offline",
    "out",
    "checkpoint_every",
    "resume",
    "nproc",
    "track",
    "map",
    "tracking_uri",
    "experiment",
    "register",
    "allow_worse",
)


def short_name(dataset: str) -> str:
    """Return a data set's name for display: its own, or that of its file, folder or database."""
    if dataset == "-":
        return "stdin"
    path = re.split("[?#]", dataset.partition("://")[2])[0] if is_address(dataset) else dataset.partition(":")[0]
    return re.sub(r"[*?\[\]{}@]+", "", Path(path).name).strip("-_") or "ratings"


def flag(name: str, on: bool = True) -> str:
    """Return the option for a setting: min_rating -> --min-rating, and --no-refit for a switch that is off."""
    return f"--{'' if on else 'no-'}{name.replace('_', '-')}"


def command(*configs: Any, name: str = "train", preset: Mapping[str, Any] | None = None) -> str:
    """Return a `recsys train` command line with these settings, quoted for a shell.

    It names the data set and every setting that differs from its default, except `NON_RESULT_SETTINGS`.
    name: another command that takes these settings. preset: the settings of the preset that `configs` name; those
    that equal the preset's are omitted.
    """
    words = ["recsys", name]
    for config in configs:
        for field in fields(config):
            value = getattr(config, field.name)
            default = (preset or {}).get(field.name, field.default)
            if field.name in NON_RESULT_SETTINGS or value is None or (value == default and field.name != "dataset"):
                continue
            words += [flag(field.name, value)] if isinstance(value, bool) else [flag(field.name), str(value)]
    return shlex.join(words)


def options(config: type) -> Iterator[tuple[Field[Any], Any, str]]:
    """Yield (field, type, help) for every setting of a config class."""
    yield from _options(config)


@cache
def _options(config: type) -> tuple[tuple[Field[Any], Any, str], ...]:
    hints = get_type_hints(config, include_extras=True)
    return tuple((field, *get_args(hints[field.name])) for field in fields(config))


def check(valid: bool, name: str, value: object, expected: str) -> None:
    """Raise SettingError, worded alike for all settings, unless `valid`."""
    if not valid:
        raise SettingError(f"{name.replace('_', '-')} must be {expected}, got {' '.join(str(value).split())}")


def choices(kind: Any) -> list[str]:
    """Return the values of a Literal type, or an empty list for another type."""
    return [c for k in (kind, *get_args(kind)) for c in get_args(k) if isinstance(c, str)]


def check_choices(config: Any) -> None:
    """Raise SettingError for a value that is not among those of its setting's Literal type."""
    for field, kind, _ in options(type(config)):
        value, names = getattr(config, field.name), choices(kind)
        if names and value is not None and value not in names:
            raise SettingError(f"{field.name.replace('_', '-')} must be one of {', '.join(names)}, got {value!r}")
