"""Is a training above EASE, surely? Per-user test NDCG@10 of both, meant over splits, paired over the users.

    python experiments/against_ease.py movielens 0,1,2,3,4 [--data-dir FOLDER] [--preset NAME]

Both choose on validation rows and are fitted again on train and validation; a user's difference is the mean of the
splits' in which they have test rows.
"""

import argparse
import tempfile

import polars as pl

from recsys_embed import DataConfig, RunConfig, TrainConfig, load_dataset, run_experiment
from recsys_embed.evaluation.baselines import choose_ease
from recsys_embed.evaluation.evaluate import rank_metrics
from recsys_embed.evaluation.significance import paired
from recsys_embed.models.ease import Ease
from recsys_embed.presets import preset


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    parser.add_argument("seeds")
    parser.add_argument("--data-dir")
    parser.add_argument("--preset")
    args = parser.parse_args()
    model, begun = preset(args.preset) if args.preset else (None, TrainConfig())
    parts = []
    for seed in map(int, args.seeds.split(",")):
        data = DataConfig(dataset=args.dataset, data_dir=args.data_dir, split_seed=seed)
        dataset = load_dataset(args.dataset, data)
        split = dataset.split(data)
        train = TrainConfig(**{**vars(begun), "seed": seed})
        with tempfile.TemporaryDirectory() as folder:
            run = RunConfig(track=False, baselines=False, resamples=0, out=f"{folder}/model")
            ours, _ = run_experiment(data, model, train, run, dataset=dataset)
        both = split.train.concat(split.valid)
        ease = Ease(both).fit(choose_ease(Ease(split.train), split.train, split.valid))
        theirs = rank_metrics(ease, split.test, both.seen(), both.item_counts, (10,)).per_user
        assert ours.per_user is not None
        one = ours.per_user.select("user_id", ours="ndcg_at_10")
        two = theirs.select("user_id", ease="ndcg_at_10")
        joined = one.join(two, on="user_id")
        assert len(joined) == len(one)
        means = joined.select("ours", "ease").mean().row(0)
        print(f"seed {seed}  NDCG@10 {means[0]:.4f}  EASE {means[1]:.4f}", flush=True)
        parts.append(joined)
    users = pl.concat(parts).group_by("user_id", maintain_order=True).mean()
    found = paired(users["ours"].to_numpy(), users["ease"].to_numpy())
    sure = "clear" if found.significant else "not clear"
    print(f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]  p {found.p:.4f}  {found.users} users: {sure}")


if __name__ == "__main__":
    main()
