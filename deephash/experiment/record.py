"""The record of a run: what determined it, and where it ran."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from deephash.core.distributed import world_size
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split, find_query_duplicates
from deephash.experiment.settings import Settings

LIBRARIES = ("pytorch-lightning", "torchvision", "numpy", "numba")


def make_record(
    settings: Settings,
    image_set: ImageSet,
    split: Split,
    trainer_config: dict[str, Any],
    source_digest: str,
) -> dict[str, Any]:
    """Plain values: data, split, model, versions, code and machine.

    Args:
        settings: of the run.
        image_set: its images.
        split: of them.
        trainer_config: resolved settings of Lightning's Trainer.
        source_digest: of the code of backbone and training.
    """
    return {
        "dataset": image_set.name,
        "data": image_set.checksum,
        "split": split.checksum,
        "images": {name: len(indices) for name, indices in split.arrays().items()},
        "copies_of_queries_left_out": int(find_query_duplicates(image_set, split).sum()),
        "backbone": settings.backbone,
        "method": settings.method,
        "bits": settings.bits,
        "seed": settings.seed,
        "tags": settings.tags,
        "augment": settings.augment.model_dump(),
        "precision": trainer_config["precision"],
        "versions": {name: version(name) for name in ("deephash", "torch")},
        "commit": current_commit(),
        "source_digest": source_digest,
        "python": platform.python_version(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def processor_name() -> str:
    """The processor's name as Linux knows it; elsewhere as Python does."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def current_commit() -> str | None:
    """The commit of the checkout that this package runs from, with `-dirty` where files differ.

    None where the package is installed, or git is not there.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
