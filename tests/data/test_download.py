"""Files of MNIST and CIFAR-10: present ones are used; missing and corrupt ones are reported."""

import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_images import write_idx

from deephash.core.errors import UserError
from deephash.data.datasets.cifar10 import cifar10, published_md5
from deephash.data.datasets.download import ensure_downloaded
from deephash.data.datasets.mnist import FILES, mnist


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def write_mnist(folder: Path, train: int = 30, test: int = 20) -> dict[str, np.ndarray]:
    """A tiny MNIST in the official format."""
    rng = np.random.default_rng(0)
    raw = folder / "MNIST" / "raw"
    written = {}
    for part, n in (("train", train), ("t10k", test)):
        written[part] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        write_idx(raw / f"{part}-images-idx3-ubyte", written[part])
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(n) % 10)
    return written


def test_mnist_is_read_from_existing_files(tmp_path: Path) -> None:
    written = write_mnist(tmp_path)
    image_set = mnist(str(tmp_path))
    pixels = np.concatenate([written["train"], written["t10k"]])[:, None]
    assert torch.equal(image_set.images, torch.from_numpy(pixels))
    assert image_set.labels.tolist() == [i % 10 for i in (*range(30), *range(20))]
    assert image_set.is_test.tolist() == [False] * 30 + [True] * 20
    assert image_set.ids[[0, 29, 30]].tolist() == ["train/0", "train/29", "test/0"]
    assert image_set.classes == tuple("0123456789")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 10, 40])
def test_a_truncated_mnist_file_is_named(tmp_path: Path, name: str, keep: int) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / name
    if keep >= path.stat().st_size:
        pytest.skip("the labels of twenty images are shorter")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=f"{name} is corrupt.*Delete it"):
        mnist(str(tmp_path))


@pytest.mark.parametrize(
    ("load", "folder"), [(mnist, "MNIST/raw"), (cifar10, "cifar-10-batches-py")]
)
def test_missing_files_without_network_are_named(tmp_path: Path, load: object, folder: str) -> None:
    with pytest.raises(UserError) as error:
        load(str(tmp_path))  # type: ignore[operator]
    message = str(error.value)
    assert str(tmp_path / folder) in message
    assert f"set data_dir to the folder that holds {folder}/" in message
    assert "no network" in message
    assert "from https://" in message
    assert "dataset=digits" in message
    for name in FILES if load is mnist else published_md5():
        assert name in message


def test_an_altered_cifar10_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in published_md5():
        (folder / name).write_bytes(b"not as published")
    with pytest.raises(UserError, match=r"data_batch_1 is corrupt: its MD5 is not c99cafc1"):
        cifar10(str(tmp_path))


@pytest.mark.realdata
def test_one_wrong_byte_in_cifar10_is_found(tmp_path: Path, data_dir: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in published_md5():
        content = (data_dir / "cifar-10-batches-py" / name).read_bytes()
        if name == "data_batch_4":
            content = content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match="data_batch_4 is corrupt"):
        cifar10(str(tmp_path))


@pytest.mark.realdata
def test_real_mnist_and_cifar10_are_the_published_ones(data_dir: Path) -> None:
    # Class counts of the official test sets.
    mnist_test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    for image_set, expected in (
        (mnist(str(data_dir)), mnist_test),
        (cifar10(str(data_dir)), [1000] * 10),
    ):
        labels = image_set.labels[torch.from_numpy(image_set.is_test)]
        assert torch.bincount(labels).tolist() == expected


def test_of_simultaneous_runs_one_downloads(tmp_path: Path) -> None:
    downloads = []

    def download() -> None:
        downloads.append(1)
        time.sleep(0.5)
        (tmp_path / "images").write_text("")

    arguments = "name", tmp_path.parent, tmp_path.name, ["images"], "https://...", download
    with ThreadPoolExecutor() as threads:
        for future in [threads.submit(ensure_downloaded, *arguments) for _ in range(3)]:
            future.result()
    assert downloads == [1]
