"""Output for people and machines: results on stdout, everything else on stderr."""

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

from recsys_embed.distributed.started import rank

# Titles are data: escape sequences, line breaks and marks that reverse text must not reach a terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

# The test metrics that are printed; --json has all of them.
TEST_METRICS = ("ndcg_at_10", "recall_at_10", "precision_at_10", "mrr_at_10", "hit_at_10", "coverage_at_10", "rmse")

_BOLD, _DIM = "1", "2"
_MIN_WIDTH = 8  # cells that a column keeps, however narrow the terminal is


def start_logging(quiet: bool) -> None:
    """Log the package's messages to stderr, one plain line each; with `quiet` only warnings.

    Of several processes only the first speaks.
    """
    logger = logging.getLogger("recsys_embed")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlainFormatter())
    logger.handlers = [handler]
    logger.setLevel(logging.ERROR if rank() else logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = clean(record.getMessage())
        return f"warning: {text}" if record.levelno >= logging.WARNING else text


def clean(text: object) -> str:
    """Return text without characters that a terminal would interpret."""
    return _CONTROL.sub(" ", str(text))


def p_text(p: float) -> str:
    """Return a p-value to three places: no p is 0."""
    return "p < 0.001" if p < 0.0005 else f"p {p:.3f}"


def print_json(value: Any) -> None:
    """Print one JSON object."""
    print(json.dumps(_finite(value), ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    """Return a value with None for NaN and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def written_to(out: str, files: int, new_files: int) -> str:
    """Return where a table is: "written to lists.csv", "in the 20 parts of lists/, 17 of them new"."""
    if not out.endswith("/") and files == 1 == new_files:
        return f"written to {out}"
    return f"in {files:,} part{'s' * (files != 1)} of {out.rstrip('/')}/, {new_files:,} of them new"


def echo(text: str = "", dim: bool = False) -> None:
    """Print a line. dim: for notes about the result."""
    print(_styled(clean(text), _DIM) if dim else clean(text))


def print_table(names: Sequence[str], rows: Sequence[Sequence[object]], right: str = "") -> None:
    """Print rows as aligned columns that fit the width. right: names of right-aligned columns, separated by spaces.

    Where lines would be too long, the widest left-aligned columns are cut; right-aligned ones never are.
    """
    from rich.cells import cell_len  # a CJK character or an emoji takes two cells

    align_right = [name in right.split() for name in names]
    cells = [[clean("" if c is None else c) for c in row] for row in (names, *rows)]
    widths = [max(cell_len(row[column]) for row in cells) for column in range(len(names))]
    max_width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 200
    flexible = [column for column, fixed in enumerate(align_right) if not fixed]
    while sum(widths) + 2 * (len(widths) - 1) > max_width and any(widths[column] > _MIN_WIDTH for column in flexible):
        widths[max(flexible, key=widths.__getitem__)] -= 1
    for n, row in enumerate(cells):
        line = "  ".join(_fit(*cell) for cell in zip(row, widths, align_right, strict=True)).rstrip()
        print(line if n else _styled(line, _BOLD))


def _fit(text: str, width: int, right: bool) -> str:
    """Return a text padded or cut to exactly `width` cells."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) > width:
        text = set_cell_size(text, width - 1).rstrip() + "…"
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def _styled(line: str, style: str) -> str:
    """Return a line in bold or dim style if stdout is a terminal that is not dumb, and NO_COLOR is not set.

    FORCE_COLOR styles it wherever it goes.
    """
    enabled = bool(os.environ.get("FORCE_COLOR")) or (sys.stdout.isatty() and os.environ.get("TERM") != "dumb")
    return f"\x1b[{style}m{line}\x1b[0m" if line and enabled and not os.environ.get("NO_COLOR") else line
