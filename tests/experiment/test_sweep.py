"""Sweeps, for real: on the cores of a machine, killed and begun again, by Slurm's way and Ray's."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import QUICK, ROOT, WANDB
from sample_images import class_folders

from deephash.experiment.run_dir import sweep_name
from deephash.experiment.sweep import lines_of

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def swept(
    folder: Path, *overrides: str, launcher: tuple[str, ...] = (sys.executable,)
) -> subprocess.Popen[str]:
    own = [f"run_dir={folder}", f"cache_dir={folder.parent / 'cache'}", *QUICK]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    return subprocess.Popen(
        [*launcher, str(ROOT / "train.py"), "-m", *own, *overrides],
        cwd=folder.parent,
        env=environment
        | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "NETRC": f"{folder}/none"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def table_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def finished_runs(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.glob("*/metrics.json")}


def test_a_sweep_killed_and_started_again_runs_only_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    command = ["launcher=joblib", "bits=8,12,16,20", "seed=0,1,2"]
    process = swept(folder, *command)
    while len(finished_runs(folder)) < 4:
        assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = finished_runs(folder)
    assert len(kept) < 12
    output, errors = swept(folder, *command).communicate(timeout=600)
    assert output.count("found finished\n") >= len(kept), errors
    assert {path: path.read_bytes() for path in kept} == kept
    rows = table_of(folder)
    assert len(rows) == 12
    assert {row["status"] for row in rows} == {"finished"}
    for row in rows:
        figures = json.loads((folder / row["run"] / "metrics.json").read_text())
        assert (figures["record"]["bits"], figures["record"]["seed"]) == (
            int(row["bits"]),
            int(row["seed"]),
        )
        assert float(row["map"]) == figures["test"]["map"]
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    groups = set()
    for file in folder.glob("*/wandb/offline-run-*/*.wandb"):
        shown = subprocess.run(
            [WANDB, "leet", "inspect", "--json", file], capture_output=True, text=True
        )
        records = [json.loads(line) for line in shown.stdout.splitlines()]
        groups |= {r["run"]["run_group"] for r in records if r.get("type") == "run"}
    assert groups == {"/".join(folder.parts[-2:])}


def test_runs_that_fail_are_told_and_do_not_end_a_sweep(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    command = ["bits=0,8", "phases=scratch", "logger=none"]
    process = swept(folder, *command)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "bits=0: input should be greater than 0." in errors
    assert "1 of 2 runs failed" in output
    failed, finished = table_of(folder)
    assert (failed["status"], failed["bits"]) == ("failed", "0")
    assert failed["reason"] == "bits=0: input should be greater than 0."
    assert (finished["status"], finished["bits"]) == ("finished", "8")


def test_runs_told_of_paths_lie_side_by_side_too(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    class_folders(tmp_path / "photos" / "all", per_class=40)
    small = ["recipe=digits", "dataset.size=16", "phase.hash.batch_size=15", "evaluation.ks=[5]"]
    paths = "dataset.path=nowhere/photos,photos/all"
    process = swept(folder, "dataset=images", paths, "phases=scratch", "logger=none", *small)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 1, errors
    assert "1 of 2 runs failed" in output
    failed, finished = table_of(folder)
    assert (failed["status"], failed["dataset.path"]) == ("failed", "nowhere/photos")
    assert (finished["status"], finished["dataset.path"]) == ("finished", "photos/all")
    assert sweep_name(folder / finished["run"]) == "/".join(folder.parts[-2:])  # its group in W&B


def test_of_several_processes_the_first_says_why_a_run_failed(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    command = ["trainer=ddp_cpu", "phases=scratch", "logger.mode=online"]  # no key: W&B refuses
    process = swept(folder, *command, launcher=TORCHRUN)
    output, errors = process.communicate(timeout=600)
    (row,) = table_of(folder)
    assert "W&B did not start" in row["reason"]
    assert output.count("1 of 1 runs failed") == 1
    assert errors.count("error: ") == 1


def test_a_run_of_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    command = ["bits=8", "phases=scratch", "logger=none"]
    swept(folder, *command).communicate(timeout=600)
    (saved,) = folder.glob("*/config.yaml")  # by defaults that were others
    saved.write_text(saved.read_text().replace("batch_size: 100", "batch_size: 50"))
    output, _ = swept(folder, *command).communicate(timeout=600)
    assert "holds a run with phase=" in output
    assert table_of(folder)[0]["status"] == "failed"


@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"],
        ["launcher=ray", "hydra.launcher.ray.init.address=null",
         "hydra.launcher.ray.remote={num_cpus:1,num_gpus:0}"],
    ],
    ids=["submitit", "ray"],
)  # fmt: skip
def test_a_sweep_on_a_cluster_of_one(launcher: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    process = swept(folder, *launcher, "bits=8,12", "phases=scratch", "logger=none")
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert [row["status"] for row in table_of(folder)] == ["finished"] * 2


def test_the_picture_shows_mean_and_deviation_over_seeds() -> None:
    rows = [
        {"run": "", "status": "finished", "bits": bits, "seed": str(seed), "map": value, "tau": tau}
        for bits, seed, tau, value in [(8, 0, "1", 0.5), (8, 1, "1", 0.7), (16, 0, "1", 0.9),
                                       (8, 0, "2", 0.4)]
    ]  # fmt: skip
    assert lines_of(rows) == {
        "tau=1": {8: (pytest.approx(0.6), pytest.approx(0.02**0.5)), 16: (0.9, 0.0)},
        "tau=2": {8: (0.4, 0.0)},
    }
