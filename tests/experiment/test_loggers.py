"""Where curves go: a CSV file, TensorBoard, W&B, and several of them at once."""

import csv
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import WANDB, ComposeRun, FinishedRun, resume_run

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


def read_wandb_records(folder: Path) -> list[dict]:
    """What the sessions of an offline W&B run wrote, in order."""
    records = []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        command = [WANDB, "leet", "inspect", "--json", file]
        inspected = subprocess.run(command, capture_output=True, text=True, check=True)
        records += [json.loads(line) for line in inspected.stdout.splitlines()]
    return records


def wandb_points(records: list[dict]) -> dict[str, list[tuple[int, float]]]:
    """The curves as W&B draws them: the value over the step metric."""
    points: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        item = record.get("history", {}).get("item", {})
        for key, value in item.items():
            if not key.startswith("_") and key != "trainer/global_step":
                points.setdefault(key, []).append((item["trainer/global_step"], value))
    return points


def csv_points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves of curves.csv over the step."""
    points: dict[str, list[tuple[int, float]]] = {}
    with (folder / "curves.csv").open() as file:
        for row in csv.DictReader(file):
            for key, value in row.items():
                if value and key != "step":
                    points.setdefault(key, []).append((int(float(row["step"])), float(value)))
    return points


@pytest.fixture(scope="module")
def wandb_records(finished_run: FinishedRun) -> list[dict]:
    return read_wandb_records(finished_run.folder)


def test_wandb_and_csv_have_the_same_curves_over_the_step(
    finished_run: FinishedRun, wandb_records: list[dict]
) -> None:
    points, expected = wandb_points(wandb_records), csv_points(finished_run.folder)
    for name in ("pretrain/loss", "pretrain/lr", "init/loss", "hash/loss", "hash/lr", "epoch",
                 "val/accuracy", "val/map", "hash/images_per_second"):  # fmt: skip
        assert name in expected, name
    for name, values in expected.items():
        assert np.isfinite(values).all(), name
        assert np.array(points[name]) == pytest.approx(np.array(values)), name
    assert points["epoch"] == [(step, epoch) for (step, _), epoch in
                               zip(points["epoch"], [1, 2, 3], strict=True)]  # fmt: skip
    metrics = [record["metric"] for record in wandb_records if "metric" in record]
    assert {"*", "val/map", "val/accuracy", "val/loss"} <= {
        metric.get("glob_name") or metric["name"]
        for metric in metrics
        if metric.get("step_metric") == "trainer/global_step"
    }


def test_wandb_summary_has_the_best_and_the_last_and_the_test_metrics_once(
    finished_run: FinishedRun, wandb_records: list[dict]
) -> None:
    summary: dict[str, Any] = {}
    for record in wandb_records:
        summary |= record.get("summary", {}).get("update", {})
    values = [value for _, value in csv_points(finished_run.folder)["val/map"]]
    assert summary["val/map"] == {
        "max": pytest.approx(max(values)),
        "last": pytest.approx(values[-1]),
    }
    assert set(summary["val/loss"]) == {"min", "last"}
    results = json.loads((finished_run.folder / "metrics.json").read_text())
    for name, value in results["test"].items():
        assert summary[f"test/{name}"] == pytest.approx(value), name
    # They are one table, and no charts of one point each.
    charts = {name for name in wandb_points(wandb_records) if name.startswith("test/")}
    assert {name.partition(".")[0] for name in charts} == {"test/table"}
    assert summary["test/table.nrows"] == len(results["test"])
    (run_record,) = (record["run"] for record in wandb_records if "run" in record)
    record = run_record["config"]["update"]["record"]
    assert record["source_digest"] == results["record"]["source_digest"]
    assert record["commit"] == results["record"]["commit"]


def test_a_resumed_wandb_run_is_one_run_that_repeats_nothing(
    compose_run: ComposeRun,
    light_runs: None,
    send_signal_at: Callable[..., None],
    tmp_path: Path,
) -> None:
    wandb = ["logger=[wandb,csv]", "logger.wandb.mode=offline", "logger.wandb.job_type=train",
             "logger.wandb.notes=stopped once"]  # fmt: skip
    send_signal_at("hash 2/3", signal.SIGINT)  # before the checkpoint of the epoch
    with pytest.raises(SystemExit):
        run(compose_run("phases=scratch", "training.hash.epochs=3", *wandb))
    resume_run(tmp_path / "run")
    records = read_wandb_records(tmp_path / "run")
    runs = [record["run"] for record in records if "run" in record]
    assert len(runs) == 2
    assert len({run["run_id"] for run in runs}) == 1
    assert {(run["job_type"], run["notes"]) for run in runs} == {("train", "stopped once")}
    points, expected = wandb_points(records), csv_points(tmp_path / "run")
    for name in ("hash/loss", "hash/lr", "val/map", "epoch"):
        steps = [step for step, _ in expected[name]]
        assert steps == sorted(set(steps)), name
        assert np.array(points[name]) == pytest.approx(np.array(expected[name])), name


def test_wandb_run_has_tags_plots_and_an_end(
    finished_run: FinishedRun, wandb_records: list[dict]
) -> None:
    (run_record,) = (record["run"] for record in wandb_records if "run" in record)
    assert sorted(run_record["tags"]) == ["baseline", "small nets"]
    assert any(record["type"] == "exit" for record in wandb_records)
    media = [path.name for path in finished_run.folder.glob("wandb/*/files/media/**/*.png")]
    for plot in ("curves", "precision_recall", "bit_balance", "neighbours"):
        assert any(name.startswith(plot) for name in media), plot
    assert "wandb sync FOLDER uploads it" in finished_run.output


def test_tensorboard_and_csv_have_the_same_curves(
    compose_run: ComposeRun, light_runs: None, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(compose_run("phases=pretrained", "logger=[csv,tensorboard]"))
    folder = tmp_path / "run"
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    expected = csv_points(folder)
    assert {"pretrain/loss", "init/loss", "val/map", "epoch"} <= expected.keys()
    assert set(events.Tags()["scalars"]) == expected.keys()
    for name, values in expected.items():
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert np.array(found) == pytest.approx(np.array(values)), name
    (text,) = events.Tensors("test/text_summary")
    (table,) = text.tensor_proto.string_val
    results = json.loads((folder / "metrics.json").read_text())["test"]
    for name, value in results.items():
        assert f"| {name} | {value:.6g} |" in table.decode(), name
