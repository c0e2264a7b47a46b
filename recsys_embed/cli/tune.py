"""recsys tune and recsys presets: search for settings, and list named ones."""

from __future__ import annotations

from typing import Any

from recsys_embed.cli.options import JSON, with_settings
from recsys_embed.cli.output import echo, print_json, print_table
from recsys_embed.config.fields import flag
from recsys_embed.config.settings import ContentConfig, DataConfig, ModelConfig, TrainConfig
from recsys_embed.config.tuning import TuneConfig

# The options that --help shows; --help-all shows all.
_FIRST = ("dataset", "items", "columns", "min_rating", "loss", "minutes", "trials", "freeze", "study", "json")


@with_settings(
    _FIRST,
    positional="dataset",
    data=DataConfig,
    content=ContentConfig,
    model=ModelConfig,
    train=TrainConfig,
    search=TuneConfig,
)
def tune(
    data: DataConfig,
    content: ContentConfig,
    model: ModelConfig,
    train: TrainConfig,
    search: TuneConfig,
    json: JSON = False,
) -> None:
    """Search for better settings on validation data, and write the best as a preset. Run it again to continue.

    Options of the model and the training are the starting point; --freeze names those that are not tuned.

    Example: recsys tune --dataset movielens --minutes 5
    """
    from recsys_embed.tuning.search import tune

    report = tune(data, model, train, search, content)
    if json:
        return print_json(report)
    start, best, importance = report["start"], report["best"], report["importance"]
    counts = ((report["ended_early"], "ended early"), (report["cut_off"], "cut off"))
    notes = [f"{n} {what}" for n, what in counts if n]
    echo(f"{report['trials']} trials" + (f" ({', '.join(notes)})" if notes else "") + f" in {report['study']}")
    rows: list[list[str]] = [[f"validation {report['metric']}", _text(start and start["value"]), _text(best["value"])]]
    rows += [
        [flag(name), _text(start and start["settings"][name]), _text(value)]
        + ([f"{importance[name]:.0%}"] if name in importance else [])
        for name, value in best["settings"].items()
    ]
    names = ["", "start", f"best (trial {best['trial']})", *(["importance"] if importance else [])]
    print_table(names, [row + [""] * (len(names) - len(row)) for row in rows], " ".join(names[1:2]))
    if report["picture"]:
        echo(f"picture {report['picture']}")
    echo(f"preset  {report['preset']}")
    echo(f"train   {report['command']}")
    return None


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def presets(json: JSON = False) -> None:
    """List the presets of the package and your own in ./presets."""
    from recsys_embed.presets import list_presets

    names = ("name", "about", "source", "validation", "settings", "path")
    facts = [{name: getattr(preset, name) for name in names} for preset in list_presets()]
    if json:
        return print_json({"presets": facts})
    rows = []
    for preset in facts:
        validation = preset["validation"]
        value = validation.get("value")
        score = f"{validation.get('metric', '')} {value:.4f}" if isinstance(value, int | float) else ""
        rows.append([preset["name"], score, validation.get("dataset", ""), preset["about"], preset["source"]])
    print_table(["name", "validation", "data set", "about", "source"], rows)
    return echo("recsys train --preset NAME starts from one; options override it")
