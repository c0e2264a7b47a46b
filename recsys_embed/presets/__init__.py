"""Presets: named settings, each a TOML file in this folder or in the user's own ./presets."""

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
from recsys_embed.config.renamed import current_names
from recsys_embed.config.settings import ModelConfig, TrainConfig
from recsys_embed.errors import DataError, SettingError

log = logging.getLogger("recsys_embed")

# The user's own presets; they take precedence over those of the package with the same name.
USER_FOLDER = Path("presets")
_PACKAGE_FOLDER = Path(__file__).parent
# Settings that a preset must not fix: a run with another seed or on another machine still follows the preset.
_EXCLUDED = ("seed", "device", "threads", "engine", "sharding")
# The type of each setting of ModelConfig and TrainConfig, and the names of those that a preset may have.
SETTING_TYPES = {f.name: kind for config in (ModelConfig, TrainConfig) for f, kind, _ in options(config)}
SETTINGS = tuple(name for name in SETTING_TYPES if name not in _EXCLUDED)
_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_NAME = re.compile(r"[\w][\w.-]*")


@dataclass(frozen=True)
class Preset:
    """The content of a preset's file.

    settings: settings of ModelConfig and TrainConfig by name. about: what the preset is for. source: where its
    settings come from. validation: the result on validation data: `dataset`, `metric`, `value`, and any further keys
    that say how it was measured. path: the file.
    """

    name: str
    settings: dict[str, Any]
    about: str = ""
    source: str = ""
    validation: dict[str, Any] = field(default_factory=dict)
    path: str = ""

    @classmethod
    def read(cls, path: Path) -> Preset:
        """Read a file. Raises DataError if it is not a valid preset, or has a setting that does not exist."""
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise DataError(f"{path} is not a readable preset: {str(error).splitlines()[0]}") from None
        keys = {"about": str, "source": str, "validation": dict, "settings": dict}
        _refuse_unknown(path, "key", content, tuple(keys))
        for name, kind in keys.items():
            if not isinstance(content.get(name, kind()), kind):
                raise DataError(f"{path}: {name} must be {'a table' if kind is dict else 'a text'}")
        try:
            settings = current_names(content.pop("settings", {}))
        except SettingError as error:
            raise DataError(f"{path}: {error}") from None
        _refuse_unknown(path, "setting", settings, SETTINGS)
        for name, value in settings.items():
            _check_type(path, name, value)
        preset = cls(path.stem, settings, **content, path=str(path))
        try:
            preset.configs()
        except SettingError as error:
            raise DataError(f"{path}: {error}") from None
        return preset

    def configs(self, **given: Any) -> Configs:
        """Return the settings as a ModelConfig and a TrainConfig; settings that are given override the preset's."""
        values = {**self.settings, **given}
        unknown = [name for name in values if name not in SETTING_TYPES]
        if unknown:
            raise SettingError(f"there is no setting {unknown[0]!r}; there are {', '.join(SETTING_TYPES)}")
        model_names = {f.name for f in fields(ModelConfig)}
        return Configs(
            ModelConfig(**{k: v for k, v in values.items() if k in model_names}),
            TrainConfig(**{k: v for k, v in values.items() if k not in model_names}),
        )

    def to_toml(self) -> str:
        """Return the preset as the text of its file."""
        lines = [f"{name} = {_toml(getattr(self, name))}" for name in ("about", "source") if getattr(self, name)]
        for table in ("validation", "settings"):
            pairs = getattr(self, table)
            if pairs or table == "settings":
                lines += ["", f"[{table}]", *(f"{name} = {_toml(value)}" for name, value in pairs.items())]
        return "\n".join(lines) + "\n"


class Configs(NamedTuple):
    """The settings of a preset, ready for `Recommender(*preset("ml-1m"))`."""

    model: ModelConfig
    train: TrainConfig


def preset(name: str, **given: Any) -> Configs:
    """Return the settings of a preset as a ModelConfig and a TrainConfig; settings that are given override its own.

    name: one that `recsys presets` lists, or the path of a .toml file. Raises SettingError if there is no such preset.
    """
    return find_preset(name).configs(**given)


def find_preset(name: str) -> Preset:
    """Return a preset by name, from ./presets or else from the package, or by the path of a .toml file.

    Raises SettingError if there is no such preset, DataError if its file is invalid.
    """
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise SettingError(f"there is no preset file {name}")
        return Preset.read(Path(name))
    for folder in (USER_FOLDER, _PACKAGE_FOLDER):
        if _NAME.fullmatch(name) and (folder / f"{name}.toml").is_file():
            return Preset.read(folder / f"{name}.toml")
    names = ", ".join(sorted(_files()))
    raise SettingError(f"there is no preset {name!r}; there are {names}, or give the path of a .toml file")


def list_presets() -> Iterator[Preset]:
    """Yield all presets, sorted by name; skip invalid files with a warning.

    The user's own take precedence over those of the package.
    """
    for _, path in sorted(_files().items()):
        try:
            yield Preset.read(path)
        except DataError as error:
            log.warning("left out: %s", error)


def _files() -> dict[str, Path]:
    """Return the file of each preset by name."""
    return {path.stem: path for folder in (_PACKAGE_FOLDER, USER_FOLDER) for path in sorted(folder.glob("*.toml"))}


def preset_settings(name: str | None) -> dict[str, Any]:
    """Return the settings of a preset by name, or an empty dict for None."""
    return find_preset(name).settings if name else {}


def _refuse_unknown(path: Path, what: str, content: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = [name for name in content if name not in known]
    if unknown:
        raise DataError(f"{path}: there is no {what} {unknown[0]!r}; there are {', '.join(known)}")


def _check_type(path: Path, name: str, value: Any) -> None:
    """Raise DataError for a value of another type than the setting's; an integer may stand for a float."""
    types = [SETTING_TYPES[name], *get_args(SETTING_TYPES[name])]
    allowed = [kind for kind in _TYPE_NAMES if kind in types] or [str]  # the choices of a Literal are texts
    if type(value) not in allowed and not (type(value) is int and float in allowed):
        raise DataError(f"{path}: {name} must be {_TYPE_NAMES[allowed[0]]}, got {value!r}")


def _toml(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if not isinstance(value, float) or math.isfinite(value) else str(value)


def write_preset(preset: Preset, folder: Path | None = None) -> Path:
    """Write a preset to ./presets, or to a given folder, atomically, and return the file."""
    from recsys_embed.storage.atomic import atomic_write

    path = (folder or USER_FOLDER) / f"{preset.name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(preset.to_toml().encode())
    return path
