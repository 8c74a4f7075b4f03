"""Images, folders and lists that the tests of data sets make."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deephash.data.datasets.image_folder import image_folder
from deephash.data.datasets.nuswide_files import CONCEPTS, FREQUENT
from deephash.data.files.decoding import decode_image
from deephash.data.image_set import ImageSet


def picture(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    """A smooth coloured pattern that no other seed has."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **kwargs)
    return buffer.getvalue()


def write_picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(picture(seed)))


def planes(path: Path, size: int) -> np.ndarray:
    """A file decoded, (3, size, size)."""
    return decode_image(path, size).transpose(2, 0, 1)


def class_folders(folder: Path, per_class: int = 4, classes: str = "ab") -> Path:
    for c, name in enumerate(classes):
        for i in range(per_class):
            write_picture(folder / name / f"{i}.jpg", seed=100 * c + i)
    return folder


def own(path: Path, **settings: Any) -> ImageSet:
    """`dataset=images` with settings of its configuration, made small."""
    given = {
        "root": None,
        "mark": ";",
        "size": 16,
        "cache_decoded": True,
        "decoded_dir": str(path.parent / "decoded"),
        "workers": 2,
        "tolerated": 0.0,
    }
    return image_folder(path=str(path), **{**given, **settings})


def labels_of_nuswide(rows: int = 40, seed: int = 0) -> np.ndarray:
    """0/1 (rows, 81); the frequent concepts are the frequent ones, and a row in eight has none."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((rows, len(CONCEPTS)), dtype=np.uint8)
    for concept, count in FREQUENT.items():
        column = CONCEPTS.index(concept)
        labels[rng.permutation(rows)[: max(2, round(rows * count / 150_000))], column] = 1
    labels[::8] = 0
    return labels


def official_nuswide(folder: Path, labels: np.ndarray, pictures: str = "Flickr") -> list[str]:
    """The official files of these labels, with images; returns the names of the images."""
    names = [f"{'actor' if i % 2 else 'zoo'}\\{i:04d}_{1000 + i}.jpg" for i in range(len(labels))]
    truth = folder / "Groundtruth" / "AllLabels"
    truth.mkdir(parents=True)
    for column, concept in enumerate(CONCEPTS):
        text = "".join(f"{value}\n" for value in labels[:, column])
        (truth / f"Labels_{concept}.txt").write_text(text)
    lists = folder / "ImageList"
    lists.mkdir()
    (lists / "Imagelist.txt").write_text("".join(f"{name} \r\n" for name in names))
    (lists / "TestImagelist.txt").write_text("".join(f"{name}\r\n" for name in names[::3]))
    for i, name in enumerate(names):
        write_picture(folder / pictures / name.replace("\\", "/"), seed=i)
    return names
