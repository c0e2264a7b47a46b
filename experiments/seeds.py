"""Does a training hold over seeds? Runs `recsys train` once a seed, as a user does, and prints the means.

    python experiments/seeds.py 0 1 2 -- --dataset movielens
    python experiments/seeds.py 0 1 2 -- --dataset movielens --loss mse

Everything behind `--` goes to `recsys train`; each seed draws its own split.
"""

import json
import subprocess
import sys
import tempfile
import time
from statistics import mean


def train(seed: str, options: list[str]) -> dict[str, float]:
    command = [sys.executable, "-m", "recsys_embed", "train", "--seed", seed, "--no-track", "--json", *options]
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*command, "--out", f"{folder}/model"], stdout=subprocess.PIPE, check=True, text=True)
    report = json.loads(done.stdout)
    metrics = report["metrics"]
    row = {"wall_s": time.perf_counter() - begin, "fit_s": report["seconds"]["fit"], "epochs": report["epochs"]}
    for name in ("rmse", "ndcg_at_10", "recall_at_20"):
        for part in ("valid", "test"):
            if name in metrics[part]:
                row[f"{part} {name}"] = metrics[part][name]
    for name, values in metrics["baselines"].items():
        row[name] = values["ndcg_at_10"]
    return row


def main() -> None:
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    rows = {seed: train(seed, words[cut + 1 :]) for seed in words[:cut] or ["0", "1", "2"]}
    names = list(next(iter(rows.values())))
    rows["mean"] = {n: mean(r[n] for r in rows.values()) for n in names}
    for name in names:
        print(f"{name:20}", *(f"{r[name]:9.4f}" for r in rows.values()))
    print(f"{'seed':20}", *(f"{s:>9}" for s in rows))
    if "ease" in names:
        print(f"test NDCG@10 over EASE: {rows['mean']['test ndcg_at_10'] / rows['mean']['ease']:.4f}")


if __name__ == "__main__":
    main()
