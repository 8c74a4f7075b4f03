"""The error for mistakes that the user can fix."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """An invalid argument, setting or file; the message names it, its value, the place and the fix.

    The command line prints the message alone, without a traceback.
    """

    def __str__(self) -> str:
        # A data-loader worker's error is re-raised with the worker's whole traceback as its
        # message; the traceback's last line holds the original message.
        prefix = f"{type(self).__module__}.{type(self).__qualname__}: "
        return super().__str__().rpartition(prefix)[2].strip()


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Suggest the closest valid name, or list all valid names if none is close.

    Example:
        >>> did_you_mean("bitz", ["bits", "seed"])
        "Did you mean 'bits'?"
        >>> did_you_mean("colour", ["bits", "seed"])
        'Valid: bits, seed.'
    """
    names = sorted(valid)
    if not names:
        return "There are none."
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"Did you mean '{matches[0]}'?" if matches else f"Valid: {', '.join(names)}."
