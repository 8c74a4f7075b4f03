"""The columns of a list, chosen by name."""

from pathlib import Path
from typing import Any

import pytest
from conftest import compose_config
from sample_images import load_image_folder, write_image_list

from deephash.core.errors import UserError
from deephash.core.instantiate import build
from deephash.experiment.settings import validate_settings

TABLE = (
    "n,desert,Filenames,sea,part,Split\n"
    "7,1,0.jpg,0,train,x\n8,0,1.jpg,1,test,y\n9,1,2.jpg,1,val,x\n10,0,3.jpg,1,train,y\n"
)


def write_table(folder: Path, kind: str) -> Path:
    if kind == "csv":
        return write_image_list(folder, TABLE)
    if kind == "tsv":
        return write_image_list(folder, TABLE.replace(",", "\t"), "list.tsv")
    return write_image_list(folder, TABLE.partition("\n")[2].replace(",", " "), "list.txt")


@pytest.mark.parametrize("kind", ["csv", "tsv", "txt"])
def test_columns_are_chosen_by_name_or_number(kind: str, tmp_path: Path) -> None:
    names: dict[str, Any] = {
        "path_column": "filenames", "label_columns": ["sea", "desert"], "split_column": "part"
    }  # fmt: skip
    if kind == "txt":
        names = {"path_column": 2, "label_columns": [3, "1"], "split_column": "4"}
    image_set = load_image_folder(write_table(tmp_path, kind), **names, val_as="test")
    assert image_set.ids.tolist() == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert image_set.classes == (("3", "1") if kind == "txt" else ("sea", "desert"))
    assert image_set.labels.tolist() == [[0, 1], [1, 0], [1, 1], [1, 0]]
    assert image_set.is_test.tolist() == [False, True, True, False]


def test_one_column_of_labels_may_be_named_split(tmp_path: Path) -> None:
    source = write_table(tmp_path, "csv")
    image_set = load_image_folder(source, path_column="Filenames", label_columns="Split")
    assert image_set.classes == ("x", "y")
    assert not image_set.is_test.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path_column": "file"}, r"dataset.path_column=file: \S+list.csv has no such column, but"),
        ({"label_columns": ["sea", "sun"]}, "dataset.label_columns=sun: .*no such column"),
        ({"split_column": "7"}, "dataset.split_column=7: .*no such column"),
        ({"path_column": "sea", "label_columns": ["sea"]}, "column 'sea' is chosen twice"),
        ({"label_columns": ["sea", "sea"]}, "column 'sea' is chosen twice"),
        ({"split_column": "part", "label_columns": "part"}, "column 'part' is chosen twice"),
    ],
)
def test_columns_that_do_not_fit_are_refused(settings: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_image_folder(write_table(tmp_path, "csv"), **settings)


@pytest.mark.parametrize("first", ["", "Unnamed: 0", "id"])
def test_a_column_of_numbers_before_the_paths_is_not_taken_for_paths(
    first: str, tmp_path: Path
) -> None:
    """As pandas writes its index. The numbers would fit the files, in another order."""
    text = f"{first},file,label\n0,3.jpg,a\n1,2.jpg,b\n2,1.jpg,a\n"
    source = write_image_list(tmp_path, text)
    with pytest.raises(UserError, match="holds no paths of images, .* dataset.path_column=file"):
        load_image_folder(source, label_columns="label")
    image_set = load_image_folder(source, path_column="file", label_columns="label")
    assert image_set.ids.tolist() == ["3.jpg", "2.jpg", "1.jpg"]


def test_ids_that_are_files_are_paths_whatever_other_columns_hold(tmp_path: Path) -> None:
    text = "id,label,url\n0,a,http://h/x0.jpg\n1,b,http://h/x1.jpg\n"
    source = write_image_list(tmp_path, text)
    assert load_image_folder(source, label_columns="label").ids.tolist() == ["0", "1"]
    (tmp_path / "x").mkdir()
    (tmp_path / "0.jpg").rename(tmp_path / "x" / "X0.jpg")  # which the other column names
    with pytest.raises(UserError, match=r"'id' holds no paths .* Set dataset.path_column=url"):
        load_image_folder(source, label_columns="label")


def test_columns_are_settings_of_the_command_line(tmp_path: Path) -> None:
    source = write_table(tmp_path, "csv")
    settings = validate_settings(
        compose_config(
            "dataset=image_folder",
            f"dataset.path={source}",
            f"dataset.decoded_dir={tmp_path}/decoded",
            "dataset.path_column=Filenames",
            "dataset.label_columns=[desert,sea]",
            "dataset.split_column=part",
            "dataset.val_as=ignore",
        )
    )
    image_set = build("dataset", settings.dataset)
    assert image_set.ids.tolist() == ["0.jpg", "1.jpg", "3.jpg"]
    assert image_set.classes == ("desert", "sea")
