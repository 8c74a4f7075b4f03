"""Names of image files: their suffixes, their spellings, and a printable form for logs."""

import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from urllib.parse import unquote

# Folders and files that systems and programs leave among images.
SYSTEM_FOLDERS = {"@eadir", "__macosx", "$recycle.bin", "system volume information", "lost+found"}
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
# Formats whose suffixes Pillow registers although it writes them only, needs another program to
# read them, or finds no pixels in them.
NOT_IMAGES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"}
MAX_SHOWN_NAMES = 4  # in a message


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of the image formats that can be read, in lower case."""
    from PIL import Image

    formats = Image.registered_extensions()
    return frozenset(suffix for suffix, name in formats.items() if name not in NOT_IMAGES)


def has_image_suffix(name: str) -> bool:
    """Whether a file name ends like that of an image.

    >>> has_image_suffix("0.JPG"), has_image_suffix("report.pdf"), has_image_suffix("0")
    (True, False, False)
    """
    return os.path.splitext(name)[1].lower() in image_suffixes()


def drop_image_suffix(name: str) -> str:
    """The name without the suffix of an image, if it has one."""
    return os.path.splitext(name)[0] if has_image_suffix(name) else name


def is_system_entry(name: str) -> bool:
    """Whether a file or folder is hidden, or left by a system or program."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS | SYSTEM_FILES


def use_forward_slashes(name: str) -> str:
    r"""Replace the backslashes of Windows paths.

    >>> use_forward_slashes(r"images\cat\0.jpg")
    'images/cat/0.jpg'
    """
    return name.replace("\\", "/")


def join_first(names: Sequence[str]) -> str:
    """The first few names, printable, for a message.

    >>> join_first(["a", "b", "c", "d", "e"])
    'a, b, c, d, …'
    """
    text = ", ".join(names[:MAX_SHOWN_NAMES]) + ", …" * (len(names) > MAX_SHOWN_NAMES)
    return escape_undecodable(text)


def escape_undecodable(text: str) -> str:
    r"""Escape the bytes of a file name that are not valid UTF-8, so that any stream can print it.

    >>> print(escape_undecodable(b"caf\xe9.jpg".decode("utf-8", "surrogateescape")))
    caf\udce9.jpg
    """
    return text.encode(errors="backslashreplace").decode()


def is_undecodable(text: str) -> bool:
    """Whether it holds bytes that are not valid UTF-8, as surrogates."""
    return not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text)


def repair_encoding(text: str) -> str:
    r"""Read Windows-1252 and UTF-8 that were taken for each other.

    >>> repair_encoding(b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))
    'café.jpg'
    >>> repair_encoding("cafÃ©.jpg")
    'café.jpg'
    """
    if text.isascii():
        return text
    if is_undecodable(text):
        return "".join(map(_decode_windows, text))
    try:
        return text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return text


def _decode_windows(character: str) -> str:
    """A byte that is not valid UTF-8, kept as a surrogate, as a letter of Windows-1252."""
    if not "\udc80" <= character <= "\udcff":
        return character
    return bytes([ord(character) - 0xDC00]).decode("cp1252", "replace")


def _normalize_separators(name: str) -> str:
    """Forward slashes, without the drive, `.`, `..` and empty folders."""
    path = posixpath.normpath(use_forward_slashes(name))
    return re.sub("^[A-Za-z]:", "", path).lstrip("/")


def _strip_parts(name: str) -> str:
    return "/".join(part.strip(" \t\r\n\f\v\xa0\u200b\ufeff\"'") for part in name.split("/"))


# In what the spellings of a name may differ, and a function that removes the difference.
DIFFERENCES: dict[str, Callable[[str], str]] = {
    "separators": _normalize_separators,
    "percent-encoding": unquote,
    "surrounding blanks": _strip_parts,
    "encoding": repair_encoding,
    "Unicode form": lambda name: unicodedata.normalize("NFC", name),
    "letter case": str.casefold,
}


def fold_name(name: str, *, keep: str | None = None) -> str:
    r"""The spelling that all spellings of a name have in common.

    Args:
        name: of a file, with its folders.
        keep: a key of `DIFFERENCES` that is left as it is.

    >>> fold_name("C:\\photos\\Cafe\u0301 .JPG") == fold_name("photos/CAF\u00c9 .jpg")
    True
    """
    for difference, remove in DIFFERENCES.items():
        if difference != keep:
            name = remove(name)
    return name
