"""Any image file gives the middle square of what a viewer shows, or a reason why not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_images import encoded, picture, planes

from deephash.data.files.decoding import BrokenImageError

# Columns of red, green and blue, so that turning and mirroring show.
BARS = Image.fromarray(np.repeat(np.eye(3, dtype=np.uint8) * 250, 8, axis=0)[None].repeat(24, 0))


def written(folder: Path, content: bytes, name: str = "image.jpg") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def quarters(image: np.ndarray) -> list[str]:
    """Which colour is strongest in the left, right, upper and lower third."""
    thirds = (image[:, :, :6], image[:, :, -6:], image[:, :6], image[:, -6:])
    return ["RGB"[int(np.argmax(third.reshape(3, -1).mean(axis=1)))] for third in thirds]


@pytest.mark.parametrize(
    ("form", "mode"),
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
def test_every_format_and_mode_gives_the_same_picture(form: str, mode: str, tmp_path: Path) -> None:
    content = encoded(BARS.convert(mode), form)
    # What a file is says its content, not its name.
    image = planes(written(tmp_path, content), 24).astype(int)
    assert image.shape == (3, 24, 24)
    expected = np.asarray(BARS).transpose(2, 0, 1).astype(int)
    away_from_edges = np.abs(image - expected)[:, :, [2, 3, 4, 11, 12, 19, 20, 21]]
    assert away_from_edges.mean() < 12


@pytest.mark.parametrize(
    ("orientation", "seen"),
    [(1, "R B"), (2, "B R"), (3, "B R"), (4, "R B"), (5, "RB"), (6, "RB"), (7, "BR"), (8, "BR")],
)
def test_exif_orientation_is_applied(orientation: int, seen: str, tmp_path: Path) -> None:
    """1 to 4 keep the columns or mirror them, 5 to 8 turn columns to rows (EXIF 2.32, 4.6.4)."""
    exif = Image.Exif()
    exif[0x112] = orientation
    left, right, upper, lower = quarters(planes(written(tmp_path, encoded(BARS, exif=exif)), 24))
    assert (f"{left} {right}" if orientation < 5 else upper + lower) == seen


def test_grey_and_black_and_white_have_three_equal_channels(tmp_path: Path) -> None:
    for mode in ("L", "1", "LA"):
        image = planes(written(tmp_path, encoded(picture(0).convert(mode), "PNG")), 16)
        assert (image[0] == image[1]).all()
        assert (image[0] == image[2]).all()
        assert image.std() > 10


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_cut_to_eight(form: str, tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 32 * 32, dtype=np.uint16).reshape(32, 32)
    image = planes(written(tmp_path, encoded(Image.fromarray(grey), form)), 32)
    np.testing.assert_array_equal(image[1], grey >> 8)


def test_sixteen_bits_that_are_read_into_thirty_two(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 32 * 32, dtype=np.uint16).reshape(32, 32)
    pgm = b"P5 32 32 65535\n" + grey.astype(">u2").tobytes()
    np.testing.assert_array_equal(planes(written(tmp_path, pgm), 32)[1], grey >> 8)
    for beyond in (-1, 2**16):
        image = Image.fromarray(np.full((9, 9), beyond, dtype=np.int32))
        with pytest.raises(BrokenImageError, match="mode I, neither 8 nor 16 bits"):
            planes(written(tmp_path, encoded(image, "TIFF")), 16)


def test_transparency_is_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (20, 20), (200, 0, 0, 0))
    assert (planes(written(tmp_path, encoded(clear, "PNG")), 8) == 255).all()
    with_colour_key = encoded(Image.new("P", (20, 20), 3), "GIF", transparency=3)
    assert (planes(written(tmp_path, with_colour_key), 8) == 255).all()


def test_of_an_animation_it_is_the_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    red, green, blue = planes(written(tmp_path, content), 8)[:, 4, 4].tolist()
    assert red > 250
    assert green == blue == 0


@pytest.mark.parametrize(("width", "height"), [(90, 30), (30, 90), (3000, 1000)])
def test_the_middle_is_kept(width: int, height: int, tmp_path: Path) -> None:
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    side = min(width, height)
    top, left = (height - side) // 2, (width - side) // 2
    pixels[top : top + side, left : left + side] = 255
    image = planes(written(tmp_path, encoded(Image.fromarray(pixels), "PNG")), 32)
    assert image[:, 1:-1, 1:-1].min() > 250


def test_a_large_jpeg_equals_its_full_decoding(tmp_path: Path) -> None:
    """It is decoded at a fraction of its size; that must not show."""
    path = written(tmp_path, encoded(picture(1, 1600, 1200), quality=95))
    whole = Image.open(path).crop((200, 0, 1400, 1200)).resize((64, 64), Image.Resampling.BILINEAR)
    difference = np.asarray(whole).transpose(2, 0, 1).astype(int) - planes(path, 64)
    assert np.abs(difference).max() <= 6
    assert np.abs(difference).mean() < 1


def most_of(content: bytes) -> bytes:
    return content[: len(content) * 3 // 4]


def bomb() -> bytes:
    return encoded(Image.new("1", (20_000, 20_000)), "PNG")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no image in a known format"),
        (b"\n", "no image in a known format"),
        (b"<html>404</html>", "no image in a known format"),
        (b"\xff\xd8\xff\xe0", "no image in a known format|truncated|Truncated"),
        (most_of(encoded(picture(0))), "truncated"),
        (most_of(encoded(picture(0), "PNG")), "truncated"),
        (most_of(encoded(picture(0), "WEBP")), "."),
        (encoded(picture(0), "BMP")[:30], "Truncated"),
        (most_of(encoded(picture(0), "GIF")), "truncated"),
        (encoded(picture(0).convert("L"), "PNG").replace(b"IDAT", b"IDOT"), "."),
        (encoded(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "mode F"),
        (bomb(), "exceeds limit"),
    ],
    ids=[
        "empty", "blank", "html", "header", "jpeg", "png", "webp", "bmp", "gif", "chunk", "float",
        "bomb",
    ],
)  # fmt: skip
def test_a_broken_file_has_a_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(BrokenImageError, match=reason):
        planes(written(tmp_path, content), 16)


def test_what_is_no_file_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name, reason in {
        "none.jpg": "No such file",
        "folder.jpg": "Is a directory",
        "loop.jpg": "symbolic links",
    }.items():
        with pytest.raises(BrokenImageError, match=reason):
            planes(tmp_path / name, 16)
