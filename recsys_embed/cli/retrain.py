"""recsys retrain: the training of a model again, on the data as they are now."""

from __future__ import annotations

import logging
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys_embed.cli.options import JSON, MODEL
from recsys_embed.cli.output import echo
from recsys_embed.cli.program import Program
from recsys_embed.cli.train import train
from recsys_embed.config.addresses import several_locations
from recsys_embed.errors import SettingError

if TYPE_CHECKING:
    from pathlib import Path


log = logging.getLogger("recsys_embed")


def retrain(
    model: MODEL = None,
    dataset: Annotated[str | None, typer.Option(help="The ratings, if they are elsewhere now.")] = None,
    extra_ratings: Annotated[
        str | None,
        typer.Option("--extra-ratings", help="Files of more ratings, separated by ;, such as the service's events.db."),
    ] = None,
    warm_start: Annotated[
        bool | None,
        typer.Option("--warm-start/--from-scratch", help="Start from the model's vectors (default: as it did itself)."),
    ] = None,
    for_production: Annotated[
        bool, typer.Option("--for-production/--measured-only", help="In the end, fit on everything.")
    ] = True,
    register: Annotated[
        str | None, typer.Option(help="NAME or NAME@ALIAS in MLflow (default: as the model was, or is named).")
    ] = None,
    allow_worse: Annotated[
        bool, typer.Option("--allow-worse", help="Register the new model even if it is clearly worse.")
    ] = False,
    out: Annotated[str | None, typer.Option(help="Folder of the new model (default: a new one in models/).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command, and do nothing.")] = False,
    json: JSON = False,
) -> None:
    """Train a model again on the data as they are now: measure it, fit it on everything, and let it replace the model.

    It does what the model's own training did, whose command is in its folder, and registers the new model in the same
    place unless it is clearly worse than the one there. Example: recsys retrain --model models:/shop@champion
    """
    from recsys_embed.storage.model_folders import newest_model_folder, read_metadata
    from recsys_embed.tracking.model_registry import is_model_uri, resolve_folder

    folder: str | Path = model or newest_model_folder()
    metadata = read_metadata(resolve_folder(str(folder)))
    if "command" not in metadata:
        raise SettingError(f"{folder} was trained on data that were passed in Python: train it again there")
    before = metadata.get("settings", {})
    named = str(model).removeprefix("models:/") if model and is_model_uri(model) and "@" in model else None
    given: dict[str, Any] = {
        "dataset": dataset,
        "extra_ratings": extra_ratings,
        "register": register or before.get("register") or named,
        "out": out,
        **{name: before.get(name) for name in ("tracking_uri", "experiment", "data_dir")},
    }
    options = {name: value for name, value in given.items() if value is not None}
    words = shlex.split(metadata["command"])[2:]
    _warn_of_left_out(words, extra_ratings)
    if warm_start or (warm_start is None and "--warm-start" in words):
        options["warm_start"] = str(folder)
    switches = {"for_production": for_production, "allow_worse": allow_worse, "json": json}
    arguments = _merged(words, options, [name for name, on in switches.items() if on], warm_start is False)
    arguments += ["--no-track"] * (not before.get("track", True) and "register" not in options)
    line = shlex.join(["recsys", "train", *(argument for argument in arguments if argument != "--json")])
    if dry_run:
        return echo(line)
    log.info(line)
    _train(arguments)
    return None


def _warn_of_left_out(words: list[str], extra_ratings: str | None) -> None:
    """Warn if the training before had further ratings that this one has not. words: its command."""
    before = several_locations(words[words.index("--extra-ratings") + 1]) if "--extra-ratings" in words else []
    given = before if extra_ratings is None else several_locations(extra_ratings)
    missing = sorted({*before} - {*given})
    if missing:
        log.warning(
            "the ratings of %s, which the model was trained on, are left out: --extra-ratings %s has them too",
            " and ".join(missing), shlex.quote(";".join([*missing, *given])),
        )  # fmt: skip


def _train(arguments: list[str]) -> None:
    """Run `recsys train` with these arguments."""
    app = Program()
    app.command()(train)
    typer.main.get_command(app).main(arguments, prog_name="recsys train", standalone_mode=False)


def _merged(words: list[str], options: dict[str, str], switches: list[str], from_scratch: bool) -> list[str]:
    """Return the words of a command with some options given anew. switches: those that are on, by name.

    from_scratch: leave out --warm-start.
    """
    flags = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
    on = [f"--{name.replace('_', '-')}" for name in switches]
    left_out = {*flags, *on, "--for-production"} | ({"--warm-start"} if from_scratch else set())
    kept: list[str] = []
    position = 0
    while position < len(words):
        has_value = position + 1 < len(words) and not words[position + 1].startswith("--")
        stop = position + 1 + has_value
        if words[position] not in left_out:
            kept += words[position:stop]
        position = stop
    return [*kept, *(word for pair in flags.items() for word in pair), *on]
