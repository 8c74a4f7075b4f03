"""The data of a run: its images, and their split."""

from deephash.core.errors import UserError
from deephash.core.instantiate import build_instance
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split, drop_query_duplicates, hold_out_validation
from deephash.experiment.settings import Settings


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
    split = hold_out_validation(
        drop_query_duplicates(image_set, split),
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
