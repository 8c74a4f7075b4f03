"""One training on several processes: the same results, and an end of all together."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import (
    ROOT,
    TESTS,
    TORCHRUN,
    RunProgram,
    assert_same_codes,
    compose_config,
    options,
    start_train,
    wait_for_line,
)
from sample_images import write_class_folders

from deephash.experiment.run import run

PLAIN = [
    "backbone=plain",  # a user's own
    "trainer.precision=64-true",
    "training.pretrain.epochs=2",  # 14 steps each
    "training.init.epochs=2",
    "training.hash.epochs=2",
    "training.pretrain.batch_size=99",  # not divisible by two or four
    "bits=16",
    "logger=csv",
]
BATCH_NORM = ["backbone.widths=[8,16,24]", *PLAIN[1:], "training.hash.epochs=10"]


def places(folder: Path) -> list[str]:
    """Overrides for a run in a folder, with the configuration of the plain backbone beside it."""
    (folder.parent / "backbone").mkdir(exist_ok=True)
    (folder.parent / "backbone" / "plain.yaml").write_text("_target_: plain_backbone.Plain")
    return [
        f"run_dir={folder}",
        f"cache_dir={folder}-cache",
        f"hydra.searchpath=[file://{folder.parent}]",
    ]


def train_alone(folder: Path, *overrides: str) -> Path:
    """Train by one process, this one; return the folder of the run."""
    run(compose_config("trainer=cpu", *overrides, *places(folder)))
    return folder


def start(
    folder: Path, *overrides: str, launcher: tuple[str, ...] = (sys.executable,), **env: str
) -> subprocess.Popen[str]:
    return start_train(
        *overrides,
        *places(folder),
        cwd=folder.parent,
        launcher=launcher,
        PYTHONPATH=str(TESTS),
        **env,
    )


def train_by_processes(
    folder: Path, *overrides: str, launcher: tuple[str, ...] = (sys.executable,)
) -> Path:
    """Train by processes that are launched; return the folder of the run."""
    process = start(folder, "trainer=ddp_cpu", *overrides, launcher=launcher)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return folder


def child_ids(process: subprocess.Popen[str]) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    return [int(line) for line in listed.stdout.split()]


def has_ended(process_id: int) -> bool:
    """Whether a process ends within ten seconds; one that nobody has waited for is a zombie."""
    status = Path(f"/proc/{process_id}/status")
    for _ in range(100):
        if not status.exists() or "zombie" in status.read_text():
            return True
        time.sleep(0.1)
    return False


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def assert_same_training(one: Path, other: Path, tolerance: float = 1e-11) -> None:
    for phase in ("pretrain", "init", "hash"):
        first, second = (
            torch.load(folder / "checkpoints" / f"{phase}.ckpt", weights_only=True)["state_dict"]
            for folder in (one, other)
        )
        assert first.keys() == second.keys()
        for name, value in first.items():
            torch.testing.assert_close(second[name], value, rtol=0, atol=tolerance, msg=name)
    assert_same_codes(one, other)
    results = [read_json(folder / "metrics.json") for folder in (one, other)]
    assert results[0]["test"] == results[1]["test"]
    assert results[0]["validation"] == pytest.approx(results[1]["validation"], abs=1e-9)


COUNTS_AND_METHODS = [
    pytest.param(count, method, marks=[] if (count, method) == (2, "joint") else [pytest.mark.slow])
    for method in options("method")
    for count in (2, 4)
]


@pytest.mark.parametrize(("count", "method"), COUNTS_AND_METHODS)
def test_several_processes_train_what_one_does(count: int, method: str, tmp_path: Path) -> None:
    overrides = [*PLAIN, f"method={method}"]
    alone = train_alone(tmp_path / "alone", *overrides)
    several = train_by_processes(tmp_path / "several", f"trainer.devices={count}", *overrides)
    record = read_json(several / "record.json")
    assert record["processes"] == count
    assert record["images"]["database"] % count
    assert_same_training(alone, several)


@pytest.mark.slow
def test_images_in_files_are_decoded_by_workers_of_each_process(tmp_path: Path) -> None:
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
    alone = train_alone(tmp_path / "alone", *overrides)
    assert_same_training(alone, train_by_processes(tmp_path / "two", *overrides))


@pytest.mark.slow
def test_torchrun_decides_the_number_of_processes(tmp_path: Path) -> None:
    by_torchrun = train_by_processes(tmp_path / "torchrun", *PLAIN, launcher=TORCHRUN)
    assert read_json(by_torchrun / "record.json")["processes"] == 2
    assert_same_training(train_alone(tmp_path / "alone", *PLAIN), by_torchrun)


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["first", "other"])
def test_a_lost_process_ends_the_run_which_another_number_resumes(
    lost: str, tmp_path: Path
) -> None:
    longer = [*PLAIN, "training.hash.epochs=20"]
    uninterrupted = train_alone(tmp_path / "uninterrupted", *longer)
    folder = tmp_path / "lost"
    process = start(folder, "trainer=ddp_cpu", *longer)
    wait_for_line(process, "hash 2/20")
    (child,) = child_ids(process)
    os.kill(process.pid if lost == "first" else child, signal.SIGKILL)
    _, errors = process.communicate(timeout=600)
    assert errors.count(f"python {ROOT / 'train.py'} resume={folder}") == 1, errors
    assert "Traceback" not in errors
    assert has_ended(child)
    assert not (folder / "metrics.json").exists()
    three = ["trainer=ddp_cpu", "trainer.devices=3", "trainer.precision=64-true"]
    environment = {"PYTHONPATH": str(TESTS)}
    resume = [f"resume={folder}", "allow=[plain_backbone]"]
    process = start_train(*three, *resume, cwd=tmp_path, **environment)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert_same_training(uninterrupted, folder)
    assert not list(folder.rglob("*.part*"))  # a killed process may leave one


WAITS_FOR_LOST_PROCESS = """
import os, sys, time
from pathlib import Path
from deephash.core import ranks
from deephash.training import launch
launch.GRACE_SECONDS = 1
trainer = {"accelerator": "cpu", "devices": 2, "num_nodes": 1, "strategy": "ddp"}
with launch.launch_processes(trainer, 2, Path(__file__).parent / "run", "allow=[mylab]"):
    if not ranks.is_rank_zero():
        sys.exit(1)
    assert ranks.LAUNCH_MARK not in os.environ  # of what it starts later
    time.sleep(600)  # as in an operation between GPUs, which nothing but its time limit ends
"""


def test_a_process_that_waits_for_a_lost_one_is_ended(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(WAITS_FOR_LOST_PROCESS)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").touch()
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "a process of this run was lost" in done.stderr
    assert f"Resume with: python {script} resume={folder} allow=[mylab]\n" in done.stderr


LOSES_RANK_ZERO = """
import os, signal, sys, threading
from pathlib import Path
from deephash.core import ranks
from deephash.core.errors import UserError
from deephash.training import launch
trainer = {"accelerator": "cpu", "devices": 2, "num_nodes": 1, "strategy": "ddp"}
try:
    with launch.launch_processes(trainer, 2, Path("runs/lost")):
        if not ranks.is_rank_zero():
            assert ranks.is_launched_by_rank_zero()
            # Rank zero is killed, but not gone yet, when its connections close.
            threading.Timer(1, os.kill, (os.getppid(), signal.SIGKILL)).start()
            raise RuntimeError("Connection closed by peer")
        threading.Event().wait()
except UserError as error:
    if ranks.should_report_error():
        print(error, file=sys.stderr)
"""


def test_rank_one_reports_that_rank_zero_was_lost(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(LOSES_RANK_ZERO)
    done = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "SLURM_PROCID": "0"},  # as in an interactive shell of Slurm
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL
    assert "a process of this run was lost" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "trainer=ddp_cpu", "bits=8,16"], "would start the sweep again"),
        (["trainer=ddp_cpu", "training.hash.batch_size=3"], "is too small for 2 processes"),
    ],
    ids=["sweep", "batch"],
)
def test_impossible_launches_are_explained(
    run_program: RunProgram, arguments: list[str], message: str, tmp_path: Path
) -> None:
    code, _, errors = run_program(*arguments, *PLAIN, *places(tmp_path / "run"))
    assert code != 0
    assert message in errors


@pytest.mark.slow
def test_one_device_under_torchrun_is_refused(tmp_path: Path) -> None:
    process = start(tmp_path / "run", "trainer=cpu", *PLAIN, launcher=TORCHRUN)
    _, errors = process.communicate(timeout=600)
    assert process.returncode != 0
    assert errors.count("2 processes were launched, but trainer.devices=1") == 1, errors


@pytest.fixture(scope="module")
def by_two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with batch norm on two processes."""
    return train_by_processes(tmp_path_factory.mktemp("two") / "run", *BATCH_NORM)


def test_codes_of_two_processes_are_those_of_the_checkpoint(
    by_two_processes: Path, run_program: RunProgram, tmp_path: Path
) -> None:
    """Each process has statistics of batch norm of its own, but encodes by those of the first."""
    folder = shutil.copytree(by_two_processes, tmp_path / "run")
    (folder / "metrics.json").unlink()
    shutil.rmtree(folder / "codes")
    code, _, errors = run_program(f"resume={folder}", "trainer=cpu")
    assert code == 0, errors
    assert read_json(folder / "record.json")["processes"] == 1
    assert_same_codes(by_two_processes, folder)


def test_ctrl_c_to_a_process_group_leaves_a_run_that_resumes_to_the_same(
    by_two_processes: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "stopped"
    process = start(folder, "trainer=ddp_cpu", *BATCH_NORM)
    wait_for_line(process, "hash 2/10")
    (child,) = child_ids(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    errors = assert_stopped(process, child, folder)
    _, script, *arguments = shlex.split(re.findall("Resume with: (.*)", errors)[0])
    assert script == str(ROOT / "train.py")
    process = start_train(*arguments, cwd=tmp_path)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert "hash: 10 epochs, from where it stopped" in output
    assert read_json(folder / "record.json")["processes"] == 2
    assert_same_training(by_two_processes, folder, tolerance=0)


def assert_stopped(process: subprocess.Popen[str], child: int, folder: Path) -> str:
    """Check that all processes end by one sentence; return it."""
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    resume = rf"resume={folder}( allow=\[plain_backbone\])?"
    assert re.fullmatch(rf"\s*Stopped\. Resume with: .* {resume}\s*", errors), errors
    assert has_ended(child)
    assert not list(folder.rglob("*.part*"))
    assert (folder / "checkpoints" / "hash.unfinished.ckpt").is_file()
    return errors


ACTS_AT_IMPORT = """
import os, signal, sys

def act(event, arguments):
    if event == "import" and arguments[0] == {module!r} and os.environ.get("LOCAL_RANK") == "1":
        print(os.getpid(), file=open("child", "w"))
        {action}

sys.addaudithook(act)
"""


def start_with_hook(folder: Path, module: str, action: str) -> subprocess.Popen[str]:
    """Start two processes; when the second imports a module it does this, and the first waits."""
    hook = folder.parent / "hook" / "sitecustomize.py"
    hook.parent.mkdir()
    hook.write_text(ACTS_AT_IMPORT.format(module=module, action=action))
    run_dir = f"run_dir={folder}"
    return start_train("trainer=ddp_cpu", run_dir, cwd=folder.parent, PYTHONPATH=str(hook.parent))


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("hydra", "SIGTERM"),
        pytest.param("hydra", "SIGINT", marks=pytest.mark.slow),
        pytest.param("torch", "SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_a_process_group_while_its_processes_start(
    module: str, number: str, tmp_path: Path
) -> None:
    process = start_with_hook(tmp_path / "run", module, f"os.killpg(0, signal.{number})")
    _, errors = process.communicate(timeout=600)
    assert (process.returncode, errors) == (130, "\nStopped.\n")
    assert has_ended(int((tmp_path / "child").read_text()))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_that_starts_ends_without_rank_zero(tmp_path: Path) -> None:
    process = start_with_hook(tmp_path / "run", "torch", "os.kill(os.getppid(), signal.SIGKILL)")
    _, errors = process.communicate(timeout=600)  # until the child has closed it, too
    assert process.returncode == -signal.SIGKILL
    assert errors == "error: a process of this run was lost, and the others were stopped.\n"
    assert has_ended(int((tmp_path / "child").read_text()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to_all"),
    [
        pytest.param(signal.SIGINT, False, id="SIGINT"),
        pytest.param(signal.SIGTERM, True, id="SIGTERM-to-all"),
        pytest.param(signal.SIGTERM, False, id="SIGTERM"),
    ],
)
def test_a_signal_ends_all_processes_and_leaves_a_run_to_resume(
    number: signal.Signals, to_all: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "stopped"
    process = start(folder, "trainer=ddp_cpu", *PLAIN, "training.hash.epochs=500")
    wait_for_line(process, "hash 2/500")
    (child,) = child_ids(process)
    (os.killpg if to_all else os.kill)(process.pid, number)
    assert_stopped(process, child, folder)
