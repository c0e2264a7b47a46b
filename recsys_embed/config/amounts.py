"""Settings that are a number with a unit: lengths of time, and sizes of memory."""

from __future__ import annotations

import re

from recsys_embed.config.fields import check


def read_seconds(name: str, text: str | None) -> int | None:
    """Return a setting such as "12h", "7d" or "4w" in seconds, or None for None. name: the setting's, for the error."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)\s*([hdw])", text.strip().lower())
    check(bool(match and int(match[1])), name, text, "a number with h, d or w, such as 12h, 7d or 4w")
    return 0 if match is None else int(match[1]) * {"h": 3_600, "d": 86_400, "w": 604_800}[match[2]]


def read_bytes(name: str, text: str | None) -> int | None:
    """Return a setting such as "500MB" or "1.5 GB" in bytes, or None for None. name: the setting's, for the error."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mgt])i?b?", text.strip().lower())
    check(bool(match and 0 < float(match[1]) < 1e9), name, text, "a size with MB, GB or TB, such as 500MB or 1.5GB")
    return 0 if match is None else int(float(match[1]) * 1e6 * 1000 ** "mgt".index(match[2]))
