"""Command-line options from settings: each field of a config class becomes one, so that none is written twice."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Annotated, Any

import typer

from recsys_embed.config.fields import choices, flag, options
from recsys_embed.config.renamed import RENAMED
from recsys_embed.errors import SettingError

log = logging.getLogger("recsys_embed")

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
OUT = Annotated[
    str | None,
    typer.Option("--out", help="Write to this file: .parquet, .csv or .jsonl; or to a folder of parts: lists/"),
]
NPROC = Annotated[
    int | None,
    typer.Option("--nproc", min=1, help="Processes on this machine that share a folder of parts (or torchrun's)."),
]
K = Annotated[int, typer.Option("--k", help="Length of a list.")]
LIKES = Annotated[
    str | None,
    typer.Option("--likes", help='Items that a new user (or, lately, --user) likes: "Toy Story (1995);Heat (1995)".'),
]
DISLIKES = Annotated[str | None, typer.Option("--dislikes", help="Items that the user dislikes.")]
RATINGS = Annotated[str | None, typer.Option("--ratings", help='Items that the user rated: "Toy Story=5;Heat=2".')]

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
    "Rules": "What lists may hold",
    "OutputConfig": "A folder of parts",
}


def with_settings(
    first: Sequence[str] = (),
    old_names: Mapping[str, str] | None = None,
    positional: str | None = None,
    **configs: type,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for every field of the config classes; it is called with the configs by name.

    @with_settings(data=DataConfig) turns `def command(data: DataConfig, json: JSON)` into a command with
    --dataset, --items, … and --json. A value that a config refuses ends the program with one line and exit code 2.
    If a config has the field `preset` or `warm_start`, options that were not given take the values of that preset, or
    of the model that the training starts from. first: for a long command, the options that --help shows; --help-all
    shows the others too. old_names: old -> new names of options of this command alone, besides `RENAMED`.
    positional: a setting that the command's first argument, FILE, can give as well.
    """
    all_old_names = RENAMED | dict(old_names or {})

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        others = [p for p in signature.parameters.values() if p.name not in configs]
        fields = {name: [f.name for f, _, _ in options(kind)] for name, kind in configs.items()}
        panels = {f.name: PANELS[kind.__name__] for kind in configs.values() for f, _, _ in options(kind)}
        parameters = [_parameter(*option) for kind in configs.values() for option in options(kind)]
        parameters += [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in others]
        parameters = _folded(parameters, panels, first)
        by_name = {p.name: p for p in parameters}
        parameters += [_old(by_name[new], old) for old, new in all_old_names.items() if new in by_name] + [_CONTEXT]
        parameters += [_FILE] if positional else []

        @wraps(command)
        def run(**values: Any) -> None:
            context = values.pop(_CONTEXT.name)
            values.pop("help_all", None)
            if positional and (file := values.pop(_FILE.name, None)) is not None:
                if _is_given(context, positional):
                    raise SettingError(f"{file} and {flag(positional)} both name the data: give one of them")
                values[positional] = file
            values, renamed = _by_new_names(values, all_old_names, context)
            if values.get("preset") or values.get("warm_start"):
                values = _with_base(values, context, renamed)
            built = {name: kind(**{f: values.pop(f) for f in fields[name]}) for name, kind in configs.items()}
            command(**built, **values)

        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


# Typer hands its context to a parameter of this type: it knows which options were given.
_CONTEXT = inspect.Parameter("typer_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

_FILE = inspect.Parameter(
    "file",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None,
        typer.Argument(metavar="FILE", show_default=False, help="Your data, or a name; the same as --dataset."),
    ],
)


def _with_base(values: dict[str, Any], context: typer.Context, renamed: set[str]) -> dict[str, Any]:
    """Return the values, with those of the preset or of the warm start's model where no option was given."""
    from recsys_embed.presets import preset_settings
    from recsys_embed.training.warm_start import inherited_settings_of

    base = preset_settings(values.get("preset")) or inherited_settings_of(
        values.get("warm_start"), values.get("tracking_uri")
    )
    return values | {name: value for name, value in base.items() if not (name in renamed or _is_given(context, name))}


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _parameter(field: Any, kind: Any, text: str) -> inspect.Parameter:
    on, off = flag(field.name), flag(field.name, False)
    names = choices(kind)
    option = typer.Option(
        f"{on}/{off}" if kind in (bool, bool | None) and field.name != "offline" else on,
        help=text[0].upper() + text[1:] + "." + (f" One of {', '.join(names)}." if names else ""),
        metavar="<name>"
        if names
        else None,  # typer would put the names themselves there, which leaves no space for the text
        show_default=field.default is not None,
    )
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=Annotated[kind, option]
    )


def _folded(
    parameters: list[inspect.Parameter], panels: dict[str, str], first: Sequence[str]
) -> list[inspect.Parameter]:
    """Return the parameters with those in `first` in front and the others hidden until --help-all.

    panels: the panel of each setting. Without `first`, nothing is hidden, and every option is in its panel.
    """
    if not first:
        return [_changed(p, rich_help_panel=panels.get(p.name)) for p in parameters]
    by_name = {p.name: p for p in parameters}
    ordered = [by_name[name] for name in first]
    rest = [_changed(p, hidden=True) for p in parameters if p.name not in first]

    def show_all(context: typer.Context, wanted: bool) -> None:
        if not wanted:
            return
        whole = copy.copy(context.command)
        whole.params = [copy.copy(p) for p in whole.params]
        for p in whole.params:
            if p.name in by_name:
                p.hidden, p.rich_help_panel = False, panels.get(p.name)  # type: ignore[attr-defined]
        typer.echo(whole.get_help(context), color=context.color)
        raise typer.Exit

    text = f"Show all {len(parameters)} options."
    option = typer.Option("--help-all", help=text, is_eager=True, callback=show_all)
    help_all = inspect.Parameter(
        "help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option]
    )
    return [*ordered, *rest, help_all]


def _changed(parameter: inspect.Parameter, **changes: Any) -> inspect.Parameter:
    """Return a parameter with a changed copy of its typer.Option, since commands share options."""
    option = copy.copy(parameter.annotation.__metadata__[0])
    vars(option).update(changes)
    return parameter.replace(annotation=Annotated[parameter.annotation.__origin__, option])


def _old(parameter: inspect.Parameter, name: str) -> inspect.Parameter:
    """Return a hidden option that has an old name of another one."""
    kind: Any = parameter.annotation.__origin__
    option = typer.Option(f"--{name.replace('_', '-')}", hidden=True, help=f"Old name of {flag(parameter.name)}.")
    return inspect.Parameter(
        f"old_{name}", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _by_new_names(
    values: dict[str, Any], old_names: Mapping[str, str], context: typer.Context
) -> tuple[dict[str, Any], set[str]]:
    """Return the values with those of old names under the new ones, and the names concerned; warn once for each.

    Raises SettingError for an option that is given by both of its names.
    """
    old = {name.removeprefix("old_"): value for name, value in values.items() if name.startswith("old_")}
    values = {name: value for name, value in values.items() if not name.startswith("old_")}
    renamed = set()
    for name, value in old.items():
        if value is None:
            continue
        new = old_names[name]
        if new in renamed or _is_given(context, new):
            raise SettingError(f"{flag(name)} is the old name of {flag(new)}: give one of them")
        log.warning("%s is called %s now; the old name goes with the next version", flag(name), flag(new))
        values[new] = value
        renamed.add(new)
    return values, renamed
