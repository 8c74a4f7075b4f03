"""The joint approach of Mu & Liu: an exponentiated loss on code products, smoothly approximated."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deephash.methods.base import HashBatch, Method, shares_label

BITS_AT_ONCE = 8  # bounds the memory of the loss to O(n^2 * BITS_AT_ONCE), whatever the code length


class Joint(Method):
    """Linear hash head under the exponentiated hashing loss.

    With codes b in {-1, +1}^K and Y_ij = +1 for similar, -1 for dissimilar pairs, the loss of a
    pair is exp(-tau * Y_ij * <b_i, b_j> / K). Both surrogates replace the codes by logits u, with
    s(u) = 2 / (1 + exp(-u)) - 1 = tanh(u / 2):

    - "bilinear": the product of two bits is relaxed as one, b_i(k) * b_j(k) ~ s(u_i(k) * u_j(k)).
    - "factored": on codes, each bit's factor is exactly bilinear in the two bits,
      exp(-tau * Y * b_i(k) * b_j(k) / K) = cosh(tau/K) - Y * sinh(tau/K) * b_i(k) * b_j(k);
      the bits are then relaxed to s(u).

    Both are divided by the constant cosh(tau/K)^K, the loss of a pair at zero logits under
    "factored". It changes no minimum and bounds the loss of a pair by 2^K, whatever tau.

    The paper (AAAI 2017, arXiv:1608.03658) names the "exponentiated hashing loss" and its "bilinear
    smooth approximation"; that its formulas are exactly these is unverified. tau and `balanced`
    are ours.

    Args:
        num_features: width of the features.
        bits: code length K.
        num_classes: unused, part of the contract.
        surrogate: "bilinear" or "factored".
        tau: sharpness of the exponential, > 0.
        balanced: average over similar and over dissimilar pairs apart, then halve; else over all.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(
        self,
        num_features: int,
        bits: int,
        num_classes: int,
        *,
        surrogate: Literal["bilinear", "factored"],
        tau: float,
        balanced: bool,
    ) -> None:
        super().__init__()
        if not tau > 0:
            raise ValueError(f"method.tau={tau}: must be greater than 0")
        self.head = nn.Linear(num_features, bits)
        self.surrogate = surrogate
        self.tau = tau
        self.balanced = balanced

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features)

    def loss(self, batch: HashBatch) -> dict[str, Tensor]:
        alike = shares_label(batch.labels, batch.labels)
        losses = pair_losses(batch.logits, alike, surrogate=self.surrogate, tau=self.tau)
        return {"loss": mean_over_pairs(losses, alike, balanced=self.balanced)}


def pair_losses(
    logits: Tensor, alike: Tensor, *, surrogate: Literal["bilinear", "factored"], tau: float
) -> Tensor:
    """The smooth loss of each pair, divided by cosh(tau/K)^K.

    O(n^2 * bits) time; O(n^2) memory, forward and backward: each slice of bits is recomputed in the
    backward pass.

    Args:
        logits: (n, bits), float32 or float64.
        alike: bool (n, n), which pairs are similar.
        surrogate: "bilinear" or "factored".
        tau: sharpness of the exponential.

    Returns:
        (n, n), in [0, 2^bits].
    """
    bits = logits.shape[1]
    sharpness = tau / bits
    sign = torch.where(alike, 1.0, -1.0).to(logits.dtype)
    log_loss = torch.zeros_like(sign)
    part = _log_factored if surrogate == "factored" else _log_bilinear
    for some in logits.split(BITS_AT_ONCE, dim=1):
        log_loss = log_loss + checkpoint(
            part, some, sign, sharpness, use_reentrant=False, preserve_rng_state=False
        )
    return log_loss.exp()


def _log_factored(logits: Tensor, sign: Tensor, sharpness: float) -> Tensor:
    # log[(cosh a - Y sinh a x) / cosh a] = log[(1 - t) + t (1 - Y x)] with t = tanh a. Written with
    # 1 - t, it stays finite where t and x round to 1; the floor keeps it so in float32.
    one_minus_t = max(2 / (math.exp(min(2 * sharpness, 700)) + 1), 1e-30)
    relaxed = torch.tanh(logits / 2)
    product = relaxed[:, None, :] * relaxed[None, :, :]
    return torch.log(one_minus_t + (1 - one_minus_t) * (1 - sign[:, :, None] * product)).sum(dim=2)


def _log_bilinear(logits: Tensor, sign: Tensor, sharpness: float) -> Tensor:
    # log cosh a = a + log(1 + exp(-2a)) - log 2, without overflow.
    log_cosh = sharpness + math.log1p(math.exp(-2 * sharpness)) - math.log(2)
    product = torch.tanh(logits[:, None, :] * logits[None, :, :] / 2)
    return -sharpness * sign * product.sum(dim=2) - log_cosh * logits.shape[1]


def mean_over_pairs(losses: Tensor, alike: Tensor, *, balanced: bool) -> Tensor:
    """Mean over the pairs i != j; `balanced`: half the mean of the similar, half of the dissimilar.

    A batch without similar (or without dissimilar) pairs counts that mean as 0.
    """
    distinct = ~torch.eye(len(alike), dtype=torch.bool, device=alike.device)
    if not balanced:
        return (losses * distinct).sum() / distinct.sum().clamp(min=1)
    kinds = alike & distinct, ~alike & distinct
    halves = [(losses * pairs).sum() / pairs.sum().clamp(min=1) for pairs in kinds]
    return (halves[0] + halves[1]) / 2
