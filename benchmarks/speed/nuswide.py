"""NUS-WIDE at full size: the real labels in official files and in lists, with generated images.

    python -m benchmarks.speed.nuswide --labels labels.npz --work nuswide

The labels are a file of `labels81` (269,648 x 81, rows packed by numpy.packbits), `concepts` and
`is_test`. Each image is a JPEG of 16 x 16 pixels of its own. Each subset is loaded in a process of
its own, twice, and one epoch of batches is read. Generated files are kept in the folder `--work`.
Writes results/nuswide.*.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.machine import ROOT, describe_machine, machine_info, write_results
from deephash.data.datamodule import HashingDataModule
from deephash.data.datasets.nuswide import nuswide
from deephash.data.datasets.nuswide_files import CONCEPTS, FREQUENT
from deephash.data.protocols import per_class
from deephash.data.splits import hold_out_validation

SIZE = 64
ROWS = [("official files", "tc21"), ("lists", "tc21"), ("official files", "tc10"),
        ("official files", "all81")]  # fmt: skip
# Images with a label of the subset, as published; and of each of the 21 concepts.
PUBLISHED = {"tc21": 195_834, "tc10": 186_577, "all81": 209_347}


def main() -> None:
    """Generate the files, then load them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=Path, help="labels.npz")
    parser.add_argument(
        "--work", type=Path, default=Path("nuswide"), help="folder for the files, 3 GB"
    )
    parser.add_argument(
        "--load",
        nargs=2,
        metavar=("FILES", "SUBSET"),
        help="load these files and this subset in this process, and print the measurements",
    )
    options = parser.parse_args()
    work = options.work.resolve()
    if options.load:
        print(json.dumps(measure(work, *options.load)))
        return
    generate_files(work, options.labels)
    cells = {}
    for files, subset in ROWS:
        for turn in ("first", "again"):
            command = [sys.executable, "-m", "benchmarks.speed.nuswide", "--work", str(work)]
            output = subprocess.run(
                [*command, "--load", files, subset],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            ).stdout
            cells[f"{files}, {subset}, {turn}"] = json.loads(output.splitlines()[-1])
    info = machine_info("pillow")
    results = {"machine": info, "cells": cells}
    write_results("nuswide", results, markdown(cells, describe_machine(info)))


def generate_files(work: Path, source: Path) -> None:
    """Write official files, lists, and one folder of images for both.

    Args:
        work: folder of the files; nothing is done if they are complete.
        source: labels.npz.
    """
    official, lists = work / "official", work / "lists"
    if (work / "complete").is_file():
        return
    with np.load(source) as file:
        labels = np.unpackbits(file["labels81"], axis=1)[:, : len(CONCEPTS)]
        assert file["concepts"].tolist() == list(CONCEPTS)
        is_test = file["is_test"]
    names = [f"{i % 700:03d}\\{i:06d}_{10**6 + i}.jpg" for i in range(len(labels))]
    truth, image_lists = official / "Groundtruth" / "AllLabels", official / "ImageList"
    for folder in (truth, image_lists, lists):
        folder.mkdir(parents=True, exist_ok=True)
    for column, concept in enumerate(CONCEPTS):
        digits = labels[:, column] + ord("0")
        lines = np.stack([digits, np.full_like(digits, ord("\n"))], axis=1)
        (truth / f"Labels_{concept}.txt").write_bytes(lines.tobytes())
    (image_lists / "Imagelist.txt").write_text("".join(f"{name}\n" for name in names))
    test_names = np.array(names)[is_test.astype(bool)].tolist()
    (image_lists / "TestImagelist.txt").write_text("".join(f"{name}\n" for name in test_names))
    columns = [CONCEPTS.index(concept) for concept in FREQUENT]
    has_concept = labels[:, columns].any(axis=1)
    for name, rows in {"test": has_concept & is_test, "database": has_concept & ~is_test}.items():
        with (lists / f"{name}.txt").open("w") as out:
            for row in np.flatnonzero(rows):
                values = " ".join(map(str, labels[row, columns]))
                out.write(f"images/{names[row].rpartition(chr(92))[2]} {values}\n")
    with ProcessPoolExecutor() as pool:
        chunks = np.array_split(np.arange(len(names)), 100)
        names_of_chunks = [[names[i] for i in chunk] for chunk in chunks]
        list(pool.map(write_images, [official] * 100, names_of_chunks, chunks))
    (lists / "image").symlink_to((official / "Flickr").resolve())
    (work / "complete").touch()


def write_images(official: Path, names: Sequence[str], rows: npt.NDArray[np.int64]) -> None:
    """Write images of smooth random colours; the row of an image is its seed."""
    for name, row in zip(names, rows.tolist(), strict=True):
        path = official / "Flickr" / name.replace("\\", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(row).integers(0, 256, (3, 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((16, 16), Image.Resampling.BILINEAR).save(path)


def measure(work: Path, files: str, subset: str) -> dict[str, object]:
    """Load a subset and read one epoch of batches; return sizes, seconds and memory."""
    start = time.perf_counter()
    use_lists = files == "lists"
    image_set = nuswide(
        folder=str(work / ("lists" if use_lists else "official")),
        lists=["test.txt", "database.txt"] if use_lists else [],
        order=None,
        subset=subset,  # type: ignore[arg-type]
        size=SIZE,
        cache_decoded=True,
        decoded_dir=str(work / "decoded"),
        workers=os.cpu_count(),
        max_invalid_fraction=0.0,
        label_files=[],
        pixel_range="full",
        max_pixels=None,
    )
    seconds = time.perf_counter() - start
    labels = image_set.labels.numpy()
    counts = {c: int(labels[:, i].sum()) for i, c in enumerate(image_set.classes)}
    if subset == "tc21":
        assert counts == FREQUENT, counts
    assert len(image_set) == PUBLISHED[subset]
    memory_after_loading = anonymous_memory()
    split = per_class(
        image_set, 0, queries_per_class=10, train_per_class=None, train_in_database=True
    )
    split = hold_out_validation(split, labels, fraction=0.05, database_size=5000, seed=0)
    settings = {"batch_size": 250, "eval_batch_size": 1000, "translate": 6, "flip": True}
    data = HashingDataModule(image_set, split, **settings, cutout=0, seed=0)  # type: ignore[arg-type]
    start = time.perf_counter()
    num_images = sum(len(batch["images"]) for batch in data.train_dataloader())
    return {
        "images": len(image_set),
        "seconds": seconds,
        "checksum": image_set.checksum,
        "memory": memory_after_loading,
        "memory_after_epoch": anonymous_memory(),
        "images_per_second": num_images / (time.perf_counter() - start),
    }


def anonymous_memory() -> float:
    """Memory of the process in MB, without pages of files, which the system can drop."""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024


def markdown(cells: dict[str, dict], machine: str) -> str:
    """The table as Markdown: a line per kind of files and subset."""
    lines = [
        "| files, subset | images | s, first | s, again | MB, loaded | MB, after an epoch |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for files, subset in ROWS:
        first, again = (cells[f"{files}, {subset}, {turn}"] for turn in ("first", "again"))
        lines.append(
            f"| {files}, {subset} | {again['images']:,} | {first['seconds']:.1f} | "
            f"{again['seconds']:.1f} | {again['memory']:.0f} | {again['memory_after_epoch']:.0f} |"
        )
    checksums = {
        cells[f"{files}, tc21, again"]["checksum"] for files in ("official files", "lists")
    }
    note = (
        f"s: seconds to load. The first row decodes its images to {SIZE} x {SIZE} pixels and keeps "
        "them; the rows below decode those that are not among them. MB: memory of the process "
        "without pages of files, before and after one epoch of training batches. The numbers of "
        "images, in all and of each of the 21 concepts, are those of the published labels; "
        "official files and lists give "
        f"{'the same image set' if len(checksums) == 1 else 'different image sets'}."
    )
    return "\n".join([*lines, "", note, machine, ""])


if __name__ == "__main__":
    main()
