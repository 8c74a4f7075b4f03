"""A folder of photographs with several labels each, from scratch and on ImageNet weights.

    python -m benchmarks.quality.own_images --list photos/labels.csv --root photos/images

The metrics in results/ are of 2,000 photographs with five labels (Zhou and Zhang 2007, "Multi-
instance multi-label learning with application to scene classification"). A stopped run is resumed.
"""

import argparse
from pathlib import Path

from benchmarks.machine import write_results
from benchmarks.quality.cells import RUNS, Cell, current_cells, list_machines, run_training

BITS = 48
ROWS = {
    "from scratch": ["dataset=image_folder"],
    "ImageNet weights, head alone": ["experiment=image_folder_pretrained"],
}
METRICS = {"map": "mAP", "map@100": "mAP@100", "ndcg@100": "NDCG@100", "weighted_map": "WAP"}


def main() -> None:
    """Run the cells that are missing, and write the table after each run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", type=Path, required=True, help="list of images and labels")
    parser.add_argument(
        "--root", type=Path, required=True, help="folder that the paths of the list are relative to"
    )
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder for the runs")
    options = parser.parse_args()
    options.data_dir = options.root
    places = [f"dataset.path={options.list.resolve()}", f"dataset.root={options.root.resolve()}"]
    for name, overrides in runs().items():
        if name in current_cells("own_images", {name: overrides}):
            continue
        cell, metrics = run_training(name, overrides, options, places)
        cell |= {key: metrics["test"][key] for key in METRICS}
        cell["images"] = metrics["record"]["images"]
        cells = current_cells("own_images", runs()) | {name: cell}
        write_results("own_images", {"cells": cells}, markdown(cells))


def runs() -> dict[str, list[str]]:
    """The overrides of the runs by name of the cell."""
    return {name: [*recipe, f"bits={BITS}", "seed=0"] for name, recipe in ROWS.items()}


def markdown(cells: dict[str, Cell]) -> str:
    """The table as Markdown: a line per recipe."""
    lines = [f"| | {' | '.join(METRICS.values())} | minutes | threads |", "|---|" + "---:|" * 6]
    for name, cell in cells.items():
        metrics = " | ".join(f"{cell[key]:.4f}" for key in METRICS)
        lines.append(f"| {name} | {metrics} | {cell['seconds'] / 60:.1f} | {cell['threads']} |")
    sizes = next(iter(cells.values()))["images"]
    note = (
        f"{BITS} bits, seed 0; {sizes['query']:,} queries, a database of {sizes['database']:,} "
        f"images, {sizes['train']:,} of them for training. NDCG and WAP (weighted mAP) count the "
        "labels that two images share."
    )
    return "\n".join([*lines, "", note, list_machines(cells), ""])


if __name__ == "__main__":
    main()
