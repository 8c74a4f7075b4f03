"""Any image file decodes to the centre square that a viewer shows, or gives a reason why not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_images import decode_channels_first, encode_image, sample_image

from deephash.data.files.decoding import BrokenImageError

# Columns of red, green and blue, which show rotations and reflections.
BARS = Image.fromarray(np.repeat(np.eye(3, dtype=np.uint8) * 250, 8, axis=0)[None].repeat(24, 0))


def write(folder: Path, content: bytes, name: str = "image.jpg") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def strongest_colours(image: np.ndarray) -> list[str]:
    """The strongest colour in the left, right, upper and lower third."""
    thirds = (image[:, :, :6], image[:, :, -6:], image[:, :6], image[:, -6:])
    return ["RGB"[int(np.argmax(third.reshape(3, -1).mean(axis=1)))] for third in thirds]


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [
        ("PNG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("GIF", "P"),
        ("BMP", "RGB"),
        ("TIFF", "RGB"),
        ("TIFF", "CMYK"),
        ("WEBP", "RGB"),
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("JPEG", "YCbCr"),
    ],
)
def test_every_format_and_mode_decodes_to_the_same_image(
    file_format: str, mode: str, tmp_path: Path
) -> None:
    content = encode_image(BARS.convert(mode), file_format)
    # The format is recognised by the content, not by the name.
    image = decode_channels_first(write(tmp_path, content), 24).astype(int)
    assert image.shape == (3, 24, 24)
    expected = np.asarray(BARS).transpose(2, 0, 1).astype(int)
    away_from_edges = np.abs(image - expected)[:, :, [2, 3, 4, 11, 12, 19, 20, 21]]
    assert away_from_edges.mean() < 12


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(1, "R B"), (2, "B R"), (3, "B R"), (4, "R B"), (5, "RB"), (6, "RB"), (7, "BR"), (8, "BR")],
)
def test_exif_orientation_is_applied(orientation: int, expected: str, tmp_path: Path) -> None:
    """1 to 4 keep or mirror the columns, 5 to 8 turn them into rows (EXIF 2.32, section 4.6.4)."""
    exif = Image.Exif()
    exif[0x112] = orientation
    left, right, upper, lower = strongest_colours(
        decode_channels_first(write(tmp_path, encode_image(BARS, exif=exif)), 24)
    )
    assert (f"{left} {right}" if orientation < 5 else upper + lower) == expected


def test_grey_and_black_and_white_have_three_equal_channels(tmp_path: Path) -> None:
    for mode in ("L", "1", "LA"):
        image = decode_channels_first(
            write(tmp_path, encode_image(sample_image(0).convert(mode), "PNG")), 16
        )
        assert (image[0] == image[1]).all()
        assert (image[0] == image[2]).all()
        assert image.std() > 10


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_cut_to_eight(file_format: str, tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 32 * 32, dtype=np.uint16).reshape(32, 32)
    image = decode_channels_first(
        write(tmp_path, encode_image(Image.fromarray(grey), file_format)), 32
    )
    np.testing.assert_array_equal(image[1], grey >> 8)


def test_sixteen_bits_that_pillow_reads_as_thirty_two(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 32 * 32, dtype=np.uint16).reshape(32, 32)
    pgm = b"P5 32 32 65535\n" + grey.astype(">u2").tobytes()
    np.testing.assert_array_equal(decode_channels_first(write(tmp_path, pgm), 32)[1], grey >> 8)
    for value in (-1, 2**16):
        image = Image.fromarray(np.full((9, 9), value, dtype=np.int32))
        with pytest.raises(BrokenImageError, match="dataset.pixel_range is needed for pixels that"):
            decode_channels_first(write(tmp_path, encode_image(image, "TIFF")), 16)


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    transparent = Image.new("RGBA", (20, 20), (200, 0, 0, 0))
    assert (
        decode_channels_first(write(tmp_path, encode_image(transparent, "PNG")), 8) == 255
    ).all()
    with_colour_key = encode_image(Image.new("P", (20, 20), 3), "GIF", transparency=3)
    assert (decode_channels_first(write(tmp_path, with_colour_key), 8) == 255).all()


def test_an_animation_decodes_to_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    content = encode_image(frames[0], "GIF", save_all=True, append_images=frames[1:])
    red, green, blue = decode_channels_first(write(tmp_path, content), 8)[:, 4, 4].tolist()
    assert red > 250
    assert green == blue == 0


@pytest.mark.parametrize(("width", "height"), [(90, 30), (30, 90), (3000, 1000)])
def test_the_centre_is_kept(width: int, height: int, tmp_path: Path) -> None:
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    side = min(width, height)
    top, left = (height - side) // 2, (width - side) // 2
    pixels[top : top + side, left : left + side] = 255
    image = decode_channels_first(write(tmp_path, encode_image(Image.fromarray(pixels), "PNG")), 32)
    assert image[:, 1:-1, 1:-1].min() > 250


def test_a_large_jpeg_equals_its_full_decoding(tmp_path: Path) -> None:
    """It is decoded at a fraction of its size, which must not be visible."""
    path = write(tmp_path, encode_image(sample_image(1, 1600, 1200), quality=95))
    full = Image.open(path).crop((200, 0, 1400, 1200)).resize((64, 64), Image.Resampling.BILINEAR)
    difference = np.asarray(full).transpose(2, 0, 1).astype(int) - decode_channels_first(path, 64)
    assert np.abs(difference).max() <= 6
    assert np.abs(difference).mean() < 1


def truncate(content: bytes) -> bytes:
    return content[: len(content) * 3 // 4]


def decompression_bomb() -> bytes:
    return encode_image(Image.new("1", (20_000, 20_000)), "PNG")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an image in a known format"),
        (b"\n", "not an image in a known format"),
        (b"<html>404</html>", "not an image in a known format"),
        (b"\xff\xd8\xff\xe0", "not an image in a known format|truncated|Truncated"),
        (truncate(encode_image(sample_image(0))), "truncated"),
        (truncate(encode_image(sample_image(0), "PNG")), "truncated"),
        (truncate(encode_image(sample_image(0), "WEBP")), "."),
        (encode_image(sample_image(0), "BMP")[:30], "Truncated"),
        (truncate(encode_image(sample_image(0), "GIF")), "truncated"),
        (encode_image(sample_image(0).convert("L"), "PNG").replace(b"IDAT", b"IDOT"), "."),
        (encode_image(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "pixel_range is"),
        (decompression_bomb(), "more pixels than dataset.max_pixels=178956970"),
    ],
    ids=[
        "empty", "blank", "html", "header", "jpeg", "png", "webp", "bmp", "gif", "chunk", "float",
        "bomb",
    ],
)  # fmt: skip
def test_a_broken_file_has_a_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(BrokenImageError, match=reason):
        decode_channels_first(write(tmp_path, content), 16)


def test_a_path_that_is_not_a_file_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name, reason in {
        "none.jpg": "No such file",
        "folder.jpg": "Is a directory",
        "loop.jpg": "symbolic links",
    }.items():
        with pytest.raises(BrokenImageError, match=reason):
            decode_channels_first(tmp_path / name, 16)
