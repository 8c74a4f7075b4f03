"""Images, folders and lists for the tests of data sets."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from deephash.data.datasets.image_folder import image_folder
from deephash.data.datasets.nuswide import nuswide
from deephash.data.datasets.nuswide_files import CONCEPTS, FREQUENT
from deephash.data.files.decoding import decode_image
from deephash.data.image_set import ImageSet


def sample_image(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    """A smooth coloured pattern, different for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def sample_smooth_images(n: int, seed: int = 0, size: int = 64) -> torch.Tensor:
    """Different smooth random images, uint8 (n, 3, size, size)."""
    coarse = torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    fine = F.interpolate(coarse, size, mode="bicubic", align_corners=True)
    return (fine * 255).clamp(0, 255).to(torch.uint8)


def encode_image(image: Image.Image, file_format: str = "JPEG", **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **kwargs)
    return buffer.getvalue()


def write_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(sample_image(seed)))


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write bytes in the format of MNIST: type and rank, then sizes, all big-endian."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = np.array([0x800 + values.ndim, *values.shape], dtype=">i4")
    path.write_bytes(header.tobytes() + values.astype(np.uint8).tobytes())


def decode_channels_first(path: Path, size: int) -> np.ndarray:
    """Decode a file to (3, size, size)."""
    return decode_image(path, size).transpose(2, 0, 1)


def write_class_folders(folder: Path, per_class: int = 4, classes: str = "ab") -> Path:
    for c, name in enumerate(classes):
        for i in range(per_class):
            write_image(folder / name / f"{i}.jpg", seed=100 * c + i)
    return folder


def load_image_folder(path: Path, **settings: Any) -> ImageSet:
    """`image_folder` with the settings of conf/, small images and no tolerance for invalid ones."""
    defaults = {
        "root": None,
        "label_separator": ";",
        "size": 16,
        "cache_decoded": True,
        "decoded_dir": str(path.parent / "decoded"),
        "workers": 2,
        "max_invalid_fraction": 0.0,
        "path_column": None,
        "label_columns": None,
        "split_column": None,
        "val_as": None,
        "pixel_range": "full",
        "max_pixels": None,
    }
    return image_folder(path=str(path), **{**defaults, **settings})


def write_image_list(folder: Path, text: str, name: str = "list.csv", image_count: int = 4) -> Path:
    """A list, next to images 0.jpg, 1.jpg, ..."""
    for i in range(image_count):
        write_image(folder / f"{i}.jpg", seed=i)
    (folder / name).write_text(text)
    return folder / name


def sample_nuswide_labels(rows: int = 40, seed: int = 0) -> np.ndarray:
    """0/1 labels (rows, 81) about as frequent as in NUS-WIDE; every eighth row has none."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((rows, len(CONCEPTS)), dtype=np.uint8)
    for concept, count in FREQUENT.items():
        column = CONCEPTS.index(concept)
        labels[rng.permutation(rows)[: max(2, round(rows * count / 150_000))], column] = 1
    labels[::8] = 0
    return labels


def write_official_nuswide(
    folder: Path, labels: np.ndarray, image_folder: str = "Flickr"
) -> list[str]:
    """Write NUS-WIDE's official files for these labels, and images; return the images' names."""
    names = [f"{'actor' if i % 2 else 'zoo'}\\{i:04d}_{1000 + i}.jpg" for i in range(len(labels))]
    label_folder = folder / "Groundtruth" / "AllLabels"
    label_folder.mkdir(parents=True)
    for column, concept in enumerate(CONCEPTS):
        text = "".join(f"{value}\n" for value in labels[:, column])
        (label_folder / f"Labels_{concept}.txt").write_text(text)
    lists = folder / "ImageList"
    lists.mkdir()
    (lists / "Imagelist.txt").write_text("".join(f"{name} \r\n" for name in names))
    (lists / "TestImagelist.txt").write_text("".join(f"{name}\r\n" for name in names[::3]))
    for i, name in enumerate(names):
        write_image(folder / image_folder / name.replace("\\", "/"), seed=i)
    return names


def load_nuswide(folder: Path, **settings: Any) -> ImageSet:
    defaults = {
        "lists": [],
        "order": None,
        "subset": "tc21",
        "size": 16,
        "cache_decoded": True,
        "decoded_dir": str(folder / "decoded"),
        "workers": 2,
        "max_invalid_fraction": 0.0,
        "label_files": [],
        "pixel_range": "full",
        "max_pixels": None,
    }
    return nuswide(folder=str(folder), **{**defaults, **settings})
