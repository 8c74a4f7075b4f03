"""Retrieval quality on real data: grids of recipes, code lengths and seeds.

    python benchmarks/quality.py --data-dir data
    python benchmarks/quality.py --data-dir data --rows "MNIST, LeNet" --bits 12 --seeds 0

Finished cells are kept in results/*.json until their settings change; a stopped run goes on where
it was. Writes results/quality.*, few_labels.* and, where there is a GPU, gpu.* after each run.
"""

import statistics
from collections.abc import Iterable
from itertools import product

import torch
from machine import write
from training import Cell, current_cells, machines, parser, petaflop, trained

# As many epochs of all layers as the full arm has; at the rate of its pre-training it diverges.
SCRATCH = ["phases=scratch", "phase.hash.epochs=60", "phase.hash.optimizer.lr=0.01"]
FEW = ["experiment=cifar10_few"]
IMAGENET = ["experiment=cifar10_few_imagenet"]
TABLES = {
    "quality": {
        "MNIST, LeNet": ["dataset=mnist"],
        "MNIST, best": ["experiment=mnist_best"],
        "CIFAR-10, fast": ["experiment=cifar10_fast"],
        "CIFAR-10, best": ["experiment=cifar10_best"],
        "CIFAR-10, cifar_quick, scratch": ["experiment=cifar10_paper", *SCRATCH],
        "CIFAR-10, cifar_quick, pretrained": ["experiment=cifar10_paper", "phases=pretrained"],
        "CIFAR-10, cifar_quick, full": ["experiment=cifar10_paper", "phases=full"],
    },
    "few_labels": {
        "1k-59k, from scratch": [*FEW, "protocol=1k-59k"],
        "1k-54k, from scratch": [*FEW, "protocol=1k-54k"],
        "1k-59k, ImageNet weights": [*IMAGENET, "protocol=1k-59k"],
        "1k-54k, ImageNet weights": [*IMAGENET, "protocol=1k-54k"],
    },
    "gpu": {
        "MNIST, best, on a GPU": ["experiment=mnist_best", "trainer=gpu"],
        "CIFAR-10, fast, on a GPU": ["experiment=cifar10_fast", "trainer=gpu"],
        "CIFAR-10, best, on a GPU": ["experiment=cifar10_best", "trainer=gpu"],
    },
}
ARMS = ("CIFAR-10, cifar_quick, full", "CIFAR-10, cifar_quick, scratch")  # of as many epochs
BITS = [12, 24, 32, 48, 64]
SWEEP = [12, 24, 32, 48]
SEEDS = range(10)
FIGURES = ["map", "map_worst", "map_best", "map_database_order"]


def main() -> None:
    """Run what is missing, and write the tables after each run."""
    arguments = parser(__doc__)
    rows = [row for table in TABLES.values() for row in table]
    here = [row for row in rows if row not in TABLES["gpu"] or torch.cuda.is_available()]
    arguments.add_argument("--rows", nargs="*", default=here, choices=rows)
    arguments.add_argument("--bits", nargs="*", type=int, default=BITS, choices=BITS)
    arguments.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], choices=SEEDS)
    options = arguments.parse_args()
    for table, recipes in TABLES.items():
        rows = [row for row in recipes if row in options.rows]
        wanted = runs(table, rows, options.bits, options.seeds)
        for name, overrides in wanted.items():
            if name in current_cells(table, {name: overrides}):
                continue
            cell, found = trained(name, overrides, options)
            # As if no pre-training had been found; what is shared is told apart.
            of_another = found["seconds"].get("pretrain_found", 0)
            cell["seconds"] += of_another
            cell["pretrain_seconds"] = of_another + found["seconds"].get("pretrain", 0)
            cell |= {key: found["test"][key] for key in FIGURES}
            # Read anew: another sitting may have gone on with other rows meanwhile.
            cells = current_cells(table, runs(table)) | {name: cell}
            write(table, {"cells": cells}, markdown(table, cells))


def runs(
    table: str,
    rows: Iterable[str] | None = None,
    lengths: Iterable[int] = BITS,
    seeds: Iterable[int] = SEEDS,
) -> dict[str, list[str]]:
    """The overrides of a table's runs by the names of their cells."""
    recipes = TABLES[table]
    return {
        cell_name(row, bits, seed): [*recipes[row], f"bits={bits}", f"seed={seed}"]
        for row, seed, bits in product(recipes if rows is None else rows, seeds, lengths)
    }


def cell_name(row: str, bits: int, seed: int) -> str:
    """What a run is called in results/."""
    return f"{row}, {bits} bits, seed {seed}"


def seeds_of(cells: dict[str, Cell], row: str, bits: int) -> list[Cell]:
    """The cells of a row and a code length."""
    names = [cell_name(row, bits, seed) for seed in SEEDS]
    return [cells[name] for name in names if name in cells]


def markdown(table: str, cells: dict[str, Cell]) -> str:
    """The table of the README: a line a row, a column a code length."""
    columns = ["", *(f"{bits} bits" for bits in BITS), "longest run", "threads", "PFLOP"]
    lines = [f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(BITS) + 3)]
    sweeps = []
    for row in TABLES[table]:
        found = {bits: seeds_of(cells, row, bits) for bits in BITS}
        if any(found.values()):
            longest = max(cell["seconds"] for some in found.values() for cell in some)
            shown = [shown_map(some) for some in found.values()]
            threads = sorted({cell["threads"] for some in found.values() for cell in some})
            cost = [
                f"{longest / 60:.1f} min",
                " or ".join(map(str, threads)),
                f"{petaflop(TABLES[table][row]):.2f}",
            ]
            lines.append(f"| {' | '.join([row, *shown, *cost])} |")
        sweep = [cells[n] for bits in SWEEP if (n := cell_name(row, bits, 0)) in cells]
        shared = max((cell["pretrain_seconds"] for cell in sweep), default=0)
        places = {(cell["machine"], cell["threads"]) for cell in sweep}
        if shared and len(sweep) == len(SWEEP) and len(places) == 1:
            whole = max(cell["seconds"] for cell in sweep)
            own = sum(cell["seconds"] - cell["pretrain_seconds"] for cell in sweep)
            sweeps.append(f"{row} {(shared + own) / whole:.2f}")
    explained = [
        "mAP; of several seeds, from 0, the mean ± deviation, and in brackets how many; an "
        "empty cell was not run. PFLOP: 10^15 floating-point operations of the backbone in "
        "training, counted, not measured."
    ]
    if sweeps:
        lengths = ", ".join(map(str, SWEEP))
        explained.append(
            f"A sweep over {lengths} bits, which pre-trains once, in times of its longest run: "
            f"{', '.join(sweeps)}."
        )
    arms = {bits: [seeds_of(cells, arm, bits) for arm in ARMS] for bits in BITS}
    gains = [f"{mean(a) - mean(b):.3f} at {bits} bits" for bits, (a, b) in arms.items() if a and b]
    if gains:
        explained.append(
            "What pre-training pays, cifar_quick, full less scratch for as many epochs of all "
            f"layers: {', '.join(gains)}."
        )
    return "\n".join([*lines, "", *explained, machines(cells), ""])


def mean(cells: list[Cell]) -> float:
    """Of their mAP."""
    return statistics.mean(cell["map"] for cell in cells)


def shown_map(cells: list[Cell]) -> str:
    """Mean, spread and number of seeds."""
    values = [cell["map"] for cell in cells]
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{mean(cells):.4f}{spread} ({len(values)})"


if __name__ == "__main__":
    main()
