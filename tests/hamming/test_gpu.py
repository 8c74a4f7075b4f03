"""On a GPU, if there is one: kernels equal those of the CPU, and a run learns and resumes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from code_samples import (
    CASES,
    GRADED_CASES,
    assert_same_histograms,
    graded_sample,
    pack_sample,
    sample,
)
from conftest import assert_same_codes
from omegaconf import DictConfig, OmegaConf

from deephash.core.errors import UserError
from deephash.experiment.run import run
from deephash.hamming import distance_histogram, gpu, graded_histogram, knn

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def to_gpu(*arrays: np.ndarray) -> list[torch.Tensor]:
    signed = (a.view(np.int64) if a.dtype == np.uint64 else a for a in arrays)
    return [torch.from_numpy(a).cuda() for a in signed]


@pytest.mark.parametrize(("bits", "labels"), CASES)
def test_distance_histogram_equals_the_cpus(bits: int, labels: str | int) -> None:
    *arrays, bits = pack_sample(*sample(bits, labels, queries=40, items=5000))
    counts = distance_histogram(*to_gpu(*arrays), bits)
    for count, expected in zip(counts, distance_histogram(*arrays, bits), strict=True):
        np.testing.assert_array_equal(count, expected)


@pytest.mark.parametrize(("bits", "labels", "density"), GRADED_CASES)
def test_graded_histogram_equals_the_cpus(bits: int, labels: int, density: float) -> None:
    *arrays, bits = pack_sample(*graded_sample(bits, labels, density))
    counts = graded_histogram(*to_gpu(*arrays), bits)
    assert_same_histograms(counts, graded_histogram(*arrays, bits))


@pytest.mark.parametrize("bits", [12, 64, 128, 300, 4160])
@pytest.mark.parametrize("k", [1, 100, 3000])
def test_knn_equals_the_cpus(bits: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "PAIRS_PER_SEARCH", 70 * 5000)  # chunks of 5,000 items
    query, _, database, _, _ = pack_sample(*sample(bits, "classes", queries=70, items=20_000))
    for result, expected in zip(
        knn(*to_gpu(query, database), k=k), knn(query, database, k=k), strict=True
    ):
        np.testing.assert_array_equal(result, expected)


def test_a_run_learns_and_resumes_to_the_same_codes(
    compose_run: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = ["trainer=gpu", "bits=12", "training.pretrain.epochs=3", "training.hash.epochs=2"]
    run(compose_run(*settings, folder="whole"))
    stopped = compose_run(*settings, f"cache_dir={tmp_path / 'other'}", folder="stopped")
    with monkeypatch.context() as patch:
        patch.setattr("deephash.training.modules.HashingModule.on_validation_epoch_end", interrupt)
        with pytest.raises(UserError, match="interrupted"):
            run(stopped)
    run(OmegaConf.merge(compose_run(), {"resume": stopped.run_dir}))  # type: ignore[arg-type]
    metrics = json.loads((tmp_path / "whole/metrics.json").read_text())
    assert metrics["record"]["gpu"] == torch.cuda.get_device_name()
    assert metrics["test"]["map"] > 0.5
    assert_same_codes(tmp_path / "whole", Path(stopped.run_dir))


def interrupt(*_: object) -> None:
    raise UserError("interrupted")
