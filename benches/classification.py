#!/usr/bin/env python3
"""Progressive loss of contextual policies on classification data, through `pointsman simulate`.

    pip install scikit-learn
    cargo build --release
    python3 benches/classification.py [--binary target/release/pointsman] [--seeds 20] [--synth FILE.csv] [--as-they-are] [NAME...]

Each row of a data set is a decision, each class an arm: the right one earns 1, any other 0. One pass, in an order that depends on the seed; the
loss is the mean of 1 - reward, exploration included. The references are disjoint linear policies written in NumPy: LinUCB with alpha 0.3 and linear Thompson sampling with v 0.1, refitted every
round, on features standardised beforehand; on digits, on pixels divided by 16 as they are (`standardize = false`).
`--as-they-are` keeps the policies from standardising what has been standardised beforehand.
`synth` is a table of 20 features and five classes; it is not part of scikit-learn, so its file has to be given.
"""

import argparse
import csv
import json
import pathlib
import subprocess
import tempfile

from sklearn import datasets
from sklearn.preprocessing import StandardScaler

REFERENCES = {  # loss and standard error of lin_ucb (alpha 0.3) and lin_thompson (v 0.1)
    "digits": [(0.139, 0.002), (0.163, 0.006)],
    "wine": [(0.074, 0.003), (0.096, 0.004)],
    "breast_cancer": [(0.045, 0.003), (0.050, 0.002)],
    "synth": [(0.228, 0.002), (0.233, 0.005)],
}
POLICIES = {
    "lin_ucb": "alpha = 0.3\nfloor = 0.0",
    "lin_thompson": "v = 0.1\nfloor = 0.0",
    "square_cb": "gamma_scale = 100.0",
    "epsilon_greedy_linear": "epsilon = 0.05",
    "logistic_thompson": "floor = 0.0",
}


def load(name, synth):
    if name == "synth":
        rows = list(csv.reader(open(synth)))[1:]
        return [row[:-1] for row in rows], [row[-1] for row in rows]
    bunch = getattr(datasets, f"load_{name}")()
    scaled = bunch.data / 16 if name == "digits" else StandardScaler().fit_transform(bunch.data)
    return [[f"{value:.4f}" for value in row] for row in scaled], list(bunch.target)


def write(folder, name, synth, as_they_are):
    features, labels = load(name, synth)
    columns = [f"x{index}" for index in range(len(features[0]))]
    with open(folder / "data.csv", "w") as file:
        file.write(",".join([*columns, "label"]) + "\n")
        for row, label in zip(features, labels):
            file.write(",".join([*row, f"class-{label}"]) + "\n")
    (folder / "world.toml").write_text('kind = "dataset"\nfile = "data.csv"\n')
    context = "".join(f'[context.{column}]\nheader = "{column}"\ntype = "number"\n' for column in columns)
    arms = "".join(f'[[arm]]\nname = "class-{label}"\nendpoints = ["http://127.0.0.1:1"]\n' for label in sorted(set(labels), key=str))
    for kind, keys in POLICIES.items():
        if (name == "digits" or as_they_are) and kind != "logistic_thompson":
            keys += "\nstandardize = false"
        text = f'[match]\npath = "/"\n[policy.{kind}]\n{keys}\n{context}[reward]\nkind = "binary"\nwindow = "1m"\n{arms}'
        (folder / f"{kind.replace('_', '-')}.toml").write_text(text)
    return len(features), len(columns), len(set(labels))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=["digits", "wine", "breast_cancer"])
    parser.add_argument("--binary", default="target/release/pointsman")
    parser.add_argument("--seeds", default="20")
    parser.add_argument("--synth")
    parser.add_argument("--as-they-are", action="store_true")
    options = parser.parse_args()
    binary = str(pathlib.Path(options.binary).resolve())
    print("| data | policy | loss | reference | |\n|---|---|---|---|---|")
    for name in options.names:
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            rows, columns, classes = write(folder, name, options.synth, options.as_they_are)
            for index, kind in enumerate(POLICIES):
                command = [binary, "simulate", f"{kind.replace('_', '-')}.toml", "--env", "world.toml", "--publish-every", "1"]
                command += ["--seeds", options.seeds, "--format", "json"]
                done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
                summary = json.loads(done.stdout)
                summary = summary[0] if isinstance(summary, list) else summary
                loss = 1 - summary["reward"]["mean"]
                error = summary["reward"]["se"] or 0.0
                shown, verdict = "", ""
                if index < 2:
                    reference, spread = REFERENCES[name][index]
                    bound = reference + 3 * (spread**2 + error**2) ** 0.5
                    shown, verdict = f"{reference:.3f} ± {spread:.3f}", "holds" if loss <= bound else "**more**"
                print(f"| {name} ({rows} × {columns}, {classes} classes) | {kind} | {loss:.4f} ± {error:.4f} | {shown} | {verdict} |", flush=True)


if __name__ == "__main__":
    main()
