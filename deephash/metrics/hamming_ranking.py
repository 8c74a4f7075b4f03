"""A torchmetrics metric of rankings by Hamming distance."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from deephash.core.distributed import world_size
from deephash.hamming.codes import as_int, pack, sign, word_count
from deephash.hamming.labels import check_labels
from deephash.metrics.code_health import code_health
from deephash.metrics.ranking import check_radius, evaluate_codes


class HammingRanking(Metric):
    """`evaluate_codes` and the `code_health` of the database, over batches and processes.

    Only packed codes and labels are kept and gathered. The sampler must not pad, because an item
    that two processes see counts twice. A process may have no queries, no database or neither.

    Args:
        bits: length of a code.
        ks: ranks to cut the ranking at.
        radius: Hamming radius of the balls.
        kwargs: arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: bits, a rank or the radius is not an integer or out of range.

    Example:
        >>> metric = HammingRanking(bits=2)
        >>> metric.update(torch.tensor([[0.3, 0.9]]), torch.tensor([0]), "query")
        >>> logits = torch.tensor([[1.2, 0.1], [-0.4, -2.0]])
        >>> metric.update(logits, torch.tensor([0, 1]), "database")
        >>> metric.compute()["map"]
        1.0
    """

    full_state_update = False
    query_words: list[Tensor]
    query_labels: list[Tensor]
    database_words: list[Tensor]
    database_labels: list[Tensor]

    def __init__(self, *, bits: int, ks: Sequence[int] = (), radius: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        self.bits, self.radius = as_int(bits, "bits"), as_int(radius, "radius")
        self.ks = tuple(as_int(k, "k") for k in ks)
        self.words_per_code = word_count(self.bits)
        check_radius(self.radius, self.bits)
        if min(self.ks, default=1) < 1:
            raise ValueError(f"ks are {list(ks)}: give ranks from 1")
        for state in ("query_words", "query_labels", "database_words", "database_labels"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor, role: Literal["query", "database"]) -> None:
        """Add a batch of queries or of database items.

        Args:
            logits: logits or codes, (n, bits); they are binarized by their signs.
            labels: class indices (n,) or multi-hot (n, c).
            role: "query" or "database".

        Raises:
            ValueError: logits are not (n, bits) or contain NaN, labels have another length or
                values, or are of another kind than those before, or the role is unknown.
        """
        if role not in ("query", "database"):
            raise ValueError(f"role is {role!r}: give 'query' or 'database'")
        if logits.shape != (len(labels), self.bits):
            raise ValueError(
                f"{role} logits have shape {tuple(logits.shape)} and labels {tuple(labels.shape)}: "
                f"give (n, {self.bits}) logits and as many labels"
            )
        check_labels(labels, f"{role} labels")
        for earlier in (*self.query_labels[-1:], *self.database_labels[-1:]):
            if earlier.shape[1:] != labels.shape[1:]:
                raise ValueError(
                    f"{role} labels have shape {tuple(labels.shape)}, earlier labels "
                    f"{tuple(earlier.shape)}: give all as class indices or all as multi-hot labels "
                    "of one width"
                )
        words = torch.from_numpy(pack(sign(logits)).view(np.int64))  # collectives have no uint64
        getattr(self, f"{role}_words").append(words.to(logits.device))
        getattr(self, f"{role}_labels").append(labels)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: torchmetrics computes the value of each batch here, and a batch has no ranking.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "HammingRanking has no value for a single batch: call update for each batch of queries "
            "and database, then compute"
        )

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        """Gather the states of all processes; one without an update takes part with empty ones."""
        labels = [*self.query_labels, *self.database_labels]
        kinds: list[Any] = [None] * world_size()
        if world_size() > 1:
            dist.all_gather_object(
                kinds, (labels[0].shape[1:], labels[0].dtype) if labels else None
            )
        shape, dtype = next((kind for kind in kinds if kind), ((), torch.int64))
        for role in ("query", "database"):
            words, labels = getattr(self, f"{role}_words"), getattr(self, f"{role}_labels")
            if not words:
                words.append(
                    torch.empty(0, self.words_per_code, dtype=torch.int64, device=self.device)
                )
                labels.append(torch.empty(0, *shape, dtype=dtype, device=self.device))
        super()._sync_dist(*args, **kwargs)

    def compute(self) -> dict[str, float]:
        """Compute the scalars of `evaluate_codes` and `code_health` over all batches."""
        if not sum(map(len, self.query_words)) or not sum(map(len, self.database_words)):
            raise ValueError(
                "there are no queries or no database: call update with role 'query' and with role "
                "'database' before compute"
            )
        query_words, query_labels, database_words, database_labels = (
            dim_zero_cat(state)
            for state in (
                self.query_words,
                self.query_labels,
                self.database_words,
                self.database_labels,
            )
        )
        ranking = evaluate_codes(
            query_words,
            query_labels,
            database_words,
            database_labels,
            self.bits,
            ks=self.ks,
            radius=self.radius,
        )
        return ranking.scalars | code_health(
            database_words.cpu().numpy().view(np.uint64), self.bits
        )
