"""What recsys evaluate prints of --by and --probe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys_embed.cli.output import say, say_json, say_table

if TYPE_CHECKING:
    from recsys_embed.data.ratings import Ratings
    from recsys_embed.evaluation.evaluate import Report
    from recsys_embed.evaluation.slices import Slices
    from recsys_embed.recommender import Recommender


def say_slices(part: Slices, report: Report) -> None:
    """Print a test in parts, with what it is over all."""
    k, shown = part.k, part.exposure
    overall = "   ".join(f"{n}_at_{k} {report.metrics[f'{n}_at_{k}']:.4f}" for n in ("ndcg", "recall", "precision"))
    say(f"over all: {overall}")
    say(
        f"lists of {k}: {shown['coverage']:.1%} of the rated items stand in one; Gini {shown['gini']:.3f}; "
        f"{shown['half']:,} items take half of all places"
    )
    say()
    (_say_users if part.side == "users" else _say_items)(part)


def _say_users(part: Slices) -> None:
    names = ("ndcg", "recall", "precision", "mrr", "hit")
    heads = ["ratings of the user", "users", *(f"{n}_at_{part.k}" for n in names), "95 % of ndcg"]
    lines = [
        [row["name"], f"{row['users']:,}", *(_number(row[n]) for n in names), _span(row["ndcg_interval"])]
        for row in part.rows
    ]
    say_table(heads, lines, " ".join(heads[1:-1]))


def _say_items(part: Slices) -> None:
    recall = f"recall_at_{part.k}"
    heads = [part.by, "items", "train", "test", "shown", "coverage", "rows", "users", recall, "95 % interval"]
    lines = [
        [
            row["name"], f"{row['items']:,}", *(f"{row[n]:.1%}" for n in ("train", "test", "shown", "coverage")),
            f"{row['test_ratings']:,}", f"{row['users']:,}", _number(row["recall"]), _span(row["recall_interval"]),
        ]
        for row in part.rows
    ]  # fmt: skip
    say_table(heads, lines, f"items train test shown coverage rows users {recall}")
    if part.left_out:
        say(f"{part.left_out:,} more, with fewer items each, are not shown")
    say(
        "train, test, shown: shares of the training ratings, the test ratings, the places in lists; rows: test ratings",
        dim=True,
    )
    say(f"{recall}: of a user's test ratings in the part, the share in the list; mean over the users who have any",
        dim=True)  # fmt: skip


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4f}"


def _span(ends: list[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}"


def probe(recommender: Recommender, folder: Path, name: str, test: Callable[[], Ratings], json: bool) -> None:
    """Print what the vectors know: of a column of the item table, or, for "links", of test ratings (read then)."""
    from recsys_embed.evaluation.probes import probe_column, probe_links

    found = probe_links(recommender, test()) if name == "links" else probe_column(recommender, name)
    if json:
        return say_json({"model": str(folder), "probe": {"of": name, **found}})
    say(f"model {folder}   vectors of {recommender.model.dim}")
    return _say_links(found) if name == "links" else _say_column(found)


def _say_column(found: dict[str, Any]) -> None:
    name = found["column"]
    say(
        f"{name} of {found['items']:,} rated items, read in their vectors by logistic regression; AUC on items left out"
    )
    say(f"mean AUC {found['auc']:.3f}; from popularity alone {found['popularity']:.3f}; by chance 0.500")
    if found["told"]:
        say(f"the model was trained with {name}, so its vectors were told")
    say()
    lines = [[t["name"], f"{t['items']:,}", f"{t['auc']:.3f}", f"{t['popularity']:.3f}"] for t in found["tags"]]
    say_table([name, "items", "AUC", "popularity"], lines, "items AUC popularity")


def _say_links(found: dict[str, Any]) -> None:
    say(
        f"{found['rows']:,} test ratings of {found['users']:,} users, each against {found['negatives']} items "
        "that the user is not known to have rated"
    )
    say("AUC, within users (chance: 0.5)")
    say()
    lines = []
    for kind, title in (("uniform", "any item"), ("matched", "as popular")):
        part = found[kind]
        vectors = f"{part['vectors']:.3f}" if "vectors" in part else ""
        lines.append([title, f"{part['model']:.3f}", "{:.3f} to {:.3f}".format(*part["interval"]), vectors])
        lines[-1].append(f"{part['popularity']:.3f}")
    say_table(["against", "model", "95 %", "no_biases", "popularity"], lines, "model no_biases popularity")
