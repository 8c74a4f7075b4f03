"""Files of NUS-WIDE that are missing, do not fit together or are not in a known format."""

from pathlib import Path
from typing import Any

import pytest
from sample_images import load_nuswide, sample_nuswide_labels, write_official_nuswide

from deephash.core.errors import UserError

LABELS = sample_nuswide_labels()


def remove(folder: Path, path: str) -> None:
    (folder / path).unlink()


def shorten(folder: Path, path: str) -> None:
    lines = (folder / path).read_text().splitlines()
    (folder / path).write_text("\n".join(lines[:-1]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: remove(t, "Groundtruth/AllLabels/Labels_sky.txt"), "Labels_sky.txt cannot be"),
        (lambda t: remove(t, "ImageList/Imagelist.txt"), "Imagelist.txt cannot be read"),
        (
            lambda t: shorten(t, "Groundtruth/AllLabels/Labels_sky.txt"),
            "has 39 lines, .* 40 images",
        ),
        (lambda t: shorten(t, "ImageList/Imagelist.txt"), "has 40 lines, .* names 39 images"),
        (lambda t: (t / "Groundtruth").rename(t / "labels"), "holds neither Groundtruth/AllLabels"),
        (
            lambda t: (t / "ImageList/TestImagelist.txt").write_text("train/0000_1000.jpg\n"),
            r"TestImagelist.txt names none of the images, whose names are like zoo/0000_1000.jpg\.",
        ),
        (
            lambda t: (t / "Flickr").rename(t / "photos"),
            "holds no images: .* Flickr, images or image",
        ),
    ],
    ids=[
        "label file", "image list", "short labels", "short list", "no labels", "no tests",
        "no images",
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused(damage: Any, message: str, tmp_path: Path) -> None:
    write_official_nuswide(tmp_path, LABELS)
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        load_nuswide(tmp_path)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a.jpg 0 1\n"], "has 2 labels per line: lists of NUS-WIDE have 81, 21 or 10"),
        ([f"a.jpg{' 1' * 21}\n", f"a.jpg{' 1' * 10}\n"], "1.txt has 10 labels .* 0.txt has 21"),
        (
            [f"a.jpg{' 1' * 21}\n", f"b.jpg{' 1' * 21}\na.jpg 0{' 1' * 20}\n"],
            "1.txt, line 2: a.jpg has other labels than in 0.txt, line 1",
        ),
        ([f"a.jpg{' 1' * 21}\nb.jpg 1\n"], "0.txt, line 2: 2 values for 22 columns"),
        ([None], "0.txt cannot be read: No such file"),
    ],
    ids=["two", "21 and 10", "contradiction", "ragged", "gone"],
)
def test_lists_that_do_not_fit_are_refused(texts: list, message: str, tmp_path: Path) -> None:
    for i, text in enumerate(texts):
        if text is not None:
            (tmp_path / f"{i}.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        load_nuswide(tmp_path, lists=[f"{i}.txt" for i in range(len(texts))])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", f"a.jpg{',1' * 21}\nb.jpg{',1' * 21}\n", "x.csv: the first line is an image"),
        ("x.csv", "path\na.jpg\n", "x.csv has 0 labels per line"),
        ("x.csv", f"path{',x' * 21}\n", "x.csv names no image"),
        ("x.txt", "\n", "x.txt names no image"),
        ("x.txt", "a.jpg\n", "x.txt has 0 labels per line"),
        (
            "x.lst",
            f"a.jpg{' 1' * 21}\n",
            r"x.lst does not have the suffix of a list. Rename it to .txt .*.csv",
        ),
        ("x", f"a.jpg{' 1' * 21}\n", "x does not have the suffix of a list"),
    ],
)
def test_a_list_in_another_format_is_refused(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        load_nuswide(tmp_path, lists=[name])


def test_a_list_of_ten_concepts_has_no_labels_of_twenty_one(tmp_path: Path) -> None:
    (tmp_path / "0.txt").write_text(f"a.jpg{' 1' * 10}\n")
    with pytest.raises(UserError, match="dataset.subset=tc21: there are no labels of ocean, road"):
        load_nuswide(tmp_path, lists=["0.txt"], order="frequency")
