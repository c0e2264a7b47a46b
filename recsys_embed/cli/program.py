"""Program: a group of commands that lose no option. One that is given twice is collected, or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperOption

from recsys_embed.errors import SettingError

Function = TypeVar("Function", bound=Callable[..., Any])


def _items(values: list[str]) -> str:
    return ";".join(values)


def _conditions(values: list[str]) -> str:
    return " and ".join(f"({value})" for value in values)


def _names(values: list[str]) -> str:
    return ",".join(values)


# How the values of an option that is given several times are put together, by its name; those of others are refused.
_COLLECTED: dict[str, Callable[[list[str]], str]] = {
    **dict.fromkeys(("candidates", "exclude", "likes", "dislikes", "ratings", "boost", "per_group"), _items),
    "where": _conditions,
    **dict.fromkeys(("hide", "target", "event_weights", "text", "only", "ignore"), _names),
}


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments in which no option is given twice any more."""
        options = [p for p in self.params if isinstance(p, TyperOption)]
        return super().parse_args(ctx, collected(args, options))


def collected(args: Sequence[str], options: Sequence[TyperOption]) -> list[str]:
    """Return arguments in which each option with a single value is given once, with all its values.

    options: of the command. Raises SettingError for an option whose values cannot be put together. Of switches, such as
    --bias and --no-bias, the last counts, as usual.
    """
    by_flag = {flag: option for option in options if _has_value(option) for flag in option.opts}
    found: list[str] = []
    values: dict[str, list[str]] = {}
    places: dict[str, int] = {}
    rest = list(args)
    while rest and rest[0] != "--":
        word = rest.pop(0)
        flag, has_value, value = word.partition("=") if word.startswith("--") else (word, "", "")
        option = by_flag.get(flag)
        if option is None or not (has_value or rest):
            found.append(word)
            continue
        name = str(option.name)
        if name not in values:
            places[name] = len(found)
            found += [flag, ""]
        values.setdefault(name, []).append(value if has_value else rest.pop(0))
    for name, given in values.items():
        found[places[name] + 1] = given[0] if len(given) == 1 else _together(found[places[name]], name, given)
    return found + rest


def _has_value(option: TyperOption) -> bool:
    return not (option.is_flag or option.multiple or option.count) and option.nargs == 1


def _together(flag: str, name: str, values: list[str]) -> str:
    if name in _COLLECTED:
        return _COLLECTED[name](values)
    given = ", ".join(values[:3]) + (", …" if len(values) > 3 else "")
    raise SettingError(f"{flag} is given {len(values)} times ({given}): give it once")


class Program(typer.Typer):
    """A typer application whose commands lose no option."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Function], Function]:
        """Return a decorator that adds a command."""
        return super().command(name, **{"cls": _Command, **options})
