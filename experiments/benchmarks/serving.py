"""How fast the service answers, beside an empty FastAPI endpoint that returns the same JSON (with and without a type,
for which FastAPI writes it three times as fast), and beside a plain FastAPI service around implicit.

    python experiments/benchmarks/serving.py MODEL [--seconds 8] [--rounds 2] [--requests 100000] [--out serving.json]

MODEL is a model folder of movielens-1m; RECSYS_DATA is where that data set is. The load is wrk's (apt-get install wrk):
one thread, a random user a request, k = 10, at 1, 16 and 64 connections; client and service share the machine. All
services run one uvicorn process with uvloop and httptools and no access log. Then 100,000 more requests go to ours, and
its memory is read before and after.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
LOAD = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
math.randomseed(7)
request = function() return wrk.format(nil, nil, nil, '{"user": ' .. math.random(1, 6040) .. ', "k": 10}') end
done = function(summary, latency)
  local e = summary.errors
  local rate = 1e6 * summary.requests / summary.duration
  io.write(string.format("FOUND %f %f %f %d\\n", rate, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def start(command, port, **environment):
    process = subprocess.Popen(command, env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment})
    for _ in range(600):
        try:
            ask(port)
            return process
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise SystemExit(f"{command} did not start")


def ask(port):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/recommend", b'{"user": 42, "k": 10}', {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return answer.read().decode()


def load(url, connections, seconds, script):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in said.splitlines() if line.startswith("FOUND"))
    return tuple(float(number) for number in line.split()[1:])


def memory(pid):
    """Resident megabytes."""
    (line,) = (x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=100_000, help="behind which memory is read again")
    parser.add_argument("--out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch) / "load.lua"
        script.write_text(LOAD)
        ours = [sys.executable, "-m", "recsys_embed", "serve", "--model", given.model, "--port", "8931"]
        ours += ["--events", f"{scratch}/events.db"]
        plain = [sys.executable, "-m", "uvicorn", "--no-access-log", "--log-level", "warning", "--app-dir"]
        plain += [str(HERE / "services")]
        running = {"recsys serve": ("127.0.0.1:8931/recommend", start(ours, 8931))}
        try:
            answer = ask(8931)
            empty = start([*plain, "empty:app", "--port", "8932"], 8932, ANSWER=answer)
            running["empty FastAPI"] = "127.0.0.1:8932/recommend", empty
            running["the same, typed"] = "127.0.0.1:8932/typed", empty
            peer = start([*plain, "peer:app", "--port", "8933"], 8933, DATASET="movielens-1m")
            running["FastAPI + implicit"] = "127.0.0.1:8933/recommend", peer
            report = measure(running, given, script)
        finally:
            for _, process in running.values():
                process.terminate()
    if given.out:
        Path(given.out).write_text(json.dumps(report, indent=1))


def measure(running, given, script):
    found = {}
    for url, _ in running.values():
        load(f"http://{url}", 16, 2, script)
    for _ in range(given.rounds):
        for connections in (1, 16, 64):
            for name, (url, _) in running.items():
                found.setdefault((name, connections), []).append(
                    load(f"http://{url}", connections, given.seconds, script)
                )
    print(f"{'':20} connections  requests/s    p50 ms    p99 ms  errors   p99 of empty")
    report = {}
    for (name, connections), runs in found.items():
        rate, p50, p99, errors = (median(run[at] for run in runs) for at in range(4))
        ratio = median(a[2] / b[2] for a, b in zip(runs, found["empty FastAPI", connections], strict=True))
        print(f"{name:20} {connections:11} {rate:11,.0f} {p50:9.2f} {p99:9.2f} {errors:7.0f} {ratio:14.2f}")
        report[f"{name} {connections}"] = {"rate": rate, "p50": p50, "p99": p99, "errors": errors, "of_empty": ratio}
    url, process = running["recsys serve"]
    before, count = memory(process.pid), 0.0
    while count < given.requests:
        count += load(f"http://{url}", 16, given.seconds, script)[0] * given.seconds
    after = memory(process.pid)
    print(f"memory of recsys serve: {before:.1f} MB before and {after:.1f} MB after {count:,.0f} more requests")
    return {**report, "memory": {"before": before, "after": after, "requests": count}}


if __name__ == "__main__":
    main()
