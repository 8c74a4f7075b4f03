"""On a GPU, where there is one: the kernels find what those of the CPU find; a run learns."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_same_codes
from omegaconf import DictConfig, OmegaConf
from test_hamming import CASES, GRADED, assert_same_histograms, graded_sample, packed, sample

from deephash.core.errors import UserError
from deephash.experiment.run import run
from deephash.hamming import distance_histogram, gpu, graded_histogram, knn

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def on_gpu(*arrays: np.ndarray) -> list[torch.Tensor]:
    signed = (a.view(np.int64) if a.dtype == np.uint64 else a for a in arrays)
    return [torch.from_numpy(a).cuda() for a in signed]


@pytest.mark.parametrize(("bits", "labels"), CASES)
def test_distances_are_counted_as_on_the_cpu(bits: int, labels: str | int) -> None:
    *arrays, bits = packed(*sample(bits, labels, queries=40, items=5000))
    wanted = distance_histogram(*arrays, bits)
    for found, expected in zip(distance_histogram(*on_gpu(*arrays), bits), wanted, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("bits", "labels", "share"), GRADED)
def test_grades_are_counted_as_on_the_cpu(bits: int, labels: int, share: float) -> None:
    *arrays, bits = packed(*graded_sample(bits, labels, share))
    found, wanted = graded_histogram(*on_gpu(*arrays), bits), graded_histogram(*arrays, bits)
    assert_same_histograms(found, wanted)


@pytest.mark.parametrize("bits", [12, 64, 128, 300])
@pytest.mark.parametrize("k", [1, 100, 3000])
def test_the_nearest_are_those_of_the_cpu(
    bits: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "PAIRS_PER_SEARCH", 70 * 5000)  # chunks of 5,000 items
    query, _, database, _, _ = packed(*sample(bits, "classes", queries=70, items=20_000))
    for found, wanted in zip(
        knn(*on_gpu(query, database), k=k), knn(query, database, k=k), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


def test_a_run_learns_and_goes_on_as_if_never_stopped(
    compose_run: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = ["trainer=gpu", "bits=12", "phase.pretrain.epochs=3", "phase.hash.epochs=2"]
    run(compose_run(*settings, folder="whole"))
    stopped = compose_run(*settings, f"cache_dir={tmp_path / 'other'}", folder="stopped")
    with monkeypatch.context() as patch:
        patch.setattr("deephash.training.modules.Hash.on_validation_epoch_end", interrupt)
        with pytest.raises(UserError, match="interrupted"):
            run(stopped)
    run(OmegaConf.merge(compose_run(), {"resume": stopped.run_dir}))  # type: ignore[arg-type]
    figures = json.loads((tmp_path / "whole/metrics.json").read_text())
    assert figures["record"]["gpu"] == torch.cuda.get_device_name()
    assert figures["test"]["map"] > 0.5
    assert_same_codes(tmp_path / "whole", Path(stopped.run_dir))


def interrupt(*_: object) -> None:
    raise UserError("interrupted")
