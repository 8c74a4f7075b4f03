"""Class folders: parts of a split, folders without images, what is skipped, and small classes."""

import json
from pathlib import Path

import numpy as np
import pytest
from sample_images import load_image_folder, write_class_folders, write_image

from deephash.core.errors import UserError
from deephash.data.protocols import at_random, stratified, test_vs_train
from deephash.data.splits import hold_out_validation

test_vs_train.__test__ = False  # type: ignore[attr-defined]  # a protocol, not a test


def test_class_folders_without_images_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = write_class_folders(tmp_path / "photos", per_class=2)
    (photos / "empty").mkdir()
    (photos / "nested" / "deeper").mkdir(parents=True)
    (photos / "phone").mkdir()
    (photos / "phone" / "1.heic").write_text("")
    (photos / "scans").mkdir()
    (photos / "scans" / "1.pdf").write_text("")
    (photos / "@eaDir").mkdir()
    image_set = load_image_folder(photos)
    names = ["empty", "nested", "phone", "scans"]
    assert image_set.classes == ("a", "b")
    assert (
        f"photos: class folders that hold no image, and are no classes (4): {', '.join(names)}"
        in (caplog.messages)
    )
    report = json.loads((tmp_path / "decoded" / "photos.report.json").read_text())
    assert report["class_folders_without_images"] == names


def test_class_folders_without_images_in_a_split_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for part in ("train", "test"):
        write_class_folders(tmp_path / "photos" / part, per_class=2)
    (tmp_path / "photos" / "test" / "c").mkdir()
    (tmp_path / "photos" / "test" / "a" / "0.jpg").unlink()
    (tmp_path / "photos" / "test" / "a" / "1.jpg").unlink()
    image_set = load_image_folder(tmp_path / "photos")
    assert "photos: class folders that hold no image, and are no classes (1): c" in caplog.messages
    test_vs_train(image_set, 0)
    assert "photos: classes with images in the database, but no query (1): a" in caplog.messages


def test_a_class_of_broken_images_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = write_class_folders(tmp_path / "photos", per_class=1, classes="abc")
    (photos / "c" / "0.jpg").write_text("")
    load_image_folder(photos, max_invalid_fraction=0.5)
    assert "photos: classes left without images (1): c" in caplog.messages


def test_a_class_of_one_image_is_never_in_queries_and_training_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = write_class_folders(tmp_path / "photos", per_class=4, classes="abc")
    for i in (1, 2, 3):
        (photos / "c" / f"{i}.jpg").unlink()
    image_set = load_image_folder(photos)
    split = stratified(image_set, 0, query_fraction=0.1)
    single = image_set.ids.tolist().index("c/0.jpg")
    assert single in split.train
    assert single not in split.query
    assert caplog.messages == [
        "photos: classes with images in the database, but no query (1): c",
    ]
    caplog.clear()
    split = at_random(image_set, 3, queries=8, train=1)
    assert not np.intersect1d(split.query, split.database).size
    assert "with queries, but no image in the database" in caplog.text


@pytest.mark.parametrize(("per_class", "count"), [(2, 20), (1, 30)])
def test_classes_of_two_images_have_a_remedy_that_works(
    per_class: int, count: int, tmp_path: Path
) -> None:
    classes = [f"class {i}" for i in range(count)]
    for i, name in enumerate(classes):
        for j in range(per_class):
            write_image(tmp_path / "photos" / name / f"{j}.jpg", seed=10 * i + j)
    image_set = load_image_folder(tmp_path / "photos")
    labels = image_set.labels.numpy()
    if per_class == 1:
        with pytest.raises(UserError, match="several images per class"):
            stratified(image_set, 0, query_fraction=0.1)
        split = at_random(image_set, 0, queries=5, train=20)
        with pytest.raises(UserError, match=r"two of the 20 training images\. Add images\."):
            hold_out_validation(split, labels, fraction=0.3, database_size=10, seed=0)
        return
    split = stratified(image_set, 0, query_fraction=0.1)
    with pytest.raises(UserError) as error:
        hold_out_validation(split, labels, fraction=0.3, database_size=10, seed=0)
    message = str(error.value)
    assert "none of the classes has two of the 20 training images" in message
    remedy = dict(part.rstrip(".").split("=") for part in message.split() if "=" in part)
    assert remedy.pop("protocol") == "hashnet"
    numbers = {name.removeprefix("protocol."): int(value) for name, value in remedy.items()}
    split = at_random(image_set, 0, **numbers)
    split = hold_out_validation(split, labels, fraction=0.05, database_size=10, seed=0)
    assert len(split.validation)
    assert len(split.train)


SPLITS = {  # folders of the parts, val_as, the test part, the training parts, and what is told
    "train and val": ("train val", None, "val", "train", "'val' is used as test images"),
    "train, val and test": (
        "train val test", None, "test", "train val", "'val' is used as training images"
    ),
    "train, valid and test": ("train valid test", "ignore", "test", "train", ""),
    "upper case": ("Train Val", None, "Val", "Train", "'val' is used as test images"),
    "val is train": ("train val", "train", "", "train val", ""),
    "val is left out": ("train val", "ignore", "", "train", ""),
    "val is test as well": ("train val test", "test", "val test", "train", ""),
    "validation": ("train validation", None, "validation", "train", "'validation' is used as test"),
    "Training and Testing": ("Training Testing", None, "Testing", "Training", ""),
    "dev": ("train dev test", None, "test", "train dev", "'dev' is used as training"),
    "database, query and val": ("database query val", "ignore", "query", "database", ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPLITS)
@pytest.mark.parametrize("form", ["folder", "list"])
def test_a_validation_part_is_what_val_as_says(
    kind: str, form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts, val_as, test, train, told = SPLITS[kind]
    rows = ["file,split,label\n"]
    for i, part in enumerate(parts.split()):
        for j, name in enumerate("ab"):
            write_image(tmp_path / "photos" / part / name / f"{i}.jpg", seed=2 * i + j)
            rows.append(f"photos/{part}/{name}/{i}.jpg,{part},{name}\n")
    (tmp_path / "list.csv").write_text("".join(rows))
    source = tmp_path / ("photos" if form == "folder" else "list.csv")
    image_set = load_image_folder(source, val_as=val_as)
    top = [name.removeprefix("photos/").partition("/")[0] for name in image_set.ids]
    found = {
        bool(is_test): {
            name for name, t in zip(top, image_set.is_test, strict=True) if t == is_test
        }
        for is_test in (True, False)
    }
    assert found == {True: set(test.split()), False: set(train.split())}
    assert image_set.classes == ("a", "b")
    messages = [message for message in caplog.messages if "dataset.val_as" in message]
    assert len(messages) == bool(told)
    assert told in "".join(messages)


@pytest.mark.parametrize("parts", ["train test", "Train Val Test", "database query"])
def test_parts_without_class_folders_are_no_classes(parts: str, tmp_path: Path) -> None:
    for i, part in enumerate(parts.split()):
        for j in range(3):
            write_image(tmp_path / "photos" / part / f"{j}.jpg", seed=10 * i + j)
    with pytest.raises(UserError, match="looks like a split into .* but holds no class folders"):
        load_image_folder(tmp_path / "photos")


@pytest.mark.parametrize(
    ("first", "second"),
    [("Cat", "cat"), ("cat", "cat "), ("c at", "cat"), ("cat", "ca\u200ct"), ("cat", "cat\u200e")],
)
def test_classes_of_similar_names_are_told(
    first: str, second: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i, name in enumerate((first, second, "dog")):
        write_image(tmp_path / "photos" / name / "0.jpg", seed=i)
    assert len(load_image_folder(tmp_path / "photos").classes) == 3
    assert f"photos: different classes are named {first!r} and {second!r}" in caplog.messages


def test_the_first_groups_of_similar_names_are_told_and_how_many_there_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i, name in enumerate(["A", "a", "B", "b", "C", "c", "D", "d", "E", "e"]):
        write_image(tmp_path / "photos" / name / "0.jpg", seed=i)
    load_image_folder(tmp_path / "photos")
    assert caplog.messages == [
        "photos: different classes are named 'A' and 'a', 'B' and 'b', 'C' and 'c', 'D' and 'd', … "
        "(5 such groups)"
    ]


def test_an_unknown_val_as_is_refused(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_class_folders(tmp_path / "photos" / part, per_class=1)
    with pytest.raises(UserError, match="dataset.val_as=validation: must be train, test, ignore"):
        load_image_folder(tmp_path / "photos", val_as="validation")


SKIPPED = [
    "@eaDir/0.jpg", "a/@eaDir/0.jpg", "__MACOSX/a/0.jpg", "a/.thumbnails/0.jpg", "a/._0.jpg",
    "$RECYCLE.BIN/0.jpg", "a/Thumbs.db", "a/desktop.ini", "System Volume Information/0.jpg",
    "lost+found/0.jpg", "a/ehthumbs.db", ".ipynb_checkpoints/0.jpg", "__MACOSX/photos/a/._0.jpg",
]  # fmt: skip
NOT_IMAGES = [".pdf", ".h5", ".mpg", ".mpeg", ".hdf", ".grib", ".eps", ".wmf", ".bufr", ".PDF"]


def test_what_systems_leave_is_skipped_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = write_class_folders(tmp_path / "photos", per_class=2)
    expected = load_image_folder(photos).checksum
    for name in SKIPPED:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_text("no image")
    assert load_image_folder(photos).checksum == expected
    assert not caplog.messages


def test_what_systems_leave_makes_no_split(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_class_folders(tmp_path / "photos" / part, per_class=1)
    write_image(tmp_path / "photos" / "__MACOSX" / "train" / "a" / "0.jpg", seed=3)
    assert len(load_image_folder(tmp_path / "photos")) == 4


def test_other_files_are_never_tried_as_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = write_class_folders(tmp_path / "photos", per_class=1)
    for suffix in NOT_IMAGES:
        (photos / "a" / f"x{suffix}").write_text("no image")
    image_set = load_image_folder(photos)
    assert len(image_set) == 2
    assert image_set.report is not None
    assert len(image_set.report["ignored_files"]) == len(NOT_IMAGES)
    assert "ignoring files without the suffix of an image: 1 .PDF" in caplog.text
