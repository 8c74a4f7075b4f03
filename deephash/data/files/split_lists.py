"""Plain-text lists of images: reading their lines.

Every list is read here: those of a given split, of an audit, of NUS-WIDE, and plain-text tables.
"""

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
    def spellings(self) -> tuple[str, ...]:
        """Readings of the name: the whole line, which may end like labels, then `name`."""
        return tuple(dict.fromkeys((self.text, use_forward_slashes(self.text), self.name)))

    @property
    def _columns(self) -> list[str]:
        """The name, then the labels."""
        line = self.text.strip()
        if not line.endswith(("0", "1")):
            return [line]
        _, *others = line.split()
        label_count = len(list(takewhile(("0", "1").__contains__, reversed(others))))
        return line.rsplit(maxsplit=label_count)


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
