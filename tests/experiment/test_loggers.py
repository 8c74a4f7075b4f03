"""Where curves go: a CSV file, TensorBoard, W&B, and several of them at once."""

import csv
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import WANDB, ComposeRun, FinishedRun

from deephash.experiment.loggers import CsvLogger, choose_wandb_mode
from deephash.experiment.run import run


@pytest.fixture
def netrc_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file where a W&B account could be; there is none, and no key in the environment."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


def test_wandb_is_offline_without_an_account(netrc_path: Path) -> None:
    assert choose_wandb_mode(None) == "offline"
    netrc_path.write_text("machine another.example login user password x\n")
    assert choose_wandb_mode(None) == "offline"
    netrc_path.write_text("this is no netrc")
    assert choose_wandb_mode(None) == "offline"


def test_wandb_is_online_with_a_key(netrc_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc_path.write_text("machine api.wandb.ai login user password x\n")
    assert choose_wandb_mode(None) == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://tracking.example:8080")
    assert choose_wandb_mode(None) == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert choose_wandb_mode(None) == "online"


def test_a_wandb_mode_that_is_set_comes_first(
    netrc_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "x")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose_wandb_mode(None) == "disabled"
    assert choose_wandb_mode("offline") == "offline"


def test_csv_has_a_column_for_each_curve(tmp_path: Path) -> None:
    logger = CsvLogger(tmp_path / "curves.csv")
    logger.log_metrics({"hash/loss": 0.5}, step=10)
    logger.save()
    logger.log_metrics({"val/map": 0.25}, step=20)
    logger.save()
    with (tmp_path / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(float(r["step"]), r["hash/loss"], r["val/map"]) for r in rows] == [
        (10, "0.5", ""),
        (20, "", "0.25"),
    ]


def read_csv_curves(folder: Path) -> dict[str, list[float]]:
    curves: dict[str, list[float]] = {}
    with (folder / "curves.csv").open() as file:
        for row in csv.DictReader(file):
            for key, value in row.items():
                if value and key != "step":
                    curves.setdefault(key, []).append(float(value))
    return curves


@pytest.fixture(scope="module")
def wandb_records(finished_run: FinishedRun) -> list[dict]:
    (file,) = finished_run.folder.glob("wandb/offline-run-*/*.wandb")
    command = [WANDB, "leet", "inspect", "--json", file]
    inspected = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in inspected.stdout.splitlines()]


def test_wandb_and_csv_have_the_same_curves(
    finished_run: FinishedRun, wandb_records: list[dict]
) -> None:
    curves: dict[str, list[float]] = {}
    for record in wandb_records:
        for key, value in record.get("history", {}).get("item", {}).items():
            curves.setdefault(key, []).append(value)
    csv_curves = read_csv_curves(finished_run.folder)
    for name in ("pretrain/loss", "pretrain/lr", "init/loss", "hash/loss", "hash/lr",
                 "val/accuracy", "val/map", "hash/images_per_second", "test/map"):  # fmt: skip
        assert name in csv_curves, name
    for name, values in csv_curves.items():
        assert np.isfinite(values).all(), name
        assert curves[name] == pytest.approx(values), name
    results = json.loads((finished_run.folder / "metrics.json").read_text())
    assert curves["test/map"] == [pytest.approx(results["test"]["map"])]
    assert curves["val/map"][-1] == pytest.approx(results["validation"]["val/map"])
    steps = curves["trainer/global_step"]
    assert steps == sorted(steps)


def test_wandb_run_has_tags_plots_and_an_end(
    finished_run: FinishedRun, wandb_records: list[dict]
) -> None:
    (run_record,) = (record["run"] for record in wandb_records if "run" in record)
    assert sorted(run_record["tags"]) == ["baseline", "small nets"]
    assert any(record["type"] == "exit" for record in wandb_records)
    media = [path.name for path in finished_run.folder.glob("wandb/*/files/media/**/*.png")]
    for plot in ("curves", "precision_recall", "bit_balance", "neighbours"):
        assert any(name.startswith(plot) for name in media), plot
    assert "upload: wandb sync" in finished_run.output


def test_tensorboard_and_csv_have_the_same_curves(
    compose_run: ComposeRun, light_runs: None, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(compose_run("phases=pretrained", "logger=[csv,tensorboard]"))
    folder = tmp_path / "run"
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    csv_curves = read_csv_curves(folder)
    assert {"pretrain/loss", "init/loss", "val/map", "test/map"} <= csv_curves.keys()
    assert set(events.Tags()["scalars"]) >= csv_curves.keys()
    for name, values in csv_curves.items():
        assert [event.value for event in events.Scalars(name)] == pytest.approx(values), name
