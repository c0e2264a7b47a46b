"""How often equal variants are told apart, and different ones found, if somebody looks after each of 200 batches.

    python experiments/peeking.py [--runs 2000]

Users of both variants come in batches. They decide at once; or 30 looks later on average; or all are there at the
first look and decide over the whole time. Beside it, a z test at 5 % at every look.
"""

import argparse

import numpy as np

from recsys_embed.evaluation.always_valid import difference_interval, users_needed

LOOKS = 200


def at_once(random, runs, rate, users):
    """Return successes [runs, looks], and users [looks]."""
    return random.binomial(users, rate, (runs, LOOKS)).cumsum(1), users * np.arange(1, LOOKS + 1)


def late(random, runs, rate, users):
    waiting, done = np.zeros(runs, int), np.zeros((runs, LOOKS), int)
    for look, new in enumerate(random.binomial(users, rate, (LOOKS, runs))):
        waiting += new
        done[:, look] = random.binomial(waiting, 1 / 30)
        waiting -= done[:, look]
    return done.cumsum(1), users * np.arange(1, LOOKS + 1)


def all_there(random, runs, rate, users):
    left, done = np.full(runs, LOOKS * users), np.zeros((runs, LOOKS), int)
    for look in range(LOOKS):
        done[:, look] = random.binomial(left, rate / LOOKS / (1 - rate * look / LOOKS))
        left -= done[:, look]
    return done.cumsum(1), np.full(LOOKS, LOOKS * users)


def told_apart(a, n_a, b, n_b):
    """Return, for each run and look, whether 0 is outside the interval, and whether a z test rejects."""
    found = difference_interval(a, n_a, b, n_b)
    pooled = (a + b) / (n_a + n_b)
    with np.errstate(invalid="ignore"):
        z = abs(b / n_b - a / n_a) / np.sqrt(pooled * (1 - pooled) * (1 / n_a + 1 / n_b))
    return (found.low > 0) | (found.high < 0), z > 1.96


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2000)
    runs, random = parser.parse_args().runs, np.random.default_rng(0)
    print("equal rates; share of experiments that tell them apart at some look: always-valid, z test")
    for make in (at_once, late, all_there):
        for rate, users in (
            (0.05, (100, 100)), (0.05, (1000, 1000)), (0.05, (450, 50)), (0.01, (500, 500)), (0.005, (900, 100)),
            (0.002, (5000, 5000)), (0.3, (50, 50)), (0.9, (100, 100)),
        ):  # fmt: skip
            found = [make(random, runs, rate, n) for n in users]
            ours, z = (told.any(1).mean() for told in told_apart(*found[0], *found[1]))
            print(f"{make.__name__:9}  rate {rate:5.1%}  {users[0]:4} + {users[1]:4} a look   {ours:.3f}  {z:.3f}")
    print("different rates, at once: share found, median users until then, users that `users_needed` says")
    for rates, users in (((0.05, 0.06), 250), ((0.05, 0.055), 500), ((0.05, 0.0525), 2000), ((0.01, 0.012), 1000)):
        found = [at_once(random, runs, rate, users) for rate in rates]
        clear = told_apart(*found[0], *found[1])[0]
        at = np.where(clear.any(1), clear.argmax(1) + 1, np.inf) * 2 * users
        print(f"{rates[0]:.2%} {rates[1]:.2%}  of {400 * users:,} users  {clear.any(1).mean():.3f}  "
              f"{np.median(at):,.0f}  {users_needed(*rates):,}")  # fmt: skip


if __name__ == "__main__":
    main()
