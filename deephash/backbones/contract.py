"""The check that a backbone keeps to the contract."""

from numbers import Integral

from torch import nn
from torch.nn.parameter import is_lazy

from deephash.core.errors import UserError


def check_backbone(net: nn.Module, channels: int) -> None:
    """Check the attributes of a backbone: `num_features`, and `statistics` if it has them.

    Args:
        net: the backbone.
        channels: of the images.

    Raises:
        UserError: one of them is not as timm's contract says, or the net has lazy layers.
    """
    name = type(net).__name__
    num_features = getattr(net, "num_features", None)
    if not isinstance(num_features, Integral) or num_features < 1:
        raise UserError(
            f"backbone: {name}.num_features is {num_features!r}. It must be the number of features "
            "that forward returns for an image."
        )
    statistics = getattr(net, "statistics", None)
    if statistics is not None:
        shapes = [getattr(value, "shape", None) for value in statistics]
        if shapes != 2 * [(channels,)]:
            raise UserError(
                f"backbone: {name}.statistics is {statistics!r}. It must be a mean and a standard "
                f"deviation, two tensors of shape ({channels},)."
            )
    if any(is_lazy(parameter) for parameter in net.parameters()):
        raise UserError(f"backbone: {name} has lazy layers. Give them their input sizes.")
