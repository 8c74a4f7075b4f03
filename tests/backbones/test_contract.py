"""Backbones that break the contract: each ends with a sentence that names what is wrong."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deephash.backbones.contract import check_backbone
from deephash.backbones.normalize import NormalizedBackbone
from deephash.core.errors import UserError


class Net(nn.Module):
    """One linear layer of two features; what it returns is changed by `change`."""

    def __init__(self, change: Any = None, **attributes: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 2)
        self.num_features = 2
        self.change = change or (lambda features: features)
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, images: Tensor) -> Any:
        return self.change(self.linear(images.flatten(1)))


ONE, THREE = torch.ones(1), torch.ones(3)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"num_features": None}, "num_features is None"),
        ({"num_features": "2"}, "num_features is '2'"),
        ({"num_features": 0}, "num_features is 0"),
        ({"statistics": (0.5, 0.5)}, r"statistics is \(0.5, 0.5\)\. It must be .* shape \(3,\)"),
        ({"statistics": (ONE, ONE)}, r"statistics is .* shape \(3,\)"),
        ({"linear": nn.LazyLinear(2)}, "has lazy layers"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_attributes_are_named(attributes: dict[str, Any], message: str) -> None:
    check_backbone(Net(), 3)
    check_backbone(Net(statistics=(THREE, THREE)), 3)
    with pytest.raises(UserError, match=rf"^backbone: Net\.?\s?{message}"):
        check_backbone(Net(**attributes), 3)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda features: (features, features), "a tuple"),
        (lambda features: None, "None"),
        (lambda features: features[:, :1], r"a tensor of shape \(4, 1\)"),
        (lambda features: features[:, :, None, None], r"a tensor of shape \(4, 2, 1, 1\)"),
    ],
)
def test_features_of_another_shape_are_refused(change: Any, found: str) -> None:
    backbone = NormalizedBackbone(Net(change), THREE, THREE)
    message = (
        rf"^backbone: Net.forward returns {found}; it must .* \(4, 2\), \(images, num_features\)"
    )
    with pytest.raises(UserError, match=message):
        backbone(torch.zeros(4, 3, 2, 2, dtype=torch.uint8))
