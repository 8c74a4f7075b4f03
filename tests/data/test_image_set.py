import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deephash.core.errors import UserError
from deephash.data.image_set import ImageSet

PIXELS = np.zeros((3, 3, 8, 8), np.uint8)
CASES = {
    "float_images": ({"images": PIXELS / 255}, "images have .* type float64; give uint8 pixels"),
    "no_channels": ({"images": PIXELS[:, 0]}, r"images have shape \(3, 8, 8\)"),
    "channels_last": ({"images": PIXELS.transpose(0, 2, 3, 1)}, "channels last.*transpose"),
    "no_images": ({"images": None}, "images are of type NoneType; give a tensor or an array"),
    "ragged_images": ({"images": [[1], [2, 3]]}, "images are of type list"),
    "float_labels": ({"labels": np.array([0.0, 1.0, 0.0])}, "labels have .* type float64"),
    "too_few_labels": ({"labels": [0, 1]}, r"labels have shape \(2,\)"),
    "label_beyond_classes": ({"labels": [0, 1, 2]}, "value 2 in row 2; the indices of 2 classes"),
    "negative_label": ({"labels": [0, -1, 1]}, "value -1 in row 1; the indices of 2 classes are 0"),
    "column_of_labels": ({"labels": [[0], [1], [0]]}, r"labels have shape \(3, 1\)"),
    "signs": ({"labels": [[1, -1], [-1, 1], [1, 1]]}, "value -1 in row 0; multi-hot labels are 0"),
    "another_width": ({"labels": np.eye(3, dtype=int)}, r"multi-hot \(3, 2\)"),
    "text_labels": ({"labels": ["a", "b", "a"]}, "labels are of type list"),
    "equal_ids": ({"ids": ["a", "b", "a"]}, "ids name 'a' 2 times"),
    "sparse_labels": ({"labels": torch.eye(3, 2).int().to_sparse()}, "labels are a sparse tensor"),
    "complex_labels": ({"labels": np.array([0j, 1, 0])}, "labels have .* type complex128"),
    "object_labels": ({"labels": np.array([0, 1, 0], object)}, "labels are of object; give a tens"),
    "huge_labels": ({"labels": np.array([0, 1, 2**63], np.uint64)}, "labels have the value -9"),
    "paths_as_ids": (
        {"ids": [Path("a"), Path("b"), Path("c")]},
        r"ids hold PosixPath\('a'\); give",
    ),
    "a_missing_id": ({"ids": ["a", None, "c"]}, "ids hold None; give 3 strings"),
    "bytes_as_ids": ({"ids": [b"a", b"b", b"c"]}, r"ids have .* type \|S1"),
    "no_classes": ({"classes": None}, "classes are None; give the names"),
    "a_number_of_classes": ({"classes": 2}, "classes are 2; give the names"),
    "equal_classes": ({"classes": ("cat", "cat")}, "classes name 'cat' twice"),
    "numbers_as_ids": ({"ids": np.arange(3)}, r"ids have .* type int64; give 3 strings"),
    "too_many_ids": ({"ids": ["a", "b", "c", "d"]}, r"ids have shape \(4,\)"),
    "one_string": ({"classes": "ab"}, "classes are 'ab'"),
    "a_set_of_classes": ({"classes": {"cat", "dog"}}, "classes are {'.*'}; give .* list or tuple"),
    "a_generator": ({"classes": (name for name in ("cat", "dog"))}, "classes are <generator"),
    "a_table_of_classes": ({"classes": np.array([["cat", "dog"]])}, "classes are array"),
    "images_of_several_sizes": (
        {"images": [PIXELS[0], PIXELS[1], PIXELS[2, :, 1:]]},
        "images are arrays of several shapes",
    ),
    "numbers_as_classes": ({"classes": (0, 1)}, r"classes are \(0, 1\)"),
    "no_is_test": ({"is_test": None}, "is_test has"),
    "numbers_as_is_test": ({"is_test": [0, 0, 1]}, "is_test has .* give 3 booleans"),
}


def make_image_set() -> ImageSet:
    return ImageSet(
        name="toy",
        images=torch.from_numpy(PIXELS),
        labels=torch.tensor([0, 1, 0]),
        ids=np.array(["a", "b", "c"]),
        classes=("cat", "dog"),
        is_test=np.zeros(3, dtype=bool),
    )


@pytest.mark.parametrize(("changes", "message"), CASES.values(), ids=list(CASES))
def test_refuses_a_wrong_field(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=f"ImageSet 'toy': .*{message}"):
        replace(make_image_set(), **changes)


def test_arrays_and_sequences_equal_tensors() -> None:
    expected = make_image_set()
    sequences: dict[str, Any] = {
        "images": PIXELS,
        "labels": [0, 1, 0],
        "ids": ["a", "b", "c"],
        "classes": ["cat", "dog"],
        "is_test": [False] * 3,
    }
    image_set = replace(expected, **sequences)
    assert image_set.checksum == expected.checksum
    assert image_set.classes == expected.classes
    assert image_set.labels.dtype == torch.int64
    assert image_set.is_test.dtype == bool


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", ">u2", ">i4", ">i8", "i2", bool])
def test_labels_of_any_integer_type_are_taken(dtype: str) -> None:
    labels: Any = np.array([0, 1, 0], dtype=dtype)
    for values in (labels, torch.from_numpy(labels) if labels.dtype.isnative else labels):
        image_set = replace(make_image_set(), labels=values)
        assert image_set.labels.dtype == torch.int64
        assert image_set.labels.tolist() == [0, 1, 0]


def test_a_name_is_a_text() -> None:
    with pytest.raises(UserError, match="ImageSet: name is None; give a text"):
        replace(make_image_set(), name=None)  # type: ignore[arg-type]


def test_arrays_of_single_images_and_labels_are_taken_without_a_warning() -> None:
    changes: dict[str, Any] = {
        "images": list(PIXELS),
        "labels": tuple(np.array([[1, 0], [1, 1], [0, 0]])),
        "classes": np.array(["cat", "dog"]),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image_set = replace(make_image_set(), **changes)
    np.testing.assert_array_equal(image_set.images, PIXELS)
    assert image_set.labels.tolist() == [[1, 0], [1, 1], [0, 0]]
    assert image_set.classes == ("cat", "dog")


def test_a_memory_mapped_array_is_taken_without_a_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", PIXELS)
    images: Any = np.load(tmp_path / "images.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image_set = replace(make_image_set(), images=images)
    assert image_set.checksum == make_image_set().checksum


@pytest.mark.parametrize("dtype", [bool, np.int32, np.int64])
def test_multi_hot_labels_of_any_integer_type_become_uint8(dtype: type) -> None:
    labels: Any = np.array([[1, 0], [1, 1], [0, 0]], dtype=dtype)
    image_set = replace(make_image_set(), labels=labels)
    assert image_set.labels.dtype == torch.uint8
    np.testing.assert_array_equal(image_set.labels, labels)
