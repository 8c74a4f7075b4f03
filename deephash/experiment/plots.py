"""Plots of a run and of a sweep, each as PNG and PDF."""

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from deephash.core.io import atomic_write
from deephash.data.files.names import escape_undecodable
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split, strata
from deephash.hamming import knn
from deephash.hamming.codes import unpack
from deephash.methods.base import shares_label
from deephash.metrics.ranking import Ranking
from deephash.training.callbacks import Row

PHASE_COLOURS = ("#4878a8", "#b58a3c", "#5b8f5b", "#9067a7", "#a85048")
LOSSES = {"classify": "cross-entropy", "hash": "hashing loss"}  # by objective of the phase
VALIDATION = {"val/map": ("o-", "mAP"), "val/accuracy": ("s--", "accuracy")}
HIT, MISS = "#3a923a", "#c03d3e"
NEIGHBOURS = 10
NAME_LENGTH = 16  # of class names, in characters
POINTS = "precision_recall.csv"  # of the plot, beside it

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it logs each table of a PDF's fonts

Curve = tuple[npt.ArrayLike, npt.ArrayLike]  # precision and recall, by radius


def draw(
    folder: Path,
    *,
    title: str,
    objectives: Mapping[str, str],
    rows: Sequence[Row],
    ranking: Ranking,
    bits: int,
    image_set: ImageSet,
    split: Split,
    query_words: np.ndarray,
    database_words: np.ndarray,
) -> dict[str, Path]:
    """Write all plots of a run into `folder`; return the paths of the PNG files by name."""
    examples = _example_queries(image_set, split)
    figures = {
        "curves": curves(rows, objectives),
        "precision_recall": precision_recall({"": (ranking.precision, ranking.recall)}),
        "bit_balance": bit_balance(unpack(database_words, bits)),
        "neighbours": neighbours(image_set, split, examples, query_words[examples], database_words),
    }
    with atomic_write(folder / POINTS) as path, path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["radius", "precision", "recall"])
        writer.writerows(zip(range(bits + 1), ranking.precision, ranking.recall, strict=True))
    return {name: save(folder / name, figure, title) for name, figure in figures.items()}


def save(path: Path, figure: Figure, title: str) -> Path:
    """Write a figure under its title as `path`.png and .pdf; return the first."""
    figure.suptitle(escape_undecodable(title), fontsize=9, parse_math=False)
    with mpl.rc_context({"pdf.fonttype": 42}):  # fonts that publishers accept
        for suffix, options in {
            ".png": {"dpi": 150},
            ".pdf": {"metadata": {"CreationDate": None}},
        }.items():
            with atomic_write(path.with_name(path.name + suffix)) as part:
                figure.savefig(part, **options)  # type: ignore[arg-type]
    return path.with_name(f"{path.name}.png")


def curves(rows: Sequence[Row], objectives: Mapping[str, str]) -> Figure:
    """The training losses over the steps, those of each kind on axes of their own, and validation.

    Args:
        rows: the curves.
        objectives: of each phase, by name.
    """
    phases = [name for name in objectives if any(f"{name}/loss" in row for row in rows)]
    kinds = list(dict.fromkeys(objectives[name] for name in phases))
    figure = Figure(figsize=(1 + 3.4 * (len(kinds) + 1), 3.4), layout="constrained")
    *losses, validation = figure.subplots(1, len(kinds) + 1, squeeze=False)[0]
    for kind, axes in zip(kinds, losses, strict=True):
        for colour, phase in zip(PHASE_COLOURS * len(phases), phases, strict=False):
            if objectives[phase] == kind:
                _line(axes, rows, f"{phase}/loss", color=colour, label=phase)
        low, high = axes.dataLim.intervaly
        is_wide = 0 < 10 * low < high
        axes.set(ylabel=f"training, {LOSSES[kind]}", yscale="log" if is_wide else "linear")
    for key, (style, label) in VALIDATION.items():
        _line(validation, rows, key, style, markersize=4, label=label)
    validation.set(ylabel="validation", ylim=(0, 1.02))
    for axes in (*losses, validation):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3, which="both")
        if axes.lines:
            axes.legend()
    return figure


def _line(axes: Axes, rows: Sequence[Row], key: str, style: str = "-", **kwargs: object) -> None:
    points = np.array([(row["step"], row[key]) for row in rows if key in row])
    if len(points):
        axes.plot(points[:, 0], points[:, 1], style, **kwargs)  # type: ignore[arg-type]


def precision_recall(lines: Mapping[str, Curve]) -> Figure:
    """Precision over recall, one point per Hamming radius, mean over queries.

    Args:
        lines: precision and recall by label; a single one needs none.
    """
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for label, (precision, recall) in lines.items():
        axes.plot(recall, precision, ".-", label=label)
    axes.set(
        xlabel="recall",
        ylabel="precision, one point per Hamming radius",
        xlim=(0, 1.02),
        ylim=(0, 1.02),
    )
    axes.grid(alpha=0.3)
    _legend(axes, list(lines))
    return figure


def _legend(axes: Axes, labels: Sequence[str]) -> None:
    if any(labels):
        for text in axes.legend([*map(escape_undecodable, labels)], fontsize=8).get_texts():
            text.set_parse_math(False)


def map_over_bits(lines: Mapping[str, Mapping[int, tuple[float, float]]]) -> Figure:
    """The mAP over code length.

    Args:
        lines: by label, mean and deviation by code length.
    """
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    for label, points in lines.items():
        means, deviations = zip(*points.values(), strict=True)
        axes.errorbar(list(points), means, deviations, fmt="o-", capsize=3, label=label)
    axes.set(xlabel="bits", ylabel="test mAP, mean and deviation over seeds")
    axes.set_xticks(sorted({bits for points in lines.values() for bits in points}))
    axes.grid(alpha=0.3)
    _legend(axes, list(lines))
    return figure


def bit_balance(codes: np.ndarray) -> Figure:
    """Share of +1 in each bit of the database, (n, bits) in {-1, +1}."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.bar(np.arange(codes.shape[1]), (codes > 0).mean(axis=0), width=0.8)
    axes.axhline(0.5, color="black", linewidth=0.8)
    axes.set(xlabel="bit", ylabel="share of +1 in the database", ylim=(0, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.01)
    return figure


def neighbours(
    image_set: ImageSet,
    split: Split,
    examples: np.ndarray,
    query_words: np.ndarray,
    database_words: np.ndarray,
) -> Figure:
    """Some queries beside their nearest database images, framed by hit and miss.

    The class is written beside each query and below each miss, the distance above.

    Args:
        image_set: the images.
        split: which are queries and database.
        examples: positions of the queries in `split.query`.
        query_words: their packed codes.
        database_words: packed codes of the database.
    """
    k = min(NEIGHBOURS, len(database_words))
    nearest, distances = knn(query_words, database_words, k=k)
    width, height = 1.6 + k, 1.15 * len(examples) + 1.1
    figure = Figure(figsize=(width, height))  # a layout engine would take seconds
    edges = {"left": 1.3 / width, "right": 1 - 0.1 / width, "bottom": 0.75 / height}
    grid = figure.subplots(
        len(examples),
        1 + k,
        squeeze=False,
        gridspec_kw={**edges, "top": 1 - 0.5 / height, "wspace": 0.06, "hspace": 0.28},
    )
    for row, position in enumerate(examples):
        query = int(split.query[position])
        items = split.database[nearest[row]]
        hits = shares_label(image_set.labels[query][None], image_set.labels[items])[0]
        _image(grid[row, 0], _pixels(image_set, query), "black")
        grid[row, 0].set_ylabel(
            _class_names(image_set, query), fontsize=8, rotation=0, ha="right", parse_math=False
        )
        for axes, item, hit, distance in zip(
            grid[row, 1:], items, hits, distances[row], strict=True
        ):
            _image(axes, _pixels(image_set, int(item)), HIT if hit else MISS)
            axes.set_title(f"{distance}", fontsize=7, pad=2)
            if not hit:
                name = _class_names(image_set, int(item))
                axes.set_xlabel(name, fontsize=6, color=MISS, labelpad=2, parse_math=False)
    grid[0, 0].set_title("query", fontsize=8, pad=2)
    frames = {HIT: "of the query's class", MISS: "of another class"}
    if image_set.labels.ndim > 1:
        frames = {HIT: "shares a label", MISS: "shares no label"}
    figure.legend(
        handles=[Patch(fill=False, edgecolor=c, linewidth=2.5, label=t) for c, t in frames.items()],
        title="nearest images of the database, with Hamming distance",
        loc="lower center",
        bbox_to_anchor=(0.5, 0),
        ncols=2,
        frameon=False,
        fontsize=8,
        title_fontsize=8,
    )
    return figure


def _class_names(image_set: ImageSet, index: int) -> str:
    """The classes of an image, each on a line of its own; three at most."""
    labels = image_set.labels[index]
    present = labels.nonzero()[:, 0] if labels.ndim else labels[None]
    names = [escape_undecodable(image_set.classes[int(n)]) for n in present if n >= 0]
    shown = [n if len(n) <= NAME_LENGTH else f"{n[: NAME_LENGTH - 1]}…" for n in names[:3]]
    return "\n".join([*shown[:2], "…"] if len(names) > 3 else shown)


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
