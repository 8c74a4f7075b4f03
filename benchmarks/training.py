"""Runs of train.py that a benchmark is made of, and the cells of a table that they fill."""

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
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from machine import RESULTS, described
from omegaconf import DictConfig, OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from deephash.core.instantiate import without_import_paths

HERE = Path(__file__).resolve().parent
TRAIN = HERE.parent / "train.py"
CONF = HERE.parent / "conf"
TRAINING_IMAGES = {"mnist": (60_000, 1, 28), "cifar10": (50_000, 3, 32)}  # channels, side
CLASSES = 10
PLACES = ("data_dir", "run_dir", "cache_dir", "logger")
PLACES_OF_DATA = ("data_dir", "path", "root", "folder", "decoded_dir")

Cell = dict[str, Any]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Where data and runs lie."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data-dir", type=Path, required=True, help="holds MNIST and CIFAR-10")
    options.add_argument("--runs", type=Path, default=HERE / "runs", help="where the runs lie")
    return options


def finished_cells(table: str) -> dict[str, Cell]:
    """The cells of results/TABLE.json by name, from whatever sitting and machine."""
    path = RESULTS / f"{table}.json"
    return json.loads(path.read_text())["cells"] if path.is_file() else {}


def current_cells(table: str, runs: dict[str, list[str]]) -> dict[str, Cell]:
    """The finished cells among `runs`, overrides by name, whose settings are those of today."""
    cells = finished_cells(table)
    return {
        name: cells[name]
        for name, overrides in runs.items()
        if name in cells and cells[name]["settings"] == settings_of(overrides)
    }


def composed(overrides: list[str]) -> DictConfig:
    """All settings of a run."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=["run_dir=runs", *overrides])


def petaflop(overrides: list[str]) -> float:
    """10^15 floating-point operations of the backbone in a run's training, counted, not measured.

    Those of its products; a multiply-add is two, and a backward pass costs twice a forward pass.
    (torch's own count of backward passes takes grouped convolutions for full ones.)
    """
    cfg = composed(overrides)
    images, channels, side = TRAINING_IMAGES[cfg.dataset._target_.rpartition(".")[2]]
    labelled = CLASSES * cfg.protocol.train if "train" in cfg.protocol else images
    phases = [cfg.phase[name] for name in cfg.phases.order]
    epochs = sum(phase.epochs for phase in phases if phase.trains == "all")
    backbone = instantiate(cfg.backbone, channels, (side, side))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(torch.zeros(2, channels, side, side))
    steps_of_one_image = labelled * (1 - cfg.validation.share) * epochs
    return 3 * counter.get_total_flops() / 2 * steps_of_one_image / 1e15


def settings_of(overrides: list[str]) -> str:
    """A checksum of a run's settings, free of import paths, of where its files lie and of phases
    that it has not.
    """
    cfg = composed(overrides)
    for place in [*PLACES, *(f"dataset.{p}" for p in PLACES_OF_DATA if p in cfg.dataset)]:
        OmegaConf.update(cfg, place, None)
    cfg.phase = {name: cfg.phase[name] for name in cfg.phases.order}
    values = without_import_paths(OmegaConf.to_container(cfg, resolve=True))
    resolved = json.dumps(values, sort_keys=True)
    return hashlib.sha256(resolved.encode()).hexdigest()[:16]


def trained(
    name: str, overrides: list[str], options: argparse.Namespace, places: Sequence[str] = ()
) -> tuple[Cell, Cell]:
    """Run train.py, go on with its stopped run, or find it finished below `--runs`.

    Args:
        name: of the run, for its folder.
        overrides: of the run.
        options: where data and runs lie.
        places: overrides that only say where files lie.

    Returns:
        The beginning of a cell: command, settings, seconds, where it ran; all figures of the run.
    """
    settings = settings_of(overrides)
    folder = options.runs / f"{re.sub(r'[^a-z0-9.]+', '-', name.lower())}-{settings}"
    figures = folder / "metrics.json"
    if not figures.is_file():
        cache = options.runs.resolve() / "pretrained"
        where = [f"data_dir={options.data_dir.resolve()}", f"cache_dir={cache}", *places]
        if (folder / "config.yaml").is_file():
            command = [f"resume={folder}"]
        else:
            command = [*overrides, f"run_dir={folder}", *where]
        subprocess.run([sys.executable, TRAIN, *command], check=True)
    found = json.loads(figures.read_text())
    record = found["record"]
    versions = {"python": record["python"], **record["versions"]}
    cell = {
        "command": " ".join(["python train.py", *overrides]),
        "settings": settings,
        "seconds": found["seconds"]["total"],
        "machine": described({**record, "versions": versions}),
        "threads": record["threads"],
    }
    return cell, found


def machines(cells: dict[str, Cell]) -> str:
    """Where the cells were made, a line a machine."""
    return "\n".join(sorted({cell["machine"] for cell in cells.values()}))
