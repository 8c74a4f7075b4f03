"""Which known image a listed name means: the one place where names of lists and images meet."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from deephash.core.errors import UserError
from deephash.data.files.names import (
    DIFFERENCES,
    drop_image_suffix,
    escape_undecodable,
    fold_name,
    has_image_suffix,
    is_undecodable,
    use_forward_slashes,
)
from deephash.data.files.split_lists import ListedImage

logger = logging.getLogger(__name__)


class Match(NamedTuple):
    """The image that a name means.

    Attributes:
        row: of the image.
        differences: in what the spellings differ; empty if at most in leading folders.
    """

    row: int
    differences: tuple[str, ...]


class NameIndex:
    """Finds the image that a listed name means.

    The name is looked for as it is, then with more or fewer leading folders, but no different ones.
    If it is not found, letter case, Unicode form, encoding, surrounding blanks and quotation marks,
    separators, percent-encoding and a missing file suffix are disregarded. O(n) time and memory;
    what is compared loosely is prepared when a name is not found otherwise.

    Args:
        names: unique names of the images, in order, with forward slashes.
        by_suffix: whether leading folders may be missing.

    Example:
        >>> index = NameIndex(["cat/0.jpg", "dog/1.jpg"])
        >>> index.find(("/data/photos/dog/1.jpg",), "query.txt, line 1")
        Match(row=1, differences=())
        >>> index.find(("Dog/1",), "query.txt, line 2")
        Match(row=1, differences=('letter case', 'file suffix'))
        >>> index.find(("dog/2.jpg",), "query.txt, line 3") is None
        True
    """

    def __init__(self, names: Iterable[str], *, by_suffix: bool = True) -> None:
        self._names = list(names)
        self._by_suffix = by_suffix
        self._exact_index = _PathIndex(self._names, by_suffix)

    @cached_property
    def _fold_index(self) -> "_PathIndex":
        return _PathIndex([fold_name(name) for name in self._names], self._by_suffix)

    @cached_property
    def _stem_index(self) -> "_PathIndex":
        names = [drop_image_suffix(fold_name(name)) for name in self._names]
        return _PathIndex(names, self._by_suffix)

    def find(self, spellings: Sequence[str], place: str) -> Match | None:
        """Return the image that a name means, or None.

        Args:
            spellings: readings of the name, the most literal one first.
            place: file and line, for error messages.

        Raises:
            UserError: the name fits several images.
        """
        for name in spellings:
            row = self._choose(self._exact_index.find(name), name, place)
            if row is not None:
                return Match(row, ())
        for name in spellings:
            key = fold_name(name)
            row = self._choose(self._fold_index.find(key), name, place)
            if row is not None:
                return Match(row, _differences(name, self._names[row]))
            stem = drop_image_suffix(key)
            index = self._fold_index if has_image_suffix(key) else self._stem_index
            row = self._choose(index.find(stem), name, place)
            if row is not None:
                known = self._names[row]
                if index is self._stem_index:
                    known = drop_image_suffix(known)
                differences = _differences(drop_image_suffix(name), known)
                return Match(row, (*differences, "file suffix"))
        return None

    def _choose(self, rows: Sequence[int], name: str, place: str) -> int | None:
        if len(rows) > 1:
            first, second = (self._names[row] for row in rows)
            raise UserError(
                f"{place}: {name} may be {first} or {second}. Write one of these names in full."
            )
        return rows[0] if rows else None

    def find_images(self, images: Sequence[ListedImage]) -> list[int | None]:
        """Return the rows of the images that the lines of a list name, see `find_all`."""
        if not images:
            return []
        places = [image.place for image in images]
        return self.find_all(images[0].source, places, [image.spellings for image in images])

    def find_all(
        self, source: Path, places: Sequence[str], spellings: Sequence[Sequence[str]]
    ) -> list[int | None]:
        """Return the row of each name, or None; log how many names match in spite of what.

        Two spellings in one list are two images: a name that differs from another one of the list
        is not taken for the same image.

        Args:
            source: the list.
            places: file and line of each name.
            spellings: readings of each name, see `find`.

        Raises:
            UserError: a name fits several images.
        """
        matches = [
            self.find(readings, place) for place, readings in zip(places, spellings, strict=True)
        ]
        spellings_of_row: dict[int, set[str]] = {}
        for match, readings in zip(matches, spellings, strict=True):
            if match:
                name = readings[-1] if match.differences else ""
                spellings_of_row.setdefault(match.row, set()).add(name)
        rows: list[int | None] = []
        counts: Counter[str] = Counter()
        example = ""
        for match, readings in zip(matches, spellings, strict=True):
            if match and match.differences:
                if len(spellings_of_row[match.row]) > 1:
                    match = None
                else:
                    counts[" and ".join(match.differences)] += 1
                    example = example or f"{readings[-1]} is {self._names[match.row]}"
            rows.append(match.row if match else None)
        if counts:
            told = ", ".join(f"{what} ({count:,})" for what, count in counts.most_common())
            told = f"{source}: names match in spite of {told}; for example {example}"
            logger.warning("%s", escape_undecodable(told))
        return rows

    def explain_missing(self, text: str) -> str:
        """A sentence on why a name is not found, or an empty one.

        Args:
            text: the name, or the whole line.
        """
        if not self._names:
            return ""
        if "\ufffd" in text:
            return "Letters were lost when the list was saved: save it in UTF-8."
        if is_undecodable(text):
            return "The list is not in UTF-8: save it in UTF-8."
        key = fold_name(text)
        rows = self._exact_index.find(text) or self._fold_index.find(key)
        if rows:
            name = self._names[rows[0]]
            if name.count("/") != key.count("/"):
                return f"{name} is there, but the list names it with other leading folders."
            return f"{name} is there, but the list names it in another spelling too."
        for number, value in enumerate(re.split(r"[\s,;]+", text.strip()), 1):
            if {".", "/"} & {*value} and value != text and self._fold_index.find(fold_name(value)):
                return (
                    f"Value {number} of the line, {value}, is an image: the path must come first, "
                    "with blanks before what follows."
                )
        stem = drop_image_suffix(key)
        others = self._stem_index.find(stem)
        if others:
            return f"{self._names[others[0]]} is there, with another suffix."
        file_name = key.rpartition("/")[2]
        other_row = self._rows_by_file_name.get(file_name)
        if other_row is not None:
            return f"{self._names[other_row]} is there, in another folder."
        images = filter(has_image_suffix, self._names)
        return f"The names there are like {next(images, self._names[0])}."

    @cached_property
    def _rows_by_file_name(self) -> dict[str, int]:
        return {fold_name(n).rpartition("/")[2]: row for row, n in enumerate(self._names)}


class _PathIndex:
    """Rows of paths by the whole path and by its last parts."""

    def __init__(self, paths: Sequence[str], by_suffix: bool) -> None:
        self._by_suffix = by_suffix
        self._rows: dict[str, int] = {}
        self._second_rows: dict[str, int] = {}  # of paths that occur twice
        for row, path in enumerate(paths):
            if self._rows.setdefault(path, row) != row:
                self._second_rows.setdefault(path, row)

    @cached_property
    def _longer(self) -> tuple[dict[str, int], dict[str, int]]:
        """For each path without its first folders, a row and a second one."""
        first: dict[str, int] = {}
        second: dict[str, int] = {}
        for path, row in self._rows.items():
            for suffix in _suffixes(path)[1:]:
                if first.setdefault(suffix, row) != row:
                    second.setdefault(suffix, row)
        return first, second

    def find(self, path: str) -> list[int]:
        """The row of a path; two rows if it is ambiguous, none if it is unknown.

        The whole path comes first, then a longer one, then the longest of the shorter ones.
        """
        if path in self._rows or not self._by_suffix:
            return self._with_second(path) if path in self._rows else []
        first, second = self._longer
        if path in first:
            return [first[path], *([second[path]] if path in second else [])]
        shorter = next((s for s in _suffixes(path)[1:] if s in self._rows), None)
        return [] if shorter is None else self._with_second(shorter)

    def _with_second(self, path: str) -> list[int]:
        second = self._second_rows.get(path)
        return [self._rows[path], *([] if second is None else [second])]


def _suffixes(path: str) -> list[str]:
    """A path, then the same without its first folder, without its first two folders, and so on."""
    parts = path.split("/")
    return ["/".join(parts[i:]) for i in range(len(parts))]


def _differences(listed: str, known: str) -> tuple[str, ...]:
    """In what two spellings of a name differ, apart from leading folders and backslashes."""
    listed = use_forward_slashes(listed)
    if _is_end(listed, known):
        return ()
    for difference, remove in reversed(DIFFERENCES.items()):  # the frequent ones are the last
        if _is_end(remove(listed), remove(known)):
            return (difference,)
    return tuple(
        difference
        for difference in DIFFERENCES
        if not _is_end(fold_name(listed, keep=difference), fold_name(known, keep=difference))
    )


def _is_end(path: str, other: str) -> bool:
    """Whether one path is the end of the other, by whole folders."""
    longer, shorter = (path, other) if len(path) >= len(other) else (other, path)
    return longer == shorter or longer.endswith(f"/{shorter}")
