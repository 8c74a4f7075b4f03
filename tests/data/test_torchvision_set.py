"""Sets of torchvision, written small in its own layouts."""

import gzip
import pickle
import types
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from sample_images import write_idx
from torchvision.datasets.utils import calculate_md5

from deephash.core.errors import UserError
from deephash.data.datasets.torchvision_names import SETS
from deephash.data.datasets.torchvision_set import _class_names, torchvision_set
from deephash.data.image_set import ImageSet

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def load(folder: Path, name: str, **options: Any) -> ImageSet:
    return torchvision_set(
        name=name,
        options=options,
        data_dir=str(folder),
        size=16,
        cache_decoded=True,
        decoded_dir=str(folder / "decoded"),
        workers=1,
        max_invalid_fraction=0.0,
    )


def write_part(folder: Path, part: str, count: int) -> np.ndarray:
    """A part of a set in the format of MNIST, with ten classes; returns its pixels."""
    images = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    write_idx(folder / f"{part}-images-idx3-ubyte", images)
    write_idx(folder / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
    return images


@pytest.mark.parametrize("name", ["FashionMNIST", "fashionmnist", "KMNIST"])
def test_sets_in_the_format_of_mnist(name: str, tmp_path: Path) -> None:
    kind = "KMNIST" if name == "KMNIST" else "FashionMNIST"
    raw = tmp_path / kind / "raw"
    train, test = (write_part(raw, part, n) for part, n in (("train", 30), ("t10k", 20)))
    image_set = load(tmp_path, name)
    assert image_set.name == kind.lower()
    pixels = image_set.images[torch.arange(50)]
    np.testing.assert_array_equal(pixels[:, 0], np.concatenate([train, test]))
    assert image_set.labels.tolist() == [i % 10 for i in (*range(30), *range(20))]
    assert image_set.is_test.tolist() == [False] * 30 + [True] * 20
    assert image_set.ids[[0, 30]].tolist() == ["train/0", "test/0"]
    assert image_set.classes == tuple(getattr(torchvision.datasets, kind).classes)


def test_gzipped_files_are_unpacked_in_place(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    train, test = (write_part(raw, part, n) for part, n in (("train", 30), ("t10k", 20)))
    for path in list(raw.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    image_set = load(tmp_path, "FashionMNIST")
    np.testing.assert_array_equal(image_set.images[:, 0], np.concatenate([train, test]))
    (raw / "t10k-labels-idx1-ubyte").unlink()
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8b\x08 damaged")
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte.gz cannot be unpacked .* damaged"):
        load(tmp_path, "FashionMNIST")
    assert not (raw / "t10k-labels-idx1-ubyte").exists()


def test_classes_of_one_name_are_told_apart() -> None:
    """As the two cranes of ImageNet."""
    part = types.SimpleNamespace(classes=[("crane",), ("crane",), ("kite", "bird")])
    assert _class_names(part) == ("crane (0)", "crane (1)", "kite, bird")


def test_options_choose_a_split_of_emnist(tmp_path: Path) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    for part in ("train", "test"):
        write_part(raw, f"emnist-digits-{part}", 20)
    assert len(load(tmp_path, "EMNIST", split="digits").classes) == 10
    told = r"EMNIST needs an option: 'dataset.options={split: ...}', one of byclass, bymerge, .*t\."
    with pytest.raises(UserError, match=told):
        load(tmp_path, "EMNIST")
    with pytest.raises(
        UserError, match=r"options: torchvision's CIFAR10 got .* argument 'split'\."
    ):
        load(tmp_path, "CIFAR10", split="digits")
    with pytest.raises(UserError, match="'letter' for argument split"):
        load(tmp_path, "EMNIST", split="letter")


def set_md5(monkeypatch: pytest.MonkeyPatch, kind: type, attribute: str, folder: Path) -> None:
    """Give a set the checksums of the small files."""
    files = [(name, calculate_md5(folder / name)) for name, *_ in getattr(kind, attribute)]
    monkeypatch.setattr(kind, attribute, files)


def test_cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, kind = tmp_path / "cifar-100-python", torchvision.datasets.CIFAR100
    folder.mkdir()
    pixels = RNG.integers(0, 256, (50, 3, 32, 32), dtype=np.uint8)
    for name, rows in (("train", slice(0, 30)), ("test", slice(30, 50))):
        entry = {"data": pixels[rows].reshape(-1, 3072), "fine_labels": list(range(100))[rows]}
        (folder / name).write_bytes(pickle.dumps(entry))
    names = [f"class {i}" for i in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))
    for attribute in ("train_list", "test_list"):
        set_md5(monkeypatch, kind, attribute, folder)
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": calculate_md5(folder / "meta")})
    image_set = load(tmp_path, "CIFAR100")
    np.testing.assert_array_equal(image_set.images, pixels)
    assert image_set.labels.tolist() == list(range(50))
    assert image_set.is_test.sum() == 20
    assert image_set.classes == tuple(names)


def test_stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, kind = tmp_path / "stl10_binary", torchvision.datasets.STL10
    folder.mkdir()
    pixels = RNG.integers(0, 256, (20, 3, 96, 96), dtype=np.uint8)
    for part, rows in (
        ("train", slice(0, 10)),
        ("test", slice(10, 20)),
        ("unlabeled", slice(0, 1)),
    ):
        (folder / f"{part}_X.bin").write_bytes(pixels[rows].transpose(0, 1, 3, 2).tobytes())
        if part != "unlabeled":
            (folder / f"{part}_y.bin").write_bytes(np.arange(1, 11, dtype=np.uint8).tobytes())
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    for attribute in ("train_list", "test_list"):
        set_md5(monkeypatch, kind, attribute, folder)
    image_set = load(tmp_path, "STL10")
    np.testing.assert_array_equal(image_set.images, pixels)
    assert image_set.labels.tolist() == 2 * list(range(10))
    assert image_set.classes == tuple("abcdefghij")


def test_svhn_has_digits_as_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io = pytest.importorskip("scipy.io")
    kind = torchvision.datasets.SVHN
    pixels = RNG.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    for part in ("train", "test"):
        labels = np.arange(1, 21)[:, None] % 10
        path = tmp_path / f"{part}_32x32.mat"
        io.savemat(path, {"X": pixels.transpose(1, 2, 3, 0), "y": np.where(labels, labels, 10)})
        url, name, _ = kind.split_list[part]
        monkeypatch.setitem(kind.split_list, part, [url, name, calculate_md5(path)])
    image_set = load(tmp_path, "SVHN")
    images = image_set.images[torch.arange(20)]
    np.testing.assert_array_equal(images, pixels.transpose(0, 3, 1, 2))
    assert image_set.labels[:20].tolist() == [i % 10 for i in range(1, 21)]
    assert image_set.classes == tuple("0123456789")


def write_jpegs(folder: Path, names: list[str]) -> None:
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (i * 20, 255 - i * 20, i)).save(path, quality=95)


def test_a_set_of_files_with_three_parts(tmp_path: Path) -> None:
    """DTD: training and validation images are trained on, its test images are the test set."""
    folder = tmp_path / "dtd" / "dtd"
    names = [f"{kind}/{i}.jpg" for kind in ("banded", "dotted") for i in range(3)]
    write_jpegs(folder / "images", names)
    (folder / "labels").mkdir()
    for part, rows in (("train", (0, 3)), ("val", (1, 4)), ("test", (2, 5))):
        (folder / "labels" / f"{part}1.txt").write_text("\n".join(names[row] for row in rows))
    image_set = load(tmp_path, "DTD")
    assert image_set.classes == ("banded", "dotted")
    assert image_set.ids.tolist() == [f"dtd/dtd/images/{names[row]}" for row in (0, 3, 1, 4, 2, 5)]
    assert image_set.labels.tolist() == [0, 1] * 3
    assert image_set.is_test.tolist() == [False] * 4 + [True] * 2


def test_a_set_of_files_without_parts(tmp_path: Path) -> None:
    names = [f"{kind}/{i}.jpg" for kind in ("Forest", "River") for i in range(3)]
    write_jpegs(tmp_path / "eurosat" / "2750", names)
    image_set = load(tmp_path, "EuroSAT")
    assert image_set.classes == ("Forest", "River")
    assert not image_set.is_test.any()
    assert image_set.images[torch.arange(6)].shape == (6, 3, 16, 16)
    assert image_set.images[torch.tensor([5])].float().mean((0, 2, 3)).round().tolist() == (
        pytest.approx([100, 155, 5], abs=3)
    )


def test_what_is_missing_and_cannot_be_downloaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"dataset.name=USPS: {tmp_path} does not hold it whole"):
        load(tmp_path, "USPS")
    with pytest.raises(UserError, match="dataset.name=ImageNet: .* does not hold it whole"):
        load(tmp_path, "ImageNet")


def test_a_truncated_file_is_told(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    for part in ("train", "t10k"):
        write_part(raw, part, 20)
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="FashionMNIST: .* not hold it whole.* invalid .*damaged"):
        load(tmp_path, "FashionMNIST")


@pytest.mark.parametrize("name", ["FashionMNST", "VOCDetection", "FakeData", ""])
def test_other_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"dataset.name={name}: torchvision has no such set"):
        load(tmp_path, name)


@pytest.mark.parametrize("name", SETS)
def test_torchvision_has_the_set(name: str) -> None:
    assert name in torchvision.datasets.__all__
