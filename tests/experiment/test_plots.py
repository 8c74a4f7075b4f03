from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import to_hex

from deephash.data.image_set import ImageSet
from deephash.data.splits import Split
from deephash.experiment.plots import (
    HIT,
    MISS,
    bit_balance,
    curves,
    map_over_bits,
    neighbours,
    precision_recall,
    save,
)
from deephash.hamming.codes import pack


def test_neighbours_are_the_nearest_and_framed_by_hit_or_miss() -> None:
    # Image i has the uniform grey level i; image 0 is the query; the distances of codes are known.
    labels = torch.tensor([1, 0, 1, 1, 0, 1])
    image_set = ImageSet(
        name="grey",
        images=torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 1, 4, 4),
        labels=labels,
        ids=np.arange(6).astype(str),
        classes=("a cat $1", "a dog that has a long name"),
        is_test=np.arange(6) == 0,
    )
    query, database = np.array([0]), np.array([1, 2, 3, 4, 5])
    split = Split(database, query, database, query, query)
    codes = np.ones((6, 8), dtype=np.int8)
    for image, distance in {1: 3, 2: 1, 3: 7, 4: 0, 5: 1}.items():
        codes[image, :distance] = -1
    figure = neighbours(image_set, split, np.array([0]), pack(codes[query]), pack(codes[database]))
    images = [int(np.asarray(axes.images[0].get_array()).max()) for axes in figure.axes]
    assert images == [0, 4, 2, 5, 1, 3]
    assert [axes.get_title() for axes in figure.axes[1:]] == ["0", "1", "1", "3", "7"]
    frames = [to_hex(axes.spines["top"].get_edgecolor()) for axes in figure.axes[1:]]
    assert frames == [HIT if labels[image] == labels[0] else MISS for image in images[1:]]
    # The class of the query, and those of the misses; what the frames mean.
    assert figure.axes[0].get_ylabel() == "a dog that has …"
    names = [axes.get_xlabel() for axes in figure.axes[1:]]
    assert names == ["" if frame == HIT else "a cat $1" for frame in frames]
    (legend,) = figure.legends
    meaning = {
        to_hex(handle.get_edgecolor()): text.get_text()
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True)
    }
    assert meaning == {HIT: "of the query's class", MISS: "of another class"}


def test_labels_of_an_image_with_several_are_named(tmp_path: Path) -> None:
    labels = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1], [0, 0, 1, 0]])
    image_set = ImageSet(
        name="grey",
        images=torch.zeros(4, 1, 4, 6, dtype=torch.uint8),
        labels=labels.to(torch.uint8),
        ids=["0", "1", "2", "3"],
        classes=("a", "b", "c", "d"),
        is_test=[True, False, False, False],
    )
    query, database = np.array([0]), np.array([1, 2, 3])
    split = Split(database, query, database, query, query)
    codes = pack(np.array([[1] * 8, [1] * 8, [1] * 7 + [-1], [1] * 6 + [-1] * 2]))
    figure = neighbours(image_set, split, np.array([0]), codes[query], codes[database])
    assert figure.axes[0].get_ylabel() == "a\nb"
    assert [axes.get_xlabel() for axes in figure.axes[1:]] == ["", "d", "c"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "shares a label", "shares no label"
    ]  # fmt: skip
    png = save(tmp_path / "x.y", figure, "Joint on $set, 8 bits")
    assert png == tmp_path / "x.y.png"
    assert png.read_bytes().startswith(b"\x89PNG")
    pdf = (tmp_path / "x.y.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf  # TrueType, and text that can be searched


def test_losses_of_different_kind_have_axes_of_their_own() -> None:
    rows = [
        {"step": 10.0, "pretrain/loss": 1.0},
        {"step": 20.0, "pretrain/loss": 0.5},
        {"step": 20.0, "val/accuracy": 0.5},
        {"step": 25.0, "init/loss": 200.0},
        {"step": 30.0, "hash/loss": 0.25},
        {"step": 30.0, "val/map": 0.75},
    ]
    objectives = {"pretrain": "classify", "init": "hash", "hash": "hash"}
    panels = curves(rows, objectives).axes
    points = [
        {line.get_label(): line.get_xydata().tolist() for line in axes.lines} for axes in panels
    ]
    assert points == [
        {"pretrain": [[10, 1], [20, 0.5]]},
        {"init": [[25, 200]], "hash": [[30, 0.25]]},
        {"mAP": [[30, 0.75]], "accuracy": [[20, 0.5]]},
    ]
    names = [axes.get_ylabel() for axes in panels]
    assert names == ["training, cross-entropy", "training, hashing loss", "validation"]
    assert [axes.get_yscale() for axes in panels] == ["linear", "log", "linear"]
    (loss, _) = curves([{"step": 1.0, "hash/loss": -1.0}], {"hash": "hash"}).axes
    assert loss.get_yscale() == "linear"


def test_precision_recall_of_several_runs_has_a_legend_and_of_one_none() -> None:
    one, two = ([0.5, 0.25], [0.5, 1.0]), ([1.0, 0.5], [0.25, 1.0])
    (axes,) = precision_recall({"bits=8, a=$x$": one, "bits=12": two}).axes
    assert [line.get_xydata().tolist() for line in axes.lines] == [
        [[0.5, 0.5], [1, 0.25]], [[0.25, 1], [1, 0.5]]
    ]  # fmt: skip
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["bits=8, a=$x$", "bits=12"]
    assert precision_recall({"": one}).axes[0].get_legend() is None


def test_map_over_bits_has_a_line_for_each_label() -> None:
    (axes,) = map_over_bits({"tau=1": {8: (0.5, 0.1), 12: (0.75, 0.0)}, "tau=2": {8: (1, 0)}}).axes
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["tau=1", "tau=2"]
    assert axes.lines[0].get_xydata().tolist() == [[8, 0.5], [12, 0.75]]


def test_bit_balance_is_the_share_of_ones() -> None:
    (axes,) = bit_balance(np.array([[1, -1, 1], [1, -1, -1]])).axes
    assert [bar.get_height() for bar in axes.patches] == [1, 0, 0.5]
