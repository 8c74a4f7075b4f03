"""Loggers that fail: told once, and nothing else is lost."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from conftest import ComposeRun, assert_same_codes
from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger

from deephash.experiment.run import run

pytestmark = pytest.mark.usefixtures("light_runs")


class FaultyLogger(Logger):
    """A logger that raises from one of its methods on."""

    name, version = "faulty", ""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.finalized = 0

    def _fail(self, method: str) -> None:
        if self.fault == method:
            raise OSError(28, "No space left on device")

    @property
    def experiment(self) -> None:
        self._fail("experiment")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._fail("log_hyperparams")

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._fail("log_metrics")
        self._fail("results" if any(key.startswith("test/") for key in metrics) else "")

    def save(self) -> None:
        self._fail("save")

    def finalize(self, status: str) -> None:
        self._fail("finalize")


def make_faulty(
    run_dir: Path, name: str, config: dict[str, Any], sweep: str | None, *, fault: str
) -> FaultyLogger:
    if fault == "start":
        raise RuntimeError("no service\nat all")
    return FaultyLogger(fault)


@pytest.mark.parametrize(
    "fault", ["start", "experiment", "log_metrics", "save", "results", "finalize"]
)
def test_a_logger_that_fails_is_told_once(
    fault: str, compose_run: ComposeRun, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    quick = compose_run("phases=scratch", "logger=csv")
    node = {"_target_": f"{__name__}.make_faulty", "fault": fault}
    OmegaConf.update(quick, "logger.faulty", node, force_add=True)
    with caplog.at_level(logging.WARNING, "deephash"):
        run(quick)
    (message,) = [m for m in caplog.messages if "faulty" in m]
    assert message.startswith("logger=faulty failed (")
    assert "\n" not in message
    folder = tmp_path / "run"
    assert "map" in json.loads((folder / "metrics.json").read_text())["test"]
    assert "hash/loss" in (folder / "curves.csv").read_text()
    assert (folder / "codes" / "query.npz").is_file()


def test_curves_on_a_full_disk_do_not_end_a_run(
    compose_run: ComposeRun, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    run(compose_run("phases=scratch", "logger=csv", folder="whole"))
    (tmp_path / "run" / "curves.csv").mkdir(parents=True)
    with caplog.at_level(logging.WARNING, "deephash"):
        run(compose_run("phases=scratch", "logger=csv"))
    failed = [m for m in caplog.messages if "logger=csv failed (IsADirectoryError" in m]
    assert len(failed) == 1
    assert_same_codes(tmp_path / "whole", tmp_path / "run")
