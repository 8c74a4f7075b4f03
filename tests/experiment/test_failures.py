"""Trainings that go wrong: each ends with a sentence that says what to change."""

import pytest
import torch
from conftest import ComposeRun

from deephash.core.errors import UserError
from deephash.experiment.run import run
from deephash.methods.base import HashBatch
from deephash.methods.joint import Joint

pytestmark = pytest.mark.usefixtures("light_runs")


def test_a_diverging_loss_stops_the_run(compose_run: ComposeRun) -> None:
    diverging = ["training.hash.optimizer.lr=1e30", "training.hash.scheduler.warmup=0"]
    with pytest.raises(UserError, match=r"hash: the loss became .* Lower training.hash.optimizer"):
        run(compose_run("phases=scratch", *diverging))


class FaultyMethod(Joint):
    """A method with one fault."""

    def __init__(self, num_features: int, bits: int, num_classes: int, *, fault: str) -> None:
        width = bits + (fault == "width")
        super().__init__(
            num_features, width, num_classes, surrogate="bilinear", tau=2.0, balanced=True
        )
        self.fault = fault

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits = super().forward(features)
        return logits if self.training or self.fault != "nan" else logits * torch.nan

    def loss(self, batch: HashBatch) -> dict[str, torch.Tensor]:
        if self.fault == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0")
        return super().loss(batch)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("width", r"FaultyMethod.forward returns logits of shape \(\d+, 49\).*bits=48 needs"),
        ("nan", "The logits of validation images are NaN"),
        ("memory", r"CUDA out of memory\. Lower training\.<phase>\.batch_size"),
    ],
)
def test_a_faulty_method_is_explained(compose_run: ComposeRun, fault: str, message: str) -> None:
    cfg = compose_run("phases=scratch")
    cfg.method = {"_target_": f"{__name__}.FaultyMethod", "fault": fault}
    with pytest.raises(UserError, match=message):
        run(cfg)


def constant_features(net: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(images), net.num_features) + 0 * images.mean()


def test_collapsed_codes_stop_the_run(
    compose_run: ComposeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deephash.backbones.ResNetSmall.forward", constant_features)
    with pytest.raises(UserError, match="The codes collapsed"):
        run(compose_run("phases=scratch"))
