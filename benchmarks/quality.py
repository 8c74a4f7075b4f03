"""Retrieval quality on real data: each row is a command, run for some seeds.

    python benchmarks/quality.py --data-dir data

A run that is finished is not run again, one that was stopped goes on, so the benchmark can be
stopped at any moment. Writes results/quality.json and quality.md.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from machine import described, machine, write

HERE = Path(__file__).resolve().parent
TRAIN = HERE.parent / "train.py"

ROWS = {
    "MNIST, LeNet": ["dataset=mnist", "bits=12"],
    "CIFAR-10, resnet_small": ["dataset=cifar10", "bits=48"],
    "MNIST, LeNet, tau 8": ["dataset=mnist", "bits=12", "method.tau=8"],
    "CIFAR-10, resnet_small, tau 8": ["dataset=cifar10", "bits=48", "method.tau=8"],
    "CIFAR-10, cifar_quick, scratch": ["experiment=cifar10_paper", "bits=48", "phases=scratch"],
    "CIFAR-10, cifar_quick, pretrained": [
        "experiment=cifar10_paper",
        "bits=48",
        "phases=pretrained",
    ],
    "CIFAR-10, cifar_quick, full": ["experiment=cifar10_paper", "bits=48", "phases=full"],
}
SHOWN = {"map": "mAP", "map_worst": "worst ties", "map_best": "best ties"}


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="holds MNIST and CIFAR-10")
    parser.add_argument("--runs", type=Path, default=HERE / "runs", help="where the runs lie")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    for row in options.rows:
        for seed in options.seeds:
            trained(ROWS[row], seed, folder_of(options.runs, row, seed), options)
            write_table(options.runs)


def folder_of(runs: Path, row: str, seed: int) -> Path:
    """Where the run of a row and a seed lies."""
    return runs / re.sub(r"[^a-z0-9]+", "-", row.lower()) / f"seed{seed}"


def trained(overrides: list[str], seed: int, folder: Path, options: argparse.Namespace) -> None:
    """Run, or go on with, one cell of the table."""
    if (folder / "metrics.json").is_file():
        return
    cache = options.runs.resolve() / "pretrained"
    places = [f"data_dir={options.data_dir.resolve()}", f"cache_dir={cache}"]
    if (folder / "config.yaml").is_file():
        command = [f"resume={folder}"]
    else:
        command = [*overrides, f"seed={seed}", f"run_dir={folder}", *places]
    subprocess.run([sys.executable, TRAIN, *command], check=True)


def write_table(runs: Path) -> None:
    """Collect all finished runs."""
    cells: dict[str, list[dict[str, Any]]] = {}
    for row in ROWS:
        paths = sorted(folder_of(runs, row, 0).parent.glob("seed*/metrics.json"))
        if paths:
            cells[row] = [json.loads(path.read_text()) for path in paths]
    figures = {"rows": {row: summary(row, found) for row, found in cells.items()}, **machine()}
    write("quality", figures, markdown(figures))


def summary(row: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, the spread of the mAP, and how long a run took."""
    values = [cell["test"]["map"] for cell in found]
    return {
        "command": "python train.py " + " ".join(ROWS[row]),
        "bits": found[0]["record"]["bits"],
        "seeds": [cell["record"]["seed"] for cell in found],
        "mean": {key: statistics.mean(cell["test"][key] for cell in found) for key in SHOWN},
        "map_by_seed": values,
        "map_deviation": statistics.stdev(values) if len(values) > 1 else None,
        # A shared pre-training counts in the run that did it: the longest run is a whole one.
        "seconds": max(cell["seconds"]["total"] for cell in found),
    }


def markdown(figures: dict[str, Any]) -> str:
    """The table of the README."""
    lines = [
        "| | bits | " + " | ".join(SHOWN.values()) + " | seeds | longest run |",
        "|---|---:|" + "---:|" * (len(SHOWN) + 2),
    ]
    for row, cell in figures["rows"].items():
        deviation = cell["map_deviation"]
        means = [f"{cell['mean'][key]:.4f}" for key in SHOWN]
        if deviation is not None:
            means[0] += f" ± {deviation:.4f}"
        minutes = f"{cell['seconds'] / 60:.1f} min"
        columns = [row, str(cell["bits"]), *means, str(len(cell["seeds"])), minutes]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join([*lines, "", described(figures), ""])


if __name__ == "__main__":
    main()
