"""The joint approach of Mu & Liu: an exponentiated loss on code products, smoothly approximated."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deephash.core.distributed import all_reduce_sum, local_rows
from deephash.methods.base import HashBatch, Method, shares_label

BITS_AT_ONCE = 8  # bound the memory of the loss: 512 MB for each of its intermediate values,
PAIRS_AT_ONCE = 2**24  # however long the codes and large the batch


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
        count = len(batch.logits)
        parts = local_rows(count, batch.logits.device).split(max(1, PAIRS_AT_ONCE // count))
        if len(parts) == 1:
            sums = self._sums(batch, parts[0])
        else:
            sums = torch.stack([_recomputed(self._sums, batch, some) for some in parts]).sum(dim=0)
        return {"loss": mean_over_pairs(all_reduce_sum(sums), balanced=self.balanced)}

    def _sums(self, batch: HashBatch, rows: Tensor) -> Tensor:
        """`sums_over_pairs` of these rows with all."""
        alike = shares_label(batch.labels[rows], batch.labels)
        distinct = torch.ones_like(alike)
        distinct[torch.arange(len(rows), device=rows.device), rows] = False
        losses = pair_losses(
            batch.logits[rows], batch.logits, alike, surrogate=self.surrogate, tau=self.tau
        )
        return sums_over_pairs(losses, alike, distinct)


def pair_losses(
    logits: Tensor,
    others: Tensor,
    alike: Tensor,
    *,
    surrogate: Literal["bilinear", "factored"],
    tau: float,
) -> Tensor:
    """The smooth loss of each pair, divided by cosh(tau/K)^K.

    O(n * m * bits) time; O(n * m) memory, forward and backward: each slice of bits is recomputed in
    the backward pass.

    Args:
        logits: (n, bits), float32 or float64.
        others: (m, bits), likewise.
        alike: bool (n, m), which pairs are similar.
        surrogate: "bilinear" or "factored".
        tau: sharpness of the exponential.

    Returns:
        (n, m), in [0, 2^bits].
    """
    bits = logits.shape[1]
    sharpness = tau / bits
    sign = torch.where(alike, 1.0, -1.0).to(logits.dtype)
    log_loss = torch.zeros_like(sign)
    part = _log_factored if surrogate == "factored" else _log_bilinear
    slices = zip(*(side.split(BITS_AT_ONCE, dim=1) for side in (logits, others)), strict=True)
    for one, other in slices:
        log_loss = log_loss + _recomputed(part, one, other, sign, sharpness)
    return log_loss.exp()


def _recomputed(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Its value; in the backward pass it is called again, and nothing of its inside is kept."""
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


def _log_factored(logits: Tensor, others: Tensor, sign: Tensor, sharpness: float) -> Tensor:
    # log[(cosh a - Y sinh a x) / cosh a] = log[(1 - t) + t (1 - Y x)] with t = tanh a. Written with
    # 1 - t, it stays finite where t and x round to 1; the floor keeps it so in float32.
    one_minus_t = max(2 / (math.exp(min(2 * sharpness, 700)) + 1), 1e-30)
    product = torch.tanh(logits / 2)[:, None, :] * torch.tanh(others / 2)[None, :, :]
    return torch.log(one_minus_t + (1 - one_minus_t) * (1 - sign[:, :, None] * product)).sum(dim=2)


def _log_bilinear(logits: Tensor, others: Tensor, sign: Tensor, sharpness: float) -> Tensor:
    # log cosh a = a + log(1 + exp(-2a)) - log 2, without overflow.
    log_cosh = sharpness + math.log1p(math.exp(-2 * sharpness)) - math.log(2)
    product = torch.tanh(logits[:, None, :] * others[None, :, :] / 2)
    return -sharpness * sign * product.sum(dim=2) - log_cosh * logits.shape[1]


def sums_over_pairs(losses: Tensor, alike: Tensor, distinct: Tensor) -> Tensor:
    """Of the similar, then of the dissimilar pairs the sum of the losses and the number: (2, 2).

    Args:
        losses: (n, m).
        alike: bool (n, m), which pairs are similar.
        distinct: bool (n, m), which pairs are two items.
    """
    kinds = alike & distinct, ~alike & distinct
    return torch.stack([torch.stack([(losses * kind).sum(), kind.sum()]) for kind in kinds])


def mean_over_pairs(sums: Tensor, *, balanced: bool) -> Tensor:
    """Mean over the pairs; `balanced`: half the mean of the similar, half of the dissimilar.

    A batch without similar (or without dissimilar) pairs counts that mean as 0.

    Args:
        sums: of `sums_over_pairs`.
        balanced: see above.
    """
    if not balanced:
        sums = sums.sum(dim=0, keepdim=True)
    return (sums[:, 0] / sums[:, 1].clamp(min=1)).mean()
