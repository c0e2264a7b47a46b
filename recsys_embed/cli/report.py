"""recsys report: one page about a model, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys_embed.cli.loading import load
from recsys_embed.cli.options import JSON, MODEL
from recsys_embed.cli.output import echo, print_json
from recsys_embed.errors import DataError


def report(
    model: MODEL = None,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    images: Annotated[
        Path | None, typer.Option(help="Folder of pictures of the items, named ID.jpg, ID.png, …")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    json: JSON = False,
) -> None:
    """Write a page about a model for people who do not read code: is it better, for whom does it fail, examples.

    Example: recsys report --out report.html
    """
    from recsys_embed.reports.write import write_report
    from recsys_embed.state.verdict import verdict

    if not out.absolute().parent.is_dir():
        raise DataError(f"there is no folder {out.parent} for {out.name}")
    recommender, folder = load(model)
    write_report(recommender, out, name=folder.name, images=images, offline=offline)
    found = verdict(recommender.metadata.get("metrics"))
    sentence = None if found is None else found.sentence
    if json:
        return print_json({"model": str(folder), "report": str(out), "verdict": sentence})
    echo(f"verdict: {sentence or 'the model was not compared with baselines'}   model {folder}")
    return echo(f"open {out.resolve().as_uri()}   {out.stat().st_size / 1e6:.2f} MB")
