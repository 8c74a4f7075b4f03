"""Names of image files: one spelling in lists, and a printable form for logs."""


def use_forward_slashes(name: str) -> str:
    r"""Replace the backslashes of Windows paths.

    >>> use_forward_slashes(r"images\cat\0.jpg")
    'images/cat/0.jpg'
    """
    return name.replace("\\", "/")


def escape_undecodable(text: str) -> str:
    r"""Escape the bytes of a file name that are not valid UTF-8, so that any stream can print it.

    >>> print(escape_undecodable(b"caf\xe9.jpg".decode("utf-8", "surrogateescape")))
    caf\udce9.jpg
    """
    return text.encode(errors="backslashreplace").decode()
