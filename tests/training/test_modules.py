"""What the phases minimise and report, against the definitions."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from deephash.data.datamodule import Batch
from deephash.training.modules import Classifier

LABELS = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 1], [1, 1, 1]], dtype=torch.uint8)


class Identity(nn.Identity):
    num_features = 2


def classify(smoothing: float, *, multi_label: bool) -> tuple[Classifier, Batch]:
    torch.manual_seed(0)
    module = Classifier(
        Identity(),
        3,
        multi_label=multi_label,
        label_smoothing=smoothing,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        warmup=0.0,
        identity={},
    )
    labels = LABELS if multi_label else LABELS.argmax(dim=1)
    return module, {"inputs": torch.randn(4, 2), "labels": labels, "indices": torch.arange(4)}


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_several_labels_have_a_sigmoid_each(smoothing: float) -> None:
    module, batch = classify(smoothing, multi_label=True)
    terms = module.training_step(batch, 0)
    expected, right = 0.0, 0
    for row, logits in zip(LABELS.tolist(), module(batch["inputs"]).tolist(), strict=True):
        for label, logit in zip(row, logits, strict=True):
            yes = 1 / (1 + math.exp(-logit))
            target = label * (1 - smoothing) + smoothing / 2
            expected -= target * math.log(yes) + (1 - target) * math.log(1 - yes)
            right += (yes > 0.5) == (label == 1)
    assert terms["loss"].item() == pytest.approx(expected / 12, rel=1e-5)
    assert terms["accuracy"].item() == pytest.approx(right / 12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_one_label_has_a_softmax(smoothing: float) -> None:
    module, batch = classify(smoothing, multi_label=False)
    terms = module.training_step(batch, 0)
    expected, right = 0.0, 0
    logits = module(batch["inputs"]).tolist()
    for label, row in zip(batch["labels"].tolist(), logits, strict=True):
        total = sum(map(math.exp, row))
        for index, logit in enumerate(row):
            target = (index == label) * (1 - smoothing) + smoothing / 3
            expected -= target * math.log(math.exp(logit) / total)
        right += row[label] == max(row)
    assert terms["loss"].item() == pytest.approx(expected / 4, rel=1e-5)
    assert terms["accuracy"].item() == pytest.approx(right / 4)


@pytest.mark.parametrize("multi_label", [True, False])
def test_validation_measures_as_training_does_without_smoothing(multi_label: bool) -> None:
    module, batch = classify(0.2, multi_label=multi_label)
    module.validation_step(batch, 0, 0)
    module.validation_step(batch, 0, 1)  # the database is not looked at
    expected = classify(0.0, multi_label=multi_label)[0].training_step(batch, 0)
    assert module.accuracy.compute().item() == pytest.approx(expected["accuracy"].item())
    assert module.validation_loss.compute().item() == pytest.approx(expected["loss"].item())
