"""The search space: which settings are tuned and in which ranges, read from `space.toml` for one starting point."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from recsys_embed.errors import SettingError
from recsys_embed.presets import SETTING_TYPES

FILE = Path(__file__).with_name("space.toml")
# Significant digits of drawn numbers: presets are read by people too.
_DIGITS = 3


@dataclass(frozen=True)
class Range:
    """The values that a setting may take: from low to high, on a log scale if `log`, or one of the choices."""

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    integer: bool = False
    choices: tuple[Any, ...] = ()

    def value(self, drawn: Any) -> Any:
        """Return the setting's value for a drawn one."""
        return drawn if self.choices or self.integer else float(f"{drawn:.{_DIGITS}g}")

    def clip(self, value: Any) -> Any:
        """Return the nearest value within the range: a decay of 0, say, has no logarithm."""
        return value if self.choices else min(max(value, self.low), self.high)


def read_space(start: Mapping[str, Any], frozen: Collection[str] = ()) -> dict[str, Range]:
    """Return the ranges of the settings that are tuned, by name.

    start: all settings at the starting point, and `described`: whether items have content. frozen: settings that are
    not tuned. Raises SettingError for a frozen name that is no setting, and if no setting is left to tune.
    """
    tunable = tomllib.loads(FILE.read_text(encoding="utf-8"))
    unknown = [name for name in frozen if name not in start]
    if unknown:
        raise SettingError(
            f"--freeze {unknown[0]}: there is no such setting; the tuned settings are {', '.join(tunable)}"
        )
    space: dict[str, Range] = {}
    for name, entries in tunable.items():
        entry = next((e for e in entries if _applies(e.get("when", {}), start)), None)
        if entry is not None and name not in frozen and start[name] is not None:
            space[name] = _range(name, entry, start[name])
    if not space:
        raise SettingError(f"--freeze {','.join(frozen)} leaves nothing to tune")
    return space


def _applies(when: Mapping[str, Any], start: Mapping[str, Any]) -> bool:
    return all(start[name] in values for name, values in when.items())


def _range(name: str, entry: Mapping[str, Any], start: Any) -> Range:
    """Return the range of a setting, extended to include its value at the starting point."""
    if "choices" in entry:
        return Range(choices=tuple(dict.fromkeys([start, *entry["choices"]])))
    integer, log = int in get_args(SETTING_TYPES[name]), entry.get("log", False)
    low, high = (t * start for t in entry["times"]) if "times" in entry else (entry["low"], entry["high"])
    if start > 0 or not log:
        low, high = min(low, start), max(high, start)
    if integer:
        low, high = max(1, round(low)), max(1, round(high))
    return Range(low, high, log, integer)
