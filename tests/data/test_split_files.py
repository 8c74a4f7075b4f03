"""A written split fits its images however an editor saved it, and where it does not it says so."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deephash.data.image_set import ImageSet
from deephash.data.protocols import given, stratified
from deephash.data.split_files import differences, write

NAMES = ["cat/%d.jpg", "img %d", "%d 1", "a\u2028%d", "caf\udce9 %d"]  # labels, lines, no UTF-8


def image_set(name: str) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    return ImageSet(
        name="made",
        images=torch.randint(0, 256, (20, 1, 4, 4), generator=generator, dtype=torch.uint8),
        labels=torch.arange(20) % 2,
        ids=np.array([name % i for i in range(20)]),
        classes=("a", "b"),
        is_test=np.zeros(20, dtype=bool),
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_written_split_fits_and_is_read_by_the_protocol(name: str, tmp_path: Path) -> None:
    made = image_set(name)
    split = stratified(made, 0, queries=0.3)
    write(tmp_path, made, split, {})
    path = tmp_path / "query.txt"
    lines = path.read_bytes()
    for saved in (lines, b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n") + b"\r\n"):
        path.write_bytes(saved)
        assert differences(tmp_path, made) == []
        where = {part: str(tmp_path / f"{part}.txt") for part in ("train", "database")}
        again = given(made, 0, queries=str(path), **where, tolerated=0)
        assert again.checksum == split.checksum


def test_what_a_split_is_not_is_told(tmp_path: Path) -> None:
    made = image_set("%d.jpg")
    write(tmp_path, made, stratified(made, 0, queries=0.3), {})
    path = tmp_path / "query.txt"
    lines = path.read_text()
    path.write_text(lines + lines.splitlines()[0] + "\n")
    assert any(
        told.startswith("query is 7, and split.json says 6") for told in differences(tmp_path, made)
    )
    path.write_text(lines + "none.jpg\n")
    assert differences(tmp_path, made) == [
        "query.txt names 1 images that made lacks, for example none.jpg"
    ]
