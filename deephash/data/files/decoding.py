"""Decoding of one image file: any format that Pillow reads, always RGB, always one size."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps

from deephash.data.files.pixel_range import (
    MIN_USED_VALUES,
    PixelRange,
    find_used_range,
    has_outliers,
    scale_to_8_bits,
    uses_small_range,
    uses_small_range_inside,
)

WHITE = (255, 255, 255)
MAX_PIXELS = 178_956_970  # Pillow's own limit
BITS_PER_SAMPLE, PLANAR, SAMPLE_FORMAT = 258, 284, 339  # tags of TIFF
# Files that Pillow warns about can still be used: very large images, odd EXIF data.
warnings.filterwarnings("ignore", module=r"PIL\.")

Pixels = npt.NDArray[np.uint8]


class BrokenImageError(Exception):
    """An image file that cannot be decoded; the message gives the reason."""


@dataclass(frozen=True)
class DecodedFile:
    """What an image file holds.

    Attributes:
        pixels: uint8 (size, size, 3).
        file_pixels: number of pixels in the file.
        value_range: lowest and highest value of a file of 16 bits that is decoded with
            `pixel_range="full"`, without outliers; None for others.
        has_outliers: whether `pixel_range="file"` would leave, or leaves, less than a quarter of
            the grey levels, see `pixel_range.has_outliers`; or `pixel_range="full"` leaves so few
            apart from a border or a mark.
    """

    pixels: Pixels
    file_pixels: int
    value_range: tuple[int, int] | None
    has_outliers: bool


def decode_image(
    path: Path | str,
    size: int,
    pixel_range: PixelRange = "full",
    max_pixels: int | None = None,
) -> Pixels:
    """Decode an image file, resize its shorter side to `size` and crop the centre square.

    The EXIF orientation is applied, transparent pixels become white, grey and CMYK become RGB, and
    of an animation the first frame is taken. The format is recognised by the content of the file,
    not by its name.

    Args:
        path: the image file.
        size: side of the result in pixels.
        pixel_range: which values of grey images of 16 or more bits become 0 to 255: `full`, those
            of 16 bits; `file`, those from the lowest to the highest value of the file; or a range.
            Of 16 bits per colour Pillow reads the upper 8: with `file` they are taken as they are
            if they use at least a quarter of the values, and with a range they are refused.
        max_pixels: the most pixels that the file may have; None for Pillow's limit of 179 million.
            A higher limit than Pillow's is set for the whole process.

    Returns:
        uint8 pixels (size, size, 3).

    Raises:
        BrokenImageError: the file is missing, unreadable, truncated, not an image, or does not fit
            `pixel_range` or `max_pixels`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "red.png")
        ...     Image.new("RGB", (40, 30), "red").save(path)
        ...     image = decode_image(path, size=16)
        >>> image.shape, image[0, 0].tolist()
        ((16, 16, 3), [255, 0, 0])
    """
    return decode_file(path, size, pixel_range, max_pixels).pixels


def decode_file(
    path: Path | str, size: int, pixel_range: PixelRange, max_pixels: int | None
) -> DecodedFile:
    """Decode an image file, and say what it holds; see `decode_image`."""
    max_pixels = max_pixels or MAX_PIXELS
    pillow_limit = Image.MAX_IMAGE_PIXELS  # Pillow refuses twice as many
    if pillow_limit is not None and 2 * pillow_limit < max_pixels:
        Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2)
    try:
        with Image.open(path) as image:
            file_pixels = image.width * image.height
            if file_pixels > max_pixels:
                raise Image.DecompressionBombError
            # A JPEG decodes much faster at a fraction of its size; twice the final size is enough
            # for the resampling.
            image.draft("RGB", (2 * size, 2 * size))
            is_deep = _has_deep_colours(image)
            ImageOps.exif_transpose(image, in_place=True)
            shallow, value_range, outliers = _to_8_bits(image, is_deep, pixel_range)
            square = ImageOps.fit(_convert_to_rgb(shallow), (size, size), Image.Resampling.BILINEAR)
    except BrokenImageError:
        raise
    except Image.DecompressionBombError:
        reason = f"it has more pixels than dataset.max_pixels={max_pixels}"
        raise BrokenImageError(reason) from None
    except Exception as error:  # on broken files Pillow's decoders raise exceptions of any kind
        raise BrokenImageError(_describe(error)) from None
    return DecodedFile(np.asarray(square), file_pixels, value_range, outliers)


def _has_deep_colours(image: ImageFile.ImageFile) -> bool:
    """Whether the file has 16 bits per colour, of which Pillow reads the upper 8."""
    if image.mode.startswith(("I", "F")):
        return False
    tags = getattr(image, "tag_v2", {})
    is_deep = 16 in tags.get(BITS_PER_SAMPLE, ())
    if is_deep and tags.get(PLANAR) == 2:
        raise BrokenImageError("Pillow cannot read 16 bits per colour in planes of their own")
    # The names of Pillow's unpackers of 16 bits end so; of 5, 6 and 5 bits they end in ";16".
    return is_deep or any(re.search(r";16[BLN]'", repr(tile)) for tile in image.tile)


def _to_8_bits(
    image: Image.Image, is_deep: bool, pixel_range: PixelRange
) -> tuple[Image.Image, tuple[int, int] | None, bool]:
    """The image with 8 bits per colour, and `value_range` and `has_outliers` of `DecodedFile`.

    Raises:
        BrokenImageError: the lower 8 bits of colours are needed, which Pillow does not read.
    """
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if values.dtype == np.int32 and getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT) == (1,):
            values = values.view(np.uint32)  # Pillow has no mode for them
        levels = scale_to_8_bits(values, pixel_range)
        grey = Image.fromarray(levels)
        if pixel_range == "file":
            return grey, None, has_outliers(values)
        if pixel_range != "full":
            return grey, None, False
        lowest, highest = find_used_range(values)
        is_small = lowest == highest or uses_small_range(lowest, highest)
        outliers = (
            has_outliers(values)
            if is_small
            else uses_small_range_inside(values, lowest, highest, MIN_USED_VALUES)
        )
        return grey, (lowest, highest), outliers
    if not is_deep:
        return image, None, False
    lowest, highest = find_used_range(np.asarray(image.convert("RGB")))  # without transparency
    value_range = lowest << 8, highest << 8 | 255
    if pixel_range == "full":
        return image, value_range, False
    if pixel_range == "file" and not uses_small_range(*value_range):
        return image, None, False
    raise BrokenImageError(
        "of its 16 bits per colour Pillow reads only the upper 8, too few for "
        "dataset.pixel_range; convert it to 8 bits"
    )


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        foreground = image.convert("RGBA")
        background = Image.new("RGBA", foreground.size, WHITE)
        return Image.alpha_composite(background, foreground).convert("RGB")
    return image.convert("RGB")


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image in a known format"
    return str(error) or type(error).__name__
