"""Is a training that is killed again and again the same in the end? `kill -9` at random moments, then the same command.

python experiments/faults/kills.py [KILLS] [DATASET] [OPTIONS …] trains once without interruption and once with so many
kills, each followed by the same command with --resume, and compares every array of the two models bit for bit. It also
checks that nothing is left beside the models. KILLS: 20. DATASET: made up, of 300,000 ratings.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from recsys_embed.storage.bundle import Bundle

DATASET = "synthetic:users=6000,items=3000,ratings=300000"


def main(kills: int, dataset: str, options: list[str]) -> int:
    """Train with and without kills; return the exit code."""
    draw, done, trainings, faults = random.Random(0), 0, 0, []
    train = [sys.executable, "-m", "recsys_embed", "train", dataset, "--no-track", *options]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        start = time.perf_counter()
        subprocess.run([*train, "--out", "plain"], cwd=folder, check=True, capture_output=True)
        whole = time.perf_counter() - start
        expected = arrays_of(folder / "plain")
        while done < kills and not faults:
            trainings += 1
            command = [*train, "--out", "killed", "--checkpoint-every", "0.01", "--resume"]
            while not run(command, folder, draw.uniform(0.2, 0.8) * whole if done < kills else None):
                done += 1
            found = arrays_of(folder / "killed")
            faults += [name for name in expected | found if expected.get(name) != found.get(name)]
            faults += [path.name for path in folder.iterdir() if path.name not in ("plain", "killed")]
            shutil.rmtree(folder / "killed")
    print(
        f"{whole:.1f} s without a kill; {done} kills in {trainings} trainings; {len(expected)} arrays; "
        f"differing, or left beside the models: {faults or 'none'}"
    )
    return int(bool(faults))


def run(command: list[str], folder: Path, seconds: float | None) -> bool:
    """Run a command, and kill it after so many seconds; return whether it ended before."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False
    if process.returncode:
        sys.exit(f"exit code {process.returncode}: {errors[-2000:]}")
    return True


def arrays_of(model: Path) -> dict[str, bytes]:
    """Return the arrays of a model folder by file and name."""
    files = Bundle.read(model).arrays.items()
    return {f"{file}: {name}": array.tobytes() for file, arrays in files for name, array in arrays.items()}


if __name__ == "__main__":
    kills, dataset, *options = [*sys.argv[1:], *("20", DATASET)[len(sys.argv) - 1 :]]
    sys.exit(main(int(kills), dataset, options))
