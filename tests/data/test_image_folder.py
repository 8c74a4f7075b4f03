"""`dataset=images`: folders and lists of one's own, and what cannot be used of them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from sample_images import class_folders, encoded, own, picture, planes, write_picture

from deephash.core.errors import UserError


def listed(folder: Path, text: str, name: str = "list.csv", pictures: int = 4) -> Path:
    """A list beside `pictures` images 0.jpg, 1.jpg, ..."""
    for i in range(pictures):
        write_picture(folder / f"{i}.jpg", seed=i)
    (folder / name).write_text(text)
    return folder / name


def report_of(folder: Path, name: str = "list") -> dict:
    return json.loads((folder / "decoded" / f"{name}.report.json").read_text())


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "photos", per_class=3, classes="ba")
    write_picture(source / "a" / "deeper" / "x.jpg", seed=50)
    write_picture(source / ".thumbnails" / "no.jpg", seed=51)
    (source / "a" / "notes.txt").write_text("of the trip")
    made = own(source)
    assert made.classes == ("a", "b")
    assert made.ids.tolist() == [
        *(f"a/{i}.jpg" for i in range(3)), "a/deeper/x.jpg", *(f"b/{i}.jpg" for i in range(3))
    ]  # fmt: skip
    assert made.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert not made.is_test.any()
    np.testing.assert_array_equal(
        made.images[torch.tensor([3])][0], planes(source / "a" / "deeper" / "x.jpg", 16)
    )
    assert report_of(tmp_path, "photos")["no_images_by_their_names"] == ["a/notes.txt"]


@pytest.mark.parametrize(("test", "train"), [("test", "train"), ("query", "database")])
def test_a_folder_with_a_given_split(test: str, train: str, tmp_path: Path) -> None:
    class_folders(tmp_path / "photos" / test, per_class=1)
    class_folders(tmp_path / "photos" / train, per_class=2)
    made = own(tmp_path / "photos")
    assert made.classes == ("a", "b")
    assert [name for name, given in zip(made.ids, made.is_test, strict=True) if given] == [
        f"{test}/a/0.jpg",
        f"{test}/b/0.jpg",
    ]


SPLITS = {  # folders that hold an image each, and what is told
    "part to validate on": ("train/a test/a val/a", r"looks like a split, of test, train, val\."),
    "part without labels": ("train/a unlabelled/a", r"like a split, of train, unlabelled\."),
    "other names": ("Training/a Testing/a", r"looks like a split, of testing, training\."),
    "no training images": ("test/a val/a", r"looks like a split, of test, val\."),
    "flat test images": ("train/a train/b test", r"test/ holds images in no class.*photos/train\."),
    "two words for one": ("train/a database/a query/a", "says train or database.* not both"),
    "wrapped": ("photos/a photos/b", r"all lie deeper, .* photos/a/0.jpg\..*path=\S+/photos\?"),
    "wrapped split": ("own/train/a own/test/a", r"own/test/a/0.jpg\..*path=\S+/own\?"),
    "deep parts": ("train/x/a test/x/a", r"all lie deeper, .*path=\S+/test/x\?"),
}


@pytest.mark.parametrize("kind", SPLITS)
def test_a_folder_that_is_not_as_described_is_not_taken_for_classes(
    kind: str, tmp_path: Path
) -> None:
    folders, told = SPLITS[kind]
    for folder in folders.split():
        write_picture(tmp_path / "photos" / folder / "0.jpg", seed=len(folder))
    with pytest.raises(UserError, match=told):
        own(tmp_path / "photos")


def test_beside_a_split_other_files_are_no_part_and_strays_are_counted(tmp_path: Path) -> None:
    for part in ("train", "test"):
        class_folders(tmp_path / "photos" / part, per_class=1)
    write_picture(tmp_path / "photos" / "stray.jpg", seed=5)
    (tmp_path / "photos" / "docs").mkdir()
    (tmp_path / "photos" / "docs" / "readme.txt").write_text("of the trip")
    made = own(tmp_path / "photos", tolerated=0.2)
    assert made.classes == ("a", "b")
    assert made.is_test.tolist() == [True, True, False, False]
    report = report_of(tmp_path, "photos")
    assert report["no_images_by_their_names"] == ["docs/readme.txt"]
    assert report["left_out"] == {"unlabelled": ["stray.jpg"]}


def test_links_to_folders_are_followed_but_not_back(tmp_path: Path) -> None:
    class_folders(tmp_path / "elsewhere", per_class=1, classes="abc")
    photos = tmp_path / "photos"
    class_folders(photos, per_class=1, classes="a")
    for name in "bc":
        (photos / name).symlink_to(tmp_path / "elsewhere" / name)
    (photos / "a" / "all").symlink_to(photos)
    (tmp_path / "elsewhere" / "c" / "all").symlink_to(photos)
    made = own(photos)
    assert made.classes == ("a", "b", "c")
    assert made.ids.tolist() == ["a/0.jpg", "b/0.jpg", "c/0.jpg"]


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_picture(tmp_path / "photos" / name / "1.jpg", seed=len(name))
    made = own(tmp_path / "photos")
    assert made.classes == ("test", "train")
    assert not made.is_test.any()


SEVERAL = "file,labels\n0.jpg,sea;sky\n1.jpg,sea\n2.jpg, sky ; sand \n3.jpg,sand\n"
COLUMNS = "file,sand,sea,sky\n0.jpg,0,1,1\n1.jpg,0,1,0\n2.jpg,1,0,1\n3.jpg,1,0,0\n"


def parquet(folder: Path, columns: dict[str, list]) -> Path:
    listed(folder, "")
    pa.parquet.write_table(pa.table(columns), folder / "list.parquet")
    return folder / "list.parquet"


@pytest.mark.parametrize("form", ["marked", "columns", "tabs", "text", "parquet", "windows"])
def test_lists_of_several_labels_say_the_same(form: str, tmp_path: Path) -> None:
    if form == "marked":
        source = listed(tmp_path, SEVERAL)
    elif form == "columns":
        source = listed(tmp_path, COLUMNS)
    elif form == "tabs":
        source = listed(tmp_path, COLUMNS.replace(",", "\t"), "list.tsv")
    elif form == "text":
        rows = COLUMNS.replace(",", " ").split("\n", 1)[1]
        source = listed(tmp_path, rows, "list.txt")
    elif form == "windows":
        source = listed(tmp_path, "")
        source.write_bytes(b"\xef\xbb\xbf" + COLUMNS.replace("\n", "\r\n").encode())
    else:
        columns = {"file": [f"{i}.jpg" for i in range(4)]}
        columns |= {"sand": [0, 0, 1, 1], "sea": [1, 1, 0, 0], "sky": [True, False, True, False]}
        source = parquet(tmp_path, columns)
    made = own(source)
    assert made.classes == (("1", "2", "3") if form == "text" else ("sand", "sea", "sky"))
    assert made.labels.dtype == torch.uint8
    assert made.labels.tolist() == [[0, 1, 1], [0, 1, 0], [1, 0, 1], [1, 0, 0]]
    assert made.ids.tolist() == [f"{i}.jpg" for i in range(4)]


def test_parquet_says_what_text_says(tmp_path: Path) -> None:
    columns = {" file": [b"0.jpg", b"1.jpg", b"2.jpg"], "label": ["a", None, "b"]}
    columns |= {"split ": [b"train", b"test", b"Test"]}
    made = own(parquet(tmp_path, columns), tolerated=0.4)
    assert made.classes == ("a", "b")
    assert made.ids.tolist() == ["0.jpg", "2.jpg"]
    assert made.is_test.tolist() == [False, True]
    numbers = {"file": ["0.jpg", "1.jpg", "2.jpg"], "label": [1.5, float("nan"), 2.5]}
    assert own(parquet(tmp_path, numbers), tolerated=0.4).classes == ("1.5", "2.5")


@pytest.mark.parametrize("values", [[["sea", "sky"], []], [{"sea": 1}, {"sea": 0}]])
def test_values_of_several_parts_are_refused(values: list, tmp_path: Path) -> None:
    source = parquet(tmp_path, {"file": ["0.jpg", "1.jpg"], "labels": values})
    with pytest.raises(UserError, match="column 'labels' holds values of several parts"):
        own(source)


def test_a_corrupt_page_is_told(tmp_path: Path) -> None:
    source = parquet(tmp_path, {"file": ["0.jpg", "1.jpg"], "label": ["a", "b"]})
    content = bytearray(source.read_bytes())
    content[20:60] = b"\xff" * 40
    source.write_bytes(content)
    with pytest.raises(UserError, match=r"list.parquet cannot be read(?! as Parquet|: None)"):
        own(source)


def test_classes_that_look_the_same_are_one(tmp_path: Path) -> None:
    for seed, name in enumerate(["caf\u00e9", "cafe\u0301", "bar"]):
        write_picture(tmp_path / "photos" / name / f"{seed}.jpg", seed)
    assert own(tmp_path / "photos").classes == ("bar", "caf\u00e9")


def test_one_label_each_is_a_class_index(tmp_path: Path) -> None:
    made = own(listed(tmp_path, "file,label\n0.jpg,1\n1.jpg,0\n2.jpg,1\n3.jpg,10\n"))
    assert made.classes == ("0", "1", "10")
    assert made.labels.tolist() == [1, 0, 1, 2]
    assert made.labels.dtype == torch.int64


def test_a_list_may_lie_elsewhere_and_bring_a_split(tmp_path: Path) -> None:
    listed(tmp_path / "photos", "")
    source = tmp_path / "list.csv"
    source.write_text("file,split,label\n0.jpg,test,a\n.\\1.jpg,train,a\n2.jpg,Train,b\n")
    made = own(source, root=str(tmp_path / "photos"))
    assert made.is_test.tolist() == [True, False, False]
    assert made.ids.tolist() == ["0.jpg", "./1.jpg", "2.jpg"]
    assert made.classes == ("a", "b")


def test_what_cannot_be_used_is_left_out_counted_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    text = "file,label\n0.jpg,a\n1.jpg,b\n2.jpg,a\n3.jpg,\ngone.jpg,b\n0.jpg,a\n1.jpg,a\n"
    source = listed(tmp_path, text)
    (tmp_path / "2.jpg").write_bytes(encoded(picture(2))[:500])
    made = own(source, tolerated=0.8)
    assert made.ids.tolist() == ["0.jpg", "1.jpg"]
    assert made.labels.tolist() == [0, 1]  # of rows that name one image the first stands
    np.testing.assert_array_equal(made.images[torch.tensor([1])][0], planes(tmp_path / "1.jpg", 16))
    report = report_of(tmp_path)
    assert (report["rows"], report["images"]) == (7, 2)
    left = report["left_out"]
    assert left["unlabelled"] == ["3.jpg"]
    assert left["missing"] == [str(tmp_path / "gone.jpg")]
    assert left["repeated"] == ["0.jpg", "1.jpg, with other labels"]
    assert left["broken"] == [f"{tmp_path / '2.jpg'}: Truncated File Read"]
    assert made.report == report
    told = "list: 2 of 7 images; left out: 1 unlabelled, 1 missing, 2 repeated, 1 broken"
    assert told in capsys.readouterr().out.splitlines()


def test_files_and_classes_that_are_passed_over_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    photos = class_folders(tmp_path / "photos", per_class=1, classes="ab")
    for name in ("a/0\udce9.heic", "a/2.heic", "c/1.heic", "a/notes"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_text("")
    write_picture(photos / "d" / "0.jpg", seed=9)
    (photos / "d" / "0.jpg").write_text("no image")
    made = own(photos, tolerated=0.4)
    assert made.classes == ("a", "b", "d")
    assert report_of(tmp_path, "photos")["classes_without_images"] == ["d"]
    told = capsys.readouterr().out.splitlines()
    assert (
        "photos: no images by their names: 3 .heic, 1 without a suffix; for example a/0\\udce9.heic"
    ) in told
    assert "photos: 1 classes are left without an image: d" in told


def test_too_many_stop_the_run_with_the_numbers(tmp_path: Path) -> None:
    source = listed(tmp_path, "file,label\n0.jpg,a\n1.jpg,b\ngone.jpg,a\n3.jpg,\n")
    with pytest.raises(UserError) as caught:
        own(source, tolerated=0.3)
    told = str(caught.value)
    assert "of 4 rows 2 cannot be used (1 missing, 1 unlabelled)" in told
    assert "dataset.tolerated=0.3" in told
    assert str(tmp_path / "gone.jpg") in told
    assert str(tmp_path / "decoded" / "list.report.json") in told
    assert report_of(tmp_path)["left_out"]["unlabelled"] == ["3.jpg"]


def test_decoded_images_may_lie_where_no_report_can_be_written(tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "photos", per_class=1)
    sums = {own(photos).checksum}
    report = tmp_path / "decoded" / "photos.report.json"
    report.unlink()
    report.mkdir()
    assert own(photos).checksum in sums


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    source = listed(tmp_path, "")
    source.write_bytes(b"file,label\n0.jpg,a\ncaf\xe9.jpg,b\n")
    write_picture(tmp_path / "caf\udce9.jpg", seed=9)
    made = own(source)
    assert made.ids.tolist() == ["0.jpg", "caf\udce9.jpg"]
    assert len(made.checksum) == 64


def test_the_checksum_is_of_ids_labels_and_pixels(tmp_path: Path) -> None:
    source = listed(tmp_path, COLUMNS)
    sums = {own(source).checksum}
    assert own(source, cache_decoded=False).checksum in sums
    source.write_text(COLUMNS.replace("0,1,0", "0,0,1"))
    sums.add(own(source).checksum)
    write_picture(tmp_path / "2.jpg", seed=99)
    sums.add(own(source).checksum)
    assert len(sums) == 3
