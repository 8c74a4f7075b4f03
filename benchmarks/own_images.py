"""A folder of photographs with several labels each, from scratch and with ImageNet weights.

    python benchmarks/own_images.py --list photos/labels.csv --root photos/images

The figures in results/ are of 2,000 photographs with five labels (Zhou and Zhang 2007, "Multi-
instance multi-label learning with application to scene classification"). A stopped run goes on
where it was.
"""

import argparse
from pathlib import Path

from machine import write
from training import Cell, current_cells, machines, trained

HERE = Path(__file__).resolve().parent
BITS = 48
ROWS = {
    "from scratch": ["dataset=images"],
    "ImageNet weights": ["experiment=images_pretrained"],
}
FIGURES = {"map": "mAP", "map@100": "mAP@100", "ndcg@100": "NDCG@100", "weighted_map": "WAP"}


def main() -> None:
    """Run what is missing, and write the table after each run."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--list", type=Path, required=True, help="of images and labels")
    options.add_argument("--root", type=Path, required=True, help="where its paths begin")
    options.add_argument("--runs", type=Path, default=HERE / "runs", help="where the runs lie")
    arguments = options.parse_args()
    arguments.data_dir = arguments.root
    places = [
        f"dataset.path={arguments.list.resolve()}",
        f"dataset.root={arguments.root.resolve()}",
    ]
    for name, overrides in runs().items():
        if name in current_cells("own_images", {name: overrides}):
            continue
        cell, found = trained(name, overrides, arguments, places)
        cell |= {key: found["test"][key] for key in FIGURES}
        cell["images"] = found["record"]["images"]
        cells = current_cells("own_images", runs()) | {name: cell}
        write("own_images", {"cells": cells}, markdown(cells))


def runs() -> dict[str, list[str]]:
    """The overrides of the runs by name."""
    return {name: [*recipe, f"bits={BITS}", "seed=0"] for name, recipe in ROWS.items()}


def markdown(cells: dict[str, Cell]) -> str:
    """A line a recipe."""
    lines = [f"| | {' | '.join(FIGURES.values())} | minutes | threads |", "|---|" + "---:|" * 6]
    for name, cell in cells.items():
        figures = " | ".join(f"{cell[key]:.4f}" for key in FIGURES)
        lines.append(f"| {name} | {figures} | {cell['seconds'] / 60:.1f} | {cell['threads']} |")
    sizes = next(iter(cells.values()))["images"]
    told = (
        f"{BITS} bits, seed 0; {sizes['query']:,} queries, a database of {sizes['database']:,}, of "
        f"which {sizes['train']:,} are trained on. NDCG and WAP, weighted mAP, count shared labels."
    )
    return "\n".join([*lines, "", told, machines(cells), ""])


if __name__ == "__main__":
    main()
