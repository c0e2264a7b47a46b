"""recsys export: a model's vectors for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from recsys_embed.cli.loading import load
from recsys_embed.cli.options import JSON, MODEL
from recsys_embed.cli.output import echo, print_json, print_table
from recsys_embed.config.answers import ProjectionName

TO = Annotated[
    Literal["projector", "parquet", "safetensors", "word2vec", "npz"], typer.Option("--to", help="Format of the files.")
]
NEIGHBOURS = Annotated[int, typer.Option(help="Neighbours of each row in a Parquet file; 0: none.", min=0)]
METHOD = Annotated[ProjectionName, typer.Option(help="Projection that gives a Parquet file its x and y.")]
SEED = Annotated[int, typer.Option(help="Seed of x and y.", min=0)]


def export(
    to: TO = "projector",
    out: Annotated[Path, typer.Option(help="Folder; replaces only files of an earlier export.")] = Path("export"),
    users: Annotated[bool, typer.Option("--users", help="Export user vectors too, in separate files.")] = False,
    neighbours: NEIGHBOURS = 10,
    method: METHOD = "auto",
    seed: SEED = 0,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """Write item vectors and the item table for TensorBoard, Embedding Atlas, gensim, numpy, ….

    Example: recsys export --to projector
    """
    from recsys_embed.exports.write import export

    recommender, folder = load(model)
    export(recommender, to, out, users=users, neighbours=neighbours, method=method, seed=seed)
    counts = {"items": len(recommender.items), **({"users": len(recommender.users)} if users else {})}
    print_export(out, to, {**counts, "dim": recommender.model.dim, "model": str(folder)}, neighbours, json)


def print_export(out: Path, to: str, facts: dict[str, Any], neighbours: int, json: bool) -> None:
    """Print which files were written, and how to open them."""
    from recsys_embed.exports.folder import exported_files
    from recsys_embed.exports.write import EXPORTS

    files = {str(path): path.stat().st_size for path in exported_files(out, to)}
    if json:
        return print_json({"out": str(out), "to": to, "files": files, **facts})
    print_table(["file", "bytes"], [[name, f"{size:,}"] for name, size in files.items()], "bytes")
    echo("   ".join(f"{n:,} {name}" if isinstance(n, int) else f"{name} {n}" for name, n in facts.items()))
    names = list(files)
    options = {
        "neighbors": " --neighbors neighbors" if neighbours else "",
        "text": " --text title" if "items" in facts else "",
    }
    how = EXPORTS[to].how_to_open.format(out=out, first=names[0], last=names[-1], **options)
    return echo(f"open it: {how}")
