"""The check that images are large enough for a backbone."""

from deephash.core.errors import UserError


def check_image_size(name: str, image_size: tuple[int, int], minimum: int) -> None:
    """Check that images are large enough for all the poolings of a backbone.

    Args:
        name: name of the backbone, for the error message.
        image_size: height and width of the images.
        minimum: smallest height and width that the backbone works with.

    Raises:
        UserError: the height or the width is less than `minimum`.
    """
    height, width = image_size
    if min(image_size) < minimum:
        raise UserError(
            f"backbone={name} needs images of at least {minimum} x {minimum}; these are "
            f"{height} x {width}. Use larger images or another backbone."
        )
