"""recsys compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys_embed.cli.options import JSON, STORE
from recsys_embed.cli.output import SHOWN, say, say_json, say_table
from recsys_embed.config.fields import flag
from recsys_embed.errors import DataError, SettingError

if TYPE_CHECKING:
    from recsys_embed.evaluation.compare import Comparison, PairedComparison, Run


def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Two or more: model folders, or ids of MLflow runs (6 digits or more).")
    ],
    metric: Annotated[str, typer.Option(help="Metric of the test that the runs are compared in.")] = "ndcg_at_10",
    out: Annotated[Path | None, typer.Option(help="Draw it too: .png, .svg or .pdf.")] = None,
    uri: STORE = None,
    json: JSON = False,
) -> None:
    """Show trainings side by side, and whether each is better than the first, user by user.

    Example: recsys compare models/first models/second --out compare.png
    """
    from recsys_embed.evaluation.compare import Run
    from recsys_embed.evaluation.compare import compare as compare_runs
    from recsys_embed.plots.style import check_ending

    if len(runs) < 2:
        raise SettingError(f"a comparison needs two runs or more, got {len(runs)}")
    if out is not None:
        check_ending(out)  # before the work, not after
        if not out.parent.is_dir():
            raise DataError(f"there is no folder {out.parent} for {out.name}")
    comparison = compare_runs([Run.read(named, uri) for named in runs], metric)
    if out is not None:
        from recsys_embed.plots.comparison import draw_comparison

        draw_comparison(comparison, out)
    if json:
        return say_json(_facts(comparison) | ({"out": str(out)} if out else {}))
    for at, run in enumerate(comparison.runs, 1):
        say(f"{at}  {run.name}")
    say()
    _say_runs(comparison)
    say()
    say(f"difference to 1 in {metric}, over the users of both (paired; docs/evaluation.md)")
    rows = [[at, *_beside(beside)] for at, beside in enumerate(comparison.beside, 2)]
    say_table(["", "users", "difference", "95 % interval", "p", "clear"], rows, "users difference p")
    for at, beside in enumerate(comparison.beside, 2):
        if beside.why_not:
            say(f"{at} cannot be compared with 1 user by user: {beside.why_not}")
    return say(f"{out} written") if out else None


def _beside(beside: PairedComparison) -> list[object]:
    found = beside.difference
    if found is None:
        return ["", "", "not comparable", "", ""]
    ends = f"{found.low:+.4f} to {found.high:+.4f}"
    return [f"{found.users:,}", f"{found.mean:+.4f}", ends, f"{found.p:.4f}", "yes" if found.clear else "no"]


def _say_runs(comparison: Comparison) -> None:
    """Print one column a run; a setting stands there where the runs differ in it."""
    runs, metric = comparison.runs, comparison.metric
    rows: list[list[object]] = [[name, *(_said(run.settings.get(name)) for run in runs)]
                                for name in comparison.always]  # fmt: skip
    rows[0][1:] = [_said(run.facts.get("dataset")) for run in runs]
    rows += [[flag(name), *(_said(run.settings.get(name)) for run in runs)] for name in comparison.differing]
    rows += [["epochs", *(_said(run.facts.get("epochs")) for run in runs)]]
    rows += [["seconds", *(_said(_seconds(run)) for run in runs)]]
    names = dict.fromkeys((metric, *SHOWN))
    for name in names:
        values = [run.test.get(name) for run in runs]
        if any(value is not None for value in values):
            rows.append([name, *("-" if value is None else f"{value:.4f}" for value in values)])
    say_table(["", *(str(at) for at in range(1, len(runs) + 1))], rows)


def _said(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _seconds(run: Run) -> float | None:
    seconds: dict[str, float] = run.facts.get("seconds") or {}
    return round(sum(seconds.values()), 1) if seconds else None


def _facts(comparison: Comparison) -> dict[str, Any]:
    runs: Sequence[Run] = comparison.runs
    found = [
        {
            "run": run.name,
            "dataset": run.facts.get("dataset"),
            **{name: run.settings.get(name) for name in comparison.always if name != "dataset"},
            "settings": {name: run.settings.get(name) for name in comparison.differing},
            "epochs": run.facts.get("epochs"),
            "seconds": run.facts.get("seconds"),
            "metrics": run.test,
        }
        for run in runs
    ]
    for entry, beside in zip(found[1:], comparison.beside, strict=True):
        difference = beside.difference
        entry["difference"] = None if difference is None else difference.summary()
        entry["why_not"] = beside.why_not
    return {"metric": comparison.metric, "runs": found}
