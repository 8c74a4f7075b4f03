"""A store of decoded images is right after a kill, for several processes and on a full disk."""

import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_images import decode_channels_first, write_image

from deephash.core.errors import UserError
from deephash.data.files import decoded_store, store_filling
from deephash.data.files.decoded_cache import ImageFiles, decode_files
from deephash.data.files.decoded_store import RECORD, lock_store
from deephash.data.files.decoding import DecodedFile, decode_file
from deephash.data.files.stores import list_stores, remove_store

COUNT, SIZE = 60, 16
ROW_BYTES = 3 * SIZE**2


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = [tmp_path_factory.mktemp("files") / f"{i}.jpg" for i in range(COUNT)]
    for seed, path in enumerate(paths):
        write_image(path, seed)
    return paths


def decode(paths: list[Path], folder: Path) -> ImageFiles:
    images, broken = decode_files(
        paths, size=SIZE, cache_decoded=True, decoded_dir=folder, workers=2
    )
    assert broken == {}
    return images


def check_images(images: ImageFiles, paths: list[Path]) -> None:
    for index, path in enumerate(paths):
        np.testing.assert_array_equal(
            images[torch.tensor([index])][0], decode_channels_first(path, SIZE)
        )


def check_nothing_is_left_over(folder: Path, count: int) -> None:
    """The folder holds one store of so many images, and its lock."""
    (store,) = list_stores(folder)
    assert {path.name for path in folder.iterdir()} == {
        store.folder.name,
        lock_store(store.folder).lock_file.rpartition("/")[2],
    }
    sizes = {path.name: path.stat().st_size for path in store.folder.iterdir()}
    assert sizes == {"index.bin": count * RECORD.itemsize, "pixels.bin": count * ROW_BYTES}


def start(function: Callable[[], None]) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    return process


def kill_while_decoding() -> None:
    calls: list[Path] = []

    def decode_and_die(path: Path, *settings: object) -> DecodedFile:
        calls.append(path)
        if len(calls) > COUNT // 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode_file(path, *settings)

    store_filling.decode_file = decode_and_die


def kill_while_writing(length: int) -> Callable[[], None]:
    """Of what has this length, the middle one is written in half."""

    def patch() -> None:
        calls: list[int] = []

        def write_and_die(file: int, content: bytes, offset: int) -> None:
            calls.append(len(content))
            if len(content) == length and calls.count(length) == COUNT // 2:
                os.pwrite(file, content[: length // 2], offset)
                os.kill(os.getpid(), signal.SIGKILL)
            os.pwrite(file, content, offset)

        decoded_store._write = write_and_die

    return patch


@pytest.mark.parametrize(
    "patch",
    [kill_while_decoding, kill_while_writing(ROW_BYTES), kill_while_writing(RECORD.itemsize)],
    ids=["decoding", "pixels", "record"],
)
def test_a_killed_process_is_continued(
    patch: Callable[[], None],
    paths: list[Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "deephash")

    def run() -> None:
        patch()
        decode(paths, tmp_path)

    process = start(run)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    check_images(decode(paths, tmp_path), paths)
    (count,) = (int(line.split()[1]) for line in caplog.messages if line.startswith("decoding"))
    assert COUNT // 2 <= count <= COUNT // 2 + 2  # two threads
    check_nothing_is_left_over(tmp_path, COUNT)


def test_random_kills(paths: list[Path], tmp_path: Path) -> None:
    def decode_slowly(path: Path, *settings: object) -> DecodedFile:
        time.sleep(0.002)
        return decode_file(path, *settings)

    def run() -> None:
        store_filling.decode_file = decode_slowly
        decode(paths, tmp_path)

    generator = random.Random(0)
    for _ in range(10):
        process = start(run)
        time.sleep(generator.uniform(0.005, 0.05))
        process.kill()
        process.join()
    check_images(decode(paths, tmp_path), paths)
    check_nothing_is_left_over(tmp_path, COUNT)


def test_processes_that_share_a_store(paths: list[Path], tmp_path: Path) -> None:
    """Some decode sets that overlap, while one reads what is there already."""
    known = paths[:5]
    decode(known, tmp_path)

    def decode_slowly(path: Path, *settings: object) -> DecodedFile:
        time.sleep(0.002)
        return decode_file(path, *settings)

    def run(chosen: list[Path]) -> Callable[[], None]:
        def decode_and_check() -> None:
            store_filling.decode_file = decode_slowly
            check_images(decode(chosen, tmp_path), chosen)

        return decode_and_check

    processes = [start(run(chosen)) for chosen in (paths[:40], paths[20:], paths[::-1])]
    reads = 0
    while any(process.is_alive() for process in processes):
        check_images(decode(known, tmp_path), known)
        reads += 1
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert reads > 1
    check_nothing_is_left_over(tmp_path, COUNT)


@pytest.mark.parametrize("takes_space_first", [True, False])
def test_a_full_disk_is_a_sentence(
    takes_space_first: bool,
    paths: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a limit on the size of files, as a full disk cannot be had here."""
    if not takes_space_first:
        monkeypatch.delattr(os, "posix_fallocate")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROW_BYTES * 30 + 100, hard))
    try:
        with pytest.raises(UserError) as error:
            decode(paths, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(error.value) == (
        f"dataset.decoded_dir={tmp_path} cannot be written to (0.0 GB): File too large. Name "
        "another folder, or store no pixels: dataset.cache_decoded=false."
    )
    check_nothing_is_left_over(tmp_path, 0 if takes_space_first else 30)
    check_images(decode(paths, tmp_path), paths)
    check_nothing_is_left_over(tmp_path, COUNT)


def test_records_of_another_version_are_not_used(paths: list[Path], tmp_path: Path) -> None:
    """Those of version 1 have no byte for outliers, and ranges with dead pixels."""
    assert decoded_store.VERSION == 2
    decode(paths, tmp_path)
    (store,) = list_stores(tmp_path)
    old = tmp_path / store.folder.name.replace("v2-", "v1-", 1)
    store.folder.rename(old)
    (old / "index.bin").write_bytes(b"x" * COUNT * (RECORD.itemsize - 1))
    check_images(decode(paths, tmp_path), paths)
    assert [(s.folder, s.images) for s in list_stores(tmp_path)] == [
        (old, COUNT),
        (store.folder, COUNT),
    ]
    assert remove_store(old)


def test_a_removed_store_stays_readable_to_who_reads_it(paths: list[Path], tmp_path: Path) -> None:
    images = decode(paths, tmp_path)
    (store,) = list_stores(tmp_path)
    assert (store.images, store.bytes) == (COUNT, COUNT * (ROW_BYTES + RECORD.itemsize))
    with lock_store(store.folder):  # as while images are added
        assert not remove_store(store.folder)
    assert remove_store(store.folder)
    assert list(tmp_path.iterdir()) == []
    check_images(images, paths)
