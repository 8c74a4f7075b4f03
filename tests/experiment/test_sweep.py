"""Sweeps: finished runs stay, failures are reported, and launchers run them side by side."""

import csv
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import QUICK, TORCHRUN, WANDB, RunProgram, start_train, wait_for_line
from sample_images import write_class_folders

from deephash.experiment.run_dir import sweep_name
from deephash.experiment.sweep import map_by_bits, varying_settings

SCRATCH = ["phases=scratch", "logger=none"]


def sweep_arguments(folder: Path, *overrides: str) -> list[str]:
    places = [f"run_dir={folder}", f"cache_dir={folder.parent / 'cache'}"]
    return ["-m", *places, *QUICK, *overrides]


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_metrics_files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.glob("*/metrics.json")}


def read_wandb_groups(folder: Path) -> set[str]:
    groups = set()
    for file in folder.glob("*/wandb/offline-run-*/*.wandb"):
        command = [WANDB, "leet", "inspect", "--json", file]
        inspected = subprocess.run(command, capture_output=True, text=True)
        records = [json.loads(line) for line in inspected.stdout.splitlines()]
        groups |= {record["run"]["run_group"] for record in records if "run" in record}
    return groups


def test_a_failed_run_is_reported_and_does_not_end_the_sweep(
    run_program: RunProgram, light_runs: None, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    arguments = sweep_arguments(folder, "bits=0,8", *SCRATCH)
    code, output, errors = run_program(*arguments)
    assert code == 1
    assert "bits=0: input should be greater than 0." in errors
    assert "1 of 2 runs failed" in output
    failed, finished = read_table(folder)
    assert (failed["status"], failed["bits"]) == ("failed", "0")
    assert failed["reason"] == "bits=0: input should be greater than 0."
    assert (finished["status"], finished["bits"]) == ("finished", "8")
    results = json.loads((folder / finished["run"] / "metrics.json").read_text())
    assert float(finished["map"]) == results["test"]["map"]
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")

    # The same command leaves the finished run.
    before = read_metrics_files(folder)
    code, output, _ = run_program(*arguments)
    assert code == 1
    assert output.count(f"{finished['run']}: found finished\n") == 1
    assert read_metrics_files(folder) == before

    # It refuses a run of other settings, such as defaults that have changed.
    saved = folder / finished["run"] / "config.yaml"
    saved.write_text(saved.read_text().replace("batch_size: 100", "batch_size: 50"))
    _, output, _ = run_program(*arguments)
    assert "holds a run with training=" in output
    assert [row["status"] for row in read_table(folder)] == ["failed", "failed"]


def test_runs_named_by_paths_lie_side_by_side(
    run_program: RunProgram, light_runs: None, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    write_class_folders(tmp_path / "photos" / "all", per_class=40)
    small = ["recipe=digits", "dataset.size=16", "training.hash.batch_size=15", "evaluation.ks=[5]"]
    paths = "dataset.path=nowhere/photos,photos/all"
    code, output, _ = run_program(
        *sweep_arguments(folder, "dataset=image_folder", paths, *SCRATCH, *small)
    )
    assert code == 1
    assert "1 of 2 runs failed" in output
    failed, finished = read_table(folder)
    assert (failed["status"], failed["dataset.path"]) == ("failed", "nowhere/photos")
    assert (finished["status"], finished["dataset.path"]) == ("finished", "photos/all")
    assert sweep_name(folder / finished["run"]) == "/".join(folder.parts[-2:])  # its group in W&B


def test_plot_shows_mean_and_deviation_over_seeds() -> None:
    rows = [
        {"run": "", "status": "finished", "bits": bits, "seed": str(seed), "map": value, "tau": tau}
        for bits, seed, tau, value in [(8, 0, "1", 0.5), (8, 1, "1", 0.7), (16, 0, "1", 0.9),
                                       (8, 0, "2", 0.4)]
    ]  # fmt: skip
    assert varying_settings(rows) == ["bits", "seed", "tau"]
    assert map_by_bits(rows) == {
        "tau=1": {8: (pytest.approx(0.6), pytest.approx(0.02**0.5)), 16: (0.9, 0.0)},
        "tau=2": {8: (0.4, 0.0)},
    }


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    output, errors = process.communicate(timeout=600)
    assert process.returncode == code, errors
    return output, errors


@pytest.mark.slow
def test_a_killed_sweep_started_again_runs_only_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    arguments = sweep_arguments(
        folder, "launcher=joblib", "phases=scratch", "bits=8,12,16,20", "seed=0,1,2"
    )
    process = start_train(*arguments, cwd=tmp_path)
    for _ in range(4):
        wait_for_line(process, "settings ")  # the last line of a run
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = read_metrics_files(folder)
    assert 4 <= len(before) < 12
    output, _ = finish(start_train(*arguments, cwd=tmp_path))
    assert output.count("found finished\n") == len(before)
    assert {path: path.read_bytes() for path in before} == before
    rows = read_table(folder)
    assert [row["status"] for row in rows] == ["finished"] * 12
    for row in rows:
        results = json.loads((folder / row["run"] / "metrics.json").read_text())
        record = results["record"]
        assert (record["bits"], record["seed"]) == (int(row["bits"]), int(row["seed"]))
        assert float(row["map"]) == results["test"]["map"]
    assert read_wandb_groups(folder) == {"/".join(folder.parts[-2:])}


@pytest.mark.slow
def test_of_several_processes_one_reports_why_a_run_failed(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    arguments = sweep_arguments(
        folder, "trainer=ddp_cpu", "phases=scratch", "logger.wandb.mode=online"
    )  # W&B refuses without a key
    output, errors = start_train(*arguments, cwd=tmp_path, launcher=TORCHRUN).communicate()
    (row,) = read_table(folder)
    assert "W&B did not start" in row["reason"]
    assert output.count("1 of 1 runs failed") == 1
    assert errors.count("error: ") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"],
        ["launcher=ray", "hydra.launcher.ray.init.address=null",
         "hydra.launcher.ray.remote={num_cpus:1,num_gpus:0}"],
    ],
    ids=["submitit", "ray"],
)  # fmt: skip
def test_launchers_run_a_sweep(launcher: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    arguments = sweep_arguments(folder, *launcher, "bits=8,12", *SCRATCH)
    finish(start_train(*arguments, cwd=tmp_path))
    assert [row["status"] for row in read_table(folder)] == ["finished"] * 2
