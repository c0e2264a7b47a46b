"""Which settings a search moves, and how far: `space.toml`, read for one start."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from recsys_embed.errors import SettingError
from recsys_embed.presets import KINDS

FILE = Path(__file__).with_name("space.toml")
# What of a drawn number is kept: a preset is for people too.
_DIGITS = 3


@dataclass(frozen=True)
class Range:
    """The values that a setting may take: from low to high, by factors where `log`, or one of the choices."""

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    def value(self, drawn: Any) -> Any:
        """Return a drawn value as the setting has it."""
        return drawn if self.choices or self.whole else float(f"{drawn:.{_DIGITS}g}")

    def inside(self, value: Any) -> Any:
        """Return the nearest value of the range: a decay of 0 has no logarithm."""
        return value if self.choices else min(max(value, self.low), self.high)


def read_space(start: Mapping[str, Any], fixed: Collection[str] = ()) -> dict[str, Range]:
    """Return the ranges of the settings that a search moves, by name.

    start: every setting that the search begins with, and `described`. fixed: settings that stay as they are.
    Raises SettingError for a fixed name that is no setting, and where nothing is left to move.
    """
    movable = tomllib.loads(FILE.read_text(encoding="utf-8"))
    unknown = [name for name in fixed if name not in start]
    if unknown:
        raise SettingError(
            f"--fix {unknown[0]}: there is no such setting; those that are moved are {', '.join(movable)}"
        )
    found: dict[str, Range] = {}
    for name, entries in movable.items():
        entry = next((e for e in entries if _holds(e.get("when", {}), start)), None)
        if entry is not None and name not in fixed and start[name] is not None:
            found[name] = _range(name, entry, start[name])
    if not found:
        raise SettingError(f"--fix {','.join(fixed)} leaves nothing to move")
    return found


def _holds(when: Mapping[str, Any], start: Mapping[str, Any]) -> bool:
    return all(start[name] in values for name, values in when.items())


def _range(name: str, entry: Mapping[str, Any], begin: Any) -> Range:
    if "choices" in entry:
        return Range(choices=tuple(dict.fromkeys([begin, *entry["choices"]])))
    whole, log = int in get_args(KINDS[name]), entry.get("log", False)
    low, high = (t * begin for t in entry["times"]) if "times" in entry else (entry["low"], entry["high"])
    if begin > 0 or not log:
        low, high = min(low, begin), max(high, begin)
    if whole:
        low, high = max(1, round(low)), max(1, round(high))
    return Range(low, high, log, whole)
