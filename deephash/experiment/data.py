"""The data of a run: its images, their split, and what settings they rule out."""

import logging

import numpy as np

from deephash.core.errors import UserError
from deephash.core.instantiate import build_instance
from deephash.core.ranks import is_rank_zero
from deephash.data.datasets.torchvision_names import SIGNS, find_set
from deephash.data.files.names import escape_undecodable
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split, drop_query_duplicates, hold_out_validation
from deephash.experiment.settings import Settings
from deephash.hamming import cpu, histogram

SMALL = 32  # side of images, in pixels, for which the default recipe is too coarse
MAX_STAGES, MAX_SHIFT = 3, 1 / 8  # that suit them: of resnet_small, and of the side

logger = logging.getLogger(__name__)


def load_data(settings: Settings) -> tuple[ImageSet, Split]:
    """The images and their split, without images that are copies of queries.

    Raises:
        UserError: they cannot be loaded, or a part of the split is empty.
    """
    image_set = build_instance("dataset", settings.dataset, ImageSet)
    split = build_instance("protocol", settings.protocol.node(), Split, image_set, settings.seed)
    for name, indices in split.arrays().items():
        if indices.size and indices[-1] >= len(image_set):
            raise UserError(
                f"protocol._target_={settings.protocol.node()['_target_']}: {name} holds the index "
                f"{indices[-1]}, but there are {len(image_set):,} images."
            )
    without_copies = drop_query_duplicates(image_set, split)
    _report_copies(image_set, split, without_copies)
    split = hold_out_validation(
        without_copies,
        image_set.labels.numpy(),
        fraction=settings.protocol.validation.fraction,
        database_size=settings.protocol.validation.database_size,
        seed=settings.seed,
    )
    sizes = {name: len(indices) for name, indices in split.arrays().items()}
    for name, size in sizes.items():
        if not size:
            raise UserError(
                f"protocol: no image is left for {name}; of {len(image_set.ids):,} images it makes "
                f"{sizes}. Change its settings, or choose another."
            )
    return image_set, split


def _report_copies(image_set: ImageSet, split: Split, without_copies: Split) -> None:
    """Log how many copies of queries were dropped, with an example."""
    before, after = (np.union1d(s.train, s.database) for s in (split, without_copies))
    copies = np.setdiff1d(before, after)
    if len(copies) and is_rank_zero():
        hashes = image_set.content_hashes
        query = split.query[np.argmax(hashes[split.query] == hashes[copies[0]])]
        logger.info(
            "%s images with the pixels of a query are left out of training set and database; for "
            "example %s, of %s",
            f"{len(copies):,}",
            escape_undecodable(str(image_set.ids[copies[0]])),
            escape_undecodable(str(image_set.ids[query])),
        )


def check_against_data(
    settings: Settings, image_set: ImageSet, split: Split, world_size: int
) -> None:
    """Refuse what can only be known to be wrong once the images are loaded; log what is unsuited.

    Raises:
        UserError: batches are too small for the processes, an augmentation is too large for the
            images, or there are more labels than the evaluation takes.
    """
    for name, phase in settings.ordered_phases().items():
        if phase.batch_size < 2 * world_size or len(split.train) < 2 * world_size:
            raise UserError(
                f"training.{name}.batch_size={phase.batch_size} over {len(split.train)} training "
                f"images is too small for {world_size} processes. Raise it, or launch fewer."
            )
    height, width = image_set.images.shape[2:]
    size = f"the images' {height} x {width} pixels"
    if settings.augment.translate >= min(height, width):
        raise UserError(
            f"augment.translate={settings.augment.translate} is not less than {size}. Lower it."
        )
    if settings.augment.cutout > min(height, width):
        raise UserError(f"augment.cutout={settings.augment.cutout} is more than {size}. Lower it.")
    if image_set.labels.ndim == 2:
        count, limit = image_set.labels.shape[1], 64 * cpu.MAX_WORDS
        if count > limit:
            raise UserError(
                f"dataset: {count:,} labels, but the evaluation takes at most {limit:,} where an "
                "image may have several. Leave out the rarest."
            )
        most = int(image_set.labels.sum(dim=1).max())
        if most > histogram.MAX_LABELS:
            raise UserError(
                f"dataset: an image has {most:,} labels, but the evaluation takes at most "
                f"{histogram.MAX_LABELS} of one image. Leave out the most frequent."
            )
    if is_rank_zero() and not settings.resume:
        _advise(settings, image_set)


def _advise(settings: Settings, image_set: ImageSet) -> None:
    """Log which settings suit small images and signs better than the default recipe's."""
    height, width = image_set.images.shape[2:]
    is_small = min(height, width) <= SMALL
    is_ours = settings.backbone.get("_target_") == "deephash.backbones.ResNetSmall"
    stages = settings.backbone.get("widths")
    better = []
    if is_small and is_ours and isinstance(stages, list) and len(stages) > MAX_STAGES:
        better.append("backbone=resnet_small")
    if is_small and settings.augment.translate > MAX_SHIFT * min(height, width):
        better.append("augment.translate=2")
    if settings.augment.flip and find_set(image_set.name) in SIGNS:
        better.append("augment.flip=false")
    if better:
        logger.info(
            "%s: backbone and augmentation are made for photographs of 64 pixels; for its images, "
            "%s x %s, better set %s",
            escape_undecodable(image_set.name),
            height,
            width,
            " ".join(better),
        )
