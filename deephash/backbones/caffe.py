"""The backbones of the paper, as defined by Caffe's examples."""

from torch import nn

from deephash.backbones.image_size import check_image_size


class LeNet(nn.Sequential):
    """Caffe's LeNet, the paper's backbone for MNIST; 500 features.

    Args:
        in_chans: channels of the images.
        image_size: height and width of the images, at least 15 x 15.

    Raises:
        UserError: the images are too small.

    Example:
        >>> import torch
        >>> LeNet(1, (28, 28))(torch.randn(2, 1, 28, 28)).shape
        torch.Size([2, 500])
    """

    def __init__(self, in_chans: int, image_size: tuple[int, int]) -> None:
        check_image_size("lenet", image_size, minimum=15)
        maps = [_pooled_size(_pooled_size(side - 4, 2) - 4, 2) for side in image_size]
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
    """Caffe's cifar10_quick, the paper's backbone for CIFAR-10; 1,024 features at 32 x 32.

    Args:
        in_chans: channels of the images.
        image_size: height and width of the images, at least 12 x 12.

    Raises:
        UserError: the images are too small.

    Example:
        >>> import torch
        >>> CifarQuick(3, (32, 32))(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 1024])
    """

    def __init__(self, in_chans: int, image_size: tuple[int, int]) -> None:
        check_image_size("cifar_quick", image_size, minimum=12)
        maps = [_pooled_size(_pooled_size(_pooled_size(side, 3), 3), 3) for side in image_size]
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


def _pooled_size(side: int, kernel: int) -> int:
    """Side of the maps after pooling with stride 2; Caffe rounds up."""
    return -(-(side - kernel) // 2) + 1
