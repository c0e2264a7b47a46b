"""recsys tune and recsys presets."""

from __future__ import annotations

from typing import Any

from recsys_embed.cli.options import JSON, with_settings
from recsys_embed.cli.output import say, say_json, say_table
from recsys_embed.config.fields import flag
from recsys_embed.config.settings import ContentConfig, DataConfig, ModelConfig, TrainConfig, TuneConfig


@with_settings(data=DataConfig, content=ContentConfig, model=ModelConfig, train=TrainConfig, search=TuneConfig)
def tune(
    data: DataConfig,
    content: ContentConfig,
    model: ModelConfig,
    train: TrainConfig,
    search: TuneConfig,
    json: JSON = False,
) -> None:
    """Search for better settings on validation data, and write the best as a preset; the same command goes on.

    Options of the model and the training say where the search begins; --fix names those that stay as they are.

    Example: recsys tune --dataset movielens --minutes 5
    """
    from recsys_embed.tuning.search import tune

    report = tune(data, model, train, search, content)
    if json:
        return say_json(report)
    start, best, share = report["start"], report["best"], report["importance"]
    early, cut = (report[n] for n in ("ended_early", "cut_off"))
    beside = [f"{n} {what}" for n, what in ((early, "ended early"), (cut, "cut off")) if n]
    say(f"{report['trials']} trials" + (f" ({', '.join(beside)})" if beside else "") + f" in {report['study']}")
    rows: list[list[str]] = [
        [f"validation {report['metric']}", _shown(start and start["value"]), _shown(best["value"])]
    ]
    rows += [
        [flag(name), _shown(start and start["settings"][name]), _shown(value)]
        + ([f"{share[name]:.0%}"] if name in share else [])
        for name, value in best["settings"].items()
    ]
    names = ["", "start", f"best (trial {best['trial']})", *(["importance"] if share else [])]
    say_table(names, [row + [""] * (len(names) - len(row)) for row in rows], " ".join(names[1:2]))
    if report["picture"]:
        say(f"picture {report['picture']}")
    say(f"preset  {report['preset']}")
    say(f"train   {report['command']}")
    return None


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def presets(json: JSON = False) -> None:
    """List the presets: those of the package, and your own in ./presets."""
    from recsys_embed.presets import list_presets

    names = ("name", "about", "source", "validation", "settings", "path")
    found = [{name: getattr(preset, name) for name in names} for preset in list_presets()]
    if json:
        return say_json({"presets": found})
    rows = []
    for facts in found:
        measured = facts["validation"]
        value = measured.get("value")
        score = f"{measured.get('metric', '')} {value:.4f}" if isinstance(value, int | float) else ""
        rows.append([facts["name"], score, measured.get("dataset", ""), facts["about"], facts["source"]])
    say_table(["name", "validation", "data set", "what for", "where from"], rows)
    return say("recsys train --preset NAME begins with one; options win over it")
