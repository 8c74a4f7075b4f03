import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

# Of each test process and what it starts, before torch is imported: two at once on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
WANDB = Path(sys.executable).with_name("wandb")

# One epoch a phase; a quarter of the widths.
QUICK = [
    "phase.pretrain.epochs=1",
    "phase.init.epochs=1",
    "phase.hash.epochs=1",
    "backbone.widths=[16,48,64]",
    "trainer=cpu",
]


def options(group: str) -> list[str]:
    """All choices of a group of conf/."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=["run_dir=runs/test", *overrides])


def codes_of(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for part in ("query", "database"):
        with np.load(folder / "codes" / f"{part}.npz") as file:
            found |= {f"{part}_{key}": file[key] for key in file.files}
    return found


def assert_same_codes(one: Path, other: Path) -> None:
    first, second = codes_of(one), codes_of(other)
    assert first.keys() == second.keys()
    for key, values in first.items():
        np.testing.assert_array_equal(values, second[key], err_msg=key)


@pytest.fixture
def compose_run(tmp_path: Path) -> Callable[..., DictConfig]:
    """Compose a quick run on digits that writes below the test's folder."""

    def make(*overrides: str, folder: str = "run") -> DictConfig:
        places = [f"run_dir={tmp_path / folder}", f"cache_dir={tmp_path / 'cache'}"]
        return composed("logger=none", *places, *QUICK, *overrides)

    return make


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the real MNIST and CIFAR-10, for tests marked `realdata`."""
    folder = os.environ.get("DEEPHASH_DATA_DIR")
    if not folder:
        pytest.skip("realdata: DEEPHASH_DATA_DIR names no folder")
    return Path(folder)
