"""Ten first trainings at once in one fresh folder: does each end well, and is the store whole?

python experiments/faults/first_trainings.py [PROCESSES] [SECONDS]

Every process is `recsys train tiny.csv`, with the same mlflow.db and models/, which none has made before.
Prints the counts, and ends with 1 if one is not what it must be.
"""

import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from recsys_embed import Recommender, load_dataset
from recsys_embed.storage.model_folders import list_model_folders
from recsys_embed.tracking.store import open_store


def main(n: int, seconds: float) -> bool:
    """Run n trainings at once, for at most so many seconds; print what became of them; return whether all is well."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        load_dataset("synthetic:users=60,items=40,ratings=900").ratings.frame().write_csv(folder / "tiny.csv")
        command = [sys.executable, "-m", "recsys_embed", "train", "tiny.csv", "--epochs", "2", "--dim", "4"]
        command += ["--threads", "1", "--no-map", "--json"]
        start = time.monotonic()
        processes = [
            subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(n)
        ]
        outputs = []
        for process in processes:
            try:
                outputs.append(process.communicate(timeout=max(1.0, start + seconds - time.monotonic())))
            except subprocess.TimeoutExpired:  # counted by its exit code
                process.kill()
                outputs.append(process.communicate())
        codes = Counter(process.returncode for process in processes)
        for process, (_, notes) in zip(processes, outputs, strict=True):
            warnings = [line for line in notes.splitlines() if line.startswith(("warning", "error", "recsys"))]
            if process.returncode or "MLflow failed" in notes:
                print("\n".join(warnings) or notes[-2000:])
        client = open_store(f"sqlite:///{folder}/mlflow.db")
        runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
        statuses = Counter(run.info.status for run in runs)
        models = list_model_folders(folder / "models")
        whole = [path for path, _ in models if len(Recommender.load(path).recommend(1, k=3)) == 3]
        connection = sqlite3.connect(folder / "mlflow.db")
        integrity = connection.execute("PRAGMA integrity_check").fetchone()[0]
        connection.close()
        reported = {json.loads(out)["run_id"] for out, _ in outputs if out}
        left = sorted(file.name for file in (folder / "models").iterdir() if file.name[0] == ".")
        facts = {
            "seconds": round(time.monotonic() - start, 1),
            "exit codes": dict(codes),
            "runs": dict(statuses),
            "runs that the trainings name": len(reported & {run.info.run_id for run in runs}),
            "whole models": len(whole),
            "experiments": len(client.search_experiments()),
            "store": integrity,
            "left in models/": left,
        }
        for name, value in facts.items():
            print(f"{name:30} {value}")
        expected = {"exit codes": {0: n}, "runs": {"FINISHED": n}, "runs that the trainings name": n, "whole models": n}
        expected |= {"store": "ok", "left in models/": [".recsys-place"]}
        return all(facts[name] == value for name, value in expected.items())


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(0 if main(int(given[0]) if given else 10, float(given[1]) if given[1:] else 480.0) else 1)
