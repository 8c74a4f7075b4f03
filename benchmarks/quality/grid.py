"""Retrieval quality on real data: grids of recipes, code lengths and seeds.

    python -m benchmarks.quality.grid --data-dir data
    python -m benchmarks.quality.grid --data-dir data --rows "MNIST, LeNet" --bits 12 --seeds 0

Finished cells are kept in results/*.json until their settings change, and a stopped run is resumed.
Writes results/quality.*, few_labels.* and, where there is a GPU, gpu.* after each run.
"""

import statistics
from collections.abc import Iterable
from itertools import product

import torch

from benchmarks.machine import write_results
from benchmarks.quality.cells import (
    Cell,
    argument_parser,
    current_cells,
    list_machines,
    run_training,
    training_petaflop,
)

# As many epochs of all layers as the full arm has; at the rate of its pre-training it diverges.
SCRATCH = ["phases=scratch", "training.hash.epochs=60", "training.hash.optimizer.lr=0.01"]
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
ARMS = ("CIFAR-10, cifar_quick, full", "CIFAR-10, cifar_quick, scratch")  # with equal epochs
BITS = [12, 24, 32, 48, 64]
SWEEP_BITS = [12, 24, 32, 48]
SEEDS = range(10)
METRICS = ["map", "map_worst", "map_best", "map_database_order"]


def main() -> None:
    """Run the cells that are missing, and write the tables after each run."""
    parser = argument_parser(__doc__)
    rows = [row for table in TABLES.values() for row in table]
    default_rows = [row for row in rows if row not in TABLES["gpu"] or torch.cuda.is_available()]
    parser.add_argument("--rows", nargs="*", default=default_rows, choices=rows)
    parser.add_argument("--bits", nargs="*", type=int, default=BITS, choices=BITS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], choices=SEEDS)
    options = parser.parse_args()
    for table, recipes in TABLES.items():
        selected_rows = [row for row in recipes if row in options.rows]
        for name, overrides in runs(table, selected_rows, options.bits, options.seeds).items():
            if name in current_cells(table, {name: overrides}):
                continue
            cell, metrics = run_training(name, overrides, options)
            # The seconds include a pre-training that was taken from the cache.
            cached_seconds = metrics["seconds"].get("pretrain_cached", 0)
            cell["seconds"] += cached_seconds
            cell["pretrain_seconds"] = cached_seconds + metrics["seconds"].get("pretrain", 0)
            cell |= {key: metrics["test"][key] for key in METRICS}
            # Read again: another process may have finished other rows meanwhile.
            cells = current_cells(table, runs(table)) | {name: cell}
            write_results(table, {"cells": cells}, markdown(table, cells))


def runs(
    table: str,
    rows: Iterable[str] | None = None,
    lengths: Iterable[int] = BITS,
    seeds: Iterable[int] = SEEDS,
) -> dict[str, list[str]]:
    """The overrides of the runs of a table by name of the cell.

    Args:
        table: key of `TABLES`.
        rows: of the table; None: all.
        lengths: code lengths in bits.
        seeds: of the runs.
    """
    recipes = TABLES[table]
    return {
        cell_name(row, bits, seed): [*recipes[row], f"bits={bits}", f"seed={seed}"]
        for row, seed, bits in product(recipes if rows is None else rows, seeds, lengths)
    }


def cell_name(row: str, bits: int, seed: int) -> str:
    """The name of a cell in results/."""
    return f"{row}, {bits} bits, seed {seed}"


def cells_of_all_seeds(cells: dict[str, Cell], row: str, bits: int) -> list[Cell]:
    """The cells of a row and a code length."""
    names = [cell_name(row, bits, seed) for seed in SEEDS]
    return [cells[name] for name in names if name in cells]


def markdown(table: str, cells: dict[str, Cell]) -> str:
    """The table as Markdown: a line per row, a column per code length."""
    columns = ["", *(f"{bits} bits" for bits in BITS), "longest run", "threads", "PFLOP"]
    lines = [f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(BITS) + 3)]
    sweep_costs = []
    for row in TABLES[table]:
        by_bits = {bits: cells_of_all_seeds(cells, row, bits) for bits in BITS}
        row_cells = [cell for group in by_bits.values() for cell in group]
        if row_cells:
            threads = sorted({cell["threads"] for cell in row_cells})
            cost = [
                f"{max(cell['seconds'] for cell in row_cells) / 60:.1f} min",
                " or ".join(map(str, threads)),
                f"{training_petaflop(TABLES[table][row]):.2f}",
            ]
            lines.append(f"| {' | '.join([row, *map(format_map, by_bits.values()), *cost])} |")
        if (ratio := sweep_cost(cells, row)) is not None:
            sweep_costs.append(f"{row} {ratio:.2f}")
    notes = [
        "mAP: of several seeds the mean ± standard deviation, with the number of seeds in "
        "brackets; the seeds start at 0, and empty cells were not run. PFLOP: 10^15 floating-point "
        "operations of the backbone in training, counted, not measured."
    ]
    if sweep_costs:
        lengths = ", ".join(map(str, SWEEP_BITS))
        notes.append(
            f"Time of a sweep over {lengths} bits, which pre-trains once, as a multiple of its "
            f"longest run: {', '.join(sweep_costs)}."
        )
    arms = {bits: [cells_of_all_seeds(cells, arm, bits) for arm in ARMS] for bits in BITS}
    gains = [
        f"{mean_map(full) - mean_map(scratch):.3f} at {bits} bits"
        for bits, (full, scratch) in arms.items()
        if full and scratch
    ]
    if gains:
        notes.append(
            "Gain in mAP by pre-training, cifar_quick, full over scratch with equal epochs of all "
            f"layers: {', '.join(gains)}."
        )
    return "\n".join([*lines, "", *notes, list_machines(cells), ""])


def sweep_cost(cells: dict[str, Cell], row: str) -> float | None:
    """Time of a sweep over `SWEEP_BITS`, in which the runs share the pre-training, as a multiple of
    its longest run. None unless all its cells were measured under the same conditions.
    """
    names = [cell_name(row, bits, seed=0) for bits in SWEEP_BITS]
    sweep = [cells[name] for name in names if name in cells]
    pretrain_seconds = max((cell["pretrain_seconds"] for cell in sweep), default=0)
    conditions = {(cell["machine"], cell["threads"]) for cell in sweep}
    if not pretrain_seconds or len(sweep) < len(SWEEP_BITS) or len(conditions) > 1:
        return None
    own_seconds = sum(cell["seconds"] - cell["pretrain_seconds"] for cell in sweep)
    return (pretrain_seconds + own_seconds) / max(cell["seconds"] for cell in sweep)


def mean_map(cells: list[Cell]) -> float:
    """The mean of their mAP."""
    return statistics.mean(cell["map"] for cell in cells)


def format_map(cells: list[Cell]) -> str:
    """Mean, standard deviation and number of seeds."""
    values = [cell["map"] for cell in cells]
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{mean_map(cells):.4f}{deviation} ({len(values)})"


if __name__ == "__main__":
    main()
