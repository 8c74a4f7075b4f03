"""Nets that halve their maps need images of some size."""

from deephash.core.errors import UserError


def check_image_size(name: str, image_size: tuple[int, int], least: int) -> None:
    """Refuse images that a backbone has no maps left of.

    Raises:
        UserError: height or width is less than `least` pixels.
    """
    height, width = image_size
    if min(image_size) < least:
        raise UserError(
            f"backbone={name} needs images of at least {least} x {least}; these are "
            f"{height} x {width}. Use larger images or another backbone."
        )
