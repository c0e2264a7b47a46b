"""Cold items: what descriptions are worth, beside what else could be done with them.

python experiments/cold_items.py SEEDS -- OPTIONS OF recsys train …
    e.g. python experiments/cold_items.py 0 1 2 --also id glove minilm=FILE lightfm -- --dataset movielens
         --text title,genres,year

For every seed: `recsys train --split cold-items` with the options; the same without descriptions ("id"), with GloVe
("glove"), with ready-made sentence vectors instead of texts ("minilm=FILE", see sentences.py); kernel ridge with its
block weights tuned too, not its regularization alone; and lightfm-next ("lightfm"; WARP, d = 64), its features and
epochs chosen on validation. Every line is appended to cold_items.jsonl.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
from scipy import sparse

from recsys_embed.cli.main import app
from recsys_embed.config.settings import ContentConfig, DataConfig
from recsys_embed.data.item_table import align_items
from recsys_embed.evaluation.cold_start import cold_metrics, cold_only_metrics
from recsys_embed.features.encoder import Features
from recsys_embed.features.item_features import encode_items
from recsys_embed.models.content_ridge import LAMBDAS, ContentRidge
from recsys_embed.models.ranker import Ranker
from recsys_embed.retrieval.exact import ExactIndex
from recsys_embed.sources.load import load_dataset

NAMES = ("ndcg_at_10", "recall_at_20", "auc")
# Weights of a column, by what it holds: the search space of kernel ridge.
SPACE = [
    {"words": w, "tags": 1.0, "people": p, "number": n}
    for w, p, n in product((0.1, 0.25, 1.0), (0.15, 1.0), (1.0, 2.0))
]
PEOPLE = 100  # a column of more tags than this holds people rather than genres


def train(options: list[str], seed: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "recsys_embed", "--quiet", "train", *options, "--split", "cold-items"]
        command += ["--seed", str(seed), "--no-track", "--json", "--out", f"{folder}/model"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def without_descriptions(options: list[str]) -> list[str]:
    kept, skip = [], False
    for option in options:
        skip = option in ("--text", "--tags", "--words", "--vectors") or (skip and not option.startswith("--"))
        kept += [] if skip else [option]
    return kept


def data(options: list[str], seed: int):
    """Load and split as the command does."""
    import typer

    context = typer.main.get_command(app).commands["train"].make_context("train", [*options, "--split", "cold-items"])
    values = context.params
    config = DataConfig(**{f: values[f] for f in DataConfig.__dataclass_fields__} | {"split_seed": seed})
    content = ContentConfig(**{f: values[f] for f in ContentConfig.__dataclass_fields__})
    dataset = load_dataset(config.dataset, config).with_unrated_items()
    descriptions = encode_items(align_items(dataset.items, dataset.ratings.items), content, config.data_dir)
    return dataset.split(config), descriptions


def tuned_ridge(split, descriptions) -> dict:
    """Choose block weights and regularization of kernel ridge on validation; measure on test, fitted on both."""
    both = split.train.concat(split.valid)

    def weighted(weights):
        scale = []
        for column in descriptions.encoder.columns:
            kind = "people" if column.kind == "tags" and column.size > PEOPLE else column.kind
            own = {"words": 0.25, "tags": 1.0, "number": 1.0}[column.kind]
            scale += [(weights[kind] / own) ** 0.5] * column.size
        bag = descriptions.features.bag @ sparse.diags(np.array(scale, np.float32))
        return Features(sparse.csr_matrix(bag), descriptions.features.dense)

    def quality(choice):
        ranker = ContentRidge(weighted(choice[0]), split.train).fit(choice[1])
        return cold_only_metrics(ranker, split.valid, split.train.item_counts)["ndcg_at_10"]

    best = max(product(SPACE, LAMBDAS), key=quality)
    ranker = ContentRidge(weighted(best[0]), both).fit(best[1])
    return {**cold_metrics(ranker, split.test, both.seen(), both.item_counts), "chosen": best}


def lightfm(split, descriptions) -> dict:
    from lightfm import LightFM

    bag = descriptions.features.bag
    tags = np.repeat(
        [c.kind != "words" for c in descriptions.encoder.columns], [c.size for c in descriptions.encoder.columns]
    )
    ones = sparse.identity(bag.shape[0], format="csr", dtype=np.float32)

    def normed(table):
        total = np.asarray(table.sum(axis=1)).ravel()
        return sparse.csr_matrix(sparse.diags((1 / np.where(total > 0, total, 1)).astype(np.float32)) @ table)

    # lightfm-next sums a row's features, so rows are brought to the sum one, beside the id.
    features = {
        "tags": normed(bag[:, tags]),
        "tags+id": sparse.hstack((ones, normed(bag[:, tags])), format="csr"),
        "all": normed(bag),
        "all+id": sparse.hstack((ones, normed(bag)), format="csr"),
    }

    def ranker(model, table):
        bias, vectors = model.get_item_representations(table)
        _, users = model.get_user_representations()
        keys = np.column_stack((vectors, bias)).astype(np.float32)
        return Ranker(
            ExactIndex(keys), lambda rows: np.column_stack((users[rows], np.ones(len(rows)))).astype(np.float32)
        )

    def matrix(part):
        shape = (len(part.users), len(part.items))
        return sparse.coo_matrix((np.ones(len(part), np.float32), (part.user, part.item)), shape=shape)

    def fitted(part, name, epochs, measure):
        model = LightFM(no_components=64, loss="warp", learning_rate=0.05, random_state=0)
        found = {}
        for epoch in range(1, max(epochs) + 1):
            model.fit_partial(matrix(part), item_features=features[name], epochs=1, num_threads=2)
            if epoch in epochs:
                found[epoch] = measure(ranker(model, features[name]))
        return found

    choices = {}
    for name in features:
        measured = fitted(
            split.train, name, (5, 10, 20, 30), lambda r: cold_only_metrics(r, split.valid, split.train.item_counts)
        )
        choices |= {(name, epoch): value["ndcg_at_10"] for epoch, value in measured.items()}
    name, epochs = max(choices, key=choices.get)
    both = split.train.concat(split.valid)
    result = fitted(both, name, (epochs,), lambda r: cold_metrics(r, split.test, both.seen(), both.item_counts))[epochs]
    return {**result, "chosen": [name, epochs]}


def variants(options: list[str], also: list[str]) -> dict[str, list[str]]:
    """Return the options of every run of `recsys train`, by name."""
    runs, bare = {"text": options}, without_descriptions(options)
    for wanted in also:
        name, _, value = wanted.partition("=")
        if name == "id":
            runs["id"] = [*bare, "--no-baselines"]
        elif name == "glove":
            runs["text, glove"] = [*options, "--vectors", "glove-6b-50d"]
        elif name == "minilm":
            runs["sentences"] = [*bare, "--item-vectors", value, "--no-baselines"]
            runs["text, sentences"] = [*options, "--item-vectors", value, "--no-baselines"]
    return runs


class Notes:
    """Prints every result and keeps it in cold_items.jsonl."""

    def __init__(self) -> None:
        self.lines: list[dict] = []

    def add(self, seed: int, name: str, cold: dict, seconds: float, warm: float | None = None) -> None:
        kept = {k: v for k, v in cold.items() if k != "baselines"}
        self.lines.append({"name": name, "seed": seed, "warm": warm, "seconds": round(seconds, 1), **kept})
        with Path("cold_items.jsonl").open("a") as file:
            file.write(json.dumps(self.lines[-1], default=str) + "\n")
        numbers = [f"{part[n]:.4f}" for part in (cold, cold["all"]) for n in NAMES]
        print(
            seed, f"{name:24}", *numbers, warm and f"{warm:.4f}", f"{seconds:.0f} s", cold.get("chosen", ""), flush=True
        )

    def means(self) -> None:
        for name in dict.fromkeys(line["name"] for line in self.lines):
            own = [line for line in self.lines if line["name"] == name]
            numbers = [np.mean([part[n] for part in parts]) for parts in (own, [o["all"] for o in own]) for n in NAMES]
            warm = [line["warm"] for line in own if line["warm"]]
            print(f"{name:24}", *(f"{m:.4f}" for m in numbers), f"{np.mean(warm):.4f}" if warm else "")


def main() -> None:
    cut = sys.argv.index("--")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--also", nargs="*", default=[])
    given, options = parser.parse_args(sys.argv[1:cut]), sys.argv[cut + 1 :]
    notes = Notes()
    print("among the cold items, among all:", *NAMES, "; warm ndcg_at_10; seconds of the fit")
    for seed in given.seeds:
        for name, chosen in variants(options, given.also).items():
            report = train(chosen, seed)
            metrics = report["metrics"]
            notes.add(seed, name, metrics["cold"], report["seconds"]["fit"], metrics["test"]["ndcg_at_10"])
            for other, values in metrics["cold"]["baselines"].items():
                if name == "text" or other == "word_neighbours":
                    notes.add(seed, other, values, 0.0)
        split, descriptions = data(options, seed)
        for name, measure in (("content_ridge, weights", tuned_ridge), ("lightfm", lightfm)):
            if name != "lightfm" or "lightfm" in given.also:
                begin = time.perf_counter()
                notes.add(seed, name, measure(split, descriptions), time.perf_counter() - begin)
    print("means")
    notes.means()


if __name__ == "__main__":
    main()
