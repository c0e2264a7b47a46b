"""Is an acknowledged event ever lost, or a request while models are swapped?

    python experiments/serving_faults.py MODEL OTHER [--events 10000] [--senders 4] [--workers 1]

1. `kill -9` in the middle: senders post single events, each under a name of its own; at a random moment in the middle
   the service is killed, started again on the same file, and the senders send again whatever was not acknowledged. In
   the end every event must be there once, and at the kill every acknowledged one.
2. Swaps: while four clients ask without a pause, the link that the service watches changes between MODEL and OTHER,
   twenty times and back. Every request must be answered.
"""

import argparse
import http.client
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PORT = 8941


def start(model, events, *more):
    command = [sys.executable, "-m", "recsys_embed", "--quiet", "serve", "--model", str(model), "--port", str(PORT)]
    process = subprocess.Popen([*command, "--events", str(events), *more], stdout=subprocess.DEVNULL)
    while True:
        try:
            if ask("GET", "/ready")[0] == 200:
                return process
        except OSError:
            time.sleep(0.05)


def ask(method, path, body=None, connection=None):
    connection = connection or http.client.HTTPConnection("127.0.0.1", PORT, timeout=20)
    connection.request(method, path, json.dumps(body) if body else None, {"content-type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def killed(model, scratch, given):
    events, acknowledged, lock = scratch / "events.db", set(), threading.Lock()
    names = [f"event {n}" for n in range(given.events)]
    process = start(model, events)
    at = random.Random(time.time()).randrange(given.events // 4, 3 * given.events // 4)

    def send(mine):
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=20)
        for name in mine:
            body = {"events": [{"user": f"user {hash(name) % 500}", "item": name, "id": name, "rating": 4}]}
            try:
                if ask("POST", "/events", body, connection)[0] == 200:
                    with lock:
                        acknowledged.add(name)
                        if len(acknowledged) == at:
                            process.kill()
            except (OSError, http.client.HTTPException):
                return

    def everybody():
        left = [n for n in names if n not in acknowledged]
        threads = [threading.Thread(target=send, args=(left[s :: given.senders],)) for s in range(given.senders)]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(left), time.perf_counter() - begin

    everybody()
    process.wait()
    told, there = set(acknowledged), kept(events)
    assert told <= set(there) and len(there) == len(set(there)), "an acknowledged event is gone, or one is there twice"
    print(
        f"killed after {len(told):,} acknowledged events of {len(names):,}: {len(there):,} are on the disk, each once"
    )
    at = -1
    process = start(model, events)
    sent, took = everybody()
    process.terminate()
    process.wait()
    there = kept(events)
    assert sorted(there) == sorted(names), "an event is missing, or there twice"
    print(f"restarted, {sent:,} sent again: {len(there):,} events, each once; {sent / took:,.0f} single events/s")


def kept(events):
    return [name for (name,) in sqlite3.connect(events).execute("SELECT id FROM events")]


def swapped(model, other, scratch, given):
    current = scratch / "current"
    current.symlink_to(model)
    process = start(current, scratch / "swaps.db", "--reload-interval", "0.05", "--workers", str(given.workers))
    statuses, versions, done = [], set(), threading.Event()

    def load():
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=20)
        while not done.is_set():
            try:
                statuses.append(ask("POST", "/recommend", {"k": 10, "likes": []}, connection)[0])
            except OSError as error:
                statuses.append(repr(error))
                connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=20)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(20):
        (scratch / "next").symlink_to((other, model)[n % 2])
        (scratch / "next").rename(current)
        before = ask("GET", "/ready")[1]["version"]
        for _ in range(500):
            version = ask("GET", "/ready")[1]["version"]
            versions.add(version)
            if version != before:
                break
            time.sleep(0.02)
    done.set()
    for thread in threads:
        thread.join()
    process.terminate()
    process.wait()
    bad = [s for s in statuses if s != 200]
    assert not bad, bad[:5]
    print(f"20 swaps between {len(versions)} models: {len(statuses):,} requests, {len(bad)} lost")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        killed(given.model.absolute(), Path(scratch), given)
        swapped(given.model.absolute(), given.other.absolute(), Path(scratch), given)


if __name__ == "__main__":
    main()
