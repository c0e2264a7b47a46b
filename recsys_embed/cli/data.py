"""recsys data: list, fetch and check data sets."""

from __future__ import annotations

import datetime
import filecmp
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys_embed.cli.data_report import print_examination
from recsys_embed.cli.options import JSON, with_settings
from recsys_embed.cli.output import echo, print_json, print_table
from recsys_embed.cli.program import Program
from recsys_embed.config.settings import DataConfig
from recsys_embed.errors import DataError, SettingError

if TYPE_CHECKING:
    from recsys_embed.doctor.codes import Finding

app = Program(no_args_is_help=True, help="List, fetch and check data sets.")
_DIR = Annotated[str | None, typer.Option("--data-dir", help="Folder of downloads.")]


@app.command("list")
def list_(data_dir: _DIR = None, json: JSON = False) -> None:
    """List the named data sets, and which of them are downloaded."""
    from recsys_embed.sources.download import data_dir as resolve
    from recsys_embed.sources.load import DATASETS
    from recsys_embed.sources.movielens import SOURCES, find_local

    folder = resolve(data_dir)
    rows = []
    for name in DATASETS:
        full_name = "movielens-100k" if name == "movielens" else name
        sources = ", then ".join(source.name for source in SOURCES.get(full_name, ())) or "made on the spot"
        rows.append([name, "yes" if full_name not in SOURCES or find_local(full_name, folder) else "no", sources])
    if json:
        return print_json(
            {"datasets": [{"name": n, "here": h == "yes", "sources": s} for n, h, s in rows], "folder": str(folder)}
        )
    print_table(["name", "here", "source"], rows)
    return echo(f"downloads: {folder}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Name of a data set.")],
    data_dir: _DIR = None,
    json: JSON = False,
) -> None:
    """Download a data set."""
    from recsys_embed.sources.load import load_dataset

    ratings = load_dataset(name, DataConfig(dataset=name, data_dir=data_dir)).ratings
    if json:
        sizes = {"users": len(ratings.users), "items": len(ratings.items), "ratings": len(ratings)}
        return print_json({"dataset": name, **sizes, "digest": ratings.digest()})
    return echo(f"{name}: {ratings!r}")


@app.command()
def make(
    name: Annotated[str, typer.Argument(help="What is made up: shop.")],
    out: Annotated[Path, typer.Option(help="Folder of the files.")] = Path("shop"),
    customers: Annotated[int, typer.Option(help="Number of customers.")] = 2_000,
    products: Annotated[int, typer.Option(help="Number of products.")] = 500,
    weeks: Annotated[int, typer.Option(help="Number of weeks.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 0,
    json: JSON = False,
) -> None:
    """Make up a shop: products.csv, events.csv, and next-week.csv with the events of the last week.

    Files that are there already are not written over.

    Example: recsys data make shop
    """
    from recsys_embed.sources.shop import generate
    from recsys_embed.storage.table_files import write_table

    if name != "shop":
        raise SettingError(f"there is nothing to make called {name!r}: recsys data make shop makes a shop")
    shop = generate(customers, products, weeks, seed)
    last = shop.events["time"].str.to_datetime().dt.date()
    is_last = last > last.max() - datetime.timedelta(days=7)  # type: ignore[operator]
    tables = {
        "products.csv": shop.products,
        "events.csv": shop.events.filter(~is_last),
        "next-week.csv": shop.events.filter(is_last),
    }
    with tempfile.TemporaryDirectory() as folder:
        for file, table in tables.items():
            write_table(table, Path(folder) / file)
            if (out / file).exists() and not filecmp.cmp(Path(folder) / file, out / file, shallow=False):
                raise SettingError(f"{out / file} is there already, and is another: name another folder by --out")
    out.mkdir(parents=True, exist_ok=True)
    for file, table in tables.items():
        write_table(table, out / file)
    if json:
        return print_json({"folder": str(out), "rows": {file: table.height for file, table in tables.items()}})
    return print_table(
        ["file", "rows"], [[str(out / file), f"{table.height:,}"] for file, table in tables.items()], "rows"
    )


@app.command()
@with_settings(positional="dataset", data=DataConfig)
def check(
    data: DataConfig,
    fix: Annotated[
        str | None, typer.Option("--fix", metavar="OUT", help="Write a repaired copy: .csv, .parquet or .jsonl.")
    ] = None,
    only: Annotated[str | None, typer.Option("--only", help="Findings of these codes alone: D101, or D1,D3.")] = None,
    ignore: Annotated[str | None, typer.Option("--ignore", help="No findings of these codes.")] = None,
    json: JSON = False,
) -> None:
    """Examine a data set before a training: what is in it, what is wrong with it, and which split suits.

    Errors, such as rows that cannot be read, end with exit code 3; with --fix, those that remain. docs/data-check.md
    explains each finding.
    """
    from recsys_embed.doctor.check import errors_of, examine
    from recsys_embed.doctor.codes import chosen
    from recsys_embed.doctor.facts import facts_of
    from recsys_embed.doctor.repair import check_output, remaining_errors, write_repaired
    from recsys_embed.sources.load import read_tables

    only_codes, ignored = DataConfig.names_of(only), DataConfig.names_of(ignore)
    chosen((), only_codes, ignored)
    if fix:
        check_output(Path(fix), data)
    tables = read_tables(data.dataset, data, tolerant=True)
    result = examine(tables, data)
    findings = chosen(result.findings, only_codes, ignored)
    facts = facts_of(result, data)
    facts["findings"] = [asdict(f) for f in findings]
    remaining: list[Finding] = []
    if fix:
        changes = write_repaired(result, tables.ratings, Path(fix))
        remaining = remaining_errors(findings, chosen(errors_of(Path(fix), data, result.columns), only_codes, ignored))
        facts["fixed"] = {"out": fix, "changes": changes, "remaining": [f.code for f in remaining]}
    if json:
        print_json(facts)
    else:
        print_examination(facts, findings)
    if remaining:
        words = "; ".join(f"{f.code}, {f.message}" for f in remaining)
        raise DataError(f"{fix} is written, and errors remain that --fix does not repair: {words}")
    if not fix and any(f.severity == "error" for f in findings):
        raise typer.Exit(3)
