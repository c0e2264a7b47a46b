"""recsys audience: the users most likely to want an item, or those of every item in a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys_embed.cli.loading import load
from recsys_embed.cli.options import JSON, MODEL, NPROC, OUT, with_settings
from recsys_embed.cli.output import echo, print_json, print_table, written_to
from recsys_embed.config.answers import OutputConfig
from recsys_embed.errors import SettingError
from recsys_embed.state.verdict import counted

if TYPE_CHECKING:
    from recsys_embed.recommender import Recommender


@with_settings(output=OutputConfig)
def audience(
    output: OutputConfig,
    item: Annotated[str | None, typer.Option(help="An item's id or title.")] = None,
    all_items: Annotated[bool, typer.Option("--all-items", help="All items of the model (with --out).")] = False,
    k: Annotated[int, typer.Option("--k", help="Users of an item at most.")] = 100,
    include_seen: Annotated[
        bool, typer.Option("--include-seen/--exclude-seen", help="Include users who have the item already.")
    ] = False,
    hide_test: Annotated[
        bool, typer.Option("--hide-test", help="Leave out users for whom the item is held out as well.")
    ] = False,
    out: OUT = None,
    nproc: NPROC = None,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """List the users who are most likely to want an item.

    Example: recsys audience --item "Toy Story" --k 20
    """
    if (item is None) != all_items:
        raise SettingError("say for what: one of --item ID (or its title) and --all-items")
    if k < 1:
        raise SettingError(f"--k must be at least 1, got {k}")
    if nproc is not None and not all_items:
        raise SettingError("--nproc goes with --all-items")
    if all_items and out is None:
        raise SettingError(
            "audiences of all items go to a file: name it with --out audiences.parquet (or .csv, .jsonl), or a folder "
            "with --out audiences/"
        )
    recommender, folder = load(model)
    if item is None:
        assert out is not None
        return _write_all(recommender, folder, out, k, include_seen, hide_test, output, nproc, json)
    item_id = recommender.find_item(item)
    if out is None:
        return _print_one(recommender, folder, item_id, k, include_seen, hide_test, json)
    from recsys_embed.storage.part_folder import is_part_folder
    from recsys_embed.storage.table_files import write_table

    if is_part_folder(out):
        raise SettingError(f"one audience goes to a file, and {out} is a folder: --out audience.parquet")
    table = recommender.audience(item_id, k, include_seen=include_seen, hide_test=hide_test).drop("title")
    write_table(table, Path(out))
    if json:
        return print_json({"out": out, "rows": table.height, "model": str(folder)})
    return echo(f"{counted(table.height, 'row')} written to {out}   model {folder}")


def _write_all(
    recommender: Recommender,
    folder: Path,
    out: str,
    k: int,
    include_seen: bool,
    hide_test: bool,
    output: OutputConfig,
    nproc: int | None,
    json: bool,
) -> None:
    from recsys_embed.answering.audience import write_audiences
    from recsys_embed.distributed.sharing import sharing
    from recsys_embed.storage.part_folder import explain_interrupt
    from recsys_embed.tracking.progress import progress_bar

    with explain_interrupt(out), progress_bar() as bar, sharing(nproc) as team:
        written = write_audiences(
            recommender.state, out, k, include_seen, hide_test,
            lambda done, total: bar.progress(done, total, unit="items"), output, team,
        )  # fmt: skip
    if team.rank:
        return None
    if json:
        facts = {"rows": written.rows, "files": written.files, "new_files": written.new_files}
        return print_json({"out": out, **facts, "model": str(folder)})
    return echo(f"{counted(written.rows, 'row')} {written_to(out, written.files, written.new_files)}   model {folder}")


def _print_one(
    recommender: Recommender, folder: Path, item: int | str, k: int, include_seen: bool, hide_test: bool, json: bool
) -> None:
    from recsys_embed.answering.audience import audience_entries

    start, row = time.perf_counter(), recommender.items.row(item)
    found = audience_entries(recommender.state, row, k, include_seen, hide_test)
    seconds, title = time.perf_counter() - start, recommender.titles[row]
    if json:
        return print_json({"item": item, "title": title, **found, "model": str(folder)})
    users, n_owners = found["users"], int(recommender.state.owners.count[row]) - recommender.is_graph
    what, items = ("nodes", "edges") if recommender.is_graph else ("users", "items")
    echo(f"Top {len(users)} {what} for {item} {title}   model {folder}   {1000 * seconds:.0f} ms")
    verb = "are linked to it" if recommender.is_graph else "have it"
    echo(f"{n_owners:,} {what} {verb} and are {'listed too' if include_seen else 'left out'}", dim=True)
    if users:
        rows = [[e["rank"], e["user"], f"{e['score']:.3f}", f"{e['items']:,}"] for e in users]
        print_table(["#", "user", "score", items], rows, f"# user score {items}")
    if found["short"] is not None:
        echo(found["short"], dim=True)
    return None
