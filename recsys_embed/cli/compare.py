"""recsys compare: trainings side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys_embed.cli.options import JSON, STORE
from recsys_embed.cli.output import TEST_METRICS, echo, print_json, print_table
from recsys_embed.config.fields import flag
from recsys_embed.errors import DataError, SettingError

if TYPE_CHECKING:
    from recsys_embed.evaluation.compare import Comparison, PairedComparison, Run


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="Two or more model folders, models:/NAME@ALIAS, or ids of MLflow runs (6 digits or more)."),
    ],
    metric: Annotated[str, typer.Option(help="Test metric to compare the runs by.")] = "ndcg_at_10",
    out: Annotated[Path | None, typer.Option(help="Draw the comparison too: .png, .svg or .pdf.")] = None,
    uri: STORE = None,
    json: JSON = False,
) -> None:
    """Show trainings side by side, and whether each is better than the first, paired by user.

    Example: recsys compare models/first models/second --out compare.png
    """
    from recsys_embed.evaluation.compare import Run
    from recsys_embed.evaluation.compare import compare as compare_runs
    from recsys_embed.plots.style import check_suffix

    if len(runs) < 2:
        raise SettingError(f"a comparison needs two runs or more, got {len(runs)}")
    if out is not None:
        check_suffix(out)  # before the work rather than after
        if not out.parent.is_dir():
            raise DataError(f"there is no folder {out.parent} for {out.name}")
    comparison = compare_runs([Run.read(named, uri) for named in runs], metric)
    if out is not None:
        from recsys_embed.plots.comparison import draw_comparison

        draw_comparison(comparison, out)
    if json:
        return print_json(_facts(comparison) | ({"out": str(out)} if out else {}))
    for number, run in enumerate(comparison.runs, 1):
        echo(f"{number}  {run.name}")
    echo()
    _print_runs(comparison)
    echo()
    echo(f"difference to 1 in {metric}, over the users of both (paired; docs/evaluation.md)")
    rows = [[number, *_difference_cells(pair)] for number, pair in enumerate(comparison.comparisons, 2)]
    print_table(["", "users", "difference", "95 % interval", "p", "clear"], rows, "users difference p")
    for number, pair in enumerate(comparison.comparisons, 2):
        if pair.reason:
            echo(f"{number} cannot be compared with 1 user by user: {pair.reason}")
    return echo(f"{out} written") if out else None


def _difference_cells(pair: PairedComparison) -> list[object]:
    difference = pair.difference
    if difference is None:
        return ["", "", "not comparable", "", ""]
    interval = f"{difference.low:+.4f} to {difference.high:+.4f}"
    clear = "yes" if difference.significant else "no"
    return [f"{difference.users:,}", f"{difference.mean:+.4f}", interval, f"{difference.p:.4f}", clear]


def _print_runs(comparison: Comparison) -> None:
    """Print one column per run: key settings, the settings in which the runs differ, and metrics."""
    runs, metric = comparison.runs, comparison.metric
    rows: list[list[object]] = [[name, *(_text(run.settings.get(name)) for run in runs)]
                                for name in comparison.KEY_SETTINGS]  # fmt: skip
    rows[0][1:] = [_text(run.metadata.get("dataset")) for run in runs]
    rows += [[flag(name), *(_text(run.settings.get(name)) for run in runs)] for name in comparison.differing_settings]
    rows += [["epochs", *(_text(run.metadata.get("epochs")) for run in runs)]]
    rows += [["seconds", *(_text(_seconds(run)) for run in runs)]]
    for name in dict.fromkeys((metric, *TEST_METRICS)):
        values = [run.test.get(name) for run in runs]
        if any(value is not None for value in values):
            rows.append([name, *("-" if value is None else f"{value:.4f}" for value in values)])
    print_table(["", *(str(number) for number in range(1, len(runs) + 1))], rows)


def _text(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _seconds(run: Run) -> float | None:
    seconds: dict[str, float] = run.metadata.get("seconds") or {}
    return round(sum(seconds.values()), 1) if seconds else None


def _facts(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison for JSON."""
    runs: Sequence[Run] = comparison.runs
    entries = [
        {
            "run": run.name,
            "dataset": run.metadata.get("dataset"),
            **{name: run.settings.get(name) for name in comparison.KEY_SETTINGS if name != "dataset"},
            "settings": {name: run.settings.get(name) for name in comparison.differing_settings},
            "epochs": run.metadata.get("epochs"),
            "seconds": run.metadata.get("seconds"),
            "metrics": run.test,
        }
        for run in runs
    ]
    for entry, pair in zip(entries[1:], comparison.comparisons, strict=True):
        entry["difference"] = None if pair.difference is None else pair.difference.summary()
        entry["why_not"] = pair.reason
    return {"metric": comparison.metric, "runs": entries}
