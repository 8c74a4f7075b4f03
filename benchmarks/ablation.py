"""What each part of a recipe is worth: one change at a time, judged on held-out training images.

    python benchmarks/ablation.py --data-dir data

The test images decide nothing. Finished cells are kept in results/ablation.json until their
settings change; a stopped run goes on where it was. Writes results/ablation.* after each run.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from machine import write
from training import Cell, current_cells, machines, parser, trained

HELD_OUT = "validation.share=0.2"  # 10,000 images: a deviation of 0.003 at an accuracy of 0.9


@dataclass(frozen=True)
class Study:
    """A run and the changes that are tried on it, each alone.

    Attributes:
        what: one sentence for the table.
        figure: of the validation images, what is compared.
        base: overrides of all its runs.
        changes: overrides by name; the first is none.
    """

    what: str
    figure: str
    base: list[str]
    changes: dict[str, list[str]]


NARROW = ["dataset=cifar10", "backbone.widths=[32,96,128]", "phase.pretrain.epochs=4"]
SGD = [
    "optimizer._target_=torch.optim.SGD",
    "optimizer.momentum=0.9",
    "optimizer.weight_decay=5e-4",
]

SURROGATES = {
    "tau 1": ["method.tau=1"],
    "tau 4": ["method.tau=4"],
    "factored surrogate, tau 2": ["method.surrogate=factored"],
    "factored surrogate, tau 6": ["method.surrogate=factored", "method.tau=6"],
}


def of_phase(name: str, *settings: str) -> list[str]:
    """Overrides of a phase's settings."""
    return [f"phase.{name}.{setting}" for setting in settings]


def variant(name: str, of: str = "method") -> list[str]:
    """Overrides that take something of variants.py."""
    return [f"{of}._target_=benchmarks.variants.{name}"]


STUDIES = {
    "resnet_small": Study(
        what="Pre-training of a narrow resnet_small for CIFAR-10, 4 epochs; accuracy.",
        figure="val/accuracy",
        base=[*NARROW, "phases.order=[pretrain]"],
        changes={
            "the recipe": [],
            "SGD, rate 0.2": of_phase("pretrain", *SGD, "optimizer.lr=0.2"),
            "rate 0.02": of_phase("pretrain", "optimizer.lr=0.02"),
            "rate 0.1": of_phase("pretrain", "optimizer.lr=0.1"),
            "momentum 0.9": of_phase("pretrain", "optimizer.momentum=0.9"),
            "weight decay 0": of_phase("pretrain", "optimizer.weight_decay=0"),
            "lookahead": variant("lookahead", of="phase.pretrain.optimizer"),
            **{
                f"weights averaged, decay {decay}": [
                    *variant("Averaged", of="backbone"),
                    f"+backbone.decay={decay}",
                ]
                for decay in (0.9, 0.99)
            },
            "no warm-up": of_phase("pretrain", "warmup=0"),
            "warm-up over half": of_phase("pretrain", "warmup=0.5"),
            "no label smoothing": of_phase("pretrain", "label_smoothing=0"),
            "batch 500": of_phase("pretrain", "batch_size=500"),
            "filters of the stem learnt": variant("LearntStem", of="backbone"),
            "first stage frozen after 3 epochs": [
                *variant("Freezing", of="backbone"),
                "+backbone.learns=480",
            ],
            "no mirroring": ["augment.flip=false"],
            "no translation": ["augment.translate=0"],
            "mirrored in every other epoch": ["augment.flip=alternating"],
            "cutout of 8 pixels": ["augment.cutout=8"],
        },
    ),
    "resnet_small, 16 epochs": Study(
        what="The same for as many epochs as the recipe has; accuracy.",
        figure="val/accuracy",
        base=[*NARROW, "phase.pretrain.epochs=16", "phases.order=[pretrain]"],
        changes={
            "the recipe": [],
            "mirrored in every other epoch": ["augment.flip=alternating"],
        },
    ),
    "hash": Study(
        what="Hashing to 48 bits after that pre-training, 3 + 2 epochs; expected mAP.",
        figure="val/map",
        base=[*NARROW, "bits=48"],
        changes={
            "the recipe": [],
            "rate 0.002": of_phase("hash", "optimizer.lr=0.002"),
            "rate 0.02": of_phase("hash", "optimizer.lr=0.02"),
            "1 epoch": of_phase("hash", "epochs=1"),
            "4 epochs": of_phase("hash", "epochs=4"),
            "no hash phase": ["phases=pretrained"],
            "no init phase": ["phases.order=[pretrain,hash]"],
            **SURROGATES,
            "tau rising from 0.5": [*variant("Rising"), "+method.first=0.5", "+method.steps=560"],
            "pairs not balanced": ["method.balanced=false"],
            "batch norm before the sign": variant("Normed"),
            "weight decay 0": of_phase("hash", "optimizer.weight_decay=0"),
            "batch 500": of_phase("hash", "batch_size=500"),
            **{f"{bits} bits": [f"bits={bits}"] for bits in (12, 24, 64, 128)},
        },
    ),
    "cifar_quick": Study(
        what="Pre-training of the paper's net for CIFAR-10, 12 epochs; accuracy.",
        figure="val/accuracy",
        base=["experiment=cifar10_paper", "phases.order=[pretrain]", "phase.pretrain.epochs=12"],
        changes={
            "the recipe": [],
            "SGD, rate 0.05": of_phase("pretrain", *SGD, "optimizer.lr=0.05"),
            "rate 0.02": of_phase("pretrain", "optimizer.lr=0.02"),
            "rate 0.01": of_phase("pretrain", "optimizer.lr=0.01"),
            "momentum 0.9": of_phase("pretrain", "optimizer.momentum=0.9"),
            "weight decay 0": of_phase("pretrain", "optimizer.weight_decay=0"),
            "label smoothing 0.1": of_phase("pretrain", "label_smoothing=0.1"),
            "batch 125": of_phase("pretrain", "batch_size=125"),
            "no mirroring": ["augment.flip=false"],
            "no translation": ["augment.translate=0"],
            "24 epochs": of_phase("pretrain", "epochs=24"),
            "48 epochs": of_phase("pretrain", "epochs=48"),
            "48 epochs, rate 0.02": of_phase("pretrain", "epochs=48", "optimizer.lr=0.02"),
        },
    ),
    "cifar_quick_hash": Study(
        what="Hashing by the paper's net to 48 bits after 48 epochs, 3 + 12 epochs; expected mAP.",
        figure="val/map",
        base=["experiment=cifar10_paper", "bits=48"],
        changes={
            "the recipe": [],
            "rate 0.02": of_phase("hash", "optimizer.lr=0.02"),
            "rate 0.002": of_phase("hash", "optimizer.lr=0.002"),
            "6 epochs": of_phase("hash", "epochs=6"),
            **SURROGATES,
            "no hash phase": ["phases=pretrained"],
            "no init phase": ["phases.order=[pretrain,hash]"],
        },
    ),
}


def main() -> None:
    """Run what is missing, then write the table."""
    arguments = parser(__doc__)
    arguments.add_argument("--studies", nargs="*", default=list(STUDIES), choices=list(STUDIES))
    options = arguments.parse_args()
    for study in options.studies:
        for name, overrides in runs([study]).items():
            if name in current_cells("ablation", {name: overrides}):
                continue
            cell, found = trained(name, overrides, options)
            cell["figure"] = found["validation"][STUDIES[study].figure]
            # Read anew: another sitting may have gone on with another study meanwhile.
            cells = current_cells("ablation", runs(STUDIES)) | {name: cell}
            write("ablation", {"cells": cells}, markdown(cells))


def runs(studies: Iterable[str]) -> dict[str, list[str]]:
    """The overrides of the runs of these studies by the names of their cells."""
    return {
        cell_name(study, change): [*STUDIES[study].base, HELD_OUT, *changed, "seed=0"]
        for study in studies
        for change, changed in STUDIES[study].changes.items()
    }


def cell_name(study: str, change: str) -> str:
    """What a run is called in results/."""
    return f"{study}, {change}"


def markdown(cells: dict[str, Cell]) -> str:
    """A table a study; the first row is what the others change."""
    lines = []
    for name, study in STUDIES.items():
        names = {change: cell_name(name, change) for change in study.changes}
        rows = {change: cells[name]["figure"] for change, name in names.items() if name in cells}
        if rows:
            lines += [study.what, "", "| change | figure | difference |", "|---|---:|---:|"]
            first, *others = rows.items()
            lines.append(f"| {first[0]} | {first[1]:.4f} | |")
            machine_of = {change: cells[names[change]]["machine"] for change in rows}
            for change, value in others:
                elsewhere = "" if machine_of[change] == machine_of[first[0]] else " \\*"
                lines.append(f"| {change}{elsewhere} | {value:.4f} | {value - first[1]:+.4f} |")
            lines.append("")
    explained = "One seed, 10,000 images held out. \\*: not on the machine of the first row."
    return "\n".join([*lines, explained, machines(cells), ""])


if __name__ == "__main__":
    main()
