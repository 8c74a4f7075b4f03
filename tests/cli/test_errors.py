"""Wrong input at the command line: exit code 2 and one sentence with value, place and fix."""

import os
import runpy
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from hydra.core.global_hydra import GlobalHydra


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run train.py with arguments; return its exit code, output and error output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py"), *arguments])
        code = 0
        try:
            runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        except SystemExit as stop:
            code = stop.code or 0  # type: ignore[assignment]
        assert "HYDRA_FULL_ERROR" not in os.environ  # later ones would show traces
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["dataset=cifar11"], ["dataset=cifar11", "Did you mean 'cifar10'?"]),
        (["method=jiont"], ["method=jiont", "Did you mean 'joint'?"]),
        (["backbone=lennet"], ["backbone=lennet", "Did you mean 'lenet'?"]),
        (["phases=fulll"], ["phases=fulll", "Did you mean 'full'?"]),
        (["protocol=nonsense"], ["protocol=nonsense", "Valid:", "1k-59k"]),
        (["bit=48"], ["bit:", "Did you mean 'bits'?"]),
        (["method.tua=3"], ["method.tua", "Did you mean 'method.tau'?"]),
        (["+method.tua=3"], ["method.tua", "no such setting", "Did you mean 'tau'?"]),
        (["+nonsense=3"], ["nonsense", "no such setting"]),
        (["phase.hash.optimiser.lr=1"], ["phase.hash.optimizer.lr"]),
        (["bits=0"], ["bits=0", "greater than 0"]),
        (["bits=-3"], ["bits=-3", "greater than 0"]),
        (["bits=abc"], ["bits=abc", "valid integer"]),
        (["bits=1.5"], ["bits=1.5", "valid integer"]),
        (["bits=null"], ["bits=None", "valid integer"]),
        (["bits=???"], ["bits"]),
        (["seed=-1"], ["seed=-1"]),
        (["phase.hash.epochs=0"], ["phase.hash.epochs=0", "greater than 0"]),
        (["phase.hash.objective=sing"], ["phase.hash", "sing", "classify", "hash"]),
        (["phase.pretrain.batch_size=1"], ["phase.pretrain.batch_size=1"]),
        (["phases.order=[pretrain,hush]"], ["there is no phase 'hush'", "Did you mean 'hash'?"]),
        (["phases.order=[]"], ["phases"]),
        (["phases.order=[hash,pretrain]"], ["comes after one that hashes"]),
        (["phases.order=[hash,hash]"], ["phases", "twice"]),
        (["method.tau=-1"], ["method.tau=-1"]),
        (["method.tau=sharp"], ["method.tau=sharp", "valid number"]),
        (["method.surrogate=smooth"], ["method.surrogate=smooth", "'bilinear' or 'factored'"]),
        (["method._target_=deephash.methods.Nothing"], ["method._target_", "cannot be imported"]),
        (["backbone.widths=[8,x]"], ["backbone.widths", "valid integer"]),
        (["evaluation.radius=49"], ["evaluation.radius=49", "48"]),
        (["evaluation.ks=[100000]"], ["evaluation.ks", "100000", "1497"]),
        (["protocol.queries=500"], ["protocol.queries=500", "class"]),
        (["validation.share=1.0"], ["validation.share=1.0"]),
        (["phase.hash.optimizer.lr=fast"], ["phase.hash.optimizer.lr=fast"]),
        (["phase.hash.optimizer.lr=-1"], ["phase.hash.optimizer", "-1"]),
        (["augment.translate=16"], ["augment.translate=16", "16 x 16"]),
        (["trainer=gpu"], ["trainer", "gpu", "trainer=cpu"]),
        (["trainer.precision=17"], ["trainer", "17"]),
        (["dataset=cifar10", "data_dir=empty"], ["empty", "data_batch_1", "dataset=digits"]),
        (["dataset=digits", "backbone=lenet", "recipe=nothing"], ["recipe=nothing"]),
        (["dataset=images"], ["dataset.path=data/images", "no such folder", "class folders"]),
        (["dataset=images", "dataset.size=big"], ["dataset.size=big", "valid integer"]),
        (["dataset=nuswide"], ["data/NUS-WIDE", "Groundtruth/AllLabels", "dataset.lists="]),
        (["dataset=nuswide", "dataset.subset=tc22"], ["dataset.subset=tc22", "'tc21'"]),
        (["protocol=given"], ["data/query.txt cannot be read", "No such file"]),
        (["protocol=10-percent", "protocol.queries=2"], ["protocol.queries=2"]),
        (["resume=nowhere"], ["resume=nowhere", "no run is there"]),
        (["run_dir=/dev/null/run"], ["run_dir=/dev/null/run", "Name another run_dir"]),
        (["logger=wandb", "logger.mode=loud"], ["logger.mode=loud", "'online' or 'offline'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_is_told_in_one_sentence(train, arguments: list[str], told: list[str]) -> None:
    code, _, err = train("logger=none", *arguments)
    assert code == 2, err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    for words in told:
        assert words in err
    assert not Path("runs").exists()


def test_help_names_the_groups(train) -> None:
    code, out, _ = train("--help")
    assert code == 0
    for group in ("dataset", "backbone", "method", "phases", "protocol", "trainer", "logger"):
        assert f"\n{group}: " in out
