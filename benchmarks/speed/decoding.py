"""Batches from image files against the bare decoder, and from decoded images against memory.

    python -m benchmarks.speed.decoding --path photos --workers 2

`--path` is a folder of class folders or a list, see `dataset=image_folder`. Writes
results/decoding.*.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import REPEATS, describe_machine, machine_info, write_results
from deephash.data.datamodule import HashingDataModule
from deephash.data.datasets.image_folder import image_folder
from deephash.data.files.decoding import decode_image
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split

SIZES = (64, 224)
BATCH_SIZE = 100  # that of the default recipe


def main() -> None:
    """Measure all sources of images in turn, several times, at each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--path", type=Path, required=True, help="folder or list of images")
    parser.add_argument("--root", type=Path, help="folder that the paths of a list are relative to")
    parser.add_argument("--workers", type=int, default=2, help="decoding processes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cells = {str(size): measure(options, size, decoded_dir=folder) for size in SIZES}
    info = machine_info("pillow") | {"workers": options.workers}
    write_results("decoding", {"machine": info, "cells": cells}, markdown(cells, info))


def measure(options: argparse.Namespace, size: int, decoded_dir: str) -> dict[str, float]:
    """Images per second from each source at a size in pixels, and the number of images."""
    load = partial(
        image_folder,
        path=str(options.path),
        root=str(options.root) if options.root else None,
        label_separator=";",
        size=size,
        decoded_dir=decoded_dir,
        workers=options.workers,
        max_invalid_fraction=0.1,
        path_column=None,
        label_columns=None,
        split_column=None,
        val_as=None,
        pixel_range="full",
        max_pixels=None,
    )
    in_files = load(cache_decoded=False)
    cached = load(cache_decoded=True)
    in_memory = replace(cached, images=cached.images[torch.arange(len(cached))])
    sources: dict[str, Callable[[], int]] = {
        "bare decoder": partial(decode_in_processes, in_files, options.workers),
        "files": partial(read_epochs, in_files, epochs=3),
        "memory": partial(read_epochs, in_memory, epochs=20),
        "decoded cache": partial(read_epochs, cached, epochs=20),
    }
    return measure_rates(sources) | {"images": len(in_files)}


def measure_rates(sources: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Images per second of the fastest of several calls; the sources take turns.

    Args:
        sources: functions that read images and return their number, by name.
    """
    rates: dict[str, float] = {}
    for _ in range(REPEATS):
        for name, read in sources.items():
            start = time.perf_counter()
            rate = read() / (time.perf_counter() - start)
            rates[name] = max(rates.get(name, 0), rate)
    return rates


def decode_in_processes(image_set: ImageSet, workers: int) -> int:
    """Decode all files in as many processes, and drop the pixels; return the number of images."""
    size = image_set.images.shape[2]
    shares = np.array_split(image_set.images.paths, workers)  # type: ignore[union-attr]
    context = get_context("fork")
    processes = [context.Process(target=decode_files, args=(share, size)) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return len(image_set)


def decode_files(paths: np.ndarray, size: int) -> None:
    """Decode and resize, and drop the pixels."""
    for path in paths:
        decode_image(path, size)


def read_epochs(image_set: ImageSet, *, epochs: int) -> int:
    """Read all training batches of several epochs; return the number of images."""
    indices = np.arange(len(image_set))
    empty = indices[:0]
    data = HashingDataModule(
        image_set,
        Split(indices, empty, indices, empty, empty),
        batch_size=BATCH_SIZE,
        eval_batch_size=BATCH_SIZE,
        translate=0,
        flip=False,
        cutout=0,
        seed=0,
    )
    batches = data.train_dataloader()
    return sum(len(batch["images"]) for _ in range(epochs) for batch in batches)


def markdown(cells: dict[str, dict[str, float]], info: dict[str, Any]) -> str:
    """The table as Markdown: a line per size."""
    lines = [
        "| images per second | bare decoder | files | ratio | memory | decoded cache | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for size, cell in cells.items():
        lines.append(
            f"| {size} x {size} | {cell['bare decoder']:,.0f} | {cell['files']:,.0f} | "
            f"{cell['files'] / cell['bare decoder']:.2f} | {cell['memory']:,.0f} | "
            f"{cell['decoded cache']:,.0f} | {cell['decoded cache'] / cell['memory']:.2f} |"
        )
    note = (
        f"{next(iter(cells.values()))['images']:,} photographs, mostly 384 x 256, shuffled batches "
        f"of {BATCH_SIZE}, {info['workers']} processes, fastest of {REPEATS}. The bare decoder: as "
        "many processes that decode and resize the images and drop them."
    )
    return "\n".join([*lines, "", note, describe_machine(info), ""])


if __name__ == "__main__":
    main()
