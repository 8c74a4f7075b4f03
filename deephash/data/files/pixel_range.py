"""Which values of an image with more than 8 bits become the grey levels 0 to 255."""

from math import isfinite
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deephash.core.errors import UserError

LEVELS, VALUES = 2**8, 2**16
MIN_USED_VALUES = VALUES // 4  # of 16 bits; fewer leave at most 64 levels

# "full": the values 0 to 65,535 of 16 bits; "file": from each file's lowest value to its highest.
PixelRange = Literal["full", "file"] | tuple[float, float]
PixelRangeSetting = Literal["full", "file"] | list[float]


def parse_pixel_range(setting: PixelRangeSetting) -> PixelRange:
    """Check the setting `dataset.pixel_range`.

    Raises:
        UserError: it is neither `full` nor `file` nor two finite numbers in ascending order.

    Example:
        >>> parse_pixel_range([0, 4095])
        (0, 4095)
    """
    if setting == "full":
        return "full"
    if setting == "file":
        return "file"
    if not isinstance(setting, str) and len(setting) == 2:
        low, high = setting
        if isfinite(low) and isfinite(high) and low < high:
            return low, high
    shown = setting if isinstance(setting, str) else format_range(*setting)
    raise UserError(
        f"dataset.pixel_range={shown}: give full, file, or the lowest and the highest value, as "
        "in [0,4095]."
    )


def scale_to_8_bits(values: npt.NDArray[Any], pixel_range: PixelRange) -> npt.NDArray[np.uint8]:
    """Divide a range of pixel values into 256 levels of equal width.

    Values outside of the range become 0 or 255, and so do infinite ones; NaN becomes 0.

    Args:
        values: integers or floats, of any shape.
        pixel_range: the range. `full` takes integers from 0 to 65,535 only.

    Raises:
        ValueError: the values are not those of 16 bits, though the range is `full`, or the range is
            `file` and no value is finite.

    Example:
        >>> scale_to_8_bits(np.array([0, 15, 16, 4095, 5000]), (0, 4095)).tolist()
        [0, 0, 1, 255, 255]
    """
    is_integer = np.issubdtype(values.dtype, np.integer)
    if pixel_range == "full":
        if not is_integer or values.min() < 0 or values.max() >= VALUES:
            raise ValueError(
                "dataset.pixel_range is needed for pixels that are not of 8 or 16 bits"
            )
        return (values >> 8).astype(np.uint8)
    low, high = _finite_range(values) if pixel_range == "file" else pixel_range
    if not is_integer:
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    width = (high - low + is_integer) or 1.0
    if (
        values.dtype.itemsize == 2 and values.dtype.kind == "u"
    ):  # by a table, which needs less memory
        return _levels(np.arange(VALUES), low, width)[values]
    return _levels(values, low, width)


def uses_small_range(lowest: int, highest: int) -> bool:
    """Whether values of 16 bits use less than a quarter of the range; not where all are equal."""
    return 0 < highest - lowest < MIN_USED_VALUES


def check_used_range(lowest: int, highest: int, count: int) -> None:
    """Refuse 16-bit images of `pixel_range=full` that use less than a quarter of their range.

    Args:
        lowest: value in all of them.
        highest: value in all of them.
        count: of the images.

    Raises:
        UserError: they would be left with 64 grey levels or fewer.
    """
    if not uses_small_range(lowest, highest):
        return
    levels = (highest >> 8) - (lowest >> 8) + 1
    container = 2 ** highest.bit_length()
    fitting = (
        (0, container - 1) if highest - lowest >= container // 4 else (lowest, highest)
    )  # as of 12 bits
    raise UserError(
        f"dataset.pixel_range=full: the {count:,} images of 16 bits use only the values "
        f"{lowest:,} to {highest:,} of 65,536, which leaves {levels} grey levels. Set "
        f"'dataset.pixel_range={format_range(*fitting)}', or file for the range of each file; "
        "convert colour images to 8 bits."
    )


def format_range(*bounds: float) -> str:
    """A range as the command line takes it.

    >>> format_range(0, 4095.0)
    '[0,4095]'
    """
    return f"[{','.join(f'{bound:.12g}' for bound in bounds)}]"


def _finite_range(values: npt.NDArray[Any]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("it has no finite value")
    return finite.min().item(), finite.max().item()


def _levels(values: npt.NDArray[Any], low: float, width: float) -> npt.NDArray[np.uint8]:
    levels = (values.astype(np.float64) - low) * (LEVELS / width)
    return levels.clip(0, LEVELS - 1).astype(np.uint8)
