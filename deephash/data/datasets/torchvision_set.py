"""The classification sets of torchvision, by their names there."""

import inspect
import logging
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from deephash.core.errors import UserError, did_you_mean
from deephash.data.datasets.download import unpack_idx
from deephash.data.datasets.torchvision_names import SETS, SPLIT_NAMES, TRAIN_FLAG, find_set
from deephash.data.files.cleaning import DecodingOptions, Listing
from deephash.data.image_set import ImageSet

logger = logging.getLogger(__name__)


def torchvision_set(
    *,
    name: str,
    options: dict[str, Any] | None,
    data_dir: str,
    size: int,
    cache_decoded: bool,
    decoded_dir: str,
    workers: int | None,
    max_invalid_fraction: float,
) -> ImageSet:
    """Load a classification set of torchvision, training images first.

    Args:
        name: of its class in `torchvision.datasets`; letter case does not matter.
        options: further arguments of that class, such as `split: letters` of EMNIST.
        data_dir: the folder that torchvision calls `root`; what is missing is downloaded to it.
        size: side of the decoded images in pixels, for sets that lie in image files.
        cache_decoded: whether to keep the decoded images of such sets.
        decoded_dir: folder for them and for the report of unusable images.
        workers: number of threads or processes that decode; None for the number of CPU cores.
        max_invalid_fraction: how many of the images may be broken, from 0 to 1.

    Raises:
        UserError: there is no such set, or it is neither in `data_dir` nor can be downloaded.
    """
    kind = find_set(name)
    if kind is None:
        raise UserError(
            f"dataset.name={name}: torchvision has no such set of labelled images. "
            f"{did_you_mean(name, SETS)}"
        )
    unpack_idx(Path(data_dir, kind, "raw"))  # of sets in the format of MNIST
    parts = {part: _open(kind, part, Path(data_dir), options or {}) for part in SETS[kind]}
    classes = _class_names(next(iter(parts.values())))
    is_test = np.concatenate(
        [np.full(len(part), i > 0 and i == len(parts) - 1) for i, part in enumerate(parts.values())]
    )
    if all(hasattr(part, "data") for part in parts.values()):
        return ImageSet(
            name=kind.lower(),
            images=torch.cat([_read_pixels(part) for part in parts.values()]),
            labels=torch.cat([_read_labels(part) for part in parts.values()]),
            ids=np.array([f"{key}/{i}" for key, part in parts.items() for i in range(len(part))]),
            classes=classes,
            is_test=is_test,
        )
    files = [sample for part in parts.values() for sample in _list_files(part)]
    listing = Listing(
        name=kind.lower(),
        source=Path(data_dir),
        ids=[os.path.relpath(path, data_dir).replace(os.sep, "/") for path, _ in files],
        paths=[path for path, _ in files],
        labels=np.array([label for _, label in files], dtype=np.int64),
        classes=classes,
        is_test=is_test,
    )
    return listing.load(
        DecodingOptions(size, cache_decoded, decoded_dir, workers, max_invalid_fraction)
    )


def _open(kind: str, part: str, data_dir: Path, options: dict[str, Any]) -> Any:
    """Open a part of a set, downloaded if it is missing; of several processes, one downloads."""
    from torchvision import datasets  # slow to import

    arguments: dict[str, Any] = dict(options)
    if kind in TRAIN_FLAG:
        arguments["train"] = part == "train"
    elif kind in SPLIT_NAMES:
        arguments["split"] = part
    _check_options(kind, getattr(datasets, kind), arguments)
    try:
        try:
            return getattr(datasets, kind)(data_dir, **arguments)
        except (OSError, RuntimeError) as error:  # something is missing
            return _download(kind, data_dir, arguments, error)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"dataset.name={kind} needs a package: pip install {error.name}") from None
    except Exception as error:  # on damaged files torchvision raises exceptions of any kind
        raise UserError(
            f"dataset.name={kind} cannot be read from {data_dir.absolute()}: {error}. Check "
            f"dataset.options={options}, or delete the damaged files."
        ) from None


def _check_options(kind: str, dataset: type, arguments: dict[str, Any]) -> None:
    """Refuse options that the class of a set does not take, and that some are lacking."""
    try:
        inspect.signature(dataset).bind("folder", **arguments)
    except TypeError as error:
        lacking = re.fullmatch(r"missing a required argument: '(\w+)'", str(error))
        if not lacking:
            raise UserError(f"dataset.options: torchvision's {kind} {error}.") from None
        values = getattr(dataset, f"{lacking[1]}s", ())  # such as `splits` of EMNIST
        raise UserError(
            f"dataset.name={kind} needs an option: 'dataset.options={{{lacking[1]}: ...}}'"
            + f", one of {', '.join(values)}." * bool(values)
        ) from None


def _download(kind: str, data_dir: Path, arguments: dict[str, Any], error: Exception) -> Any:
    """Download a set, and open a part of it. `error` says what is missing."""
    from torchvision import datasets

    try:
        if kind == "ImageNet":  # it has to be asked for by hand
            raise error
        data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(data_dir / f".{kind}.lock"):
            logger.info("downloading %s to %s", kind, data_dir.absolute())
            return getattr(datasets, kind)(data_dir, **arguments, download=True)
    except (OSError, RuntimeError) as error:
        lines = str(error).strip().splitlines()
        raise UserError(
            f"dataset.name={kind}: {data_dir.absolute()} does not hold it whole, as torchvision "
            f"unpacks it, and downloading failed: {lines[-1] if lines else type(error).__name__}. "
            "Set data_dir to the folder that torchvision calls root, or delete damaged files."
        ) from None


def _read_pixels(part: Any) -> Tensor:
    pixels = torch.as_tensor(part.data)
    if pixels.ndim == 3:
        return pixels[:, None]
    return pixels if pixels.shape[1] == 3 else pixels.permute(0, 3, 1, 2).contiguous()


def _read_labels(part: Any) -> Tensor:
    return torch.as_tensor(part.targets if hasattr(part, "targets") else part.labels).long()


def _list_files(part: Any) -> list[tuple[str, int]]:
    """Paths and class indices of the images, sorted by path."""
    for attribute in ("samples", "_samples", "imgs"):
        if hasattr(part, attribute):
            samples = [(str(path), int(label)) for path, label in getattr(part, attribute)]
            break
    else:
        paths = part._image_files if hasattr(part, "_image_files") else part._images
        samples = [(str(path), int(label)) for path, label in zip(paths, part._labels, strict=True)]
    return sorted(samples)


def _class_names(part: Any) -> tuple[str, ...]:
    """The names that the set gives its classes; their numbers if it gives none."""
    names = getattr(part, "classes", None)
    if names is None:
        labels = _read_labels(part) if hasattr(part, "data") else [n for _, n in _list_files(part)]
        names = range(int(max(labels)) + 1)
    texts = [", ".join(name) if isinstance(name, tuple) else str(name) for name in names]
    # ImageNet has two classes named crane.
    return tuple(f"{t} ({i})" if texts.count(t) > 1 else t for i, t in enumerate(texts))
