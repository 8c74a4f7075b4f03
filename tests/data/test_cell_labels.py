"""Labels in the cells of a table: missing values, lists, and cells that hold something else."""

import csv
import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from deephash.core.errors import UserError
from deephash.data.files.labels import encode_labels, read_class_names, read_multi_hot
from deephash.data.files.tables import Table, read_table

MISSING = ["", " ", "nan", "NaN", "None", "null", "NULL", "NA", "N/A", "<NA>"]


def make_table(cells: list[str], *others: list[str]) -> Table:
    columns = ["file", *(f"column {i}" for i in range(1 + len(others)))]
    rows = [[f"{i}.jpg", *values] for i, values in enumerate(zip(cells, *others, strict=True))]
    return Table(Path("list.csv"), columns, rows, list(range(2, 2 + len(rows))))


def names_of(cells: list[str], separator: str | None = ";") -> list[tuple[str, ...]]:
    return read_class_names(make_table(cells), 1, separator)


@pytest.mark.parametrize("cell", MISSING)
def test_a_missing_value_is_no_class(cell: str) -> None:
    for separator in (";", None):
        labels, classes = encode_labels(names_of(["b", cell, "a"], separator))
        assert classes == ("a", "b")
        assert labels.tolist() == [1, -1, 0]


@pytest.mark.parametrize("cell", MISSING)
def test_a_missing_value_among_columns_leaves_the_row_without_labels(cell: str) -> None:
    table = make_table(["1", "1", "0"], ["0", cell, "1"])
    assert read_multi_hot(table, [1, 2]).tolist() == [[1, 0], [0, 0], [0, 1]]


@pytest.mark.parametrize("one", ["1", "1.0", "True", "true", "TRUE", "yes", " Yes "])
@pytest.mark.parametrize("zero", ["0", "0.0", "False", "no"])
def test_spellings_of_0_and_1(one: str, zero: str) -> None:
    table = make_table([one, zero], [zero, one])
    assert read_multi_hot(table, [1, 2]).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("cell", ["2", "-1", "0.5", "y", "x", "1;0"])
def test_another_value_among_columns_is_refused(cell: str) -> None:
    told = f"line 3, column 'column 1': '{cell}' is neither 0 nor 1.*label_columns='column 1'\"."
    with pytest.raises(UserError, match=told):
        read_multi_hot(make_table(["1", "1"], ["0", cell]), [1, 2])


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("['a', 'b']", ("a", "b")),
        ('["a", "b"]', ("a", "b")),
        ("('a', 'b')", ("a", "b")),
        ("['it, too']", ("it, too",)),
        ("[]", ()),
        ("[3, 5]", ("3", "5")),
        ("(unknown)", ("(unknown)",)),
        ("cat (wild)", ("cat (wild)",)),
        ("cat(domestic)", ("cat(domestic)",)),
        ('["a", null]', ("a",)),
        ("['a', None, '', 'nan']", ("a",)),
        ("['nan']", ()),
        ("set()", ()),
        ('["\\ud83d\\ude00", "a\\/b"]', ("\U0001f600", "a/b")),
        ("a;nan;;NA", ("a",)),
        ("a ;b;; c", ("a", "b", "c")),
        ("café", ("café",)),
    ],
)
def test_a_cell_holds_a_name_several_or_a_list(cell: str, names: tuple[str, ...]) -> None:
    assert names_of([cell, "other"]) == [names, ("other",)]


def test_a_long_cell_is_shown_in_part() -> None:
    with pytest.raises(UserError, match=r"column 'column 0': \[{60}… looks like a list") as error:
        names_of(["[" * 9000 + "]" * 9000])
    assert len(str(error.value)) < 300


def test_a_set_is_a_list_too() -> None:
    (names,) = names_of(["{'a', 'b'}"])
    assert set(names) == {"a", "b"}


NO_LISTS = [
    "[a, b]", "['a' 'b']", "{a,b}", "{'a': 1}", "['a', ]'b']", "[['a'], ['b']]", '[{"id": 3}]',
    "array(['a', 'b'], dtype=object)", "frozenset({'a'})",
]  # fmt: skip


@pytest.mark.parametrize("cell", NO_LISTS)
def test_a_list_that_cannot_be_read_is_refused(cell: str) -> None:
    with pytest.raises(UserError, match=r"line 3, column 'column 0': .* looks like a list"):
        names_of(["a", cell])
    assert names_of(["a", cell], separator=None) == [("a",), (cell,)]


@pytest.mark.parametrize(
    "cells",
    [
        ["0,1,0", "1,1,0"],
        ["0 1", "1 0"],
        ["[0, 1]", "[1, 1]"],
        ["0.0;1.0", "1.0;0.0"],
        ["[True, False]", "[True, True]"],
        ["no yes", "yes no"],
        ["110", "001", "010"],
        ["100", "101", "110"],
        ["1. 0. 1.", "0. 1. 1."],
        ["1.00,0.00,1.00", "0.00,1.00,1.00"],
        ["1.000e+00 0.000e+00", "0.000e+00 1.000e+00"],
        ["T F T", "F T T"],
        ["Y,N,Y", "N,Y,N"],
        ["1_0_1", "0_1_0"],
    ],
)
def test_vectors_of_0_and_1_are_refused(cells: list[str]) -> None:
    """With a way out, as numbers may be the names of classes."""
    told = "line [23], .* looks like a vector of 0 and 1.* dataset.label_separator=null if each is"
    with pytest.raises(UserError, match=told):
        names_of(cells)
    assert names_of(cells, None) == [(cell,) for cell in cells]


def test_a_vector_of_0_and_1_is_refused_with_its_separator_too() -> None:
    with pytest.raises(UserError, match="looks like a vector of 0 and 1"):
        names_of(["0,1,0", "1,1,0"], separator=",")


def test_whole_numbers_lose_their_fraction_only_together() -> None:
    assert names_of(["3.0", "10.0", "nan"]) == [("3",), ("10",), ()]
    assert names_of(["3.0", "10.5"]) == [("3.0",), ("10.5",)]
    assert names_of(["1", "0", "1"]) == [("1",), ("0",), ("1",)]
    assert names_of(["1.0", "1", "2;3.0"]) == [("1",), ("1",), ("2", "3")]  # of several sources
    assert names_of(["001", "010", "100"]) == [("001",), ("010",), ("100",)]
    assert names_of(["1", "10", "11"]) == [("1",), ("10",), ("11",)]


@pytest.mark.parametrize("cells", [["10", "01", "11"], ["101", "11", "110", "1"]])
def test_numbers_that_may_be_vectors_are_told(
    cells: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """With lost zeros at the beginning, or of two digits."""
    assert names_of(cells) == [(cell,) for cell in cells]
    (message,) = caplog.messages
    assert "list.csv: all labels consist of 0 and 1, such as 1" in message
    caplog.clear()
    names_of(["100", "010", "001"])  # each is one class
    names_of(["10", "11", "12"])
    names_of(["1;10", "11"])
    names_of(["t1", "f0", "t0"])
    assert not caplog.messages


def test_minus_one_among_classes_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert names_of(["-1", "0", "1", "-1"])[0] == ("-1",)
    assert caplog.messages == [
        "list.csv: -1 is a class of 2 images; if it means that they have no label, leave its cells "
        "empty"
    ]
    caplog.clear()
    names_of(["-1", "1", "-1"])  # two classes
    names_of(["-2", "-1", "0", "1"])
    assert not caplog.messages


def draw_composed(separator: str, images: int = 300) -> list[str]:
    """Two or three of twelve labels for each image."""
    draws = np.random.default_rng(0)
    parts = np.array([f"part{i}" for i in range(12)])
    return [separator.join(draws.permutation(parts)[: draws.integers(2, 4)]) for _ in range(images)]


def refused_separator(cells: list[str]) -> str:
    """The separator that the message proposes, as the shell and Hydra read it."""
    with pytest.raises(UserError, match="seems to hold several labels") as error:
        names_of(cells)
    told = r"Set (.*?)(?: \(U\+[0-9A-F ]+\))?, or dataset.label_separator=null"
    (setting,) = re.findall(told, str(error.value))
    (word,) = shlex.split(setting)
    value = OverridesParser.create().parse_override(word).value()
    assert isinstance(value, str)
    return value


def draw_pairs(separator: str) -> list[str]:
    """24 names of ten parts, two images of each."""
    things = ["car", "bus", "cat", "dog", "T-shirt", "cup"]
    colours = ["red", "blue", "green", "light grey"]
    return [f"{colour}{separator}{thing}" for colour in colours for thing in things] * 2


@pytest.mark.parametrize(
    "separator",
    [*"、，；·#–\\~*", " - ", " or ", " und ", " – ", "->", " -> ", "||", " · ", " \\ "],
)
def test_separators_of_all_kinds_are_named_whole(separator: str) -> None:
    """Without a junk class, such as the dash of `red - car`."""
    cells = draw_pairs(separator)
    proposed = refused_separator(cells)
    assert proposed.strip() == separator.strip()
    names = names_of(cells, proposed)
    assert names == [tuple(part.strip() for part in cell.split(separator)) for cell in cells]
    assert len({name for pair in names for name in pair}) == 10


@pytest.mark.parametrize("separator", [",", ", ", "|", "/", " ", "+", " & ", "\t", ":", " and "])
def test_labels_that_look_composed_name_the_setting(separator: str) -> None:
    cells = draw_composed(separator)
    sign = separator if separator in (" and ", "\t") else separator.strip() or " "
    assert refused_separator(cells) == sign
    assert all(len(names) > 1 for names in names_of(cells, sign))
    assert names_of(cells, None) == [(cell,) for cell in cells]


@pytest.mark.parametrize("separator", [",", "|", " ", "_", "-", "; "])
def test_few_labels_that_are_made_of_others_look_composed(separator: str) -> None:
    """As in 2,000 photographs with up to three of five labels: there are many images of each."""
    draws = np.random.default_rng(0)
    labels = np.array(["desert", "mountains", "sea", "sunset", "trees"])
    cells = [separator.join(draws.permutation(labels)[: draws.integers(1, 3)]) for _ in range(400)]
    if separator == "; ":
        assert {name for names in names_of(cells) for name in names} == set(labels)
        return
    with pytest.raises(UserError, match="'.*' seems to hold .* and .* are labels of other images"):
        names_of(cells)
    assert {name for names in names_of(cells, separator) for name in names} == set(labels)


# Some stand within words, so that the parts must be labels of other images.
RARE_SEPARATORS = [
    *".¦$€°`\"'\u2011\u00a0\u3000\u00ad\u200b\u2028\x0b\x1e\x1f\u241f",
    "[SEP]", "_and_", "<sep>", "<br>", "<|sep|>", "\\n", "%20", "\\x1f", "--", " with ",
]  # fmt: skip


@pytest.mark.parametrize("separator", RARE_SEPARATORS)
def test_a_separator_is_proposed_whole(separator: str) -> None:
    """The advice gives the labels, without junk such as `nsea` or `br>sea`."""
    draws = np.random.default_rng(0)
    labels = ["sky", "sea", "sand", "tree", "dog", "cat", "race car", "boat", "person", "house"]
    drawn = [draws.permutation(labels)[: draws.integers(1, 4)].tolist() for _ in range(200)]
    cells = [separator.join(names) for names in drawn]
    assert names_of(cells, refused_separator(cells)) == [tuple(names) for names in drawn]


@pytest.mark.parametrize("separator", ["\\n", "<br>", "<sep>"])
def test_a_separator_is_proposed_whole_without_single_labels(separator: str) -> None:
    assert refused_separator(draw_pairs(separator)) == separator


def test_an_invisible_separator_is_named() -> None:
    with pytest.raises(UserError, match=r"Set \S+ \(U\+200B\), or dataset"):
        names_of(["sea", "sky", "sea\u200bsky"] * 9)


@pytest.mark.parametrize("composed", ["sea_sky", "sea-sky", "sea sky", "sea and sky", "sea.sky"])
def test_few_labels_made_of_others_are_told(
    composed: str, caplog: pytest.LogCaptureFixture
) -> None:
    names_of(["sea", "sky", "cat", "new york city", "hot dog stand", composed])
    assert caplog.messages == [f"list.csv: 1 class, {composed}, consists of the names of others"]


def test_an_element_of_a_list_with_the_separator_in_it_is_refused() -> None:
    with pytest.raises(UserError, match="'sea;sky' seems to .* Make each an element of the list"):
        names_of(['["sea;sky"]', '["sea"]', '["sky"]'])


@pytest.mark.parametrize("name", ["Label", "labels", "class", "category"])
def test_the_column_named_label_is_proposed(name: str) -> None:
    table = Table(Path("list.csv"), ["file", "mask", name], [["0.jpg", "m0.png", "a"]], [2])
    with pytest.raises(UserError, match=f"column 'mask': .* set .dataset.label_columns='{name}'"):
        read_multi_hot(table, [1, 2])


@pytest.mark.parametrize(
    "classes",
    [
        ["golden retriever", "labrador retriever", "red fox", "arctic fox", "grey wolf"] * 20,
        [f"breed {i} of dog" for i in range(200)],
        [f"{a}{sign}{b}" for sign in "_-." for a in "abcd" for b in "vwxyz"],
        [f"{a}({b})" for a in ("cat", "dog", "bat", "rat", "ant") for b in "vwxyz"],
        [f"{a}'{b}" for a in ("cat", "dog", "bat", "rat", "ant") for b in "vwxyz"],
        [f"tench {i}, Tinca tinca {i}" for i in range(100)],
        [f"{colour} {thing}" for colour in ("red", "blue") for thing in ("car", "bus")] * 3,
        [f"{a}/{b}" for a in range(10) for b in range(20)] * 20,  # many images of each
        ["sea", "lion", "sea lion", "tiger"] * 9,
        ["red", "car", "red_car", "bus", "red bus"] * 9,
        ["Audi", "BMW", "Mercedes-Benz", "Mercedes", "Benz"] * 9,
        ["black", "cat", "black_cat", "dog"] * 9,
        ["traffic light", "light", "stop sign", "traffic", "sign", "dining table", "person"] * 9,
        ["A", "B", "AB", "O", "A+", "B-"] * 9,
        ["C", "C++", "C#", "Java"] * 9,
        [f"2020-01-{day:02d}" for day in range(1, 31)] * 3,
        ["1", "1.5", "2", "2.5", "3", "3.5", "4", "4.5", "5"] * 9,  # grades
        [f"a photo of a {a} {b}" for a in ("red", "blue", "big", "old", "new") for b in "vwxyz"],
        ["हिन्दी", "हि", "न्दी", "हिन्", "दी"] * 9,  # vowel signs are no letters of their own
    ],
)
def test_class_names_of_several_words_are_kept(classes: list[str]) -> None:
    assert names_of(classes) == [(name,) for name in classes]


def test_csv_tsv_and_parquet_agree(tmp_path: Path) -> None:
    """Of values as pandas writes them, in a column of labels and in columns of 0 and 1."""
    files = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    values = {
        "text": ["cat", None, "dog", "None"],
        "names": [["\U0001f600", 'a,"b"'], ["c\nd"], ["e;f"], ["\u00e9"]],
        "number": [1.0, float("nan"), 2.0, 1.0],
        "lists": [["a", "b"], [], ["b"], ["a"]],
        "flag": [True, False, True, False],
        "other": [0.0, 1.0, 1.0, None],
    }
    pa.parquet.write_table(pa.table({"file": files, **values}), tmp_path / "list.parquet")
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        text = io.StringIO()
        writer = csv.writer(text, delimiter=delimiter)
        writer.writerow(["file", *values])
        writer.writerows(
            [
                json.dumps(value) if isinstance(value, list) else "" if value is None else value
                for value in row
            ]
            for row in zip(files, *values.values(), strict=True)
        )
        (tmp_path / f"list{suffix}").write_text(text.getvalue())
    for suffix in (".csv", ".tsv", ".parquet"):
        table = read_table(tmp_path / f"list{suffix}")
        names = [read_class_names(table, column, ";") for column in (1, 3, 4, 2)]
        assert names[0] == [("cat",), (), ("dog",), ()]
        assert names[1] == [("1",), (), ("2",), ("1",)]
        assert names[2] == [("a", "b"), (), ("b",), ("a",)]
        assert names[3] == [("\U0001f600", 'a,"b"'), ("c\nd",), ("e;f",), ("\u00e9",)]
        assert read_multi_hot(table, [5, 6]).tolist() == [[1, 0], [0, 1], [1, 1], [0, 0]]
