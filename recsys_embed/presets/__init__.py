"""Presets: settings by name, as data. One TOML file each, beside this one or in a folder of the user's."""

from __future__ import annotations

import json
import logging
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, get_args

from recsys_embed.config.fields import options
from recsys_embed.config.settings import ModelConfig, TrainConfig
from recsys_embed.errors import DataError, SettingError

log = logging.getLogger("recsys_embed")

# Where the user's own are; one of them hides a shipped one of the same name.
OWN = Path("presets")
_SHIPPED = Path(__file__).parent
# What a preset may set. Of these a run on another machine, or with another seed, is still of the preset.
_LEFT_OUT = ("seed", "device", "threads")
KINDS = {f.name: kind for config in (ModelConfig, TrainConfig) for f, kind, _ in options(config)}
SETTINGS = tuple(name for name in KINDS if name not in _LEFT_OUT)
_SAID = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_NAME = re.compile(r"[\w][\w.-]*")


@dataclass(frozen=True)
class Preset:
    """A preset as it stands in its file.

    about: what it is for. source: where its settings come from. validation: what it reached there: `dataset`,
    `metric`, `value`, and whatever else says how. settings: of ModelConfig and TrainConfig, by name.
    """

    name: str
    settings: dict[str, Any]
    about: str = ""
    source: str = ""
    validation: dict[str, Any] = field(default_factory=dict)
    path: str = ""

    @classmethod
    def read(cls, path: Path) -> Preset:
        """Read a file. Raises DataError where it is none, or names a setting that there is not."""
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise DataError(f"{path} is no readable preset: {str(error).splitlines()[0]}") from None
        keys = {"about": str, "source": str, "validation": dict, "settings": dict}
        _refuse_unknown(path, "key", found, tuple(keys))
        for name, kind in keys.items():
            if not isinstance(found.get(name, kind()), kind):
                raise DataError(f"{path}: {name} must be {'a table' if kind is dict else 'a text'}")
        settings = found.pop("settings", {})
        _refuse_unknown(path, "setting", settings, SETTINGS)
        for name, value in settings.items():
            _check_type(path, name, value)
        preset = cls(path.stem, settings, **found, path=str(path))
        try:
            preset.configs()
        except SettingError as error:
            raise DataError(f"{path}: {error}") from None
        return preset

    def configs(self, **given: Any) -> Configs:
        """Return the settings as a ModelConfig and a TrainConfig; what is given wins."""
        both = {**self.settings, **given}
        unknown = [name for name in both if name not in KINDS]
        if unknown:
            raise SettingError(f"there is no setting {unknown[0]!r}; there are {', '.join(KINDS)}")
        model = {f.name for f in fields(ModelConfig)}
        return Configs(
            ModelConfig(**{k: v for k, v in both.items() if k in model}),
            TrainConfig(**{k: v for k, v in both.items() if k not in model}),
        )

    def text(self) -> str:
        """Return the file."""
        lines = [f"{name} = {_toml(getattr(self, name))}" for name in ("about", "source") if getattr(self, name)]
        for table in ("validation", "settings"):
            pairs = getattr(self, table)
            if pairs or table == "settings":
                lines += ["", f"[{table}]", *(f"{name} = {_toml(value)}" for name, value in pairs.items())]
        return "\n".join(lines) + "\n"


class Configs(NamedTuple):
    """What a preset gives: `Recommender(*preset("ml-1m"))`."""

    model: ModelConfig
    train: TrainConfig


def preset(name: str, **given: Any) -> Configs:
    """Return the settings of a preset, as a ModelConfig and a TrainConfig; settings that are given win.

    name: of `recsys presets`, or the path of a .toml file. Raises SettingError where there is none of that name.
    """
    return find_preset(name).configs(**given)


def find_preset(name: str) -> Preset:
    """Return the preset of a name, or of the path of a .toml file: ./presets first, then those of the package."""
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise SettingError(f"there is no preset file {name}")
        return Preset.read(Path(name))
    for folder in (OWN, _SHIPPED):
        if _NAME.fullmatch(name) and (folder / f"{name}.toml").is_file():
            return Preset.read(folder / f"{name}.toml")
    known = ", ".join(sorted(_files()))
    raise SettingError(f"there is no preset {name!r}; there are {known}, and any .toml file of such settings")


def list_presets() -> Iterator[Preset]:
    """Yield all presets by name, the user's own instead of a shipped one; a broken file is left out with a warning."""
    for _, path in sorted(_files().items()):
        try:
            yield Preset.read(path)
        except DataError as error:
            log.warning("left out: %s", error)


def _files() -> dict[str, Path]:
    return {path.stem: path for folder in (_SHIPPED, OWN) for path in sorted(folder.glob("*.toml"))}


def settings_of(name: str | None) -> dict[str, Any]:
    """Return the settings of a preset by name; of none, nothing."""
    return find_preset(name).settings if name else {}


def _refuse_unknown(path: Path, what: str, found: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = [name for name in found if name not in known]
    if unknown:
        raise DataError(f"{path}: there is no {what} {unknown[0]!r}; there are {', '.join(known)}")


def _check_type(path: Path, name: str, value: Any) -> None:
    """Refuse a value of another type than the setting's; a whole number is a number."""
    kinds = [kind for kind in _SAID if kind in (KINDS[name], *get_args(KINDS[name]))] or [str]  # a Literal is of texts
    good = type(value) in kinds or (type(value) is int and float in kinds)
    if not good:
        raise DataError(f"{path}: {name} must be {_SAID[kinds[0]]}, got {value!r}")


def _toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if not isinstance(value, float) or math.isfinite(value) else str(value)


def write_preset(preset: Preset, folder: Path | None = None) -> Path:
    """Write a preset into ./presets, or into a folder, whole or not at all; return its file."""
    from recsys_embed.storage.atomic import writing_whole

    path = (folder or OWN) / f"{preset.name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing_whole(path) as file:
        file.write(preset.text().encode())
    return path
