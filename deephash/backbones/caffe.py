"""The paper's nets, as Caffe has them."""

from torch import nn

from deephash.backbones.image_size import check_image_size


class LeNet(nn.Sequential):
    """Caffe's LeNet for MNIST, the paper's net there; 500 features."""

    def __init__(self, in_chans: int, image_size: tuple[int, int]) -> None:
        check_image_size("lenet", image_size, least=15)
        maps = [_pooled(_pooled(side - 4, 2) - 4, 2) for side in image_size]
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
        check_image_size("cifar_quick", image_size, least=12)
        maps = [_pooled(_pooled(_pooled(side, 3), 3), 3) for side in image_size]
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


def _pooled(side: int, kernel: int) -> int:
    return -(-(side - kernel) // 2) + 1  # Caffe pools with stride 2 and rounds up
