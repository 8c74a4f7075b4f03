"""Lists of images in every format give the same labels; values that are no labels are refused."""

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
