"""The default training against other methods, user by user: test NDCG@10, meant over splits.

    python experiments/against_peers.py movielens 0,1,2 [--data-dir FOLDER] [--preset NAME] [--peers EASE,ALS]

All choose on the same validation rows and are fitted again on train and validation; a user's difference is the mean of
the splits' in which they have test rows. ALS is `pip install implicit`.
"""

import argparse
import tempfile

import numpy as np
import polars as pl
from peers import all_peers

from recsys_embed import DataConfig, ModelConfig, RunConfig, TrainConfig, load_dataset, run_experiment
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import Split
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.evaluation.significance import paired
from recsys_embed.models.ranker import Ranker
from recsys_embed.presets import preset


def per_user(ranker: Ranker, rows: Ratings, test: Ratings) -> pl.DataFrame:
    found = rank_metrics(ranker, test, rows.excluded(), rows.item_counts, (10,)).per_user
    return found.select("user_id", "ndcg_at_10")


def measure(name: str, fits: list, split: Split) -> pl.DataFrame:
    """Return the test metric of each user with the settings that are best on validation data."""
    values = [per_user(fit(split.train), split.train, split.valid)["ndcg_at_10"].mean() for fit in fits]
    both, best = split.train.concat(split.valid), int(np.argmax(values))
    return per_user(fits[best](both), both, split.test).rename({"ndcg_at_10": name})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    parser.add_argument("seeds")
    parser.add_argument("--data-dir")
    parser.add_argument("--preset")
    parser.add_argument("--peers", default="EASE,RP3beta,cosine,ALS")
    args = parser.parse_args()
    model, begun = preset(args.preset) if args.preset else (ModelConfig(), TrainConfig())
    splits = []
    for seed in map(int, args.seeds.split(",")):
        data = DataConfig(dataset=args.dataset, data_dir=args.data_dir, split_seed=seed)
        dataset = load_dataset(args.dataset, data)
        split = dataset.split(data)
        train = TrainConfig(**{**vars(begun), "seed": seed})
        with tempfile.TemporaryDirectory() as folder:
            run = RunConfig(track=False, baselines=False, resamples=0, out=f"{folder}/model")
            ours, _ = run_experiment(data, model, train, run, dataset=dataset)
        assert ours.per_user is not None
        users = ours.per_user.select("user_id", ours="ndcg_at_10")
        for name, fits in all_peers(len(dataset.ratings.items)):
            if name in args.peers.split(","):
                users = users.join(measure(name, fits, split), on="user_id", validate="1:1")
        assert len(users) == len(ours.per_user)
        print(f"seed {seed} ", {n: round(v, 4) for n, v in users.drop("user_id").mean().row(0, named=True).items()})
        splits.append(users)
    users = pl.concat(splits).group_by("user_id", maintain_order=True).mean()
    for name in users.columns[2:]:
        found = paired(users["ours"].to_numpy(), users[name].to_numpy())
        sure = "clear" if found.significant else "not clear"
        print(f"{name}: {found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]  p {found.p:.4f}  {sure}")


if __name__ == "__main__":
    main()
