import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from filelock import FileLock
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from deephash.cli import compose

# Of each test process and what it starts, before torch is imported: two at once on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
CONF = ROOT / "conf"
WANDB = Path(sys.executable).with_name("wandb")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")

# One epoch a phase; a quarter of the widths.
QUICK = [
    "training.pretrain.epochs=1",
    "training.init.epochs=1",
    "training.hash.epochs=1",
    "backbone.widths=[16,48,64]",
    "trainer=cpu",
]

ComposeRun = Callable[..., DictConfig]
RunProgram = Callable[..., tuple[int, str, str]]


def options(group: str) -> list[str]:
    """All choices of a group of conf/."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def compose_config(*overrides: str) -> DictConfig:
    return compose.compose_config(["run_dir=runs/test", *overrides])


def read_codes(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of a run's codes, by part and name: `query_words`."""
    arrays = {}
    for part in ("query", "database"):
        with np.load(folder / "codes" / f"{part}.npz") as file:
            arrays |= {f"{part}_{key}": file[key] for key in file.files}
    return arrays


def assert_same_codes(one: Path, other: Path) -> None:
    first, second = read_codes(one), read_codes(other)
    assert first.keys() == second.keys()
    for key, values in first.items():
        np.testing.assert_array_equal(values, second[key], err_msg=key)


def start_train(
    *overrides: str, cwd: Path, launcher: tuple[str, ...] = (sys.executable,), **environment: str
) -> subprocess.Popen[str]:
    """Start train.py, without a W&B account, in a process group of its own."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    defaults = {"WANDB_MODE": "offline", "NETRC": str(cwd / "no-netrc")}
    return subprocess.Popen(
        [*launcher, str(ROOT / "train.py"), *overrides],
        cwd=cwd,
        env={key: value for key, value in (inherited | defaults | environment).items() if value},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that started the tests in the background had them ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_line(process: subprocess.Popen[str], prefix: str, text: str = "") -> None:
    """Read the output of a process up to a line that begins so, with this text in it."""
    assert process.stdout is not None
    if not any(line.startswith(prefix) and text in line for line in process.stdout):
        pytest.fail(f"ended without a line {prefix!r}: {process.communicate()[1]}")


@pytest.fixture(autouse=True)
def default_log_level() -> None:
    """Undo what Hydra leaves in a process that it has run in: it shows INFO of all loggers."""
    logging.getLogger().setLevel(logging.WARNING)


@pytest.fixture
def compose_run(tmp_path: Path) -> ComposeRun:
    """Compose a quick run on digits that writes below the test's folder."""

    def make(*overrides: str, folder: str = "run") -> DictConfig:
        places = [f"run_dir={tmp_path / folder}", f"cache_dir={tmp_path / 'cache'}"]
        return compose_config("logger=none", *places, *QUICK, *overrides)

    return make


@pytest.fixture
def light_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without plots and source digest, which take most of the time of a quick run."""
    _lighten(monkeypatch)


def _lighten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deephash.experiment.plots.draw", lambda folder, **kwargs: {})
    monkeypatch.setattr("deephash.experiment.pipeline._source_digest", lambda settings: "0" * 64)


def resume_run(folder: Path, *overrides: str) -> float:
    from deephash.experiment.run import run

    cfg = OmegaConf.merge(compose_config(*overrides), {"resume": str(folder)})
    return run(cfg)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def _scratch_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from deephash.experiment.run import run

    folder = tmp_path_factory.mktemp("scratch") / "run"
    places = [f"run_dir={folder}", f"cache_dir={folder.parent / 'cache'}"]
    with pytest.MonkeyPatch.context() as monkeypatch:
        _lighten(monkeypatch)
        run(compose_config("logger=none", "phases=scratch", *places, *QUICK))
    return folder


@pytest.fixture
def scratch_run(_scratch_template: Path, tmp_path: Path) -> Path:
    """The folder of a finished run of the hashing phase alone, to change and to resume."""
    return shutil.copytree(_scratch_template, tmp_path / "scratch")


@pytest.fixture
def send_signal_at(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., None]]:
    """Have this process receive a signal, once, when a line that begins so is logged."""
    package = logging.getLogger("deephash")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # A shell that started the tests in the background has them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    added: list[logging.Handler] = []

    class Sender(logging.Handler):
        def __init__(self, prefix: str, number: signal.Signals) -> None:
            super().__init__()
            self.prefix, self.number = prefix, number

        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith(self.prefix):
                package.removeHandler(self)
                os.kill(os.getpid(), self.number)

    def add(prefix: str, number: signal.Signals) -> None:
        caplog.set_level(logging.INFO, "deephash")
        added.append(Sender(prefix, number))
        package.addHandler(added[-1])

    yield add
    for handler in added:
        package.removeHandler(handler)
    for number, action in before.items():
        signal.signal(number, action)  # Lightning ignores what has stopped a training


@pytest.fixture
def run_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[RunProgram]:
    """Run train.py in this process; return its exit code, output and error output."""
    from deephash.cli.train import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py"), *arguments])
        code: Any = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            HydraConfig.instance().cfg = None  # type: ignore[assignment]
            root.handlers[:] = handlers  # Hydra's write to an output that ends with the test
            root.setLevel(level)
        return code, *capsys.readouterr()

    yield run
    GlobalHydra.instance().clear()


class FinishedRun(NamedTuple):
    """A run by the command line: its folder, and what it printed."""

    folder: Path
    output: str


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run of 20 bits with W&B offline and tags, for tests that only read what it left."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # shared by the workers
    folder = base / "finished"
    output = folder / "output.txt"
    with FileLock(base / "finished.lock"):
        if not output.is_file():
            folder.mkdir()
            settings = [*QUICK, "bits=20", "logger=[wandb,csv]", "tags=[baseline,small nets]"]
            places = [f"run_dir={folder / 'run'}", f"cache_dir={folder / 'cache'}"]
            process = start_train(*settings, *places, cwd=folder, WANDB_MODE="")
            printed, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors
            assert {path.name for path in folder.glob("[!.]*")} == {"run", "cache"}
            output.write_text(printed)
    return FinishedRun(folder / "run", output.read_text())


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the real MNIST and CIFAR-10, for tests marked `realdata`."""
    folder = os.environ.get("DEEPHASH_DATA_DIR")
    if not folder:
        pytest.skip("realdata: DEEPHASH_DATA_DIR names no folder")
    return Path(folder)
