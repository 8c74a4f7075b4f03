"""What a run leaves: a record of what determined it, codes, figures, pictures."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deephash.core import distributed, ranks
from deephash.core.io import atomic_write, write_json
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split, find_query_duplicates
from deephash.experiment import console, plots
from deephash.experiment import loggers as tracking
from deephash.experiment.run_dir import FIGURES
from deephash.experiment.settings import Settings
from deephash.metrics.code_health import code_health
from deephash.metrics.ranking import evaluate_codes
from deephash.training.modules import encode_features
from deephash.training.phases import Training


def record_of(
    settings: Settings, image_set: ImageSet, split: Split, trainer: dict[str, Any]
) -> dict[str, Any]:
    """What determined the run, and where it ran."""
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
        "augment": settings.augment.model_dump(),
        "precision": trainer["precision"],
        "versions": {name: version(name) for name in ("deephash", "torch")},
        "python": platform.python_version(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "libraries": {
            name: version(name) for name in ("pytorch-lightning", "torchvision", "numpy", "numba")
        },
    }


def processor() -> str:
    """Its name as Linux knows it; elsewhere as Python does."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def report(
    settings: Settings, folder: Path, training: Training, record: dict[str, Any], began: float
) -> None:
    """Encode queries and database, evaluate, and leave figures, codes and pictures."""
    image_set, split = training.image_set, training.split
    evaluating = time.perf_counter()
    codes = {}
    for part in ("query", "database"):
        indices = split.arrays()[part]
        words = encode_features(training.method, training.features(indices))
        if not ranks.is_rank_zero():
            continue
        labels = image_set.labels.numpy()[indices]
        codes[part] = (words, labels)
        with atomic_write(folder / "codes" / f"{part}.npz") as path:
            ids = image_set.ids[indices]
            np.savez(path, ids=ids, words=words, bits=settings.bits, labels=labels)
    if not ranks.is_rank_zero():
        return
    ranking = evaluate_codes(
        *codes["query"],
        *codes["database"],
        settings.bits,
        ks=tuple(settings.evaluation.ks),
        radius=settings.evaluation.radius,
        database_order=True,
    )
    results = ranking.scalars | code_health(codes["database"][0], settings.bits)
    seconds = {**training.seconds, "evaluate": time.perf_counter() - evaluating}
    seconds["total"] = training.earlier_seconds + time.perf_counter() - began
    if training.found_seconds:
        seconds["pretrain_found"] = training.found_seconds  # in another run, not in the total
    validation = {k: v for k, v in training.rows[-1].items() if k.startswith("val/")}
    figures = {"test": results, "validation": validation, "seconds": seconds, "record": record}
    pictures = plots.draw(
        folder / "pictures",
        rows=training.rows,
        ranking=ranking,
        bits=settings.bits,
        image_set=image_set,
        split=split,
        query_words=codes["query"][0],
        database_words=codes["database"][0],
    )
    last_step = int(training.rows[-1]["step"])
    tracking.report(training.loggers, last_step, results, pictures)
    write_json(folder / FIGURES, figures)  # last: what has them is finished
    console.results_table(folder, settings, record, results, seconds)
