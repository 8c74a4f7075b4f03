"""NUS-WIDE in the official files and in lists, written by the test: both give the same images."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_images import (
    decode_channels_first,
    load_nuswide,
    sample_nuswide_labels,
    write_image,
    write_official_nuswide,
)

from deephash.core.errors import UserError
from deephash.data.datasets.nuswide_files import CONCEPTS, FREQUENT
from deephash.data.datasets.nuswide_lists import read_label_lists

LABELS = sample_nuswide_labels()


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


def read_report(folder: Path) -> dict:
    return json.loads((folder / "decoded" / "nuswide.report.json").read_text())


def write_flat_images(folder: Path, names: Sequence[str], image_folder: str = "images") -> None:
    """The images in a single folder, as they come with the lists."""
    for i, name in enumerate(names):
        write_image(folder / image_folder / name.rpartition("\\")[2], seed=i)


@pytest.mark.parametrize("subset", ["tc21", "tc10", "all81"])
@pytest.mark.parametrize("image_folder", ["Flickr", "images", "image"])
def test_official_files(subset: str, image_folder: str, tmp_path: Path) -> None:
    names = write_official_nuswide(tmp_path, LABELS, image_folder)
    image_set = load_nuswide(tmp_path, subset=subset)
    concepts = {"tc21": list(FREQUENT), "tc10": list(FREQUENT)[:10], "all81": CONCEPTS}[subset]
    assert list(image_set.classes) == concepts
    columns = [CONCEPTS.index(concept) for concept in concepts]
    rows = [i for i in range(len(LABELS)) if LABELS[i, columns].any()]
    rows.sort(key=lambda row: names[row].rpartition("\\")[2])
    assert 0 < len(rows) < len(LABELS)
    assert image_set.ids.tolist() == [names[row].rpartition("\\")[2] for row in rows]
    np.testing.assert_array_equal(image_set.labels.numpy(), LABELS[np.ix_(rows, columns)])
    assert image_set.is_test.tolist() == [row % 3 == 0 for row in rows]
    image = decode_channels_first(tmp_path / image_folder / names[rows[5]].replace("\\", "/"), 16)
    np.testing.assert_array_equal(image_set.images[torch.tensor([5])][0], image)
    report = read_report(tmp_path)
    assert report["rows_in_total"] == len(LABELS)
    assert report["rows_without_a_concept_of_the_subset"] == len(LABELS) - len(rows)
    assert list(report["images_per_concept"].values()) == LABELS[:, columns].sum(0).tolist()


def test_separate_train_and_test_labels(tmp_path: Path) -> None:
    names = write_official_nuswide(tmp_path, LABELS)
    expected = load_nuswide(tmp_path)
    truth = tmp_path / "Groundtruth"
    label_folder = truth / "TrainTestLabels"
    label_folder.mkdir()
    tests = np.arange(len(LABELS)) % 3 == 0
    for part, rows in {"Train": np.flatnonzero(~tests), "Test": np.flatnonzero(tests)}.items():
        (tmp_path / "ImageList" / f"{part}Imagelist.txt").write_text(
            "".join(f"{names[row]}\n" for row in rows)
        )
        for column, concept in enumerate(CONCEPTS):
            text = "".join(f"{value}\n" for value in LABELS[rows, column])
            (label_folder / f"Labels_{concept}_{part}.txt").write_text(text)
    for path in (truth / "AllLabels").iterdir():
        path.unlink()
    (truth / "AllLabels").rmdir()
    assert load_nuswide(tmp_path).checksum == expected.checksum


@pytest.mark.parametrize(
    ("concepts", "message"),
    [
        (list(FREQUENT), "frequency order"),
        (sorted(FREQUENT), "alphabetical order"),
        (CONCEPTS, "alphabetical order"),
    ],
    ids=["21 by frequency", "21 by alphabet", "81"],
)
def test_lists_and_official_files_give_the_same_images(
    concepts: Sequence[str], message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "deephash")
    names = write_official_nuswide(tmp_path / "official", LABELS)
    expected = load_nuswide(tmp_path / "official")
    folder = tmp_path / "lists"
    write_flat_images(folder, names)
    rows = list(range(len(LABELS)))
    write_list(folder, rows[::3], concepts, "test.txt", names)
    write_list(folder, rows[::-1], concepts, "database.txt", names)  # includes the queries
    image_set = load_nuswide(folder, lists=["test.txt", "database.txt"])
    assert message in caplog.text
    assert image_set.checksum == expected.checksum
    assert image_set.classes == expected.classes
    np.testing.assert_array_equal(image_set.is_test, expected.is_test)


def test_images_that_a_list_repeats_are_counted_and_listed(tmp_path: Path) -> None:
    names = write_official_nuswide(tmp_path / "official", LABELS)
    write_flat_images(tmp_path, names)
    rows = list(range(len(LABELS)))
    write_list(tmp_path, [*rows, 1, 1], list(FREQUENT), "database.txt", names)
    with pytest.raises(
        UserError, match=rf"2 of \d+ images cannot be used \(2 repeated\).*{names[1][-13:]}"
    ):
        load_nuswide(tmp_path, lists=["database.txt"])
    image_set = load_nuswide(tmp_path, lists=["database.txt"], max_invalid_fraction=0.1)
    assert image_set.checksum == load_nuswide(tmp_path / "official").checksum
    report = read_report(tmp_path)
    assert report["left_out"] == {"repeated": [names[1].rpartition("\\")[2]] * 2}
    assert report["flickr_ids_of_several_files"] == []


def test_test_images_in_other_lists_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = write_official_nuswide(tmp_path, LABELS)
    write_flat_images(tmp_path / "lists", names)
    for name, rows in {"test.txt": range(12), "database.txt": range(10, len(LABELS))}.items():
        write_list(tmp_path / "lists", rows, CONCEPTS, name, names)
    image_set = load_nuswide(tmp_path / "lists", lists=["test.txt", "database.txt"])
    assert image_set.is_test[image_set.ids.tolist().index(names[11].rpartition("\\")[2])]
    assert "nuswide: 2 test images are in other lists too" in caplog.messages
    shared = [f"images/{name.rpartition(chr(92))[2]}" for name in names[10:12]]
    assert read_report(tmp_path / "lists")["test_images_in_other_lists"] == shared


@pytest.mark.parametrize(
    ("name", "is_test"),
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
def test_lists_of_test_images_are_recognised_by_words_of_their_names(
    name: str, is_test: bool, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(f"a.jpg{' 1' * 21}\n")
    assert read_label_lists(tmp_path, [name], "frequency").is_test.tolist() == [is_test]


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    write_official_nuswide(tmp_path, LABELS)
    expected = load_nuswide(tmp_path).checksum
    (tmp_path / "Flickr" / "zoo").rename(tmp_path / "zoo")
    (tmp_path / "Flickr" / "zoo").symlink_to(tmp_path / "zoo")
    (tmp_path / "zoo" / "back").symlink_to(tmp_path / "Flickr")
    assert load_nuswide(tmp_path).checksum == expected


def test_an_order_of_columns_that_cannot_be_inferred_must_be_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    lines = [f"{i}.jpg {' '.join(map(str, rng.integers(0, 2, 21)))}\n" for i in range(50)]
    (tmp_path / "train.txt").write_text("".join(lines))
    with pytest.raises(UserError, match=r"train.txt: .*correlation.*dataset.order=frequency"):
        load_nuswide(tmp_path, lists=["train.txt"])
    for i in range(50):
        write_image(tmp_path / "images" / f"{i}.jpg", seed=i)
    image_set = load_nuswide(tmp_path, lists=["train.txt"], order="alphabetical")
    values = [int(value) for value in lines[0].split()[1:]]
    by_name = dict(zip(sorted(FREQUENT), values, strict=True))
    row = image_set.ids.tolist().index("0.jpg")
    assert image_set.labels[row].tolist() == [by_name[name] for name in image_set.classes]


def test_missing_images_and_repeated_flickr_ids_are_reported(tmp_path: Path) -> None:
    names = write_official_nuswide(tmp_path, LABELS)
    lists = tmp_path / "ImageList" / "Imagelist.txt"
    same_id = names.copy()
    same_id[9] = names[9].replace("0009_1009", "0009_1010")  # the photograph of row 10
    lists.write_text("".join(f"{name}\n" for name in same_id))
    (tmp_path / "ImageList" / "TestImagelist.txt").write_text("\n".join(same_id[::3]))
    write_image(tmp_path / "Flickr" / same_id[9].replace("\\", "/"), seed=10)
    (tmp_path / "Flickr" / names[1].replace("\\", "/")).unlink()
    with pytest.raises(UserError, match=r"1 missing.*dataset.max_invalid_fraction=0.0"):
        load_nuswide(tmp_path)
    image_set = load_nuswide(tmp_path, max_invalid_fraction=0.05)
    report = read_report(tmp_path)
    assert len(report["left_out"]["missing"]) == 1
    assert names[1].rpartition("\\")[2] not in image_set.ids
    assert report["flickr_ids_of_several_files"] == ["1010"]


def test_invalid_labels_count_as_0_and_are_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in the published Labels_lake_Train.txt, line 78,372."""
    names = write_official_nuswide(tmp_path, LABELS)
    expected = LABELS[:, CONCEPTS.index("lake")].copy()
    path = tmp_path / "Groundtruth" / "AllLabels" / "Labels_lake.txt"
    lines = path.read_text().splitlines()
    lines[4] = "-1130179"
    expected[4] = 0
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"1 labels are neither 0 nor 1.*lake.txt, line 5: '-11301"):
        load_nuswide(tmp_path)
    image_set = load_nuswide(tmp_path, max_invalid_fraction=0.05)
    assert "nuswide: 1 labels are neither 0 nor 1, and count as 0" in caplog.messages
    (label,) = read_report(tmp_path)["invalid_labels_counted_as_0"]
    assert label == "Labels_lake.txt, line 5: '-1130179'"
    lake = dict(
        zip(
            image_set.ids,
            image_set.labels[:, image_set.classes.index("lake")].tolist(),
            strict=True,
        )
    )
    for row, name in enumerate(names):
        if (image_id := name.rpartition("\\")[2]) in lake:
            assert lake[image_id] == expected[row]
