"""The losses of twenty steps of each method and phase are those of the golden file.

Where a change moves them on purpose, `python tests/golden/rewrite.py "why"` writes them anew.

The tolerance is 1e-9, relative. Instruction sets differ in the order of their sums: without AVX,
with AVX2 and with AVX-512 the losses differ by 5e-15 at most after twenty steps. A rate that is
wrong by a millionth moves the second loss by 2e-9 and the last by 2e-4.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import options
from training_losses import PHASES, STEPS, LossRecorder, train

from deephash.experiment.settings import Settings

GOLDEN = json.loads((Path(__file__).parent / "losses.json").read_text())
REWRITE = 'run: python tests/golden/rewrite.py "why they change"'

Trained = tuple[str, Settings, dict[str, LossRecorder]]


@pytest.fixture(scope="module", params=options("method"))
def trained(request: pytest.FixtureRequest) -> Trained:
    return request.param, *train(request.param)


@pytest.mark.parametrize("phase", PHASES)
def test_losses_are_those_of_the_golden_file(phase: str, trained: Trained) -> None:
    method, _, recorders = trained
    losses = recorders[phase].losses
    assert len(losses) == STEPS
    assert method in GOLDEN["losses"], f"no losses of method={method}; {REWRITE}"
    expected = GOLDEN["losses"][method][phase]
    assert losses == pytest.approx(expected, rel=1e-9), f"method={method}, {phase}; {REWRITE}"


def test_the_golden_file_has_a_reason_and_no_other_methods() -> None:
    assert GOLDEN["losses"].keys() == set(options("method")), REWRITE
    assert GOLDEN["reasons"]
    assert all(reason.strip() for reason in GOLDEN["reasons"])


def test_the_first_loss_of_the_pre_training_is_a_smoothed_cross_entropy(trained: Trained) -> None:
    _, settings, recorders = trained
    recorder = recorders["pretrain"]
    smoothing = settings.training["pretrain"].label_smoothing  # type: ignore[union-attr]
    assert smoothing > 0
    backbone, classifier = recorder.module["backbone"], recorder.module["classifier"]
    with torch.no_grad():
        logits = classifier(backbone(recorder.batch["images"])).tolist()
    total = 0.0
    for label, row in zip(recorder.batch["labels"].tolist(), logits, strict=True):
        log_sum = math.log(sum(map(math.exp, row)))
        log_probabilities = [logit - log_sum for logit in row]
        total -= (1 - smoothing) * log_probabilities[label]
        total -= smoothing * sum(log_probabilities) / len(row)
    assert recorder.losses[0] == pytest.approx(total / len(logits), rel=1e-12)


def joint_loss(logits: np.ndarray, similar: np.ndarray, settings: dict[str, Any]) -> float:
    """The loss of `Joint` over all pairs of two images, by the formulas of its docstring."""
    bits, tau = logits.shape[1], settings["tau"]
    y = np.where(similar, 1.0, -1.0)

    def s(u: np.ndarray) -> np.ndarray:
        return 2 / (1 + np.exp(-u)) - 1

    if settings["surrogate"] == "bilinear":
        products = s(logits[:, None, :] * logits[None, :, :])
        losses = np.exp(-tau * y * products.sum(axis=2) / bits)
    else:
        products = s(logits)[:, None, :] * s(logits)[None, :, :]
        factors = math.cosh(tau / bits) - y[:, :, None] * math.sinh(tau / bits) * products
        losses = factors.prod(axis=2)
    losses = losses / math.cosh(tau / bits) ** bits
    pairs = ~np.eye(len(logits), dtype=bool)
    if settings["balanced"]:
        return (losses[pairs & similar].mean() + losses[pairs & ~similar].mean()) / 2
    return losses[pairs].mean()


NAIVE_LOSSES: dict[str, Callable[[np.ndarray, np.ndarray, dict[str, Any]], float]] = {
    "joint": joint_loss
}


@pytest.mark.parametrize("phase", ["init", "hash"])
def test_the_first_loss_of_hashing_is_that_of_the_formula(phase: str, trained: Trained) -> None:
    method, settings, recorders = trained
    if method not in NAIVE_LOSSES:
        pytest.skip(f"{method} has no formula in NAIVE_LOSSES")
    recorder = recorders[phase]
    labels = recorder.batch["labels"].numpy()
    with torch.no_grad():
        images = recorder.batch["images"]
        features = images if phase == "init" else recorder.module["backbone"](images)
        head = recorder.module["method"].head
        logits = features.numpy() @ head.weight.numpy().T + head.bias.numpy()
    similar = labels[:, None] == labels[None, :]
    expected = NAIVE_LOSSES[method](logits, similar, settings.method)
    assert recorder.losses[0] == pytest.approx(expected, rel=1e-12)
