"""Cached or decoded when read, images are the same; incomplete or damaged caches are not used."""

import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sample_images import decode_channels_first, encode_image, sample_image, write_image

from deephash.core.errors import UserError
from deephash.data.files import decoded_store, store_filling, threads
from deephash.data.files.decoded_cache import ImageFiles, decode_files
from deephash.data.files.decoding import DecodedFile, decode_file
from deephash.data.files.fingerprints import content_hash, fingerprint
from deephash.data.files.stores import list_stores


def write_images(folder: Path, count: int = 10) -> list[Path]:
    paths = [folder / "files" / f"{i}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        write_image(path, seed=i)
    return paths


def decode(
    paths: list[Path], folder: Path, cache_decoded: bool = True
) -> tuple[ImageFiles, dict[int, str]]:
    return decode_files(
        paths, size=16, cache_decoded=cache_decoded, decoded_dir=folder / "decoded", workers=2
    )


def logged_counts(caplog: pytest.LogCaptureFixture) -> list[int]:
    """How many images each message says are decoded."""
    return [int(line.split()[1]) for line in caplog.messages if line.startswith("decoding")]


@pytest.mark.parametrize("cache_decoded", [True, False])
def test_images_are_those_of_the_files(cache_decoded: bool, tmp_path: Path) -> None:
    paths = write_images(tmp_path)
    images, broken = decode(paths, tmp_path, cache_decoded)
    assert broken == {}
    assert images.shape == (10, 3, 16, 16)
    selected = images[torch.tensor([7, 2, 2])]
    assert selected.dtype == torch.uint8
    for image, index in zip(selected, (7, 2, 2), strict=True):
        np.testing.assert_array_equal(image.numpy(), decode_channels_first(paths[index], 16))
    mask = np.arange(10) % 2 == 1
    np.testing.assert_array_equal(
        images.select(mask)[torch.arange(5)], images[torch.arange(1, 10, 2)]
    )


def test_content_hashes_do_not_depend_on_caching(tmp_path: Path) -> None:
    paths = write_images(tmp_path)
    write_image(paths[4], seed=8)
    contents = decode(paths, tmp_path)[0].content_hashes
    np.testing.assert_array_equal(
        contents, decode(paths, tmp_path, cache_decoded=False)[0].content_hashes
    )
    same = contents[:, None] == contents
    assert set(map(tuple, np.argwhere(np.triu(same, 1)).tolist())) == {(4, 8)}


def test_broken_files_are_reported_by_position(tmp_path: Path) -> None:
    paths = write_images(tmp_path)
    paths[3].write_bytes(b"no image")
    paths[9].write_bytes(encode_image(sample_image(0))[:700])
    for _ in range(2):  # decoded, then read from the cache
        _, broken = decode(paths, tmp_path)
        assert set(broken) == {3, 9}
        assert broken[3] == "not an image in a known format"


def test_files_are_decoded_once_until_one_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "deephash")
    paths = write_images(tmp_path)
    before, _ = decode(paths, tmp_path)
    decode(paths, tmp_path)
    paths[5].write_bytes(encode_image(sample_image(77)))
    after, _ = decode(paths, tmp_path)
    assert logged_counts(caplog) == [10, 1]
    changed = (before[torch.arange(10)] != after[torch.arange(10)]).flatten(1).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [5]


@pytest.mark.parametrize("cache_decoded", [True, False])
def test_an_added_image_and_a_subset_decode_what_is_new(
    cache_decoded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []

    def count(path: Path, *settings: Any) -> DecodedFile:
        decoded.append(path)
        return decode_file(path, *settings)

    monkeypatch.setattr(store_filling, "decode_file", count)
    paths = write_images(tmp_path, 12)
    some = paths[1:11:2]
    for chosen, new in (
        (some, some),
        (paths[:11], [path for path in paths[:11] if path not in some]),
        (paths, [paths[11]]),
        (paths[::-1], []),
        (paths[3:7], []),
    ):
        images, _ = decode(chosen, tmp_path, cache_decoded)
        assert sorted(decoded) == sorted(new)
        decoded.clear()
        for index, path in enumerate(chosen):
            expected = decode_channels_first(path, 16)
            np.testing.assert_array_equal(images[torch.tensor([index])][0], expected)
            expected_hash = content_hash(expected.transpose(1, 2, 0))
            assert images.content_hashes[index] == expected_hash
    (store,) = list_stores(tmp_path / "decoded")
    assert store.images == 12


def test_files_that_differ_between_their_samples_are_told_apart(tmp_path: Path) -> None:
    """Two files of the same name, size and time, and a copy of the first."""
    paths = [tmp_path / name / "0.jpg" for name in "abc"]
    first = encode_image(sample_image(0, 400, 400), quality=95)
    second = encode_image(sample_image(1, 400, 400), quality=95)
    second = first[:5000] + second[5000:7000] + first[7000:]
    for path, content in zip(paths, (first, second, first), strict=True):
        path.parent.mkdir()
        path.write_bytes(content)
        os.utime(path, (10**9, 10**9))
    assert fingerprint(paths[0]) == fingerprint(paths[1])
    images, _ = decode(paths, tmp_path)
    for index, path in enumerate(paths):
        np.testing.assert_array_equal(
            images[torch.tensor([index])][0], decode_channels_first(path, 16)
        )
    assert images.content_hashes[0] == images.content_hashes[2] != images.content_hashes[1]


@pytest.mark.parametrize("side", [30, 300])
def test_other_files_with_the_same_names_sizes_and_times_are_decoded(
    side: int, tmp_path: Path
) -> None:
    """As unpacked from archives without times; and after an edit in the first folder."""
    paths = {name: [tmp_path / name / f"{i}.bmp" for i in range(4)] for name in "ab"}
    for seed, path in enumerate([*paths["a"], *paths["b"]]):
        path.parent.mkdir(exist_ok=True)
        image = Image.new("RGB", (side, side), "white")  # a large one begins and ends with margin
        image.paste(sample_image(seed), (side // 2 - 15, side // 2 - 15))
        path.write_bytes(encode_image(image, "BMP"))
        os.utime(path, (10**9, 10**9))
    for files in (paths["a"], paths["b"], paths["a"][::-1]):
        images, _ = decode(files, tmp_path)
        for index, path in enumerate(files):
            np.testing.assert_array_equal(
                images[torch.tensor([index])][0], decode_channels_first(path, 16)
            )
    paths["a"][2].write_bytes(paths["b"][2].read_bytes())
    os.utime(paths["a"][2], (10**9, 10**9))
    images, _ = decode(paths["a"], tmp_path)
    np.testing.assert_array_equal(
        images[torch.tensor([2])][0], decode_channels_first(paths["b"][2], 16)
    )


def test_the_cache_is_found_after_the_files_moved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "deephash")
    decode(write_images(tmp_path), tmp_path)
    (tmp_path / "files").rename(tmp_path / "moved")
    decode([tmp_path / "moved" / f"{i}.jpg" for i in range(10)], tmp_path)
    assert logged_counts(caplog) == [10]


def test_interrupted_decoding_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "deephash")
    monkeypatch.setattr(threads, "ROWS_PER_TASK", 1)
    paths = write_images(tmp_path, 30)
    paths[0].write_bytes(b"no image")
    decoded = []

    def interrupt(path: Path, *settings: Any) -> DecodedFile:
        decoded.append(path)
        if len(decoded) > 20:
            time.sleep(0.05)
            raise KeyboardInterrupt
        return decode_file(path, *settings)

    monkeypatch.setattr(store_filling, "decode_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decode(paths, tmp_path)
    assert len(decoded) <= 24  # pending chunks were cancelled
    monkeypatch.setattr(store_filling, "decode_file", decode_file)
    images, broken = decode(paths, tmp_path)
    assert logged_counts(caplog) == [29, 29 - 19]  # of twenty that were tried, one is broken
    assert set(broken) == {0}
    for index in range(1, 30):
        np.testing.assert_array_equal(
            images[torch.tensor([index])][0], decode_channels_first(paths[index], 16)
        )


@pytest.mark.parametrize("name", ["pixels.bin", "index.bin"])
def test_a_changed_byte_in_the_cache_is_found(name: str, tmp_path: Path) -> None:
    paths = write_images(tmp_path)
    decode(paths, tmp_path)
    (path,) = (tmp_path / "decoded").glob(f"*/{name}")
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        decode(paths, tmp_path)
    assert re.fullmatch(
        rf"{path.parent} is corrupt: (1 images in pixels.bin are|index.bin is) not as (they were|"
        r"it was) written. Remove this folder, and the images are decoded again.",
        str(error.value),
    )


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("damage", [Path.unlink, empty, truncate])
def test_damaged_pixels_in_the_cache_are_reported(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    paths = write_images(tmp_path)
    decode(paths, tmp_path)
    (path,) = (tmp_path / "decoded").glob("*/pixels.bin")
    damage(path)
    with pytest.raises(UserError) as error:
        decode(paths, tmp_path)
    assert str(error.value) == (
        f"{path.parent} is corrupt: pixels.bin is missing, unreadable or truncated. Remove this "
        "folder, and the images are decoded again."
    )


@pytest.mark.parametrize("damage", [Path.unlink, empty, truncate])
def test_what_a_damaged_index_does_not_name_is_decoded_again(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    paths = write_images(tmp_path)
    before, _ = decode(paths, tmp_path)
    content_hashes, pixels = before.content_hashes, before[torch.arange(10)]
    (path,) = (tmp_path / "decoded").glob("*/index.bin")
    damage(path)
    after, broken = decode(paths, tmp_path)
    assert broken == {}
    np.testing.assert_array_equal(after.content_hashes, content_hashes)
    assert torch.equal(after[torch.arange(10)], pixels)


@pytest.mark.parametrize("cache_decoded", [True, False])
def test_a_folder_that_cannot_be_written_to_is_reported(
    cache_decoded: bool, tmp_path: Path
) -> None:
    paths = write_images(tmp_path)
    (tmp_path / "decoded").write_text("a file")
    message = (
        r"dataset.decoded_dir=.*decoded cannot be written to.*: (File|Not).*\. Name another fol"
    )
    with pytest.raises(UserError, match=message):
        decode(paths, tmp_path, cache_decoded)


def test_a_complete_cache_is_read_from_a_read_only_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(30, "Read-only file system", str(path))

    paths = write_images(tmp_path)
    paths[2].write_bytes(b"no image")  # is tried again, and nothing is to be written
    before, _ = decode(paths, tmp_path)
    monkeypatch.setattr(decoded_store, "FileLock", refuse)
    after, broken = decode(paths, tmp_path)
    assert set(broken) == {2}
    assert torch.equal(before[torch.arange(3, 10)], after[torch.arange(3, 10)])
    with pytest.raises(UserError, match="cannot be written to: Read-only file system"):
        decode(paths, tmp_path, cache_decoded=False)
    paths[2].write_bytes(encode_image(sample_image(2)))
    with pytest.raises(UserError, match=r"cannot be written to \(0.0 GB\): Read-only file system"):
        decode(paths, tmp_path)


@pytest.mark.parametrize("workers", [0, -1])
def test_fewer_workers_than_one_are_refused(workers: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"dataset.workers={workers}: must be at least 1"):
        decode_files(
            write_images(tmp_path),
            size=16,
            cache_decoded=True,
            decoded_dir=tmp_path,
            workers=workers,
        )


def test_a_full_disk_is_reported_before_decoding_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_disk_full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", raise_disk_full)
    paths = write_images(tmp_path)
    with pytest.raises(UserError, match=r"No space left on device.*dataset.cache_decoded=false"):
        decode(paths, tmp_path)
    assert [path.stat().st_size for path in (tmp_path / "decoded").glob("*/*")] == [0, 0]


def test_of_simultaneous_runs_one_decodes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "deephash")

    def decode_slowly(path: Path, *settings: Any) -> DecodedFile:
        time.sleep(0.05)
        return decode_file(path, *settings)

    monkeypatch.setattr(store_filling, "decode_file", decode_slowly)
    paths = write_images(tmp_path)
    with ThreadPoolExecutor() as threads:
        futures = [threads.submit(decode, paths, tmp_path) for _ in range(3)]
        contents = [future.result()[0].content_hashes for future in futures]
    assert logged_counts(caplog) == [10]
    assert "waiting for another process that decodes into" in caplog.text
    assert (contents[0] == contents[1]).all()
    assert (contents[0] == contents[2]).all()


def test_a_file_that_disappears_during_training_is_named(tmp_path: Path) -> None:
    paths = write_images(tmp_path)
    images, _ = decode(paths, tmp_path, cache_decoded=False)
    paths[2].unlink()
    with pytest.raises(UserError, match="2.jpg.*No such file.*could be decoded when the run began"):
        images[torch.tensor([1, 2])]
