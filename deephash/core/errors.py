"""Mistakes a user can mend, told in one sentence instead of a stack trace."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what was asked for; its message names the value, the place and the fix."""

    def __str__(self) -> str:
        # A process that loads images hands its errors on with their trace, in which this is last.
        return super().__str__().rpartition(f"{__name__}.{type(self).__name__}: ")[2].strip()


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """`Did you mean 'x'?` with the nearest valid name, or the whole list where none is near."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"Did you mean '{near[0]}'?" if near else f"Valid: {', '.join(names)}."
