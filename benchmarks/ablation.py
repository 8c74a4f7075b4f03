"""What each part of a recipe is worth: one change at a time, judged on held-out training images.

    python benchmarks/ablation.py --data-dir data

The test images decide nothing. A run that is finished is not run again, one that was stopped
goes on. Writes results/ablation.json and ablation.md after each.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import described, machine, write
from training import parser, trained

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


def of_phase(name: str, *settings: str) -> list[str]:
    """Overrides of a phase's settings."""
    return [f"phase.{name}.{setting}" for setting in settings]


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
            "no label smoothing": of_phase("pretrain", "label_smoothing=0"),
            "batch 500": of_phase("pretrain", "batch_size=500"),
            "no mirroring": ["augment.flip=false"],
            "no translation": ["augment.translate=0"],
            "cutout of 8 pixels": ["augment.cutout=8"],
        },
    ),
    "hash": Study(
        what="Hashing to 48 bits after that pre-training, 3 + 1 epochs; expected mAP.",
        figure="val/map",
        base=[*NARROW, "bits=48"],
        changes={
            "the recipe": [],
            "rate 0.02": of_phase("hash", "optimizer.lr=0.02"),
            "rate 0.002": of_phase("hash", "optimizer.lr=0.002"),
            "no hash phase": ["phases=pretrained"],
            "no init phase": ["phases.order=[pretrain,hash]"],
            "tau 4": ["method.tau=4"],
            "tau 8": ["method.tau=8"],
            "bilinear surrogate": ["method.surrogate=bilinear"],
            "pairs not balanced": ["method.balanced=false"],
            "batch 500": of_phase("hash", "batch_size=500"),
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
        },
    ),
}


def main() -> None:
    """Run what is missing, then write the table."""
    arguments = parser(__doc__)
    arguments.add_argument("--studies", nargs="*", default=list(STUDIES), choices=list(STUDIES))
    options = arguments.parse_args()
    for name in options.studies:
        study = STUDIES[name]
        for change, overrides in study.changes.items():
            folder = folder_of(options.runs, name, change)
            trained([*study.base, HELD_OUT, *overrides, "seed=0"], folder, options)
            write_table(options.runs)


def folder_of(runs: Path, study: str, change: str) -> Path:
    """Where the run of a change lies."""
    return runs / "ablation" / study / re.sub(r"[^a-z0-9.]+", "-", change.lower())


def write_table(runs: Path) -> None:
    """Collect all finished runs."""
    rows = []
    for name, study in STUDIES.items():
        for change in study.changes:
            path = folder_of(runs, name, change) / "metrics.json"
            if path.is_file():
                value = json.loads(path.read_text())["validation"][study.figure]
                rows.append({"study": name, "change": change, "value": value})
    figures = {"rows": rows, **machine()}
    write("ablation", figures, markdown(figures))


def markdown(figures: dict[str, Any]) -> str:
    """A table a study; the first row is what the others change."""
    lines = []
    for name, study in STUDIES.items():
        rows = [row for row in figures["rows"] if row["study"] == name]
        if rows:
            lines += [study.what, "", "| change | figure | difference |", "|---|---:|---:|"]
        for row in rows:
            difference = f"{row['value'] - rows[0]['value']:+.4f}" if row is not rows[0] else ""
            lines.append(f"| {row['change']} | {row['value']:.4f} | {difference} |")
        lines += [""] if rows else []
    return "\n".join([*lines, f"One seed, 10,000 images held out. {described(figures)}", ""])


if __name__ == "__main__":
    main()
