"""What people and machines see: results on stdout, all else on stderr."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Any

# Titles are data: escape sequences in them, and what turns or breaks a line, must not reach a terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

# Metrics that people see of a test; --json has all of them.
SHOWN = ("ndcg_at_10", "recall_at_10", "precision_at_10", "mrr_at_10", "hit_at_10", "coverage_at_10", "rmse")

_BOLD, _DIM = "1", "2"
_LEAST = 8  # cells that a column keeps, however narrow the terminal is


def start_logging(quiet: bool) -> None:
    """Send the package's notes to stderr, one plain line each; with `quiet` only warnings."""
    logger = logging.getLogger("recsys_embed")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain())
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = clean(record.getMessage())
        return f"warning: {text}" if record.levelno >= logging.WARNING else text


def clean(text: object) -> str:
    """Return text that a terminal shows and does not obey."""
    return _CONTROL.sub(" ", str(text))


def say_json(value: Any) -> None:
    """Print one JSON object."""
    print(json.dumps(_finite(value), ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    """Return a value with null for what JSON cannot say: NaN and infinity."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def say(text: str = "", dim: bool = False) -> None:
    """Print a line; `dim` is for what stands beside the result."""
    print(_styled(clean(text), _DIM) if dim else clean(text))


def say_table(names: Sequence[str], rows: Sequence[Sequence[object]], right: str = "") -> None:
    """Print rows as aligned columns that fit the width; names in `right` are set to the right.

    Where the line would be too long, the widest text columns give way; numbers are never cut.
    """
    from rich.cells import cell_len  # a CJK character or an emoji takes two cells

    numbers = [name in right.split() for name in names]
    cells = [[clean("" if c is None else c) for c in row] for row in (names, *rows)]
    widths = [max(cell_len(row[at]) for row in cells) for at in range(len(names))]
    room = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 200
    texts = [at for at, number in enumerate(numbers) if not number]
    while sum(widths) + 2 * (len(widths) - 1) > room and any(widths[at] > _LEAST for at in texts):
        widths[max(texts, key=widths.__getitem__)] -= 1
    for n, row in enumerate(cells):
        line = "  ".join(_fit(*part) for part in zip(row, widths, numbers, strict=True)).rstrip()
        print(line if n else _styled(line, _BOLD))


def _fit(text: str, width: int, right: bool) -> str:
    """Return a text of exactly so many cells."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) > width:
        text = set_cell_size(text, width - 1).rstrip() + "…"
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def _styled(line: str, style: str) -> str:
    """Return a line as bold or dim where somebody can see it: on a terminal that is not dumb, unless NO_COLOR is set.

    FORCE_COLOR styles what goes elsewhere too.
    """
    wanted = bool(os.environ.get("FORCE_COLOR")) or (sys.stdout.isatty() and os.environ.get("TERM") != "dumb")
    return f"\x1b[{style}m{line}\x1b[0m" if line and wanted and not os.environ.get("NO_COLOR") else line
