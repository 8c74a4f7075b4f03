"""`dataset=image_folder`: folders and lists of your own images, and unusable images in them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_images import (
    decode_channels_first,
    encode_image,
    load_image_folder,
    sample_image,
    write_class_folders,
    write_image,
    write_image_list,
)

from deephash.core.errors import UserError


def read_report(folder: Path, name: str = "list") -> dict:
    return json.loads((folder / "decoded" / f"{name}.report.json").read_text())


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    source = write_class_folders(tmp_path / "photos", per_class=3, classes="ba")
    write_image(source / "a" / "deeper" / "x.jpg", seed=50)
    write_image(source / ".thumbnails" / "no.jpg", seed=51)
    (source / "a" / "notes.txt").write_text("of the trip")
    image_set = load_image_folder(source)
    assert image_set.classes == ("a", "b")
    assert image_set.ids.tolist() == [
        *(f"a/{i}.jpg" for i in range(3)), "a/deeper/x.jpg", *(f"b/{i}.jpg" for i in range(3))
    ]  # fmt: skip
    assert image_set.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert not image_set.is_test.any()
    np.testing.assert_array_equal(
        image_set.images[torch.tensor([3])][0],
        decode_channels_first(source / "a" / "deeper" / "x.jpg", 16),
    )
    assert read_report(tmp_path, "photos")["ignored_files"] == ["a/notes.txt"]


@pytest.mark.parametrize(("test", "train"), [("test", "train"), ("query", "database")])
def test_a_folder_with_a_split(test: str, train: str, tmp_path: Path) -> None:
    write_class_folders(tmp_path / "photos" / test, per_class=1)
    write_class_folders(tmp_path / "photos" / train, per_class=2)
    image_set = load_image_folder(tmp_path / "photos")
    assert image_set.classes == ("a", "b")
    assert image_set.ids[image_set.is_test].tolist() == [
        f"{test}/a/0.jpg",
        f"{test}/b/0.jpg",
    ]


UNSUPPORTED_FOLDERS = {  # folders that hold an image each, and the message
    "part without labels": ("train/a unlabelled/a", r"like a split into train, unlabelled\."),
    "validation twice": ("train/a val/a valid/a", "says val or valid, but not both"),
    "no training images": ("test/a val/a", r"looks like a split into test, val\."),
    "flat test images": (
        "train/a train/b test",
        r"test/ holds images that are not in class.*photos/train\.",
    ),
    "two names for one part": ("train/a database/a query/a", "says train or database.* not both"),
    "wrapped": ("photos/a photos/b", r"all lie deeper, .* photos/a/0.jpg\..*path=\S+/photos\?"),
    "wrapped split": ("own/train/a own/test/a", r"own/test/a/0.jpg\..*path=\S+/own\?"),
    "nested parts": ("train/x/a test/x/a", r"all lie deeper, .*path=\S+/test/x\?"),
}


@pytest.mark.parametrize("kind", UNSUPPORTED_FOLDERS)
def test_an_unsupported_folder_is_refused_rather_than_read_as_classes(
    kind: str, tmp_path: Path
) -> None:
    folders, message = UNSUPPORTED_FOLDERS[kind]
    for folder in folders.split():
        write_image(tmp_path / "photos" / folder / "0.jpg", seed=len(folder))
    with pytest.raises(UserError, match=message):
        load_image_folder(tmp_path / "photos")


def test_folders_without_images_are_not_parts_of_a_split(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_class_folders(tmp_path / "photos" / part, per_class=1)
    write_image(tmp_path / "photos" / "stray.jpg", seed=5)
    (tmp_path / "photos" / "docs").mkdir()
    (tmp_path / "photos" / "docs" / "readme.txt").write_text("of the trip")
    image_set = load_image_folder(tmp_path / "photos", max_invalid_fraction=0.2)
    assert image_set.classes == ("a", "b")
    assert image_set.is_test.tolist() == [True, True, False, False]
    report = read_report(tmp_path, "photos")
    assert report["ignored_files"] == ["docs/readme.txt"]
    assert report["left_out"] == {"unlabelled": ["stray.jpg"]}


def test_links_to_folders_are_followed_except_to_parents(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "elsewhere", per_class=1, classes="abc")
    photos = tmp_path / "photos"
    write_class_folders(photos, per_class=1, classes="a")
    for name in "bc":
        (photos / name).symlink_to(tmp_path / "elsewhere" / name)
    (photos / "a" / "all").symlink_to(photos)
    (tmp_path / "elsewhere" / "c" / "all").symlink_to(photos)
    image_set = load_image_folder(photos)
    assert image_set.classes == ("a", "b", "c")
    assert image_set.ids.tolist() == ["a/0.jpg", "b/0.jpg", "c/0.jpg"]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train", "bus"):
        write_image(tmp_path / "photos" / name / "1.jpg", seed=len(name))
    image_set = load_image_folder(tmp_path / "photos")
    assert image_set.classes == ("bus", "train")
    assert not image_set.is_test.any()


def test_classes_with_differently_composed_accents_are_one(tmp_path: Path) -> None:
    for seed, name in enumerate(["caf\u00e9", "cafe\u0301", "bar"]):
        write_image(tmp_path / "photos" / name / f"{seed}.jpg", seed)
    assert load_image_folder(tmp_path / "photos").classes == ("bar", "caf\u00e9")


def test_single_labels_become_class_indices(tmp_path: Path) -> None:
    image_set = load_image_folder(
        write_image_list(tmp_path, "file,label\n0.jpg,1\n1.jpg,0\n2.jpg,1\n3.jpg,10\n")
    )
    assert image_set.classes == ("0", "1", "10")
    assert image_set.labels.tolist() == [1, 0, 1, 2]
    assert image_set.labels.dtype == torch.int64


def test_a_list_may_have_a_root_and_a_split(tmp_path: Path) -> None:
    write_image_list(tmp_path / "photos", "")
    source = tmp_path / "list.csv"
    source.write_text("file,split,label\n0.jpg,test,a\n.\\1.jpg,train,a\n2.jpg,Train,b\n")
    image_set = load_image_folder(source, root=str(tmp_path / "photos"))
    assert image_set.is_test.tolist() == [True, False, False]
    assert image_set.ids.tolist() == ["0.jpg", "./1.jpg", "2.jpg"]
    assert image_set.classes == ("a", "b")


def test_unusable_images_are_left_out_counted_and_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "file,label\n0.jpg,a\n1.jpg,b\n2.jpg,a\n3.jpg,\ngone.jpg,b\n0.jpg,a\n1.jpg,a\n"
    source = write_image_list(tmp_path, text)
    (tmp_path / "2.jpg").write_bytes(encode_image(sample_image(2))[:500])
    image_set = load_image_folder(source, max_invalid_fraction=0.8)
    assert image_set.ids.tolist() == ["0.jpg", "1.jpg"]
    assert image_set.labels.tolist() == [0, 1]  # the first of the rows that name an image is used
    np.testing.assert_array_equal(
        image_set.images[torch.tensor([1])][0], decode_channels_first(tmp_path / "1.jpg", 16)
    )
    report = read_report(tmp_path)
    assert (report["rows"], report["images"]) == (7, 2)
    left_out = report["left_out"]
    assert left_out["unlabelled"] == ["3.jpg"]
    assert left_out["missing"] == [str(tmp_path / "gone.jpg")]
    assert left_out["repeated"] == ["0.jpg", "1.jpg, with other labels"]
    assert left_out["broken"] == [f"{tmp_path / '2.jpg'}: Truncated File Read"]
    assert image_set.report == report
    message = (
        "list: using 2 of 7 images; left out: 1 unlabelled, 1 missing, 2 repeated, 1 of them with "
        "other labels (all labels of an image belong in one row, such as sea;sunset), 1 broken"
    )
    assert message in caplog.messages


def test_warnings_name_ignored_files_and_classes_without_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = write_class_folders(tmp_path / "photos", per_class=1, classes="ab")
    for name in ("a/0\udce9.heic", "a/2.heic", "c/1.heic", "a/notes"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_text("")
    write_image(photos / "d" / "0.jpg", seed=9)
    (photos / "d" / "0.jpg").write_text("not an image")
    image_set = load_image_folder(photos, max_invalid_fraction=0.4)
    assert image_set.classes == ("a", "b", "d")
    assert read_report(tmp_path, "photos")["classes_without_images"] == ["d"]
    assert (
        "photos: ignoring files without the suffix of an image: 3 .heic, 1 without a suffix; for "
        "example a/0\\udce9.heic"
    ) in caplog.messages
    assert "photos: classes left without images (1): d" in caplog.messages


def test_too_many_unusable_images_are_refused_with_counts(tmp_path: Path) -> None:
    source = write_image_list(tmp_path, "file,label\n0.jpg,a\n1.jpg,b\ngone.jpg,a\n3.jpg,\n")
    with pytest.raises(UserError) as error:
        load_image_folder(source, max_invalid_fraction=0.3)
    message = str(error.value)
    assert "2 of 4 images cannot be used (1 missing, 1 unlabelled)" in message
    assert "dataset.max_invalid_fraction=0.3" in message
    assert str(tmp_path / "gone.jpg") in message
    assert str(tmp_path / "decoded" / "list.report.json") in message
    assert read_report(tmp_path)["left_out"]["unlabelled"] == ["3.jpg"]


def test_a_report_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    photos = write_class_folders(tmp_path / "photos", per_class=1)
    checksums = {load_image_folder(photos).checksum}
    report = tmp_path / "decoded" / "photos.report.json"
    report.unlink()
    report.mkdir()
    assert load_image_folder(photos).checksum in checksums


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    source = write_image_list(tmp_path, "")
    source.write_bytes(b"file,label\n0.jpg,a\ncaf\xe9.jpg,b\n")
    write_image(tmp_path / "caf\udce9.jpg", seed=9)
    image_set = load_image_folder(source)
    assert image_set.ids.tolist() == ["0.jpg", "caf\udce9.jpg"]
    assert len(image_set.checksum) == 64


def test_the_checksum_depends_on_labels_and_pixels_but_not_on_caching(tmp_path: Path) -> None:
    text = "file,sand,sea,sky\n0.jpg,0,1,1\n1.jpg,0,1,0\n2.jpg,1,0,1\n3.jpg,1,0,0\n"
    source = write_image_list(tmp_path, text)
    checksums = {load_image_folder(source).checksum}
    assert load_image_folder(source, cache_decoded=False).checksum in checksums
    source.write_text(text.replace("0,1,0", "0,0,1"))
    checksums.add(load_image_folder(source).checksum)
    write_image(tmp_path / "2.jpg", seed=99)
    checksums.add(load_image_folder(source).checksum)
    assert len(checksums) == 3
