"""What is wrong with one's images is told in a sentence that names it; never by a stack trace."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_images import class_folders, encoded, own, picture, write_picture

from deephash.core.errors import UserError
from deephash.data.files.cleaning import DecodingOptions, Listing
from deephash.data.image_set import ImageSet

JPEG = encoded(picture(0))
LABELLED = "file,label\n0.jpg,a\n1.jpg,b\n"


def photos(folder: Path) -> Path:
    return class_folders(folder / "photos")


def of_list(folder: Path, content: bytes | str, name: str = "list.csv") -> Path:
    for i in range(2):
        write_picture(folder / f"{i}.jpg", seed=i)
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# A file among eight good ones, and the reason that the report gives.
FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no image in a known format"),
    "text": (b"not an image", "no image in a known format"),
    "web page": (b"<!doctype html><title>404</title>", "no image in a known format"),
    "zip archive": (b"PK\x03\x04" + bytes(60), "no image in a known format"),
    "pdf": (b"%PDF-1.7\n" + bytes(60), "no image in a known format"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no image in a known format"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(60), "no image in a known format"),
    "zeros, as a failed copy leaves": (bytes(4000), "no image in a known format"),
    "JPEG without an end": (JPEG[: len(JPEG) * 3 // 4], "truncated"),
    "JPEG header": (JPEG[:40], "no image in a known format|runcated"),
    "PNG without an end": (encoded(picture(0), "PNG")[:1000], "truncated"),
    "PNG with a wrong sum": (encoded(picture(0), "PNG").replace(b"IHDR", b"IHDX"), "."),
    "WebP without an end": (encoded(picture(0), "WEBP")[:150], "."),
    "BMP header": (encoded(picture(0), "BMP")[:40], "runcated"),
    "TIFF header": (encoded(picture(0), "TIFF")[:12], "."),
    "GIF header": (encoded(picture(0), "GIF")[:14], "."),
    "floating point": (encoded(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "mode F"),
    "bomb": (encoded(Image.new("1", (20_000, 20_000)), "PNG"), "exceeds limit"),
}

# A file that looks odd, and is an image all the same.
ODD: dict[str, tuple[str, bytes]] = {
    "PNG called jpg": ("x.jpg", encoded(picture(9), "PNG")),
    "capital suffix": ("X.JPG", encoded(picture(9))),
    "one pixel": ("x.png", encoded(Image.new("RGB", (1, 1), "red"), "PNG")),
    "line of pixels": ("x.png", encoded(Image.new("RGB", (500, 1), "red"), "PNG")),
    "16 bits": ("x.png", encoded(Image.fromarray(np.full((9, 9), 999, np.uint16)), "PNG")),
    "CMYK": ("x.jpg", encoded(picture(9).convert("CMYK"))),
    "transparent palette": ("x.gif", encoded(Image.new("P", (9, 9)), "GIF", transparency=0)),
    "animation": (
        "x.gif",
        encoded(picture(9), "GIF", save_all=True, append_images=[picture(8)]),
    ),
    "rubbish after the end": ("x.jpg", JPEG + b"rubbish" * 100),
    "broken EXIF": ("x.jpg", JPEG[:2] + b"\xff\xe1\x00\x10Exif\0\0" + b"\xff" * 8 + JPEG[2:]),
    "name with blanks and commas": ("a b, c.jpg", JPEG),
    "name that is no UTF-8": ("caf\udce9.jpg", JPEG),
    "emoji": ("🐈.jpg", JPEG),
}

# Folders and lists that cannot be read as such: what makes them, and what is told.
WHOLE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda t: t / "photos", "photos: there is no such folder"),
    "a list that is not there": (lambda t: t / "list.csv", "list.csv cannot be read: No such file"),
    "another suffix": (lambda t: of_list(t, LABELLED, "list.xlsx"), "list.xlsx: there is no such"),
    "a folder named as a list": (lambda t: class_folders(t / "x.csv", 0) or t / "x.csv", "x.csv"),
    "an empty folder": (lambda t: (t / "photos").mkdir() or t / "photos", "no class folder"),
    "images in no class folder": (
        lambda t: write_picture(t / "photos" / "1.jpg", 0) or t / "photos", "no class folder"
    ),
    "some images in no class folder": (
        lambda t: write_picture(photos(t) / "stray.jpg", 0) or t / "photos",
        "1 unlabelled.*stray.jpg",
    ),
    "an empty list": (lambda t: of_list(t, ""), "list.csv names no image"),
    "a header alone": (lambda t: of_list(t, "file,label\n"), "list.csv names no image"),
    "no header": (lambda t: of_list(t, "0.jpg,a\n1.jpg,b\n"), "its first line is an image"),
    "no header, and the first image gone": (
        lambda t: of_list(t, "gone.jpg,1,0\n0.jpg,1,0\n1.jpg,0,1\n"), "its first line is an image"
    ),
    "a header in text": (
        lambda t: of_list(t, "path label\n0.jpg a\n1.jpg b\n", "list.txt"),
        "its first line names no image, but 'path'",
    ),
    "semicolons": (lambda t: of_list(t, LABELLED.replace(",", ";")), "line 1: .* semicolons"),
    "many semicolons": (
        lambda t: of_list(t, ";".join(f"concept {i}" for i in range(81)) + "\n0.jpg" + ";0" * 80),
        "line 1: its columns are apart by semicolons",
    ),
    "a header longer than a name may be": (
        lambda t: of_list(t, "n" * 300 + ",label\n0.jpg,a\n1.jpg,b\ngone.jpg,b\n"), "1 missing"
    ),
    "an open quotation mark": (
        lambda t: of_list(t, 'file,label\n0.jpg,"a\n1.jpg,b\n'), "unexpected end of data"
    ),
    "a quotation mark closed lines below": (
        lambda t: of_list(t, 'file,label\n0.jpg,"a\n1.jpg,b"\n'), "up to line 3: .* several lines"
    ),
    "two columns of a name": (
        lambda t: of_list(t, "file,cat,cat\n0.jpg,1,0\n1.jpg,0,1\n"), "has two columns 'cat'"
    ),
    "two columns of a split": (
        lambda t: of_list(t, "file,split,Split\n0.jpg,train,train\n"), "has two columns 'split'"
    ),
    "both words for one part": (
        lambda t: of_list(t, "file,label,split\n0.jpg,a,train\n1.jpg,b,database\n"),
        "list.csv, column 'split': a split says train or database.* not both",
    ),
    "no labels": (lambda t: of_list(t, "file\n0.jpg\n"), "has no labels"),
    "a split and no labels": (lambda t: of_list(t, "file,Split\n0.jpg,train\n"), "has no labels"),
    "a row too short": (
        lambda t: of_list(t, "file,a,b\n0.jpg,1,0\n1.jpg,1\n"),
        "list.csv, line 3: it has 2 values, and there are 3 columns",
    ),
    "a row too long": (
        lambda t: of_list(t, "file,a,b\n0.jpg,1,0\n\n1.jpg,1,0,1\n"), "line 4: it has 4 values"
    ),
    "a name with blanks in text": (
        lambda t: of_list(t, "0.jpg a\nmy cat.jpg b\n", "list.txt"), "list.txt, line 2: it has 3"
    ),
    "a label neither 0 nor 1": (
        lambda t: of_list(t, "file,a,b\n0.jpg,1,0\n1.jpg,1,2\n"),
        "list.csv, line 3, column 'b': '2' is neither 0 nor 1",
    ),
    "a label missing": (
        lambda t: of_list(t, "file,a,b\n0.jpg,1,\n"), "line 2, column 'b': '' is neither 0 nor 1"
    ),
    "an unknown part": (
        lambda t: of_list(t, "file,split,label\n0.jpg,train,a\n1.jpg,vali,b\n"),
        "line 3, column 'split': 'vali' is none of train, database, test, query",
    ),
    "UTF-16, as spreadsheets save": (
        lambda t: of_list(t, LABELLED.encode("utf-16")), "list.csv is no text in UTF-8"
    ),
    "binary": (lambda t: of_list(t, bytes(range(256)) * 4), "list.csv is no text"),
    "an endless field": (
        lambda t: of_list(t, 'file,label\n0.jpg,"' + "a" * 200_000), "line .*field larger than"
    ),
    "no Parquet": (
        lambda t: of_list(t, LABELLED, "list.parquet"), "list.parquet cannot be read as Parquet"
    ),
    "one class alone": (
        lambda t: class_folders(t / "photos", classes="a"), "all images are of one class, 'a'"
    ),
    "one class whose files are whole": (
        lambda t: of_list(t, "file,label\n0.jpg,a\n1.jpg,a\n"), "all images are of one class, 'a'"
    ),
    "a file gone": (
        lambda t: of_list(t, LABELLED + "gone.jpg,a\n"), "of 3 rows 1 .*1 missing.*gone.jpg"
    ),
    "a path with a zero byte": (
        lambda t: of_list(t, "0.jpg a\n\0.jpg b\n", "list.txt"), "list.txt is no text"
    ),
    "a path twice": (
        lambda t: of_list(t, LABELLED + "0.jpg,a\n"), "of 3 rows 1 .*1 repeated.*0.jpg"
    ),
    "a path twice, with other labels": (
        lambda t: of_list(t, LABELLED + "0.jpg,b\n"), "1 repeated.*0.jpg, with other labels"
    ),
    "an image without a label": (
        lambda t: of_list(t, "file,label\n0.jpg,a\n1.jpg,\n"), "of 2 rows 1 .*1 unlabelled"
    ),
    "none has a label": (lambda t: of_list(t, "file,label\n0.jpg,\n1.jpg, ;\n"), "2 unlabelled"),
    "a row of zeros": (
        lambda t: of_list(t, "file,a,b\n0.jpg,1,0\n1.jpg,0,0\n"), "of 2 rows 1 .*1 unlabelled"
    ),
    "a folder in an image's place": (
        lambda t: (t / "d.jpg").mkdir() or of_list(t, LABELLED + "d.jpg,a\n"), "1 missing.*d.jpg"
    ),
    "a link to itself": (
        lambda t: (t / "l.jpg").symlink_to(t / "l.jpg") or of_list(t, LABELLED + "l.jpg,a\n"),
        "1 missing.*l.jpg",
    ),
}  # fmt: skip


def test_there_are_fifty_and_more() -> None:
    assert len(FILES) + len(ODD) + len(WHOLE) > 50


@pytest.mark.parametrize("kind", FILES)
def test_a_broken_file_stops_the_run_or_is_left_out(kind: str, tmp_path: Path) -> None:
    content, reason = FILES[kind]
    path = photos(tmp_path) / "a" / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"of 9 rows 1 .*\(1 broken\).*broken.jpg: .*{reason}"):
        own(tmp_path / "photos")
    made = own(tmp_path / "photos", tolerated=0.2)
    assert len(made) == 8
    assert "a/broken.jpg" not in made.ids
    assert made.report is not None
    (told,) = made.report["left_out"]["broken"]
    assert told.startswith(f"{path}: ")


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_is_an_image_all_the_same(kind: str, tmp_path: Path) -> None:
    name, content = ODD[kind]
    (photos(tmp_path) / "a" / name).write_bytes(content)
    made = own(tmp_path / "photos")
    assert f"a/{name}" in made.ids
    assert made.report is not None
    assert made.report["left_out"] == {}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_wrong_folder_or_list_is_told(kind: str, tmp_path: Path) -> None:
    make, told = WHOLE[kind]
    with pytest.raises(UserError, match=told) as caught:
        own(make(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("mark", "", r"dataset.mark='': give what stands between"),
        ("size", 0, r"dataset.size=0: give a side"),
        ("tolerated", 5.0, r"dataset.tolerated=5.0: give a share"),
    ],
)
def test_settings_out_of_range_are_refused(
    setting: str, value: str | float, told: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=told):
        own(photos(tmp_path), **{setting: value})


def test_a_listing_without_a_row_is_told(tmp_path: Path) -> None:
    classes, none = ("sky", "sea", "sand", "sun", "ice"), np.empty(0, dtype=bool)
    labels = np.empty((0, 5), dtype=np.uint8)
    listing = Listing("some", tmp_path, [], [], labels, classes, none)
    with pytest.raises(UserError, match=r"names no image .* classes: sky, sea, sand, sun, …\."):
        listing.image_set(DecodingOptions(16, False, tmp_path, 1, 0.0))


def test_the_numbers_are_told_where_no_report_can_be_written(tmp_path: Path) -> None:
    source = of_list(tmp_path, LABELLED + "gone.jpg,a\n")
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=r"of 3 rows 1 .*taken\S+json cannot be written"):
        own(source, decoded_dir=str(tmp_path / "taken"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_told(tmp_path: Path) -> None:
    (photos(tmp_path) / "a" / "0.jpg").chmod(0)
    with pytest.raises(UserError, match="1 broken.*0.jpg: Permission denied"):
        own(tmp_path / "photos")
    (tmp_path / "photos" / "b").chmod(0)
    with pytest.raises(UserError, match="b cannot be read: Permission denied"):
        own(tmp_path / "photos")
    (tmp_path / "photos" / "b").rename(tmp_path / "photos" / "train")
    with pytest.raises(UserError, match="train cannot be read: Permission denied"):
        own(tmp_path / "photos")


def test_no_image_is_left(tmp_path: Path) -> None:
    for path in photos(tmp_path).rglob("*.jpg"):
        path.write_bytes(b"")

    def tolerant() -> ImageSet:
        return own(tmp_path / "photos", tolerated=1.0)

    with pytest.raises(UserError, match="8 broken"):
        tolerant()
