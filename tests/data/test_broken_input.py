"""Defects of image files and lists are reported in one sentence that names them."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_images import (
    encode_image,
    load_image_folder,
    sample_image,
    write_class_folders,
    write_image,
)

from deephash.core.errors import UserError
from deephash.data.files.cleaning import DecodingOptions, Listing

JPEG = encode_image(sample_image(0))
LABELLED = "file,label\n0.jpg,a\n1.jpg,b\n"


def write_photos(folder: Path) -> Path:
    return write_class_folders(folder / "photos")


def make_list(folder: Path, content: bytes | str, name: str = "list.csv") -> Path:
    for i in range(2):
        write_image(folder / f"{i}.jpg", seed=i)
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# A file among eight intact ones, and the reason that the report gives.
BROKEN_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not an image in a known format"),
    "text": (b"not an image", "not an image in a known format"),
    "web page": (b"<!doctype html><title>404</title>", "not an image in a known format"),
    "zip archive": (b"PK\x03\x04" + bytes(60), "not an image in a known format"),
    "pdf": (b"%PDF-1.7\n" + bytes(60), "not an image in a known format"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image in a known format"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(60), "not an image in a known format"),
    "zeros, as after a failed copy": (bytes(4000), "not an image in a known format"),
    "JPEG without an end": (JPEG[: len(JPEG) * 3 // 4], "truncated"),
    "JPEG header": (JPEG[:40], "not an image in a known format|runcated"),
    "PNG without an end": (encode_image(sample_image(0), "PNG")[:1000], "truncated"),
    "PNG with a wrong chunk": (encode_image(sample_image(0), "PNG").replace(b"IHDR", b"IHDX"), "."),
    "WebP without an end": (encode_image(sample_image(0), "WEBP")[:150], "."),
    "BMP header": (encode_image(sample_image(0), "BMP")[:40], "runcated"),
    "TIFF header": (encode_image(sample_image(0), "TIFF")[:12], "."),
    "GIF header": (encode_image(sample_image(0), "GIF")[:14], "."),
    "floating point": (
        encode_image(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"),
        "dataset.pixel_range is needed",
    ),
    "bomb": (encode_image(Image.new("1", (20_000, 20_000)), "PNG"), "dataset.max_pixels=178956970"),
}

# An unusual file that is an image.
UNUSUAL_FILES: dict[str, tuple[str, bytes]] = {
    "PNG called jpg": ("x.jpg", encode_image(sample_image(9), "PNG")),
    "capital suffix": ("X.JPG", encode_image(sample_image(9))),
    "one pixel": ("x.png", encode_image(Image.new("RGB", (1, 1), "red"), "PNG")),
    "row of pixels": ("x.png", encode_image(Image.new("RGB", (500, 1), "red"), "PNG")),
    "16 bits": ("x.png", encode_image(Image.fromarray(np.full((9, 9), 999, np.uint16)), "PNG")),
    "CMYK": ("x.jpg", encode_image(sample_image(9).convert("CMYK"))),
    "transparent palette": ("x.gif", encode_image(Image.new("P", (9, 9)), "GIF", transparency=0)),
    "animation": (
        "x.gif",
        encode_image(sample_image(9), "GIF", save_all=True, append_images=[sample_image(8)]),
    ),
    "garbage after the end": ("x.jpg", JPEG + b"garbage" * 100),
    "broken EXIF": ("x.jpg", JPEG[:2] + b"\xff\xe1\x00\x10Exif\0\0" + b"\xff" * 8 + JPEG[2:]),
    "name with blanks and commas": ("a b, c.jpg", JPEG),
    "name that is not UTF-8": ("caf\udce9.jpg", JPEG),
    "emoji": ("🐈.jpg", JPEG),
}

# Folders and lists that cannot be used: a function that makes one, and the message.
SOURCES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no such folder": (lambda t: t / "photos", "photos: there is no such folder"),
    "no such list": (lambda t: t / "list.csv", "list.csv: there is no such folder or list"),
    "another suffix": (lambda t: make_list(t, LABELLED, "list.xlsx"), "list.xlsx: this is not a"),
    "a folder named like a list": (
        lambda t: write_class_folders(t / "x.csv", 0) or t / "x.csv", "x.csv"
    ),
    "an empty folder": (lambda t: (t / "photos").mkdir() or t / "photos", "no class folder"),
    "images outside of class folders": (
        lambda t: write_image(t / "photos" / "1.jpg", 0) or t / "photos",
        "it contains 1 images, but no class folder. Training needs labels",
    ),
    "an image outside of class folders": (
        lambda t: write_image(write_photos(t) / "stray.jpg", 0) or t / "photos",
        "1 unlabelled.*stray.jpg",
    ),
    "an empty list": (lambda t: make_list(t, ""), "list.csv names no image"),
    "a header alone": (lambda t: make_list(t, "file,label\n"), "list.csv names no image"),
    "no header": (lambda t: make_list(t, "0.jpg,a\n1.jpg,b\n"), "the first line is an image"),
    "no header, and the first image missing": (
        lambda t: make_list(t, "gone.jpg,1,0\n0.jpg,1,0\n1.jpg,0,1\n"), "the first line is an image"
    ),
    "a header in text": (
        lambda t: make_list(t, "path label\n0.jpg a\n1.jpg b\n", "list.txt"),
        "the first line does not begin with an image, but 'path'",
    ),
    "semicolons": (lambda t: make_list(t, LABELLED.replace(",", ";")), "line 1: .* semicolons"),
    "tabs": (lambda t: make_list(t, LABELLED.replace(",", "\t")), "line 1: .* tabs"),
    "commas in a .tsv": (lambda t: make_list(t, LABELLED, "list.tsv"), "line 1: .* commas"),
    "many semicolons": (
        lambda t: make_list(t, ";".join(f"concept {i}" for i in range(81)) + "\n0.jpg" + ";0" * 80),
        "line 1: the columns are separated by semicolons",
    ),
    "a header longer than a file name may be": (
        lambda t: make_list(t, "n" * 300 + ",label\n0.jpg,a\n1.jpg,b\ngone.jpg,b\n"), "1 missing"
    ),
    "an unclosed quotation mark": (
        lambda t: make_list(t, 'file,label\n0.jpg,"a\n1.jpg,b\n'), "unexpected end of data"
    ),
    "a quotation mark that is closed some lines below": (
        lambda t: make_list(t, 'file,label\n0.jpg,"a\n1.jpg,b"\n'), "up to line 3: .* several lines"
    ),
    "two columns with the same name": (
        lambda t: make_list(t, "file,cat,cat\n0.jpg,1,0\n1.jpg,0,1\n"), "has two columns 'cat'"
    ),
    "two split columns": (
        lambda t: make_list(t, "file,split,Split\n0.jpg,train,train\n"), "has two columns 'split'"
    ),
    "both names of one part": (
        lambda t: make_list(t, "file,label,split\n0.jpg,a,train\n1.jpg,b,database\n"),
        "list.csv, column 'split': a split says train or database.* not both",
    ),
    "no labels": (
        lambda t: make_list(t, "file\n0.jpg\n"), "has no labels: .* Training needs labels"
    ),
    "a split but no labels": (lambda t: make_list(t, "file,Split\n0.jpg,train\n"), "has no labels"),
    "a row too short": (
        lambda t: make_list(t, "file,a,b\n0.jpg,1,0\n1.jpg,1\n"),
        "list.csv, line 3: 2 values for 3 columns",
    ),
    "a row too long": (
        lambda t: make_list(t, "file,a,b\n0.jpg,1,0\n\n1.jpg,1,0,1\n"), "line 4: 4 values"
    ),
    "a name with blanks in text": (
        lambda t: make_list(t, "0.jpg a\nmy cat.jpg b\n", "list.txt"), "list.txt, line 2: 3 values"
    ),
    "a label that is neither 0 nor 1": (
        lambda t: make_list(t, "file,a,b\n0.jpg,1,0\n1.jpg,1,2\n"),
        "list.csv, line 3, column 'b': '2' is neither 0 nor 1",
    ),
    "a missing label": (
        lambda t: make_list(t, "file,a,b\n0.jpg,1,\n"), "1 of 1 images cannot be used.*1 unlabelled"
    ),
    "an unknown part": (
        lambda t: make_list(t, "file,split,label\n0.jpg,train,a\n1.jpg,vali,b\n"),
        "line 3, column 'split': 'vali' is not one of train, database, test, query",
    ),
    "UTF-16, as spreadsheets save": (
        lambda t: make_list(t, LABELLED.encode("utf-16")), "list.csv is not a text file in UTF-8"
    ),
    "binary": (lambda t: make_list(t, bytes(range(256)) * 4), "list.csv is not a text file"),
    "an endless field": (
        lambda t: make_list(t, 'file,label\n0.jpg,"' + "a" * 200_000), "line .*field larger than"
    ),
    "not Parquet": (
        lambda t: make_list(t, LABELLED, "list.parquet"), "list.parquet cannot be read as Parquet"
    ),
    "a single class": (
        lambda t: write_class_folders(t / "photos", classes="a"), "all images are of one class, 'a'"
    ),
    "a list of a single class": (
        lambda t: make_list(t, "file,label\n0.jpg,a\n1.jpg,a\n"), "all images are of one class, 'a'"
    ),
    "a missing file": (
        lambda t: make_list(t, LABELLED + "gone.jpg,a\n"), "1 of 3 images .*1 missing.*gone.jpg"
    ),
    "a path with a zero byte": (
        lambda t: make_list(t, "0.jpg a\n\0.jpg b\n", "list.txt"), "list.txt is not a text file"
    ),
    "a path twice": (
        lambda t: make_list(t, LABELLED + "0.jpg,a\n"), "1 of 3 images .*1 repeated.*0.jpg"
    ),
    "a path twice, with other labels": (
        lambda t: make_list(t, LABELLED + "0.jpg,b\n"), "1 repeated.*0.jpg, with other labels"
    ),
    "an image without a label": (
        lambda t: make_list(t, "file,label\n0.jpg,a\n1.jpg,\n"), "1 of 2 images .*1 unlabelled"
    ),
    "no image with a label": (
        lambda t: make_list(t, "file,label\n0.jpg,\n1.jpg, ;\n"), "2 unlabelled"
    ),
    "a row of zeros": (
        lambda t: make_list(t, "file,a,b\n0.jpg,1,0\n1.jpg,0,0\n"), "1 of 2 images .*1 unlabelled"
    ),
    "a folder in place of an image": (
        lambda t: (t / "d.jpg").mkdir() or make_list(t, LABELLED + "d.jpg,a\n"), "1 missing.*d.jpg"
    ),
    "a link to itself": (
        lambda t: (t / "l.jpg").symlink_to(t / "l.jpg") or make_list(t, LABELLED + "l.jpg,a\n"),
        "1 missing.*l.jpg",
    ),
}  # fmt: skip


def test_there_are_more_than_fifty_cases() -> None:
    assert len(BROKEN_FILES) + len(UNUSUAL_FILES) + len(SOURCES) > 50


@pytest.mark.parametrize("kind", BROKEN_FILES)
def test_a_broken_file_stops_the_run_or_is_left_out(kind: str, tmp_path: Path) -> None:
    content, reason = BROKEN_FILES[kind]
    path = write_photos(tmp_path) / "a" / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"1 of 9 images .*\(1 broken\).*broken.jpg: .*{reason}"):
        load_image_folder(tmp_path / "photos")
    image_set = load_image_folder(tmp_path / "photos", max_invalid_fraction=0.2)
    assert len(image_set) == 8
    assert "a/broken.jpg" not in image_set.ids
    assert image_set.report is not None
    (description,) = image_set.report["left_out"]["broken"]
    assert description.startswith(f"{path}: ")


@pytest.mark.parametrize("kind", UNUSUAL_FILES)
def test_an_unusual_file_is_used(kind: str, tmp_path: Path) -> None:
    name, content = UNUSUAL_FILES[kind]
    (write_photos(tmp_path) / "a" / name).write_bytes(content)
    image_set = load_image_folder(tmp_path / "photos")
    assert f"a/{name}" in image_set.ids
    assert image_set.report is not None
    assert image_set.report["left_out"] == {}


@pytest.mark.parametrize("kind", SOURCES)
def test_an_unusable_folder_or_list_is_refused(kind: str, tmp_path: Path) -> None:
    make, message = SOURCES[kind]
    with pytest.raises(UserError, match=message) as error:
        load_image_folder(make(tmp_path))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("label_separator", "", r"dataset.label_separator='': give the text"),
        ("size", 0, r"dataset.size=0: must be at least 1 pixel"),
        (
            "max_invalid_fraction",
            5.0,
            r"dataset.max_invalid_fraction=5.0: must lie between 0 and 1",
        ),
    ],
)
def test_settings_out_of_range_are_refused(
    setting: str, value: str | float, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        load_image_folder(write_photos(tmp_path), **{setting: value})


def test_an_empty_listing_is_refused(tmp_path: Path) -> None:
    classes, none = ("sky", "sea", "sand", "sun", "ice"), np.empty(0, dtype=bool)
    labels = np.empty((0, 5), dtype=np.uint8)
    listing = Listing("name", tmp_path, [], [], labels, classes, none)
    with pytest.raises(UserError, match=r"lists no image .* classes: sky, sea, sand, sun, …\."):
        listing.load(DecodingOptions(16, False, str(tmp_path), 1, 0.0))


def test_the_message_has_the_counts_even_if_the_report_cannot_be_written(tmp_path: Path) -> None:
    source = make_list(tmp_path, LABELLED + "gone.jpg,a\n")
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=r"1 of 3 images .*taken\S+json, cannot be written"):
        load_image_folder(source, decoded_dir=str(tmp_path / "taken"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_files_without_permission_are_reported(tmp_path: Path) -> None:
    (write_photos(tmp_path) / "a" / "0.jpg").chmod(0)
    with pytest.raises(UserError, match="1 broken.*0.jpg: Permission denied"):
        load_image_folder(tmp_path / "photos")
    (tmp_path / "photos" / "b").chmod(0)
    with pytest.raises(UserError, match="b cannot be read: Permission denied"):
        load_image_folder(tmp_path / "photos")
    (tmp_path / "photos" / "b").rename(tmp_path / "photos" / "train")
    with pytest.raises(UserError, match="train cannot be read: Permission denied"):
        load_image_folder(tmp_path / "photos")


def test_a_folder_without_an_intact_image_is_refused(tmp_path: Path) -> None:
    for path in write_photos(tmp_path).rglob("*.jpg"):
        path.write_bytes(b"")

    with pytest.raises(UserError, match="8 broken.*so none is left"):
        load_image_folder(tmp_path / "photos", max_invalid_fraction=1.0)
