"""Plots of a run: curves, precision-recall, bit balance, queries with their nearest images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deephash.core.io import atomic_write
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split, strata
from deephash.hamming import knn
from deephash.hamming.codes import unpack
from deephash.methods.base import shares_label
from deephash.metrics.ranking import Ranking
from deephash.training.callbacks import Row

PHASE_COLOURS = ("#4878a8", "#b58a3c", "#5b8f5b", "#9067a7", "#a85048")
HIT, MISS = "#3a923a", "#c03d3e"
NEIGHBOURS = 10


def draw(
    folder: Path,
    *,
    rows: Sequence[Row],
    ranking: Ranking,
    bits: int,
    image_set: ImageSet,
    split: Split,
    query_words: np.ndarray,
    database_words: np.ndarray,
) -> dict[str, Path]:
    """Write all plots of a run into `folder`; return their paths by name."""
    examples = _example_queries(image_set, split)
    figures = {
        "curves": curves(rows),
        "precision_recall": precision_recall(ranking),
        "bit_balance": bit_balance(unpack(database_words, bits)),
        "neighbours": neighbours(image_set, split, examples, query_words[examples], database_words),
    }
    paths = {}
    for name, figure in figures.items():
        paths[name] = folder / f"{name}.png"
        with atomic_write(paths[name]) as path:
            figure.savefig(path, dpi=120)
    return paths


def curves(rows: Sequence[Row]) -> Figure:
    """The training loss over the steps, by phase, and the validation metrics."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, validation = figure.subplots(1, 2)
    names = dict.fromkeys(key.partition("/")[0] for row in rows for key in row if "/loss" in key)
    phases = [name for name in names if name != "val"]
    for phase, colour in zip(phases, PHASE_COLOURS * len(phases), strict=False):
        _line(losses, rows, f"{phase}/loss", color=colour, label=phase)
    for key, style in {"val/map": "o-", "val/accuracy": "s--"}.items():
        _line(validation, rows, key, style, markersize=4, label=key)
    losses.set(xlabel="step", ylabel="training loss", yscale="log")
    validation.set(xlabel="step", ylabel="validation", ylim=(0, 1.02))
    for axes in (losses, validation):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    return figure


def _line(axes: Axes, rows: Sequence[Row], key: str, style: str = "-", **kwargs: object) -> None:
    points = [(row["step"], row[key]) for row in rows if key in row]
    if points:
        axes.plot(*zip(*points, strict=True), style, **kwargs)  # type: ignore[arg-type]


def precision_recall(ranking: Ranking) -> Figure:
    """Precision over recall, one point per Hamming radius."""
    figure = Figure(figsize=(4.5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(ranking.recall, ranking.precision, ".-")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.set_title("per Hamming radius, mean over queries", fontsize=9)
    axes.grid(alpha=0.3)
    return figure


def map_over_bits(lines: Mapping[str, Mapping[int, tuple[float, float]]]) -> Figure:
    """The mAP over code length.

    Args:
        lines: by label, mean and deviation by code length.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for label, points in lines.items():
        means, deviations = zip(*points.values(), strict=True)
        axes.errorbar(list(points), means, deviations, fmt="o-", capsize=3, label=label)
    axes.set(xlabel="bits", ylabel="test mAP, mean and deviation over seeds")
    axes.set_xticks(sorted({bits for points in lines.values() for bits in points}))
    axes.grid(alpha=0.3)
    if any(lines):
        axes.legend()
    return figure


def bit_balance(codes: np.ndarray) -> Figure:
    """Share of +1 in each bit of the database, (n, bits) in {-1, +1}."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.bar(np.arange(codes.shape[1]), (codes > 0).mean(axis=0), width=0.8)
    axes.axhline(0.5, color="black", linewidth=0.8)
    axes.set(xlabel="bit", ylabel="share of +1 in the database", ylim=(0, 1))
    return figure


def neighbours(
    image_set: ImageSet,
    split: Split,
    examples: np.ndarray,
    query_words: np.ndarray,
    database_words: np.ndarray,
) -> Figure:
    """Some queries beside their nearest database images, framed by hit and miss.

    Args:
        image_set: the images.
        split: which are queries and database.
        examples: positions of the queries in `split.query`.
        query_words: their packed codes.
        database_words: packed codes of the database.
    """
    k = min(NEIGHBOURS, len(database_words))
    nearest, distances = knn(query_words, database_words, k=k)
    figure = Figure(figsize=(1 + k, len(examples) * 1.12 + 0.3), layout="constrained")
    grid = figure.subplots(len(examples), 1 + k, squeeze=False)
    for row, position in enumerate(examples):
        query = int(split.query[position])
        items = split.database[nearest[row]]
        hits = shares_label(image_set.labels[query][None], image_set.labels[items])[0]
        _image(grid[row, 0], _pixels(image_set, query), "black")
        for axes, item, hit, distance in zip(
            grid[row, 1:], items, hits, distances[row], strict=True
        ):
            _image(axes, _pixels(image_set, int(item)), HIT if hit else MISS)
            axes.set_title(f"{distance}", fontsize=7, pad=2)
    grid[0, 0].set_title("query", fontsize=8, pad=2)
    figure.suptitle("nearest in the database, with Hamming distance", fontsize=9)
    return figure


def _pixels(image_set: ImageSet, index: int) -> torch.Tensor:
    return image_set.images[torch.tensor([index])][0]


def _image(axes: Axes, image: torch.Tensor, frame: str) -> None:
    pixels = image.permute(1, 2, 0).numpy()
    axes.imshow(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels, cmap="gray_r")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=frame, linewidth=2.5)


def _example_queries(image_set: ImageSet, split: Split) -> np.ndarray:
    """Positions of the first query of each class (of several labels the rarest), ten at most."""
    stratum = strata(image_set.labels.numpy()[split.query])
    return np.unique(stratum, return_index=True)[1][:10]
