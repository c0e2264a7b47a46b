"""The variants of a service, as an option writes them: NAME=MODEL or NAME:SHARE%=MODEL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from recsys_embed.errors import SettingError

# The name ends at the first = and holds none of : % / and so on: whatever follows is the model as it is, so that a
# share can be confused neither with a path nor with models:/NAME@ALIAS.
_VARIANT = re.compile(r"([A-Za-z0-9][\w.-]{0,63})(?::([^=]*))?=(.+)", re.ASCII)


class Variant(NamedTuple):
    """A model that answers a share of the users. model: a folder or an MLflow URI; share: from 0 to 1."""

    name: str
    model: str
    share: float


def parse_share(text: str, name: str) -> float:
    """Return a share, written 5% or 0.05, from 0 to 1. name: of the setting, for the error. Raises SettingError."""
    number = text.strip()
    try:
        value = float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise SettingError(f"{name} must be a share such as 5% or 0.05, got {text!r}")
    return value


def parse_variants(texts: Sequence[str]) -> tuple[Variant, ...]:
    """Return the variants of a service; those without a share divide what the others leave. Raises SettingError."""
    found: dict[str, tuple[str, float | None]] = {}
    for text in texts:
        match = _VARIANT.fullmatch(text)
        if match is None:
            raise SettingError(f"variant must be NAME=MODEL or NAME:SHARE%=MODEL, e.g. b:20%=models/new, got {text!r}")
        name, share, model = match.groups()
        if name in found:
            raise SettingError(f"two variants have the name {name!r}")
        found[name] = model, None if share is None else parse_share(share, f"the share of variant {name}")
    given = [share for _, share in found.values() if share is not None]
    left, n_open = 1 - sum(given), len(found) - len(given)
    if left < -1e-9 or (not n_open and found and left > 1e-9):
        raise SettingError(f"the shares of the variants must be 100 % together, got {sum(given):.4g} of 1")
    if n_open and left < 1e-9:
        raise SettingError("nothing is left for the variants without a share: give each one, 100 % together")
    return tuple(
        Variant(name, model, left / n_open if share is None else share) for name, (model, share) in found.items()
    )
