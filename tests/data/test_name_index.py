"""Names of lists find the images that they mean, in every spelling that leaves no doubt."""

import re
from pathlib import Path

import pytest

from deephash.core.errors import UserError
from deephash.data.files.name_index import NameIndex
from deephash.data.files.split_lists import ListedImage

SOURCE = Path("query.txt")
NFC, NFD = "caf\u00e9/0.jpg", "cafe\u0301/0.jpg"
UNDECODABLE = b"caf\xe9/0.jpg".decode("utf-8", "surrogateescape")

# A known name, a line of a list that means it, and in what they differ.
SPELLINGS = {
    "the same": ("cat/0.jpg", "cat/0.jpg", ()),
    "labels": ("cat/0.jpg", "cat/0.jpg 0 1", ()),
    "more folders": ("cat/0.jpg", "/data/photos/cat/0.jpg", ()),
    "fewer folders": ("photos/cat/0.jpg", "cat/0.jpg", ()),
    "blanks around the line": ("cat/0.jpg", "  cat/0.jpg \t", ()),
    "backslashes": ("cat/0.jpg", r"cat\0.jpg 1", ()),
    "Windows path": ("cat/0.jpg", r"C:\photos\cat\0.jpg", ()),
    "upper case": ("cat/0.jpg", "CAT/0.JPG", ("letter case",)),
    "NFC for NFD": (NFD, NFC, ("Unicode form",)),
    "NFD for NFC": (NFC, NFD, ("Unicode form",)),
    "Windows-1252": (NFC, UNDECODABLE, ("encoding",)),
    "Windows-1252 file names": (UNDECODABLE, NFC, ("encoding",)),
    "Windows-1252 for NFD": (NFD, UNDECODABLE, ("encoding", "Unicode form")),
    "no suffix": ("cat/0.jpg", "cat/0", ("file suffix",)),
    "no suffix, with labels": ("cat/x.jpg", "cat/x 0 1", ("file suffix",)),
    "a blank in the known name": ("cat/0.jpg ", "cat/0.jpg", ("surrounding blanks",)),
    "a blank in a folder": ("cat /0.jpg", "cat/0.jpg", ("surrounding blanks",)),
    "a known backslash": ("cat\\0.jpg", "cat/0.jpg", ("separators",)),
    "upper case and folders": ("cat/0.jpg", r"D:\Photos\Cat\0.jpg", ("letter case",)),
    "upper case without suffix": ("cat/a.jpg", "CAT/A", ("letter case", "file suffix")),
    # Not in the list of what was asked for:
    "UTF-8 read as Windows-1252": (NFC, "cafÃ©/0.jpg", ("encoding",)),
    "quotation marks": ("cat/0.jpg", '"cat/0.jpg"', ("surrounding blanks",)),
    "a non-breaking blank": ("cat/0.jpg", "cat/0.jpg\u200b", ("surrounding blanks",)),
    "a needless folder": ("cat/0.jpg", "./cat//0.jpg", ("separators",)),
    "a folder and back": ("cat/0.jpg", "dog/../cat/0.jpg", ()),
    "percent-encoding": ("my cat/0.jpg", "my%20cat/0.jpg", ("percent-encoding",)),
    "suffix twice": ("cat/0.jpg", "cat/0.jpg.jpg", ("file suffix",)),
    "ids without suffix": ("toy/3", "toy/3.png", ("file suffix",)),
    "capital sharp s": ("stra\u00dfe.jpg", "STRASSE.jpg", ("letter case",)),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPELLINGS)
def test_a_name_is_found_in_every_spelling(kind: str) -> None:
    known, line, differences = SPELLINGS[kind]
    index = NameIndex(["dog/9.jpg", known, "eel/8.png"])
    match = index.find(ListedImage(SOURCE, 1, line).spellings, "query.txt, line 1")
    assert match == (1, differences)


# Known names and a line that means none of them.
UNKNOWN = {
    "another folder": (["cat/0.jpg"], "dog/0.jpg"),
    "another suffix": (["cat/0.jpg"], "cat/0.png"),
    "the end of a folder's name": (["photos/dog/1.jpg"], "og/1.jpg"),
    "a number more": (["cat/10.jpg"], "cat/1.jpg"),
    "another letter": (["cafe/0.jpg"], "caf\u00e9/0.jpg"),
    "a blank inside": (["my cat.jpg"], "mycat.jpg"),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_another_name_is_not_found(kind: str) -> None:
    known, line = UNKNOWN[kind]
    assert NameIndex(known).find(ListedImage(SOURCE, 1, line).spellings, "") is None


@pytest.mark.parametrize(
    ("known", "line", "row"),
    [
        (["img", "img 1"], "img 1", 1),
        (["img", "img 1"], "img 0", 0),
        (["a\\b.jpg", "a/b.jpg"], "a\\b.jpg", 0),
        (["a\\b.jpg", "a/b.jpg"], "a/b.jpg", 1),
        (["0.jpg", "0.JPG"], "0.JPG", 1),
        (["cat/0.jpg", "0.jpg"], "0.jpg", 1),
        (["cat/0.JPG", "0.jpg"], "0.JPG", 0),
        (["cat/0.jpg", "0.jpg"], "x/cat/0.jpg", 0),
        (["0.jpg", "0"], "0", 1),
        (["a .jpg", "a.jpg"], "a .jpg", 0),
        ([NFC, NFD], NFD, 1),
    ],
)
def test_the_most_literal_match_comes_first(known: list[str], line: str, row: int) -> None:
    match = NameIndex(known).find(ListedImage(SOURCE, 1, line).spellings, "")
    assert match == (row, ())


@pytest.mark.parametrize(
    ("known", "line"),
    [
        (["cat/0.jpg", "dog/0.jpg"], "0.jpg"),
        (["cat/0.jpg", "dog/0.jpg"], "0.JPG"),
        (["0.jpg", "0.png"], "0"),
        (["a.jpg", "A.jpg"], "a.JPG"),
        ([NFC, NFD], UNDECODABLE),
        (["a.jpg", "a.jpg "], '"a.jpg"'),
        (["x.jpg", "X.jpg"], "photos\\x.JPG"),
    ],
)
def test_an_ambiguous_name_is_refused_with_its_place(known: list[str], line: str) -> None:
    image = ListedImage(SOURCE, 7, line)
    with pytest.raises(UserError) as error:
        NameIndex(known).find_images([image])
    assert str(error.value) == (
        f"query.txt, line 7: {line} may be {known[0]} or {known[1]}. Write one of these "
        "names in full."
    )


def find(known: list[str], lines: list[str]) -> list[int | None]:
    return NameIndex(known).find_images(
        [ListedImage(SOURCE, i, line) for i, line in enumerate(lines, 1)]
    )


def test_what_differs_is_counted_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    known = [f"cat/{i}.jpg" for i in range(5)] + [NFD]
    lines = ["cat/0.jpg", "CAT/1.JPG 0", "Cat/2.jpg", r"x\cat\3.jpg", NFC]
    assert find(known, lines) == [0, 1, 2, 3, 5]
    assert caplog.messages == [
        "query.txt: names match in spite of letter case (2), Unicode form (1); for example "
        "CAT/1.JPG is cat/1.jpg"
    ]
    caplog.clear()
    assert find(known, [*lines[:1], "none.jpg"]) == [0, None]
    assert not caplog.messages


def test_two_spellings_in_one_list_are_two_images(caplog: pytest.LogCaptureFixture) -> None:
    assert find(["a.jpg", "b.jpg"], ["a.jpg", "A.jpg", "a.jpg"]) == [0, None, 0]
    assert find(["a.jpg", "b.jpg"], ["A.jpg", "A.JPG"]) == [None, None]
    assert not caplog.messages
    assert find(["a.jpg", "b.jpg"], ["A.jpg", "A.jpg"]) == [0, 0]  # a line twice


HINTS = {
    "another folder": (["cat/0.jpg"], "dog/0.jpg", "cat/0.jpg is there, in another folder."),
    "another suffix": (["cat/0.jpg"], "cat/0.png", "cat/0.jpg is there, with another suffix."),
    "lost letters": (["caf\u00e9.jpg"], "caf\ufffd.jpg", "Letters were lost .* UTF-8"),
    "commas": (["cat/0.jpg"], "cat/0.jpg,1,0", "Value 1 of the line, cat/0.jpg, is an image"),
    "a number first": (["cat/0.jpg"], "17 cat/0.jpg", "Value 2 of the line.*must come first"),
    "labels first": (["cat/0.jpg"], "0 1 CAT/0.jpg", "Value 3 of the line"),
    "a flag after it": (["cat/0.jpg"], "cat/0.jpg train", "Value 1 of the line"),
    "nothing alike": (["a.sh", "cat/0.jpg"], "9", r"The names there are like cat/0.jpg\."),
}


@pytest.mark.parametrize("kind", HINTS)
def test_a_hint_names_the_likely_cause(kind: str) -> None:
    known, line, hint = HINTS[kind]
    assert re.search(hint, NameIndex(known).explain_missing(line))
