"""An audit finds exactly the leaks and defects that the tests plant."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sample_images import load_image_folder, sample_smooth_images, write_class_folders

from deephash.data import audit as audit_module
from deephash.data.audit import Audit, audit, perceptual_signatures
from deephash.data.datasets.cifar10 import cifar10
from deephash.data.datasets.digits import digits
from deephash.data.files.decoded_cache import decode_files
from deephash.data.image_set import ImageSet
from deephash.data.protocols import per_class, test_vs_train
from deephash.data.splits import Split

test_vs_train.__test__ = False  # type: ignore[attr-defined]  # a protocol, not a test


def make_image_set(images: torch.Tensor) -> ImageSet:
    n = len(images)
    ids = np.array([f"toy/{i}" for i in range(n)])
    return ImageSet("toy", images, torch.arange(n) % 2, ids, ("a", "b"), np.zeros(n, dtype=bool))


def make_split(query: Sequence[int], database: Sequence[int], train: Sequence[int] = ()) -> Split:
    none = np.empty(0, dtype=np.int64)
    parts = (np.array(part, dtype=np.int64) for part in (train, query, database))
    return Split(*parts, validation=none, validation_database=none)


def pairs_of(result: Audit, kind: str) -> set[tuple[str, str]]:
    leaks = result.leaks[kind]
    pairs = {(leak.query, leak.other) for leak in leaks}
    assert len(pairs) == len(leaks)
    return pairs


def test_a_clean_set_has_counts_and_no_leak() -> None:
    image_set = digits()
    split = per_class(
        image_set, 0, queries_per_class=30, train_per_class=None, train_in_database=True
    )
    result = audit(image_set, split, near_duplicates=True)
    assert result.leaks == {"id": [], "content": [], "near": []}
    assert not result.has_leaks
    assert result.sizes == {"query": 300, "train": 1497, "database": 1497}
    assert result.classes["query"] == dict.fromkeys("0123456789", 30)
    assert sum(result.classes["database"].values()) == 1497
    assert (result.data, result.split) == (image_set.checksum, split.checksum)
    assert result.left_out == {}
    assert result.duplicates_in_database == 0


def test_a_query_in_another_part_is_found_by_id_only() -> None:
    result = audit(
        make_image_set(sample_smooth_images(20)),
        make_split([0, 1, 2, 3], range(3, 15), [1, *range(15, 20)]),
        near_duplicates=True,
    )
    pairs = [(leak.query, leak.other, leak.parts, leak.difference) for leak in result.leaks["id"]]
    assert pairs == [
        ("toy/1", "toy/1", ["train"], 0.0),
        ("toy/3", "toy/3", ["database"], 0.0),
    ]
    assert result.has_leaks
    assert not result.leaks["content"]
    assert not result.leaks["near"]


def test_duplicates_are_found_by_content_and_not_again_as_near_duplicates() -> None:
    images = sample_smooth_images(30)
    images[20] = images[3]
    images[25] = images[26] = images[7]
    images[12] = images[11]  # both in the database: no leak
    result = audit(
        make_image_set(images),
        make_split(range(10), range(10, 26), range(24, 30)),
        near_duplicates=True,
    )
    assert pairs_of(result, "content") == {
        ("toy/3", "toy/20"),
        ("toy/7", "toy/25"),
        ("toy/7", "toy/26"),
    }
    parts = {leak.other: leak.parts for leak in result.leaks["content"]}
    assert parts["toy/20"] == ["database"]
    assert parts["toy/25"] == ["train", "database"]
    assert parts["toy/26"] == ["train"]
    assert result.duplicates_in_database == 1
    assert not result.leaks["id"]
    assert not result.leaks["near"]


def test_each_of_many_duplicates_is_in_a_pair_but_not_all_pairs_are_listed() -> None:
    images = sample_smooth_images(12)
    images[[0, 1, 2, 6, 7, 8, 9]] = images[0].clone()
    result = audit(
        make_image_set(images), make_split(range(4), range(4, 12)), near_duplicates=False
    )
    pairs = pairs_of(result, "content")
    assert {query for query, _ in pairs} == {"toy/0", "toy/1", "toy/2"}
    assert {other for _, other in pairs} == {"toy/6", "toy/7", "toy/8", "toy/9"}
    assert len(pairs) == 3 + 4 - 1
    assert result.duplicates_in_database == 3
    assert "near" not in result.leaks


def test_near_duplicates_are_found_besides_duplicates_and_for_each_query() -> None:
    images = sample_smooth_images(20)
    noise = torch.randint(-2, 3, images[:4].shape, generator=torch.Generator().manual_seed(0))
    noisy = (images[:4].int() + noise).clamp(0, 255).to(torch.uint8)
    images[10] = images[0]
    images[11] = noisy[0]
    images[12:14] = noisy[1:3]
    images[1] = images[2]
    result = audit(
        make_image_set(images), make_split(range(10), range(10, 20)), near_duplicates=True
    )
    assert pairs_of(result, "content") == {("toy/0", "toy/10")}
    assert pairs_of(result, "near") == {
        ("toy/0", "toy/11"),
        ("toy/1", "toy/13"),
        ("toy/2", "toy/13"),
    }


def test_flat_images_are_not_near_duplicates() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.arange(110, 130)[:, None, None, None].expand(20, 3, 32, 32)
    noisy = 120 + torch.randint(-3, 4, flat.shape, generator=generator)
    images = torch.cat([flat, noisy]).to(torch.uint8)
    result = audit(
        make_image_set(images), make_split(range(0, 40, 2), range(1, 40, 2)), near_duplicates=True
    )
    assert not result.has_leaks


@pytest.mark.parametrize("channels", [1, 3])
def test_signatures_do_not_depend_on_the_chunk_size(
    monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    images = sample_smooth_images(20, size=32)[:, :channels]
    hashes, thumbnails = perceptual_signatures(images)
    monkeypatch.setattr(audit_module, "IMAGE_CHUNK", 7)
    for unchunked, chunked in zip((hashes, thumbnails), perceptual_signatures(images), strict=True):
        np.testing.assert_array_equal(unchunked, chunked)
    assert hashes.shape == (20, 1)
    assert thumbnails.shape == (20, 256)
    assert len(np.unique(hashes)) == 20
    rising = torch.arange(36, dtype=torch.uint8).mul(7).expand(1, channels, 32, 36)
    assert perceptual_signatures(rising)[0].item() == 2**64 - 1
    assert perceptual_signatures(rising.flip(3))[0].item() == 0


def test_signatures_of_images_that_are_decoded_when_read(tmp_path: Path) -> None:
    images = sample_smooth_images(5)
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    folder = tmp_path / "decoded"
    files, broken = decode_files(paths, size=64, cache_decoded=False, decoded_dir=folder, workers=1)
    assert not broken
    for in_files, in_memory in zip(
        perceptual_signatures(files), perceptual_signatures(images), strict=True
    ):
        np.testing.assert_array_equal(in_files, in_memory)


@pytest.mark.parametrize("values", [("test", "train"), ("train", "test", "train")])
def test_an_image_that_a_list_names_as_test_and_as_train_is_a_leak(
    values: tuple[str, ...], tmp_path: Path
) -> None:
    write_class_folders(tmp_path, per_class=3)
    rows = [f"a/0.jpg,a,{value}" for value in values]
    rows += ["a/1.jpg,a,train", "a/2.jpg,a,test", "b/0.jpg,b,test", "b/1.jpg,b,train"]
    (tmp_path / "list.csv").write_text("\n".join(["file,label,split", *rows]))
    image_set = load_image_folder(tmp_path / "list.csv", max_invalid_fraction=0.5)
    assert image_set.is_test.tolist() == [True, False, True, True, False]
    result = audit(image_set, test_vs_train(image_set, 0), near_duplicates=False)
    assert set(result.left_out["repeated"]) == {"a/0.jpg, as test and as train"}
    (leak,) = result.leaks["id"]
    assert (leak.query, leak.parts) == ("a/0.jpg", ["train", "database"])
    assert result.has_leaks


@pytest.mark.realdata
def test_cifar10_has_one_known_near_duplicate(data_dir: Path) -> None:
    image_set = cifar10(str(data_dir))
    result = audit(image_set, test_vs_train(image_set, 0), near_duplicates=True)
    # In ciFAIR's list of CIFAR-10's duplicates (Barz & Denzler 2020), judged by eye.
    assert pairs_of(result, "near") == {("test/8299", "train/35398")}
    assert not result.leaks["id"]
    assert not result.leaks["content"]
