"""recsys search: find items by text or picture, or words by item."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys_embed.cli.loading import load
from recsys_embed.cli.options import JSON, MODEL, K
from recsys_embed.cli.output import echo, print_json, print_table
from recsys_embed.errors import SettingError


def search(
    query: Annotated[str | None, typer.Argument(help="A text.")] = None,
    image: Annotated[Path | None, typer.Option(help="A picture, for models trained with --images.")] = None,
    item: Annotated[str | None, typer.Option(help="Instead: the words and tags nearest to this item.")] = None,
    k: K = 10,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """Find items by their content, or the words that are nearest to an item.

    Example: recsys search "space opera with robots"
    """
    if (item is not None) == (query is not None or image is not None):
        raise SettingError("say what to look for: a text, --image FILE, or --item ID for its words")
    recommender, folder = load(model)
    if item is not None:
        item_id = recommender.find_item(item)
        tokens = recommender.nearest_tokens(item_id, k)
        if json:
            return print_json({"item": item_id, "words": tokens.to_dicts(), "model": str(folder)})
        title = recommender.table["title"].gather(recommender.items.rows([item_id]))[0]
        echo(f"Words nearest to {item_id} {title}   model {folder}")
        lines = [[rank, column, token, f"{cosine:.3f}"] for column, token, cosine, rank in tokens.rows()]
        return print_table(["#", "column", "token", "cosine"], lines, "# cosine")
    table = recommender.search(query, k, image=image)
    if json:
        items = table.select(item="item_id", title="title", score="score", rank="rank").to_dicts()
        return print_json({"query": query, "items": items, "model": str(folder)})
    echo(f"Nearest to {' and '.join(repr(str(given)) for given in (query, image) if given)}   model {folder}")
    rows = [[r["rank"], r["item_id"], r["title"], f"{r['score']:.3f}"] for r in table.to_dicts()]
    return print_table(["#", "item", "title", "similarity"], rows, "# item similarity")
