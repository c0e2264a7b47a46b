"""recsys export: the vectors of a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from recsys_embed.cli.options import JSON, MODEL
from recsys_embed.cli.output import say, say_json, say_table
from recsys_embed.cli.similar import load
from recsys_embed.config.settings import MethodName

TO = Annotated[
    Literal["projector", "parquet", "safetensors", "word2vec", "npz"], typer.Option("--to", help="Form of the files.")
]
NEIGHBOURS = Annotated[int, typer.Option(help="Neighbours of each row in a Parquet file; 0 for none.", min=0)]
METHOD = Annotated[MethodName, typer.Option(help="How a Parquet file's x and y are laid out.")]
SEED = Annotated[int, typer.Option(help="Seed of x and y.", min=0)]


def export(
    to: TO = "projector",
    out: Annotated[Path, typer.Option(help="Folder; only files of an earlier export in it are replaced.")] = Path(
        "export"
    ),
    users: Annotated[bool, typer.Option("--users", help="The users' vectors too, in files of their own.")] = False,
    neighbours: NEIGHBOURS = 10,
    method: METHOD = "auto",
    seed: SEED = 0,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """Write the items' vectors and what is known of the items for TensorBoard, Embedding Atlas, gensim, numpy, ….

    Example: recsys export --to projector
    """
    from recsys_embed.exports.write import export

    recommender, folder = load(model)
    export(recommender, to, out, users=users, neighbours=neighbours, method=method, seed=seed)
    counts = {"items": len(recommender.items), **({"users": len(recommender.users)} if users else {})}
    say_export(out, to, {**counts, "dim": recommender.model.dim, "model": str(folder)}, neighbours, json)


def say_export(out: Path, to: str, facts: dict[str, Any], neighbours: int, json: bool) -> None:
    """Say which files there are now, and what opens them."""
    from recsys_embed.exports.folder import ours
    from recsys_embed.exports.write import EXPORTS

    files = {str(path): path.stat().st_size for path in ours(out, to)}
    if json:
        return say_json({"out": str(out), "to": to, "files": files, **facts})
    say_table(["file", "bytes"], [[name, f"{size:,}"] for name, size in files.items()], "bytes")
    say("   ".join(f"{n:,} {name}" if isinstance(n, int) else f"{name} {n}" for name, n in facts.items()))
    names = list(files)
    near = " --neighbors neighbors" if neighbours else ""
    text = " --text title" if "items" in facts else ""
    opens = EXPORTS[to].opens.format(out=out, first=names[0], last=names[-1], near=near, text=text)
    return say(f"open it: {opens}")
