"""The bridge from settings to options: every field of a config class becomes one, and none is written twice."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from recsys_embed.config import fields as config

JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
MODEL = Annotated[
    str | None,
    typer.Option(
        "--model", help="Model folder, or a model of MLflow: models:/NAME@ALIAS. (default: the newest in models/)"
    ),
]
STORE = Annotated[
    str | None, typer.Option("--tracking-uri", help="MLflow store. (default: $MLFLOW_TRACKING_URI or mlflow.db here)")
]
K = Annotated[int, typer.Option("--k", help="Length of a list.")]
LIKES = Annotated[
    str | None,
    typer.Option("--likes", help='Items that somebody (or, lately, the user) likes: "Toy Story (1995);Heat (1995)".'),
]
DISLIKES = Annotated[str | None, typer.Option("--dislikes", help="Items that they do not like.")]
RATED = Annotated[str | None, typer.Option("--rated", help='Items that they rated: "Toy Story=5;Heat=2".')]

PANELS = {
    "DataConfig": "Data",
    "ContentConfig": "Item descriptions",
    "WordsConfig": "Word vectors",
    "MapConfig": "Map",
    "ModelConfig": "Model",
    "TrainConfig": "Training",
    "TuneConfig": "Search",
    "RunConfig": "Report",
    "ServeConfig": "Service",
    "Rules": "What may be shown",
}


def with_settings(**configs: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for every field of the config classes; it is called with one config for each name.

    @with_settings(data=DataConfig) turns `def command(data: DataConfig, json: JSON)` into a command with
    --dataset, --items, … and --json. A value that a config refuses ends the program with one line and code 2.
    With a field `preset` or `start` among them, the options that were not given have the values of that preset, or of
    the model that is continued.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.name not in configs]
        fields = {name: [f for f, _, _ in config.options(kind)] for name, kind in configs.items()}
        parameters = [
            _parameter(*option, PANELS[kind.__name__]) for kind in configs.values() for option in config.options(kind)
        ]
        parameters += [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        if any(f.name == "preset" for found in fields.values() for f in found):
            parameters.append(_CONTEXT)

        @wraps(command)
        def run(**values: Any) -> None:
            context = values.pop(_CONTEXT.name, None)
            if context is not None and (values["preset"] or values.get("start")):
                values = _started(values, context)
            built = {name: kind(**{f.name: values.pop(f.name) for f in fields[name]}) for name, kind in configs.items()}
            command(**built, **values)

        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


# Typer hands its context to a parameter of this type: it knows which options were given.
_CONTEXT = inspect.Parameter("typer_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)


def _started(values: dict[str, Any], context: typer.Context) -> dict[str, Any]:
    """Return the values with those of the preset, or of the model that is continued, in place of what was not given."""
    from recsys_embed.presets import settings_of
    from recsys_embed.training.continue_from import settings_in

    def given(name: str) -> bool:
        source = context.get_parameter_source(name)
        return source is not None and source.name != "DEFAULT"

    begun = settings_of(values["preset"]) or settings_in(values.get("start"))
    return values | {name: value for name, value in begun.items() if not given(name)}


def _parameter(field: Any, kind: Any, text: str, panel: str) -> inspect.Parameter:
    on, off = config.flag(field.name), config.flag(field.name, False)
    shown = text[0].upper() + text[1:] + "."
    option = typer.Option(
        f"{on}/{off}" if kind in (bool, bool | None) and field.name != "offline" else on,
        help=shown,
        rich_help_panel=panel,
        show_default=field.default is not None,
    )
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=Annotated[kind, option]
    )
