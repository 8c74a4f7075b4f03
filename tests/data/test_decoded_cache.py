"""Decoded once and kept, or whenever asked: the same images, and nothing half-done is trusted."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sample_images import encoded, picture, planes, write_picture

from deephash.core.errors import UserError
from deephash.data import image_files
from deephash.data.files.decoded_cache import ImageFiles, decode_files
from deephash.data.files.decoding import decode_image


def some_paths(folder: Path, count: int = 10) -> list[Path]:
    paths = [folder / "files" / f"{i}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        write_picture(path, seed=i)
    return paths


def decode(paths: list[Path], folder: Path, keep: bool = True) -> tuple[ImageFiles, dict[int, str]]:
    return decode_files(paths, size=16, keep=keep, folder=folder / "decoded", workers=2)


@pytest.mark.parametrize("keep", [True, False])
def test_images_are_those_of_the_files(keep: bool, tmp_path: Path) -> None:
    paths = some_paths(tmp_path)
    images, broken = decode(paths, tmp_path, keep)
    assert broken == {}
    assert images.shape == (10, 3, 16, 16)
    chosen = images[torch.tensor([7, 2, 2])]
    assert chosen.dtype == torch.uint8
    for image, index in zip(chosen, (7, 2, 2), strict=True):
        np.testing.assert_array_equal(image.numpy(), planes(paths[index], 16))
    kept = np.arange(10) % 2 == 1
    np.testing.assert_array_equal(
        images.only(kept)[torch.arange(5)], images[torch.arange(1, 10, 2)]
    )


def test_kept_or_not_the_content_is_the_same(tmp_path: Path) -> None:
    paths = some_paths(tmp_path)
    write_picture(paths[4], seed=8)
    contents = decode(paths, tmp_path)[0].contents
    np.testing.assert_array_equal(contents, decode(paths, tmp_path, keep=False)[0].contents)
    same = contents[:, None] == contents
    assert set(map(tuple, np.argwhere(np.triu(same, 1)).tolist())) == {(4, 8)}


def test_broken_files_are_told_by_position(tmp_path: Path) -> None:
    paths = some_paths(tmp_path)
    paths[3].write_bytes(b"no image")
    paths[9].write_bytes(encoded(picture(0))[:700])
    for _ in range(2):  # found, then read again
        _, broken = decode(paths, tmp_path)
        assert set(broken) == {3, 9}
        assert broken[3] == "no image in a known format"


def test_decoded_once_until_a_file_changes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    paths = some_paths(tmp_path)
    before, _ = decode(paths, tmp_path)
    decode(paths, tmp_path)
    assert capsys.readouterr().out.count("decoding 10 images") == 1
    paths[5].write_bytes(encoded(picture(77)))
    after, _ = decode(paths, tmp_path)
    assert capsys.readouterr().out.count("decoding 10 images") == 1
    changed = (before[torch.arange(10)] != after[torch.arange(10)]).flatten(1).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [5]


@pytest.mark.parametrize("side", [30, 300])
def test_other_files_of_the_same_names_sizes_and_times_are_decoded(
    side: int, tmp_path: Path
) -> None:
    """As archives leave them that hold the time of none; and the first folder edited in place."""
    paths = {name: [tmp_path / name / f"{i}.bmp" for i in range(4)] for name in "ab"}
    for seed, path in enumerate([*paths["a"], *paths["b"]]):
        path.parent.mkdir(exist_ok=True)
        image = Image.new("RGB", (side, side), "white")  # of a large one the ends are margin
        image.paste(picture(seed), (side // 2 - 15, side // 2 - 15))
        path.write_bytes(encoded(image, "BMP"))
        os.utime(path, (10**9, 10**9))
    for of in (paths["a"], paths["b"], paths["a"][::-1]):
        images, _ = decode(of, tmp_path)
        for index, path in enumerate(of):
            np.testing.assert_array_equal(images[torch.tensor([index])][0], planes(path, 16))
    paths["a"][2].write_bytes(paths["b"][2].read_bytes())
    os.utime(paths["a"][2], (10**9, 10**9))
    images, _ = decode(paths["a"], tmp_path)
    np.testing.assert_array_equal(images[torch.tensor([2])][0], planes(paths["b"][2], 16))


def test_what_is_kept_goes_with_the_files_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    decode(some_paths(tmp_path), tmp_path)
    (tmp_path / "files").rename(tmp_path / "moved")
    decode([tmp_path / "moved" / f"{i}.jpg" for i in range(10)], tmp_path)
    assert capsys.readouterr().out.count("decoding") == 1


def test_a_stopped_decoding_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(image_files, "ROWS_AT_ONCE", 1)
    paths = some_paths(tmp_path, 30)
    paths[0].write_bytes(b"no image")
    seen = []

    def stops(path: Path, size: int) -> np.ndarray:
        seen.append(path)
        if len(seen) > 20:
            time.sleep(0.05)
            raise KeyboardInterrupt
        return decode_image(path, size)

    monkeypatch.setattr(image_files, "decoded", stops)
    with pytest.raises(KeyboardInterrupt):
        decode(paths, tmp_path)
    assert len(seen) <= 24  # what was to come was not begun
    monkeypatch.setattr(image_files, "decoded", decoded)
    images, broken = decode(paths, tmp_path)
    first, second = (
        int(line.split()[1]) for line in capsys.readouterr().out.splitlines() if "decoding" in line
    )
    assert first == 30
    assert second == 30 - 19  # twenty were done; of these the broken one is tried again
    assert set(broken) == {0}
    for index in range(1, 30):
        np.testing.assert_array_equal(images[torch.tensor([index])][0], planes(paths[index], 16))


def test_a_changed_byte_in_what_was_kept_is_found(tmp_path: Path) -> None:
    paths = some_paths(tmp_path)
    decode(paths, tmp_path)
    (kept,) = (tmp_path / "decoded").glob("*/pixels.npy")
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)
    with pytest.raises(
        UserError, match=r"pixels.npy is corrupt: 1 of its images.*Remove its folder"
    ):
        decode(paths, tmp_path)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("damage", [Path.unlink, emptied, cut])
@pytest.mark.parametrize("name", ["contents.npy", "pixels.npy", "broken.json"])
def test_a_damaged_file_of_what_was_kept_is_told(
    damage: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    paths = some_paths(tmp_path)
    paths[0].write_bytes(b"no image")
    decode(paths, tmp_path)
    (kept,) = (tmp_path / "decoded").glob(f"*/{name}")
    damage(kept)
    with pytest.raises(UserError) as caught:
        decode(paths, tmp_path)
    assert str(caught.value) == (
        f"{kept.parent} is corrupt: a file of it is missing, cannot be read or is not whole. "
        "Remove this folder, and the images are decoded again."
    )


@pytest.mark.parametrize("name", ["contents.npy", "pixels.npy"])
@pytest.mark.parametrize("damage", [emptied, cut])
def test_a_stopped_decoding_that_is_damaged_begins_anew(
    damage: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    paths = some_paths(tmp_path)
    decode(paths, tmp_path)
    (kept,) = (tmp_path / "decoded").glob(f"*/{name}")
    damage(kept)
    kept.parent.rename(kept.parent.with_suffix(".unfinished"))
    images, broken = decode(paths, tmp_path)
    assert broken == {}
    np.testing.assert_array_equal(images[torch.tensor([9])][0], planes(paths[9], 16))


@pytest.mark.parametrize("keep", [True, False])
def test_a_folder_that_cannot_be_written_to_is_told(keep: bool, tmp_path: Path) -> None:
    paths = some_paths(tmp_path)
    (tmp_path / "decoded").write_text("a file")
    told = r"dataset.decoded_dir=.*decoded cannot be written to.*: (File|Not).*\. Name another\.$"
    with pytest.raises(UserError, match=told):
        decode(paths, tmp_path, keep)


def test_what_is_complete_is_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path) -> None:
        raise OSError(30, "Read-only file system", str(path))

    paths = some_paths(tmp_path)
    before, _ = decode(paths, tmp_path)
    monkeypatch.setattr(image_files, "FileLock", read_only)
    after, _ = decode(paths, tmp_path)
    assert torch.equal(before[torch.arange(10)], after[torch.arange(10)])
    with pytest.raises(UserError, match="cannot be written to: Read-only file system"):
        decode(paths, tmp_path, keep=False)


@pytest.mark.parametrize("workers", [0, -1])
def test_a_number_of_workers_below_one_is_refused(workers: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"dataset.workers={workers}: give a number from 1"):
        decode_files(some_paths(tmp_path), size=16, keep=True, folder=tmp_path, workers=workers)


def test_a_full_disk_is_told_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_files.os, "posix_fallocate", full)
    paths = some_paths(tmp_path)
    with pytest.raises(UserError, match=r"No space left on device.*dataset.cache_decoded=false"):
        decode(paths, tmp_path)
    assert not list((tmp_path / "decoded").glob("*/*.npy"))


def test_of_runs_that_begin_at_once_one_decodes(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(path: Path, size: int) -> np.ndarray:
        time.sleep(0.05)
        return decode_image(path, size)

    monkeypatch.setattr(image_files, "decoded", slowly)
    paths = some_paths(tmp_path)
    with ThreadPoolExecutor() as threads:
        found = [threads.submit(decode, paths, tmp_path) for _ in range(3)]
        contents = [done.result()[0].contents for done in found]
    assert capsys.readouterr().out.count("decoding") == 1
    assert (contents[0] == contents[1]).all()
    assert (contents[0] == contents[2]).all()


def test_a_file_that_goes_while_a_net_is_trained_is_named(tmp_path: Path) -> None:
    paths = some_paths(tmp_path)
    images, _ = decode(paths, tmp_path, keep=False)
    paths[2].unlink()
    with pytest.raises(UserError, match="2.jpg.*No such file.*whole when the run began"):
        images[torch.tensor([1, 2])]
