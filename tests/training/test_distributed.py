import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, assert_same_codes, options
from sample_images import write_class_folders

PLAIN = [
    "backbone=plain",  # a user's own
    "trainer.precision=64-true",
    "training.pretrain.epochs=2",  # 14 steps each
    "training.init.epochs=2",
    "training.hash.epochs=2",
    "training.pretrain.batch_size=99",  # by two or four it leaves a rest
    "bits=16",
    "logger=csv",
]


def started(
    folder: Path, *overrides: str, launcher: tuple[str, ...] = (), **environment: str
) -> subprocess.Popen[str]:
    """`train.py` at work, with the net above at hand."""
    (folder.parent / "backbone").mkdir(exist_ok=True)
    (folder.parent / "backbone" / "plain.yaml").write_text("_target_: plain_backbone.Plain")
    own = [f"cache_dir={folder}-cache", f"hydra.searchpath=[file://{folder.parent}]"]
    return subprocess.Popen(
        [*(launcher or [sys.executable]), str(ROOT / "train.py"), *overrides, *own],
        cwd=folder.parent,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent),
            "OMP_NUM_THREADS": "1",
            "WANDB_MODE": "offline",
            **environment,
        },
        # A shell that started the tests in the background had them ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def trained(folder: Path, *overrides: str, launcher: tuple[str, ...] = ()) -> Path:
    """The folder of a finished run of `train.py`."""
    process = started(folder, *overrides, f"run_dir={folder}", launcher=launcher)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return folder


def wait_for(process: subprocess.Popen[str], beginning: str) -> None:
    """Read the output up to a line that begins so."""
    assert process.stdout is not None
    assert any(line.startswith(beginning) for line in process.stdout)


def children(process: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def is_gone(process: int) -> bool:
    """Soon at least; one that nobody has waited for is a zombie."""
    status = Path(f"/proc/{process}/status")
    for _ in range(100):
        if not status.exists() or "zombie" in status.read_text():
            return True
        time.sleep(0.1)
    return False


def assert_same_training(one: Path, other: Path, within: float = 1e-11) -> None:
    for phase in ("pretrain", "init", "hash"):
        states = [
            torch.load(folder / "checkpoints" / f"{phase}.ckpt", weights_only=True)["state_dict"]
            for folder in (one, other)
        ]
        assert states[0].keys() == states[1].keys()
        for name, value in states[0].items():
            torch.testing.assert_close(states[1][name], value, rtol=0, atol=within, msg=name)
    assert_same_codes(one, other)
    figures = [json.loads((folder / "metrics.json").read_text()) for folder in (one, other)]
    assert figures[0]["test"] == figures[1]["test"]
    assert figures[0]["validation"] == pytest.approx(figures[1]["validation"], abs=1e-9)


@pytest.mark.parametrize("method", options("method"))
def test_two_and_four_processes_train_and_measure_what_one_does(
    method: str, tmp_path: Path
) -> None:
    overrides = [*PLAIN, f"method={method}"]
    alone = trained(tmp_path / "alone", "trainer=cpu", *overrides)
    for count in (2, 4):
        devices = ["trainer=ddp_cpu", f"trainer.devices={count}"]
        many = trained(tmp_path / f"{count}", *devices, *overrides)
        record = json.loads((many / "record.json").read_text())
        assert record["processes"] == count
        assert record["images"]["database"] % count
        assert_same_training(alone, many)


TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def test_images_in_files_are_decoded_by_the_processes_of_each(tmp_path: Path) -> None:
    overrides = [
        *PLAIN,
        "dataset=image_folder",
        f"dataset.path={write_class_folders(tmp_path / 'photos', per_class=40)}",
        f"dataset.decoded_dir={tmp_path / 'decoded'}",
        "dataset.cache_decoded=false",
        "dataset.workers=2",
        "dataset.size=16",
        "training.pretrain.batch_size=15",
        "evaluation.ks=[5]",
    ]
    one = trained(tmp_path / "one", "trainer=cpu", *overrides)
    two = trained(tmp_path / "two", "trainer=ddp_cpu", *overrides)
    assert_same_training(one, two)


def test_torchrun_starts_as_many_as_it_was_told(tmp_path: Path) -> None:
    by_torchrun = trained(tmp_path / "torchrun", "trainer=ddp_cpu", *PLAIN, launcher=TORCHRUN)
    record = json.loads((by_torchrun / "record.json").read_text())
    assert record["processes"] == 2
    assert_same_training(trained(tmp_path / "alone", "trainer=cpu", *PLAIN), by_torchrun)


@pytest.mark.parametrize("lost", ["first", "other"])
def test_a_lost_process_ends_the_run_and_another_number_goes_on(lost: str, tmp_path: Path) -> None:
    longer = [*PLAIN, "training.hash.epochs=20"]
    uninterrupted = trained(tmp_path / "uninterrupted", "trainer=cpu", *longer)
    folder = tmp_path / "lost"
    process = started(folder, "trainer=ddp_cpu", *longer, f"run_dir={folder}")
    wait_for(process, "hash 2/20")
    (child,) = children(process.pid)
    os.kill(process.pid if lost == "first" else child, signal.SIGKILL)
    _, errors = process.communicate(timeout=600)
    assert errors.count(f"python train.py resume={folder}") == 1, errors
    assert "Traceback" not in errors
    assert is_gone(child)
    assert not list(folder.rglob("*.part*"))
    assert not (folder / "metrics.json").exists()
    three = ["trainer=ddp_cpu", "trainer.devices=3", "trainer.precision=64-true"]
    trained_on = started(folder, *three, f"resume={folder}")
    _, errors = trained_on.communicate(timeout=600)
    assert trained_on.returncode == 0, errors
    # Lightning restores a checkpoint in float32 before it makes the model float64.
    assert_same_training(uninterrupted, folder, within=1e-7)


WAITS = """
import sys, time
from deephash.core import ranks
processes.GRACE = 1
trainer = {"accelerator": "cpu", "devices": 2, "num_nodes": 1, "strategy": "ddp"}
with launch.launch_processes(trainer, 2, "runs/lost"):
    if not ranks.is_rank_zero():
        sys.exit(1)
    time.sleep(600)  # as in an operation between GPUs, which nothing but its time limit ends
"""


def test_a_process_that_waits_for_a_lost_one_is_ended(tmp_path: Path) -> None:
    script = tmp_path / "waits.py"
    script.write_text(WAITS)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "a process of this run was lost" in done.stderr
    assert "python train.py resume=runs/lost" in done.stderr


LOSES_THE_FIRST = """
import os, signal, sys, time
from deephash.core import ranks
from deephash.core.errors import UserError
trainer = {"accelerator": "cpu", "devices": 2, "num_nodes": 1, "strategy": "ddp"}
try:
    with launch.launch_processes(trainer, 2, "runs/lost"):
        if not ranks.is_rank_zero():
            raise RuntimeError("Connection closed by peer")
        time.sleep(2)  # a killed process that is not gone yet
        os.kill(os.getpid(), signal.SIGKILL)
except UserError as error:
    if processes.should_report_error():
        print(error, file=sys.stderr)
"""


def test_the_next_speaks_although_the_first_is_not_gone_yet(tmp_path: Path) -> None:
    script = tmp_path / "loses.py"
    script.write_text(LOSES_THE_FIRST)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert "a process of this run was lost" in done.stderr


@pytest.mark.parametrize(
    ("launcher", "arguments", "told"),
    [
        (TORCHRUN, ["trainer=cpu"], "2 processes were started, but trainer.devices=1"),
        ((), ["-m", "trainer=ddp_cpu", "bits=8,16"], "would start the sweep anew"),
        ((), ["trainer=ddp_cpu", "training.hash.batch_size=3"], "does not go round 2 processes"),
    ],
    ids=["single device under torchrun", "sweep", "batch too small"],
)
def test_what_cannot_be_is_refused(
    launcher: tuple[str, ...], arguments: list[str], told: str, tmp_path: Path
) -> None:
    process = started(tmp_path / "run", *arguments, *PLAIN, launcher=launcher)
    _, errors = process.communicate(timeout=600)
    assert process.returncode != 0
    assert errors.count(told) == 1, errors


@pytest.mark.parametrize("to_all", [True, False], ids=["to all", "to the first"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_processes_and_leaves_a_run_to_go_on_with(
    sent: signal.Signals, to_all: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "stopped"
    longer = [*PLAIN, "training.hash.epochs=500"]
    process = started(folder, "trainer=ddp_cpu", *longer, f"run_dir={folder}")
    wait_for(process, "hash 2/500")
    (child,) = children(process.pid)
    if to_all:
        os.kill(child, sent)
    os.kill(process.pid, sent)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert errors.count(f"python train.py resume={folder}") == 1, errors
    assert "Traceback" not in errors
    assert is_gone(child)
    assert not list(folder.rglob("*.part*"))
    assert (folder / "checkpoints" / "hash.unfinished.ckpt").is_file()


def test_a_slurm_job_that_is_told_of_its_end_is_queued_again_and_goes_on(tmp_path: Path) -> None:
    longer = [*PLAIN, "training.hash.epochs=20", "trainer=cpu", "trainer.precision=64-true"]
    uninterrupted = trained(tmp_path / "uninterrupted", *longer)
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/told")
    (tmp_path / "scontrol").chmod(0o755)
    slurm = {"JOB_ID": "7", "JOB_NAME": "hashing", "NTASKS": "1", "PROCID": "0", "LOCALID": "0",
             "NODEID": "0", "NODELIST": "localhost"}  # fmt: skip
    environment = {f"SLURM_{name}": value for name, value in slurm.items()}
    environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    folder = tmp_path / "job"
    command = [*longer, "logger=wandb", f"run_dir={folder}"]
    job = started(folder, *command, **environment)
    wait_for(job, "hash 2/20")
    job.send_signal(signal.SIGUSR1)
    _, errors = job.communicate(timeout=600)
    assert job.returncode == 130, errors
    assert (tmp_path / "told").read_text() == "requeue 7\n"
    again = started(folder, *command, SLURM_RESTART_COUNT="1", **environment)
    output, errors = again.communicate(timeout=600)
    assert again.returncode == 0, errors
    assert "hash 1/20" not in output
    assert_same_training(uninterrupted, folder, within=1e-7)
    sittings = [path.name.rpartition("-")[2] for path in folder.glob("wandb/offline-run-*")]
    assert len(sittings) == 2
    assert len(set(sittings)) == 1
