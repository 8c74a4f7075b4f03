"""The record of a run: what determined it, and where it ran."""

import json
import logging
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
RECORD = "record.json"  # in the folder of a run
CODE_KEYS = {  # keys of a record that tell which code ran, in words
    "source_digest": "the source of backbone or training",
    "method_digest": "the source of the method",
    "versions": "the version of deephash or torch",
    "libraries": "the version of a library",
    "precision": "trainer.precision",
}

logger = logging.getLogger(__name__)


def make_record(
    settings: Settings,
    image_set: ImageSet,
    split: Split,
    trainer_config: dict[str, Any],
    source_digest: str,
    method_digest: str,
) -> dict[str, Any]:
    """Plain values: data, split, model, versions, code and machine.

    Args:
        settings: of the run.
        image_set: its images.
        split: of them.
        trainer_config: resolved settings of Lightning's Trainer.
        source_digest: of the code of backbone and training.
        method_digest: of the code of the method.
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
        "method_digest": method_digest,
        "python": platform.python_version(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def note_changed_code(record: dict[str, Any], path: Path) -> None:
    """Compare the code of a resumed run with that of its record so far, and keep the earlier.

    Where they differ, a warning says in what, and `record["earlier_code"]` lists what ran before,
    the first first.

    Args:
        record: of this session; changed.
        path: of the record of the session before.
    """
    try:
        before = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):  # it is not there, or damaged
        before = record
    earlier = before.get("earlier_code", [])
    # Version 0.2 recorded no digests.
    changed = [
        name for key, name in CODE_KEYS.items() if before.get(key, record[key]) != record[key]
    ]
    if changed:
        earlier.append({key: before.get(key) for key in ("commit", *CODE_KEYS)})
        logger.warning(
            "%s: it is resumed with other code or settings than before: changed is %s. Finished "
            "phases stay as they are.",
            path.parent.name,
            ", ".join(changed),
        )
    if earlier:
        record["earlier_code"] = earlier


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
