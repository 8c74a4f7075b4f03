"""The check of what a user's backbone or method returns."""

from typing import Any

from torch import Tensor

from deephash.core.errors import UserError


def check_shape(place: str, value: Any, shape: tuple[int, ...], meaning: str) -> None:
    """Check that a value is a tensor of this shape.

    Args:
        place: the function that returned it, for the error: `backbone: Net.forward`.
        value: to check.
        shape: wanted.
        meaning: of the shape's numbers, for the error: `(images, bits)`.

    Raises:
        UserError: the value is something else.
    """
    if not isinstance(value, Tensor) or value.shape != shape:
        raise UserError(
            f"{place} returns {describe(value)}; it must return a tensor of shape {shape}, "
            f"{meaning}."
        )


def describe(value: Any) -> str:
    """A value in words: the shape of a tensor, the type of anything else.

    >>> import torch
    >>> describe(torch.zeros(2, 3)), describe((1, 2)), describe(None)
    ('a tensor of shape (2, 3)', 'a tuple', 'None')
    """
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"
