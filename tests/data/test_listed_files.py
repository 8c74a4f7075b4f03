"""Listed files are found in every spelling that leaves no doubt; otherwise a hint says why not."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_images import load_image_folder, sample_smooth_images, write_image, write_image_list

from deephash.core.errors import UserError
from deephash.data.audit_lists import load_audit_lists

NFC, NFD = "caf\u00e9.jpg", "cafe\u0301.jpg"
MACINTOSH = b"caf\x8e.jpg".decode("utf-8", "surrogateescape")
CP1252 = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")

# Files, and how a list names them, with what is logged. Each list has a first, plain row.
SPELLINGS = {
    "upper case": (["0.jpg", "b.jpg"], ["0.jpg", "B.JPG"], "in spite of letter case (1)"),
    "NFC list": (["0.jpg", NFD], ["0.jpg", NFC], "in spite of Unicode form"),
    "NFD list": (["0.jpg", NFC], ["0.jpg", NFD], "in spite of Unicode form"),
    "cp1252 list": (["0.jpg", NFC], ["0.jpg", CP1252], "in spite of encoding"),
    "trailing blank": (["0.jpg", "b.jpg"], ["0.jpg", "b.jpg "], "in spite of surrounding blanks"),
    "no suffix": (["0.jpg", "b.jpg"], ["0.jpg", "b"], "in spite of file suffix"),
    "ids without suffix": (["0.jpg", "1.jpg"], ["0", "1"], "in spite of file suffix (2)"),
    "Windows paths": (["a/0.jpg", "b/0.jpg"], ["C:\\p\\a\\0.jpg", "C:\\p\\b\\0.jpg"], "C:/p/a/0"),
    "a backslash in a name": (["0.jpg", "b\\c.jpg"], ["0.jpg", "b\\c.jpg"], ""),
    "fewer folders": (["x/0.jpg", "x/y/b.jpg"], ["0.jpg", "b.jpg"], "0.jpg is x/0.jpg"),
    "percent-encoding": (["0.jpg", "my b.jpg"], ["0.jpg", "my%20b.jpg"], "percent-encoding"),
    "folder in another case": (["A/0.jpg", "A/b.jpg"], ["a/0.jpg", "a/b.jpg"], "letter case"),
    "file names in cp1252": (["0.jpg", CP1252], ["0.jpg", NFC], "in spite of encoding"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        (kind, suffix)
        for kind, (_, listed, _) in SPELLINGS.items()
        for suffix in (".csv", ".txt")
        if suffix == ".csv" or " " not in listed[1]  # blanks separate the columns of text
    ],
)
def test_a_table_finds_its_files(
    kind: str, suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, listed, told = SPELLINGS[kind]
    for i, name in enumerate(files):
        write_image(tmp_path / name, seed=i)
    separator = "," if suffix == ".csv" else " "
    rows = [f"{name}{separator}{'ab'[i]}" for i, name in enumerate(listed)]
    text = "\n".join(["file,label"] * (suffix == ".csv") + rows)
    source = tmp_path / f"list{suffix}"
    source.write_bytes(text.encode("utf-8", "surrogateescape"))
    image_set = load_image_folder(source)
    assert image_set.ids.tolist() == [name.replace("\\", "/") for name in listed]
    if told:
        assert told in " ".join(caplog.messages)
    else:
        assert not [r.message for r in caplog.records if r.levelname == "WARNING"]
    plain = write_image_list(tmp_path / "plain", "file,label\n0.jpg,a\n1.jpg,b\n", image_count=2)
    assert image_set.content_hashes.tolist() == load_image_folder(plain).content_hashes.tolist()


MISSING = {  # files, cells of the list, and the hint
    "another suffix": (["0.jpg", "b.png"], ["0.jpg", "b.jpg"], "b.png is there, with another suf"),
    "another folder": (["0.jpg", "x/b.jpg"], ["0.jpg", "y/b.jpg"], "x/b.jpg is there, in another"),
    "a listed file in another case": (["0.jpg"], ["0.jpg", "0.JPG"], "in another spelling too"),
    "lost letters": (["0.jpg", NFC], ["0.jpg", "caf\ufffd.jpg"], "Letters were lost"),
    "another computer": (
        ["0.jpg", "x/b.jpg"], ["0.jpg", "/mnt/d/x/b.jpg"], "x/b.jpg .* with other leading folders"
    ),
    "another encoding": (["0.jpg", NFC], ["0.jpg", MACINTOSH], "The list is not in UTF-8"),
    "a copy in another folder": (["0.jpg", "x/b.jpg"], ["0.jpg", "b.jpg"], "x/b.jpg is there"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISSING)
def test_a_missing_file_has_a_hint(kind: str, tmp_path: Path) -> None:
    files, listed, hint = MISSING[kind]
    for i, name in enumerate(files):
        write_image(tmp_path / name, seed=i)
    rows = [f"{name},{'ab'[i]}\n" for i, name in enumerate(listed)]
    text = "".join(["file,label\n", *rows])
    (tmp_path / "list.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=rf"1 missing.*{hint}"):
        load_image_folder(tmp_path / "list.csv")


def test_a_wrong_root_has_a_hint(tmp_path: Path) -> None:
    write_image_list(tmp_path / "photos", "", image_count=2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("n,file,label\n7,0.jpg,a\n8,1.jpg,b\n")
    with pytest.raises(UserError, match="'n' holds no paths .* dataset.path_column=file"):
        load_image_folder(tmp_path / "list.csv", root=str(tmp_path / "photos"))
    (tmp_path / "list.csv").write_text("file,label\n0.jpg,a\n1.jpg,b\n")
    with pytest.raises(UserError, match=r"empty holds no files. Set dataset.root to the folder"):
        load_image_folder(tmp_path / "list.csv", root=str(tmp_path / "empty"))
    image_set = load_image_folder(tmp_path / "list.csv")  # photos/ lies beside the list
    assert len(image_set) == 2


def test_a_file_that_is_listed_in_two_ways_is_one_image(tmp_path: Path) -> None:
    names = ["0.jpg", "./0.jpg", "x/../1.jpg", str(tmp_path / "1.jpg"), "2.jpg"]
    rows = [
        f"{name},{'ab'[i // 2 % 2]},{['train', 'test'][i % 2]}\n" for i, name in enumerate(names)
    ]
    (tmp_path / "x").mkdir()
    source = write_image_list(tmp_path, "".join(["file,label,split\n", *rows]), image_count=3)
    image_set = load_image_folder(source, max_invalid_fraction=0.5)
    assert image_set.ids.tolist() == ["0.jpg", "x/../1.jpg", "2.jpg"]
    assert image_set.is_test.tolist() == [True, True, False]
    assert image_set.report is not None
    assert image_set.report["left_out"]["repeated"][0] == "./0.jpg, as test and as train"
    assert set(image_set.report["queries_in_other_parts"]) == {"0.jpg", "x/../1.jpg"}


@pytest.mark.parametrize("names", [["0.jpg", "./0.jpg", "./0.jpg"], ["./0.jpg", "0.jpg", "0.jpg"]])
def test_rows_of_a_repeated_file_are_merged_into_the_one_that_is_kept(
    names: list[str], tmp_path: Path
) -> None:
    rows = [
        f"{name},a,{part}\n" for name, part in zip(names, ["train", "train", "test"], strict=True)
    ]
    text = "".join(["file,label,split\n", *rows, "1.jpg,b,train\n"])
    image_set = load_image_folder(write_image_list(tmp_path, text), max_invalid_fraction=1.0)
    assert image_set.ids.tolist() == [names[0], "1.jpg"]
    assert image_set.is_test.tolist() == [True, False]
    assert image_set.report is not None
    assert list(image_set.report["queries_in_other_parts"]) == [names[0]]


def test_an_ambiguous_file_is_refused_with_its_line(tmp_path: Path) -> None:
    for i, name in enumerate(["x/0.jpg", "y/0.jpg", "x/1.jpg"]):
        write_image(tmp_path / name, seed=i)
    (tmp_path / "list.csv").write_text("file,label\n1.jpg,a\n0.jpg,b\n")
    with pytest.raises(UserError, match=r"list.csv, line 3: 0.jpg may be x/0.jpg or y/0.jpg"):
        load_image_folder(tmp_path / "list.csv")


def test_folders_are_searched_only_if_a_file_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_image_list(tmp_path, "file,label\n0.jpg,a\n1.jpg,b\n")

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("searched")

    monkeypatch.setattr(os, "walk", refuse)
    assert len(load_image_folder(source)) == 2


def write_audit_images(folder: Path, names: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, image in zip(names, sample_smooth_images(len(names)), strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name)


@pytest.mark.parametrize(
    ("file", "listed"),
    [
        ("b.png", "B.PNG 1 0"),
        (unicodedata.normalize("NFD", "\u00e9.png"), "\u00e9.png"),
        ("b.png", "b"),
        ("b\\c.png", "b\\c.png"),
        ("b 1.png", "b 1.PNG 0 1"),
        ("b 1", "b 1"),
    ],
)
def test_an_audit_finds_a_leak_in_another_spelling(
    file: str, listed: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if file == "b 1":
        write_audit_images(tmp_path, ["x.png", "a.png"])
        (tmp_path / "x.png").rename(tmp_path / file)
    else:
        write_audit_images(tmp_path, [file, "a.png"])
    labels = listed.split("B.PNG")[-1] if "B.PNG" in listed else ""
    labels = " 0 1" if listed.endswith("PNG 0 1") else labels
    (tmp_path / "query.txt").write_text(f"{listed}\n")
    (tmp_path / "database.txt").write_text(f"{file}{labels}\na.png{labels}\n")
    lists = {part: tmp_path / f"{part}.txt" for part in ("query", "database")}
    image_set, split = load_audit_lists(lists, None, tmp_path / "decoded")
    assert np.intersect1d(split.query, split.database).tolist() == split.query.tolist()
    assert len(split.query) == 1
    assert Path(image_set.ids[split.query[0]]).name == file
    assert ("in spite of" in caplog.text) == (file not in listed)


def test_an_audit_finds_a_leak_by_another_path(tmp_path: Path) -> None:
    write_audit_images(tmp_path, ["a.png", "b.png"])
    (tmp_path / "x").mkdir()
    (tmp_path / "query.txt").write_text("a.png\n")
    (tmp_path / "database.txt").write_text("x/../a.png\n./b.png\n")
    lists = {part: tmp_path / f"{part}.txt" for part in ("query", "database")}
    image_set, split = load_audit_lists(lists, None, tmp_path / "decoded")
    assert sorted(image_set.ids) == [str(tmp_path / name) for name in ("a.png", "b.png")]
    assert set(split.query) <= set(split.database)


def test_an_audit_says_why_images_are_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_audit_images(tmp_path, ["a.png", "b.png"])
    (tmp_path / "query.txt").write_text("a.png\nb.jpg\n")
    (tmp_path / "database.txt").write_text("b.png\n")
    lists = {part: tmp_path / f"{part}.txt" for part in ("query", "database")}
    load_audit_lists(lists, None, tmp_path / "decoded")
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == [
        f"{tmp_path}/query.txt: 1 of 2 images cannot be used. b.png is there, with another suffix."
    ]
    (tmp_path / "query.txt").write_text("17 a.png\n")
    with pytest.raises(UserError, match=r"none of the 1 images.*Value 2 of the line, a.png"):
        load_audit_lists(lists, None, tmp_path / "decoded")
