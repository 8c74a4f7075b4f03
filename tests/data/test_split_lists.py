"""Lines of lists: the name and its labels."""

from pathlib import Path

import pytest

from deephash.core.errors import UserError
from deephash.data.files.split_lists import ListedImage, read_list

SOURCE = Path("list.txt")


@pytest.mark.parametrize(
    ("text", "name", "labels"),
    [
        ("a.jpg", "a.jpg", []),
        ("a.jpg 0 1 0", "a.jpg", [0, 1, 0]),
        ("a.jpg\t1\t0 ", "a.jpg", [1, 0]),
        ("  my cat.jpg  1", "my cat.jpg", [1]),
        ("a 1 b.jpg 0 1", "a 1 b.jpg", [0, 1]),
        ("zoo\\1_1.jpg 1", "zoo/1_1.jpg", [1]),
        ("1 0", "1", [0]),
        ("a.jpg 2", "a.jpg 2", []),
        ("a.jpg 01", "a.jpg 01", []),
    ],
)
def test_a_line_is_a_name_and_labels(text: str, name: str, labels: list[int]) -> None:
    image = ListedImage(SOURCE, 1, text)
    assert (image.name, image.labels) == (name, labels)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("byte_order_mark", [b"", b"\xef\xbb\xbf"])
def test_lines_of_all_systems_are_read(
    newline: str, byte_order_mark: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "list.txt"
    lines = ["caf\udce9.jpg 1", "", " \t", "a\u2028b.jpg", ""]
    path.write_bytes(byte_order_mark + newline.join(lines).encode("utf-8", "surrogateescape"))
    images = read_list(path)
    assert [image.text for image in images] == [lines[0], lines[3]]
    assert [image.place for image in images] == [f"{path}, line 1", f"{path}, line 4"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read: No such file"), ("a.jpg\n".encode("utf-16"), "not a text file")],
)
def test_a_list_that_is_not_text_is_refused(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"list.txt .*{message}"):
        read_list(path)
