"""Cells of a results table, each measured by one run of train.py.

A cell is current as long as its run has the same settings today. `settings_key` compares them: a
checksum of everything that can change the result of a run.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import RESULTS, ROOT, describe_machine
from deephash.cli.compose import compose_config
from deephash.core.instantiate import build, without_import_paths
from deephash.experiment.settings import validate_settings

RUNS = ROOT / "benchmarks" / "runs"
TRAINING_IMAGES = {"mnist": (60_000, 1, 28), "cifar10": (50_000, 3, 32)}  # count, channels, side
NUM_CLASSES = 10
IGNORED = {"data_dir", "run_dir", "cache_dir", "resume", "logger", "tags", "tuning"}
IGNORED_OF_DATASET = {"data_dir", "path", "root", "folder", "decoded_dir"}
LATER_OF_DATASET = {"pixel_range": "full"}  # later than some cells, at the value that they had

Cell = dict[str, Any]


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of all benchmarks on MNIST and CIFAR-10."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of MNIST and CIFAR-10")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder for the runs")
    return parser


def load_cells(table: str) -> dict[str, Cell]:
    """The cells of results/TABLE.json by name."""
    path = RESULTS / f"{table}.json"
    return json.loads(path.read_text())["cells"] if path.is_file() else {}


def current_cells(table: str, runs: dict[str, list[str]]) -> dict[str, Cell]:
    """The cells of results/TABLE.json whose runs have the same settings today.

    Args:
        table: name of the result file, without suffix.
        runs: overrides by name of the cell.
    """
    cells = load_cells(table)
    return {
        name: cells[name]
        for name, overrides in runs.items()
        if name in cells and cells[name]["settings"] == settings_key(overrides)
    }


def settings_key(overrides: list[str]) -> str:
    """A checksum of the settings of a run.

    Settings that cannot change the result are left out: import paths, places of files, loggers and
    tags, phases that the run does not have. Empty settings (null, {}, []) are left out too, so that
    cells stay current when an optional setting is added.
    """
    settings = validate_settings(compose_config(overrides))
    values = settings.model_dump(mode="json", exclude=IGNORED)
    values["dataset"] = {
        name: value
        for name, value in values["dataset"].items()
        if name not in IGNORED_OF_DATASET and LATER_OF_DATASET.get(name, ...) != value
    }
    values["training"] = {name: values["training"][name] for name in settings.phases.order}
    text = json.dumps(_without_empty(without_import_paths(values)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_empty(values: Any) -> Any:
    if isinstance(values, dict):
        items = {name: _without_empty(value) for name, value in values.items()}
        return {name: value for name, value in items.items() if value not in (None, {}, [])}
    return values


def training_petaflop(overrides: list[str]) -> float:
    """10^15 floating-point operations of the backbone in the training of a run, counted.

    Only convolutions and matrix products count; a multiply-add is two operations, and a backward
    pass costs twice a forward pass. (torch's own count of backward passes treats grouped
    convolutions as full ones.)
    """
    settings = validate_settings(compose_config(overrides))
    dataset = settings.dataset["_target_"].rpartition(".")[2]
    num_images, channels, side = TRAINING_IMAGES[dataset]
    per_class = settings.protocol.node().get("train_per_class")
    if per_class is not None:
        num_images = NUM_CLASSES * per_class
    phases = settings.ordered_phases().values()
    epochs = sum(phase.epochs for phase in phases if phase.trains == "all")
    backbone = build("backbone", settings.backbone, channels, (side, side))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(torch.zeros(2, channels, side, side))
    forward_passes = num_images * (1 - settings.protocol.validation.fraction) * epochs
    return 3 * counter.get_total_flops() / 2 * forward_passes / 1e15


def run_training(
    name: str, overrides: list[str], options: argparse.Namespace, places: Sequence[str] = ()
) -> tuple[Cell, dict[str, Any]]:
    """Run train.py, resume its stopped run, or read its finished run, below `--runs`.

    Args:
        name: of the cell, for the folder of the run.
        overrides: of the run.
        options: `data_dir` and `runs` of the command line.
        places: overrides that only say where files are.

    Returns:
        The common part of a cell (command, settings, seconds, machine, threads), and the
        `metrics.json` of the run.
    """
    key = settings_key(overrides)
    run_dir = options.runs / f"{re.sub(r'[^a-z0-9.]+', '-', name.lower())}-{key}"
    metrics_path = run_dir / "metrics.json"
    if not metrics_path.is_file():
        cache = options.runs.resolve() / "pretrained"
        if (run_dir / "config.yaml").is_file():
            arguments = [f"resume={run_dir}"]
        else:
            folders = [f"data_dir={options.data_dir.resolve()}", f"cache_dir={cache}"]
            arguments = [*overrides, f"run_dir={run_dir}", *folders, *places]
        subprocess.run([sys.executable, ROOT / "train.py", *arguments], check=True)
    metrics = json.loads(metrics_path.read_text())
    record = metrics["record"]
    versions = {"python": record["python"], **record["versions"]}
    cell = {
        "command": " ".join(["python train.py", *overrides]),
        "settings": key,
        "seconds": metrics["seconds"]["total"],
        "machine": describe_machine({**record, "versions": versions}),
        "threads": record["threads"],
    }
    return cell, metrics


def list_machines(cells: dict[str, Cell]) -> str:
    """The machines that the cells were measured on, one per line."""
    return "\n".join(sorted({cell["machine"] for cell in cells.values()}))
