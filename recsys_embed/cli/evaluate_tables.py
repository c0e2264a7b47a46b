"""Tables that recsys evaluate prints for --by and --probe, and for cold items."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys_embed.cli.output import echo, print_json, print_table

if TYPE_CHECKING:
    from recsys_embed.data.ratings import Ratings
    from recsys_embed.evaluation.evaluate import Report
    from recsys_embed.evaluation.slices import Slices
    from recsys_embed.recommender import Recommender


def print_slices(slices: Slices, report: Report) -> None:
    """Print the metrics of slices, and those of the whole test."""
    k, exposure = slices.k, slices.exposure
    overall = "   ".join(f"{n}_at_{k} {report.metrics[f'{n}_at_{k}']:.4f}" for n in ("ndcg", "recall", "precision"))
    echo(f"overall: {overall}")
    echo(
        f"lists of {k} hold {exposure['coverage']:.1%} of the rated items; Gini {exposure['gini']:.3f}; "
        f"{exposure['half']:,} items take half of all places"
    )
    echo()
    (_print_user_slices if slices.side == "users" else _print_item_slices)(slices)


def _print_user_slices(slices: Slices) -> None:
    metrics = ("ndcg", "recall", "precision", "mrr", "hit")
    names = ["ratings of the user", "users", *(f"{metric}_at_{slices.k}" for metric in metrics), "95 % of ndcg"]
    lines = [
        [row["name"], f"{row['users']:,}", *(_number(row[metric]) for metric in metrics), _span(row["ndcg_interval"])]
        for row in slices.rows
    ]
    print_table(names, lines, " ".join(names[1:-1]))


def _print_item_slices(slices: Slices) -> None:
    recall = f"recall_at_{slices.k}"
    names = [slices.by, "items", "train", "test", "shown", "coverage", "rows", "users", recall, "95 % interval"]
    lines = [
        [
            row["name"], f"{row['items']:,}", *(f"{row[n]:.1%}" for n in ("train", "test", "shown", "coverage")),
            f"{row['test_ratings']:,}", f"{row['users']:,}", _number(row["recall"]), _span(row["recall_interval"]),
        ]
        for row in slices.rows
    ]  # fmt: skip
    print_table(names, lines, f"items train test shown coverage rows users {recall}")
    if slices.n_skipped:
        echo(f"{slices.n_skipped:,} more, with fewer items each, are left out")
    echo("train, test, shown: shares of the training ratings, of the test ratings (rows) and of all places in lists",
         dim=True)  # fmt: skip
    echo(f"{recall}: share of a user's test ratings of these items that is in the list; mean over users who have any",
         dim=True)  # fmt: skip


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4f}"


def _span(ends: list[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}"


def probe(recommender: Recommender, folder: Path, name: str, test: Callable[[], Ratings], json: bool) -> None:
    """Probe the vectors for a column of the item table, or for "links", and print the result.

    test: returns the test ratings, which only "links" needs.
    """
    from recsys_embed.evaluation.probes import probe_column, probe_links

    result = probe_links(recommender, test()) if name == "links" else probe_column(recommender, name)
    if json:
        return print_json({"model": str(folder), "probe": {"of": name, **result}})
    echo(f"model {folder}   vectors of {recommender.model.dim}")
    return _print_link_probe(result) if name == "links" else _print_column_probe(result)


def _print_column_probe(result: dict[str, Any]) -> None:
    name = result["column"]
    echo(f"{name} of {result['items']:,} rated items, by logistic regression on their vectors; AUC on items left out")
    echo(f"mean AUC {result['auc']:.3f}; from popularity alone {result['popularity']:.3f}; by chance 0.500")
    if result["told"]:
        echo(f"the model was trained with {name}, so its vectors contain it")
    echo()
    lines = [[tag["name"], f"{tag['items']:,}", f"{tag['auc']:.3f}", f"{tag['popularity']:.3f}"]
             for tag in result["tags"]]  # fmt: skip
    print_table([name, "items", "AUC", "popularity"], lines, "items AUC popularity")


def _print_link_probe(result: dict[str, Any]) -> None:
    echo(
        f"{result['rows']:,} test ratings of {result['users']:,} users, each against {result['negatives']} items "
        "that the user is not known to have rated"
    )
    echo("AUC, within users (chance: 0.5)")
    echo()
    lines = []
    for kind, title in (("uniform", "any item"), ("matched", "as popular")):
        aucs = result[kind]
        vectors = f"{aucs['vectors']:.3f}" if "vectors" in aucs else ""
        interval = "{:.3f} to {:.3f}".format(*aucs["interval"])
        lines.append([title, f"{aucs['model']:.3f}", interval, vectors, f"{aucs['popularity']:.3f}"])
    print_table(["against", "model", "95 %", "no_biases", "popularity"], lines, "model no_biases popularity")


def print_cold(cold: dict[str, Any]) -> None:
    """Print how cold items are ranked, by the model and by the baselines that were measured."""
    metrics = ("ndcg_at_10", "recall_at_20", "auc")
    echo(f"cold: {cold['items']:,} items without a training rating, {cold['users']:,} users, ranked among themselves")
    echo("(columns with all: known and cold items ranked together)")
    lines = [
        [name, *(f"{part[metric]:.4f}" for part in (values, values["all"]) for metric in metrics)]
        for name, values in {"this model": cold, **cold["baselines"]}.items()
    ]
    names = ["", *metrics, *(f"all {metric}" for metric in metrics)]
    print_table(names, lines, "ndcg_at_10 recall_at_20 auc")
