import math

import pytest
import torch
from torch import Tensor

from deephash.methods import joint
from deephash.methods.base import HashBatch
from deephash.methods.joint import Joint, pair_losses

SURROGATES = ["factored", "bilinear"]


def naive_pair(u: list[float], v: list[float], y: int, tau: float, surrogate: str) -> float:
    """Loss of one pair, directly from the formula, not divided by cosh(tau/K)^K."""
    k = len(u)
    if surrogate == "factored":
        s = [[2 / (1 + math.exp(-x)) - 1 for x in logits] for logits in (u, v)]
        return math.prod(
            math.cosh(tau / k) - y * math.sinh(tau / k) * a * b for a, b in zip(*s, strict=True)
        )
    product = sum(2 / (1 + math.exp(-a * b)) - 1 for a, b in zip(u, v, strict=True))
    return math.exp(-tau / k * y * product)


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("bits", [3, 12, 19])
@pytest.mark.parametrize("pairs_per_chunk", [joint.PAIRS_PER_CHUNK, 14])  # 14: two rows
def test_equals_naive_double_loop(
    surrogate: str, balanced: bool, bits: int, pairs_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint, "PAIRS_PER_CHUNK", pairs_per_chunk)
    torch.manual_seed(0)
    n, tau = 7, 5.0
    logits = torch.randn(n, bits, dtype=torch.float64) * 2
    labels = torch.tensor([0, 1, 2, 0, 1, 0, 2])
    sums = {1: [0.0, 0], -1: [0.0, 0]}
    for i in range(n):
        for j in range(n):
            if i != j:
                y = 1 if labels[i] == labels[j] else -1
                sums[y][0] += naive_pair(logits[i].tolist(), logits[j].tolist(), y, tau, surrogate)
                sums[y][1] += 1
    if balanced:
        expected = sum(total / count for total, count in sums.values()) / 2
    else:
        expected = sum(s[0] for s in sums.values()) / sum(s[1] for s in sums.values())
    method = Joint(4, bits, 3, surrogate=surrogate, tau=tau, balanced=balanced)
    loss = method.loss(HashBatch(logits, labels))["loss"].item()
    assert loss * math.cosh(tau / bits) ** bits == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("pairs_per_chunk", [joint.PAIRS_PER_CHUNK, 14])
def test_gradient_equals_finite_differences(
    surrogate: str, balanced: bool, pairs_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint, "PAIRS_PER_CHUNK", pairs_per_chunk)
    torch.manual_seed(1)
    logits = torch.randn(6, 11, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 1, 0, 2, 0])
    method = Joint(4, 11, 3, surrogate=surrogate, tau=6.0, balanced=balanced)
    assert torch.autograd.gradcheck(lambda u: method.loss(HashBatch(u, labels))["loss"], logits)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_equals_exponentiated_loss_on_codes(surrogate: str) -> None:
    # With logits far from 0, both surrogates are exp(-tau Y <b, b'> / K) of the codes.
    torch.manual_seed(2)
    codes = torch.randn(9, 12, dtype=torch.float64).sign()
    similar = torch.rand(9, 9) < 0.5
    tau = 4.0
    inner = codes @ codes.T / 12
    expected = torch.exp(-tau * torch.where(similar, inner, -inner))
    losses = pair_losses(codes * 100, codes * 100, similar, surrogate=surrogate, tau=tau)
    torch.testing.assert_close(losses * math.cosh(tau / 12) ** 12, expected)


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("tau", [1e-3, 1.0, 50.0, 1e3, 1e6])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("bits", [1, 12, 128])
def test_is_finite_for_every_tau(surrogate: str, tau: float, scale: float, bits: int) -> None:
    torch.manual_seed(3)
    logits = (torch.randn(16, bits) * scale).requires_grad_()
    labels = torch.arange(16) % 3
    method = Joint(4, bits, 3, surrogate=surrogate, tau=tau, balanced=True)
    loss = method.loss(HashBatch(logits, labels))["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_zero_logits_have_loss_one() -> None:
    zeros = torch.zeros(3, 20)
    losses = pair_losses(zeros, zeros, torch.eye(3) > 0, surrogate="factored", tau=9.0)
    torch.testing.assert_close(losses, torch.ones(3, 3))


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_memory_depends_on_the_batch_and_the_chunk_of_pairs_only(
    surrogate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def saved_for_backward(n: int, bits: int) -> int:
        sizes: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.numel()
            return tensor

        logits = torch.randn(n, bits, requires_grad=True)
        method = Joint(4, bits, 3, surrogate=surrogate, tau=2.0, balanced=True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = method.loss(HashBatch(logits, torch.arange(n) % 3))["loss"]
        assert loss.requires_grad
        return sum(sizes.values())

    one_pair_matrix = 50 * 50
    assert saved_for_backward(50, 128) - saved_for_backward(50, 8) <= 3 * one_pair_matrix
    monkeypatch.setattr(joint, "PAIRS_PER_CHUNK", one_pair_matrix)
    assert saved_for_backward(500, 8) <= one_pair_matrix + 500 * 8 * 4


def test_multi_label_pairs_are_similar_if_they_share_a_label() -> None:
    labels = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=torch.uint8)
    logits = torch.randn(4, 5, dtype=torch.float64)
    y = {(0, 1): 1, (0, 2): -1, (1, 2): 1, (0, 3): -1, (1, 3): -1, (2, 3): -1}
    mean = {1: [], -1: []}
    for (i, j), sign in y.items():
        mean[sign].append(naive_pair(logits[i].tolist(), logits[j].tolist(), sign, 2.0, "factored"))
    expected = sum(sum(v) / len(v) for v in mean.values()) / 2
    method = Joint(4, 5, 3, surrogate="factored", tau=2.0, balanced=True)
    loss = method.loss(HashBatch(logits, labels))["loss"].item()
    assert loss * math.cosh(2.0 / 5) ** 5 == pytest.approx(expected, rel=1e-12)


def test_mean_of_similar_pairs_is_zero_in_a_batch_without_any() -> None:
    logits = torch.randn(3, 5, dtype=torch.float64)
    dissimilar = [
        naive_pair(logits[i].tolist(), logits[j].tolist(), -1, 2.0, "factored")
        for i in range(3) for j in range(3) if i != j
    ]  # fmt: skip
    method = Joint(4, 5, 3, surrogate="factored", tau=2.0, balanced=True)
    loss = method.loss(HashBatch(logits, torch.arange(3)))["loss"].item()
    assert loss * math.cosh(2.0 / 5) ** 5 == pytest.approx(sum(dissimilar) / len(dissimilar) / 2)


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan])
def test_refuses_tau_that_is_not_positive(tau: float) -> None:
    with pytest.raises(ValueError, match=f"tau={tau}: give a number greater than 0"):
        Joint(4, 8, 2, surrogate="factored", tau=tau, balanced=True)
