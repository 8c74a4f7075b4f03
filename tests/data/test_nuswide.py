"""NUS-WIDE in the official files and in lists, made by the test: the same images either way."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_images import labels_of_nuswide, official_nuswide, planes, write_picture

from deephash.core.errors import UserError
from deephash.data.datasets.nuswide import nuswide
from deephash.data.datasets.nuswide_files import CONCEPTS, FREQUENT, from_lists
from deephash.data.image_set import ImageSet

LABELS = labels_of_nuswide()


def load(folder: Path, **settings: Any) -> ImageSet:
    given = {
        "lists": [],
        "order": None,
        "subset": "tc21",
        "size": 16,
        "cache_decoded": True,
        "decoded_dir": str(folder / "decoded"),
        "workers": 2,
        "tolerated": 0.0,
    }
    return nuswide(folder=str(folder), **{**given, **settings})


def write_list(
    folder: Path, rows: Sequence[int], concepts: Sequence[str], name: str, names: Sequence[str]
) -> str:
    columns = [CONCEPTS.index(concept) for concept in concepts]
    lines = [
        f"images/{names[row].rpartition(chr(92))[2]} {' '.join(map(str, LABELS[row, columns]))}\n"
        for row in rows
    ]
    (folder / name).write_text("".join(lines))
    return name


def report_of(folder: Path) -> dict:
    return json.loads((folder / "decoded" / "nuswide.report.json").read_text())


def flat_copy(folder: Path, names: Sequence[str], pictures: str = "images") -> None:
    """The images in one folder, as they come with the lists."""
    for i, name in enumerate(names):
        write_picture(folder / pictures / name.rpartition("\\")[2], seed=i)


@pytest.mark.parametrize("subset", ["tc21", "tc10", "all81"])
@pytest.mark.parametrize("pictures", ["Flickr", "images", "image"])
def test_official_files(subset: str, pictures: str, tmp_path: Path) -> None:
    names = official_nuswide(tmp_path, LABELS, pictures)
    made = load(tmp_path, subset=subset)
    wanted = {"tc21": list(FREQUENT), "tc10": list(FREQUENT)[:10], "all81": CONCEPTS}[subset]
    assert list(made.classes) == wanted
    columns = [CONCEPTS.index(concept) for concept in wanted]
    rows = [i for i in range(len(LABELS)) if LABELS[i, columns].any()]
    rows.sort(key=lambda row: names[row].rpartition("\\")[2])
    assert 0 < len(rows) < len(LABELS)
    assert made.ids.tolist() == [names[row].rpartition("\\")[2] for row in rows]
    np.testing.assert_array_equal(made.labels.numpy(), LABELS[np.ix_(rows, columns)])
    assert made.is_test.tolist() == [row % 3 == 0 for row in rows]
    image = planes(tmp_path / pictures / names[rows[5]].replace("\\", "/"), 16)
    np.testing.assert_array_equal(made.images[torch.tensor([5])][0], image)
    report = report_of(tmp_path)
    assert report["rows_in_all"] == len(LABELS)
    assert report["rows_without_a_concept_of_the_subset"] == len(LABELS) - len(rows)
    assert list(report["images_of_each_concept"].values()) == LABELS[:, columns].sum(0).tolist()


def test_train_and_test_labels_apart(tmp_path: Path) -> None:
    names = official_nuswide(tmp_path, LABELS)
    expected = load(tmp_path)
    truth = tmp_path / "Groundtruth"
    apart = truth / "TrainTestLabels"
    apart.mkdir()
    tests = np.arange(len(LABELS)) % 3 == 0
    for part, rows in {"Train": np.flatnonzero(~tests), "Test": np.flatnonzero(tests)}.items():
        (tmp_path / "ImageList" / f"{part}Imagelist.txt").write_text(
            "".join(f"{names[row]}\n" for row in rows)
        )
        for column, concept in enumerate(CONCEPTS):
            text = "".join(f"{value}\n" for value in LABELS[rows, column])
            (apart / f"Labels_{concept}_{part}.txt").write_text(text)
    for path in (truth / "AllLabels").iterdir():
        path.unlink()
    (truth / "AllLabels").rmdir()
    assert load(tmp_path).checksum == expected.checksum


@pytest.mark.parametrize(
    ("concepts", "told"),
    [
        (list(FREQUENT), "frequency order"),
        (sorted(FREQUENT), "alphabetical order"),
        (CONCEPTS, "alphabetical order"),
    ],
    ids=["21 by frequency", "21 by alphabet", "81"],
)
def test_lists_say_what_the_official_files_say(
    concepts: Sequence[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    names = official_nuswide(tmp_path / "official", LABELS)
    expected = load(tmp_path / "official")
    folder = tmp_path / "lists"
    flat_copy(folder, names)
    rows = list(range(len(LABELS)))
    write_list(folder, rows[::3], concepts, "test.txt", names)
    write_list(folder, rows[::-1], concepts, "database.txt", names)  # the queries again
    made = load(folder, lists=["test.txt", "database.txt"])
    assert told in capsys.readouterr().out
    assert made.checksum == expected.checksum
    assert made.classes == expected.classes
    np.testing.assert_array_equal(made.is_test, expected.is_test)


def test_rows_that_a_list_repeats_are_counted_and_listed(tmp_path: Path) -> None:
    names = official_nuswide(tmp_path / "official", LABELS)
    flat_copy(tmp_path, names)
    rows = list(range(len(LABELS)))
    write_list(tmp_path, [*rows, 1, 1], list(FREQUENT), "database.txt", names)
    with pytest.raises(UserError, match=rf"2 cannot be used \(2 repeated\).*{names[1][-13:]}"):
        load(tmp_path, lists=["database.txt"])
    made = load(tmp_path, lists=["database.txt"], tolerated=0.1)
    assert made.checksum == load(tmp_path / "official").checksum
    report = report_of(tmp_path)
    assert report["left_out"] == {"repeated": [names[1].rpartition("\\")[2]] * 2}
    assert report["flickr_ids_of_several_files"] == []


def test_test_images_in_other_lists_are_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    names = official_nuswide(tmp_path, LABELS)
    flat_copy(tmp_path / "lists", names)
    for name, rows in {"test.txt": range(12), "database.txt": range(10, len(LABELS))}.items():
        write_list(tmp_path / "lists", rows, CONCEPTS, name, names)
    made = load(tmp_path / "lists", lists=["test.txt", "database.txt"])
    assert made.is_test[made.ids.tolist().index(names[11].rpartition("\\")[2])]
    assert "nuswide: 2 test images are in other lists too" in capsys.readouterr().out
    told = [f"images/{name.rpartition(chr(92))[2]}" for name in names[10:12]]
    assert report_of(tmp_path / "lists")["test_images_in_other_lists"] == told


@pytest.mark.parametrize(
    ("name", "tests"),
    [
        ("test.txt", True),
        ("nus21_test_img.txt", True),
        ("TestImagelist.txt", True),
        ("TESTSET.TXT", True),
        ("queries.txt", True),
        ("latest_train.txt", False),
        ("LatestTrain.txt", False),
        ("database.txt", False),
    ],
)
def test_lists_of_test_images_are_told_by_words_of_their_names(
    name: str, tests: bool, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(f"a.jpg{' 1' * 21}\n")
    assert from_lists(tmp_path, [name], "frequency").is_test.tolist() == [tests]


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    official_nuswide(tmp_path, LABELS)
    expected = load(tmp_path).checksum
    (tmp_path / "Flickr" / "zoo").rename(tmp_path / "zoo")
    (tmp_path / "Flickr" / "zoo").symlink_to(tmp_path / "zoo")
    (tmp_path / "zoo" / "back").symlink_to(tmp_path / "Flickr")
    assert load(tmp_path).checksum == expected


def test_columns_that_do_not_tell_their_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    lines = [f"{i}.jpg {' '.join(map(str, rng.integers(0, 2, 21)))}\n" for i in range(50)]
    (tmp_path / "train.txt").write_text("".join(lines))
    with pytest.raises(UserError, match=r"train.txt: .*correlation.*dataset.order=frequency"):
        load(tmp_path, lists=["train.txt"])
    for i in range(50):
        write_picture(tmp_path / "images" / f"{i}.jpg", seed=i)
    made = load(tmp_path, lists=["train.txt"], order="alphabetical")
    values = [int(value) for value in lines[0].split()[1:]]
    by_name = dict(zip(sorted(FREQUENT), values, strict=True))
    row = made.ids.tolist().index("0.jpg")
    assert made.labels[row].tolist() == [by_name[name] for name in made.classes]


def test_missing_images_are_counted_and_the_flickr_id_told(tmp_path: Path) -> None:
    names = official_nuswide(tmp_path, LABELS)
    lists = tmp_path / "ImageList" / "Imagelist.txt"
    twice = names.copy()
    twice[9] = names[9].replace("0009_1009", "0009_1010")  # the photograph of row 10
    lists.write_text("".join(f"{name}\n" for name in twice))
    write_picture(tmp_path / "Flickr" / twice[9].replace("\\", "/"), seed=10)
    (tmp_path / "Flickr" / names[1].replace("\\", "/")).unlink()
    with pytest.raises(UserError, match=r"1 missing.*dataset.tolerated=0.0"):
        load(tmp_path)
    made = load(tmp_path, tolerated=0.05)
    report = report_of(tmp_path)
    assert len(report["left_out"]["missing"]) == 1
    assert names[1].rpartition("\\")[2] not in made.ids
    assert report["flickr_ids_of_several_files"] == ["1010.jpg"]


def test_impossible_labels_count_as_0_and_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """As in the published Labels_lake_Train.txt, line 78,372."""
    names = official_nuswide(tmp_path, LABELS)
    expected = LABELS[:, CONCEPTS.index("lake")].copy()
    path = tmp_path / "Groundtruth" / "AllLabels" / "Labels_lake.txt"
    lines = path.read_text().splitlines()
    lines[4] = "-1130179"
    expected[4] = 0
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"1 labels are neither 0 nor 1.*lake.txt, line 5: '-11301"):
        load(tmp_path)
    made = load(tmp_path, tolerated=0.05)
    assert "1 labels are neither 0 nor 1, and count as 0" in capsys.readouterr().out
    (told,) = report_of(tmp_path)["impossible_labels_counted_as_0"]
    assert told == "Labels_lake.txt, line 5: '-1130179'"
    lake = dict(zip(made.ids, made.labels[:, made.classes.index("lake")].tolist(), strict=True))
    for row, name in enumerate(names):
        if (identity := name.rpartition("\\")[2]) in lake:
            assert lake[identity] == expected[row]


def without(folder: Path, path: str) -> None:
    (folder / path).unlink()


def shorter(folder: Path, path: str) -> None:
    lines = (folder / path).read_text().splitlines()
    (folder / path).write_text("\n".join(lines[:-1]))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda t: without(t, "Groundtruth/AllLabels/Labels_sky.txt"), "Labels_sky.txt cannot be"),
        (lambda t: without(t, "ImageList/Imagelist.txt"), "Imagelist.txt cannot be read"),
        (
            lambda t: shorter(t, "Groundtruth/AllLabels/Labels_sky.txt"),
            "has 39 lines, .* 40 images",
        ),
        (lambda t: shorter(t, "ImageList/Imagelist.txt"), "has 40 lines, .* names 39 images"),
        (lambda t: (t / "Groundtruth").rename(t / "labels"), "holds neither Groundtruth/AllLabels"),
        (
            lambda t: (t / "ImageList/TestImagelist.txt").write_text("0000_1000.jpg\n"),
            r"TestImagelist.txt names none of the images, which are called as zoo/0000_1000.jpg\.",
        ),
        (
            lambda t: (t / "Flickr").rename(t / "photos"),
            "holds no images: .* Flickr, images, image",
        ),
    ],
    ids=[
        "label file", "image list", "short labels", "short list", "no labels", "no tests",
        "no images",
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_told(spoil: Any, told: str, tmp_path: Path) -> None:
    official_nuswide(tmp_path, LABELS)
    spoil(tmp_path)
    with pytest.raises(UserError, match=told):
        load(tmp_path)


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["a.jpg 0 1\n"], "has 2 labels a line: NUS-WIDE's lists have 81, 21 or 10"),
        ([f"a.jpg{' 1' * 21}\n", f"a.jpg{' 1' * 10}\n"], "1.txt has 10 labels .* 0.txt has 21"),
        (
            [f"a.jpg{' 1' * 21}\n", f"b.jpg{' 1' * 21}\na.jpg 0{' 1' * 20}\n"],
            "1.txt, line 2: a.jpg has other labels than in 0.txt, line 1",
        ),
        ([f"a.jpg{' 1' * 21}\nb.jpg 1\n"], "0.txt, line 2: it has 2 values, and there are 22"),
        ([None], "0.txt cannot be read: No such file"),
    ],
    ids=["two", "21 and 10", "contradiction", "ragged", "gone"],
)
def test_lists_that_do_not_fit_are_told(texts: list, told: str, tmp_path: Path) -> None:
    for i, text in enumerate(texts):
        if text is not None:
            (tmp_path / f"{i}.txt").write_text(text)
    with pytest.raises(UserError, match=told):
        load(tmp_path, lists=[f"{i}.txt" for i in range(len(texts))])


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("x.csv", f"a.jpg{',1' * 21}\nb.jpg{',1' * 21}\n", "x.csv: its first line is an image"),
        ("x.csv", "path\na.jpg\n", "x.csv has 0 labels a line"),
        ("x.csv", f"path{',x' * 21}\n", "x.csv names no image"),
        ("x.txt", "\n", "x.txt names no image"),
        ("x.txt", "a.jpg\n", "x.txt has 0 labels a line"),
        ("x.lst", f"a.jpg{' 1' * 21}\n", r"x.lst is no list by its name. Name it .txt, .*.csv"),
        ("x", f"a.jpg{' 1' * 21}\n", "x is no list by its name"),
    ],
)
def test_a_list_in_another_form_is_told(name: str, text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=told):
        load(tmp_path, lists=[name])


def test_ten_columns_have_no_twenty_one_concepts(tmp_path: Path) -> None:
    (tmp_path / "0.txt").write_text(f"a.jpg{' 1' * 10}\n")
    with pytest.raises(UserError, match="dataset.subset=tc21: there are no labels of ocean, road"):
        load(tmp_path, lists=["0.txt"], order="frequency")
