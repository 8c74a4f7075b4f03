import numpy as np
import torch
from matplotlib.colors import to_hex

from deephash.data.image_set import ImageSet
from deephash.data.splits import Split
from deephash.experiment.plots import HIT, MISS, bit_balance, curves, neighbours
from deephash.hamming.codes import pack


def test_neighbours_are_the_nearest_and_framed_by_hit_or_miss() -> None:
    # Image i has the uniform grey level i; image 0 is the query; the distances of codes are known.
    labels = torch.tensor([1, 0, 1, 1, 0, 1])
    image_set = ImageSet(
        name="grey",
        images=torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 1, 4, 4),
        labels=labels,
        ids=np.arange(6).astype(str),
        classes=("a", "b"),
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


def test_curves_show_each_phase_and_the_validation() -> None:
    rows = [
        {"step": 10.0, "pretrain/loss": 1.0},
        {"step": 20.0, "pretrain/loss": 0.5},
        {"step": 20.0, "val/accuracy": 0.5},
        {"step": 30.0, "hash/loss": 0.25},
        {"step": 30.0, "val/map": 0.75},
    ]
    losses, validation = curves(rows).axes
    points = {line.get_label(): line.get_xydata().tolist() for line in losses.lines}
    assert points == {"pretrain": [[10, 1], [20, 0.5]], "hash": [[30, 0.25]]}
    points = {line.get_label(): line.get_xydata().tolist() for line in validation.lines}
    assert points == {"val/map": [[30, 0.75]], "val/accuracy": [[20, 0.5]]}


def test_bit_balance_is_the_share_of_ones() -> None:
    (axes,) = bit_balance(np.array([[1, -1, 1], [1, -1, -1]])).axes
    assert [bar.get_height() for bar in axes.patches] == [1, 0, 0.5]
