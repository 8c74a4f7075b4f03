"""A search, for real: shared by two processes, stopped and gone on with."""

import json
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from conftest import QUICK, ROOT
from optuna.storages.journal import JournalFileBackend, JournalStorage

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


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("search.space=[{setting:method.tua,low:1,high:8}]", "there is no setting 'method.tua'"),
        ("search.trials=0", "search.trials=0"),
        ("search.space=[{setting:method.tau,low:-2,high:-1}]", "2 trials failed"),
    ],
)
def test_what_cannot_be_searched_is_told(override: str, told: str, tmp_path: Path) -> None:
    command = ["search.trials=2", override] if "trials" not in override else [override]
    process = searching(tmp_path / "search", *command)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 2
    assert told in errors
