"""Independent seeds derived from the one seed of a run."""

import hashlib


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A 31-bit seed for one purpose.

    It is the same on every machine, and unrelated to the seeds of other purposes.

    Args:
        seed: the seed of the run.
        purpose: names and numbers that identify what the seed is for.

    Example:
        >>> derived_seed(0, "split") == derived_seed(0, "split")
        True
        >>> derived_seed(0, "split") == derived_seed(0, "backbone")
        False
    """
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1
