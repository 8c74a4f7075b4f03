"""Which values of an image with more than 8 bits become the grey levels 0 to 255."""

import logging
from math import isfinite
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deephash.core.errors import UserError

LEVELS, VALUES = 2**8, 2**16
MIN_USED_VALUES = VALUES // 4  # of 16 bits; fewer leave at most 64 levels
MAX_OUTLIERS = 0.001  # of the pixels, at either end, such as dead ones; one in small images
MIN_PIXELS = 64  # that an image needs to be judged by some of them
MAX_OTHER_FILES = 0.05  # of the files, at either end
MAX_SAMPLE = 2**20  # pixels of a file that its range is taken from

# "full": the values 0 to 65,535 of 16 bits; "file": from each file's lowest value to its highest.
PixelRange = Literal["full", "file"] | tuple[float, float]
PixelRangeSetting = Literal["full", "file"] | list[float]

logger = logging.getLogger(__name__)


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


def find_used_range(values: npt.NDArray[Any]) -> tuple[Any, Any]:
    """Lowest and highest value of an image, without the outermost thousandth of the pixels.

    Of 64 to 999 pixels the outermost one is left out, of fewer none.

    Args:
        values: finite; an array of three dimensions has colours in the last one.

    >>> find_used_range(np.array([0] + 500 * [7] + 500 * [9] + [65535]))
    (7, 9)
    """
    sample = _sample_pixels(values)
    one_pixel = values.shape[2] if values.ndim == 3 else 1
    outliers = int(MAX_OUTLIERS * len(sample))
    if len(sample) >= MIN_PIXELS * one_pixel:
        outliers = max(outliers, one_pixel)
    ordered = np.partition(sample, (outliers, len(sample) - 1 - outliers))
    return ordered[outliers].item(), ordered[len(sample) - 1 - outliers].item()


def uses_small_range_inside(
    values: npt.NDArray[Any], lowest: float, highest: float, min_used: float
) -> bool:
    """Whether the values between two others, such as those of a border or a mark, use little.

    Args:
        values: of the image.
        lowest: value that is left out, with all that are lower.
        highest: value that is left out, with all that are higher.
        min_used: the range that the others should use; not where they are equal, as in a mask,
            or few.

    >>> uses_small_range_inside(np.array(50 * [0, 65535] + 50 * [7, 8]), 0, 65535, 2**14)
    True
    """
    sample = _sample_pixels(values)
    inside = sample[(sample > lowest) & (sample < highest)]
    return len(inside) >= MIN_PIXELS and 0 < inside.max().item() - inside.min().item() < min_used


def has_outliers(values: npt.NDArray[Any]) -> bool:
    """Whether few values take three quarters of the levels of an image, with `pixel_range=file`.

    These are the values of the outermost thousandth of the pixels, or the lowest and the highest
    of the other values, such as those of a border or a mark.

    Args:
        values: integers, or floats of which some are finite.

    >>> has_outliers(np.array(1000 * [7] + 1000 * [9] + [65535]))
    True
    >>> has_outliers(np.array(50 * [65535] + 1000 * [7, 8, 9]))
    True
    """
    low, high = _finite_range(values)
    if np.issubdtype(values.dtype, np.floating):
        values = values[np.isfinite(values)]
    min_used = (high - low) / 4
    lowest, highest = find_used_range(values)
    return highest - lowest < min_used or uses_small_range_inside(values, lowest, highest, min_used)


def check_used_ranges(
    lows: npt.NDArray[Any], highs: npt.NDArray[Any], outliers: npt.NDArray[np.bool_]
) -> None:
    """Refuse 16-bit images of `pixel_range=full` that use less than a quarter of their range.

    Some files may differ from the others. Where most files do so each for itself, but together
    they do not, a log line says it.

    Args:
        lows: lowest value of each image, see `find_used_range`.
        highs: highest value of each.
        outliers: whether each has outliers, so that `pixel_range=file` is of no use to it, or a
            border or a mark without which it would use less than a quarter.

    Raises:
        UserError: nearly all would be left with 64 grey levels or fewer.
    """
    lowest = int(np.quantile(lows, MAX_OTHER_FILES, method="lower"))
    highest = int(np.quantile(highs, 1 - MAX_OTHER_FILES, method="higher"))
    if not uses_small_range(lowest, highest):
        are_small = (highs > lows) & ((highs.astype(int) - lows < MIN_USED_VALUES) | outliers)
        if 2 * are_small.sum() >= len(lows):
            is_file_useful = outliers[are_small].mean() <= MAX_OTHER_FILES
            logger.warning(
                "%s of %s images of 16 bits use less than a quarter of the values, and keep less "
                "than a quarter of the grey levels%s",
                f"{are_small.sum():,}",
                f"{len(lows):,}",
                "; dataset.pixel_range=file uses all levels" * bool(is_file_useful),
            )
        return
    count = int(((lows >= lowest) & (highs <= highest)).sum())
    shown = f"the {count:,}" if count == len(lows) else f"{count:,} of the {len(lows):,}"
    levels = (highest >> 8) - (lowest >> 8) + 1
    container = 2 ** highest.bit_length()
    fitting = (
        (0, container - 1) if highest - lowest >= container // 4 else (lowest, highest)
    )  # as of 12 bits
    is_file_useful = outliers.mean() <= MAX_OTHER_FILES
    or_file = ", or file for the range of each file" * bool(is_file_useful)
    raise UserError(
        f"dataset.pixel_range=full: {shown} images of 16 bits use only the values "
        f"{lowest:,} to {highest:,} of 65,536, which leaves {levels} grey levels. Set "
        f"'dataset.pixel_range={format_range(*fitting)}'{or_file}; convert colour images to 8 "
        "bits."
    )


def warn_of_outliers(outliers: npt.NDArray[np.bool_]) -> None:
    """Warn of images of `pixel_range=file` with outliers, if there are more than a few.

    Args:
        outliers: whether each image has outliers.
    """
    if outliers.mean() > MAX_OTHER_FILES:
        logger.warning(
            "%s of %s images keep less than a quarter of the grey levels, because some pixels of "
            "each, such as dead ones or a border, lie far outside of the others; "
            "dataset.pixel_range=[LOWEST,HIGHEST] keeps all levels",
            f"{outliers.sum():,}",
            f"{len(outliers):,}",
        )


def format_range(*bounds: float) -> str:
    """A range as the command line takes it.

    >>> format_range(0, 4095.0)
    '[0,4095]'
    """
    return f"[{','.join(f'{bound:.12g}' for bound in bounds)}]"


def _sample_pixels(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values (n,) of some pixels of an image, with all colours of each."""
    pixels = values.reshape(-1, values.shape[2] if values.ndim == 3 else 1)
    return pixels[:: -(-values.size // MAX_SAMPLE)].reshape(-1)


def _finite_range(values: npt.NDArray[Any]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("it has no finite value")
    return finite.min().item(), finite.max().item()


def _levels(values: npt.NDArray[Any], low: float, width: float) -> npt.NDArray[np.uint8]:
    levels = (values.astype(np.float64) - low) * (LEVELS / width)
    return levels.clip(0, LEVELS - 1).astype(np.uint8)
