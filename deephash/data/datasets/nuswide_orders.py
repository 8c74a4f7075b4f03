"""The order of the columns of NUS-WIDE's lists, by how often each column is 1."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deephash.core.errors import UserError
from deephash.data.datasets.nuswide_files import CONCEPTS, FREQUENT

# If the columns of a list are read in the right order, the logarithms of their counts correlate
# with those of all images. For the 2,100 queries, drawn evenly from the classes, the correlation is
# still 0.76, and 0.40 in the wrong order.
MIN_CORRELATION, MIN_CORRELATION_MARGIN = 0.6, 0.2
MIN_LIST_IMAGES = 15  # the counts of fewer may be in either order by chance

logger = logging.getLogger(__name__)


def check_orders(places: list[Path], labels: list[npt.NDArray[np.uint8]]) -> None:
    """Refuse lists whose columns are in different orders, each clearly, by their counts."""
    orders: dict[str, Path] = {}  # an order, and the first list in it
    for place, values in zip(places, labels, strict=True):
        if len(values) < MIN_LIST_IMAGES:
            continue
        order = _find_clear_order(_correlate(place, values.sum(axis=0)))
        if order:
            orders.setdefault(order, place)
    if len(orders) > 1:
        (order, place), (other_order, other) = orders.items()
        raise UserError(
            f"By their counts, the columns of {place} are in {order} order, but those of {other} "
            f"in {other_order} order. Write them in the same order, or name the concepts in the "
            "first line of each list, as .csv."
        )


def infer_concepts(
    source: Path, counts: npt.NDArray[np.integer], order: str | None
) -> Sequence[str]:
    """Concepts of the columns of a list, by how often each column is 1."""
    orders = _find_possible_orders(source, len(counts))
    if order is not None:
        return _check_length(source, orders[order], counts)
    correlations = _correlate(source, counts)
    best = _find_clear_order(correlations)
    if best is None:
        shown = ", ".join(f"{name} {value:.2f}" for name, value in correlations.items())
        raise UserError(
            f"{source}: the order of its {len(counts)} columns cannot be inferred from their "
            f"counts (correlation {shown}). Set dataset.order=frequency or "
            "dataset.order=alphabetical."
        )
    logger.info("nuswide: the columns are in %s order (correlation %.2f)", best, correlations[best])
    return _check_length(source, orders[best], counts)


def _find_possible_orders(source: Path, column_count: int) -> dict[str, Sequence[str]]:
    """Concepts of so many columns, by the name of their order."""
    frequent = list(FREQUENT)[:column_count]
    known_concepts = {10: frequent, 21: frequent, 81: CONCEPTS}
    if column_count not in known_concepts:
        raise UserError(
            f"{source} has {column_count} labels per line: lists of NUS-WIDE have 81, 21 or 10. "
            "Remove other columns, or name the concepts in the first line of a .csv; if the labels "
            "are in files of their own, name these with dataset.label_files=[...]."
        )
    return {"alphabetical": sorted(known_concepts[column_count]), "frequency": frequent}


def _correlate(source: Path, counts: npt.NDArray[np.integer]) -> dict[str, float]:
    """Correlation with the counts of all images, by the name of the order of the columns."""
    frequent = list(FREQUENT)[: len(counts)]
    expected = np.log(list(FREQUENT.values())[: len(frequent)])
    correlations = {}
    for name, concepts in _find_possible_orders(source, len(counts)).items():
        log_counts = np.log1p([counts[concepts.index(concept)] for concept in frequent])
        correlation = np.corrcoef(log_counts, expected)[0, 1] if log_counts.std() else 0.0
        correlations[name] = float(correlation)
    return correlations


def _find_clear_order(correlations: dict[str, float]) -> str | None:
    """The order of the columns; None if it is not clear."""
    best = max(correlations, key=lambda name: correlations[name])
    margin = correlations[best] - min(correlations.values())
    is_clear = correlations[best] >= MIN_CORRELATION and margin >= MIN_CORRELATION_MARGIN
    return best if is_clear else None


def _check_length(source: Path, concepts: Sequence[str], counts: npt.NDArray) -> Sequence[str]:
    if len(concepts) != len(counts):
        raise UserError(
            f"{source}: 81 columns can only be in alphabetical order. Set "
            "dataset.order=alphabetical."
        )
    return concepts
