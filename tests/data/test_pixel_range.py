"""Images of 16 and 32 bits: which of their values become the grey levels, told where it matters."""

import struct
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sample_images import encode_image, load_image_folder, sample_image

from deephash.core.errors import UserError
from deephash.core.instantiate import build
from deephash.data.files import pixel_range as pixel_range_module
from deephash.data.files.decoded_cache import ImageFiles, decode_files
from deephash.data.files.decoding import BrokenImageError, decode_image
from deephash.data.files.pixel_range import (
    PixelRange,
    find_used_range,
    parse_pixel_range,
    scale_to_8_bits,
)

RAMP = np.linspace(0, 1, 32 * 32).reshape(32, 32)
TWELVE_BITS = (RAMP * 4095).astype(np.uint16)


def png_of_16_bits(colours: np.ndarray) -> bytes:
    """A PNG of uint16 (height, width, 2 to 4), which Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    height, width, channels = colours.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def tiff_of_16_bits(colours: np.ndarray, planar: int = 1, compression: int = 1) -> bytes:
    """A TIFF of uint16 (height, width, 3), which Pillow cannot write."""
    height, width, channels = colours.shape
    content = colours.astype("<u2").tobytes()
    if compression == 8:
        content = zlib.compress(content)
    short, long = 3, 4
    tags = [
        (256, short, 1, width),
        (257, short, 1, height),
        (258, short, channels, 8 + 2 + 10 * 12 + 4),
        (259, short, 1, compression),
        (262, short, 1, 2),
        (273, long, 1, 8 + 2 + 10 * 12 + 4 + 6),
        (277, short, 1, channels),
        (278, short, 1, height),
        (279, long, 1, len(content)),
        (284, short, 1, planar),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    header = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return header + entries + struct.pack("<I", 0) + struct.pack("<3H", 16, 16, 16) + content


def colour_ramp(highest: int) -> np.ndarray:
    return (RAMP[..., None] * [highest, highest / 2, 0]).astype(np.uint16)


def decode(content: bytes, folder: Path, *settings: Any) -> np.ndarray:
    path = folder / "image"
    path.write_bytes(content)
    return decode_image(path, 32, *settings)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_range_becomes_all_levels(dtype: type) -> None:
    values = np.array([-3, 0, 99, 100, 101, 355, 356, 999]).clip(0 if dtype == np.uint16 else None)
    levels = scale_to_8_bits(values.astype(dtype), (100, 355)).tolist()
    assert levels == [0, 0, 0, 0, 1, 255, 255, 255]


def test_levels_are_of_equal_width() -> None:
    integers = scale_to_8_bits(np.array([0, 1, 2, 3]), (0, 3))
    assert integers.tolist() == [0, 64, 128, 192]  # a quarter each, as the values are of width 1
    assert scale_to_8_bits(np.array([0.0, 1.5, 3.0]), (0, 3)).tolist() == [0, 128, 255]


def test_the_whole_range_is_that_of_full() -> None:
    values = np.arange(2**16, dtype=np.uint16)
    full = scale_to_8_bits(values, "full")
    np.testing.assert_array_equal(full, values >> 8)
    for pixel_range in ((0, 65535), "file"):
        np.testing.assert_array_equal(scale_to_8_bits(values, pixel_range), full)
        np.testing.assert_array_equal(scale_to_8_bits(values.astype(np.int32), pixel_range), full)


def test_values_that_are_not_finite() -> None:
    values = np.array([np.nan, -np.inf, 0, 0.5, 1, np.inf], dtype=np.float32)
    assert scale_to_8_bits(values, (0.0, 1.0)).tolist() == [0, 0, 0, 128, 255, 255]
    assert scale_to_8_bits(values, "file").tolist() == [0, 0, 0, 128, 255, 255]
    with pytest.raises(ValueError, match="no finite value"):
        scale_to_8_bits(values[:2], "file")


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_constant_image_is_black(dtype: type) -> None:
    assert (scale_to_8_bits(np.full((4, 4), 700, dtype), "file") == 0).all()


@pytest.mark.parametrize("pixel_range", [(0, 4095), "file"])
@pytest.mark.parametrize(
    "content",
    [
        encode_image(Image.fromarray(TWELVE_BITS), "PNG"),
        encode_image(Image.fromarray(TWELVE_BITS), "TIFF"),
        encode_image(Image.fromarray(TWELVE_BITS.astype(np.int32)), "TIFF"),
        b"P5 32 32 65535\n" + TWELVE_BITS.astype(">u2").tobytes(),
    ],
    ids=["png", "tiff", "tiff of 32 bits", "pgm"],
)
def test_twelve_bits_in_sixteen_keep_their_levels(
    content: bytes, pixel_range: PixelRange, tmp_path: Path
) -> None:
    image = decode(content, tmp_path, pixel_range)
    np.testing.assert_array_equal(image[..., 1], TWELVE_BITS >> 4)
    assert len(np.unique(decode(content, tmp_path))) == 16


def test_unsigned_32_bits_do_not_become_negative(tmp_path: Path) -> None:
    values = (RAMP * (2**32 - 1)).astype(np.uint32)
    content = encode_image(Image.fromarray(values.view(np.int32)), "TIFF")
    signed, unsigned = (struct.pack("<HHII", 339, 3, 1, value) for value in (2, 1))
    assert signed in content
    content = content.replace(signed, unsigned)
    image = decode(content, tmp_path, (0, 2**32 - 1))
    np.testing.assert_array_equal(image[..., 0], values >> 24)


def test_floats(tmp_path: Path) -> None:
    content = encode_image(Image.fromarray(RAMP.astype(np.float32)), "TIFF")
    image = decode(content, tmp_path, (0.0, 1.0))
    np.testing.assert_array_equal(image[..., 2], (RAMP * 256).clip(0, 255).astype(np.uint8))
    with pytest.raises(BrokenImageError, match="dataset.pixel_range is needed"):
        decode(content, tmp_path)


@pytest.mark.parametrize("pixel_range", [(0, 4095), "file"])
def test_8_bits_are_left_as_they_are(pixel_range: PixelRange, tmp_path: Path) -> None:
    for file_format in ("JPEG", "PNG"):
        content = encode_image(sample_image(0), file_format)
        np.testing.assert_array_equal(
            decode(content, tmp_path, pixel_range), decode(content, tmp_path)
        )


@pytest.mark.parametrize(
    "encode",
    [png_of_16_bits, tiff_of_16_bits, lambda colours: tiff_of_16_bits(colours, compression=8)],
    ids=["png", "tiff", "compressed tiff"],
)
def test_sixteen_bits_per_colour_are_refused_where_the_lower_ones_are_needed(
    encode: Any, tmp_path: Path
) -> None:
    wide, small = encode(colour_ramp(65535)), encode(colour_ramp(4095))
    for settings in ((), ("full",), ("file",)):
        np.testing.assert_array_equal(decode(wide, tmp_path, *settings), colour_ramp(65535) >> 8)
    for content, pixel_range in ((wide, (0, 65535)), (small, (0, 4095)), (small, "file")):
        with pytest.raises(BrokenImageError, match="16 bits per colour.*convert it to 8 bits"):
            decode(content, tmp_path, pixel_range)
    paths = [tmp_path / "image"] * 2
    with pytest.raises(UserError, match="images of 16 bits use only the values 0 to 4,095"):
        load(paths, tmp_path / "decoded")


def test_what_only_looks_like_sixteen_bits_per_colour(tmp_path: Path) -> None:
    transparent = np.dstack([colour_ramp(4095), np.full((32, 32), 65535, np.uint16)])
    for image in (transparent, transparent[..., 2:]):
        with pytest.raises(BrokenImageError, match="16 bits per col"):  # whatever the transparency
            decode(png_of_16_bits(image), tmp_path, "file")
    with pytest.raises(BrokenImageError, match="in planes of their own"):
        decode(tiff_of_16_bits(colour_ramp(65535), planar=2), tmp_path)
    bits_565 = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 66) + struct.pack(
        "<IiiHHIIiiII", 40, 32, 32, 1, 16, 3, 2048, 0, 0, 0, 0
    )
    bits_565 += struct.pack("<3I", 0xF800, 0x7E0, 0x1F) + bytes(2048)
    assert (decode(bits_565, tmp_path, (0, 4095)) == 0).all()


def load(paths: list[Path], decoded_dir: Path, **settings: Any) -> tuple[ImageFiles, Any]:
    defaults: dict[str, Any] = {"cache_decoded": True, "workers": 2}
    return decode_files(paths, size=32, decoded_dir=decoded_dir, **{**defaults, **settings})


def write_folder(folder: Path, images: list[np.ndarray]) -> Path:
    for i, image in enumerate(images):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


@pytest.mark.parametrize(
    ("low", "high", "advice"),
    [
        (0, 4095, "[0,4095]"),
        (7, 4090, "[0,4095]"),
        (0, 16383, "[0,16383]"),
        (0, 300, "[0,511]"),
        (29000, 31500, "[29001,31499]"),
    ],
)
def test_a_set_that_uses_little_of_its_range_stops_the_run(
    low: int, high: int, advice: str, tmp_path: Path
) -> None:
    """Also when its images were decoded before, and with images of 8 bits beside them."""
    parts = np.linspace(low, high, 5).round().astype(np.uint16)
    images = [
        (first + RAMP * (int(last) - int(first))).round().astype(np.uint16)
        for first, last in pairwise(parts)
    ]
    # Of each image the outermost pixel at either end may be a dead one.
    low = min(int(np.sort(image, None)[1]) for image in images)
    high = max(int(np.sort(image, None)[-2]) for image in images)
    images += [np.asarray(sample_image(0)), np.asarray(sample_image(1))]
    source = write_folder(tmp_path / "photos", images)
    expected = (
        f"dataset.pixel_range=full: the 4 images of 16 bits use only the values {low:,} to "
        f"{high:,} of 65,536, which leaves {(high >> 8) - (low >> 8) + 1} grey levels. Set "
        f"'dataset.pixel_range={advice}', or file for the range of each file; convert colour "
        "images to 8 bits."
    )
    for cache_decoded in (True, True, False, False):
        with pytest.raises(UserError) as error:
            load_image_folder(source, size=32, cache_decoded=cache_decoded)
        assert str(error.value) == expected
    for pixel_range in ([float(bound) for bound in advice.strip("[]").split(",")], "file"):
        decoded = [
            load_image_folder(source, size=32, pixel_range=pixel_range, cache_decoded=cache_decoded)
            for cache_decoded in (True, False)
        ]
        for image_set in decoded:
            pixels = image_set.images[torch.arange(6)]
            assert len(pixels.unique()) > 128
            np.testing.assert_array_equal(
                pixels[image_set.ids.tolist().index("a/4.png")].permute(1, 2, 0),
                decode_image(source / "a" / "4.png", 32),
            )
        assert decoded[0].checksum == decoded[1].checksum


def test_a_subset_is_judged_by_itself(tmp_path: Path) -> None:
    source = write_folder(tmp_path, [TWELVE_BITS, TWELVE_BITS.T, TWELVE_BITS * 16])
    paths = [source / "a" / "0.png", source / "b" / "1.png", source / "a" / "2.png"]
    load(paths, tmp_path / "decoded")
    load(paths[2:], tmp_path / "decoded")
    with pytest.raises(UserError, match="the 2 images of 16 bits"):
        load(paths[:2], tmp_path / "decoded")


def draw(low: int, high: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).integers(low, high + 1, (40, 40))
    return values.astype(np.uint16)


def with_dead_pixel(image: np.ndarray, value: int = 65535) -> np.ndarray:
    image = image.copy()
    image[0, 0] = value
    return image


def test_the_range_of_colours_is_that_of_all_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a sample of the pixels."""
    colours = np.zeros((60, 60, 3), np.uint8)
    colours[..., 1] = 200
    monkeypatch.setattr(pixel_range_module, "MAX_SAMPLE", 60 * 60)
    assert find_used_range(colours) == (0, 200)


def test_dead_pixels_leave_no_use_for_the_range_of_each_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where all other pixels are equal, and in floats."""
    images = [with_dead_pixel(draw(0, 4095, i)) for i in range(6)]
    source = write_folder(tmp_path / "photos", images)
    with pytest.raises(
        UserError, match=r"grey levels\. Set 'dataset.pixel_range=\[0,4095\]'; conv"
    ):
        load_image_folder(source)
    told = "6 of 6 images keep less than a quarter of the grey levels, because some pixels"
    for cache_decoded in (True, True, False):
        caplog.clear()
        load_image_folder(source, pixel_range="file", cache_decoded=cache_decoded)
        assert told in caplog.text
    caplog.clear()
    load_image_folder(source, pixel_range=[0, 4095])
    assert not caplog.messages
    equal = [with_dead_pixel(np.full((40, 40), 700 + i, np.uint16)) for i in range(6)]
    load_image_folder(write_folder(tmp_path / "equal", equal), pixel_range="file")
    assert told in caplog.text
    paths = [tmp_path / f"{i}.tiff" for i in range(6)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image.astype(np.float32)).save(path)
    caplog.clear()
    load(paths, tmp_path / "floats", pixel_range="file")
    assert told in caplog.text


def test_dead_pixels_of_files_of_small_range_among_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = [with_dead_pixel(draw(16000 * (i % 4), 16000 * (i % 4) + 4095, i)) for i in range(8)]
    load_image_folder(write_folder(tmp_path / "photos", images))
    (message,) = caplog.messages
    assert message.endswith(
        "8 images of 16 bits use less than a quarter of the values, and keep "
        "less than a quarter of the grey levels"
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5], (5, 5)),
        ([0, 5, 65535], (0, 65535)),
        (63 * [7] + [65535], (7, 7)),
        (999 * [7] + [65535], (7, 7)),
        (1997 * [7] + [8, 9, 65535], (7, 8)),
        (784 * [7], (7, 7)),
    ],
)
def test_one_pixel_of_a_small_image_may_be_an_outlier(
    values: list[int], expected: tuple[int, int]
) -> None:
    assert find_used_range(np.array([values], np.uint16)) == expected
    colours = np.repeat(np.array([values], np.uint16)[..., None], 3, axis=2)
    assert find_used_range(colours) == expected


@pytest.mark.parametrize(("low", "high", "dead"), [(0, 4095, 65535), (29000, 29099, 0)])
def test_a_dead_pixel_of_a_small_image_is_told(
    low: int, high: int, dead: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = [with_dead_pixel(draw(low, high, i)[:28, :28], dead) for i in range(6)]
    source = write_folder(tmp_path / "photos", images)
    with pytest.raises(UserError, match="the 6 images of 16 bits use only the values"):
        load_image_folder(source)
    load_image_folder(source, pixel_range="file")
    assert "6 of 6 images keep less than a quarter of the grey levels" in caplog.text


def with_mark(image: np.ndarray, value: int = 65535) -> np.ndarray:
    """An image with a bar of the value, of 0.5 % of the pixels."""
    image = image.copy()
    image[0, :8] = value
    return image


@pytest.mark.parametrize(
    "images",
    [
        [with_mark(draw(0, 4095, i)) for i in range(6)],
        [with_mark(draw(29000, 29099, i)) for i in range(6)],
        [np.pad(draw(29000, 29099, i), 2) for i in range(6)],
        [with_mark(np.pad(draw(29000, 29099, i), 2)) for i in range(6)],
    ],
    ids=["12 bits and a mark", "thermal and a mark", "thermal and a border", "both"],
)
def test_a_border_or_a_mark_that_takes_the_range_is_told(
    images: list[np.ndarray], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_folder(tmp_path / "photos", images)
    for cache_decoded in (True, True, False):
        caplog.clear()
        load_image_folder(source, cache_decoded=cache_decoded)
        (message,) = caplog.messages
        assert message.startswith("6 of 6 images of 16 bits use less than a quarter")
        assert message.endswith("of the grey levels")  # the range of each file is of no use
    caplog.clear()
    load_image_folder(source, pixel_range="file")
    assert "6 of 6 images keep less than a quarter of the grey levels" in caplog.text


def test_a_border_of_floats_and_32_bits_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for dtype in (np.int32, np.float32):
        paths = [tmp_path / f"{dtype.__name__}{i}.tiff" for i in range(6)]
        for i, path in enumerate(paths):
            tissue = draw(0, 3000, i).astype(dtype) - 1000
            Image.fromarray(np.pad(tissue, 2, constant_values=-32768)).save(path)
        caplog.clear()
        load(paths, tmp_path / "decoded", pixel_range="file")
        assert "6 of 6 images keep less than a quarter of the grey levels" in caplog.text


@pytest.mark.parametrize("pixel_range", ["full", "file"])
def test_ordinary_images_raise_no_alarm(
    pixel_range: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photo = np.asarray(sample_image(0).convert("L")).astype(np.uint16) * 257
    stars = 60000 * np.random.default_rng(0).random((40, 40)) ** 12
    images = [
        photo,
        np.pad(photo, 8),
        with_mark(photo),
        stars.astype(np.uint16),
        (draw(0, 1, 0) * 65535).astype(np.uint16),  # a mask
        (draw(0, 2, 0) * 32767).astype(np.uint16),
        np.full((40, 40), 700, np.uint16),
        draw(0, 1, 1).astype(np.uint8),
        draw(0, 65535, 0)[:2, :2],
    ]
    for i, image in enumerate(images):  # each by itself, as some may always differ
        source = write_folder(tmp_path / str(i), [image, image])
        load_image_folder(source, pixel_range=pixel_range)
        assert not [m for m in caplog.messages if "grey levels" in m], i


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ([with_dead_pixel(draw(0, 4095, i)) for i in range(6)], "the 6 images of 16 bits use"),
        ([with_dead_pixel(draw(29000, 31500, i), 0) for i in range(6)], "the 6 images"),
        (
            [draw(0, 4095, i) for i in range(39)] + [draw(0, 65535, 39)],
            "39 of the 40 images of 16 bits use only the values 0 to 4,095",
        ),
    ],
    ids=["a dead pixel in each", "a dead pixel of 0", "one other file"],
)
def test_outliers_do_not_hide_a_small_range(
    images: list[np.ndarray], told: str, tmp_path: Path
) -> None:
    source = write_folder(tmp_path / "photos", images)
    with pytest.raises(UserError, match=told):
        load_image_folder(source)


def test_files_of_small_range_among_others_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = [draw(0, 4095 if i < 4 else 65535, i) for i in range(8)]
    load_image_folder(write_folder(tmp_path / "photos", images))
    assert "4 of 8 images of 16 bits use less than a quarter of the values" in caplog.text
    caplog.clear()
    load_image_folder(write_folder(tmp_path / "photos", [draw(0, 65535, i) for i in range(6)]))
    assert not caplog.messages


@pytest.mark.parametrize(
    "setting", ["", "fulll", "0,4095", [], [1], [5, 5], [9, 1], [0, 1, 2], [0, float("inf")]]
)
def test_what_is_no_range_is_refused(setting: Any) -> None:
    with pytest.raises(UserError, match=r"dataset.pixel_range=.*: give full, file, or the lowest"):
        parse_pixel_range(setting)


def test_the_setting_in_a_configuration(tmp_path: Path) -> None:
    node = {
        "_target_": "deephash.data.datasets.image_folder.image_folder",
        "path": str(write_folder(tmp_path / "photos", [TWELVE_BITS, TWELVE_BITS.T])),
        "root": None,
        "label_separator": ";",
        "size": 16,
        "cache_decoded": True,
        "decoded_dir": str(tmp_path / "decoded"),
        "workers": 1,
        "max_invalid_fraction": 0.0,
        "path_column": None,
        "label_columns": None,
        "split_column": None,
        "val_as": None,
        "max_pixels": None,
    }
    assert len(build("dataset", node | {"pixel_range": [0, 4095]})) == 2
    for wrong in ("fulll", ["a", 3], 7, None, [3, 2]):
        with pytest.raises(UserError, match=r"^dataset.pixel_range=") as error:
            build("dataset", node | {"pixel_range": wrong})
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"dataset.max_pixels=0: must be at least 1"):
        build("dataset", node | {"pixel_range": "full", "max_pixels": 0})


def test_the_limit_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of images that were decoded under a higher one."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    path = tmp_path / "0.jpg"
    path.write_bytes(encode_image(sample_image(0)))  # of 1,200 pixels
    with pytest.raises(BrokenImageError, match="more pixels than dataset.max_pixels=1199"):
        decode_image(path, 16, "full", 1199)
    reason = {0: "it has more pixels than dataset.max_pixels=1199"}
    for max_pixels, broken in ((1199, reason), (1200, {}), (1199, reason), (1200, {}), (None, {})):
        assert load([path], tmp_path / "decoded", max_pixels=max_pixels)[1] == broken
    assert Image.MAX_IMAGE_PIXELS is not None
    assert 2 * Image.MAX_IMAGE_PIXELS >= 1200
