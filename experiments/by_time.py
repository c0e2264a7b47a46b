"""One global cut in time: ours beside recent popularity, EASE, and implicit ALS tuned on the same validation rows.

    python experiments/by_time.py movielens [--data-dir FOLDER]

Train, validation and test follow each other in time. Users and items of the later parts that have no earlier rating
stay in the test: nobody can rank for them but by popularity. ALS is `pip install implicit`, fitted again on train and
validation like the others; the settings are the best by validation NDCG@10.
"""

import sys

import numpy as np
from peers import ALS, als

from recsys_embed import DataConfig, RunConfig, load_dataset, run_experiment
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.evaluation.significance import paired


def main() -> None:
    name = sys.argv[1]
    folder = sys.argv[sys.argv.index("--data-dir") + 1] if "--data-dir" in sys.argv else None
    data = DataConfig(dataset=name, data_dir=folder, split="time")
    dataset = load_dataset(name, data)
    split = dataset.split(data)
    ours, report = run_experiment(
        data, None, None, RunConfig(track=False, out=f"models/{name}-by-time"), dataset=dataset
    )
    metrics = report["metrics"]
    print(f"ours {metrics['test']['ndcg_at_10']:.4f}")
    for other, found in metrics["baselines"].items():
        print(f"{other} {found['ndcg_at_10']:.4f}  ours against it: {found.get('difference')}")
    scores = []
    for settings in ALS:
        ranker = als(*settings, split.train)
        scores.append(
            rank_metrics(ranker, split.valid, split.train.seen(), split.train.item_counts, (10,)).metrics["ndcg_at_10"]
        )
    both = split.train.concat(split.valid)
    best = ALS[int(np.argmax(scores))]
    found = rank_metrics(als(*best, both), split.test, both.seen(), both.item_counts, (10,))
    assert ours.per_user is not None
    against = paired(ours.per_user["ndcg_at_10"].to_numpy(), found.per_user["ndcg_at_10"].to_numpy())
    print(f"implicit ALS {found.metrics['ndcg_at_10']:.4f}  (factors, regularization, alpha) {best}")
    print(f"ours against it: {against}")


if __name__ == "__main__":
    main()
