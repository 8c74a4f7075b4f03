"""Runs that are stopped, killed and resumed; checkpoints that do not fit."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import (
    QUICK,
    ComposeRun,
    RunProgram,
    assert_same_codes,
    resume_run,
    start_train,
    wait_for_line,
)
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString

from deephash.core.errors import UserError
from deephash.core.program import resume_command
from deephash.experiment.run import run
from deephash.experiment.signals import interruptible

pytestmark = pytest.mark.usefixtures("light_runs")


def read_metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def read_curve(folder: Path, name: str) -> list[str]:
    rows = [row.split(",") for row in (folder / "curves.csv").read_text().splitlines()]
    column = rows[0].index(name)
    return [row[column] for row in rows]


@pytest.mark.parametrize(
    ("phase", "optimizer"),
    [
        pytest.param("pretrain", "sgd", marks=pytest.mark.slow),
        pytest.param("hash", "sgd", marks=pytest.mark.slow),
        ("hash", "muon"),
    ],
)
def test_a_killed_run_resumed_equals_an_uninterrupted_one(
    phase: str, optimizer: str, compose_run: ComposeRun, tmp_path: Path
) -> None:
    settings = [
        "bits=12",
        f"training.{phase}.epochs=3",
        f"optimizer@training.{phase}.optimizer={optimizer}",
        "logger=csv",
    ]
    uninterrupted = tmp_path / "uninterrupted"
    run(compose_run(*settings, folder="uninterrupted"))
    folder = tmp_path / "killed"
    places = [f"run_dir={folder}", f"cache_dir={tmp_path / 'other_cache'}"]
    process = start_train(*QUICK, *settings, *places, cwd=tmp_path)
    wait_for_line(process, f"{phase} 2/3")
    process.kill()
    process.communicate()
    assert not (folder / "metrics.json").exists()
    resume_run(folder)
    assert_same_codes(uninterrupted, folder)
    assert read_metrics(uninterrupted)["test"] == read_metrics(folder)["test"]
    curve = f"{phase}/loss"
    assert read_curve(uninterrupted, curve) == read_curve(folder, curve)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_a_signal_leaves_a_run_to_resume(
    number: signal.Signals,
    compose_run: ComposeRun,
    send_signal_at: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    cfg = compose_run("phases=scratch", "training.hash.epochs=50", "logger=csv")
    send_signal_at("hash 2/50", number)
    with pytest.raises(SystemExit) as stop:
        run(cfg)
    folder = Path(cfg.run_dir)
    assert stop.value.code == 130
    assert re.search(rf"Stopped. Resume with: .* resume={folder}\n", capsys.readouterr().err)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["hash.unfinished.ckpt"]
    assert not list(folder.rglob("*.part*"))


class StoppedWhenDeleted:
    """Receives a signal where Python drops its exception."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        time.sleep(0.01)


@pytest.mark.usefixtures("send_signal_at")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_a_signal_is_not_lost_in_a_destructor(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if number is signal.SIGTERM:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell

    def work() -> None:
        with interruptible(tmp_path / "config.yaml"):
            StoppedWhenDeleted(number)
            time.sleep(5)

    with pytest.raises(SystemExit) as stop:
        work()
    assert stop.value.code == 130
    assert capsys.readouterr().err == "\nStopped.\n"


def test_a_slurm_job_near_its_time_limit_is_requeued_and_continues(
    compose_run: ComposeRun,
    monkeypatch: pytest.MonkeyPatch,
    send_signal_at: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    longer = ["phases=scratch", "training.hash.epochs=4"]
    run(compose_run(*longer, folder="uninterrupted"))
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/calls")
    scontrol.chmod(0o755)
    slurm = {"JOB_ID": "7", "JOB_NAME": "hashing", "NTASKS": "1", "PROCID": "0", "LOCALID": "0",
             "NODEID": "0", "NODELIST": "localhost"}  # fmt: skip
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    job = compose_run(*longer, "logger=wandb", "logger.wandb.mode=offline", folder="job")
    send_signal_at("hash 2/4", signal.SIGUSR1)
    with pytest.raises(SystemExit) as stop:
        run(job)
    assert stop.value.code == 130
    assert (tmp_path / "calls").read_text() == "requeue 7\n"
    caplog.clear()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run(job)
    assert "hash: 4 epochs, from where it stopped" in caplog.messages
    assert not any(line.startswith("hash 1/4") for line in caplog.messages)
    assert_same_codes(tmp_path / "uninterrupted", tmp_path / "job")
    run_ids = [path.name.rpartition("-")[2] for path in tmp_path.glob("job/wandb/offline-run-*")]
    assert len(run_ids) == 2
    assert len(set(run_ids)) == 1


SIGNALS_ITSELF = """
import os, signal, sys

def interrupt(event, arguments):
    if event == "import" and arguments[0] == {module!r}:
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(interrupt)
"""


def assert_stopped_silently(process: subprocess.Popen[str], folder: Path) -> None:
    output, errors = process.communicate(timeout=600)
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in errors
    assert "HYDRA" not in output  # what torch logs at exit
    assert not list(folder.rglob("*.part*"))


@pytest.mark.parametrize(
    "module",
    ["hydra", "omegaconf", "torch", "torch._meta_registrations", "deephash.training.phases"],
)
def test_ctrl_c_during_imports_leaves_nothing(module: str, tmp_path: Path) -> None:
    hook = tmp_path / "hook" / "sitecustomize.py"
    hook.parent.mkdir()
    hook.write_text(SIGNALS_ITSELF.format(module=module))
    folder = tmp_path / "run"
    process = start_train(f"run_dir={folder}", cwd=tmp_path, PYTHONPATH=str(hook.parent))
    assert_stopped_silently(process, tmp_path)
    assert not folder.exists()


def test_ctrl_c_pressed_again_at_the_end_is_silent(tmp_path: Path) -> None:
    hook = tmp_path / "sitecustomize.py"
    hook.write_text(
        "import atexit, os, signal\natexit.register(os.kill, os.getpid(), signal.SIGINT)"
    )
    process = start_train("--version", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    _, errors = process.communicate(timeout=600)
    assert (process.returncode, errors) == (-signal.SIGINT, "")


def test_ctrl_c_in_training_is_answered_without_a_trace(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start_train(
        *QUICK, "training.pretrain.epochs=1000", f"run_dir={folder}", cwd=tmp_path
    )
    wait_for_line(process, "pretrain 2/1000")
    os.kill(process.pid, signal.SIGINT)
    assert_stopped_silently(process, tmp_path)
    assert (folder / "checkpoints" / "pretrain.unfinished.ckpt").is_file()


def change_checkpoint(path: Path, change: Callable[[dict], object]) -> None:
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)


def set_seconds(checkpoint: dict, seconds: float = 1000.0) -> None:
    checkpoint["callbacks"]["Curves"]["seconds"] = seconds


def test_a_resumed_run_counts_the_seconds_of_all_its_sittings(scratch_run: Path) -> None:
    change_checkpoint(scratch_run / "checkpoints" / "hash.ckpt", set_seconds)
    (scratch_run / "metrics.json").unlink()
    resume_run(scratch_run)
    seconds = read_metrics(scratch_run)["seconds"]
    assert 1000 <= seconds["hash"] <= seconds["total"]
    assert "pretrain_cached" not in seconds


def test_a_cached_pretraining_costs_a_run_nothing(compose_run: ComposeRun, tmp_path: Path) -> None:
    order = "phases.order=[pretrain]"
    run(compose_run(order, folder="trainer"))
    (cached,) = (tmp_path / "cache").glob("pretrain-*.ckpt")
    change_checkpoint(cached, set_seconds)
    folder = tmp_path / "finder"
    run(compose_run(order, "bits=16", folder=folder.name))
    first = read_metrics(folder)["seconds"]
    (folder / "metrics.json").unlink()
    resume_run(folder)
    for seconds in (first, read_metrics(folder)["seconds"]):
        assert seconds["pretrain_cached"] == pytest.approx(1000, abs=1)
        assert seconds["pretrain"] <= seconds["total"] < 1000


def test_checkpoints_are_written_beside_their_names(
    compose_run: ComposeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")  # may be another file system, or full
    cfg = compose_run("phases=scratch")
    run(cfg)
    assert (Path(cfg.run_dir) / "checkpoints" / "hash.ckpt").is_file()


@pytest.mark.parametrize(
    ("key", "value"), [("bits", 16), ("backbone", None), ("data", "0" * 64)], ids=str
)
def test_a_checkpoint_of_another_model_is_refused(
    key: str, value: object, scratch_run: Path
) -> None:
    (scratch_run / "metrics.json").unlink()
    path = scratch_run / "checkpoints" / "hash.ckpt"
    change_checkpoint(path, lambda checkpoint: checkpoint["deephash"].update({key: value}))
    with pytest.raises(UserError, match=rf"hash.ckpt belongs to another model: its {key} is"):
        resume_run(scratch_run)


def test_a_corrupt_checkpoint_is_named(scratch_run: Path) -> None:
    (scratch_run / "metrics.json").unlink()
    path = scratch_run / "checkpoints" / "hash.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"hash.ckpt is corrupt"):
        resume_run(scratch_run)


def test_a_finished_run_is_left_as_it_is(
    scratch_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.read_bytes() for path in scratch_run.rglob("*") if path.is_file()}
    with caplog.at_level("INFO", "deephash"):
        resume_run(scratch_run)
    assert f"reusing the finished run in {scratch_run}" in caplog.messages
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("train.py", "python train.py"),
        ("../deephash/train.py", "python ../deephash/train.py"),
        ("my clone/train.py", "python 'my clone/train.py'"),
        ("/usr/bin/deephash", "deephash train"),
        ("/x/deephash/__main__.py", "python -m deephash train"),
        ("/usr/bin/pytest", "python train.py"),
    ],
)
def test_the_command_to_resume_starts_the_program_as_it_was_started(
    program: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "bits=8"])
    assert resume_command(Path("runs/a")) == f"{command} resume=runs/a"


def test_a_plain_folder_is_not_quoted_in_the_command_to_resume() -> None:
    assert resume_command(Path("runs/a-1.0")).endswith(" resume=runs/a-1.0")


@pytest.mark.parametrize(
    "name",
    ["bits=12,seed=0", "tags=[a,b]", "my run", "it's", 'a "b"', "$HOME `x` !1", "back\\slash\\",
     "{a: 1}", "über", "(x)", "~", "a;b&c|d", "#1", "-x"],
)  # fmt: skip
def test_the_command_to_resume_can_be_pasted(
    name: str, scratch_run: Path, run_program: RunProgram, tmp_path: Path
) -> None:
    folder = scratch_run.rename(tmp_path / name)
    for command in (resume_command(folder), resume_command(folder.relative_to(tmp_path))):
        shell = ["bash", "-c", f'python() {{ printf "%s\\0" "$@"; }}; {command}']
        printed = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
        words = printed.removesuffix("\0").split("\0")
        assert shlex.split(command)[1:] == words
        code, output, errors = run_program(words[-1])
        assert code == 0, errors
        assert "reusing the finished run" in output


@pytest.mark.parametrize("name", ["1", "null", "true", "1e5", "a"])
def test_a_folder_that_hydra_would_read_as_another_value_is_quoted(name: str) -> None:
    (override,) = shlex.split(resume_command(Path(name)))[-1:]
    (parsed,) = OverridesParser.create().parse_overrides([override])
    value = parsed.value()
    assert (value.text if isinstance(value, QuotedString) else value) == name
