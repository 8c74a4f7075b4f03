"""One image file to pixels: any format that Pillow reads, always RGB, always one size."""

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

WHITE = (255, 255, 255)
# What Pillow warns of is an image all the same: half of the pixels that it refuses, odd EXIF data.
warnings.filterwarnings("ignore", module=r"PIL\.")

Pixels = npt.NDArray[np.uint8]


class BrokenImageError(Exception):
    """A file that gives no image; the message says why."""


def decode_image(path: Path | str, size: int) -> Pixels:
    """The middle square of an image, `size` pixels a side: uint8 (size, size, 3).

    The shorter side is brought to `size` and the longer one cropped. The EXIF orientation is
    applied, transparency put on white, grey and CMYK turned to RGB, 16 bits cut to 8; of an
    animation it is the first frame. What the file is says its content, not its name.

    Raises:
        BrokenImageError: the file is missing, unreadable, truncated, no image, or has over 179
            million pixels.
    """
    try:
        with Image.open(path) as image:
            # Twice the size leaves the resampling enough, and a JPEG decodes to it much faster.
            image.draft("RGB", (2 * size, 2 * size))
            ImageOps.exif_transpose(image, in_place=True)
            square = ImageOps.fit(_rgb(image), (size, size), Image.Resampling.BILINEAR)
    except BrokenImageError:
        raise
    except Exception as error:  # Pillow's readers of broken files raise what they stumble on
        raise BrokenImageError(_reason(error)) from None
    return np.asarray(square)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # some formats' 16 bits are read into 32
        values = np.asarray(image)
        if values.min() >= 0 and values.max() < 2**16:
            return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BrokenImageError(f"its pixels are of mode {image.mode}, neither 8 nor 16 bits")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, WHITE), seen).convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.UnidentifiedImageError):
        return "no image in a known format"
    return str(error) or type(error).__name__
