#!/usr/bin/env python3
"""A plain epsilon-greedy in NumPy on the reward tables of `--bench regret`, for the rows of docs/proof.md whose reference says little.

    pip install numpy && python3 benches/epsilon_greedy.py

It shares nothing with the engine but the generator of the rewards (docs/simulate.md). `first` gives a tie to the first arm, as the references
do; `shared` splits it, as the engine does.
"""

import numpy as np

EPSILON = 0.1


def uniform(seeds, arms, round_):
    """The uniform number of (seed, arm, round)."""
    x = (seeds << np.uint64(40)) ^ (arms.astype(np.uint64) << np.uint64(32)) ^ np.uint64(round_)
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(float) * 2.0**-53


def greedy(means, ties, random):
    """For each seed the arm with the best mean."""
    if ties == "first":
        return means.argmax(axis=1)
    best = means == means.max(axis=1, keepdims=True)
    return np.where(best, random.random(means.shape), -1.0).argmax(axis=1)


def regret(means, horizon, delay, seeds, ties, mirrored_from=None):
    """Pseudo-regret of each seed. From round `mirrored_from` on the arms have each other's means."""
    random = np.random.default_rng(1)
    now, arms = np.array(means), len(means)
    every, numbers = np.arange(seeds), np.arange(seeds, dtype=np.uint64)
    counts, sums, total = np.zeros((seeds, arms)), np.zeros((seeds, arms)), np.zeros(seeds)
    waiting = []
    for round_ in range(horizon):
        if round_ == mirrored_from:
            now = now[::-1]
        if len(waiting) > delay:
            drawn, earned = waiting.pop(0)
            counts[every, drawn] += 1
            sums[every, drawn] += earned
        # The posterior mean under a uniform prior, like the engine's.
        best = greedy((sums + 1) / (counts + 2), ties, random)
        drawn = np.where(random.random(seeds) < EPSILON, random.integers(0, arms, seeds), best)
        waiting.append((drawn, uniform(numbers, drawn, round_) < now[drawn]))
        total += now.max() - now[drawn]
    return total


def show(name, values):
    error = values.std(ddof=1) / len(values) ** 0.5
    print(f"{name}: {values.mean():.1f} ± {error:.1f}, 90th percentile {np.percentile(values, 90):.0f}")


def main():
    five = [0.45, 0.45, 0.5, 0.45, 0.45]
    for ties in ["first", "shared"]:
        values = regret(five, 10_000, 100, 2_000, ties)
        show(f"K5_gap05, delay 100, ties {ties}, 2,000 seeds", values)
        hundreds = [np.percentile(part, 90) for part in values.reshape(20, 100)]
        print(f"    of a hundred seeds at a time: {min(hundreds):.0f} to {max(hundreds):.0f}")
    for world in [[0.7, 0.5, 0.3], [0.3, 0.5, 0.7]]:
        for ties in ["first", "shared"]:
            values = regret(world, 20_000, 1_000, 400, ties, mirrored_from=10_000)
            show(f"switch {world}, delay 1,000, ties {ties}, 400 seeds", values)


if __name__ == "__main__":
    main()
