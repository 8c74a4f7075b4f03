"""What a run leaves: codes with the names of their labels, and the metrics whatever befalls it."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ComposeRun, read_codes
from sample_images import write_class_folders, write_image

from deephash.experiment import plots
from deephash.experiment.run import run

UNDECODABLE = b"b\xe4ume".decode("utf-8", "surrogateescape")


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    """Of a quick run on two class folders; the name of one is not valid UTF-8."""
    folder = write_class_folders(tmp_path / "photos", per_class=30, classes="a")
    for i in range(30):
        write_image(folder / UNDECODABLE / f"{i}.jpg", seed=200 + i)
    return [
        *("dataset=image_folder", f"dataset.path={folder}", "dataset.size=32", "phases=scratch"),
        *(f"dataset.decoded_dir={tmp_path / 'decoded'}", "backbone=resnet_small", "bits=16"),
        "training.hash.batch_size=10",
    ]


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes on POSIX alone")
def test_a_class_whose_name_is_not_utf8_is_drawn(
    compose_run: ComposeRun, overrides: list[str], tmp_path: Path
) -> None:
    run(compose_run(*overrides))
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert (tmp_path / "run" / "plots" / "neighbours.pdf").is_file()
    codes = read_codes(tmp_path / "run")
    for part in ("query", "database"):
        assert codes[f"{part}_classes"].tolist() == ["a", UNDECODABLE]
        assert codes[f"{part}_labels"].max() == 1


def test_plots_that_fail_do_not_cost_the_metrics(
    compose_run: ComposeRun,
    overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise TypeError("no such\nfont")

    monkeypatch.setattr(plots, "bit_balance", fail)
    run(compose_run(*overrides))
    told = "the plots cannot be drawn (TypeError: no such font). The run goes on without them."
    assert caplog.messages.count(told) == 1
    results = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert np.isfinite(results["test"]["map"])
