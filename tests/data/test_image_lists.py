"""Lists of images in every format give the same labels; values that are no labels are refused."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from sample_images import load_image_folder, write_image_list

from deephash.core.errors import UserError

SEPARATED = "file,labels\n0.jpg,sea;sky\n1.jpg,sea\n2.jpg, sky ; sand \n3.jpg,sand\n"
COLUMNS = "file,sand,sea,sky\n0.jpg,0,1,1\n1.jpg,0,1,0\n2.jpg,1,0,1\n3.jpg,1,0,0\n"


def write_parquet(folder: Path, columns: dict[str, list]) -> Path:
    write_image_list(folder, "")
    pa.parquet.write_table(pa.table(columns), folder / "list.parquet")
    return folder / "list.parquet"


@pytest.mark.parametrize(
    "list_format", ["separator", "columns", "tabs", "text", "parquet", "windows"]
)
def test_multi_label_lists_of_all_formats_give_the_same_labels(
    list_format: str, tmp_path: Path
) -> None:
    if list_format == "separator":
        source = write_image_list(tmp_path, SEPARATED)
    elif list_format == "columns":
        source = write_image_list(tmp_path, COLUMNS)
    elif list_format == "tabs":
        source = write_image_list(tmp_path, COLUMNS.replace(",", "\t"), "list.tsv")
    elif list_format == "text":
        rows = COLUMNS.replace(",", " ").split("\n", 1)[1]
        source = write_image_list(tmp_path, rows, "list.txt")
    elif list_format == "windows":
        source = write_image_list(tmp_path, "")
        source.write_bytes(b"\xef\xbb\xbf" + COLUMNS.replace("\n", "\r\n").encode())
    else:
        columns = {"file": [f"{i}.jpg" for i in range(4)]}
        columns |= {"sand": [0, 0, 1, 1], "sea": [1, 1, 0, 0], "sky": [True, False, True, False]}
        source = write_parquet(tmp_path, columns)
    image_set = load_image_folder(source)
    assert image_set.classes == (
        ("1", "2", "3") if list_format == "text" else ("sand", "sea", "sky")
    )
    assert image_set.labels.dtype == torch.uint8
    assert image_set.labels.tolist() == [[0, 1, 1], [0, 1, 0], [1, 0, 1], [1, 0, 0]]
    assert image_set.ids.tolist() == [f"{i}.jpg" for i in range(4)]


def test_parquet_values_are_read_like_text(tmp_path: Path) -> None:
    columns = {" file": [b"0.jpg", b"1.jpg", b"2.jpg"], "label": ["a", None, "b"]}
    columns |= {"split ": [b"train", b"test", b"Test"]}
    image_set = load_image_folder(write_parquet(tmp_path, columns), max_invalid_fraction=0.4)
    assert image_set.classes == ("a", "b")
    assert image_set.ids.tolist() == ["0.jpg", "2.jpg"]
    assert image_set.is_test.tolist() == [False, True]
    numbers = {"file": ["0.jpg", "1.jpg", "2.jpg"], "label": [1.5, float("nan"), 2.5]}
    assert load_image_folder(
        write_parquet(tmp_path, numbers), max_invalid_fraction=0.4
    ).classes == (
        "1.5",
        "2.5",
    )


@pytest.mark.parametrize("values", [[[["sea"], ["sky"]], []], [{"sea": 1}, {"sea": 0}]])
def test_nested_values_are_refused(values: list, tmp_path: Path) -> None:
    source = write_parquet(tmp_path, {"file": ["0.jpg", "1.jpg"], "labels": values})
    with pytest.raises(UserError, match="column 'labels' holds nested values"):
        load_image_folder(source)


def test_a_corrupt_parquet_page_is_reported(tmp_path: Path) -> None:
    source = write_parquet(tmp_path, {"file": ["0.jpg", "1.jpg"], "label": ["a", "b"]})
    content = bytearray(source.read_bytes())
    content[20:60] = b"\xff" * 40
    source.write_bytes(content)
    with pytest.raises(UserError, match=r"list.parquet cannot be read(?! as Parquet|: None)"):
        load_image_folder(source)


@pytest.mark.parametrize("kind", ["csv", "columns", "txt"])
def test_labels_in_windows_1252_are_read_as_such(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The names in the list stay as they are, and are found by their spelling."""
    text = {
        "csv": "file,label\ncafé.jpg,bäume\n1.jpg,meer;bäume\n",
        "columns": "file,bäume,meer\ncafé.jpg,1,0\n1.jpg,1,1\n",
        "txt": "café.jpg bäume\n1.jpg meer;bäume\n",
    }[kind]
    source = write_image_list(tmp_path, "", f"list.{'txt' if kind == 'txt' else 'csv'}")
    (tmp_path / "0.jpg").rename(tmp_path / "café.jpg")
    source.write_bytes(text.encode("cp1252"))
    image_set = load_image_folder(source)
    assert image_set.classes == ("bäume", "meer")
    assert image_set.labels.tolist() == [[1, 0], [1, 1]]
    told = f"{source} is not in UTF-8: labels are read as Windows-1252, such as 'bäume'"
    assert caplog.messages.count(told) == 1
    assert any("names match in spite of encoding (1)" in message for message in caplog.messages)


def test_labels_in_an_unknown_encoding_are_refused(tmp_path: Path) -> None:
    source = write_image_list(tmp_path, "")
    source.write_bytes(
        "file,label\n0.jpg,é\n1.jpg,a\n".encode("mac_roman").replace(b"\x8e", b"\x8d")
    )
    with pytest.raises(UserError, match="neither UTF-8 nor Windows-1252. Save it in UTF-8"):
        load_image_folder(source)


def test_an_image_on_several_rows_with_other_labels_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = "0.jpg,sea\n0.jpg,sunset\n1.jpg,sea\n1.jpg,sea\n2.jpg,city\n"
    source = write_image_list(tmp_path, f"file,label\n{rows}")
    told = (
        "2 repeated, 1 of them with other labels (all labels of an image belong in one row, such "
        "as sea;sunset)"
    )
    with pytest.raises(UserError, match=re.escape(told)):
        load_image_folder(source)
    load_image_folder(source, max_invalid_fraction=0.5)
    assert f"list: using 3 of 5 images; left out: {told}" in caplog.messages


def test_of_rows_that_repeat_an_image_the_first_with_labels_is_used(tmp_path: Path) -> None:
    rows = (
        "0.jpg,,train\n1.jpg,b,train\n0.jpg,a,train\n./0.jpg,,test\n2.jpg,b,train\n2.jpg,,train\n"
    )
    source = write_image_list(tmp_path, f"file,label,split\n{rows}")
    image_set = load_image_folder(source, max_invalid_fraction=0.5)
    assert image_set.ids.tolist() == ["1.jpg", "0.jpg", "2.jpg"]
    assert image_set.labels.tolist() == [1, 0, 1]
    assert image_set.is_test.tolist() == [False, True, False]
    assert image_set.report is not None
    assert image_set.report["left_out"] == {
        "repeated": ["0.jpg", "./0.jpg, as test and as train", "2.jpg"]
    }
