"""Searches for settings: continued, stopped, and shared by two processes."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import QUICK, ComposeRun, RunProgram, start_train, wait_for_line

from deephash.core.errors import UserError
from deephash.experiment.tuning import tune

optuna = pytest.importorskip("optuna")
from optuna.storages.journal import JournalFileBackend, JournalStorage  # noqa: E402

SPACE = (
    "tuning.space=[{setting:method.tau,low:1,high:8,log:true},"
    "{setting:training.hash.batch_size,low:50,high:100},"
    "{setting:method.surrogate,choices:[bilinear,factored]}]"
)


def tuning_arguments(folder: Path, *overrides: str) -> list[str]:
    places = [f"run_dir={folder}", f"cache_dir={folder.parent / 'cache'}"]
    return ["tuning=optuna", *places, *QUICK, "logger=none", *overrides]


def start_tuning(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    return start_train(*tuning_arguments(folder, *overrides), cwd=folder.parent)


def read_trials(folder: Path) -> list["optuna.trial.FrozenTrial"]:
    storage = JournalStorage(JournalFileBackend(str(folder / "study.log")))
    return optuna.load_study(study_name="search", storage=storage).get_trials()


def test_a_search_goes_on_to_more_trials(
    run_program: RunProgram, light_runs: None, tmp_path: Path
) -> None:
    folder = tmp_path / "search"
    for count in (1, 2):
        code, output, errors = run_program(
            *tuning_arguments(folder, SPACE, f"tuning.trials={count}", "phases=pretrained")
        )
        assert code == 0, errors
        trials = read_trials(folder)
        assert len(trials) == count
    for trial in trials:
        results = json.loads((folder / f"trial-{trial.number}" / "metrics.json").read_text())
        assert trial.value == results["validation"]["val/map"]  # not of the test queries
        assert results["record"]["method"]["tau"] == trial.params["method.tau"]
        assert 1 <= trial.params["method.tau"] <= 8
        assert isinstance(trial.params["training.hash.batch_size"], int)
    best = max(trials, key=lambda trial: trial.values[0])
    assert f"best: python train.py method.tau={best.params['method.tau']}" in output


def test_a_stopped_trial_is_continued(
    run_program: RunProgram,
    light_runs: None,
    send_signal_at: Callable[..., None],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "search"
    arguments = tuning_arguments(
        folder, SPACE, "tuning.trials=1", "phases=scratch", "training.hash.epochs=3"
    )
    send_signal_at("hash 2/3", signal.SIGTERM)
    code, _, errors = run_program(*arguments)
    assert code == 130, errors
    (stopped,) = read_trials(folder)
    assert stopped.state == optuna.trial.TrialState.WAITING
    code, output, errors = run_program(*arguments)
    assert code == 0, errors
    assert "from where it stopped" in output
    (trial,) = read_trials(folder)
    assert trial.state == optuna.trial.TrialState.COMPLETE
    assert trial.params == stopped.params


@pytest.mark.slow
def test_two_processes_share_a_search(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    both = [start_tuning(folder, SPACE, "tuning.trials=3", "phases=pretrained") for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    trials = read_trials(folder)
    assert 3 <= len(trials) <= 4  # the last two may have started together
    assert {trial.state for trial in trials} == {optuna.trial.TrialState.COMPLETE}


@pytest.mark.slow
def test_a_stopped_trial_is_continued_by_one_of_two_processes(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    overrides = [SPACE, "tuning.trials=1", "phases=scratch", "training.hash.epochs=4"]
    process = start_tuning(folder, *overrides)
    wait_for_line(process, "hash 2/4")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    (stopped,) = read_trials(folder)
    both = [start_tuning(folder, *overrides) for _ in range(2)]
    outputs = [process.communicate(timeout=600)[0] for process in both]
    assert sum(output.count("from where it stopped") for output in outputs) == 1
    continued, *_ = read_trials(folder)  # the other process may have started a second one
    assert continued.state == optuna.trial.TrialState.COMPLETE
    assert continued.params == stopped.params


def test_a_search_by_launched_processes_is_refused(
    compose_run: ComposeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose_run("tuning=optuna", "trainer=ddp_cpu")
    with pytest.raises(UserError, match=r"trainer.devices=2: each of the 2 processes would search"):
        tune(cfg)
    monkeypatch.setenv("WORLD_SIZE", "4")  # as torchrun does
    with pytest.raises(UserError, match="4 processes were launched together"):
        tune(cfg)
    assert not Path(cfg.run_dir).exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tuning.space=[{setting:method.tua,low:1,high:8}]"], "no setting 'method.tua'"),
        (["tuning.trials=0"], "tuning.trials=0"),
        (
            ["tuning.trials=2", "tuning.space=[{setting:method.tau,low:-2,high:-1}]"],
            "2 trials failed",
        ),
        (["-m"], "-m with tuning=optuna: a search starts its runs itself. Omit -m."),
    ],
    ids=["setting", "trials", "failures", "multirun"],
)
def test_an_impossible_search_is_explained(
    run_program: RunProgram, overrides: list[str], message: str, tmp_path: Path
) -> None:
    code, _, errors = run_program(*tuning_arguments(tmp_path / "search", *overrides))
    assert code == 2
    assert message in errors
