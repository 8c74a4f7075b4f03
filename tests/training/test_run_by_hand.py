"""A run of `run(cfg)`, with its model, codes and metrics computed anew from its checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import compose_config
from torch import Tensor

from deephash.backbones import ResNetSmall
from deephash.data.datasets.digits import digits
from deephash.data.image_set import ImageSet
from deephash.data.splits import Split
from deephash.experiment import pipeline
from deephash.experiment.data import load_data
from deephash.experiment.evaluate import evaluate_parts
from deephash.experiment.run import run
from deephash.experiment.settings import validate_settings

BITS = 10
OVERRIDES = [
    "dataset=digits",
    f"bits={BITS}",
    "training.pretrain.epochs=1",
    "training.init.epochs=1",
    "training.hash.epochs=1",
    "backbone.widths=[4,6,8]",
    "trainer=cpu",
    "trainer.precision=32-true",
    "logger=none",
]


class FinishedRun:
    """What a run had when it came to its report, and its last checkpoint."""

    def __init__(self, folder: Path) -> None:
        cfg = compose_config(*OVERRIDES, f"run_dir={folder / 'run'}", f"cache_dir={folder}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline, "write_report", self._take)
            self.objective = run(cfg)
        path = folder / "run" / "checkpoints" / "hash.ckpt"
        self.weights: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]

    def _take(
        self,
        settings: Any,
        run_dir: Path,
        data: Any,
        codes: Any,
        history: Any,
        *args: Any,
        **_: Any,
    ) -> None:
        self.settings = settings
        self.images: ImageSet = data.image_set
        self.split: Split = data.split
        self.codes = codes
        self.history = history

    def logits(self, part: str) -> Tensor:
        """Of a part of the split, by a net made anew from the checkpoint."""
        net = ResNetSmall(1, (16, 16), widths=[4, 6, 8])
        prefix = "backbone.backbone."
        weights = {k.removeprefix(prefix): v for k, v in self.weights.items() if prefix in k}
        net.load_state_dict(weights)
        images = self.images.images[torch.from_numpy(self.split.arrays()[part])]
        pixels = (images - self.weights["backbone.mean"]) / self.weights["backbone.std"]
        with torch.no_grad():
            features = net.eval()(pixels)
        weight, bias = (self.weights[f"method.head.{name}"] for name in ("weight", "bias"))
        return features @ weight.T + bias


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return FinishedRun(tmp_path_factory.mktemp("finished"))


def test_images_are_standardised_by_the_statistics_of_the_training_images(
    finished: FinishedRun,
) -> None:
    pixels = finished.images.images[torch.from_numpy(finished.split.train)].double()
    mean, std = pixels.mean(), pixels.std(correction=0)
    assert finished.weights["backbone.mean"].item() == pytest.approx(mean.item(), rel=1e-6)
    assert finished.weights["backbone.std"].item() == pytest.approx(std.item(), rel=1e-6)
    everything = finished.images.images.double().mean().item()
    assert everything != pytest.approx(mean.item(), rel=1e-5)


@pytest.mark.parametrize("part", ["query", "database"])
def test_codes_are_the_signs_of_the_logits_of_their_images(
    part: str, finished: FinishedRun
) -> None:
    codes = finished.codes[part]
    indices = finished.split.arrays()[part]
    assert codes.ids.tolist() == finished.images.ids[indices].tolist()
    assert codes.labels.tolist() == finished.images.labels[torch.from_numpy(indices)].tolist()
    logits = finished.logits(part).double().numpy()
    bits = (codes.words >> np.arange(BITS, dtype=np.uint64)) & np.uint64(1)  # bit k of the word
    certain = np.abs(logits) > 1e-4  # rounding may turn the others
    assert certain.mean() > 0.99
    assert ((bits == 1) == (logits >= 0))[certain].all()
    assert not (codes.words >> np.uint64(BITS)).any()


def test_no_query_and_no_validation_image_is_trained_on(finished: FinishedRun) -> None:
    split = finished.split
    for held_out in (split.query, split.validation):
        assert len(held_out)
        assert not np.isin(split.train, held_out).any()
    assert np.isin(split.validation_database, split.train).all()
    assert not np.isin(split.database, split.query).any()


def test_the_metrics_are_those_of_queries_among_the_database(finished: FinishedRun) -> None:
    """Precision within a radius and mAP, by brute force; mAP as a mean over random orders."""
    ranking, scalars = evaluate_parts(finished.codes, BITS, finished.settings.evaluation)
    query, database = finished.codes["query"], finished.codes["database"]
    distance = np.bitwise_count(query.words ^ database.words.T)
    relevant = query.labels[:, None] == database.labels[None, :]
    for radius in (0, 2, 5):
        ball = distance <= radius
        precision = ((ball & relevant).sum(axis=1) / np.maximum(1, ball.sum(axis=1))).mean()
        assert ranking.precision[radius] == pytest.approx(precision)
    assert scalars["precision_radius2"] == ranking.precision[2]
    rng = np.random.default_rng(0)
    means: dict[str, list[float]] = {"map": [], "precision@100": [], "map@100": []}
    for _ in range(30):
        order = np.lexsort((rng.random(distance.shape), distance))
        hits = np.take_along_axis(relevant, order, axis=1)
        precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
        means["map"].append(((precision * hits).sum(axis=1) / hits.sum(axis=1)).mean())
        means["precision@100"].append(hits[:, :100].mean())
        first = (precision * hits)[:, :100].sum(axis=1)
        means["map@100"].append((first / np.minimum(100, hits.sum(axis=1))).mean())
    for name, values in means.items():
        error = np.std(values) / len(values) ** 0.5
        assert scalars[name] == pytest.approx(np.mean(values), abs=5 * error), name
    assert scalars["distinct_codes"] == len(np.unique(database.words))


def test_the_objective_is_the_map_of_the_last_validation(finished: FinishedRun) -> None:
    maps = [row["val/map"] for row in finished.history.rows if "val/map" in row]
    assert finished.objective == maps[-1]


def digits_in_pairs() -> ImageSet:
    """Each image twice, under two ids."""
    image_set = digits()
    images = image_set.images.clone()
    images[1::2] = images[:-1:2]
    labels = image_set.labels.clone()
    labels[1::2] = labels[:-1:2]
    return replace(image_set, images=images, labels=labels)


def test_copies_of_queries_are_neither_trained_on_nor_searched() -> None:
    cfg = compose_config(*OVERRIDES)
    cfg.dataset = {"_target_": f"{__name__}.digits_in_pairs"}
    image_set, split = load_data(validate_settings(cfg))
    pixels = [image.numpy().tobytes() for image in image_set.images]
    queries = {pixels[i] for i in split.query}
    for name in ("train", "validation", "validation_database", "database"):
        assert not queries & {pixels[i] for i in split.arrays()[name]}, name
    assert len(split.database) > 1000


def test_every_part_of_a_split_depends_on_the_seed_alone() -> None:
    def parts(seed: int) -> dict[str, list[int]]:
        cfg = compose_config(*OVERRIDES, f"seed={seed}")
        _, split = load_data(validate_settings(cfg))
        return {name: indices.tolist() for name, indices in split.arrays().items()}

    first, again, other = parts(0), parts(0), parts(1)
    for name in ("train", "query", "database", "validation", "validation_database"):
        assert first[name] == again[name], name
        assert first[name] != other[name], name
