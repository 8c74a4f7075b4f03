"""A stored split fits its images however an editor saved it; if it does not, the check says so."""

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deephash.core.errors import UserError
from deephash.data.image_set import ImageSet
from deephash.data.protocols import given, stratified
from deephash.data.split_files import find_differences, write_split

# Ids that end like labels, contain a line separator, a backslash, or bytes that are not UTF-8.
ID_PATTERNS = [
    "cat/%d.jpg", "img %d", "%d 1", "a\u2028%d", "a\\%d.jpg", "caf\udce9 %d", "%d.jpg  ", " %d.jpg",
    "\t%d", "a\x0b%d", "C:\\a\\%d.jpg", "%d,x.jpg", '"%d".jpg', "%d\x85", "%%20%d.jpg",
]  # fmt: skip


def make_image_set(id_pattern: str) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    return ImageSet(
        name="toy",
        images=torch.randint(0, 256, (20, 1, 4, 4), generator=generator, dtype=torch.uint8),
        labels=torch.arange(20) % 2,
        ids=np.array([id_pattern % i for i in range(20)]),
        classes=("a", "b"),
        is_test=np.zeros(20, dtype=bool),
    )


@pytest.mark.parametrize("id_pattern", ID_PATTERNS)
def test_a_stored_split_fits_and_is_read_by_the_protocol(id_pattern: str, tmp_path: Path) -> None:
    image_set = make_image_set(id_pattern)
    split = stratified(image_set, 0, query_fraction=0.3)
    write_split(tmp_path, image_set, split, {})
    path = tmp_path / "query.txt"
    lines = path.read_bytes()
    for saved in (lines, b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n") + b"\r\n"):
        path.write_bytes(saved)
        assert find_differences(tmp_path, image_set) == []
        lists = {part: str(tmp_path / f"{part}.txt") for part in ("train", "database")}
        again = given(image_set, 0, queries=str(path), **lists, max_missing_fraction=0)
        assert again.checksum == split.checksum


def test_differences_from_the_images_are_named(tmp_path: Path) -> None:
    image_set = make_image_set("%d.jpg")
    write_split(tmp_path, image_set, stratified(image_set, 0, query_fraction=0.3), {})
    path = tmp_path / "query.txt"
    lines = path.read_text()
    path.write_text(lines + lines.splitlines()[0] + "\n")
    assert find_differences(tmp_path, image_set) == [f"query.txt names {lines.split()[0]} 2 times"]
    path.write_text(lines + "none.jpg\n")
    assert find_differences(tmp_path, image_set) == [
        "query.txt names 1 images that are not in toy, for example none.jpg. The "
        "names there are like 0.jpg."
    ]


def test_missing_files_are_named(tmp_path: Path) -> None:
    image_set = make_image_set("%d.jpg")
    with pytest.raises(UserError, match=r"split.json cannot be read: No such file.*leave out --ch"):
        find_differences(tmp_path, image_set)
    write_split(tmp_path, image_set, stratified(image_set, 0, query_fraction=0.3), {})
    (tmp_path / "train.txt").unlink()
    with pytest.raises(UserError, match=r"train.txt cannot be read: No such file"):
        find_differences(tmp_path, image_set)


@pytest.mark.parametrize("image_id", ["a\nb.jpg", "a\r.jpg", "a.jpg\r\n", " ", "", "\ufeffa.jpg"])
def test_a_name_that_a_line_cannot_hold_is_refused(image_id: str, tmp_path: Path) -> None:
    image_set = make_image_set("%d.jpg")
    image_set = replace(image_set, ids=np.array([*image_set.ids[:-1], image_id]))
    split = stratified(image_set, 0, query_fraction=0.3)
    with pytest.raises(UserError, match="toy: the name .* cannot stand in a list.*Rename the file"):
        write_split(tmp_path / "split", image_set, split, {})
    assert not (tmp_path / "split").exists()


@pytest.mark.parametrize(
    ("id_pattern", "change"),
    [
        ("cat/%d.jpg", str.upper),
        ("cat/%d.jpg", lambda text: text.replace("/", "\\")),
        ("cat/%d.jpg ", lambda text: text.replace(" \n", "\n")),
        ("caf\u00e9 %d", lambda text: unicodedata.normalize("NFD", text)),
        ("cat/%d.jpg", lambda text: text.replace("cat/", "C:\\photos\\cat\\")),
        ("%d.jpg", lambda text: text.replace(".jpg", "")),
        ("caf\u00e9 %d", lambda text: text.encode("cp1252").decode("utf-8", "surrogateescape")),
    ],
)
def test_a_list_in_another_spelling_fits(
    id_pattern: str, change: Callable[[str], str], tmp_path: Path
) -> None:
    image_set = make_image_set(id_pattern)
    write_split(tmp_path, image_set, stratified(image_set, 0, query_fraction=0.3), {})
    for part in ("query", "train", "database"):
        text = change((tmp_path / f"{part}.txt").read_text())
        (tmp_path / f"{part}.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert find_differences(tmp_path, image_set) == []
    lists = {
        part: str(tmp_path / f"{name}.txt")
        for part, name in {"queries": "query", "train": "train", "database": "database"}.items()
    }
    split = given(image_set, 0, **lists, max_missing_fraction=0)
    assert split.checksum == stratified(image_set, 0, query_fraction=0.3).checksum
