"""recsys items: change the item table of a model, or of a service that runs."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys_embed.cli.loading import load, read_item_values
from recsys_embed.cli.options import JSON, MODEL
from recsys_embed.cli.output import echo, print_json
from recsys_embed.cli.program import Program
from recsys_embed.errors import DataError, SettingError
from recsys_embed.state.verdict import counted

if TYPE_CHECKING:
    from recsys_embed.recommender import Recommender
    from recsys_embed.state.change_items import ItemValue

app = Program(no_args_is_help=True, help="Change the item table: prices, stock, new columns, new items.")


@app.callback()
def items() -> None:
    """Change the item table: prices, stock, new columns, new items."""


@app.command()
def update(
    file: Annotated[Path | None, typer.Argument(help="Table of items with their new values: CSV or Parquet.")] = None,
    item: Annotated[list[str] | None, typer.Option("--item", help="Id of an item to change; may be repeated.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="COLUMN=VALUE, the value as JSON or text; may be repeated.")
    ] = None,
    events: Annotated[
        str | None, typer.Option("--events", help="Change a service that runs: its file of events (events.db).")
    ] = None,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """Set values of items, in a model folder or, with --events, for the services that run with that file.

    Example: recsys items update --item 42 --set stock=0 --set "labels=[\\"new\\"]"
    """
    if (file is None) == (not item and not set_) or bool(item) != bool(set_):
        raise SettingError("name a file of items, or items and values: --item ID --set COLUMN=VALUE")
    recommender, folder = load(model)
    values = _values_of_file(file, recommender) if file is not None else _values_of_options(item or [], set_ or [])
    found = _store(recommender, values, Path(events)) if events else _save(recommender, values, folder)
    if json:
        return print_json({**found, **({"events": events} if events else {}), "model": str(folder)})
    unknown = f", {found['unknown_items']:,} unknown" if found["unknown_items"] else ""
    if unknown and events:  # The file does not say which model is served with it, and takes all values.
        unknown += f" to {folder} (--model names the one that is served)"
    return echo(f"{counted(found['changed'], 'item')} changed, {found['added']:,} added{unknown}   {events or folder}")


def _values_of_options(items: list[str], settings: list[str]) -> list[ItemValue]:
    from recsys_embed.state.change_items import ItemValue

    pairs = [
        (name.strip(), _value(text)) for name, equals, text in (text.partition("=") for text in settings) if equals
    ]
    if len(pairs) < len(settings):
        raise SettingError("write --set COLUMN=VALUE, e.g. --set stock=0")
    return [ItemValue(item, *pair) for item in items for pair in pairs]


def _value(text: str) -> Any:
    """Return a value that is JSON, or text as it is."""
    try:
        return json_text.loads(text)
    except ValueError:
        return text


def _values_of_file(file: Path, recommender: Recommender) -> list[ItemValue]:
    from recsys_embed.state.change_items import values_of_table

    return values_of_table(read_item_values(file, recommender))


def _save(recommender: Recommender, values: list[ItemValue], folder: Path) -> dict[str, int]:
    """Set values in a model folder."""
    from recsys_embed.state.change_items import add_described_values, check_item_values, set_item_values

    if not folder.is_dir():
        raise SettingError(
            f"{folder} is not a folder that can be changed: name one with --model (recsys models lists them), or the "
            "--events of a service; recsys recommend --items FILE takes today's values for lists"
        )
    check_item_values(recommender.state, values)
    known = recommender.state.items
    changed = set_item_values(add_described_values(recommender.state, values), values)
    recommender.state = changed.state
    recommender.save(folder)
    return _counts(values, known, changed.state.items)


def _counts(values: list[ItemValue], before: Any, after: Any) -> dict[str, int]:
    ids = {str(value.item) for value in values}
    changed, known = sum(item in before for item in ids), sum(item in after for item in ids)
    return {"changed": changed, "added": known - changed, "unknown_items": len(ids) - known}


def _store(recommender: Recommender, values: list[ItemValue], path: Path) -> dict[str, int]:
    """Set values for the services with a file of events. What they add, they say."""
    from recsys_embed.serving.event_store import EventStore
    from recsys_embed.serving.item_store import ItemStore
    from recsys_embed.state.change_items import add_described_values, check_item_values

    if not path.exists():
        raise DataError(f"there is no file {path}: --events names the one of a service that runs")
    store = EventStore(path)
    try:
        items = ItemStore(store)
        check_item_values(recommender.state, values)
        items.set(values)
    finally:
        store.close()
    state = recommender.state
    return _counts(values, state.items, add_described_values(state, values).items)
