"""Encode the queries and the database of a run, and evaluate their codes."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl

from deephash.core.ranks import is_rank_zero
from deephash.experiment.settings import Evaluation
from deephash.inference.encode import encode_features
from deephash.metrics.code_health import code_health
from deephash.metrics.ranking import Ranking, evaluate_codes
from deephash.training.features import extract_features
from deephash.training.state import Model, TrainingData

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Codes:
    """The codes of a part of a split.

    Attributes:
        ids: of the images, strings (n,).
        words: packed codes, uint64 (n, ceil(bits / 64)).
        labels: class indices (n,) or multi-hot (n, classes).
    """

    ids: npt.NDArray[Any]
    words: npt.NDArray[np.uint64]
    labels: npt.NDArray[Any]


def encode_parts(
    model: Model, data: TrainingData, make_trainer: Callable[..., pl.Trainer]
) -> dict[str, Codes]:
    """The codes of queries and database; on rank zero alone, where the others have none."""
    codes = {}
    for part in ("query", "database"):
        indices = data.split.arrays()[part]
        features = extract_features(model.backbone, data.serve(2), indices, make_trainer)
        if is_rank_zero():
            words = encode_features(model.method, features)
            labels = data.image_set.labels.numpy()[indices]
            codes[part] = Codes(data.image_set.ids[indices], words, labels)
    return codes


def limit_ranks(evaluation: Evaluation, database_size: int) -> Evaluation:
    """How to evaluate, with rankings cut at the database's size where they would be cut beyond."""
    if max(evaluation.ks, default=0) <= database_size:
        return evaluation
    ks = sorted({min(k, database_size) for k in evaluation.ks})
    if is_rank_zero():
        logger.warning(
            "evaluation.ks=%s becomes %s: the database has %s images",
            evaluation.ks,
            ks,
            f"{database_size:,}",
        )
    return evaluation.model_copy(update={"ks": ks})


def evaluate_parts(
    codes: dict[str, Codes], bits: int, evaluation: Evaluation
) -> tuple[Ranking, dict[str, float]]:
    """The ranking of the database for the queries, and all scalar metrics of the run."""
    query, database = codes["query"], codes["database"]
    ranking = evaluate_codes(
        query.words,
        query.labels,
        database.words,
        database.labels,
        bits,
        ks=tuple(evaluation.ks),
        radius=evaluation.radius,
        database_order=True,
    )
    return ranking, ranking.scalars | code_health(database.words, bits)
