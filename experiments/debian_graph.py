"""Debian's packages as a graph, beside what a graph alone says: which package goes with which?

    python experiments/debian_graph.py FOLDER [--least 5] [-- OPTIONS OF recsys train]

Writes FOLDER/edges.csv (source,target) and FOLDER/nodes.csv (item_id,title,section), where they are not there yet, from
`apt-cache dumpavail`: an edge is a Depends or Pre-Depends (the first of alternatives), without direction; then nodes of
fewer than LEAST edges go, again and again until there are none. `recsys train --is_graph-ids`
splits the edges 80/10/10, chooses its epochs on validation edges and is fitted again on train and validation. All are
measured on the test edges and know the same others: NDCG@10 of full lists, and the AUC of an edge against ten pairs
without one (`recsys evaluate --probe links`), the other node drawn at random ("any") or among those of about the same
degree ("as popular").
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix, diags

from recsys_embed import DataConfig, Recommender, load_dataset
from recsys_embed.data.ratings import Ratings
from recsys_embed.evaluation import probes as probe
from recsys_embed.evaluation.evaluate import align_to_model, rank_metrics
from recsys_embed.models.ease import EASE_MAX_ITEMS
from recsys_embed.models.ranker import Ranker
from recsys_embed.retrieval.exact import ExactIndex


def packages() -> tuple[set[tuple[str, str]], dict[str, tuple[str, str]]]:
    """Return the edges, lower name first, and each package's description and section."""
    text = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    fields = [
        dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and not line.startswith(" "))
        for entry in text.split("\n\n")
    ]
    known = {f["Package"]: f for f in fields if "Package" in f}
    edges = set()
    for name, said in known.items():
        for part in f"{said.get('Pre-Depends', '')},{said.get('Depends', '')}".split(","):
            other = part.split("|")[0].strip().split(" ")[0].split(":")[0]
            if other in known and other != name:
                edges.add((min(name, other), max(name, other)))
    return edges, {name: (said.get("Description", name), said.get("Section", "")) for name, said in known.items()}


def dense(edges: np.ndarray, least: int) -> np.ndarray:
    """Return the edges [n, 2] that are left when nodes of fewer than `least` of them have gone."""
    while True:
        names, at = np.unique(edges, return_inverse=True)
        at = at.reshape(edges.shape)
        good = np.bincount(at.ravel(), minlength=len(names))[at].min(axis=1) >= least
        if good.all():
            return edges
        edges = edges[good]


def write(folder: Path, least: int) -> None:
    """Write the edges, and what is known of their nodes."""
    edges, said = packages()
    kept = dense(np.array(sorted(edges)), least)
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame({"source": kept[:, 0], "target": kept[:, 1]}).write_csv(folder / "edges.csv")
    names = np.unique(kept).tolist()
    about, sections = zip(*(said[name] for name in names), strict=True)
    titles = [f"{name}: {text}" for name, text in zip(names, about, strict=True)]
    pl.DataFrame({"item_id": names, "title": titles, "section": sections}).write_csv(folder / "nodes.csv")


def by_graph(adjacent: csr_matrix, degree: np.ndarray) -> dict[str, csr_matrix]:
    """Return scores of pairs of nodes.

    Each common neighbour counts by its degree, the less the higher; L3 (Kovács et al., Nature Communications 2019)
    counts paths of three edges by the degrees of the two nodes between.
    """
    weights = {
        "common neighbours": np.ones(len(degree)),
        "Adamic-Adar": 1 / np.log(np.maximum(degree, 2)),
        "resource allocation": 1 / np.maximum(degree, 1),
    }
    found = {name: (adjacent @ diags(w.astype(np.float32)) @ adjacent).tocsr() for name, w in weights.items()}
    if len(degree) <= EASE_MAX_ITEMS:  # paths of three: nearly every pair has one
        root = diags((np.maximum(degree, 1) ** -0.5).astype(np.float32))
        found["L3"] = (adjacent @ root @ adjacent @ root @ adjacent).tocsr()
    return found


def auc(test: Ratings, negative: np.ndarray, score: csr_matrix | np.ndarray) -> float:
    """Return what `probe_links` does, the mean over nodes, for scores of pairs, or of nodes."""
    if score.ndim == 2:
        ask = lambda user, item: np.asarray(score[user, item]).ravel()  # noqa: E731
    else:
        ask = lambda user, item: score[item]  # noqa: E731
    theirs = ask(np.repeat(test.user, negative.shape[1]), negative.ravel()).reshape(negative.shape)
    mine = ask(test.user, test.item)[:, None]
    right = ((mine > theirs) + 0.5 * (mine == theirs)).mean(axis=1)
    rated = np.bincount(test.user)
    return float((np.bincount(test.user, right) / np.maximum(rated, 1))[rated > 0].mean())


def measure(folder: Path, options: list[str]) -> None:
    """Train, where FOLDER/model is not there yet, and print a line for each method."""
    files = ["--dataset", f"{folder}/edges.csv", "--items", f"{folder}/nodes.csv", "--shared-ids"]
    command = [sys.executable, "-m", "recsys_embed", "train", *files, "--no-track", "--out", f"{folder}/model"]
    if not (folder / "model").exists():
        subprocess.run([*command, *options], check=True)
    ours = Recommender.load(folder / "model")
    settings, metrics = ours.metadata["settings"], ours.metadata["metrics"]
    data = DataConfig(files[1], split_seed=settings["split_seed"], shared_ids=True)
    dataset = load_dataset(files[1], data)
    test, _ = align_to_model(ours, dataset.split(data).test)
    found = probe.probe_links(ours, test)
    known = probe.known_items(ours, test)
    negatives = [probe.draw_unknown(test, known, ours.item_counts, matched) for matched in (False, True)]
    print(f"{'':22}{'NDCG@10':>9}{'AUC any':>9}{'AUC as popular':>16}")

    def line(name: str, ndcg: float, aucs: list[float]) -> None:
        print(f"{name:22}{ndcg:9.4f}{aucs[0]:9.4f}{aucs[1]:16.4f}", flush=True)

    line("this model", metrics["test"]["ndcg_at_10"], [found[kind]["model"] for kind in ("uniform", "matched")])
    for name in ("popularity", "ease"):
        if name in metrics["baselines"]:
            aucs = [auc(test, other, ours.item_counts) for other in negatives] if name == "popularity" else [np.nan] * 2
            line(name, metrics["baselines"][name]["ndcg_at_10"], aucs)
    nodes, at = ours.seen.pairs_of(np.arange(len(ours.users)))
    adjacent = csr_matrix((np.ones(len(at), np.float32), (nodes, at)), shape=(len(ours.users),) * 2)
    for name, score in by_graph(adjacent, ours.item_counts).items():
        ranker = Ranker(ExactIndex(np.zeros((len(ours.items), 0)), lambda q, _: q), lambda u, s=score: s[u].toarray())
        ndcg = rank_metrics(ranker, test, ours.excluded, ours.item_counts).metrics["ndcg_at_10"]
        line(name, ndcg, [auc(test, other, score) for other in negatives])


def main() -> None:
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--least", type=int, default=5)
    asked = parser.parse_args(words[:cut])
    if not (asked.folder / "edges.csv").exists():
        write(asked.folder, asked.least)
    measure(asked.folder, words[cut + 1 :])


if __name__ == "__main__":
    main()
