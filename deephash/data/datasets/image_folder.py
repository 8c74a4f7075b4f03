"""Your own images: a folder of class folders, or a list of files and labels."""

from pathlib import Path

from deephash.core.errors import UserError
from deephash.data.datasets.class_folders import ValAs, list_class_folders
from deephash.data.datasets.image_table import Columns, list_table
from deephash.data.files.cleaning import DecodingOptions
from deephash.data.files.pixel_range import PixelRangeSetting, parse_pixel_range
from deephash.data.files.sources import check_source
from deephash.data.files.tables import read_table
from deephash.data.image_set import ImageSet


def image_folder(
    *,
    path: str,
    root: str | None,
    label_separator: str | None,
    size: int,
    cache_decoded: bool,
    decoded_dir: str,
    workers: int | None,
    max_invalid_fraction: float,
    path_column: str | int | None,
    label_columns: str | int | list[str] | list[int] | None,
    split_column: str | int | None,
    val_as: ValAs | None,
    pixel_range: PixelRangeSetting,
    max_pixels: int | None,
) -> ImageSet:
    """Load images from a folder of class folders, or from a list.

    A folder holds a folder of images for each class, or `train/` and `test/` (or `database/` and
    `query/`), optionally `val/`, with such class folders. A list is CSV, TSV or Parquet with named
    columns, the first of which holds the image's path; or text without column names, with paths and
    labels separated by blanks. The other columns are one of labels, several of an image separated
    by `label_separator`, or one of 0 and 1 per class. A column named `split` holds `train`,
    `database`, `test`, `query` or `val`.

    A listed file that is not there is found under another spelling of its name (letter case,
    Unicode form, encoding, blanks, missing suffix) if only one file can be meant; a log line says
    so.

    Labels are class indices if no image has several of them, otherwise multi-hot.

    Args:
        path: the folder or list.
        root: folder that the paths in a list are relative to; None for the folder of the list.
        label_separator: separates several labels of one image; None takes each label as one
            class. Lists in the syntax of Python or JSON are read without it.
        size: side of the decoded images in pixels.
        cache_decoded: whether to keep the decoded images, as one memory-mapped file.
        decoded_dir: folder for them and for the report of unusable images.
        workers: number of threads or processes that decode; None for the number of CPU cores.
        max_invalid_fraction: how many of the images may be missing, broken, unlabelled or listed
            twice, from 0 to 1.
        path_column: name of the column of paths, of plain text its number from 0; None for the
            first one.
        label_columns: names of the columns of labels; None for all others.
        split_column: name of the column of the split; None for the one named `split`, if there is
            one.
        val_as: what the validation part of an official split is: `train`, `test` or `ignore`; None
            for `test` if there is no other test part, otherwise `train`.
        pixel_range: which values of images of over 8 bits become 0 to 255: `full`, 0 to 65,535;
            `file`, from the lowest to the highest of the file; or `[lowest, highest]`.
        max_pixels: the most pixels that a file may have; None for Pillow's limit of 179 million.

    Raises:
        UserError: the folder, list or settings are not as described, or too many images cannot be
            used.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("cat", "dog"):
        ...         Path(folder, "photos", name).mkdir(parents=True)
        ...         Image.new("RGB", (40, 30)).save(Path(folder, "photos", name, "0.jpg"))
        ...     image_set = image_folder(
        ...         path=f"{folder}/photos",
        ...         root=None,
        ...         label_separator=";",
        ...         size=16,
        ...         cache_decoded=True,
        ...         decoded_dir=f"{folder}/decoded",
        ...         workers=1,
        ...         max_invalid_fraction=0.0,
        ...         path_column=None,
        ...         label_columns=None,
        ...         split_column=None,
        ...         val_as=None,
        ...         pixel_range="full",
        ...         max_pixels=None,
        ...     )
        >>> image_set.ids.tolist(), image_set.classes, image_set.images.shape
        (['cat/0.jpg', 'dog/0.jpg'], ('cat', 'dog'), (2, 3, 16, 16))
    """
    if label_separator is not None and not label_separator:
        raise UserError(
            "dataset.label_separator='': give the text that separates several labels of one image, "
            "or null if each label is one class."
        )
    if val_as not in (None, "train", "test", "ignore"):
        raise UserError(f"dataset.val_as={val_as}: must be train, test, ignore or null.")
    options = DecodingOptions(
        size,
        cache_decoded,
        decoded_dir,
        workers,
        max_invalid_fraction,
        parse_pixel_range(pixel_range),
        max_pixels,
    )
    check_source(path, root)
    source = Path(path)
    if source.is_dir():
        listing = list_class_folders(source, val_as)
    else:
        listing = list_table(
            read_table(source),
            Path(root) if root else source.parent,
            columns=Columns(path_column, label_columns, split_column),
            label_separator=label_separator,
            val_as=val_as,
        )
    return listing.load(options)
