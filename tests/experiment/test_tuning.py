"""A search, for real: shared by two processes, stopped and gone on with."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from conftest import QUICK, ROOT
from omegaconf import DictConfig
from optuna.storages.journal import JournalFileBackend, JournalStorage

from deephash.core.errors import UserError
from deephash.experiment.tuning import search

SPACE = (
    "search.space=[{setting:method.tau,low:1,high:8,log:true},"
    "{setting:phase.hash.batch_size,low:50,high:100},"
    "{setting:method.surrogate,choices:[bilinear,factored]}]"
)


def searching(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    own = [f"run_dir={folder}", f"cache_dir={folder.parent / 'cache'}", *QUICK, "logger=none"]
    return subprocess.Popen(
        [sys.executable, ROOT / "train.py", "search=optuna", *own, *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder.parent,
        text=True,
    )


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = JournalStorage(JournalFileBackend(str(folder / "study.log")))
    return optuna.load_study(study_name="search", storage=storage).get_trials()


def test_two_processes_share_a_search_that_then_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    both = [searching(folder, SPACE, "search.trials=3", "phases=pretrained") for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    shared = trials_of(folder)
    assert 3 <= len(shared) <= 4  # the last may have begun together
    output, _ = searching(folder, SPACE, "search.trials=5", "phases=pretrained").communicate()
    trials = trials_of(folder)
    assert len(trials) == 5
    for trial in trials:
        run = folder / f"trial-{trial.number}"
        figures = json.loads((run / "metrics.json").read_text())
        assert trial.value == figures["validation"]["val/map"]  # not of the test queries
        assert figures["record"]["method"]["tau"] == trial.params["method.tau"]
        assert 1 <= trial.params["method.tau"] <= 8
        assert isinstance(trial.params["phase.hash.batch_size"], int)
    best = max(trials, key=lambda trial: trial.values[0])
    assert f"best: python train.py method.tau={best.params['method.tau']}" in output


def test_a_stopped_trial_goes_on_by_one_of_those_that_begin_again(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    command = [SPACE, "search.trials=1", "phases=scratch", "phase.hash.epochs=4"]
    stopped = searching(folder, *command)
    assert stopped.stdout is not None
    for line in stopped.stdout:
        if line.startswith("hash 2/4"):
            stopped.send_signal(signal.SIGTERM)
            break
    _, errors = stopped.communicate(timeout=600)
    assert stopped.returncode == 130, errors
    (before,) = trials_of(folder)
    assert before.state == optuna.trial.TrialState.WAITING
    both = [searching(folder, *command) for _ in range(2)]
    outputs = [process.communicate(timeout=600)[0] for process in both]
    assert sum(output.count("from where it stopped") for output in outputs) == 1
    went_on, *_ = trials_of(folder)  # the other process may have begun a second one
    assert went_on.state == optuna.trial.TrialState.COMPLETE
    assert went_on.params == before.params


def test_a_search_by_several_processes_is_refused(
    compose_run: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose_run("search=optuna", "trainer=ddp_cpu")
    with pytest.raises(UserError, match=r"trainer.devices=2: each of the 2 processes would search"):
        search(cfg)
    monkeypatch.setenv("WORLD_SIZE", "4")  # as torchrun does
    with pytest.raises(UserError, match="4 processes were started together"):
        search(cfg)
    assert not Path(cfg.run_dir).exists()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("search.space=[{setting:method.tua,low:1,high:8}]", "there is no setting 'method.tua'"),
        ("search.trials=0", "search.trials=0"),
        ("search.space=[{setting:method.tau,low:-2,high:-1}]", "2 trials failed"),
        ("-m", "-m with search=optuna: a search begins its runs itself. Leave -m out."),
    ],
)
def test_what_cannot_be_searched_is_told(override: str, told: str, tmp_path: Path) -> None:
    command = ["search.trials=2", override] if "trials" not in override else [override]
    process = searching(tmp_path / "search", *command)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 2
    assert told in errors
