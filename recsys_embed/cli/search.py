"""recsys search: items by what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys_embed.cli.options import JSON, MODEL, K
from recsys_embed.cli.output import say, say_json, say_table
from recsys_embed.errors import SettingError

if TYPE_CHECKING:
    pass
from recsys_embed.cli.similar import load


def search(
    query: Annotated[str | None, typer.Argument(help="A text.")] = None,
    image: Annotated[Path | None, typer.Option(help="A picture, for models trained with --images.")] = None,
    item: Annotated[str | None, typer.Option(help="Instead: the words and tags nearest to this item.")] = None,
    k: K = 10,
    model: MODEL = None,
    json: JSON = False,
) -> None:
    """Find items by what is said of them, or the words that are nearest to an item.

    Example: recsys search "space opera with robots"
    """
    if (item is not None) == (query is not None or image is not None):
        raise SettingError("say what to look for: a text, --image FILE, or --item ID for its words")
    recommender, folder = load(model)
    if item is not None:
        id_ = recommender.find_item(item)
        near = recommender.nearest_tokens(id_, k)
        if json:
            return say_json({"item": id_, "words": near.to_dicts(), "model": str(folder)})
        title = recommender.table["title"].gather(recommender.items.rows([id_]))[0]
        say(f"Words nearest to {id_} {title}   model {folder}")
        return say_table(
            ["#", "column", "token", "cosine"], [[r, c, t, f"{s:.3f}"] for c, t, s, r in near.rows()], "# cosine"
        )
    table = recommender.search(query, k, image=image)
    if json:
        items = table.select(item="item_id", title="title", score="score", rank="rank").to_dicts()
        return say_json({"query": query, "items": items, "model": str(folder)})
    say(f"Nearest to {' and '.join(repr(str(asked)) for asked in (query, image) if asked)}   model {folder}")
    rows = [[r["rank"], r["item_id"], r["title"], f"{r['score']:.3f}"] for r in table.to_dicts()]
    return say_table(["#", "item", "title", "likeness"], rows, "# item likeness")
