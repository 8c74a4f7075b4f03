"""What the phases minimise and report, against the definitions."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deephash.core.errors import UserError
from deephash.data.datamodule import Batch
from deephash.methods.base import HashBatch, Method
from deephash.methods.joint import Joint
from deephash.training.modules import Classifier, FeatureExtractor, HashingModule
from deephash.training.schedules import constant

LABELS = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 1], [1, 1, 1]], dtype=torch.uint8)
SHARED: dict[str, Any] = {
    "make_optimizer": lambda parameters: torch.optim.SGD(parameters.values(), lr=0.1),
    "schedule": lambda step, total: constant(step, total, warmup=0.0),
    "identity": {"bits": 2},
}


class Identity(nn.Identity):
    num_features = 2


def make_classifier(smoothing: float, *, multi_label: bool) -> tuple[Classifier, Batch]:
    torch.manual_seed(0)
    module = Classifier(Identity(), 3, multi_label=multi_label, label_smoothing=smoothing, **SHARED)
    labels = LABELS if multi_label else LABELS.argmax(dim=1)
    return module, {"images": torch.randn(4, 2), "labels": labels, "indices": torch.arange(4)}


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_several_labels_have_a_sigmoid_each(smoothing: float) -> None:
    module, batch = make_classifier(smoothing, multi_label=True)
    terms = module.training_step(batch, 0)
    expected, correct = 0.0, 0
    for row, logits in zip(LABELS.tolist(), module(batch["images"]).tolist(), strict=True):
        for label, logit in zip(row, logits, strict=True):
            yes = 1 / (1 + math.exp(-logit))
            target = label * (1 - smoothing) + smoothing / 2
            expected -= target * math.log(yes) + (1 - target) * math.log(1 - yes)
            correct += (yes > 0.5) == (label == 1)
    assert terms["loss"].item() == pytest.approx(expected / 12, rel=1e-5)
    assert terms["accuracy"].item() == pytest.approx(correct / 12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_one_label_has_a_softmax(smoothing: float) -> None:
    module, batch = make_classifier(smoothing, multi_label=False)
    terms = module.training_step(batch, 0)
    expected, correct = 0.0, 0
    logits = module(batch["images"]).tolist()
    for label, row in zip(batch["labels"].tolist(), logits, strict=True):
        total = sum(map(math.exp, row))
        for index, logit in enumerate(row):
            target = (index == label) * (1 - smoothing) + smoothing / 3
            expected -= target * math.log(math.exp(logit) / total)
        correct += row[label] == max(row)
    assert terms["loss"].item() == pytest.approx(expected / 4, rel=1e-5)
    assert terms["accuracy"].item() == pytest.approx(correct / 4)


@pytest.mark.parametrize("multi_label", [True, False])
def test_validation_measures_as_training_does_without_smoothing(multi_label: bool) -> None:
    module, batch = make_classifier(0.2, multi_label=multi_label)
    module.validation_step(batch, 0, 0)
    module.validation_step({**batch, "labels": 1 - LABELS}, 0, 1)  # training images are ignored
    expected = make_classifier(0.0, multi_label=multi_label)[0].training_step(batch, 0)
    assert module.accuracy.compute().item() == pytest.approx(expected["accuracy"].item())
    assert module.validation_loss.compute().item() == pytest.approx(expected["loss"].item())


def test_validation_is_a_mean_over_images_however_they_are_batched() -> None:
    module, batch = make_classifier(0.0, multi_label=False)
    whole = module.training_step(batch, 0)
    for rows in (slice(0, 3), slice(3, 4)):
        module.validation_step({key: value[rows] for key, value in batch.items()}, 0, 0)  # type: ignore
    assert module.validation_loss.compute().item() == pytest.approx(whole["loss"].item())
    assert module.accuracy.compute().item() == pytest.approx(whole["accuracy"].item())


def record_log(module: Any) -> dict[str, float]:
    """What a module logs from now on."""
    logged: dict[str, float] = {}
    module.log = lambda name, value, **_: logged.update({name: float(value)})
    return logged


def test_each_validation_begins_anew() -> None:
    module, batch = make_classifier(0.0, multi_label=False)
    logged = record_log(module)
    module.validation_step({**batch, "images": batch["images"] * 100}, 0, 0)
    module.on_validation_epoch_end()
    module.validation_step(batch, 0, 0)
    module.on_validation_epoch_end()
    expected = module.training_step(batch, 0)
    assert logged["val/loss"] == pytest.approx(expected["loss"].item())
    assert logged["val/accuracy"] == pytest.approx(expected["accuracy"].item())


class IdentityMethod(Method):
    """Logits are the features, or something else where `scale` says so."""

    def __init__(self, scale: float = 1.0, width: int = 2) -> None:
        super().__init__()
        self.scale = scale
        self.width = width

    def forward(self, features: Tensor) -> Tensor:
        return features[:, : self.width] * self.scale

    def loss(self, batch: HashBatch) -> dict[str, Tensor]:
        return {"loss": batch.logits.sum(), "items": torch.tensor(float(len(batch.labels)))}


def make_hashing_module(method: Method, *, head_only: bool = False) -> HashingModule:
    return HashingModule(Identity(), method, head_only=head_only, bits=2, **SHARED)


def make_batch(logits: list[list[float]], labels: list[int]) -> Batch:
    count = len(labels)
    return {
        "images": torch.tensor(logits),
        "labels": torch.tensor(labels),
        "indices": torch.arange(count),
    }


def test_the_loss_is_the_method_s() -> None:
    torch.manual_seed(0)
    method = Joint(2, bits=2, num_classes=3, surrogate="bilinear", tau=2.0, balanced=True)
    module = make_hashing_module(method)
    batch = make_batch([[0.5, -1.0], [2.0, 0.3], [0.0, 1.0]], [0, 1, 0])
    terms = module.training_step(batch, 0)
    expected = method.loss(HashBatch(method(batch["images"]), batch["labels"]))
    assert {k: v.item() for k, v in terms.items()} == {k: v.item() for k, v in expected.items()}


def test_validation_images_are_queries_and_training_images_the_database() -> None:
    module = make_hashing_module(IdentityMethod())
    logged = record_log(module)
    # The query is nearest to the item of another class, then to one of its own, then to the rest:
    # AP = 1/2. With the roles swapped, three queries would each find one item.
    query = make_batch([[1.0, 1.0]], [0])
    database = make_batch([[1.0, 2.0], [1.0, -1.0], [-1.0, -1.0]], [1, 0, 1])
    module.validation_step(query, 0, 0)
    module.validation_step(database, 0, 1)
    module.on_validation_epoch_end()
    assert logged["val/map"] == pytest.approx(0.5)
    module.validation_step(query, 0, 0)
    module.validation_step({**database, "labels": torch.tensor([0, 1, 1])}, 0, 1)
    module.on_validation_epoch_end()
    assert logged["val/map"] == pytest.approx(1.0)  # of the second validation alone


def test_codes_that_are_all_the_same_are_an_error() -> None:
    module = make_hashing_module(IdentityMethod(scale=0.0))
    record_log(module)
    module.validation_step(make_batch([[1.0, 1.0]], [0]), 0, 0)
    module.validation_step(make_batch([[1.0, -1.0], [-1.0, 1.0]], [0, 1]), 0, 1)
    with pytest.raises(UserError, match="codes collapsed"):
        module.on_validation_epoch_end()


def test_logits_that_are_nan_or_of_another_width_are_an_error() -> None:
    batch = make_batch([[1.0, 1.0], [0.0, 2.0]], [0, 1])
    with pytest.raises(UserError, match="logits of validation images are NaN"):
        make_hashing_module(IdentityMethod(scale=math.nan)).validation_step(batch, 0, 0)
    with pytest.raises(UserError, match=r"shape \(2, 1\); it must return .* \(2, 2\)"):
        make_hashing_module(IdentityMethod(width=1)).training_step(batch, 0)


@pytest.mark.parametrize(
    ("make_terms", "message"),
    [
        (lambda loss: None, "returns None; it must return a dictionary of scalar tensors"),
        (lambda loss: loss, r"returns a tensor of shape \(\); it must"),
        (lambda loss: {"los": loss}, r"returns the terms \['los'\]; it must .* one of them 'loss'"),
        (lambda loss: {}, r"returns the terms \[\]"),
        (lambda loss: {"loss": loss.expand(3)}, r"returns a tensor of shape \(3,\) as 'loss'"),
        (lambda loss: {"loss": loss.item()}, "returns a float as 'loss'"),
        (lambda loss: {"loss": loss, "pairs": None}, "returns None as 'pairs'"),
        (lambda loss: {"loss": loss.detach()}, "'loss' has no gradient"),
        (lambda loss: {"loss": loss.long()}, "'loss' has no gradient"),
    ],
)
def test_terms_that_are_no_loss_are_an_error(
    make_terms: Callable[[Tensor], object], message: str
) -> None:
    method = IdentityMethod()
    method.loss = lambda batch: make_terms(batch.logits.sum())  # type: ignore
    module = make_hashing_module(method)
    batch = make_batch([[1.0, 1.0], [0.0, 2.0]], [0, 1])
    batch["images"].requires_grad_()
    with pytest.raises(UserError, match=f"^method: IdentityMethod.loss:? {message}"):
        module.training_step(batch, 0)


def test_logits_that_are_no_tensor_are_an_error() -> None:
    method = IdentityMethod()
    method.forward = lambda features: (features, features)  # type: ignore
    batch = make_batch([[1.0, 1.0], [0.0, 2.0]], [0, 1])
    with pytest.raises(UserError, match="^method: IdentityMethod.forward returns a tuple; it must"):
        make_hashing_module(method).training_step(batch, 0)


def test_the_trained_parameters_are_the_head_s_or_all() -> None:
    def names(head_only: bool) -> tuple[list[str], list[str]]:
        method = Joint(2, bits=2, num_classes=3, surrogate="bilinear", tau=2.0, balanced=True)
        backbone = nn.Linear(2, 2)
        backbone.num_features = 2  # type: ignore[assignment]
        module = HashingModule(backbone, method, head_only=head_only, bits=2, **SHARED)
        with_gradient = [name for name, p in module.named_parameters() if p.requires_grad]
        return list(module.trained_parameters()), with_gradient

    head = ["method.head.weight", "method.head.bias"]
    assert names(head_only=True) == (head, head)
    both = ["backbone.weight", "backbone.bias", *head]
    assert names(head_only=False) == (both, both)


def test_a_checkpoint_holds_the_identity() -> None:
    checkpoint: dict[str, Any] = {}
    make_hashing_module(IdentityMethod()).on_save_checkpoint(checkpoint)
    assert checkpoint == {"deephash": {"bits": 2}, "cache_key": "", "trained_from": ""}


def test_features_are_those_of_the_backbone() -> None:
    batch = make_batch([[1.0, 2.0]], [0])
    assert FeatureExtractor(Identity()).predict_step(batch, 0).tolist() == [[1.0, 2.0]]
