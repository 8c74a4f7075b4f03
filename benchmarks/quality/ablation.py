"""What each part of a recipe contributes: one change at a time, judged on held-out training images.

    python -m benchmarks.quality.ablation --data-dir data

The test images are not used. Finished cells are kept in results/ablation.json until their settings
change, and a stopped run is resumed. Writes results/ablation.* after each run.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.machine import write_results
from benchmarks.quality.cells import (
    Cell,
    argument_parser,
    current_cells,
    list_machines,
    run_training,
)

# 10,000 images: a standard deviation of 0.003 at an accuracy of 0.9.
HELD_OUT = "protocol.validation.fraction=0.2"
METRIC_NAMES = {"val/accuracy": "accuracy", "val/map": "expected mAP"}


@dataclass(frozen=True)
class Study:
    """A run and the changes that are tried on it, one at a time.

    Attributes:
        description: one sentence for the table.
        metric: of the validation images, that the changes are compared by.
        base: overrides of all its runs.
        changes: overrides by name; the first is the unchanged recipe.
    """

    description: str
    metric: str
    base: list[str]
    changes: dict[str, list[str]]


def phase_overrides(phase: str, *settings: str) -> list[str]:
    """Overrides of the settings of a phase."""
    return [f"training.{phase}.{setting}" for setting in settings]


def choose_sgd(phase: str, lr: float) -> list[str]:
    """Overrides that train a phase by SGD."""
    return [
        f"optimizer@training.{phase}.optimizer=sgd",
        *phase_overrides(phase, f"optimizer.lr={lr}"),
    ]


def choose_variant(name: str, place: str = "method") -> list[str]:
    """Overrides that replace a class by one of variants.py."""
    return [f"{place}._target_=benchmarks.quality.variants.{name}"]


NARROW = ["dataset=cifar10", "backbone.widths=[32,96,128]", "training.pretrain.epochs=4"]
SURROGATES = {
    "tau 1": ["method.tau=1"],
    "tau 4": ["method.tau=4"],
    "factored surrogate, tau 2": ["method.surrogate=factored"],
    "factored surrogate, tau 6": ["method.surrogate=factored", "method.tau=6"],
}
STUDIES = {
    "resnet_small": Study(
        description="Pre-training of a narrow resnet_small on CIFAR-10, 4 epochs.",
        metric="val/accuracy",
        base=[*NARROW, "phases.order=[pretrain]"],
        changes={
            "the recipe": [],
            "SGD, rate 0.2": choose_sgd("pretrain", lr=0.2),
            "rate 0.02": phase_overrides("pretrain", "optimizer.lr=0.02"),
            "rate 0.1": phase_overrides("pretrain", "optimizer.lr=0.1"),
            "momentum 0.9": phase_overrides("pretrain", "optimizer.momentum=0.9"),
            "weight decay 0": phase_overrides("pretrain", "optimizer.weight_decay=0"),
            "lookahead": choose_variant("lookahead", place="training.pretrain.optimizer"),
            **{
                f"weights averaged, decay {decay}": [
                    *choose_variant("Averaged", place="backbone"),
                    f"+backbone.decay={decay}",
                ]
                for decay in (0.9, 0.99)
            },
            "no warm-up": phase_overrides("pretrain", "scheduler.warmup=0"),
            "warm-up over half": phase_overrides("pretrain", "scheduler.warmup=0.5"),
            "no label smoothing": phase_overrides("pretrain", "label_smoothing=0"),
            "batch 500": phase_overrides("pretrain", "batch_size=500"),
            "learned filters of the stem": choose_variant("LearnedStem", place="backbone"),
            "first stage frozen after 3 epochs": [
                *choose_variant("Freezing", place="backbone"),
                "+backbone.trained_batches=480",
            ],
            "no flips": ["augment.flip=false"],
            "no translation": ["augment.translate=0"],
            "flipped in every other epoch": ["augment.flip=alternating"],
            "cutout of 8 pixels": ["augment.cutout=8"],
        },
    ),
    "resnet_small, 16 epochs": Study(
        description="The same for as many epochs as the recipe has.",
        metric="val/accuracy",
        base=[*NARROW, "training.pretrain.epochs=16", "phases.order=[pretrain]"],
        changes={
            "the recipe": [],
            "flipped in every other epoch": ["augment.flip=alternating"],
        },
    ),
    "hash": Study(
        description="Hashing to 48 bits after the pre-training of the first study, 3 + 2 epochs.",
        metric="val/map",
        base=[*NARROW, "bits=48"],
        changes={
            "the recipe": [],
            "rate 0.002": phase_overrides("hash", "optimizer.lr=0.002"),
            "rate 0.02": phase_overrides("hash", "optimizer.lr=0.02"),
            "1 epoch": phase_overrides("hash", "epochs=1"),
            "4 epochs": phase_overrides("hash", "epochs=4"),
            "no hash phase": ["phases=pretrained"],
            "no init phase": ["phases.order=[pretrain,hash]"],
            **SURROGATES,
            "tau rising from 0.5": [
                *choose_variant("RisingTau"),
                "+method.first_tau=0.5",
                "+method.steps=560",
            ],
            "unbalanced pairs": ["method.balanced=false"],
            "batch norm before the sign": choose_variant("BatchNormalized"),
            "weight decay 0": phase_overrides("hash", "optimizer.weight_decay=0"),
            "batch 500": phase_overrides("hash", "batch_size=500"),
            **{f"{bits} bits": [f"bits={bits}"] for bits in (12, 24, 64, 128)},
        },
    ),
    "cifar_quick": Study(
        description="Pre-training of the paper's net on CIFAR-10, 12 epochs.",
        metric="val/accuracy",
        base=["experiment=cifar10_paper", "phases.order=[pretrain]", "training.pretrain.epochs=12"],
        changes={
            "the recipe": [],
            "SGD, rate 0.05": choose_sgd("pretrain", lr=0.05),
            "rate 0.02": phase_overrides("pretrain", "optimizer.lr=0.02"),
            "rate 0.01": phase_overrides("pretrain", "optimizer.lr=0.01"),
            "momentum 0.9": phase_overrides("pretrain", "optimizer.momentum=0.9"),
            "weight decay 0": phase_overrides("pretrain", "optimizer.weight_decay=0"),
            "label smoothing 0.1": phase_overrides("pretrain", "label_smoothing=0.1"),
            "batch 125": phase_overrides("pretrain", "batch_size=125"),
            "no flips": ["augment.flip=false"],
            "no translation": ["augment.translate=0"],
            "24 epochs": phase_overrides("pretrain", "epochs=24"),
            "48 epochs": phase_overrides("pretrain", "epochs=48"),
            "48 epochs, rate 0.02": phase_overrides("pretrain", "epochs=48", "optimizer.lr=0.02"),
        },
    ),
    "cifar_quick_hash": Study(
        description="Hashing by the paper's net to 48 bits after 48 epochs, 3 + 12 epochs.",
        metric="val/map",
        base=["experiment=cifar10_paper", "bits=48"],
        changes={
            "the recipe": [],
            "rate 0.02": phase_overrides("hash", "optimizer.lr=0.02"),
            "rate 0.002": phase_overrides("hash", "optimizer.lr=0.002"),
            "6 epochs": phase_overrides("hash", "epochs=6"),
            **SURROGATES,
            "no hash phase": ["phases=pretrained"],
            "no init phase": ["phases.order=[pretrain,hash]"],
        },
    ),
}


def main() -> None:
    """Run the cells that are missing, and write the table after each run."""
    parser = argument_parser(__doc__)
    parser.add_argument("--studies", nargs="*", default=list(STUDIES), choices=list(STUDIES))
    options = parser.parse_args()
    for study in options.studies:
        for name, overrides in runs([study]).items():
            if name in current_cells("ablation", {name: overrides}):
                continue
            cell, metrics = run_training(name, overrides, options)
            cell["value"] = metrics["validation"][STUDIES[study].metric]
            # Read again: another process may have finished another study meanwhile.
            cells = current_cells("ablation", runs(STUDIES)) | {name: cell}
            write_results("ablation", {"cells": cells}, markdown(cells))


def runs(studies: Iterable[str]) -> dict[str, list[str]]:
    """The overrides of the runs of these studies by name of the cell."""
    return {
        cell_name(study, change): [*STUDIES[study].base, HELD_OUT, *overrides, "seed=0"]
        for study in studies
        for change, overrides in STUDIES[study].changes.items()
    }


def cell_name(study: str, change: str) -> str:
    """The name of a cell in results/."""
    return f"{study}, {change}"


def markdown(cells: dict[str, Cell]) -> str:
    """A table per study as Markdown; the first row is the recipe that the others change."""
    lines = []
    for name, study in STUDIES.items():
        rows = {
            change: cells[cell_name(name, change)]
            for change in study.changes
            if cell_name(name, change) in cells
        }
        if not rows:
            continue
        metric = METRIC_NAMES[study.metric]
        lines += [study.description, "", f"| change | {metric} | difference |", "|---|---:|---:|"]
        (recipe, reference), *changed = rows.items()
        lines.append(f"| {recipe} | {reference['value']:.4f} | |")
        for change, cell in changed:
            mark = "" if cell["machine"] == reference["machine"] else " \\*"
            difference = f"{cell['value'] - reference['value']:+.4f}"
            lines.append(f"| {change}{mark} | {cell['value']:.4f} | {difference} |")
        lines.append("")
    note = "One seed, 10,000 images held out. \\*: on another machine than the first row."
    return "\n".join([*lines, note, list_machines(cells), ""])


if __name__ == "__main__":
    main()
