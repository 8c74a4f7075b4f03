"""NUS-WIDE as it lies on disks: other letter case, unpacked twice, labels in files of their own."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from sample_images import load_nuswide, sample_nuswide_labels, write_image, write_official_nuswide

from deephash.core.errors import UserError
from deephash.data.datasets.nuswide import _flickr_id
from deephash.data.datasets.nuswide_files import CONCEPTS, FREQUENT
from deephash.data.protocols import given

LABELS = sample_nuswide_labels()
TESTS = "ImageList/TestImagelist.txt"


def rewrite(folder: Path, change: Callable[[int, str], str], path: str = TESTS) -> None:
    """Change each line of a file, by its number."""
    lines = (folder / path).read_text().split("\n")[:-1]
    (folder / path).write_text("".join(f"{change(*item)}\n" for item in enumerate(lines)))


def nest(folder: Path) -> None:
    """Put a folder into one of the same name."""
    folder.rename(folder.parent / "outer")
    folder.mkdir()
    (folder.parent / "outer").rename(folder / folder.name)


def append(folder: Path, text: str, path: str = "Groundtruth/AllLabels/Labels_sky.txt") -> None:
    with (folder / path).open("a") as file:
        file.write(text)


def insert_line(folder: Path, path: str) -> None:
    text = (folder / path).read_text()
    (folder / path).write_text(text.replace("\n", "\n\n", 1))


def lower_all(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), key=lambda p: -len(p.parts)):
        if path.suffix != ".jpg":
            path.rename(path.with_name(path.name.lower()))


# What is done to the official files, and what is told; the image set must stay the same.
LAYOUTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "every second test name in upper case": (
        lambda t: rewrite(t, lambda i, line: line.upper() if i % 2 else line),
        "TestImagelist.txt: names match in spite of letter case .7.",
    ),
    "test names with slashes": (
        lambda t: rewrite(t, lambda i, line: line.replace("\\", "/")), ""
    ),
    "test names with a drive": (lambda t: rewrite(t, lambda i, line: f"D:\\nus\\{line}"), ""),
    "test names without suffix": (
        lambda t: rewrite(t, lambda i, line: line.strip()[:-4]), "file suffix .14."
    ),
    "test names without folders": (
        lambda t: rewrite(t, lambda i, line: line.rpartition("\\")[2]), ""
    ),
    "image list in upper case": (
        lambda t: rewrite(t, lambda i, line: line.swapcase(), TESTS), "letter case"
    ),
    "blank line at the end of labels": (lambda t: append(t, "\n"), ""),
    "three blank lines at the end of labels": (lambda t: append(t, " \r\n\n\n"), ""),
    "blank line within labels": (
        lambda t: insert_line(t, "Groundtruth/AllLabels/Labels_sky.txt"), ""
    ),
    "blank line within the image list": (lambda t: insert_line(t, "ImageList/Imagelist.txt"), ""),
    "top folders in lower case": (
        lambda t: [(t / n).rename(t / n.lower()) for n in ("Groundtruth", "ImageList", "Flickr")],
        "",
    ),
    "everything in lower case": (lower_all, ""),
    "unpacked twice": (
        lambda t: [nest(t / n) for n in ("Groundtruth", "ImageList", "Flickr")], ""
    ),
    "labels unpacked twice": (lambda t: nest(t / "Groundtruth" / "AllLabels"), ""),
    "an empty Flickr": (
        lambda t: (t / "Flickr").rename(t / "images") and (t / "Flickr").mkdir(), ""
    ),
    "a Flickr of thumbnails": (
        lambda t: (t / "Flickr").rename(t / "image")
        and write_image(t / "Flickr" / "@eaDir" / "zoo" / "0000_1000.jpg", 0),
        "",
    ),
    "a Flickr with a note": (
        lambda t: (t / "Flickr").rename(t / "Images")
        and (t / "Flickr").mkdir()
        and (t / "Flickr" / "readme.txt").write_text("see images"),
        "",
    ),
    "a Flickr with one image": (
        lambda t: (t / "Flickr").rename(t / "images")
        and write_image(t / "Flickr" / "zoo" / "0000_1000.jpg", 0),
        "",
    ),
    "labels with a byte order mark": (
        lambda t: (t / "Groundtruth/AllLabels/Labels_sky.txt").write_bytes(
            b"\xef\xbb\xbf" + (t / "Groundtruth/AllLabels/Labels_sky.txt").read_bytes()
        ),
        "",
    ),
    "image folders in upper case": (lambda t: (t / "Flickr/zoo").rename(t / "Flickr/ZOO"), ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[bool]]:
    folder = tmp_path_factory.mktemp("official")
    write_official_nuswide(folder, LABELS)
    image_set = load_nuswide(folder)
    return image_set.checksum, image_set.is_test.tolist()


@pytest.mark.parametrize("kind", LAYOUTS)
def test_layouts_give_the_same_images(
    kind: str, tmp_path: Path, expected: tuple, caplog: pytest.LogCaptureFixture
) -> None:
    change, told = LAYOUTS[kind]
    write_official_nuswide(tmp_path, LABELS)
    change(tmp_path)
    image_set = load_nuswide(tmp_path)
    assert (image_set.checksum, image_set.is_test.tolist()) == expected
    if told:
        assert re.search(told, caplog.text)


def test_a_test_list_that_fits_in_part_is_refused_with_the_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_official_nuswide(tmp_path, LABELS)
    rewrite(tmp_path, lambda i, line: f"other\\x{line[5:]}" if i % 2 else line)
    with pytest.raises(UserError) as error:
        load_nuswide(tmp_path, max_invalid_fraction=0.4)
    assert "names 14 images, 7 of which are in no other list; for example other/x" in str(
        error.value
    )
    load_nuswide(tmp_path, max_invalid_fraction=0.5)
    assert "nuswide: 7 of 14 official test images are in no other list" in caplog.text


def test_a_missing_file_is_named_at_its_place(tmp_path: Path) -> None:
    names = write_official_nuswide(tmp_path, LABELS)
    path = tmp_path / "Flickr" / names[1].replace("\\", "/")
    path.unlink()
    with pytest.raises(UserError, match=rf"1 missing.*missing: {re.escape(str(path))}"):
        load_nuswide(tmp_path)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("0001_2124494179.jpg", "2124494179"),
        ("161001_1124158466_3ed5f0ad6a_m.jpg", "1124158466"),
        ("1124158466_3ed5f0ad6a.jpg", "1124158466"),
        ("1124158466_1234567890_m.jpg", "1124158466"),
        ("7.jpg", "7"),
    ],
)
def test_flickr_ids_are_read_from_names_of_all_kinds(name: str, number: str) -> None:
    assert _flickr_id(name) == number


def test_images_without_labels_are_said_to_be_without(tmp_path: Path) -> None:
    names = [name.rpartition("\\")[2] for name in write_official_nuswide(tmp_path, LABELS)]
    image_set = load_nuswide(tmp_path)
    (tmp_path / "q.txt").write_text("".join(f"{name}\n" for name in names[:10]))  # two without
    (tmp_path / "t.txt").write_text("".join(f"{name}\n" for name in names[17:24]))
    lists = {"queries": str(tmp_path / "q.txt"), "train": str(tmp_path / "t.txt")}
    with pytest.raises(UserError, match=r"2 of which are not .* 2 without a label of the subset"):
        given(image_set, 0, **lists, database=None, max_missing_fraction=0.1)
    split = given(image_set, 0, **lists, database=None, max_missing_fraction=0.2)
    assert len(split.query) == 8


def write_separate_labels(folder: Path, kind: str) -> dict[str, list[str]]:
    """Lists of paths, and labels in files of their own."""
    names = [n.replace("\\", "/") for n in write_official_nuswide(folder / "official", LABELS)]
    (folder / "official" / "Flickr").rename(folder / "images")
    labels = LABELS[:, [CONCEPTS.index(name) for name in FREQUENT]]
    tests = np.arange(len(LABELS)) % 3 == 0
    for part, rows in {"test": tests, "database": ~tests}.items():
        (folder / f"{part}_img.txt").write_text(
            "".join(f"{names[row]}\n" for row in np.flatnonzero(rows))
        )
        values = labels[rows]
        if kind == "npy":
            np.save(folder / f"{part}.npy", values)
        elif kind == "float.npy":
            np.save(folder / f"{part}.float.npy", values.astype(np.float32))
        elif kind == "npz":
            np.savez(folder / f"{part}.npz", labels=values, names=np.array(["a", "b"]))
        elif kind == "mat":
            scipy.io.savemat(folder / f"{part}.mat", {"L": values.T.astype(float), "note": "x"})
        elif kind == "sparse.mat":
            matrix = scipy.sparse.csc_matrix(values.astype(float))
            scipy.io.savemat(folder / f"{part}.sparse.mat", {"L": matrix})
        else:
            np.savetxt(folder / f"{part}.{kind}", values, "%d", "," if kind == "csv" else " ")
    return {
        "lists": ["test_img.txt", "database_img.txt"],
        "label_files": [f"test.{kind}", f"database.{kind}"],
    }


@pytest.mark.parametrize("kind", ["txt", "csv", "npy", "npz", "float.npy", "mat", "sparse.mat"])
def test_labels_may_be_in_files_of_their_own(kind: str, tmp_path: Path, expected: tuple) -> None:
    files = write_separate_labels(tmp_path, kind)
    image_set = load_nuswide(tmp_path, **files)
    assert (image_set.checksum, image_set.is_test.tolist()) == expected


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f, t: f.pop("lists"), "dataset.label_files: name the lists"),
        (lambda f, t: f["label_files"].pop(), "names 1 files for 2 of dataset.lists"),
        (lambda f, t: np.save(t / "test.npy", LABELS[:3]), "3 x 81 values, but test_img.txt names"),
        (lambda f, t: np.save(t / "test.npy", np.zeros(14)), "test.npy holds one column only"),
        (lambda f, t: np.save(t / "test.npy", np.array(1)), "test.npy holds a single value"),
        (
            lambda f, t: f.update(label_files=[str((t / "x.txt").write_text("") or "x.txt")] * 2),
            "x.txt holds 0 x 0 values",
        ),
        (lambda f, t: np.save(t / "test.npy", np.array(["a"])), "does not hold an array of num"),
        (
            lambda f, t: np.save(t / "test.npy", -LABELS[:14, :21].astype(int)),
            "npy holds -1 in row",
        ),
        (
            lambda f, t: np.save(t / "test.npy", np.eye(21, 14, -5, dtype=int) * 2),
            "npy holds 2 in row 5, column 0, from 0",  # as it lies in the file
        ),
        (lambda f, t: np.save(t / "test.npy", LABELS[:14, :21] * np.nan), "npy holds nan in row 0"),
        (lambda f, t: (t / "test.npy").write_text("x"), "not an array of numbers as NumPy"),
        (lambda f, t: (t / "test.npy").unlink(), "test.npy cannot be read: No such file"),
        (
            lambda f, t: np.save(t / "test.npy", np.array([{}]), allow_pickle=True),
            "not an array of numbers",
        ),
    ],
)
def test_label_files_that_do_not_fit_are_refused(
    damage: Callable, message: str, tmp_path: Path
) -> None:
    files = write_separate_labels(tmp_path, "npy")
    damage(files, tmp_path)
    with pytest.raises(UserError, match=message):
        load_nuswide(tmp_path, **files)


def write_named_columns(folder: Path, *orders: list[str]) -> list[str]:
    """CSV lists of test images and of the others, with the concepts in the first line."""
    names = [n.replace("\\", "/") for n in write_official_nuswide(folder / "official", LABELS)]
    (folder / "official" / "Flickr").rename(folder / "images")
    lists = []
    for part, concepts in zip(("test", "database"), orders, strict=True):
        rows = [i for i in range(len(names)) if (i % 3 == 0) == (part == "test")]
        columns = [CONCEPTS.index(concept.lower()) for concept in concepts]
        lines = [",".join([names[i], *map(str, LABELS[i, columns])]) for i in rows]
        lists.append(f"{part}.csv")
        (folder / lists[-1]).write_text("\n".join([",".join(["path", *concepts]), *lines]))
    return lists


def test_columns_that_are_named_may_be_in_any_order(tmp_path: Path, expected: tuple) -> None:
    frequent = list(FREQUENT)
    swapped = [frequent[1], frequent[0], *frequent[2:]]  # their counts look as usual
    lists = write_named_columns(tmp_path, swapped, [name.upper() for name in CONCEPTS[::-1]])
    with pytest.raises(
        UserError, match=r"database.csv has 81 labels per line, but test.csv has 21"
    ):
        load_nuswide(tmp_path, lists=lists)
    (tmp_path / "b").mkdir()
    lists = write_named_columns(tmp_path / "b", swapped, frequent[::-1])
    image_set = load_nuswide(tmp_path / "b", lists=lists)
    assert (image_set.checksum, image_set.is_test.tolist()) == expected


def test_lists_of_different_concepts_are_refused(tmp_path: Path) -> None:
    frequent = list(FREQUENT)
    lists = write_named_columns(tmp_path, frequent, ["zebra", *frequent[1:]])
    with pytest.raises(UserError, match=r"database.csv has a column 'zebra', which test.csv does"):
        load_nuswide(tmp_path, lists=lists)


@pytest.mark.parametrize("unnamed", ["test.csv", "database.csv"])
def test_named_columns_beside_unnamed_ones_are_refused(unnamed: str, tmp_path: Path) -> None:
    """Otherwise the unnamed ones would be read in the order of the others."""
    lists = write_named_columns(tmp_path, sorted(FREQUENT), sorted(FREQUENT))
    _, _, rows = (tmp_path / unnamed).read_text().partition("\n")
    columns = ",".join(["path", *map(str, range(21))])
    (tmp_path / unnamed).write_text(f"{columns}\n{rows}")
    with pytest.raises(UserError, match=rf"{unnamed} does not name the concepts .* but .* does\."):
        load_nuswide(tmp_path, lists=lists, order="frequency")


@pytest.mark.parametrize("name", ["Labels_{}", "labels_{}_Train.txt", " {}_TEST "])
def test_columns_may_be_named_as_the_official_files(
    name: str, tmp_path: Path, expected: tuple
) -> None:
    lists = write_named_columns(tmp_path, sorted(FREQUENT), list(FREQUENT))
    for path in lists:
        header, _, rows = (tmp_path / path).read_text().partition("\n")
        named = [name.format(concept) for concept in header.split(",")[1:]]
        (tmp_path / path).write_text(f"path,{','.join(named)}\n{rows}")
    image_set = load_nuswide(tmp_path, lists=lists)
    assert (image_set.checksum, image_set.is_test.tolist()) == expected


@pytest.mark.parametrize("order", [None, "frequency"])
def test_columns_whose_unknown_names_differ_are_refused(order: str | None, tmp_path: Path) -> None:
    lists = write_named_columns(tmp_path, sorted(FREQUENT), list(FREQUENT))
    for path in lists:
        header, _, rows = (tmp_path / path).read_text().partition("\n")
        columns = ",".join(f"{name}_x" for name in header.split(","))
        (tmp_path / path).write_text(f"{columns}\n{rows}")
    with pytest.raises(
        UserError, match=r"database.csv: label column 1 is named 'sky_x', but 'animal_x' in test.c"
    ):
        load_nuswide(tmp_path, lists=lists, order=order)


@pytest.mark.parametrize("order", [None, "frequency"])
@pytest.mark.parametrize("separate", [False, True], ids=["in the lists", "label files"])
@pytest.mark.parametrize("orders", [(sorted, list), (list, sorted)])
def test_lists_in_different_orders_are_refused(
    orders: tuple[Callable, Callable], separate: bool, order: str | None, tmp_path: Path
) -> None:
    """Together they look as if both were in the order of the larger one."""
    labels = sample_nuswide_labels(200)
    files: dict[str, list[str]] = {"lists": [], "label_files": []}
    for part, rows, to_order in zip(("test", "database"), (17, 183), orders, strict=True):
        columns = [CONCEPTS.index(concept) for concept in to_order(FREQUENT)]
        values, labels = labels[:rows, columns], labels[rows:]
        names = [f"zoo/{part}{i}.jpg" for i in range(rows)]
        lines = [f"{name} {' '.join(map(str, v))}" for name, v in zip(names, values, strict=True)]
        (tmp_path / f"{part}.txt").write_text("\n".join(names if separate else lines))
        files["lists"].append(f"{part}.txt")
        if separate:
            np.save(tmp_path / f"{part}.npy", values)
            files["label_files"].append(f"{part}.npy")
    suffix = "npy" if separate else "txt"
    told = [
        f"{part}.{suffix} {verb}in {'alphabetical' if to_order is sorted else 'frequency'} order"
        for part, verb, to_order in zip(("test", "database"), ("are ", ""), orders, strict=True)
    ]
    with pytest.raises(UserError, match=rf"the columns of .*{told[0]}, but .*{told[1]}\."):
        load_nuswide(tmp_path, **files, order=order)


def test_a_list_that_is_too_small_to_tell_has_the_order_of_the_others(
    tmp_path: Path, expected: tuple
) -> None:
    names = [n.replace("\\", "/") for n in write_official_nuswide(tmp_path / "official", LABELS)]
    (tmp_path / "official" / "Flickr").rename(tmp_path / "images")
    columns = [CONCEPTS.index(concept) for concept in FREQUENT]
    lists = []
    for start in range(0, len(names), 10):
        lists.append(f"{start}.txt")
        lines = [
            f"{names[i]} {' '.join(map(str, LABELS[i, columns]))}\n"
            for i in range(start, min(start + 10, len(names)))
        ]
        (tmp_path / lists[-1]).write_text("".join(lines))
    assert load_nuswide(tmp_path, lists=lists).checksum == expected[0]


def test_an_order_that_is_not_used_is_told(
    tmp_path: Path, expected: tuple, caplog: pytest.LogCaptureFixture
) -> None:
    lists = write_named_columns(tmp_path, sorted(FREQUENT), sorted(FREQUENT))
    assert load_nuswide(tmp_path, lists=lists, order="frequency").checksum == expected[0]
    assert caplog.messages == [
        "nuswide: dataset.order=frequency is not used: the lists name the concepts"
    ]


@pytest.mark.parametrize(
    "change", [lambda n: "see" if n == "sky" else n, lambda n: n if n != "sky" else "water"]
)
def test_columns_of_other_names_are_refused(change: Callable, tmp_path: Path) -> None:
    lists = write_named_columns(tmp_path, list(FREQUENT), list(FREQUENT))
    header, _, rows = (tmp_path / "test.csv").read_text().partition("\n")
    (tmp_path / "test.csv").write_text(f"{','.join(map(change, header.split(',')))}\n{rows}")
    with pytest.raises(
        UserError, match="test.csv: column '(see|water)' is not one of the concepts"
    ):
        load_nuswide(tmp_path, lists=lists)


def test_an_image_that_is_listed_twice_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_official_nuswide(tmp_path, LABELS)
    for path in [tmp_path / "ImageList/Imagelist.txt", *tmp_path.glob("Groundtruth/*/*.txt")]:
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines, lines[3]]))
    image_set = load_nuswide(tmp_path, max_invalid_fraction=0.1)
    assert "left out: 1 repeated" in caplog.text
    assert image_set.is_test.sum() == len([i for i in range(0, 40, 3) if LABELS[i].any()])


def test_missing_images_have_a_hint(tmp_path: Path) -> None:
    write_official_nuswide(tmp_path, LABELS)
    for path in list((tmp_path / "Flickr").rglob("*.jpg")):
        path.rename(path.with_suffix(".png"))
    with pytest.raises(
        UserError, match=r"missing: .*\.jpg\. \w+/\w+.png is there, with another suf"
    ):
        load_nuswide(tmp_path)


def test_mat_files_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_separate_labels(tmp_path, "mat")
    values = np.zeros((14, 21))
    scipy.io.savemat(tmp_path / "test.mat", {"a": values, "b": values})
    with pytest.raises(UserError, match=r"holds 2 matrices .* \(a 14 x 21, b 14 x 21\)"):
        load_nuswide(tmp_path, **files)
    (tmp_path / "test.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    with pytest.raises(UserError, match=r"test.mat is of MATLAB 7.3"):
        load_nuswide(tmp_path, **files)
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(UserError, match=r"test.mat: reading .mat needs scipy"):
        load_nuswide(tmp_path, **files)


def test_lists_that_spell_images_differently_are_joined(
    tmp_path: Path, expected: tuple, caplog: pytest.LogCaptureFixture
) -> None:
    names = [n.replace("\\", "/") for n in write_official_nuswide(tmp_path / "official", LABELS)]
    (tmp_path / "official" / "Flickr").rename(tmp_path / "images")
    for list_name, rows, change in (
        ("test.txt", range(0, 40, 3), str),
        ("database.txt", range(40), lambda name: f"x/{name.upper()}" if "9" in name else name),
    ):
        lines = [f"{change(names[i])} {' '.join(map(str, LABELS[i]))}\n" for i in rows]
        (tmp_path / list_name).write_text("".join(lines))
    image_set = load_nuswide(tmp_path, lists=["test.txt", "database.txt"])
    assert image_set.is_test.tolist() == expected[1]
    assert len(image_set) == len(expected[1])
    assert "database.txt: " in caplog.text
    assert "names match in spite of letter case" in caplog.text
