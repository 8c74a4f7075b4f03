"""Retrieval quality on real data: a grid of recipes, code lengths and seeds.

    python benchmarks/quality.py --data-dir data
    python benchmarks/quality.py --data-dir data --rows "MNIST, LeNet" --bits 12 --seeds 0

A run that is finished is not run again, one that was stopped goes on, so the benchmark can be
stopped at any moment. Each writes results/quality.json and quality.md of all that is finished.
"""

import json
import re
import statistics
from pathlib import Path
from typing import Any

from machine import described, machine, write
from training import parser, trained

ROWS = {
    "MNIST, LeNet": ["dataset=mnist"],
    "MNIST, best": ["experiment=mnist_best"],
    "CIFAR-10, resnet_small": ["experiment=cifar10_fast"],
    "CIFAR-10, best": ["experiment=cifar10_best"],
    "CIFAR-10, cifar_quick, scratch": ["experiment=cifar10_paper", "phases=scratch"],
    "CIFAR-10, cifar_quick, pretrained": ["experiment=cifar10_paper", "phases=pretrained"],
    "CIFAR-10, cifar_quick, full": ["experiment=cifar10_paper", "phases=full"],
}
BITS = [12, 24, 32, 48, 64]
SWEEP = [12, 24, 32, 48]
FIGURES = ["map", "map_worst", "map_best"]


def main() -> None:
    """Run what is missing, then write the table."""
    arguments = parser(__doc__)
    arguments.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    arguments.add_argument("--bits", nargs="*", type=int, default=BITS, choices=BITS)
    arguments.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    options = arguments.parse_args()
    for row in options.rows:
        for seed in options.seeds:
            for bits in options.bits:
                overrides = [*ROWS[row], f"bits={bits}", f"seed={seed}"]
                trained(overrides, folder_of(options.runs, row, bits) / f"seed{seed}", options)
                write_table(options.runs)


def folder_of(runs: Path, row: str, bits: int) -> Path:
    """Where the runs of all seeds of a row and a code length lie."""
    return runs / re.sub(r"[^a-z0-9]+", "-", row.lower()) / f"bits{bits}"


def write_table(runs: Path) -> None:
    """Collect all finished runs."""
    cells = []
    for row in ROWS:
        for bits in BITS:
            paths = sorted(folder_of(runs, row, bits).glob("seed*/metrics.json"))
            if paths:
                cells.append(summary(row, bits, [json.loads(path.read_text()) for path in paths]))
    sweeps = {row: cost for row in ROWS if (cost := sweep_cost(runs, row))}
    figures = {"cells": cells, "sweeps": sweeps, **machine()}
    write("quality", figures, markdown(figures))


def summary(row: str, bits: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, the spread of the mAP, and how long a run took."""
    values = [cell["test"]["map"] for cell in found]
    return {
        "row": row,
        "bits": bits,
        "command": " ".join(["python train.py", *ROWS[row], f"bits={bits}"]),
        "seeds": [cell["record"]["seed"] for cell in found],
        "mean": {key: statistics.mean(cell["test"][key] for cell in found) for key in FIGURES},
        "map_by_seed": values,
        "map_deviation": statistics.stdev(values) if len(values) > 1 else None,
        # A shared pre-training counts in the run that did it: the longest run is a whole one.
        "seconds": max(cell["seconds"]["total"] for cell in found),
    }


def sweep_cost(runs: Path, row: str) -> float | None:
    """How many times one run's seconds the first seed's runs of a sweep over code lengths took."""
    paths = [folder_of(runs, row, bits) / "seed0" / "metrics.json" for bits in SWEEP]
    if not all(path.is_file() for path in paths):
        return None
    seconds = [json.loads(path.read_text())["seconds"]["total"] for path in paths]
    return sum(seconds) / max(seconds)  # the longest did the pre-training that the others found


def markdown(figures: dict[str, Any]) -> str:
    """The table of the README: a line a row, a column a code length."""
    columns = ["", *(f"{bits} bits" for bits in BITS), "longest run"]
    lines = [f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(BITS) + 1)]
    for row in ROWS:
        cells = {cell["bits"]: cell for cell in figures["cells"] if cell["row"] == row}
        if cells:
            minutes = max(cell["seconds"] for cell in cells.values()) / 60
            shown = [shown_map(cells[bits]) if bits in cells else "" for bits in BITS]
            lines.append(f"| {' | '.join([row, *shown, f'{minutes:.1f} min'])} |")
    explained = ["mAP; of several seeds the mean ± deviation, and in brackets how many."]
    if figures["sweeps"]:
        costs = ", ".join(f"{row} {cost:.2f}" for row, cost in figures["sweeps"].items())
        lengths = ", ".join(map(str, SWEEP))
        explained.append(f"A sweep over {lengths} bits takes, in times of one run: {costs}.")
    return "\n".join([*lines, "", *explained, described(figures), ""])


def shown_map(cell: dict[str, Any]) -> str:
    """Mean, spread and number of seeds."""
    deviation = cell["map_deviation"]
    spread = "" if deviation is None else f" ± {deviation:.4f}"
    return f"{cell['mean']['map']:.4f}{spread} ({len(cell['seeds'])})"


if __name__ == "__main__":
    main()
