"""NUS-WIDE at full size: the real labels in official files and in lists, with generated images.

    python benchmarks/nuswide.py --labels labels.npz --work nuswide

The labels are a file of `labels81` (269,648 x 81, rows packed by numpy.packbits), `concepts` and
`is_test`. Each image is a JPEG of 16 x 16 pixels of its own. Loads every subset in a process of its
own, first and once more, then reads batches for an epoch. What is laid out is found again.
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
from machine import described, machine, write
from PIL import Image

from deephash.data.datamodule import HashingData
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
    """Lay the files out, then load them."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--labels", type=Path, help="labels.npz")
    options.add_argument("--work", type=Path, default=Path("nuswide"), help="room for 3 GB")
    options.add_argument("--load", nargs=2, help="load these files and this subset, and report")
    arguments = options.parse_args()
    if arguments.load:
        print(json.dumps(loaded(arguments.work, *arguments.load)))
        return
    lay_out(arguments.work, arguments.labels)
    cells = {}
    for files, subset in ROWS:
        for sitting in ("first", "again"):
            command = [sys.executable, __file__, "--work", str(arguments.work)]
            output = subprocess.run(
                [*command, "--load", files, subset], check=True, stdout=subprocess.PIPE, text=True
            ).stdout
            cells[f"{files}, {subset}, {sitting}"] = json.loads(output.splitlines()[-1])
    where = machine("pillow")
    write("nuswide", {"machine": where, "cells": cells}, markdown(cells, described(where)))


def lay_out(work: Path, source: Path) -> None:
    """Official files, lists, and one folder of images for both."""
    official, lists = work / "official", work / "lists"
    if (work / "laid-out").is_file():
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
    tests = [name for name, test in zip(names, is_test, strict=True) if test]
    (image_lists / "TestImagelist.txt").write_text("".join(f"{name}\n" for name in tests))
    columns = [CONCEPTS.index(concept) for concept in FREQUENT]
    of_tc21 = labels[:, columns].any(axis=1)
    for name, rows in {"test": of_tc21 & is_test, "database": of_tc21 & ~is_test}.items():
        with (lists / f"{name}.txt").open("w") as out:
            for row in np.flatnonzero(rows):
                values = " ".join(map(str, labels[row, columns]))
                out.write(f"images/{names[row].rpartition(chr(92))[2]} {values}\n")
    with ProcessPoolExecutor() as workers:
        parts = np.array_split(np.arange(len(names)), 100)
        list(
            workers.map(draw, [official] * 100, [[names[i] for i in part] for part in parts], parts)
        )
    (lists / "image").symlink_to((official / "Flickr").resolve())
    (work / "laid-out").touch()


def draw(official: Path, names: Sequence[str], rows: npt.NDArray[np.int64]) -> None:
    """Images of smooth random colours."""
    for name, row in zip(names, rows.tolist(), strict=True):
        path = official / "Flickr" / name.replace("\\", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(row).integers(0, 256, (3, 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((16, 16), Image.Resampling.BILINEAR).save(path)


def loaded(work: Path, files: str, subset: str) -> dict[str, object]:
    """What a process finds that loads a subset and reads all training batches once."""
    began = time.perf_counter()
    is_lists = files == "lists"
    image_set = nuswide(
        folder=str(work / ("lists" if is_lists else "official")),
        lists=["test.txt", "database.txt"] if is_lists else [],
        order=None,
        subset=subset,  # type: ignore[arg-type]
        size=SIZE,
        cache_decoded=True,
        decoded_dir=str(work / "decoded"),
        workers=os.cpu_count(),
        tolerated=0.0,
    )
    seconds = time.perf_counter() - began
    labels = image_set.labels.numpy()
    counts = {c: int(labels[:, i].sum()) for i, c in enumerate(image_set.classes)}
    if subset == "tc21":
        assert counts == FREQUENT, counts
    assert len(image_set) == PUBLISHED[subset]
    after_loading = anonymous_memory()
    split = per_class(image_set, 0, queries=10, train=None, train_in_database=True)
    split = hold_out_validation(split, labels, share=0.05, database=5000, seed=0)
    settings = {"batch_size": 250, "eval_batch_size": 1000, "translate": 6, "flip": True}
    data = HashingData(image_set, split, **settings, cutout=0, seed=0)  # type: ignore[arg-type]
    began = time.perf_counter()
    read = sum(len(batch["inputs"]) for batch in data.train_dataloader())
    return {
        "images": len(image_set),
        "seconds": seconds,
        "checksum": image_set.checksum,
        "memory": after_loading,
        "memory_after_epoch": anonymous_memory(),
        "images_a_second": read / (time.perf_counter() - began),
    }


def anonymous_memory() -> float:
    """Memory of the process in MB, without pages of files, which the system takes back at will."""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024


def markdown(cells: dict[str, dict], where: str) -> str:
    """A line a way of loading."""
    lines = [
        "| files, subset | images | s, first | s, then | MB, loaded | MB, after an epoch |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for files, subset in ROWS:
        first, again = (cells[f"{files}, {subset}, {sitting}"] for sitting in ("first", "again"))
        lines.append(
            f"| {files}, {subset} | {again['images']:,} | {first['seconds']:.1f} | "
            f"{again['seconds']:.1f} | {again['memory']:.0f} | {again['memory_after_epoch']:.0f} |"
        )
    same = len(
        {cells[f"{files}, tc21, again"]["checksum"] for files in ("official files", "lists")}
    )
    told = (
        f"s: seconds; at first all images are decoded to {SIZE} x {SIZE} pixels and kept, "
        "and the lists find those of the official files. MB: "
        "memory of the process but for pages of files, before and after all training batches are "
        "read once. The numbers of images are those of the published labels, and so are those of "
        "each of the 21 concepts; official files and lists give "
        f"{'one image set' if same == 1 else 'different image sets'}."
    )
    return "\n".join([*lines, "", told, where, ""])


if __name__ == "__main__":
    main()
