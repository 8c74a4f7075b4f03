"""Decoding of one image file: any format that Pillow reads, always RGB, always one size."""

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

WHITE = (255, 255, 255)
# Files that Pillow warns about can still be used: very large images, odd EXIF data.
warnings.filterwarnings("ignore", module=r"PIL\.")

Pixels = npt.NDArray[np.uint8]


class BrokenImageError(Exception):
    """An image file that cannot be decoded; the message gives the reason."""


def decode_image(path: Path | str, size: int) -> Pixels:
    """Decode an image file, resize its shorter side to `size` and crop the centre square.

    The EXIF orientation is applied, transparent pixels become white, grey and CMYK become RGB, 16
    bits are cut to 8, and of an animation the first frame is taken. The format is recognised by the
    content of the file, not by its name.

    Args:
        path: the image file.
        size: side of the result in pixels.

    Returns:
        uint8 pixels (size, size, 3).

    Raises:
        BrokenImageError: the file is missing, unreadable, truncated, not an image, or has over 179
            million pixels.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "red.png")
        ...     Image.new("RGB", (40, 30), "red").save(path)
        ...     image = decode_image(path, size=16)
        >>> image.shape, image[0, 0].tolist()
        ((16, 16, 3), [255, 0, 0])
    """
    try:
        with Image.open(path) as image:
            # A JPEG decodes much faster at a fraction of its size; twice the final size is enough
            # for the resampling.
            image.draft("RGB", (2 * size, 2 * size))
            ImageOps.exif_transpose(image, in_place=True)
            square = ImageOps.fit(_convert_to_rgb(image), (size, size), Image.Resampling.BILINEAR)
    except BrokenImageError:
        raise
    except Exception as error:  # on broken files Pillow's decoders raise exceptions of any kind
        raise BrokenImageError(_describe(error)) from None
    return np.asarray(square)


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow reads the 16 bits of some formats into 32
        values = np.asarray(image)
        if values.min() >= 0 and values.max() < 2**16:
            return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BrokenImageError(f"its pixels are of mode {image.mode}, neither 8 nor 16 bits")
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
