"""Plain-text lists of images: reading their lines and matching the names in them to ids.

Every list is read here: those of a given split, of an audit, of NUS-WIDE, and plain-text tables.
"""

from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from deephash.core.errors import UserError
from deephash.data.files.names import use_forward_slashes


class ListedImage(NamedTuple):
    r"""A line of a list: the name of an image, optionally followed by a 0 or 1 per class.

    The name may hold blanks.

    Attributes:
        source: the list.
        line: number of the line, from 1.
        text: the whole line.

    Example:
        >>> image = ListedImage(Path("query.txt"), 3, r"photos\my cat.jpg 0 1")
        >>> image.name, image.labels, image.place
        ('photos/my cat.jpg', [0, 1], 'query.txt, line 3')
    """

    source: Path
    line: int
    text: str

    @property
    def place(self) -> str:
        """File and line, for error messages."""
        return f"{self.source}, line {self.line}"

    @property
    def name(self) -> str:
        """The line without surrounding blanks and labels, with forward slashes."""
        return use_forward_slashes(self._columns[0])

    @property
    def labels(self) -> list[int]:
        """The 0s and 1s at the end of the line."""
        return [int(value) for value in self._columns[1:]]

    @property
    def _columns(self) -> list[str]:
        """The name, then the labels."""
        line = self.text.strip()
        if not line.endswith(("0", "1")):
            return [line]
        _, *others = line.split()
        label_count = len(list(takewhile(("0", "1").__contains__, reversed(others))))
        return line.rsplit(maxsplit=label_count)


class IdIndex:
    """Finds the image that a line of a list names.

    The name may have more leading folders than the id, or fewer, but no different ones. An id that
    ends like labels ("img 1") is found as well.

    Args:
        ids: unique ids of the images, in order.

    Example:
        >>> index = IdIndex(["cat/0.jpg", "dog/1.jpg"])
        >>> index.find_row(ListedImage(Path("query.txt"), 1, "/data/photos/dog/1.jpg 0 1"))
        1
        >>> index.find_row(ListedImage(Path("query.txt"), 2, "1.jpg"))
        1
        >>> index.find_row(ListedImage(Path("query.txt"), 3, "dog/2.jpg")) is None
        True
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._rows = {image_id: row for row, image_id in enumerate(ids)}
        self._ids_by_suffix: dict[str, list[str]] = {}
        for image_id in self._rows:
            for suffix in _suffixes(image_id):
                self._ids_by_suffix.setdefault(suffix, []).append(image_id)

    def find_row(self, image: ListedImage) -> int | None:
        """Return the row of the image that the line names, or None if there is none.

        Raises:
            UserError: the name fits several ids.
        """
        for name in (image.text, use_forward_slashes(image.text), image.name):
            if name in self._rows:
                return self._rows[name]
            longer_ids = self._ids_by_suffix.get(name, [])
            if len(longer_ids) > 1:
                raise UserError(
                    f"{image.place}: {name} may be {longer_ids[0]} or {longer_ids[1]}. Put its "
                    "folder before the name."
                )
            shorter_ids = [suffix for suffix in _suffixes(name) if suffix in self._rows]
            matches = longer_ids + shorter_ids
            if matches:
                return self._rows[matches[0]]
        return None


def read_list(source: Path) -> list[ListedImage]:
    """Read a list of images, one per line.

    Args:
        source: a text file; bytes that are not valid UTF-8 are kept, as file names may hold them.

    Raises:
        UserError: the file cannot be read or is not plain text.
    """
    return [ListedImage(source, number, line) for number, line in read_lines(source)]


def read_lines(source: Path) -> list[tuple[int, str]]:
    """Read the lines of a text file that are not blank, with their numbers from 1.

    Raises:
        UserError: the file cannot be read or is not plain text.
    """
    try:
        text = source.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{source} cannot be read: {error.strerror}.") from None
    check_is_text(source, text)
    # Not splitlines: a name may hold other characters that end a line, such as U+2028.
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def check_is_text(source: Path, text: str) -> None:
    """Refuse binary files and UTF-16.

    Raises:
        UserError: `text` holds a zero byte.
    """
    if "\0" in text:
        raise UserError(
            f"{source} is not a text file in UTF-8. Save it as plain text or CSV in UTF-8."
        )


def _suffixes(name: str) -> list[str]:
    """A path, then the same without its first folder, without its first two folders, and so on."""
    parts = name.split("/")
    return ["/".join(parts[i:]) for i in range(len(parts))]
