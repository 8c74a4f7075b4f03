"""Batches from image files against the bare decoder, and from kept pixels against memory.

    python benchmarks/decoding.py --path photos --workers 2

`--path` is a folder of class folders or a list, see `dataset=images`. Writes results/decoding.*.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from machine import FASTEST_OF, described, machine, write

from deephash.data.datamodule import HashingData
from deephash.data.files.decoding import decode_image
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split

SIZES = (64, 224)
BATCH = 100  # as the recipe has it


def main() -> None:
    """Measure both ways in turn, several times, at each size."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--path", type=Path, required=True, help="folder or list of images")
    options.add_argument("--root", type=Path, help="where a list's paths begin")
    options.add_argument("--workers", type=int, default=2)
    arguments = options.parse_args()
    cells = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            settings = {
                "path": str(arguments.path),
                "root": str(arguments.root) if arguments.root else None,
                "mark": ";",
                "size": size,
                "decoded_dir": folder,
                "workers": arguments.workers,
                "tolerated": 0.1,
            }
            asked = images(**settings, cache_decoded=False)
            kept = images(**settings, cache_decoded=True)
            in_memory = replace(kept, images=kept.images[torch.arange(len(kept))])
            ways: dict[str, Callable[[], int]] = {
                "bare decoder": partial(bare, asked, arguments.workers),
                "files": partial(epochs, asked, times=3),
                "memory": partial(epochs, in_memory, times=20),
                "kept pixels": partial(epochs, kept, times=20),
            }
            cells[str(size)] = rates(ways) | {"images": len(asked)}
    where = machine("pillow") | {"workers": arguments.workers}
    write("decoding", {"machine": where, "cells": cells}, markdown(cells, where))


def rates(ways: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Images a second of the fastest of several runs, the ways in turn."""
    found: dict[str, float] = {}
    for _ in range(FASTEST_OF):
        for name, way in ways.items():
            began = time.perf_counter()
            rate = way() / (time.perf_counter() - began)
            found[name] = max(found.get(name, 0), rate)
    return found


def bare(image_set: ImageSet, workers: int) -> int:
    """Decode all files in as many processes, and nothing else."""
    size = image_set.images.shape[2]
    shares = np.array_split(image_set.images.paths, workers)  # type: ignore[union-attr]
    context = get_context("fork")
    processes = [context.Process(target=loop, args=(share, size)) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return len(image_set)


def loop(paths: np.ndarray, size: int) -> None:
    """The decoder alone."""
    for path in paths:
        decode_image(path, size)


def epochs(image_set: ImageSet, *, times: int) -> int:
    """Read all training batches, `times` times."""
    every = np.arange(len(image_set))
    none = every[:0]
    data = HashingData(
        image_set,
        Split(every, none, every, none, none),
        batch_size=BATCH,
        eval_batch_size=BATCH,
        translate=0,
        flip=False,
        cutout=0,
        seed=0,
    )
    batches = data.train_dataloader()
    return sum(len(batch["inputs"]) for _ in range(times) for batch in batches)


def markdown(cells: dict[str, dict[str, float]], where: dict) -> str:
    """A line a size."""
    lines = [
        "| images a second | bare decoder | files | ratio | memory | kept pixels | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for size, cell in cells.items():
        lines.append(
            f"| {size} x {size} | {cell['bare decoder']:,.0f} | {cell['files']:,.0f} | "
            f"{cell['files'] / cell['bare decoder']:.2f} | {cell['memory']:,.0f} | "
            f"{cell['kept pixels']:,.0f} | {cell['kept pixels'] / cell['memory']:.2f} |"
        )
    told = (
        f"{next(iter(cells.values()))['images']:,} photographs, mostly 384 x 256, shuffled batches "
        f"of {BATCH}, {where['workers']} processes, fastest of {FASTEST_OF}. The bare decoder: as "
        "many processes that decode and resize, and hand nothing on."
    )
    return "\n".join([*lines, "", told, described(where), ""])


if __name__ == "__main__":
    main()
