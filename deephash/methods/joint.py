"""The joint approach of Mu and Liu: a smooth approximation of an exponentiated loss on codes."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deephash.core.distributed import all_reduce_sum, local_rows
from deephash.methods.base import HashBatch, Method, shares_label

# These bound the memory of each intermediate value of the loss to 512 MB, for any batch and bits.
BITS_PER_SLICE = 8
PAIRS_PER_CHUNK = 2**24


class Joint(Method):
    """Linear hash head with the exponentiated hashing loss.

    With codes b in {-1, +1}^K and Y_ij = +1 for similar, -1 for dissimilar pairs, the loss of a
    pair is exp(-tau * Y_ij * <b_i, b_j> / K). Both surrogates replace the codes by logits u, with
    s(u) = 2 / (1 + exp(-u)) - 1 = tanh(u / 2):

    - "bilinear": the product of two bits is relaxed, b_i(k) * b_j(k) ~ s(u_i(k) * u_j(k)).
    - "factored": the factor of each bit is exactly bilinear in the bits of the two codes,
      exp(-tau * Y * b_i(k) * b_j(k) / K) = cosh(tau/K) - Y * sinh(tau/K) * b_i(k) * b_j(k);
      in this form each bit is relaxed to s(u).

    Both are divided by the constant cosh(tau/K)^K, which is the loss of a pair at zero logits with
    "factored". This moves no minimum, and bounds the loss of a pair by 2^K for every tau.

    The paper (AAAI 2017, arXiv:1608.03658) names the "exponentiated hashing loss" and its "bilinear
    smooth approximation"; whether its formulas are exactly these is unverified. `tau` and
    `balanced` are additions of this project.

    Args:
        num_features: width of the features.
        bits: code length K.
        num_classes: unused; every method takes it.
        surrogate: "bilinear" or "factored".
        tau: sharpness of the exponential, greater than 0.
        balanced: average the mean loss of the similar pairs and that of the dissimilar pairs with
            equal weight; otherwise take the mean over all pairs.

    Raises:
        ValueError: tau is not greater than 0.

    Example:
        >>> method = Joint(4, bits=8, num_classes=2, surrogate="bilinear", tau=2.0, balanced=True)
        >>> logits = method(torch.randn(6, 4))
        >>> logits.shape
        torch.Size([6, 8])
        >>> method.loss(HashBatch(logits, torch.tensor([0, 0, 0, 1, 1, 1])))["loss"].backward()
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
            raise ValueError(f"tau={tau}: give a number greater than 0")
        self.head = nn.Linear(num_features, bits)
        self.surrogate = surrogate
        self.tau = tau
        self.balanced = balanced

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features)

    def loss(self, batch: HashBatch) -> dict[str, Tensor]:
        count = len(batch.logits)
        chunks = local_rows(count, batch.logits.device).split(max(1, PAIRS_PER_CHUNK // count))
        if len(chunks) == 1:
            sums = self._pair_sums(batch, chunks[0])
        else:
            sums = torch.stack(
                [_call_with_recompute(self._pair_sums, batch, rows) for rows in chunks]
            ).sum(dim=0)
        return {"loss": mean_over_pairs(all_reduce_sum(sums), balanced=self.balanced)}

    def _pair_sums(self, batch: HashBatch, rows: Tensor) -> Tensor:
        """Compute `sum_over_pairs` for the pairs of these rows with all rows."""
        similar = shares_label(batch.labels[rows], batch.labels)
        distinct = torch.ones_like(similar)
        distinct[torch.arange(len(rows), device=rows.device), rows] = False
        losses = pair_losses(
            batch.logits[rows], batch.logits, similar, surrogate=self.surrogate, tau=self.tau
        )
        return sum_over_pairs(losses, similar, distinct)


def pair_losses(
    logits: Tensor,
    others: Tensor,
    similar: Tensor,
    *,
    surrogate: Literal["bilinear", "factored"],
    tau: float,
) -> Tensor:
    """Compute the smooth loss of each pair, divided by cosh(tau/K)^K.

    Takes O(n * m * bits) time and O(n * m) memory, forward and backward, because the backward pass
    recomputes each slice of bits.

    Args:
        logits: (n, bits), float32 or float64.
        others: (m, bits), of the same type.
        similar: which pairs are similar, bool (n, m).
        surrogate: "bilinear" or "factored".
        tau: sharpness of the exponential.

    Returns:
        losses in [0, 2^bits], (n, m).
    """
    bits = logits.shape[1]
    sharpness = tau / bits
    sign = torch.where(similar, 1.0, -1.0).to(logits.dtype)
    log_loss = torch.zeros_like(sign)
    slice_loss = _log_factored if surrogate == "factored" else _log_bilinear
    slices = zip(*(side.split(BITS_PER_SLICE, dim=1) for side in (logits, others)), strict=True)
    for a, b in slices:
        log_loss = log_loss + _call_with_recompute(slice_loss, a, b, sign, sharpness)
    return log_loss.exp()


def _call_with_recompute(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Call a function without keeping its intermediate values; the backward pass calls it again."""
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


def _log_factored(logits: Tensor, others: Tensor, sign: Tensor, sharpness: float) -> Tensor:
    # log[(cosh a - Y sinh a x) / cosh a] = log[(1 - t) + t (1 - Y x)] with t = tanh a. Written with
    # 1 - t, it stays finite where t and x round to 1. The lower bound of 1 - t keeps it finite in
    # float32, too.
    one_minus_t = max(2 / (math.exp(min(2 * sharpness, 700)) + 1), 1e-30)
    product = torch.tanh(logits / 2)[:, None, :] * torch.tanh(others / 2)[None, :, :]
    return torch.log(one_minus_t + (1 - one_minus_t) * (1 - sign[:, :, None] * product)).sum(dim=2)


def _log_bilinear(logits: Tensor, others: Tensor, sign: Tensor, sharpness: float) -> Tensor:
    # log cosh a = a + log(1 + exp(-2a)) - log 2, without overflow.
    log_cosh = sharpness + math.log1p(math.exp(-2 * sharpness)) - math.log(2)
    product = torch.tanh(logits[:, None, :] * others[None, :, :] / 2)
    return -sharpness * sign * product.sum(dim=2) - log_cosh * logits.shape[1]


def sum_over_pairs(losses: Tensor, similar: Tensor, distinct: Tensor) -> Tensor:
    """Sum the losses of the similar and of the dissimilar pairs, and count these pairs.

    Args:
        losses: (n, m).
        similar: which pairs are similar, bool (n, m).
        distinct: which pairs consist of two different items, bool (n, m); the others are ignored.

    Returns:
        one row for the similar and one for the dissimilar pairs, each with the sum of the losses
        and the number of pairs, (2, 2).
    """
    kinds = similar & distinct, ~similar & distinct
    return torch.stack([torch.stack([(losses * kind).sum(), kind.sum()]) for kind in kinds])


def mean_over_pairs(sums: Tensor, *, balanced: bool) -> Tensor:
    """Average the losses of the pairs.

    Args:
        sums: sums and counts from `sum_over_pairs`, (2, 2).
        balanced: give the mean of the similar pairs and that of the dissimilar pairs equal weight.
            If a batch has no pairs of one kind, the mean of that kind is 0.

    Example:
        >>> sums = torch.tensor([[6.0, 2.0], [4.0, 4.0]])
        >>> mean_over_pairs(sums, balanced=True)  # (6 / 2 + 4 / 4) / 2
        tensor(2.)
        >>> mean_over_pairs(sums, balanced=False)  # (6 + 4) / (2 + 4)
        tensor(1.6667)
    """
    if not balanced:
        sums = sums.sum(dim=0, keepdim=True)
    return (sums[:, 0] / sums[:, 1].clamp(min=1)).mean()
