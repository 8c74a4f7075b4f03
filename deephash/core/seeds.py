"""Independent seeds from the run's one."""

import hashlib


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A 31-bit seed for one purpose: the same everywhere, unrelated to those of other purposes."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1
